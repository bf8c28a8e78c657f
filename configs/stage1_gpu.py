"""DiG stage 1 on one machine with 8 x H100 (80 GB): `stage1.py` with another layout.

    XLA_CLIENT_MEM_FRACTION=0.93 python -m dig_jax.main --config=configs/stage1_gpu.py \\
        --workdir=runs/stage1 --config.model_path=MODEL

Parameters, moments and batch are split over all GPUs (fsdp), nothing over `tensor`: each GPU has a prompt
with its 8 responses at a time, and keeps the products with weights for the backward pass. For sampling each
has the whole model in bfloat16 and 128 slots. `docs/scale.md` has what the compiler says; it was not run.
JAX would take 75% of a GPU's memory, less than a step needs: hence the variable.
"""

from ml_collections import ConfigDict

from configs import stage1


def get_config() -> ConfigDict:
    """Returns the settings of stage 1 for 8 GPUs of 80 GB."""
    return on_gpus(stage1.get_config())


def on_gpus(config: ConfigDict) -> ConfigDict:
    """Changes the layout of a stage to 8 GPUs of 80 GB."""
    config.mesh.tensor = 1
    config.model.remat = "dots"
    config.batch.micro_prompts = 8  # one prompt with its 8 responses per GPU
    config.rollout.mesh.tensor = 1
    config.batch.rollout_prompts = 512  # all of a step together
    config.rollout.rows = 256  # 32 rows of 4 slots per GPU: their caches take 44 GiB
    config.rollout.slots = 4
    return config
