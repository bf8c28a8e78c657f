"""The update that benchmarks measure: the trainer's own, at the settings of `configs/base.py`."""

import numpy as np
from flax import nnx

from configs import base
from dig_jax import settings, sft
from dig_jax.learner import Learner, make_optimizer
from dig_jax.microbatches import Cut


def make_learner(graphdef: nnx.GraphDef, vocab: int, micro_prompts: int, chunk: int) -> Learner:
    """The learner of a model.

    Args:
      graphdef: of the model.
      vocab: rows of its output head.
      micro_prompts: prompts of a micro-batch.
      chunk: response positions per slice of the head.
    """
    config = base.get_config()
    return Learner(
        graphdef=graphdef,
        optimizer=make_optimizer(config.optimizer),
        grpo=settings.grpo_config(config),
        sft=sft.SFTConfig(aux_weight=0.0, token_yes=0, token_no=1),
        temperature=1.0,
        allowed=np.ones(vocab, bool),
        chunk=chunk,
        cut=Cut(micro_prompts),
        frozen=frozenset(),
    )
