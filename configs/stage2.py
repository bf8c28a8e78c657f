"""DiG stage 2: two differences per pair, from the parameters of stage 1.

    python -m data_gen --preset=stage2 --num_pairs=1600 --test_pairs=128 --seed=2 --out=data/stage2
    python -m dig_jax.main --config=configs/stage2.py --workdir=runs/stage2 --config.model_path=MODEL

Starts from `runs/stage1` (`--config.init_from=DIR` to change); the KL reference is the model stage 2 starts
from.
"""

from ml_collections import ConfigDict

from configs import stage1


def get_config() -> ConfigDict:
    """Returns the settings of stage 2."""
    config = stage1.get_config()
    config.init_from = "runs/stage1"
    config.data.train = ("data/stage2",)
    config.data.eval = "data/stage2"
    return config
