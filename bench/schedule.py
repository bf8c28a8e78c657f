"""How busy a pool's slots are and what they read, counted by the pool's own bookkeeping, without a model.

    make bench BENCH=schedule
    python -m bench.schedule [--longest=2048] [--mean=855] [--sigma=0.8] [--prompts=512] [--shards=4] \\
      [--rows=64] [--slots=4] [--at-a-time=128] [--prompt-tokens=600]

Draws lengths of completions from a log-normal distribution, cut at the longest, and lets
`dig_jax.rollout.schedule` deal them to slots until all have ended, as the compiled loop of a pool does. The
peer is the same pool with every slot bound to a row, as it once was: it takes completions of its row's prompt
alone. Of the caches attention reads a window that holds the longest completion of all slots, or, with the
kernel of TPUs (`models.nn.ragged_decode`), the blocks that each completion fills. Seconds are what reading
weights and caches takes at the full bandwidth of the memory, for Qwen3-VL-4B in bfloat16 on v5e:4x4 with
`tensor` 4, and nothing else.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from bench import results
from bench.results import Result
from dig_jax.aot.chips import CHIPS
from dig_jax.models.nn.caches import positions_read
from dig_jax.models.nn.ragged_decode import RaggedDecode
from dig_jax.models.qwen3_vl.published import architecture
from dig_jax.rollout.pool import windows_of
from dig_jax.rollout.schedule import Schedule

GROUP = 8
CHIPS_IN_ALL, TENSOR = 16, 4
WEIGHTS = 8.0e9  # bytes that a token reads, in bfloat16


@dataclasses.dataclass(frozen=True)
class Counts:
    """What it took to decode all completions, over all shards.

    Attributes:
        steps: of the loop, which all slots take.
        tokens: that were drawn by them.
        read: positions of response caches that attention read, where it reads windows.
        read_filled: the same, where it reads what is filled.
        filled: those of them that held a token of the completion.
        slots: in all.
        rows: in all.
    """

    steps: int = 0
    tokens: int = 0
    read: int = 0
    read_filled: int = 0
    filled: int = 0
    slots: int = 0
    rows: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Of both, one after the other in the same slots."""
        summed = ("steps", "tokens", "read", "read_filled", "filled")
        sums = {name: getattr(self, name) + getattr(other, name) for name in summed}
        return Counts(**sums, slots=other.slots, rows=other.rows)

    @property
    def slot_use(self) -> float:
        """Share of slots that drew a token."""
        return self.tokens / self.steps / self.slots

    def seconds(self, prompt_tokens: int, read: int) -> float:
        """At the full bandwidth of the memory of all chips, with so many positions of response caches."""
        text = architecture("4B").text
        position = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * 2  # bytes
        caches = (read + self.steps * self.rows * prompt_tokens) * position
        weights = self.steps * WEIGHTS * CHIPS_IN_ALL / TENSOR  # every group of chips reads all of them
        return (caches + weights) / CHIPS_IN_ALL / CHIPS["v5e"].hbm_bandwidth


def lengths(prompts: int, longest: int, mean: float, sigma: float) -> np.ndarray:
    """Tokens of completions, [prompts,G]: log-normal with this mean after the cut at the longest."""
    tail = np.exp(sigma * np.random.default_rng(0).normal(size=(prompts, GROUP)))
    low, high = 1.0, 20.0 * longest
    for _ in range(60):
        median = np.sqrt(low * high)
        low, high = (median, high) if np.minimum(median * tail, longest).mean() < mean else (low, median)
    return np.clip(np.ceil(median * tail), 1, longest).astype(np.int32)


