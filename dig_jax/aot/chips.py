"""Published figures of TPU chips and GPUs, per chip.

TPUs: the pages "TPU v5e", "TPU v5p" and "TPU v6e" of https://docs.cloud.google.com/tpu/docs (read November
2026). They give the interconnect of a chip in both directions together; `ici` is one direction, half of that.
`dcn` is a chip's share of its host's network cards: 25 Gb/s (v5e: 2 x 100 Gb/s for 8 chips), 50 Gb/s (v5p)
and 100 Gb/s (v6e: 4 x 200 Gb/s for 8 chips). `hbm` is what the compiler leaves to programs; its "out of
memory" messages name the same figure.

GPUs: `flops` (dense) and NVLink are those of NVIDIA's data sheets of the SXM modules, `ici` again one
direction; `hbm` and `hbm_bandwidth` are what the device reports, as in openxla/xla's target descriptions (see
`gpus`). `dcn` is one network card per GPU, as in NVIDIA's DGX machines: 200 Gb/s beside an A100, 400 Gb/s
beside the others.
"""

import dataclasses

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of TPU or GPU.

    Attributes:
        kind: as JAX names the device.
        flops: bfloat16 floating-point operations per second.
        hbm: bytes of memory: of TPUs what programs may use, of GPUs what there is.
        hbm_bandwidth: bytes per second.
        ici: bytes per second that leave a chip for others of its slice or host: all links of a TPU to its
            neighbours, or NVLink.
        dcn: bytes per second that leave a chip for another slice, or a GPU for another host.
        usable: share of `hbm` that a step may take. The rest covers fragmentation and the runtime's own
            buffers; on a GPU also the CUDA context, code, and the buffers of NCCL and cuBLAS.
        is_gpu: whether it is a GPU.
    """

    kind: str
    flops: float
    hbm: int
    hbm_bandwidth: float
    ici: float
    dcn: float
    usable: float = 0.95
    is_gpu: bool = False


def _gpu(kind: str, flops: float, hbm: int, hbm_bandwidth: float, nvlink: float, network: float) -> Chip:
    return Chip(kind, flops, hbm, hbm_bandwidth, nvlink, network, usable=0.9, is_gpu=True)


CHIPS = {
    "v5e": Chip("TPU v5 lite", 197e12, int(15.75 * GIB), 819e9, 200e9, 3.125e9),
    "v5p": Chip("TPU v5", 459e12, int(95.74 * GIB), 2765e9, 600e9, 6.25e9),
    "v6e": Chip("TPU v6 lite", 918e12, int(31.25 * GIB), 1640e9, 400e9, 12.5e9),
    "a100": _gpu("NVIDIA A100-SXM4-80GB", 312e12, 85_100_068_864, 2039.04e9, 300e9, 25e9),
    "h100": _gpu("NVIDIA H100 80GB HBM3", 989e12, 84_942_979_072, 3352.32e9, 450e9, 50e9),
    "h200": _gpu("NVIDIA H200", 989e12, 151_397_597_184, 4800e9, 450e9, 50e9),
    "b200": _gpu("NVIDIA B200", 2250e12, 191_514_411_008, 7672.32e9, 900e9, 50e9),
}
