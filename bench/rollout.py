"""Refilled slots against fixed batches, on completions whose lengths have a long tail.

    make bench BENCH=rollout
    python -m bench.rollout [--prompts=32] [--rounds=3] [--threads=2]

Lengths come from a log-normal distribution (sigma 1), a stand-in for models that think. Both sides draw the
same completions with the same model and as many slots, so with the same memory for caches. Fixed batches
decode a few prompts with all their completions until the longest has ended, and then the next few; the pool
refills slots and rows as completions end. The sides alternate; figures are medians over the rounds. A
schedule decides where completions end, since an untrained model has no idea of an end; all else costs what it
costs.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bench import results, timing
from bench.results import Result
from dig_jax.models.inputs import Prompts, make_prompts
from dig_jax.models.qwen3_vl.model import Qwen3VL
from dig_jax.models.qwen3_vl.published import architecture
from dig_jax.rollout import engine, pool
from dig_jax.rollout.engine import Rollout, sample_keys
from dig_jax.rollout.sampling import Sampling, sample

AIM = 1.7
GROUP, LONGEST, MEDIAN = 8, 256, 32  # completions per prompt; their lengths in tokens
PROMPT = 32  # tokens
FIXED_PROMPTS, ROWS, SLOTS = 4, 16, 2  # 32 slots on both sides
END, OTHER = 5, 6

Draw = Callable[[Qwen3VL, Prompts, jax.Array], Rollout]


def lengths(keys: jax.Array) -> jax.Array:
    """How long the completion of each key is: a property of the completion, whoever decodes it when."""
    normal = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 1 << 20)))(keys.reshape(-1))
    tokens = jnp.ceil(MEDIAN * jnp.exp(normal)).astype(jnp.int32)
    return jnp.clip(tokens, 1, LONGEST).reshape(keys.shape)


def scheduled(
    logits: jax.Array,
    keys: jax.Array,
    step: jax.Array | int,
    sampling: Sampling,
    forced: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`sample` at its usual cost, with the end where the schedule has it."""
    tokens, logprobs, model_logprobs = sample(logits, keys, step, sampling, forced)
    tokens = jnp.where(tokens == END, OTHER, tokens)
    return jnp.where(step + 1 >= lengths(keys), END, tokens), logprobs, model_logprobs


def small_model() -> Qwen3VL:
    """A decoder of 4 million parameters; the prompts have no images."""
    config = architecture("2B").resized(
        text={
            "vocab_size": 2048,
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "mrope_section": (12, 10, 10),
        },
        vision={
            "hidden_size": 64,
            "intermediate_size": 64,
            "depth": 1,
            "num_heads": 1,
            "deepstack_visual_indexes": (),
        },
    )
    return Qwen3VL(config, rngs=nnx.Rngs(0))


def sides(sampling: Sampling) -> dict[str, Draw]:
    """The two ways to draw all completions [B,G] of some prompts."""
    in_step = jax.jit(engine.rollout, static_argnames=("sampling", "max_new_tokens"))

    def fixed(model: Qwen3VL, prompts: Prompts, keys: jax.Array) -> Rollout:
        parts = []
        for first in range(0, len(keys), FIXED_PROMPTS):
            rows = slice(first, first + FIXED_PROMPTS)
            some = jax.tree.map(lambda x, rows=rows: x[rows], prompts)
            drawn = in_step(model, some, keys[rows], sampling=sampling, max_new_tokens=LONGEST)
            parts.append(jax.device_get(drawn))
        return jax.tree.map(lambda *x: np.concatenate(x) if x[0].ndim else sum(x), *parts)

    @jax.jit
    def refilled(model: Qwen3VL, prompts: Prompts, keys: jax.Array) -> Rollout:
        options: dict[str, Any] = {"max_new_tokens": LONGEST, "slots": SLOTS, "rows": ROWS, "shards": 1}
        filled = pool.fill(model, prompts, keys, sampling=sampling, **options)
        return pool.drain(model, filled, keys, sampling=sampling)

    return {"fixed": fixed, "refilled": lambda *args: jax.device_get(refilled(*args))}


def run(num_prompts: int, rounds: int, profile: str = "") -> dict[str, Any]:
    """Times both sides; see the module's docstring.

    Raises:
        AssertionError: the sides drew different completions.
    """
    engine.sample = pool.sample = scheduled
    model = small_model()
    sampling = Sampling(
        temperature=1.0, top_p=1.0, top_k=0, eos_ids=(END,), suppressed=(1, 2), vocab_size=2048, pad_id=0
    )
    rng = np.random.default_rng(0)
    ids = [rng.integers(7, 2048, PROMPT) for _ in range(num_prompts)]
    prompts = make_prompts(ids, [[] for _ in ids], model.config, prompt_length=PROMPT, num_patches=0)
    numbers = np.arange(num_prompts * GROUP).reshape(num_prompts, GROUP)
    keys = sample_keys(jax.random.key(0), 0, numbers)
    draw = sides(sampling)
    drawn = {name: side(model, prompts, keys) for name, side in draw.items()}  # compiles
    assert np.array_equal(drawn["fixed"].tokens, drawn["refilled"].tokens)
    calls = {name: functools.partial(side, model, prompts, keys) for name, side in draw.items()}
    taken = timing.take_turns(calls, rounds, warmup=0)
    timing.profile(profile, calls["refilled"])
    tokens = int(drawn["fixed"].mask.sum())
    return {
        "tokens": tokens,
        "truncated": float(1 - drawn["fixed"].finished.mean()),
        "steps": {name: int(drawn[name].steps) for name in draw},
        "tokens_per_second": {name: tokens / timing.median(taken[name]) for name in draw},
        "speedup": timing.ratio(taken["refilled"], taken["fixed"]).wall,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = results.make_parser("rollout", __doc__)
    parser.add_argument("--prompts", type=int, default=32, help=f"a multiple of {ROWS} (default 32)")
    parser.add_argument("--rounds", type=results.at_least(1), default=3, help="that count (default 3)")
    args = parser.parse_args(argv)
    if args.prompts < ROWS or args.prompts % ROWS:
        parser.error(f"--prompts must be a multiple of {ROWS}")
    timing.bind(args.threads)
    result = run(args.prompts, args.rounds, args.profile)
    print(f"{result['tokens']} tokens, {result['truncated']:.1%} of the completions truncated")
    for name, rate in result["tokens_per_second"].items():
        print(f"{name:>9}: {result['steps'][name]:5d} steps, {rate:7.0f} tokens/s")
    print(f"refilling is {result['speedup']:.2f} times as fast")
    rates = result["tokens_per_second"]
    what = "decoding a long tail of lengths: refilled slots against fixed batches"
    own, other = (f"{rates[side]:,.0f} tokens/s" for side in ("refilled", "fixed"))
    results.save([Result(what, own, other, result["speedup"], AIM)], args.json)


if __name__ == "__main__":
    main()