def count(lengths: np.ndarray, rows: int, slots: int, longest: int, bound: bool = False) -> Counts:
    """Decodes completions of these lengths.

    Args:
        lengths: int [D,B,G].
        rows: of all shards.
        slots: for each row.
        longest: R.
        bound: a slot takes completions of its row's prompt alone.
    """
    run = _bound if bound else _pooled
    steps, events = run(lengths, rows // len(lengths), slots)
    read = int(sum(int(n) * int(w) for n, w in zip(*_reads(events, longest), strict=True)))
    work = np.maximum(lengths.astype(np.int64) - 1, 0)
    return Counts(
        steps=steps,
        tokens=int(work.sum()),
        read=read * rows * slots,
        read_filled=_read_filled(lengths, longest),
        filled=int(np.sum(work * (work - 1) // 2)),
        slots=rows * slots,
        rows=rows,
    )


def _read_filled(lengths: np.ndarray, longest: int) -> int:
    """Positions that the kernel reads: whole blocks, and nothing of slots that are idle."""
    text = architecture("4B").text
    heads, dtype = text.num_key_value_heads // TENSOR, jnp.dtype(jnp.bfloat16)
    block = RaggedDecode().block(longest, heads, text.head_dim, dtype)
    of_fed = np.asarray(positions_read(jnp.arange(longest), block, longest), np.int64)
    until = np.concatenate([[0], np.cumsum(of_fed)])
    return int(until[np.maximum(lengths - 1, 0)].sum())


def _reads(events: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps by window, and the windows; `events` are (steps, fed): the longest running one grows from fed."""
    windows = np.array(windows_of(longest))
    steps, fed = events[:, 0], events[:, 1]
    upto = np.array([0, *(windows + 1)])  # a window w is read while 0..w tokens were fed
    spent = [
        np.clip(np.minimum(fed + steps, until) - np.maximum(fed, since), 0, None).sum()
        for since, until in zip(upto[:-1], upto[1:], strict=True)
    ]
    return np.array(spent), windows


def _pooled(lengths: np.ndarray, rows: int, slots: int) -> tuple[int, np.ndarray]:
    """With the pool's schedule: steps, and int [events,2]: steps until one ends, and the most that is fed."""
    shards, prompts, group = lengths.shape
    flat = jnp.asarray(lengths.reshape(shards, -1))

    @jax.jit
    def skip(schedule: Schedule) -> tuple[Schedule, jax.Array, jax.Array, jax.Array]:
        """To the next step at which a completion ends."""
        of = jnp.take_along_axis(flat, jnp.minimum(schedule.completion, flat.shape[1] - 1), axis=1)
        # What ends with its first token is put into a slot for nothing, and takes a step.
        left = jnp.where(schedule.busy, jnp.maximum(of, 2) - schedule.length, jnp.iinfo(jnp.int32).max)
        steps, fed = jnp.min(left), jnp.max(jnp.where(schedule.busy, schedule.length - 1, 0))
        schedule = dataclasses.replace(schedule, length=schedule.length + steps)
        schedule = schedule.take_completions(left == steps)
        wanted = schedule.wants_prompts()
        schedule = jax.lax.cond(wanted, lambda old: old.take_prompts()[0], lambda old: old, schedule)
        return schedule, schedule.is_running(), steps, fed

    schedule, events, running = Schedule.begin(shards, prompts, group, rows, rows * slots), [], True
    while running:
        schedule, running, steps, fed = skip(schedule)
        events.append((int(steps), int(fed)))
    found = np.array(events, np.int64)
    return int(found[:, 0].sum()), found


def _bound(lengths: np.ndarray, rows: int, slots: int) -> tuple[int, np.ndarray]:
    """The same with slots bound to rows; each row has a prompt until the last of its completions ends."""
    intervals = []  # from, to of every completion
    for shard in np.maximum(lengths.astype(np.int64), 2) - 1:
        free_rows = np.zeros(rows, np.int64)
        for prompt in shard:
            row = int(np.argmin(free_rows))
            free_at = np.full(slots, free_rows[row])
            for work in prompt:
                slot = int(np.argmin(free_at))
                intervals.append((free_at[slot], free_at[slot] + work))
                free_at[slot] += work
            free_rows[row] = free_at.max()
    begins, ends = np.array(intervals).T
    times = np.unique(np.concatenate([begins, ends]))
    events = []
    for now, then in zip(times[:-1], times[1:], strict=True):
        events.append((then - now, now - begins[(begins <= now) & (now < ends)].min()))
    return int(times[-1]), np.array(events, np.int64)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.schedule",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", type=results.output_file, default="", metavar="FILE", help="write the figures there"
    )
    number = partial(parser.add_argument, type=results.at_least(1))
    number("--longest", default=2048, help="tokens of a completion (default 2048)")
    number("--mean", default=855, help="of them, after the cut (default 855)")
    parser.add_argument("--sigma", type=float, default=0.8, help="of their logarithms (default 0.8)")
    number("--prompts", default=512, help=f"of a step, {GROUP} completions each (default 512)")
    number("--shards", default=4, help="data shards (default 4)")
    number("--rows", default=64, help="over all shards (default 64)")
    number("--slots", default=4, help="for each row (default 4)")
    number("--at-a-time", default=128, help="prompts that are sampled together (default 128)")
    number("--prompt-tokens", default=600, help="positions of a row (default 600)")
    args = parser.parse_args(argv)
    if args.prompts % args.at_a_time or args.at_a_time % args.shards or args.rows % args.shards:
        parser.error("--at-a-time must divide --prompts, and --shards both --at-a-time and --rows")
    drawn = lengths(args.prompts, args.longest, args.mean, args.sigma)
    parts = drawn.reshape(-1, args.shards, args.at_a_time // args.shards, GROUP)
    found = {}
    for name, bound in (("bound", True), ("any", False)):
        total = Counts()
        for part in parts:
            total = total.plus(count(part, args.rows, args.slots, args.longest, bound))
        found[name] = total
        for what, read in (("a window", total.read), ("what is filled", total.read_filled)):
            print(
                f"slots that take {name:>5} and read {what:>14}: {total.steps:7d} steps,"
                f" slot use {total.slot_use:.2f}, {read / total.filled:.2f} positions read for each filled,"
                f" {total.seconds(args.prompt_tokens, read):.0f} s at the full bandwidth"
            )
    peer = found["bound"].seconds(args.prompt_tokens, found["bound"].read)
    ours = found["any"].seconds(args.prompt_tokens, found["any"].read_filled)
    what = f"decoding a step with a long tail of lengths up to {args.longest}, by the schedule alone"
    results.save([Result(what, f"{ours:.0f} s", f"{peer:.0f} s", peer / ours)], args.json)


if __name__ == "__main__":
    main()
