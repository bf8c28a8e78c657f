"""LoRA: low-rank adapters beside frozen kernels (Hu et al. 2021, arXiv 2106.09685).

A layer `y = x W` becomes `y = x W + (alpha / rank) (x A) B`, where A is drawn and B starts at zero, so that
the model starts as it was. Only A and B are trained: they alone have gradients and optimizer state, and the
gradient of W is never computed. What `add` gives a model, `remove` takes away (the model as it was: the
reference of the KL penalty, without a second copy of the weights) and `merged_params` adds to the kernels
(what is exported, and what a later stage starts from: a plain model again).

Sampling keeps them apart. What an adapter adds to a weight after a few updates is a tenth of the weight's
last bit in bfloat16: W + A B rounded to that is mostly W.

Adapters are float32 whatever the other parameters are; with LoRA these may well be bfloat16, since nothing is
ever added to them in training. (qwix, Google's library for this, finds the layers by running the model with
intercepted matrix products; ours run inside `lax.scan` over stacked layers, where that fails.)
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dig_jax.machines import parallel
from dig_jax.models.nn import freeze
from dig_jax.models.nn.layers import Linear, precision_for, product

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
        """[T, *in_shape] to float32 [T, *out_shape]; inside the scan over layers."""
        low = self.scale * product(x, self.a[...], self.num_in)
        return product(low.astype(x.dtype), self.b[...], 1)


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


@dataclasses.dataclass(frozen=True)
class Rounding:
    """What rounding takes from the adapters when they are merged.

    Attributes:
      lost: |round(W + AB) - round(W) - AB|^2 of every merged layer, by its path and number.
      whole: |AB|^2 of the same.
    """

    lost: dict[str, float]
    whole: dict[str, float]

    @property
    def share(self) -> float:
        """The part of the change that is lost, |difference| / |AB| over all layers; 0 for new adapters."""
        whole = sum(self.whole.values())
        return math.sqrt(sum(self.lost.values()) / whole) if whole else 0.0

    @property
    def worst(self) -> tuple[str, float]:
        """The layer with the largest share, and that share."""
        shares = {path: math.sqrt(self.lost[path] / whole) for path, whole in self.whole.items() if whole}
        return max(shares.items(), key=lambda item: item[1], default=("", 0.0))


def merged_params(
    graphdef: nnx.GraphDef, params: nnx.State, mesh: Mesh, dtype: Any | None = None
) -> tuple[nnx.GraphDef, nnx.State, Rounding]:
    """A plain model: adapters are added to their kernels in float32, which is rounded once.

    Args:
      graphdef: of the model with adapters.
      params: its parameters, on `mesh`. The kernels that change are donated.
      mesh: of the parameters.
      dtype: of these kernels afterwards; None keeps theirs.
    """
    shapes = jax.eval_shape(lambda x: x, params)

    def plain() -> nnx.Module:
        model = nnx.merge(graphdef, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
        remove(model)
        return model

    layers = _linears(nnx.merge(graphdef, shapes))
    adapters = [(path, layer.adapter) for path, layer in layers if isinstance(layer.adapter, Adapter)]
    plain_graphdef, _ = nnx.split(nnx.eval_shape(plain))
    values = dict(nnx.to_flat_state(params))
    del params  # each kernel's memory is free when its sum is there
    rounding = Rounding({}, {})
    for path, adapter in adapters:
        kernel, a, b = (values[(*path, *name)] for name in (("kernel",), ("adapter", "a"), ("adapter", "b")))
        merged, lost, whole = _merge_kernel(adapter, kernel, a, b, mesh, dtype)
        values[(*path, "kernel")] = kernel.replace(merged)
        del values[(*path, "adapter", "a")], values[(*path, "adapter", "b")]
        for number, both in enumerate(zip(np.asarray(lost), np.asarray(whole), strict=True)):
            name = "/".join(map(str, path)) + f"[{number}]"
            rounding.lost[name], rounding.whole[name] = map(float, both)
    return plain_graphdef, nnx.from_flat_state(list(values.items())), rounding


def _merge_kernel(
    adapter: Adapter, kernel: nnx.Variable, a: nnx.Variable, b: nnx.Variable, mesh: Mesh, dtype: Any | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The sum of a kernel, which is donated, and its adapter; then the squares of `Rounding`, by layer."""
    before, target = kernel.get_value(), jnp.dtype(dtype or kernel.dtype)

    def one(kernel: jax.Array, a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        change = adapter.scale * jnp.tensordot(a, b, axes=1, precision=precision_for(a))
        merged = (kernel.astype(jnp.float32) + change).astype(target)
        kept = merged.astype(jnp.float32) - kernel.astype(target).astype(jnp.float32)
        return merged, jnp.sum(jnp.square(kept - change)), jnp.sum(jnp.square(change))

    def merge(kernel: jax.Array, a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        if adapter.layers:
            return jax.lax.map(lambda xs: one(*xs), (kernel, a, b))
        merged, lost, whole = one(kernel, a, b)
        return merged, lost[None], whole[None]

    everywhere = parallel.replicated(mesh)
    program = parallel.jit(
        merge,
        mesh,
        donate_argnums=0 if target == before.dtype else (),
        out_shardings=(before.sharding, everywhere, everywhere),
    )
    result = program(before, a.get_value(), b.get_value())
    before.delete()
    return result


def _linears(model: nnx.Module) -> Iterator[tuple[tuple, Linear]]:
    return ((path, module) for path, module in nnx.iter_modules(model) if isinstance(module, Linear))


def _part(path: str) -> str:
    return freeze.part_of(tuple(path.split("/")))
