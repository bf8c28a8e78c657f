"""The method from scratch: a small random Qwen3-VL learns differential grounding in one command, on a laptop.

    python -m dig_jax.scratch --out=runs/scratch
    python -m data_gen --preset=tiny --differences=1 --num_pairs=2400 --test_pairs=200 --seed=101 \\
      --out=data/scratch/single
    python -m data_gen --preset=tiny --differences=2 --num_pairs=2000 --seed=102 --out=data/scratch/double
    python -m data_gen --preset=tiny --differences=0-4 --num_pairs=2000 --test_pairs=400 --seed=103 \\
      --out=data/scratch/mixed
    python -m dig_jax.main --config=configs/scratch.py --workdir=runs/scratch_run

Four stages. `warmup` shows answers, of single-difference pairs only, until the model localises; half of
them have a wrong number of boxes, or the model would end so certain of "one" that no sample ever tried two.
From there on no answer text is shown: `single`, `double` and `mixed` are GRPO on the reward alone, with a new
optimizer and one learning-rate decay over all three. Held-out figures are those of mixed pairs, which the
warm-up never saw.
"""

from ml_collections import ConfigDict

from configs import small

GRPO = ("single", "double", "mixed")  # the stages that see the reward alone


def get_config() -> ConfigDict:
    """Returns the settings of all four stages."""
    config = small.get_config()
    config.model_path = "runs/scratch"
    config.data.train = ("data/scratch/mixed",)
    config.eval.main = "mixed"
    config.evals = ConfigDict({name: {"data": f"data/scratch/{name}"} for name in ("mixed", "single")})
    config.curriculum.order = ("warmup", *GRPO)
    config.curriculum.stages = ConfigDict(
        {
            "warmup": {
                "algorithm": "sft",
                "num_steps": 3000,
                "advance": {"metric": "single/f1", "at": 0.6},
                "data": {"train": ("data/scratch/single",)},
                "batch": {"prompts": 16, "update_prompts": 16, "micro_prompts": 16},
                "sft": {"max_answer_tokens": 28, "aux_weight": 1.0, "count_noise": 0.5},
                "optimizer": {
                    "learning_rate": 1e-3,
                    "schedule": "constant",
                    "warmup_updates": 200,
                    "weight_decay": 0.05,
                },
            },
            # Where all pairs have as many differences, another number of boxes never pays: without the KL
            # penalty 30 steps are enough to unlearn trying one, and the mixed stage has nothing to reinforce.
            "single": {
                "num_steps": 30,
                "data": {"train": ("data/scratch/single",)},
                "optimizer": {"restart": True},
                "grpo": {"reanchor": True, "kl_coef": 0.2},
            },
            "double": {
                "num_steps": 30,
                "data": {"train": ("data/scratch/double",)},
                "grpo": {"kl_coef": 0.2},
            },
            "mixed": {
                "num_steps": 240,
                "data": {"train": ("data/scratch/mixed",), "num_differences": ()},
            },
        }
    )
    config.batch.prompts = config.batch.update_prompts = config.batch.rollout_prompts = 32
    config.batch.response_buckets = (12, 20, 28, 36)
    # Divided by its group's standard deviation, "[]" on an identical pair would weigh little more than a box
    # that lies a little better where all miss, and be unlearnt before the policy knew when to say it.
    config.grpo.normalize_std = False
    config.grpo.kl_coef = 0.0
    config.optimizer.learning_rate = 5e-4
    config.optimizer.schedule = "linear"
    config.optimizer.b2 = 0.98
    config.eval.every = 250
    config.eval.num_pairs = 0
    config.eval.batch_prompts = 200
    config.eval.group_size = 4
    config.checkpoint.every = 50
    config.log.every = 10
    return config
