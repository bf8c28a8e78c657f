"""Supervised warm-up of the small from-scratch model, up to where it localises and GRPO can find a reward.

    make warmup

makes the tokenizer and random weights, renders the pairs, trains with this config and writes
`runs/quickstart_warmup`; the quickstart starts from the copy in `assets/`. Answers are rounded to multiples
of 20, which are one token each in the small tokenizer, and an auxiliary loss asks at every cell of the second
image whether it overlaps a true box, which helps a model this small to start comparing the images.

The learning rate stays constant to the end, because a model that was annealed to zero has little left for
GRPO to find. The other side of it: part of what GRPO gains from here is the smaller learning rate, not the
reward.
"""

from ml_collections import ConfigDict

from configs import small


def get_config() -> ConfigDict:
    """Returns the settings of the warm-up."""
    config = small.get_config()
    config.algorithm = "sft"
    config.num_steps = 1800
    config.model_path = "runs/scratch"
    config.data.train = ("data/warmup",)
    config.data.eval = "data/warmup"
    config.batch.prompts = config.batch.update_prompts = config.batch.micro_prompts = 16
    config.rollout.max_new_tokens = 40
    config.sft.max_answer_tokens = 28  # three boxes take 26 tokens
    config.sft.aux_weight = 1.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_updates = 200
    config.optimizer.b2 = 0.98
    config.optimizer.weight_decay = 0.05
    config.eval.every = 300
    config.eval.num_pairs = 256
    config.eval.batch_prompts = 128
    config.eval.group_size = 0
    config.checkpoint.every = 300
    config.log.every = 100
    return config
