"""Work that the parts of a mesh along `data` do each for its own rows, so that sums between them come once.

XLA sums a gradient over all devices that had rows of its batch as soon as there is one: in a loop over
micro-batches, once in each. `data` is the axis that crosses the slow network between slices. In `apart` the
parts are a dimension of their own, the first, and what is summed over it is summed where the caller does so.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax.core import spmd
from jax.sharding import Mesh, PartitionSpec

from dig_jax.machines.device_order import num_slices

AXIS = "data"
APART = "apart"  # among the rules in force: the axis over which `apart` has split what is traced
SUMS = ("auto", "micro_batch", "update")


def sums_once(when: str, mesh: Mesh) -> bool:
    """Whether gradients are summed over `data` once per update, by `config.batch.sum_gradients`."""
    if mesh.shape[AXIS] == 1:
        return False  # there is nothing to be summed
    return when == "update" or (when == "auto" and num_slices(list(mesh.devices.flat)) > 1)


def apart(function: Callable[..., Any], rows: Sequence[Any]) -> Callable[..., Any]:
    """`function` for the rows of each part of the mesh, results [parts, ...].

    Args:
      function: of arrays, jit-compiled with the rules of `parallel` in force.
      rows: of each argument, which dimension of its arrays has the rows, split over `data` before other axes;
        None: all parts have the whole. Or a tree of these that is a prefix of the argument.
    """
    rules: list[tuple[str, Any]] = [(APART, (AXIS,))]
    for name, axes in spmd.get_logical_axis_rules():
        rules.append((name, tuple(axis for axis in axes or () if axis != AXIS)))

    def of_part(*args: Any) -> Any:
        with spmd.logical_axis_rules(rules):
            return function(*args)

    def cut(dimension: int | None, arrays: Any) -> Any:
        return arrays if dimension is None else jax.tree.map(lambda x: _cut(x, dimension), arrays)

    def run(*args: Any) -> Any:
        parts = jax.tree.map(cut, tuple(rows), args, is_leaf=lambda x: x is None)
        return jax.vmap(of_part, in_axes=tuple(rows), spmd_axis_name=AXIS)(*parts)

    return run


def _cut(x: jax.Array, rows: int) -> jax.Array:
    """[..., rows, ...] as [..., parts, rows / parts, ...], the parts over `data`."""
    parts = jax.sharding.get_abstract_mesh().shape[AXIS]
    shape = (*x.shape[:rows], parts, x.shape[rows] // parts, *x.shape[rows + 1 :])
    free = PartitionSpec.UNCONSTRAINED
    spec = PartitionSpec(*[AXIS if i == rows else free for i in range(len(shape))])
    return jax.lax.with_sharding_constraint(x.reshape(shape), spec)
