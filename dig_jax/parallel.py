"""Meshes, the table from logical to mesh axes, and how arrays travel between host and devices.

Models name the logical axes of their parameters; this file alone knows which mesh axis each name means. The
batch dimension is split over the axes `data` and `fsdp` together, as in ZeRO-3: `fsdp` also splits the
parameters.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen, nnx
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))

# Logical axis of a parameter -> mesh axis. None: every device holds the whole dimension.
RULES: dict[str, str | None] = {
    "layers": None,
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "vision_embed": "fsdp",
    "vision_heads": "tensor",
    "vision_mlp": "tensor",
}


# Logical axis of an activation -> mesh axes. Without these the partitioner may gather whole embedding tables.
ACTIVATION_RULES = (("activation_batch", ("data", "fsdp")), ("activation_vocab", "tensor"))


def make_mesh(sizes: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Builds the mesh `("data", "fsdp", "tensor")`.

    Args:
        sizes: devices per axis; at most one is -1 and takes what the others leave.
        devices: default all devices of all processes.

    Raises:
        ValueError: the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = [sizes[axis] for axis in AXES]
    described = ", ".join(f"mesh.{axis}={size}" for axis, size in zip(AXES, shape, strict=True))
    if shape.count(-1) > 1 or any(size < 1 and size != -1 for size in shape):
        raise ValueError(f"{described}: sizes must be positive, and at most one may be -1 (what is left)")
    if -1 in shape:
        known = -int(np.prod(shape))
        shape[shape.index(-1)] = max(1, len(devices) // known)
    if int(np.prod(shape)) != len(devices):
        raise ValueError(f"{described}: must multiply to the number of devices, {len(devices)}")
    return Mesh(np.array(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def data_shards(mesh: Mesh) -> int:
    """Number of parts the batch dimension is split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """First dimension split over the data axes, all others whole."""
    return NamedSharding(mesh, BATCH)


def param_shardings(params: nnx.State, mesh: Mesh) -> nnx.State:
    """Shardings of parameters from the logical axis names their module declared.

    Args:
        params: `nnx.Param` state whose variables carry axis names (as built, or from `nnx.eval_shape`).

    Returns:
        The same tree with a `NamedSharding` in place of each array.

    Raises:
        ValueError: an axis name is not in `RULES`, two dimensions claim one mesh axis, or a dimension does
            not divide.
    """
    leaves, structure = jax.tree.flatten_with_path(params)
    names = jax.tree.leaves(nnx.get_partition_spec(params), is_leaf=lambda x: isinstance(x, PartitionSpec))
    shardings = [
        NamedSharding(mesh, _mesh_axes(jax.tree_util.keystr(path), leaf.shape, logical, mesh))
        for (path, leaf), logical in zip(leaves, names, strict=True)
    ]
    return jax.tree.unflatten(structure, shardings)


def _mesh_axes(path: str, shape: tuple[int, ...], logical: PartitionSpec, mesh: Mesh) -> PartitionSpec:
    unknown = [name for name in logical if name is not None and name not in RULES]
    if unknown:
        raise ValueError(f"{path}: logical axes {unknown} are not in parallel.RULES")
    axes = [None if name is None else RULES[name] for name in logical]
    for dimension, (size, axis) in enumerate(zip(shape, axes, strict=False)):
        if axis is None:
            continue
        if axes.count(axis) > 1:
            raise ValueError(
                f"{path}: axes {tuple(logical)} map more than one dimension to mesh axis {axis!r}"
            )
        if size % mesh.shape[axis]:
            raise ValueError(
                f"{path}: dimension {dimension} ({logical[dimension]!r}, size {size}) does not divide over"
                f" mesh.{axis}={mesh.shape[axis]}"
            )
    return PartitionSpec(*axes)


def jit(function: Callable[..., Any], mesh: Mesh, **options: Any) -> Callable[..., Any]:
    """`jax.jit` for functions of a model on `mesh`: activations are laid out as `ACTIVATION_RULES` say."""
    compiled = jax.jit(function, **options)

    def call(*args: Any) -> Any:
        with jax.set_mesh(mesh), linen.logical_axis_rules(ACTIVATION_RULES):
            return compiled(*args)

    return call


def put_batch(tree: Any, mesh: Mesh) -> Any:
    """Places this process's rows of a batch: leaves [rows, ...] become arrays split over the data axes."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def split_rows(tree: Any, mesh: Mesh) -> Any:
    """Inside jit: splits leaves [rows, ...] over the data axes and replicates scalars, for `local_rows`."""

    def constrain(x: jax.Array) -> jax.Array:
        sharding = batch_sharding(mesh) if x.ndim else NamedSharding(mesh, PartitionSpec())
        return jax.lax.with_sharding_constraint(x, sharding)

    return jax.tree.map(constrain, tree)


def local_rows(tree: Any) -> Any:
    """The inverse of `put_batch`: this process's rows of every leaf, as numpy arrays in batch order."""

    def rows(array: jax.Array) -> np.ndarray:
        if array.is_fully_addressable or array.ndim == 0:
            return np.asarray(array)
        parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
        return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])

    return jax.tree.map(rows, tree)


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of all processes, [rows, ...] in the order of the processes, on every one of them."""
    if jax.process_count() == 1:
        return rows
    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def mean_over_processes(metrics: dict[str, float]) -> dict[str, float]:
    """The mean of metrics that each process has of its own, equally many, rows."""
    means = gather_rows(np.array([list(metrics.values())], np.float32)).mean(axis=0)
    return dict(zip(metrics, map(float, means), strict=True))
