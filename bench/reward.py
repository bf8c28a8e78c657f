"""The reward of 4,096 completions: dig_jax against a loop over them, and its share of a training step.

    make bench BENCH=reward
    python -m bench.reward [--completions=4096] [--rounds=15] [--threads=2]

Completions answer scenes of 1 to 4 differences; most have about as many boxes as there are differences, near
the true ones or not. The peer (`bench/reward_peer.py`) scores one completion after another with numpy and
scipy, as rewards are usually written. Both sides start from the same parsed answers, and the second line has
them parse the same texts with the same parser first. Before anything is timed, both have to agree.

Then a GRPO step of the model of `bench/setting.py` (0.8 million parameters, G = 8) is run, and the time its
host spends on text and reward, and on matching alone, is set against the step. On a model of useful size a
step takes a hundred times as long and the reward does not.
"""

import argparse
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from bench import results, timing
from bench.results import Result
from bench.timing import Seconds

AIM = 50.0
IN_A_ROW = 20  # runs of the quick side in a turn: both then work for about as long, and neither starts cold
STEPS = 10  # of training, for the share of the reward


def main(argv: list[str] | None = None) -> None:
    """The command."""
    args = _parse(sys.argv[1:] if argv is None else argv)
    timing.bind(args.threads)

    from configs import base
    from dig_jax.tasks.differences.reward import RewardConfig, score_texts

    config = RewardConfig.from_config(base.get_config())
    texts, true, num_true = make_completions(args.completions, seed=0)
    found = [compare(parse, args, texts, true, num_true, config) for parse in (False, True)]
    if args.step:
        found.append(share_of_step())
    print("\n" + results.table(found))
    results.save(found, args.json)
    score = functools.partial(score_texts, texts, true, num_true, thinking=False, config=config)
    timing.profile(args.profile, score)


def make_completions(count: int, seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Answers as text, the true boxes [n, 4, 4] of their pairs, and how many those have [n]."""
    rng = np.random.default_rng(seed)
    num_true = rng.integers(1, 5, count)
    true = np.zeros((count, 4, 4), np.float32)
    texts = []
    for row, number in enumerate(num_true):
        truth = _boxes(rng, number)
        true[row, :number] = truth / 1000
        answer = _boxes(rng, max(0, number + rng.choice([-1, 0, 0, 0, 1, 2])))
        near = min(int(rng.integers(0, number + 1)), len(answer))
        answer[:near] = np.clip(truth[:near] + rng.integers(-15, 16, (near, 4)), 0, 1000)
        texts.append(json.dumps(rng.permutation(answer).tolist()))
    return texts, true, num_true


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner, size = rng.integers(0, 800, (count, 2)), rng.integers(60, 200, (count, 2))
    return np.concatenate([corner, corner + size], axis=1)


def compare(
    parse: bool,
    args: argparse.Namespace,
    texts: list[str],
    true: np.ndarray,
    num_true: np.ndarray,
    config: Any,
) -> Result:
    """Times both sides, from the text or from the parsed answers on."""
    from bench import reward_peer
    from dig_jax.tasks.boxes.text import read_boxes
    from dig_jax.tasks.differences.reward import score_answers

    truths = [boxes[:number] for boxes, number in zip(true, num_true, strict=True)]

    def read() -> list:
        return [read_boxes(text, thinking=False, max_boxes=config.max_boxes) for text in texts]

    answers = read()

    def ours() -> np.ndarray:
        return score_answers(read() if parse else answers, true, num_true, config).reward

    def peer() -> np.ndarray:
        scored = [
            reward_peer.score(answer.boxes, answer.valid, truth, config)
            for answer, truth in zip(read() if parse else answers, truths, strict=True)
        ]
        return np.array([terms["reward"] for terms in scored])

    differ = float(np.abs(ours() - peer()).max())
    if not differ < 1e-4:
        sys.exit(f"error: the rewards of the two sides differ by up to {differ:.2g}")
    taken = timing.take_turns({"ours": lambda: [ours() for _ in range(IN_A_ROW)], "peer": peer}, args.rounds)
    own = [Seconds(*(figure / IN_A_ROW for figure in seconds)) for seconds in taken["ours"]]
    ratio = timing.ratio(own, taken["peer"])
    what = f"reward of {len(texts):,} completions, {'with' if parse else 'without'} reading the text"
    print(f"{what}: ratio {ratio.wall:.1f}, of CPU time {ratio.cpu:.1f}", flush=True)
    milliseconds, others = (f"{1e3 * timing.median(side):.3g} ms" for side in (own, taken["peer"]))
    return Result(what, milliseconds, others, ratio.wall, aim=0.0 if parse else AIM)


def share_of_step() -> Result:
    """What part of a step the host spends on text and reward, and on the assignment alone."""
    from bench import grpo_step, setting
    from bench.dig_jax_side import DigJaxSide
    from dig_jax.tasks.differences import reward

    assigning: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(reward, "assign", _timed(reward.assign, assigning)),
    ):
        model = Path(folder) / "model"
        setting.write_model(model)
        config = grpo_step.make_config(str(model))
        config.rollout.group_size = 8
        side = DigJaxSide(config, model, setting.make_pairs(8), setting.QUESTION)
        side.step(0)  # compiles
        assigning.clear()
        rows = [side.step(1 + step) for step in range(STEPS)]
    whole = statistics.median(row["step_s"] for row in rows)
    scoring = statistics.median(row["reward_s"] for row in rows)
    matching = statistics.median(assigning)
    what = f"text, reward and Hungarian step of {2 * 8} completions, of a step of 0.8M parameters"
    print(f"{what}: {1e3 * scoring:.3g} and {1e3 * matching:.3g} of {1e3 * whole:.3g} ms", flush=True)
    return Result(what, f"{scoring / whole:.1%}, Hungarian {matching / whole:.2%}")


def _timed(function: Callable, seconds: list[float]) -> Callable:
    def timed(*args: Any) -> Any:
        start = time.perf_counter()
        result = function(*args)
        seconds.append(time.perf_counter() - start)
        return result

    return timed


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = results.make_parser("reward", __doc__)
    parser.add_argument(
        "--completions", type=results.at_least(1), default=4096, help="scored together (default 4096)"
    )
    parser.add_argument("--rounds", type=results.at_least(1), default=15, help="that count (default 15)")
    parser.add_argument("--no-step", dest="step", action="store_false", help="leave the training step out")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
