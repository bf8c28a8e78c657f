"""Meshes, the table from logical to mesh axes, and how arrays travel between hosts and devices.

Models name the logical axes of their parameters, activations and caches; this file alone knows which mesh
axes each name means. The batch dimension is split over the axes `data`, `fsdp` and `expert` together, as in
ZeRO-3: `fsdp` also splits the parameters and what is made like them (optimizer moments, gradients, the
reference), and `expert` splits the experts of a mixture, to which tokens then travel.

Rows of a batch are known by their number in it, never by the process that has them: `RowLayout` reads from
the sharding which processes need a row, and a row that several need is the same in all of them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen, nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from dig_jax.machines import checks
from dig_jax.machines.device_order import arrange, num_slices

AXES = ("data", "fsdp", "expert", "tensor")

# Logical axis -> mesh axes it is split over, see `rules`; (): every device holds the whole dimension.
# Key/value heads are never replicated over `tensor`: more devices on that axis than there are heads is an
# error that says so.
RULES: dict[str, tuple[str, ...]] = {
    # Parameters.
    "layers": (),
    "vocab": ("tensor",),
    "embed": ("fsdp", "expert"),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "experts": ("expert", "tensor"),
    "expert_embed": ("fsdp",),
    "expert_mlp": (),
    "vision_embed": ("fsdp", "expert"),
    "vision_heads": ("tensor",),
    "vision_mlp": ("tensor",),
    "lora_rank": (),
    # Activations and caches of keys and values. The partitioner guesses from the parameters otherwise, and
    # may gather whole embedding tables, or repeat the same work on every device.
    "activation_batch": ("data", "fsdp", "expert"),
    "activation_embed": (),
    "activation_heads": ("tensor",),
    "activation_kv_heads": ("tensor",),
    "activation_mlp": ("tensor",),
    "activation_vocab": ("tensor",),
}


# What `expert` splits only where `fsdp` splits it anyway: where it is not to be gathered, in sampling, it is
# whole on all devices of both.
GATHERED = ("embed", "vision_embed")


def rules(mesh: Mesh) -> dict[str, tuple[str, ...]]:
    """`RULES` for a mesh: without `expert` where it has no such axis, or where nothing is to be gathered."""
    without = {name for name in GATHERED if mesh.shape["fsdp"] == 1}
    return {
        name: tuple(a for a in axes if a != "expert" or (a in mesh.shape and name not in without))
        for name, axes in RULES.items()
    }


def make_mesh(sizes: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Builds the mesh `("data", "fsdp", "tensor")`, or `("data", "fsdp", "expert", "tensor")` for experts.

    `device_order` says which device goes where. Where there are several TPU slices, `data` is the axis that
    crosses the slow network between them.

    Args:
        sizes: devices per axis; at most one is -1 and takes what the others leave.
        devices: default all devices of all processes.

    Raises:
        ValueError: the sizes do not multiply to the number of devices, or slices do not divide `data`.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = _axis_sizes(sizes, len(devices), "mesh")
    _check_slices(shape, devices, "mesh")
    data, fsdp, expert, tensor = shape
    return _mesh(arrange(devices, (data, fsdp * expert, tensor)), shape)


def rollout_mesh(sizes: ConfigDict, mesh: Mesh) -> Mesh:
    """The devices of `mesh`, in its order, with the axis sizes of `config.rollout.mesh` (see `make_mesh`).

    Which rows of a batch a process needs may differ from those of `mesh`.

    Raises:
        ValueError: as `make_mesh` does.
    """
    shape = _axis_sizes(sizes, mesh.size, "rollout.mesh")
    _check_slices(shape, list(mesh.devices.flat), "rollout.mesh")
    return _mesh(mesh.devices, shape)


def _axis_sizes(sizes: ConfigDict, count: int, name: str) -> list[int]:
    described = checks.mesh_sizes(name, sizes)
    shape = [sizes.get(axis, 1) for axis in AXES]  # most models have no experts
    if -1 in shape:
        known = -int(np.prod(shape))
        shape[shape.index(-1)] = max(1, count // known)
    if int(np.prod(shape)) != count:
        raise ValueError(f"{described}: must multiply to the number of devices, {count}")
    return shape


def _check_slices(shape: list[int], devices: list[jax.Device], name: str) -> None:
    slices = num_slices(devices)
    if shape[0] % slices:
        raise ValueError(
            f"{name}.data={shape[0]} is no multiple of the {slices} slices: fsdp, expert and tensor must"
            " stay in one"
        )


def _mesh(devices: np.ndarray, shape: list[int]) -> Mesh:
    sizes = {axis: size for axis, size in zip(AXES, shape, strict=True) if axis != "expert" or size > 1}
    return Mesh(
        devices.reshape(tuple(sizes.values())), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes)
    )


def batch_axes(mesh: Mesh) -> tuple[str, ...]:
    """The mesh axes that the batch dimension is split over."""
    return rules(mesh)["activation_batch"]


def data_shards(mesh: Mesh) -> int:
    """Number of parts the batch dimension is split into."""
    return int(np.prod([mesh.shape[axis] for axis in batch_axes(mesh)]))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """First dimension split over the data axes, all others whole."""
    return NamedSharding(mesh, PartitionSpec(batch_axes(mesh)))


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
    table = rules(mesh)
    axes = [() if name is None else table[name] for name in names]
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
        self._rules = tuple(rules(mesh).items())

    def __call__(self, *args: Any) -> Any:
        with jax.set_mesh(self._mesh), linen.logical_axis_rules(self._rules):
            return self._compiled(*args)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """The program for arguments that may be shapes with shardings, to be compiled without running it."""
        with jax.set_mesh(self._mesh), linen.logical_axis_rules(self._rules):
            return self._compiled.lower(*args)

    def eval_shape(self, *args: Any) -> Any:
        """Shapes and dtypes of what it returns."""
        with jax.set_mesh(self._mesh), linen.logical_axis_rules(self._rules):
            return self._compiled.eval_shape(*args)


def jit(function: Callable[..., Any], mesh: Mesh, **options: Any) -> MeshJit:
    """See `MeshJit`; `options` are those of `jax.jit`."""
    return MeshJit(function, mesh, **options)


@dataclasses.dataclass(frozen=True)
class RowLayout:
    """Which processes need which rows of a batch.

    A row has several holders where the devices of its shard, a group of `tensor`, are of several processes.
    Each of them then loads the same row. The rows of a process need not lie together.

    Attributes:
        holders: of each row, the processes with a device that it goes to, in order.
    """

    holders: tuple[tuple[int, ...], ...]

    def of(self, process: int) -> np.ndarray:
        """The rows that go to devices of `process`, ascending."""
        return np.flatnonzero([process in holders for holders in self.holders])

    @functools.cached_property
    def owners(self) -> np.ndarray:
        """Of each row, the one holder that does what is to be done once; holders take turns."""
        return np.array([holders[row % len(holders)] for row, holders in enumerate(self.holders)])


def row_layout(mesh: Mesh, count: int, at_a_time: int | None = None) -> RowLayout:
    """The layout of `count` rows that are placed on `mesh` in successive parts of `at_a_time`; None: at once.

    Needs no arrays, so the mesh may be of devices that are not there.

    Raises:
        ValueError: rows do not divide over the groups of devices.
    """
    size = at_a_time or count
    if size % data_shards(mesh):
        raise ValueError(
            f"a batch of {size} rows does not divide over {data_shards(mesh)} groups of devices"
            f" ({' * '.join(batch_axes(mesh))})"
        )
    holders: list[set[int]] = [set() for _ in range(size)]
    where: Mapping[Any, Any] = batch_sharding(mesh).devices_indices_map((size,))
    for device, index in where.items():
        for row in range(*index[0].indices(size)):
            holders[row].add(device.process_index)
    return RowLayout(tuple(tuple(sorted(of_row)) for of_row in holders) * (count // size))


def cut_rows(tree: Any, rows: np.ndarray, size: int, count: int) -> list[tuple[Any, np.ndarray]]:
    """Cuts a batch of `count` rows into successive parts of `size`.

    Args:
        tree: leaves [n, ...], those rows that this process has.
        rows: int [n], which these are, ascending.
        size: rows of a part, over all processes.
        count: rows of the batch, over all processes.

    Returns:
        Of each part the leaves this process has, and which rows of the part these are.
    """
    ends = np.searchsorted(rows, np.arange(0, count + 1, size))
    return [
        (jax.tree.map(lambda x, a=a, b=b: x[a:b], tree), rows[a:b] - number * size)
        for number, (a, b) in enumerate(zip(ends[:-1], ends[1:], strict=True))
    ]


def put_batch(tree: Any, mesh: Mesh, rows: np.ndarray | None = None, count: int | None = None) -> Any:
    """Places a batch, split over the data axes: each device gets its rows of every leaf.

    Args:
        tree: leaves [n, ...], the rows that this process has.
        mesh: of the devices.
        rows: int [n], which rows of the batch those are, ascending; more than its devices need do no harm.
            None: all of them.
        count: rows of the batch, over all processes; only with `rows`.

    Raises:
        ValueError: this process lacks a row that one of its devices needs.
    """
    sharding = batch_sharding(mesh)

    def place(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        shape = (len(array) if rows is None else count, *array.shape[1:])

        def of_device(index: Any) -> np.ndarray:
            first, last, _ = index[0].indices(shape[0])
            if rows is None:
                return array[first:last]
            begin = int(np.searchsorted(rows, first))
            if not np.array_equal(rows[begin : begin + last - first], np.arange(first, last)):
                raise ValueError(
                    f"devices of process {jax.process_index()} need rows {first} to {last - 1} of a batch of"
                    f" {shape[0]}, but it has rows {rows.tolist()}"
                )
            return array[begin : begin + last - first]

        return jax.make_array_from_callback(shape, sharding, of_device)

    return jax.tree.map(place, tree)


def put_whole(tree: Any, mesh: Mesh) -> Any:
    """Places arrays that every process has alike, whole on every device."""

    def place(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, replicated(mesh), lambda index: array[index])

    return jax.tree.map(place, tree)


def split_rows(tree: Any, mesh: Mesh) -> Any:
    """Inside jit: splits leaves [rows, ...] over the data axes and replicates scalars."""

    def constrain(x: jax.Array) -> jax.Array:
        sharding = batch_sharding(mesh) if x.ndim else replicated(mesh)
        return jax.lax.with_sharding_constraint(x, sharding)

    return jax.tree.map(constrain, tree)


def on_every_host(tree: Any, mesh: Mesh) -> Any:
    """Whole arrays as numpy arrays on every process, wherever their parts lie; all must take part."""
    if all(x.is_fully_addressable for x in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    return jax.tree.map(np.asarray, _replicate(mesh)(tree))


@functools.cache
def _replicate(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))
