"""configs/stage2.py with room to think: responses of 4,096 tokens, or 8,192 with `:8k` (stage1_long.py).

    python -m data_gen --preset=stage2 --num_pairs=1600 --test_pairs=128 --seed=2 --out=data/stage2
    python -m dig_jax.main --config=configs/stage2_long.py:4k --workdir=runs/stage2_long \\
      --config.model_path=MODEL

Starts from `runs/stage1_long` (`--config.init_from=DIR` to change); the KL reference is the model it starts
from.
"""

from ml_collections import ConfigDict

from configs import stage1_long, stage2


def get_config(length: str = "4k") -> ConfigDict:
    """Returns the settings of stage 2 with responses of `length`, one of `stage1_long.LENGTHS`."""
    config = stage1_long.lengthen(stage2.get_config(), length)
    config.init_from = "runs/stage1_long"
    return config
