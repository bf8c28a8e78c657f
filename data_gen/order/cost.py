"""What pairs cost in time and disk: the figures of docs/data_gen.md, from bench/generator.py."""

from __future__ import annotations

from data_gen.scenes.presets import Preset

# Seconds of one core of an AMD EPYC server.
SECONDS_PER_PAIR = 0.16  # planning, Blender's own work, checks
SECONDS_PER_MEGAPIXEL = 6.0  # of both pictures, where they are denoised: denoiser, drafts, masks
SECONDS_PER_MEGASAMPLE = 1.2  # a sample is one path through one pixel of one picture
SURROUNDED = 2.0  # times as long where light comes from all around, on glass and on hollow objects
ATTEMPTS = 1.1  # pairs that are rendered for one that is kept

BYTES_PER_PIXEL = 1.0  # PNG files
BYTES_PER_RECORD = 20_000  # scenes, objects and boxes


def disk_bytes(preset: Preset, pairs: int) -> int:
    """Bytes that so many staged pairs take; the packed dataset takes as many again while it is written."""
    return pairs * int(2 * preset.width * preset.height * BYTES_PER_PIXEL + BYTES_PER_RECORD)


def core_seconds(preset: Preset, pairs: int) -> float:
    """Seconds of one CPU core for so many pairs."""
    megapixels = 2 * preset.width * preset.height / 1e6
    seconds = SECONDS_PER_PAIR + SECONDS_PER_MEGASAMPLE * megapixels * preset.samples
    if preset.denoise:
        seconds += SECONDS_PER_MEGAPIXEL * megapixels
    if {"hdri", "sky"} & set(preset.lighting):
        seconds *= SURROUNDED
    return ATTEMPTS * pairs * seconds
