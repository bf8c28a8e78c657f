"""The learner that benchmarks and tests measure: the trainer's own, at the settings of `configs/base.py`."""

import dataclasses
from typing import Any

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from configs import base
from dig_jax.update.learner import Learner
from dig_jax.update.sft import SFTConfig


def make_learner(
    graphdef: nnx.GraphDef, vocab_size: int, config: ConfigDict | None = None, **changes: Any
) -> Learner:
    """The learner of a model, all of whose tokens can be sampled.

    Args:
      graphdef: of the model.
      vocab_size: rows of its output head.
      config: other settings than the defaults.
      changes: fields of `Learner`, such as `cut`.
    """
    learner = Learner.from_config(
        config or base.get_config(),
        graphdef,
        sft=SFTConfig(aux_weight=0.0, token_yes=0, token_no=1),
        allowed=np.ones(vocab_size, bool),
    )
    return dataclasses.replace(learner, **changes)
