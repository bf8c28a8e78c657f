"""Meshes, the table from logical to mesh axes, and how arrays travel between host and devices.

Models name the logical axes of their parameters, activations and caches; this file alone knows which mesh
axes each name means. The batch dimension is split over the axes `data` and `fsdp` together, as in ZeRO-3:
`fsdp` also splits the parameters and what is made like them (optimizer moments, gradients, the reference).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen, nnx
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))

# Logical axis -> mesh axes it is split over; (): every device holds the whole dimension. Key/value heads are
# never replicated over `tensor`: more devices on that axis than there are heads is an error that says so.
RULES: dict[str, tuple[str, ...]] = {
    # Parameters.
    "layers": (),
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "vision_embed": ("fsdp",),
    "vision_heads": ("tensor",),
    "vision_mlp": ("tensor",),
    "lora_rank": (),
    # Activations and caches of keys and values. The partitioner guesses from the parameters otherwise, and
    # may gather whole embedding tables, or repeat the same work on every device.
    "activation_batch": ("data", "fsdp"),
    "activation_embed": (),
    "activation_heads": ("tensor",),
    "activation_kv_heads": ("tensor",),
    "activation_mlp": ("tensor",),
    "activation_vocab": ("tensor",),
}


def make_mesh(sizes: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Builds the mesh `("data", "fsdp", "tensor")`.

    On TPUs neighbours on a mesh axis are neighbours in the torus, and where there are several slices `data`
    is the axis that crosses the slow network between them.

    Args:
        sizes: devices per axis; at most one is -1 and takes what the others leave.
        devices: default all devices of all processes.

    Raises:
        ValueError: the sizes do not multiply to the number of devices, or slices do not divide `data`.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = _axis_sizes(sizes, len(devices), "mesh")
    _check_slices(shape, devices, "mesh")
    return _mesh(_arrange(devices, shape))


def rollout_mesh(sizes: ConfigDict, mesh: Mesh) -> Mesh:
    """The devices of `mesh`, in its order, with the axis sizes of `config.rollout.mesh` (see `make_mesh`).

    Raises:
        ValueError: also when it leaves processes without prompts of their own.
    """
    shape = _axis_sizes(sizes, mesh.size, "rollout.mesh")
    _check_slices(shape, list(mesh.devices.flat), "rollout.mesh")
    sampling = _mesh(mesh.devices.reshape(shape))
    if data_shards(sampling) % jax.process_count():
        raise ValueError(
            f"rollout.mesh.data * rollout.mesh.fsdp = {data_shards(sampling)} is no multiple of the"
            f" {jax.process_count()} processes, each of which samples prompts of its own"
        )
    return sampling


def _axis_sizes(sizes: ConfigDict, count: int, name: str) -> list[int]:
    shape = [sizes[axis] for axis in AXES]
    described = ", ".join(f"{name}.{axis}={size}" for axis, size in zip(AXES, shape, strict=True))
    if shape.count(-1) > 1 or any(size < 1 and size != -1 for size in shape):
        raise ValueError(f"{described}: sizes must be positive, and at most one may be -1 (what is left)")
    if -1 in shape:
        known = -int(np.prod(shape))
        shape[shape.index(-1)] = max(1, count // known)
    if int(np.prod(shape)) != count:
        raise ValueError(f"{described}: must multiply to the number of devices, {count}")
    return shape


def _check_slices(shape: list[int], devices: list[jax.Device], name: str) -> None:
    slices = _num_slices(devices)
    if shape[0] % slices:
        raise ValueError(
            f"{name}.data={shape[0]} is no multiple of the {slices} slices: fsdp and tensor must stay in one"
        )


def _num_slices(devices: list[jax.Device]) -> int:
    """How many TPU slices the devices are of; 1 for other devices."""
    if devices[0].platform != "tpu":
        return 1
    return len({getattr(device, "slice_index", 0) for device in devices})


def _arrange(devices: list[jax.Device], shape: list[int]) -> np.ndarray:
    """The devices with `shape`; those of a slice lie together, the first one's first."""
    if devices[0].platform != "tpu":
        return np.array(devices).reshape(shape)
    num_slices = _num_slices(devices)
    if num_slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    data, fsdp, tensor = shape
    return mesh_utils.create_hybrid_device_mesh(
        (data // num_slices, fsdp, tensor), (num_slices, 1, 1), devices, allow_split_physical_axes=True
    )


def _mesh(devices: np.ndarray) -> Mesh:
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def data_shards(mesh: Mesh) -> int:
    """Number of parts the batch dimension is split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """First dimension split over the data axes, all others whole."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def shardings(tree: Any, mesh: Mesh) -> Any:
    """Shardings of a tree from the logical axis names that its variables carry.

    Args:
        tree: parameters, or anything made like them, such as an optimizer's state: its moments are variables
            with the names of their parameters. Arrays or shapes; those without names (counters) are
            replicated.

    Returns:
        The same tree with a `NamedSharding` in place of each array.

    Raises:
        ValueError: an axis name is not in `RULES`, two dimensions claim one mesh axis, or a dimension does
            not divide.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> Any:
        where = jax.tree_util.keystr(path)
        if not isinstance(leaf, nnx.Variable):
            return replicated(mesh)
        names = leaf.get_metadata().get("out_sharding") or (None,) * len(leaf.shape)
        return leaf.replace(NamedSharding(mesh, mesh_axes(names, leaf.shape, mesh, where)))

    return jax.tree.map_with_path(place, tree, is_leaf=lambda x: isinstance(x, nnx.Variable))


def mesh_axes(names: Sequence[str | None], shape: Sequence[int], mesh: Mesh, where: str) -> PartitionSpec:
    """How an array is split whose dimensions have these logical names; errors as `shardings` describes.

    Args:
        names: one per dimension; None is never split.
        shape: of the array.
        mesh: of the devices.
        where: what the array is, for errors.
    """
    unknown = [name for name in names if name is not None and name not in RULES]
    if unknown:
        raise ValueError(f"{where}: logical axes {unknown} are not in parallel.RULES")
    axes = [() if name is None else RULES[name] for name in names]
    claimed = [axis for dimension in axes for axis in dimension]
    for axis in claimed:
        if claimed.count(axis) > 1:
            raise ValueError(
                f"{where}: axes {tuple(names)} map more than one dimension to mesh axis {axis!r}"
            )
    for dimension, (size, split) in enumerate(zip(shape, axes, strict=True)):
        parts = int(np.prod([mesh.shape[axis] for axis in split]))
        if size % parts:
            over = " * ".join(f"mesh.{axis}={mesh.shape[axis]}" for axis in split)
            raise ValueError(
                f"{where}: dimension {dimension} ({names[dimension]!r}, size {size}) does not divide over"
                f" {over}"
            )
    return PartitionSpec(*(split[0] if len(split) == 1 else split or None for split in axes))


def abstract(tree: Any, mesh: Mesh) -> Any:
    """Shapes, dtypes and shardings of a tree as `shardings` places it: stands in for arrays not yet made."""

    def describe(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(describe, tree, shardings(tree, mesh))


def on_host(tree: Any) -> Any:
    """Shapes from `abstract`, with arrays in the pinned memory of the hosts; numbers stay on the devices."""

    def place(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        sharding = leaf.sharding.with_memory_kind("pinned_host") if leaf.ndim else leaf.sharding
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(place, tree)


class MeshJit:
    """`jax.jit` for functions of a model on a mesh: names of activations are looked up in `RULES`."""

    def __init__(self, function: Callable[..., Any], mesh: Mesh, **options: Any):
        self._compiled = jax.jit(function, **options)
        self._mesh = mesh

    def __call__(self, *args: Any) -> Any:
        with jax.set_mesh(self._mesh), linen.logical_axis_rules(tuple(RULES.items())):
            return self._compiled(*args)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """The program for arguments that may be shapes with shardings, to be compiled without running it."""
        with jax.set_mesh(self._mesh), linen.logical_axis_rules(tuple(RULES.items())):
            return self._compiled.lower(*args)

    def eval_shape(self, *args: Any) -> Any:
        """Shapes and dtypes of what it returns."""
        with jax.set_mesh(self._mesh), linen.logical_axis_rules(tuple(RULES.items())):
            return self._compiled.eval_shape(*args)


def jit(function: Callable[..., Any], mesh: Mesh, **options: Any) -> MeshJit:
    """See `MeshJit`; `options` are those of `jax.jit`."""
    return MeshJit(function, mesh, **options)


def put_batch(tree: Any, mesh: Mesh) -> Any:
    """Places this process's rows of a batch: leaves [rows, ...] become arrays split over the data axes."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def split_rows(tree: Any, mesh: Mesh) -> Any:
    """Inside jit: splits leaves [rows, ...] over the data axes and replicates scalars, for `local_rows`."""

    def constrain(x: jax.Array) -> jax.Array:
        sharding = batch_sharding(mesh) if x.ndim else replicated(mesh)
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


def gather_texts(texts: Sequence[str], width: int = 128) -> list[str]:
    """Texts of all processes, equally many of each, cut to `width` bytes."""
    rows = np.array([text.encode()[:width] for text in texts], f"S{width}")
    gathered = gather_rows(rows.view(np.uint8).reshape(len(texts), width))
    return [text.decode(errors="replace") for text in gathered.view(f"S{width}").ravel()]


def combine_over_processes(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics that each process has of its own, equally many, rows: maximum of `*_max`, mean of others."""
    gathered = gather_rows(np.array([list(metrics.values())], np.float32))
    return {
        name: float(column.max() if name.endswith("_max") else column.mean())
        for name, column in zip(metrics, gathered.T, strict=True)
    }
