"""Pairs of nearly identical pictures with a box for every difference, as the TFDS dataset `dig_pairs`.

A pair goes through four stages: `plan` (scenes and changes as data, from a seed), `worker` (Blender, in a
subprocess), `verify` (accept or resample) and `pack` (TFDS records). `python -m data_gen --help` runs them.
"""
