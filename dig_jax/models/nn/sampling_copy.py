"""The copy of the weights that sampling reads: of which dtype, and in which arrays.

Decoding is bound by reading the weights, all of them for every token. Two things make that less:

- Layers apart. Training stacks the layers and runs them under `lax.scan`, so that a program is as long for
  36 layers as for 4. XLA's GPU compiler copies the weights of a layer out of the stack before it multiplies,
  which was half the time of decoding (bench/README.md, accelerator). Where every layer has arrays of its own,
  layers are unrolled, and nothing is copied. TPUs take a layer out of the stack inside the product.
- int8. The kernels of the decoder layers become int8 with a float32 scale per output channel, its largest
  absolute value over 127; products convert them on the way and are scaled in float32. Norms, biases,
  adapters, routers and experts, vision tower, embedding and head are as without int8 (docs/training.md has
  what it costs to take some of them too).

(qwix and AQT, Google's libraries, find what to quantise by running the model with intercepted products, which
fails inside `lax.scan` over stacked layers as it does for adapters; what is left to do without that is one
division.)
"""

import dataclasses
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from dig_jax.models.nn.layers import Linear

LAYERS = ("auto", "stacked", "apart")
WEIGHT_DTYPES = ("", "int8")
INT8_MAX = 127  # symmetric: -128 is not used


class Stacked(Protocol):
    """A model with a decoder of stacked layers, as `VisionLanguageModel` is."""

    text: Any

    def in_compute_dtype(self) -> Any:
        """See `VisionLanguageModel`."""
        ...


M = TypeVar("M", bound=Stacked)


@dataclasses.dataclass(frozen=True)
class Form:
    """What the copy is like.

    Attributes:
      apart: every decoder layer has arrays of its own, and layers are unrolled; else they are stacked.
      int8: kernels of the decoder layers are int8.
    """

    apart: bool = False
    int8: bool = False

    @classmethod
    def choose(cls, layers: str, weight_dtype: str, platform: str) -> "Form":
        """The form that the settings ask for.

        Args:
          layers: one of `LAYERS`; "auto" is "apart" on GPUs alone, whose compiler copies.
          weight_dtype: one of `WEIGHT_DTYPES`; "" is the dtype of computation.
          platform: of the devices that sample.
        """
        apart = platform == "gpu" if layers == "auto" else layers == "apart"
        return cls(apart, weight_dtype == "int8")


AS_TRAINED = Form()  # stacked, in the dtype of computation


def sampling_copy(model: M, form: Form, consume: bool = False) -> M:
    """The same model in the dtype of computation and in this form; what it is already, it stays.

    What is rounded to int8 are the values that `model` has, not those in the dtype of computation.

    Args:
      model: whose arrays the copy may share.
      form: of the copy.
      consume: delete stacked arrays as soon as they are cut up, so that there are never two of all: nobody
        else may have them.
    """
    kernels = {path: _int8(linear) for path, linear in _layer_products(model)} if form.int8 else {}
    copied = model.in_compute_dtype()
    for path, linear in _layer_products(copied):
        if path in kernels:
            linear.kernel, linear.kernel_scale = map(nnx.data, kernels[path])
    if form.apart and not isinstance(copied.text.layers, nnx.List):
        copied.text.layers = _apart(copied.text.layers, consume)
    return copied


def _layer_products(model: Stacked) -> list[tuple[tuple, Linear]]:
    """The products of the decoder layers that are not int8 already."""
    found = nnx.iter_modules(model.text.layers)
    return [(path, m) for path, m in found if isinstance(m, Linear) and m.kernel_scale is None]


def _int8(linear: Linear) -> tuple[nnx.Param, nnx.Param]:
    """The kernel of a layer as int8 [(layers), *out_shape, *in_shape], and its scales [(layers), *out_shape].

    Inputs come last: a GPU loads 8-bit operands of a product fast where what is summed over lies together.
    """
    kernel, axes = linear.kernel[...].astype(jnp.float32), linear.kernel.get_metadata()["out_sharding"]
    layers = int(axes[0] == "layers")
    inputs = tuple(range(layers, layers + linear.num_in))
    outputs = tuple(range(layers + linear.num_in, kernel.ndim))
    largest = jnp.max(jnp.abs(kernel), axis=inputs, keepdims=True)
    scale = jnp.where(largest > 0, largest / INT8_MAX, 1.0)

    def param(value: jax.Array, order: tuple[int, ...]) -> nnx.Param:
        return nnx.Param(value, out_sharding=tuple(axes[i] for i in order), eager_sharding=False)

    order = (*range(layers), *outputs, *inputs)
    rounded = jnp.round(kernel / scale).astype(jnp.int8).transpose(order)
    return param(rounded, order), param(jnp.squeeze(scale, inputs), (*range(layers), *outputs))


def _apart(stacked: nnx.Module, consume: bool) -> nnx.List:
    """A module per layer, from one whose parameters have a leading axis of layers."""
    graphdef, params = nnx.split(stacked, nnx.Param)
    layers: list[dict[tuple, nnx.Param]] = []
    for path, param in nnx.to_flat_state(params):
        whole, names = param.get_value(), param.get_metadata()["out_sharding"][1:]
        layers = layers or [{} for _ in range(whole.shape[0])]
        for number, layer in enumerate(layers):
            own = jax.lax.dynamic_index_in_dim(whole, number, keepdims=False)
            layer[path] = nnx.Param(own, out_sharding=names, eager_sharding=False)
        if consume:
            whole.delete()
    return nnx.List([nnx.merge(graphdef, nnx.from_flat_state(list(layer.items()))) for layer in layers])
