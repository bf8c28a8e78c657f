"""What the experiments with the small from-scratch model share; not an experiment of its own.

The model reads 128x128 images and a short question, and writes coordinates as multiples of 20 (one token
each). Mirroring, exchanging the images and permuting the colors keep the labels and make many pairs of one.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the shared settings."""
    config = base.get_config()
    config.model.dtype = "float32"
    config.model.remat = "none"
    config.data.question = "Find differences."
    config.data.augment.flip_horizontal = True
    config.data.augment.flip_vertical = True
    config.data.augment.transpose = True
    config.data.augment.swap_pair = True
    config.data.augment.permute_channels = True
    config.rollout.max_new_tokens = 36  # four boxes take 34 tokens
    config.eval.greedy = True
    config.sft.answer_step = 20
    config.sft.max_answer_tokens = 36
    return config
