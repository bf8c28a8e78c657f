"""configs/scratch.py scaled up for one GPU: a model of 49 million parameters, patches of 8 pixels, bfloat16.

    python -m dig_jax.scratch --out=runs/scratch_gpu --patch_size=8 --number_step=10 \\
      --vision_width=384 --vision_depth=6 --vision_heads=6 --vision_inner=1536 --deepstack 1 3 5 \\
      --text_width=512 --text_depth=8 --text_heads=8 --text_kv_heads=4 --head_dim=64 --text_inner=1536 \\
      --mrope_section 12 10 10
    python -m data_gen --preset=tiny --differences=1 --num_pairs=20000 --test_pairs=400 --seed=11 \\
      --out=data/scratch_gpu/single
    python -m data_gen --preset=tiny --differences=2 --num_pairs=10000 --seed=12 --out=data/scratch_gpu/double
    python -m data_gen --preset=tiny --differences=0-4 --num_pairs=20000 --test_pairs=800 --seed=13 \\
      --out=data/scratch_gpu/mixed
    python -m dig_jax.main --config=configs/scratch_gpu.py --workdir=runs/scratch_gpu_run

The same four stages with eight times the pairs per step. An image is 64 tokens here instead of 16, and a
coordinate one of 101 numbers instead of 51. Steps and learning rates are carried over from the small model by
rule of thumb. A cut-down model has been stepped through the stages on a CPU; nothing has been trained on a
GPU yet. Where memory is short, lower batch.micro_prompts and batch.rollout_prompts. Compiled for one TPU v5e
chip, an update of the mixed stage needs 4.8 GiB:

    python -m dig_jax.compile --config=configs/scratch_gpu.py --stage=mixed --topology=v5e:1x1 \\
      --image_size=128x128 --text_tokens=40
"""

from ml_collections import ConfigDict

from configs import scratch


def get_config() -> ConfigDict:
    """Returns the settings of all four stages."""
    config = scratch.get_config()
    config.model_path = "runs/scratch_gpu"
    config.model.dtype = "bfloat16"
    config.model.remat = "full"  # a micro-batch of 64 prompts would keep 22 GiB for the backward pass
    for name, evaluation in config.evals.items():
        evaluation.data = f"data/scratch_gpu/{name}"
    config.sft.answer_step = 10
    config.batch.prompts = config.batch.update_prompts = config.batch.rollout_prompts = 256
    config.batch.micro_prompts = 64
    config.optimizer.learning_rate = 1e-4
    config.eval.batch_prompts = 400
    stages = config.curriculum.stages
    for name, stage in stages.items():
        stage.data.train = ("data/scratch_gpu/single" if name == "warmup" else f"data/scratch_gpu/{name}",)
    stages.warmup.num_steps = 6000
    stages.warmup.batch = ConfigDict({"prompts": 128, "update_prompts": 128, "micro_prompts": 128})
    stages.warmup.optimizer.learning_rate = 3e-4
    stages.warmup.optimizer.warmup_updates = 500
    return config
