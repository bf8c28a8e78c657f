"""DiG stage 1: one difference per pair, Qwen3-VL-4B-Thinking (arXiv 2512.12633, section "curriculum").

    python -m data_gen --preset=stage1 --num_pairs=1600 --test_pairs=128 --seed=1 --out=data/stage1
    python -m dig_jax.main --config=configs/stage1.py --workdir=runs/stage1 --config.model_path=MODEL

MODEL is a Hugging Face folder of Qwen/Qwen3-VL-4B-Thinking, or that hub id where there is a network; for 8B
give Qwen/Qwen3-VL-8B-Thinking instead, nothing else changes. 1,600 pairs at 512 prompts per step and 15
passes are 45 steps of 4 updates each. The paper gives neither batch size nor length: these are EasyR1's
defaults.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the settings of stage 1."""
    config = base.get_config()
    config.model_path = "Qwen/Qwen3-VL-4B-Thinking"
    config.data.train = ("data/stage1",)
    config.data.eval = "data/stage1"
    return config
