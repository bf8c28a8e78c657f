"""Seconds per GRPO step: dig_jax against TRL, in one run on one machine.

    make bench BENCH=grpo_step
    python -m bench.grpo_step --trl-python=.venv-trl/bin/python [--steps=20] [--threads=2] [--profile=DIR]

Both sides start from the same model folder (random weights, float32) and see the same two-image prompts;
the setting is that of `bench/setting.py`: 2 prompts, 4 completions each, 32 new tokens, KL coefficient 0.01
against a frozen reference, one AdamW update. A step is everything from images and text to updated
parameters: preprocessing, sampling, reward, reference log-probs, loss, gradient, update. dig_jax scores
with its own reward, box matching included; TRL with a few lines of Python.

The sides take turns, step by step, on the same CPUs with the same number of threads, so that a change in
what else the machine does falls on both. Steps before `--warmup` are not counted: there dig_jax compiles.
The end token may be drawn, as in training, but a turn is counted only when the longest completion of either
side has all 32 tokens, which is nearly every one: both then decode the same number of tokens. The ratio is
the median over the turns, of wall time and of CPU time. Nothing is kept.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import results, timing
from bench.results import Result
from bench.trl_side import TrlSide
from data_gen.files.userfiles import home_expanded

PROMPTS, GROUP, NEW_TOKENS = 2, 4, 32
AIM = 4.0

Row = dict[str, float]  # step_s, cpu_s, rollout_s, decoded
Pair = tuple[Row, Row]  # of dig_jax and of TRL in one turn


def main() -> None:
    """The command."""
    args = _parse(sys.argv[1:])
    cpus = timing.bind(args.threads)  # the peer inherits them

    from bench import setting
    from bench.dig_jax_side import DigJaxSide

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        setting.write_model(folder / "model")
        pairs = setting.make_pairs(8)
        config = make_config(str(folder / "model"))
        ours = DigJaxSide(config, folder / "model", pairs, setting.QUESTION)
        job = _trl_job(
            config, args, str(folder / "model"), setting.write_images(pairs, folder), setting.QUESTION
        )
        peer = TrlSide(args.trl_python, job)
        try:
            _print_head(args, cpus, ours, peer.description)
            pairs_of_steps = _take_turns(ours, peer, args)
        finally:
            peer.close()
        results.save(_print_table(pairs_of_steps, args.steps), args.json)
        timing.profile(args.profile, lambda: ours.step(args.warmup + args.steps))


def _take_turns(ours: Any, peer: TrlSide, args: argparse.Namespace) -> list[Pair]:
    """Steps of both sides that count, in turn on the same CPUs."""
    pairs: list[Pair] = []
    for step in range(args.warmup + args.steps):
        own, other = ours.step(step), peer.step()
        if step < args.warmup:
            continue
        if own["decoded"] == other["decoded"] == NEW_TOKENS:
            pairs.append((own, other))
        print(f"step {step}: dig_jax {own['step_s']:.3f} s, TRL {other['step_s']:.3f} s", flush=True)
    return pairs


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = results.make_parser("grpo_step", __doc__)
    parser.add_argument(
        "--trl-python", type=home_expanded, required=True, help="interpreter of the environment that has TRL"
    )
    parser.add_argument(
        "--steps", type=results.at_least(1), default=20, help="steps measured on each side (default 20)"
    )
    parser.add_argument(
        "--warmup", type=results.at_least(1), default=3, help="steps before those (default 3)"
    )
    args = parser.parse_args(argv)
    if not Path(args.trl_python).exists():
        parser.error(
            f"--trl-python={args.trl_python} does not exist; `make bench` makes .venv-trl and passes it"
        )
    return args


def make_config(model: str) -> Any:
    """The setting of the docstring above, for a model folder; the rest is that of `configs/base.py`."""
    from configs import base

    config = base.get_config()
    config.model_path = model
    config.model.dtype = "float32"
    config.batch.prompts = config.batch.update_prompts = PROMPTS
    config.batch.micro_prompts = config.batch.rollout_prompts = PROMPTS
    config.rollout.group_size = GROUP
    config.rollout.max_new_tokens = NEW_TOKENS
    return config


def _trl_job(
    config: Any, args: argparse.Namespace, model: str, images: list, question: str
) -> dict[str, Any]:
    return {
        "model": model,
        "pairs": images,
        "question": question,
        "steps": args.warmup + args.steps,
        "threads": args.threads,
        "prompts": PROMPTS,
        "group": GROUP,
        "new_tokens": NEW_TOKENS,
        "kl_coef": config.grpo.kl_coef,
        "clip_low": config.grpo.clip_low,
        "clip_high": config.grpo.clip_high,
        "learning_rate": config.optimizer.learning_rate,
        "weight_decay": config.optimizer.weight_decay,
        "clip_norm": config.optimizer.clip_norm,
    }


def _print_head(args: argparse.Namespace, cpus: list[int], ours: Any, peer: dict[str, Any]) -> None:
    names = ("jax", "jaxlib", "flax")
    print(
        f"{PROMPTS} prompts x {GROUP} completions x {NEW_TOKENS} new tokens, float32,"
        f" {args.threads} threads on CPUs {cpus}"
    )
    print(
        f"dig_jax: {ours.parameters:,} parameters, {ours.prompt_tokens}-token prompts (padded to"
        f" {ours.prompt_length}); " + ", ".join(f"{name} {version(name)}" for name in names)
    )
    versions = ", ".join(f"{name} {value}" for name, value in peer["versions"].items())
    print(f"TRL:     {peer['parameters']:,} parameters, {peer['prompt_tokens']}-token prompts; {versions}")
    if (ours.parameters, ours.prompt_tokens) != (peer["parameters"], peer["prompt_tokens"]):
        sys.exit("error: the two sides do not run the same model on the same prompts")


def _print_table(pairs: list[Pair], steps: int) -> list[Result]:
    if not pairs:
        sys.exit("error: no step decoded all tokens on both sides")
    print(f"\n{'median seconds':16}{'step':>9}{'rollout':>9}{'rest':>9}{'CPU time':>10}   range of steps")
    medians = []
    for name, rows in zip(("dig_jax", "TRL"), zip(*pairs, strict=True), strict=True):
        columns = list(zip(*map(_columns, rows), strict=True))
        medians.append([statistics.median(column) for column in columns])
        print(f"{name:16}{_numbers(medians[-1], 3)}   {min(columns[0]):.3f} to {max(columns[0]):.3f}")
    turns = [[b / a for a, b in zip(*map(_columns, pair), strict=True)] for pair in pairs]
    columns = list(zip(*turns, strict=True))
    ratios = [statistics.median(column) for column in columns]
    print(f"{'TRL / dig_jax':16}{_numbers(ratios, 2)}   {min(columns[0]):.2f} to {max(columns[0]):.2f}")
    print(f"{len(pairs)} of {steps} turns counted")
    what = f"GRPO step, {PROMPTS} x {GROUP} x {NEW_TOKENS} tokens, against TRL"
    own, other = (f"{1e3 * side[0]:.0f} ms" for side in medians)
    return [Result(what, own, other, ratios[0], AIM)]


def _columns(row: Row) -> tuple[float, ...]:
    """Seconds of the step, of its rollout, of the rest, and CPU seconds of the step."""
    return row["step_s"], row["rollout_s"], row["step_s"] - row["rollout_s"], row["cpu_s"]


def _numbers(values: Sequence[float], digits: int) -> str:
    return "".join(f"{value:{width}.{digits}f}" for value, width in zip(values, (9, 9, 9, 10), strict=True))


if __name__ == "__main__":
    main()
