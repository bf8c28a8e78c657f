"""A GRPO update on completions with a long tail of lengths, cut by length against all padded alike.

    make bench BENCH=update_lengths
    python -m bench.update_lengths [--prompts=16] [--rounds=3] [--threads=2]

Lengths are those of `bench.rollout`: log-normal with sigma 1, a median of an eighth of the longest. Three
sides make the same update of the same model with as many completions in a micro-batch: padded to the longest
there may be; cut by length (`batch.response_buckets`, the default); and cut by length in pieces of two
completions (`batch.micro_completions=2`), which compute their prompt again. The sides alternate.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from bench import results, timing
from bench.learning import make_learner
from bench.results import Result
from bench.rollout import GROUP, LONGEST, PROMPT, lengths, small_model
from dig_jax.models.inputs import make_prompts
from dig_jax.models.qwen3_vl.model import Qwen3VL
from dig_jax.rollout.engine import sample_keys
from dig_jax.update.learner import Learner
from dig_jax.update.microbatches import Cut
from dig_jax.update.policy import Experience

COMPLETIONS = 16  # in a micro-batch
BUCKETS = (LONGEST // 4, LONGEST // 2)
CUTS = {
    "padded": Cut(COMPLETIONS // GROUP),
    "buckets": Cut(COMPLETIONS // GROUP, buckets=BUCKETS),
    "pieces": Cut(COMPLETIONS // 2, completions=2, buckets=BUCKETS),
}


def experience(model: Qwen3VL, num_prompts: int) -> Experience:
    """Completions of scheduled lengths, with made-up log-probs and advantages."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(7, 2048, PROMPT) for _ in range(num_prompts)]
    numbers = np.arange(num_prompts * GROUP).reshape(num_prompts, GROUP)
    ends = np.asarray(lengths(sample_keys(jax.random.key(0), 0, numbers)))
    shape = (num_prompts, GROUP, LONGEST)
    made_up = rng.normal(-7, 0.3, shape).astype(np.float32)
    return Experience(
        prompts=make_prompts(ids, [[] for _ in ids], model.config, prompt_length=PROMPT, num_patches=0),
        tokens=rng.integers(7, 2048, shape).astype(np.int32),
        mask=(np.arange(LONGEST) < ends[..., None]).astype(np.float32),
        behaviour_logprobs=made_up,
        advantages=rng.normal(size=shape[:2]).astype(np.float32),
        ref_logprobs=made_up,
    )


def run(num_prompts: int, rounds: int, profile: str = "") -> dict[str, Any]:
    """Times all sides; see the module's docstring.

    Raises:
        AssertionError: the sides made different updates.
    """
    model = small_model()
    batch = experience(model, num_prompts)
    graphdef, params = nnx.split(model, nnx.Param)
    learner = make_learner(graphdef, 2048, chunk=64)
    state = learner.init(params)

    def side(learner: Learner) -> Any:
        update = jax.jit(learner.update_grpo)
        return lambda: jax.device_get(update(state, batch)[1])

    sides = {name: side(dataclasses.replace(learner, cut=cut)) for name, cut in CUTS.items()}
    figures = {name: call() for name, call in sides.items()}  # compiles
    for name in CUTS:
        for figure in ("loss", "grad_norm"):
            np.testing.assert_allclose(figures[name][figure], figures["padded"][figure], rtol=1e-5)
    taken = timing.take_turns(sides, rounds, warmup=0)
    timing.profile(profile, sides["pieces"])
    return {
        "padding": {name: float(figures[name]["response_padding"]) for name in CUTS},
        "seconds": {name: timing.median(taken[name]) for name in CUTS},
        "speedup": {name: timing.ratio(taken[name], taken["padded"]) for name in CUTS},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = results.make_parser("update_lengths", __doc__)
    parser.add_argument("--prompts", type=int, default=16, help="a multiple of 8 (default 16)")
    parser.add_argument("--rounds", type=results.at_least(1), default=3, help="that count (default 3)")
    args = parser.parse_args(argv)
    if args.prompts < 8 or args.prompts % 8:
        parser.error("--prompts must be a multiple of 8")
    timing.bind(args.threads)
    result = run(args.prompts, args.rounds, args.profile)
    for name, padding in result["padding"].items():
        seconds, speed = result["seconds"][name], result["speedup"][name]
        print(
            f"{name:>8}: {padding:4.0%} padding, {seconds:6.2f} s, {speed.wall:.2f} times as fast"
            f" ({speed.cpu:.2f} in CPU time)"
        )
    what = "an update on a long tail of lengths: pieces of groups in buckets against all padded alike"
    own, other = (f"{result['seconds'][side]:.2f} s" for side in ("pieces", "padded"))
    results.save([Result(what, own, other, result["speedup"]["pieces"].wall)], args.json)


if __name__ == "__main__":
    main()
