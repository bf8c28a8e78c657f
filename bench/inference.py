"""Tokens per second of prefill and decode: dig_jax against transformers, in one run on one machine.

    make bench BENCH=inference
    python -m bench.inference [--size=small] [--size=mid] [--repeats=9] [--threads=2] [--profile=DIR]

Both sides load the same generated Hugging Face folder (random weights, float32) and take turns, run by run,
the same CPUs with the same number of threads. On a machine with a GPU that both JAX and torch can use, they
run there. Before anything is timed, their logits after the prompts have to agree and their greedy
continuations have to be the same.

- prefill: a batch of prompts, each two images and text, up to the logits after them; prompt tokens per
  second.
- decode: a group of 8 sampled completions of one prompt, all of the same length; new tokens per second from
  the second token on. dig_jax keeps one copy of the prompt's keys and values for the group, transformers
  (`generate`, num_return_sequences=8) one per completion.

Printed are medians, and of the ratios the median over pairs of runs: what else the machine does falls on
both. Where it does much else, believe the ratio of CPU time, best with --threads=1: with more threads it
counts those that wait in a loop.
On a GPU the share of the memory's bandwidth that decoding reaches is printed as well.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import results, timing
from bench.results import Result
from bench.timing import IDLE_S, Seconds

if TYPE_CHECKING:
    from bench.inference_sides import Side
    from bench.inference_sizes import Size

GROUP = 8
AIMS = {("small", "decode"): 4.0}
LOGITS_TOLERANCE = 1e-3  # absolute; the logits of these models have a standard deviation of about one half

Row = tuple[Seconds, Seconds]  # of dig_jax and of transformers in one turn


def main() -> None:
    """The command."""
    args = _parse(sys.argv[1:])
    timing.bind(args.threads)
    # On a GPU, JAX would take most of its memory at once and leave none for the peer.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    device = _device(args.threads)

    from bench.inference_sides import DigJax, Transformers
    from bench.inference_sizes import SIZES, make_prompts, write_model

    names = ("jax", "jaxlib", "flax", "torch", "transformers")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"float32 on {device}, {args.threads} threads; {versions}", flush=True)
    found: list[Result] = []
    for name in args.size or list(SIZES):
        size = SIZES[name]
        prompts = make_prompts(size)
        with tempfile.TemporaryDirectory() as folder:
            write_model(Path(folder), size)
            ours = DigJax(folder, size, prompts, GROUP)
            peer = Transformers(load_peer(folder), size, prompts, GROUP, device)
        _print_head(name, size, ours)
        check(ours, peer)
        kinds = peer.choose_cache(runs=2)
        print(f"transformers' cache: {peer.cache} ({_seconds(kinds)})", flush=True)
        rows = _take_turns(ours, peer, args.repeats)
        tokens = {"prefill": size.prompts * size.prompt_length, "decode": _decoded(size)}
        _print_table(rows, tokens)
        found += _results(name, rows, tokens)
        if device != "cpu":
            _print_bandwidth(size, ours, rows["decode"])
        timing.profile(args.profile and f"{args.profile}/{name}", ours.prefill, ours.decode)
    results.save(found, args.json)


def load_peer(folder: str | Path) -> Any:
    """The peer's model, in float32."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    return Qwen3VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    )


def check(ours: "Side", peer: "Side") -> None:
    """Ends the program unless both sides compute the same; compiles what is timed, on the way.

    Greedy continuations compare exactly: at these sizes two words are never as close as rounding.
    """
    import numpy as np

    _, logits = ours.prefill()
    _, expected = peer.prefill()
    difference = float(np.abs(logits - expected).max())
    if not difference <= LOGITS_TOLERANCE:
        sys.exit(
            f"error: logits after the prompts differ by up to {difference:.2g}, more than {LOGITS_TOLERANCE}"
        )
    tokens, expected_tokens = ours.greedy(), peer.greedy()
    if not np.array_equal(tokens, expected_tokens):
        same = np.mean(tokens == expected_tokens)
        sys.exit(f"error: the greedy continuations differ: only {same:.0%} of the tokens are the same")
    print(
        f"checked: logits differ by at most {difference:.1e}; {tokens.size} greedy tokens are the same"
        f" ({len(np.unique(tokens))} different words)",
        flush=True,
    )


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = results.make_parser("inference", __doc__)
    parser.add_argument(
        "--size", action="append", choices=("small", "mid"), help="of the model; repeat for several (all)"
    )
    parser.add_argument(
        "--repeats", type=results.at_least(1), default=9, help="runs of each side that count (default 9)"
    )
    return parser.parse_args(argv)


