"""TinyGroundingGPT of 7B, all stages: `tiny_grounding.py` with Qwen2.5-7B-Instruct as its decoder.

python -m dig_jax.main --config=configs/tiny_grounding_7b.py --workdir=runs/tiny-7B
"""

from ml_collections import ConfigDict

from configs import tiny_grounding


def get_config() -> ConfigDict:
    """Returns the settings of all stages."""
    config = tiny_grounding.get_config()
    config.model_path = "models/tiny-7B"
    return config
