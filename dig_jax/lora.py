"""LoRA: low-rank adapters beside frozen kernels (Hu et al. 2021, arXiv 2106.09685).

A layer `y = x W` becomes `y = x W + (alpha / rank) (x A) B`, where A is drawn and B starts at zero, so that
the model starts as it was. Only A and B are trained: they alone have gradients and optimizer state, and the
gradient of W is never computed. What `add` gives a model, `remove` takes away (the model as it was: the
reference of the KL penalty, without a second copy of the weights) and `merge` adds to the kernels (what is
sampled from, exported, and handed to other commands: a plain model again).

Adapters are float32 whatever the other parameters are; with LoRA these may well be bfloat16, since nothing is
ever added to them in training. (qwix, Google's library for this, finds the layers by running the model with
intercepted matrix products; ours run inside `lax.scan` over stacked layers, where that fails.)
"""

import dataclasses
import math
import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dig_jax import freeze, parallel
from dig_jax.models.layers import Linear, precision_for

RANK_AXIS = "lora_rank"  # logical name; `parallel.RULES` splits it over nothing


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """Which layers get adapters. Defaults live in `configs/base.py`.

    Attributes:
      rank: width of the adapters, at least 1.
      alpha: the product of an adapter is scaled by alpha / rank.
      targets: regular expression for the whole path of a linear layer, such as "text/layers/attn/q_proj".
    """

    rank: int
    alpha: float
    targets: str

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"config.model.lora.rank={self.rank}: expected 1 or more, or 0 for no adapters")
        if not self.alpha > 0:
            raise ValueError(f"config.model.lora.alpha={self.alpha}: expected more than 0")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise ValueError(
                f"config.model.lora.targets={self.targets!r} is no regular expression: {error}"
            ) from error


def from_config(config: ConfigDict) -> LoRAConfig | None:
    """The settings `config.model.lora`, checked; None where its rank is 0: no adapters.

    Raises:
      ValueError: naming the setting that is wrong.
    """
    return LoRAConfig(**config.model.lora.to_dict()) if config.model.lora.rank else None


class Adapter(nnx.Module):
    """A product of two thin matrices, `scale * (x @ a) @ b`, beside the kernel of a `Linear`.

    `a` is [*in_shape, rank] and `b` [rank, *out_shape]; both have a leading axis of layers where the kernel
    has.
    """

    def __init__(self, linear: Linear, config: LoRAConfig, rngs: nnx.Rngs) -> None:
        shape, axes = linear.kernel.shape, linear.kernel.get_metadata()["out_sharding"]
        layers = int(axes[0] == "layers")
        first_out = layers + linear.num_in
        self.num_in, self.layers = linear.num_in, layers
        self.scale = config.alpha / config.rank
        # As torch.nn.Linear starts, and with it the adapters of PEFT.
        bound = 1 / math.sqrt(math.prod(shape[layers:first_out]))
        drawn = jax.random.uniform(
            rngs.params(), (*shape[:first_out], config.rank), jnp.float32, -bound, bound
        )
        self.a = nnx.Param(drawn, out_sharding=(*axes[:first_out], RANK_AXIS), eager_sharding=False)
        self.b = nnx.Param(
            jnp.zeros((*shape[:layers], config.rank, *shape[first_out:]), jnp.float32),
            out_sharding=(*axes[:layers], RANK_AXIS, *axes[first_out:]),
            eager_sharding=False,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[T, *in_shape] to [T, *out_shape], in the dtype of x; inside the scan over layers."""
        precision = precision_for(x)
        low = jnp.tensordot(x, self.a[...].astype(x.dtype), axes=self.num_in, precision=precision)
        return jnp.tensordot(self.scale * low, self.b[...].astype(x.dtype), axes=1, precision=precision)

    def product(self) -> jax.Array:
        """What is added to the kernel, float32 in its shape."""

        def one(a: jax.Array, b: jax.Array) -> jax.Array:
            return self.scale * jnp.tensordot(a, b, axes=1, precision=precision_for(a))

        return (jax.vmap(one) if self.layers else one)(self.a[...], self.b[...])


def add(model: nnx.Module, config: LoRAConfig, frozen: frozenset[str], rngs: nnx.Rngs) -> None:
    """Gives the targeted layers an adapter each, but for those in frozen parts of the model.

    Raises:
      ValueError: there is no such layer.
    """
    layers = {"/".join(map(str, path)): layer for path, layer in _linears(model)}
    open_layers = {path: layer for path, layer in layers.items() if _part(path) not in frozen}
    targets = [path for path in open_layers if re.fullmatch(config.targets, path)]
    if not targets:
        raise ValueError(
            f"config.model.lora.targets={config.targets!r} is the path of no layer that is not frozen; there"
            f" are {', '.join(open_layers)}"
        )
    for path in targets:
        layers[path].adapter = nnx.data(Adapter(layers[path], config, rngs))


def remove(model: nnx.Module) -> None:
    """Takes the adapters away: the model as it was before `add`."""
    for _, layer in _linears(model):
        layer.adapter = nnx.static(None)


def merge(model: nnx.Module) -> None:
    """Adds the adapters to the kernels, in float32, and takes them away."""
    for _, layer in _linears(model):
        if isinstance(layer.adapter, Adapter):
            kernel = layer.kernel[...]
            merged = kernel.astype(jnp.float32) + layer.adapter.product()
            layer.kernel.set_value(merged.astype(kernel.dtype))
    remove(model)


def add_to_params(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    config: LoRAConfig,
    frozen: frozenset[str],
    mesh: Mesh,
    seed: int,
) -> tuple[nnx.GraphDef, nnx.State]:
    """`add` for a split model whose parameters lie on a mesh, or are shapes with shardings."""

    def adapted() -> nnx.Module:
        model = nnx.merge(graphdef, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params))
        add(model, config, frozen, nnx.Rngs(seed))
        return model

    def adapters() -> nnx.State:
        return freeze.split_adapters(nnx.state(adapted(), nnx.Param))[0]

    with_adapters, _ = nnx.split(nnx.eval_shape(adapted))
    shapes = jax.eval_shape(adapters)
    if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(params)):
        return with_adapters, nnx.merge_state(params, parallel.abstract(shapes, mesh))
    placed = parallel.jit(adapters, mesh, out_shardings=parallel.shardings(shapes, mesh))()
    return with_adapters, nnx.merge_state(params, placed)


def merged_params(graphdef: nnx.GraphDef, params: nnx.State, mesh: Mesh) -> tuple[nnx.GraphDef, nnx.State]:
    """`merge` for a split model whose parameters lie on a mesh; all but the adapters are donated."""

    def merged(kernels: nnx.State, adapters: nnx.State) -> nnx.Module:
        model = nnx.merge(graphdef, nnx.merge_state(kernels, adapters))
        merge(model)
        return model

    def values(kernels: nnx.State, adapters: nnx.State) -> nnx.State:
        return nnx.state(merged(kernels, adapters), nnx.Param)

    adapters, kernels = freeze.split_adapters(params)
    placed = parallel.shardings(jax.eval_shape(values, kernels, adapters), mesh)
    program = parallel.jit(values, mesh, donate_argnums=0, out_shardings=placed)
    plain, _ = nnx.split(nnx.eval_shape(merged, kernels, adapters))
    return plain, program(kernels, adapters)


def _linears(model: nnx.Module) -> Iterator[tuple[tuple, Linear]]:
    return ((path, module) for path, module in nnx.iter_modules(model) if isinstance(module, Linear))


def _part(path: str) -> str:
    return freeze.part_of(tuple(path.split("/")))