def _device(threads: int) -> str:
    """Torch's name of the device that both sides run on."""
    try:
        import torch
    except ImportError:
        sys.exit("error: the peer needs torch, which `make setup-dev` installs")
    import jax

    torch.set_num_threads(threads)
    platforms = {"jax": jax.default_backend(), "torch": "gpu" if torch.cuda.is_available() else "cpu"}
    if platforms["jax"] != platforms["torch"]:
        sys.exit(
            f"error: jax runs on {platforms['jax']}, torch on {platforms['torch']}; install both for the same"
            " device, or set JAX_PLATFORMS=cpu and CUDA_VISIBLE_DEVICES="
        )
    return "cuda" if platforms["jax"] == "gpu" else "cpu"


def _take_turns(ours: "Side", peer: "Side", repeats: int) -> dict[str, list[Row]]:
    """Seconds of both sides, in turn; the first of each is a warm-up and does not count."""
    rows: dict[str, list[Row]] = {"prefill": [], "decode": []}
    for turn in range(repeats + 1):
        for name, row in (
            ("prefill", (_idle(ours.prefill)[0], _idle(peer.prefill)[0])),
            ("decode", (_idle(ours.decode), _idle(peer.decode))),
        ):
            if turn:
                rows[name].append(row)
    return rows


def _idle(run: Any) -> Any:
    time.sleep(IDLE_S)
    return run()


def _decoded(size: "Size") -> int:
    """Tokens that a timed decode draws: the first of each completion is drawn before."""
    return GROUP * (size.new_tokens - 1)


def _seconds(kinds: dict[str, float]) -> str:
    return ", ".join(f"{kind} {seconds:.3f} CPU s" for kind, seconds in kinds.items())


def _print_head(name: str, size: "Size", ours: Any) -> None:
    import jax
    from flax import nnx

    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(ours.model, nnx.Param)))
    text, vision = size.config.text, size.config.vision
    print(
        f"\n{name}: {parameters:,} parameters, {text.num_hidden_layers} + {vision.depth} layers;"
        f" prefill {size.prompts} prompts of {size.prompt_length} tokens ({size.num_patches} patches each),"
        f" decode {GROUP} x {size.new_tokens} tokens"
    )


def _print_table(rows: dict[str, list[Row]], tokens: dict[str, int]) -> None:
    print("\n| tokens/s | dig_jax | transformers | ratio | single turns | ratio of CPU time | single turns |")
    print("|---|---|---|---|---|---|---|")
    for name, pairs in rows.items():
        own, other = (
            tokens[name] / statistics.median(seconds.wall for seconds in column)
            for column in zip(*pairs, strict=True)
        )
        wall = _spread([theirs.wall / mine.wall for mine, theirs in pairs])
        cpu = _spread([theirs.cpu / mine.cpu for mine, theirs in pairs])
        print(f"| {name} | {own:,.0f} | {other:,.0f} | {wall} | {cpu} |", flush=True)


def _results(size: str, rows: dict[str, list[Row]], tokens: dict[str, int]) -> list[Result]:
    found = []
    for name, pairs in rows.items():
        own, other = zip(*pairs, strict=True)
        mine, theirs = (f"{tokens[name] / timing.median(side):,.0f} tokens/s" for side in (own, other))
        what = f"{name}, {size} model, against transformers"
        found.append(Result(what, mine, theirs, timing.ratio(own, other).wall, AIMS.get((size, name), 0.0)))
    return found


def _spread(ratios: list[float]) -> str:
    """Two cells of the table: the median, and the range."""
    return f"{statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f}"


def _print_bandwidth(size: "Size", ours: Any, pairs: list[Row]) -> None:
    import jax

    from bench import bandwidth

    steps = size.new_tokens - 1
    step_bytes = bandwidth.mean_step_bytes(ours.model, size.prompt_length, GROUP, size.new_tokens)
    step_seconds = statistics.median(mine.wall for mine, _ in pairs) / steps
    print("\ndig_jax reads", bandwidth.describe(step_bytes, step_seconds, jax.devices()[0].device_kind))


if __name__ == "__main__":
    main()
