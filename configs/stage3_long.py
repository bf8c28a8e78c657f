"""configs/stage3.py with room to think: responses of 4,096 tokens, or 8,192 with `:8k` (stage1_long.py).

    python -m data_gen --preset=stage3 --num_pairs=1600 --test_pairs=128 --seed=3 --out=data/stage3
    python -m dig_jax.main --config=configs/stage3_long.py:4k --workdir=runs/stage3_long \\
      --config.model_path=MODEL

Starts from `runs/stage2_long` (`--config.init_from=DIR` to change); the KL reference is the model it starts
from.
"""

from ml_collections import ConfigDict

from configs import stage1_long, stage3


def get_config(length: str = "4k") -> ConfigDict:
    """Returns the settings of stage 3 with responses of `length`, one of `stage1_long.LENGTHS`."""
    config = stage1_long.lengthen(stage3.get_config(), length)
    config.init_from = "runs/stage2_long"
    return config
