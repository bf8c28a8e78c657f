"""What devices can do at most: the yardsticks of the benchmarks on accelerators."""

import dataclasses

from dig_jax.aot.chips import CHIPS


@dataclasses.dataclass(frozen=True)
class Peak:
    """Of one device.

    Attributes:
      flops: bfloat16 (where there is none, float16) floating-point operations per second, dense, with float32
        accumulation.
      bandwidth: bytes per second of device memory.
    """

    flops: float
    bandwidth: float


# By `jax.Device.device_kind`; of GPUs from the vendor's data sheets.
PEAKS = {
    "NVIDIA H100 PCIe": Peak(756e12, 2.0e12),
    "NVIDIA A100-SXM4-40GB": Peak(312e12, 1.555e12),
    "NVIDIA L4": Peak(121e12, 0.3e12),
    "NVIDIA GeForce RTX 4090": Peak(165e12, 1.008e12),
    "Tesla T4": Peak(65e12, 0.32e12),
    **{chip.kind: Peak(chip.flops, chip.hbm_bandwidth) for chip in CHIPS.values()},
}
