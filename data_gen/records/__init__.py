"""Stage 4, pack: what a pair's record holds, the TFDS dataset, its card and its gallery."""
