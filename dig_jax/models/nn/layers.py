"""Layers shared by the vision tower and the text decoder.

Shape letters: B prompts, G sequences that share a prompt, T tokens, D width, E head_dim.

Every weight is declared once, with its shape, logical axis names and initial value. The names are
metadata (`out_sharding`) for whoever places the parameters; nothing here knows of a mesh. Compute
runs in the dtype of the activations: kernels are cast on use, while norms and rotary embedding work in
float32 inside.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.core import spmd
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AbstractMesh, PartitionSpec

from dig_jax.machines.data_axis import APART

Axes = tuple[str | None, ...]
M = TypeVar("M", bound=nnx.Module)


ADAPTED = "adapted"  # name of a layer's result, where the layer has an adapter


def _keep_products(primitive: Any, *avals: Any, **params: Any) -> bool:
    """The policy "dots": keeps products with weights.

    Of a layer with an adapter it keeps the rounded result, and not the two float32 sums that it is made of.
    """
    if primitive is jax.lax.dot_general_p and params["preferred_element_type"] not in (None, avals[0].dtype):
        return False
    return _dots(primitive, *avals, **params) or _adapted(primitive, *avals, **params)


_dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
_adapted = jax.checkpoint_policies.save_only_these_names(ADAPTED)

REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": _keep_products,
}


def make_param(
    rngs: nnx.Rngs, shape: Sequence[int], axes: Axes, *, std: float, dtype: jnp.dtype
) -> nnx.Param:
    """A parameter drawn from a normal distribution, with a logical axis name (or None) per dimension."""
    return _annotate(std * jax.random.normal(rngs.params(), tuple(shape), dtype), axes)


def make_constant(shape: Sequence[int], axes: Axes, value: float, dtype: jnp.dtype) -> nnx.Param:
    """A parameter that starts at `value`: norm scales and biases. Drawing no key keeps compilation short."""
    return _annotate(jnp.full(tuple(shape), value, dtype), axes)


def _annotate(value: jax.Array, axes: Axes) -> nnx.Param:
    if value.ndim != len(axes):
        raise ValueError(f"a parameter of shape {value.shape} needs one axis name per dimension, got {axes}")
    # Placement is the caller's business (jit with out_shardings), hence no eager sharding.
    return nnx.Param(value, out_sharding=axes, eager_sharding=False)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Shards an activation by logical names under the rules in force (`flax.linen.logical_axis_rules`).

    Without rules this does nothing. Under rules, a dimension whose name they do not mention is left whole.
    """
    rules: dict[str | None, Any] = dict(spmd.get_logical_axis_rules())
    if not rules:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*(rules.get(a) for a in axes)))


def map_shards(
    function: Callable[..., Any],
    in_axes: Sequence[Axes],
    out_axes: Any,
    *,
    others_auto: bool = False,
) -> Callable[..., Any]:
    """`function`, run by every device on its own part of the arguments.

    For kernels that XLA can not split, and to say when arguments are gathered and their gradients summed:
    once, before and after `function`, where a dimension is not named but split outside.

    Args:
      function: must be right for any part of the dimensions that are named.
      in_axes: a logical name (or None) per dimension, for all arrays of each argument.
      out_axes: the same for the result, or for each of several.
      others_auto: leave the mesh axes that no name stands for to XLA; else `function` runs whole on each.

    Without rules in force (see `constrain`) this is `function`. A dimension that does not divide over its
    mesh axes stays whole.
    """
    rules: dict[str | None, Any] = dict(spmd.get_logical_axis_rules())
    mesh = jax.sharding.get_abstract_mesh()
    if not rules or mesh.size == 1:
        return function

    mesh_axes = functools.partial(_mesh_axes, rules, mesh)

    def call(*args: Any) -> Any:
        sizes = {
            (name, size)
            for axes, arg in zip(in_axes, args, strict=True)
            for x in jax.tree.leaves(arg)
            for name, size in zip(axes, x.shape, strict=True)
        }
        whole = {name for name, size in sizes if size % math.prod(mesh.shape[a] for a in mesh_axes(name))}
        used = {axis for name, _ in sizes if name not in whole for axis in mesh_axes(name)}
        if others_auto and not used:
            return function(*args)

        def spec(axes: Axes) -> PartitionSpec:
            return PartitionSpec(*(None if name in whole else mesh_axes(name) or None for name in axes))

        several = not all(name is None or isinstance(name, str) for name in out_axes)
        return jax.shard_map(
            function,
            in_specs=tuple(map(spec, in_axes)),
            out_specs=tuple(map(spec, out_axes)) if several else spec(out_axes),
            axis_names=used | set(rules.get(APART, ())) if others_auto else set(mesh.axis_names),
            check_vma=False,
        )(*args)

    return call


def shard_size(name: str, size: int) -> int:
    """How much of a dimension of this logical name each device has inside `map_shards`."""
    rules: dict[str | None, Any] = dict(spmd.get_logical_axis_rules())
    mesh = jax.sharding.get_abstract_mesh()
    shards = math.prod(mesh.shape[axis] for axis in _mesh_axes(rules, mesh, name))
    return size if size % shards else size // shards


