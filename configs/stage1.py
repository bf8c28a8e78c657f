"""DiG stage 1: one difference per pair, Qwen3-VL-4B-Thinking (arXiv 2512.12633, section "curriculum").

    python -m data_gen --preset=stage1 --num_pairs=1600 --test_pairs=128 --seed=1 --out=data/stage1
    python -m dig_jax.main --config=configs/stage1.py --workdir=runs/stage1 --config.model_path=MODEL

MODEL is a Hugging Face folder of Qwen/Qwen3-VL-4B-Thinking, or that hub id where there is a network; for 8B
give Qwen/Qwen3-VL-8B-Thinking instead, and a layout (below). 1,600 pairs at 512 prompts per step and 15
passes are 45 steps of 4 updates each. The paper gives neither batch size nor length: these are EasyR1's
defaults.

The layout is for 4B on 16 TPU v5e chips (a slice of v5e:4x4), where the update of a step at 448x448 pixels
takes 92% of their memory, or on 16 larger ones. docs/scale.md has layouts for 8B and for smaller slices, and
says how to choose; `python -m dig_jax.compile --config=configs/stage1.py --topology=...` tells whether a step
fits.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the settings of stage 1."""
    config = base.get_config()
    config.model_path = "Qwen/Qwen3-VL-4B-Thinking"
    config.data.train = ("data/stage1",)
    config.data.eval = "data/stage1"
    config.mesh.tensor = 4  # tables of the vocabulary and MLPs do not fit whole beside long responses
    config.batch.micro_prompts = 4  # one prompt with its 8 responses per group of 4 chips
    config.rollout.mesh.tensor = 4
    config.batch.rollout_prompts = 128
    config.rollout.rows = 64  # 256 slots: their caches take twice as long to read as the weights
    config.rollout.slots = 4
    return config
