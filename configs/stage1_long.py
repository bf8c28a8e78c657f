"""configs/stage1.py with room to think: responses of up to 4,096 tokens, or of 8,192 with `:8k`.

    python -m data_gen --preset=stage1 --num_pairs=1600 --test_pairs=128 --seed=1 --out=data/stage1
    python -m dig_jax.main --config=configs/stage1_long.py:4k --workdir=runs/stage1_long \\
      --config.model_path=MODEL

docs/thinking.md says how to find out which length your model and data need. Completions that are cut at the
limit are left out of the loss, and in the last quarter before it every token costs reward, so that the model
learns to come to an end.

The layout is for 4B on 16 TPU v5e chips (v5e:4x4), as that of stage 1: twice the tokens, half the completions
at a time, both in updates and in decoding. One length of responses is compiled; updates are a small part of a
step here, so that shorter buckets would save little. docs/scale.md has other slices, and what they cost.
"""

from ml_collections import ConfigDict

from configs import stage1

LENGTHS = {"4k": 4096, "8k": 8192}


def get_config(length: str = "4k") -> ConfigDict:
    """Returns the settings of stage 1 with responses of `length`, one of `LENGTHS`."""
    return lengthen(stage1.get_config(), length)


def lengthen(config: ConfigDict, length: str) -> ConfigDict:
    """Gives a config in the layout of stage 1 longer responses, and rules for those that are too long.

    Raises:
        ValueError: `length` is none of `LENGTHS`.
    """
    if length not in LENGTHS:
        raise ValueError(f"responses of {length!r}: expected one of {', '.join(LENGTHS)}, after a colon")
    longest = LENGTHS[length]
    config.rollout.max_new_tokens = longest
    config.rollout.rows = 32 * 4096 // longest
    config.batch.micro_completions = 4 * 4096 // longest
    config.batch.response_buckets = (longest,)
    config.grpo.mask_truncated = True
    config.grpo.overlong.buffer = longest // 4
    return config
