"""From prompts to scored completions: the rollout on the devices, text and reward on the hosts.

Every process has some of the prompts, those of its devices, and gets the completions and scores of all of
them: tokens and log-probs are small beside the images. Each completion is turned into text and scored once,
by one of the processes that have its prompt.

Shapes: B prompts of all processes, G completions per prompt, R response tokens.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import jax
import numpy as np
from flax import nnx

from dig_jax.data.encode import Batch
from dig_jax.data.example import Example
from dig_jax.data.tokenizer import Tokenizer
from dig_jax.machines import gathering, parallel
from dig_jax.rollout.drawer import Drawer, Limits
from dig_jax.rollout.engine import Rollout
from dig_jax.rollout.sampling import Sampling
from dig_jax.rollout.thinking import make_budget
from dig_jax.tasks.task import Asked, Scores, join

AskedT = TypeVar("AskedT", bound=Asked)


@dataclasses.dataclass(frozen=True)
class Completions:
    """Scored completions of a batch, on every process those of all.

    Attributes:
        rollout: tokens, masks and log-probs, numpy [B, G, ...].
        scores: reward and its terms, arrays [B * G], the completions of a prompt next to each other.
        seconds: wall time of the phases `rollout`, and `reward` after it; `reward_work` is what the rewards
            took, most of it while the devices were drawing.
        thought_closed: bool [B, G], whose thought the thinking budget closed; None where there was none.
    """

    rollout: Rollout
    scores: Scores
    seconds: dict[str, float]
    thought_closed: np.ndarray | None = None

    def without_routing(self) -> "Completions":
        """The same, but for the experts of tokens, the largest of all arrays."""
        return dataclasses.replace(self, rollout=dataclasses.replace(self.rollout, routing=None))


class Sampler(Generic[AskedT]):
    """Draws completions from a policy and scores them.

    Args:
        drawer: of the policy's completions.
        tokenizer: its own.
        task: scores what is drawn: a task, or a mixture of some.
        check: called before every slice of prompts; what it raises abandons the answers.
    """

    def __init__(
        self,
        drawer: Drawer,
        tokenizer: Tokenizer,
        task: AskedT,
        check: Callable[[], None] = lambda: None,
    ):
        self._drawer = drawer
        self._check = check
        self._tokenizer = tokenizer
        self.task = task
        self.moved_bytes = drawer.moved_bytes  # between the devices, for each `weights`

    def weights(self, params: nnx.State) -> nnx.State:
        """A copy of the policy's parameters laid out for sampling; drop it before the next update."""
        return jax.block_until_ready(self._drawer.weights(params))

    def sampling(self, temperature: float, top_p: float = 1.0, top_k: int = 0) -> Sampling:
        """How to sample from this policy: see `sampling_of`."""
        return sampling_of(self._tokenizer, temperature, top_p, top_k)

    def complete(
        self,
        weights: nnx.State,
        batch: Batch,
        keys: jax.Array,
        limits: Limits,
        slice_prompts: int,
        thinking_budget: int = 0,
    ) -> Completions:
        """Draws completions for every prompt of `batch` and scores them.

        Args:
            weights: of the policy, from `weights`.
            batch: the rows that this process has of B prompts; those at least that its
                devices need of each slice.
            keys: typed PRNG keys [B, G], on every process those of all.
            limits: how.
            slice_prompts: prompts read and decoded together; divides B.
            thinking_budget: tokens of thought after which it is closed; 0 lets the model think. The tokens
                that close it are not the policy's: completions to learn from have no budget.
        """
        start = time.perf_counter()
        count, group = keys.shape
        budget = None
        if thinking_budget:
            budget = make_budget(self._tokenizer, thinking_budget, limits.max_new_tokens, keys.shape)
        owners = self.owners(count, slice_prompts)
        slices = parallel.cut_rows(batch.prompts, batch.rows, slice_prompts, count)
        parts, scoring = [], []
        with ThreadPoolExecutor(1, thread_name_prefix="rewards") as host:
            for number, (prompts, rows) in enumerate(slices):
                self._check()
                of_slice = slice(number * slice_prompts, (number + 1) * slice_prompts)
                own_budget = jax.tree.map(lambda x, of_slice=of_slice: x[of_slice], budget)
                drawn = self._drawer.draw(weights, prompts, rows, keys[of_slice], limits, own_budget)
                own = np.flatnonzero(owners[of_slice] == jax.process_index())
                # Meanwhile the devices draw the next slice.
                scoring.append(host.submit(self._score, drawn, own, of_slice.start, batch))
                parts.append(drawn)
            sampled = time.perf_counter()
            scored, work = zip(*(future.result() for future in scoring), strict=True)
        completions = np.repeat(owners, group)
        own = np.flatnonzero(completions == jax.process_index())
        scores = _from_owners(join(scored), own, completions)
        seconds = {
            "rollout": sampled - start,
            "reward": time.perf_counter() - sampled,
            "reward_work": sum(work),
        }
        rollout = jax.tree.map(lambda *x: np.concatenate(x) if x[0].ndim else np.sum(x), *parts)
        closed = None if budget is None else budget.was_forced(rollout.tokens, rollout.mask.sum(axis=-1))
        return Completions(rollout, scores, seconds, closed)

    def owners(self, count: int, at_a_time: int | None = None) -> np.ndarray:
        """Which process does what is done once for each of `count` prompts: see `parallel.row_layout`."""
        return parallel.row_layout(self._drawer.mesh, count, at_a_time).owners

    def first_texts(self, completions: Completions) -> list[str]:
        """The first answer [B] to each prompt, thoughts included: what is shown of them."""
        first = jax.tree.map(lambda x: x[:, :1] if x.ndim else x, completions.rollout)
        return _decoded(first, range(len(first.mask)), self._tokenizer.decode)

    def _score(self, drawn: Rollout, rows: np.ndarray, first: int, batch: Batch) -> tuple[Scores, float]:
        """Scores the completions of these rows of a slice, whose row 0 is row `first` of the whole batch.

        Returns:
            The scores, a prompt's completions next to each other, and the seconds that took.
        """
        start = time.perf_counter()
        thinking = self._tokenizer.opens_thinking
        # A thought is several times as long as its answer, and only the answer is scored.
        texts = _decoded(drawn, rows, self._tokenizer.decode_answer if thinking else self._tokenizer.decode)
        asked = np.repeat(np.searchsorted(batch.rows, first + rows), drawn.mask.shape[1])
        examples = [batch.examples[row] for row in asked]
        # On the host, or the rewards would wait until the devices are done with the slice they draw.
        with jax.default_device(_host_device()):
            try:
                scores = self.task.score(texts, examples)
            except Exception as error:
                self._name_the_failing(texts, examples, error)
                raise
        return scores, time.perf_counter() - start

    def _name_the_failing(self, texts: list[str], examples: list[Example], error: Exception) -> None:
        """Raises RuntimeError with the first answer that can not be scored alone, if there is one."""
        for text, example in zip(texts, examples, strict=True):
            try:
                self.task.score([text], [example])
            except Exception:
                what = f"the answer {text[:2000]!r} ({len(text)} characters) to {example.id}"
                raise RuntimeError(f"the reward failed on {what}: {error}") from error


