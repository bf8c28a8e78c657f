"""configs/curriculum.py for Qwen3-VL-30B-A3B-Thinking, a mixture of experts: `:lora` (default) or `:full`.

    python -m dig_jax.main --config=configs/curriculum_30b_a3b.py:lora --workdir=runs/curriculum_a3b \\
      --config.model_path=MODEL

The data are those of configs/curriculum.py, MODEL a folder of Qwen/Qwen3-VL-30B-A3B-Thinking or that hub id.
GSPO, one ratio per completion, and the sampler's experts replayed in training (docs/moe.md): in four updates
per rollout no single token decides about a completion, flipped or not. There is no KL reference.

`lora` trains adapters of attention on bfloat16 weights; the layout is for 4 TPU v6e chips (v6e:2x2). `full`
trains all weights, routers too, on 8 TPU v5p chips (v5p:2x2x2). docs/scale.md has what was compiled of it,
and other slices. It has not been run.
"""

from ml_collections import ConfigDict

from configs import curriculum

WAYS = ("lora", "full")


def get_config(way: str = "lora") -> ConfigDict:
    """Returns the settings of the three stages.

    Args:
        way: what is trained, one of `WAYS`.

    Raises:
        ValueError: `way` is none of those.
    """
    if way not in WAYS:
        raise ValueError(f"trained {way!r}: expected one of {', '.join(WAYS)}, after a colon")
    config = curriculum.get_config()
    config.model_path = "Qwen/Qwen3-VL-30B-A3B-Thinking"
    with_gspo(config)
    config.batch.response_buckets = (2048,)
    config.mesh.tensor = config.rollout.mesh.tensor = 1
    if way == "lora":
        config.model.param_dtype = "bfloat16"
        config.model.lora.rank = 64
        config.optimizer.learning_rate = 1e-5  # what EasyR1 takes with adapters
        config.mesh.fsdp, config.mesh.expert = 1, 4  # as in sampling: nearly nothing is copied for that
        config.rollout.mesh.expert = 4
        config.batch.micro_prompts, config.batch.micro_completions = 4, 2
        config.batch.rollout_prompts = 64
        config.rollout.rows = 32  # 8 rows of 4 slots per chip: their caches take 7 GiB
    else:
        config.mesh.fsdp, config.mesh.expert = 2, 4  # the rest of the model is split over all eight
        config.rollout.mesh.expert = 8
        config.batch.micro_prompts, config.batch.micro_completions = 8, 4
    return config


def with_gspo(config: ConfigDict) -> None:
    """GSPO with the ranges of its paper (arXiv 2507.18071), and the sampler's experts in training."""
    config.moe.replay = "rollout"
    config.grpo.loss, config.grpo.loss_mean = "gspo", "sequence"
    config.grpo.clip_low, config.grpo.clip_high = 3e-4, 4e-4
    config.grpo.dual_clip = config.grpo.kl_coef = 0.0
    for stage in config.curriculum.stages.values():
        stage.grpo.reanchor = False  # there is no reference
