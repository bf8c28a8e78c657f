"""DiG stage 3: a mix of one to four differences per pair, from the parameters of stage 2.

    python -m data_gen --preset=stage3 --num_pairs=1600 --test_pairs=128 --seed=3 --out=data/stage3
    python -m dig_jax.main --config=configs/stage3.py --workdir=runs/stage3 --config.model_path=MODEL

Starts from `runs/stage2` (`--config.init_from=DIR` to change); the KL reference is the model stage 3 starts
from.
"""

from ml_collections import ConfigDict

from configs import stage1


def get_config() -> ConfigDict:
    """Returns the settings of stage 3."""
    config = stage1.get_config()
    config.init_from = "runs/stage2"
    config.data.train = ("data/stage3",)
    config.data.eval = "data/stage3"
    return config
