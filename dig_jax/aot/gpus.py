"""NVIDIA GPUs that are not there: what XLA's compiler must know of them to compile for them.

The GPU compiler is in the package jax-cuda13-plugin and needs no GPU and no driver, only a description of
the device: a `stream_executor.GpuTargetConfigProto` as text. The figures are those of openxla/xla,
`xla/backends/gpu/target_config/specs` (a100_sxm_80, h100_sxm, h200, b200; read November 2026), without its
tables of instruction rates; what all four have alike is written once below. Where the A100's description says
nothing (driver, versions, PCIe) it has the values of the H100; 12 NVLinks are from its data sheet.
"""

import dataclasses
import importlib.util

import jax
from jax.experimental import topologies

from dig_jax.aot.chips import CHIPS

INSTALL = "pip install 'dig_jax[aot-gpu]'"
# What must be there: of each row one of these modules, from a package of that name.
PARTS = (
    ("jax-cuda13-plugin", ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")),
    ("nvidia-cudnn-cu13", ("nvidia.cudnn",)),
)


@dataclasses.dataclass(frozen=True)
class Target:
    """What distinguishes one kind of GPU, in the names and units of the description.

    Attributes:
        compute_capability: as NVIDIA numbers it.
        accelerated: has instructions of its own that later GPUs need not have (sm_90a, sm_100a).
        core_count: streaming multiprocessors.
        fpus_per_core: float32 units of each.
        shared_memory_per_core: bytes.
        shared_memory_per_block_optin: bytes.
        l2_cache_size: bytes.
        clock_rate_ghz: highest.
        pcie_bandwidth: bytes per second.
        active_links: of NVLink.
    """

    compute_capability: tuple[int, int]
    accelerated: bool
    core_count: int
    fpus_per_core: int
    shared_memory_per_core: int
    shared_memory_per_block_optin: int
    l2_cache_size: int
    clock_rate_ghz: float
    pcie_bandwidth: int
    active_links: int


_HOPPER = Target(
    compute_capability=(9, 0),
    accelerated=True,
    core_count=132,
    fpus_per_core=128,
    shared_memory_per_core=233472,
    shared_memory_per_block_optin=232448,
    l2_cache_size=52428800,
    clock_rate_ghz=1.98,
    pcie_bandwidth=1 << 35,
    active_links=18,
)
TARGETS = {
    "a100": Target(
        compute_capability=(8, 0),
        accelerated=False,
        core_count=108,
        fpus_per_core=64,
        shared_memory_per_core=167936,
        shared_memory_per_block_optin=166912,
        l2_cache_size=41943040,
        clock_rate_ghz=1.41,
        pcie_bandwidth=1 << 35,
        active_links=12,
    ),
    "h100": _HOPPER,
    "h200": _HOPPER,
    "b200": dataclasses.replace(
        _HOPPER,
        compute_capability=(10, 0),
        core_count=148,
        l2_cache_size=132644864,
        clock_rate_ghz=1.965,
        pcie_bandwidth=1 << 36,
    ),
}


def description(kind: str) -> str:
    """The description of a GPU in the text form of its protocol buffer."""
    target, chip = TARGETS[kind], CHIPS[kind]
    major, minor = target.compute_capability
    feature = "ACCELERATED_FEATURES" if target.accelerated else "NONE"
    return f"""\
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 shared_memory_per_block: 49152
  shared_memory_per_core: {target.shared_memory_per_core}
  shared_memory_per_block_optin: {target.shared_memory_per_block_optin}
  core_count: {target.core_count} fpus_per_core: {target.fpus_per_core}
  l2_cache_size: {target.l2_cache_size} clock_rate_ghz: {target.clock_rate_ghz}
  device_memory_size: {chip.hbm} memory_bandwidth: {int(chip.hbm_bandwidth)}
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {feature} }}
  platform_version: "Compute Capability {major}.{minor}{"a" if target.accelerated else ""}"
  device_vendor: "NVIDIA Corporation" name: "{chip.kind}" device_address_bits: 64 ecc_enabled: true
  pcie_bandwidth: {target.pcie_bandwidth} device_interconnect_info {{ active_links: {target.active_links} }}
  driver_version: "13.0.0" runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0" dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 13 minor: 0 }}
device_description_str: "{chip.kind}"
"""


def devices(kind: str, shape: str) -> list[jax.Device]:
    """GPUs that are not there.

    Args:
        kind: a key of `TARGETS`.
        shape: GPUs of one host ("8"), or hosts and GPUs of each ("2x8").

    Raises:
        ValueError: the shape has another form, or the compiler is not installed.
    """
    sizes = shape.split("x")
    if len(sizes) > 2 or not all(size.isdecimal() and int(size) for size in sizes):
        raise ValueError(
            f"--topology={kind}:{shape}: expected GPUs of one host, as in {kind}:8,"
            f" or hosts x GPUs of each, as in {kind}:2x8"
        )
    missing = [package for package, modules in PARTS if not any(map(_found, modules))]
    if missing:
        raise ValueError(
            f"the GPU compiler is missing ({', '.join(missing)}): {INSTALL} (Linux only), best in an"
            " environment of its own, which `make setup-aot-gpu` makes"
        )
    # Slices x hosts x GPUs. The plug-in does not tell slices apart (`slice_index` is 0), but it does hosts.
    hosts, gpus = ("1", *sizes)[-2:]
    try:
        found = topologies.get_topology_desc(
            kind, "cuda", target_config=description(kind), topology=f"1x{hosts}x{gpus}"
        )
    except Exception as error:  # the plug-in raises errors of its own kinds
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--topology={kind}:{shape}: {reason}") from error
    return list(found.devices)


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its package is missing
        return False
