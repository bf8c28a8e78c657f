"""What pairs cost in time and disk, from the figures of docs/data_gen.md."""

from __future__ import annotations

from data_gen.presets import Preset

# Measured with bench/generator.py, on one core of a 2.x GHz server; noisy machines take up to twice as long.
SECONDS_PER_PAIR = 0.25  # identity masks, Blender's own work and the checks, whatever the resolution
SECONDS_PER_MEGASAMPLE = 1.6  # a sample is one path through one pixel of one picture
REJECTED_AFTER_MASKS = 1.3  # attempts per pair, most of which end at the identity masks

BYTES_PER_PIXEL = 1.0  # PNG files of pictures with the renderer's noise
BYTES_PER_RECORD = 12_000  # scenes, objects and boxes


def disk_bytes(preset: Preset, pairs: int) -> int:
    """Bytes that so many staged pairs take; the packed dataset takes as many again while it is written."""
    return pairs * int(2 * preset.width * preset.height * BYTES_PER_PIXEL + BYTES_PER_RECORD)


def core_seconds(preset: Preset, pairs: int) -> float:
    """Seconds of one CPU core for so many pairs."""
    megasamples = 2 * preset.width * preset.height * preset.samples / 1e6
    return pairs * (REJECTED_AFTER_MASKS * SECONDS_PER_PAIR + SECONDS_PER_MEGASAMPLE * megasamples)
