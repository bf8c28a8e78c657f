"""DiG stage 2 on one machine with 8 x H100: `stage2.py` with the layout of `stage1_gpu.py`.

    XLA_CLIENT_MEM_FRACTION=0.93 python -m dig_jax.main --config=configs/stage2_gpu.py \\
        --workdir=runs/stage2 --config.model_path=MODEL
"""

from ml_collections import ConfigDict

from configs import stage1_gpu, stage2


def get_config() -> ConfigDict:
    """Returns the settings of stage 2 for 8 GPUs of 80 GB."""
    return stage1_gpu.on_gpus(stage2.get_config())
