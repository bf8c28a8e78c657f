"""Quickstart: GRPO on rendered pairs with a small Qwen3-VL, on a laptop, in minutes.

    make quickstart

renders the pairs and runs this config from `assets/quickstart_warmup`, a small model that was warmed up with
supervised answers (`make warmup` remakes it) and already localises some differences. From here on it sees no
answer text, only the reward. It ends by printing the held-out figures before and after.
"""

from ml_collections import ConfigDict

from configs import small


def get_config() -> ConfigDict:
    """Returns the settings of the quickstart."""
    config = small.get_config()
    config.num_steps = 300
    config.model_path = "assets/quickstart_warmup"
    config.data.train = ("data/quickstart",)
    config.data.eval = "data/quickstart"
    config.batch.prompts = config.batch.update_prompts = 32
    config.batch.micro_prompts = 4
    config.batch.rollout_prompts = 32
    config.optimizer.learning_rate = 1e-4
    config.eval.every = 100
    config.eval.num_pairs = 128
    config.checkpoint.every = 50
    config.log.every = 10
    return config