def sampling_of(tokenizer: Tokenizer, temperature: float, top_p: float = 1.0, top_k: int = 0) -> Sampling:
    """A distribution of answers: only the end-of-turn token ends one, padding is never drawn.

    Args:
        tokenizer: of the policy.
        temperature: 0 is greedy.
        top_p: 1 is off.
        top_k: 0 is off.
    """
    end_of_turn, *other_ends = tokenizer.eos_ids
    return Sampling(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        eos_ids=(end_of_turn,),
        suppressed=tuple(sorted({*tokenizer.suppressed, *other_ends})),
        vocab_size=tokenizer.vocab_size,
        pad_id=tokenizer.pad_id,
    )


def _decoded(drawn: Rollout, rows: Iterable[int], decode: Callable[[list[int]], str]) -> list[str]:
    """The answers to these rows, a prompt's next to each other."""
    lengths = drawn.mask.sum(axis=-1).astype(int)
    return [
        decode(tokens[:length].tolist())
        for row in rows
        for tokens, length in zip(drawn.tokens[row], lengths[row], strict=True)
    ]


@functools.cache
def _host_device() -> jax.Device | None:
    """The host as a device of JAX; None where JAX_PLATFORMS leaves it out."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def _from_owners(scores: Scores, numbers: np.ndarray, owners: np.ndarray) -> Scores:
    """The scores of all completions on every process, of those that this one has for some.

    Args:
        scores: of the completions that this process owns.
        numbers: int, which these are, ascending.
        owners: of all completions.
    """
    if jax.process_count() == 1:
        return scores

    def of_all(values: np.ndarray) -> np.ndarray:
        whole = np.zeros((len(owners), *values.shape[1:]), values.dtype)
        whole[numbers] = values
        return gathering.from_owners(whole, owners)

    # What was read from an answer is text, numbers and lists of them, of any length.
    said = [json.dumps([note, dict(read)]) for note, read in zip(scores.notes, scores.read, strict=True)]
    notes, read = zip(*map(json.loads, gathering.gather_texts(said, numbers, owners)), strict=True)
    return Scores(
        reward=of_all(scores.reward),
        terms={name: of_all(values) for name, values in scores.terms.items()},
        notes=notes,
        read=read,
    )
