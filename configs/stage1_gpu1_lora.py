"""DiG stage 1 on one GPU of 80 GB: adapters of rank 64 are trained (LoRA), the model stays as it is.

    XLA_CLIENT_MEM_FRACTION=0.93 python -m dig_jax.main --config=configs/stage1_gpu1_lora.py \\
        --workdir=runs/stage1_lora --config.model_path=MODEL

A step has 64 prompts instead of 512, so that it takes minutes, and updates of 16; 45 steps see an eighth of
what stage 1 sees on 8 GPUs. `docs/scale.md` has what the compiler says of it; it has not been run.
"""

from ml_collections import ConfigDict

from configs import stage1


def get_config() -> ConfigDict:
    """Returns the settings of stage 1 for one GPU of 80 GB."""
    config = stage1.get_config()
    config.model.lora.rank = 64
    config.optimizer.learning_rate = 1e-5  # what EasyR1 takes with adapters
    config.mesh.tensor = 1
    config.batch.prompts = 64
    config.batch.update_prompts = 16
    config.batch.micro_prompts = 1
    config.rollout.mesh.tensor = 1
    config.batch.rollout_prompts = 64
    config.rollout.rows = 16  # 6 slots each: their caches take 33 GiB
    config.rollout.slots = 6
    return config
