"""Published figures of TPU chips, per chip.

Sources: the pages "TPU v5e", "TPU v5p" and "TPU v6e" of https://docs.cloud.google.com/tpu/docs (read November
2026). They give the interconnect of a chip in both directions together; `ici` is one direction, half of that.
`dcn` is a chip's share of its host's network cards: 25 Gb/s (v5e: 2 x 100 Gb/s for 8 chips), 50 Gb/s (v5p)
and 100 Gb/s (v6e: 4 x 200 Gb/s for 8 chips). `hbm` is what the compiler leaves to programs; its "out of
memory" messages name the same figure.
"""

import dataclasses

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of TPU.

    Attributes:
        kind: as JAX names the device.
        flops: bfloat16 floating-point operations per second.
        hbm: bytes of memory that programs may use.
        hbm_bandwidth: bytes per second.
        ici: bytes per second that leave a chip over all links to its neighbours.
        dcn: bytes per second that leave a chip for another slice.
        axes: dimensions of the torus.
    """

    kind: str
    flops: float
    hbm: int
    hbm_bandwidth: float
    ici: float
    dcn: float
    axes: int


CHIPS = {
    "v5e": Chip("TPU v5 lite", 197e12, int(15.75 * GIB), 819e9, 200e9, 3.125e9, axes=2),
    "v5p": Chip("TPU v5", 459e12, int(95.74 * GIB), 2765e9, 600e9, 6.25e9, axes=3),
    "v6e": Chip("TPU v6 lite", 918e12, int(31.25 * GIB), 1640e9, 400e9, 12.5e9, axes=2),
}
