"""How a model computes (`config.model`): dtypes, what the backward pass keeps, the attention kernel."""

import dataclasses

from ml_collections import ConfigDict

from dig_jax.machines import checks
from dig_jax.models.nn import kernels
from dig_jax.models.nn.layers import REMAT

DTYPES = ("bfloat16", "float32")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Of any family. Defaults live in `configs/base.py`; what is frozen and adapters check their own.

    Attributes:
      dtype: of activations.
      param_dtype: of parameters.
      head_chunk: response positions per slice of the output head.
      remat: one of `layers.REMAT`.
      attention: one of `kernels.NAMES`.
      decode_attention: one of `kernels.DECODE`.
      experts: one of `kernels.EXPERTS`.
      expert_room: see `experts.Experts`.
    """

    dtype: str
    param_dtype: str
    head_chunk: int
    remat: str
    attention: str
    decode_attention: str
    experts: str
    expert_room: float

    @classmethod
    def from_config(cls, config: ConfigDict) -> "ModelConfig":
        """The checked settings of a run."""
        return cls(**{field.name: config.model[field.name] for field in dataclasses.fields(cls)})

    def __post_init__(self) -> None:
        checks.one_of("model.dtype", self.dtype, DTYPES)
        checks.one_of("model.param_dtype", self.param_dtype, DTYPES)
        checks.at_least("model.head_chunk", self.head_chunk, 1)
        checks.one_of("model.remat", self.remat, tuple(REMAT))
        checks.one_of("model.attention", self.attention, kernels.NAMES)
        checks.one_of("model.decode_attention", self.decode_attention, kernels.DECODE)
        checks.one_of("model.experts", self.experts, kernels.EXPERTS)
        checks.at_least("model.expert_room", self.expert_room, 1.0)