def _mesh_axes(rules: dict[str | None, Any], mesh: AbstractMesh, name: str | None) -> tuple[str, ...]:
    """The axes of the mesh, of more than one device, that a logical name stands for."""
    axes = rules.get(name) or ()
    axes = (axes,) if isinstance(axes, str) else axes
    return tuple(axis for axis in axes if mesh.shape[axis] > 1)


def precision_for(x: jax.Array) -> jax.lax.Precision | None:
    """float32 means float32: without this GPUs would use TF32 and TPUs one bfloat16 pass."""
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: jax.Array, kernel: jax.Array, num_in: int) -> jax.Array:
    """`x` [T,*in_shape] times `kernel` [*in_shape,*out_shape] in the dtype of x, its sums in float32.

    As they come out of the unit that multiplies, before anything is rounded: for what is added to other such
    sums. Gradients are computed in the dtype of x, as if the result had been rounded to it.
    """
    kernel = kernel.astype(x.dtype)
    return jnp.tensordot(
        x, kernel, axes=num_in, precision=precision_for(x), preferred_element_type=jnp.float32
    )


def _product_backward(
    num_in: int, inputs: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = inputs

    def rounded(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.tensordot(x, kernel.astype(x.dtype), axes=num_in, precision=precision_for(x))

    _, pull = jax.vjp(rounded, x, kernel)
    return pull(cotangent.astype(x.dtype))


product.defvjp(lambda x, kernel, num_in: (product(x, kernel, num_in), (x, kernel)), _product_backward)


class Linear(nnx.Module):
    """`y = x @ kernel + bias` over one or more trailing input dimensions.

    `kernel` is [*in_shape, *out_shape] with `axes` naming all of them; `bias`, if any, is [*out_shape]. An
    `adapter`, if it is given one, maps the same [T, *in_shape] to float32 [T, *out_shape]. That is added
    before the sums are rounded to the dtype of x: a fresh adapter's part is smaller than half the last bit of
    a bfloat16 y, and added to that it would vanish. An int8 kernel (`sampling_copy`) is
    [*out_shape, *in_shape], and comes with a float32 `kernel_scale` [*out_shape].
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        axes: Axes,
        *,
        std: float,
        bias: bool = False,
        rngs: nnx.Rngs,
        dtype: jnp.dtype,
    ) -> None:
        self.num_in = len(in_shape)
        self.kernel = make_param(rngs, (*in_shape, *out_shape), axes, std=std, dtype=dtype)
        self.bias = make_constant(out_shape, axes[self.num_in :], 0.0, dtype) if bias else None
        self.adapter: Callable[[jax.Array], jax.Array] | None = None
        self.kernel_scale: nnx.Param | None = None

    def __call__(self, x: jax.Array) -> jax.Array:
        tokens, width = x.shape[: x.ndim - self.num_in], x.shape[x.ndim - self.num_in :]
        # The gradient of the kernel sums over all tokens; over several dimensions, XLA on a CPU transposes
        # for that, in a tenth of the time of a training step.
        flat = x.reshape(math.prod(tokens), *width)
        if self.adapter is None and self.kernel_scale is None:
            kernel = self.kernel[...].astype(x.dtype)
            y = jnp.tensordot(flat, kernel, axes=self.num_in, precision=precision_for(x))
        else:
            y = self._sums(flat)
            y = y if self.adapter is None else y + self.adapter(flat)
            y = checkpoint_name(y.astype(x.dtype), ADAPTED)
        y = y.reshape(*tokens, *y.shape[1:])
        if self.bias is None:
            return y
        # Added in float32: the gradient of the bias sums over all tokens in the dtype of the addition.
        bias = self.bias[...].astype(x.dtype).astype(jnp.float32)
        return (y + bias).astype(x.dtype)

    def _sums(self, x: jax.Array) -> jax.Array:
        """x [T, *in_shape] times the kernel, in float32."""
        if self.kernel_scale is None:
            return product(x, self.kernel[...], self.num_in)
        kernel, scale = self.kernel[...].astype(x.dtype), self.kernel_scale[...]
        of_x, of_kernel = (tuple(range(a.ndim - self.num_in, a.ndim)) for a in (x, kernel))
        sums = jax.lax.dot_general(
            x,
            kernel,
            ((of_x, of_kernel), ((), ())),
            precision=precision_for(x),
            preferred_element_type=jnp.float32,
        )
        return sums * scale


@jax.custom_vjp
def look_up(table: jax.Array, tokens: jax.Array) -> jax.Array:
    """Rows `tokens`, int [...], of `table` [V,D].

    Gradients are summed in float32 even where the table is bfloat16: some words come hundreds of times.
    """
    return jnp.take(table, tokens, axis=0)


def _look_up_backward(inputs: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, None]:
    table, tokens = inputs
    total = jnp.zeros(table.shape, jnp.float32).at[tokens].add(cotangent.astype(jnp.float32))
    return total.astype(table.dtype), None


look_up.defvjp(lambda table, tokens: (look_up(table, tokens), (table, tokens)), _look_up_backward)


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis, computed in float32."""

    def __init__(self, size: int, axis: str | None, *, eps: float, dtype: jnp.dtype) -> None:
        self.eps = eps
        self.scale = make_constant((size,), (axis,), 1.0, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        x32 *= jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (x32 * self.scale[...].astype(jnp.float32)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer norm with scale and bias over the last axis, computed in float32."""

    def __init__(self, size: int, axis: str | None, *, eps: float, dtype: jnp.dtype) -> None:
        self.eps = eps
        self.scale = make_constant((size,), (axis,), 1.0, dtype)
        self.bias = make_constant((size,), (axis,), 0.0, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        x32 -= jnp.mean(x32, axis=-1, keepdims=True)
        x32 *= jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (x32 * self.scale[...].astype(jnp.float32) + self.bias[...].astype(jnp.float32)).astype(
            x.dtype
        )


def rope_frequencies(theta: float, dim: int) -> np.ndarray:
    """Rotary frequencies theta^(-2i/dim), float32 [dim/2].

    Each step is rounded to float32 as in PyTorch, whose frequencies checkpoints are trained with. Exact ones
    differ in the last bit, which is 0.01 radians of the faster frequencies at position 100,000.
    """
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    return np.float32(1) / np.float32(theta) ** exponents


class Rotation(NamedTuple):
    """cos and sin of the rotary angles, float32 [...,T,E/2] each (the two halves share them)."""

    cos: jax.Array
    sin: jax.Array

    @classmethod
    def from_angles(cls, angles: jax.Array) -> "Rotation":
        return cls(jnp.cos(angles), jnp.sin(angles))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Rotates x [...,T,heads,E]; element i is paired with element i + E/2."""
        cos, sin = self.cos[..., None, :], self.sin[..., None, :]
        first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
        return rotated.astype(x.dtype)


def stack_layers(make: Callable[[nnx.Rngs], M], count: int, rngs: nnx.Rngs) -> M:
    """One module whose every parameter has a leading axis named "layers" of length `count`."""

    @nnx.split_rngs(splits=count)
    @nnx.vmap(in_axes=(0,), out_axes=0, transform_metadata={nnx.PARTITION_NAME: "layers"})
    def create(rngs: nnx.Rngs) -> M:
        return make(rngs)

    return create(rngs)


def first_layer(layers: Any) -> Any:
    """The first of layers that are apart; of stacked ones the stack, which has the same attributes."""
    return layers[0] if isinstance(layers, nnx.List) else layers


def split_last(layers: Any) -> tuple[Any, Any]:
    """All layers but the last, and the last."""
    if isinstance(layers, nnx.List):
        return nnx.List(list(layers)[:-1]), layers[-1]
    return jax.tree.map(lambda x: x[:-1], layers), jax.tree.map(lambda x: x[-1], layers)


def scan_layers(
    layers: Any, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, *stacked: Any
) -> tuple[Any, Any]:
    """`lax.scan` over layers from `stack_layers`; an `nnx.List` of them (`sampling_copy`) is unrolled.

    Args:
      layers: the layers.
      step: from the carry and (number, layer, the layer's part of each of `stacked`) to the next carry and
        what is kept of the layer, which comes back stacked.
      carry: what the first layer gets.
      stacked: trees of arrays with a leading axis of layers.
    """
    if not isinstance(layers, nnx.List):
        numbers = jnp.arange(jax.tree.leaves(layers)[0].shape[0])
        return jax.lax.scan(step, carry, (numbers, layers, *stacked))
    kept = None
    for number, layer in enumerate(layers):
        # What a layer reads of a cache is cut out when it is its turn, and not for all layers at once.
        carry, index = jax.lax.optimization_barrier((carry, jnp.int32(number)))
        own = jax.tree.map(
            functools.partial(jax.lax.dynamic_index_in_dim, index=index, keepdims=False), stacked
        )
        carry, result = step(carry, (index, layer, *own))
        if kept is None:
            kept = jax.tree.map(lambda x: jnp.zeros((len(layers), *x.shape), x.dtype), result)
        # Written in place: stacked at the end, there would be two of all for a moment.
        write = functools.partial(jax.lax.dynamic_update_index_in_dim, index=number, axis=0)
        kept = jax.tree.map(write, kept, result)
    return carry, kept


def remat(function: Callable[..., Any], policy: str, kept: tuple[str, ...] = ()) -> Callable[..., Any]:
    """`function` with the chosen activations kept for the backward pass; the others are computed again there.

    Args:
      function: one layer, inside a scan.
      policy: one of `REMAT`. "none": all are kept. "full": only the layer's input. "dots": besides, what
        comes out of products with weights, so that nearly only norms, activations and attention are repeated.
      kept: names of results that are kept besides, whatever the policy.
    """
    if policy == "none":
        return function
    keep = REMAT[policy]
    if kept:
        named = jax.checkpoint_policies.save_only_these_names(*kept)
        keep = jax.checkpoint_policies.save_from_both_policies(keep, named)
    # A scan keeps the two computations apart by itself.
    return jax.checkpoint(function, policy=keep, prevent_cse=False)
