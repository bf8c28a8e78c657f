"""From prompts to scored completions: the rollout on the devices, text and reward on the hosts.

Every process has some of the prompts, those of its devices, and gets the completions and scores of all of
them: tokens and log-probs are small beside the images. Each completion is turned into text and scored once,
by one of the processes that have its prompt.

Shapes: B prompts of all processes, G completions per prompt, R response tokens.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from dig_jax import parallel
from dig_jax.data.loader import Batch
from dig_jax.data.tokenizer import Tokenizer
from dig_jax.models.qwen3_vl.inputs import Prompts
from dig_jax.rewards.answer import REASONS
from dig_jax.rewards.reward import METRICS, RewardConfig, Scores, score_texts
from dig_jax.rollout.engine import Rollout
from dig_jax.rollout.programs import Limits, RolloutPrograms
from dig_jax.rollout.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Completions:
    """Scored completions of a batch, on every process those of all.

    Attributes:
        rollout: tokens, masks and log-probs, numpy [B, G, ...].
        texts: the answers that this process scored, by their numbers: prompt * G + place in the group.
        scores: reward and its terms, arrays [B * G], the completions of a prompt next to each other.
        seconds: wall time of the phases `rollout` and `reward`.
    """

    rollout: Rollout
    texts: dict[int, str]
    scores: Scores
    seconds: dict[str, float]


class Sampler:
    """Draws completions from a policy and scores them.

    Args:
        programs: of the policy's rollouts.
        tokenizer: its own.
        reward: settings of the reward.
        check: called before every slice of prompts; what it raises abandons the answers.
    """

    def __init__(
        self,
        programs: RolloutPrograms,
        tokenizer: Tokenizer,
        reward: RewardConfig,
        check: Callable[[], None] = lambda: None,
    ):
        self._programs = programs
        self._check = check
        self._tokenizer = tokenizer
        self._reward = reward
        self.moved_bytes = programs.moved_bytes  # between the devices, for each `weights`

    def weights(self, params: nnx.State) -> nnx.State:
        """A copy of the policy's parameters laid out for sampling; drop it before the next update."""
        return jax.block_until_ready(self._programs.weights(params))

    def sampling(self, temperature: float, top_p: float = 1.0, top_k: int = 0) -> Sampling:
        """How to sample from this policy: only the end-of-turn token ends an answer, padding is never drawn.

        Args:
            temperature: 0 is greedy.
            top_p: 1 is off.
            top_k: 0 is off.
        """
        end_of_turn, *other_ends = self._tokenizer.eos_ids
        return Sampling(
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            eos_ids=(end_of_turn,),
            suppressed=tuple(sorted({*self._tokenizer.suppressed, *other_ends})),
            vocab_size=self._tokenizer.vocab_size,
            pad_id=self._tokenizer.pad_id,
        )

    def complete(
        self,
        weights: nnx.State,
        batch: Batch,
        keys: jax.Array,
        limits: Limits,
        slice_prompts: int,
    ) -> Completions:
        """Draws completions for every prompt of `batch` and scores them against its boxes.

        Args:
            weights: of the policy, from `weights`.
            batch: the rows that this process has of B prompts, with their true boxes; those at least that its
                devices need of each slice.
            keys: typed PRNG keys [B, G], on every process those of all.
            limits: how.
            slice_prompts: prompts read and decoded together; divides B.
        """
        start = time.perf_counter()
        count, group = keys.shape
        parts = []
        slices = parallel.cut_rows(batch.prompts, batch.rows, slice_prompts, count)
        for number, (prompts, rows) in enumerate(slices):
            self._check()
            keys_of_slice = keys[number * slice_prompts : (number + 1) * slice_prompts]
            parts.append(self._draw(weights, prompts, rows, keys_of_slice, limits))
        drawn = jax.tree.map(lambda *x: np.concatenate(x) if x[0].ndim else np.sum(x), *parts)
        sampled = time.perf_counter()
        owners = self.owners(count, slice_prompts)
        own = np.flatnonzero(owners == jax.process_index())
        texts = self._decode(drawn, own)
        scores = self._score(list(texts.values()), np.repeat(np.searchsorted(batch.rows, own), group), batch)
        scores = _from_owners(scores, np.array(list(texts), int), np.repeat(owners, group))
        seconds = {"rollout": sampled - start, "reward": time.perf_counter() - sampled}
        return Completions(drawn, texts, scores, seconds)

    def owners(self, count: int, at_a_time: int | None = None) -> np.ndarray:
        """Which process does what is done once for each of `count` prompts: see `parallel.row_layout`."""
        return parallel.row_layout(self._programs.mesh, count, at_a_time).owners

    def texts(self, completions: Completions) -> list[str]:
        """The answers [B * G] of all prompts; those that another process scored are decoded here."""
        of_others = set(range(len(completions.scores.reasons))) - completions.texts.keys()
        group = completions.rollout.mask.shape[1]
        rows = np.unique(np.array(sorted(of_others), int) // group)
        texts = completions.texts | self._decode(completions.rollout, rows)
        return [texts[number] for number in sorted(texts)]

    def _draw(
        self, weights: nnx.State, prompts: Prompts, rows: np.ndarray, keys: jax.Array, limits: Limits
    ) -> Rollout:
        """Completions of a slice; `prompts` are its `rows` that this process has, `keys` those of all."""
        programs = self._programs
        mesh, count = programs.mesh, keys.shape[0]
        keys = jax.random.wrap_key_data(parallel.put_batch(jax.random.key_data(keys), mesh))
        # No name keeps the prompts on the devices: their patches are not needed while they are answered.
        pool = programs.fill(weights, parallel.put_batch(prompts, mesh, rows, count), keys, limits)
        # Nor the pool when it is drained: then there is room for all completions on every device.
        drawn = programs.drain(weights, pool, keys, limits)[0]
        del pool
        return parallel.on_every_host(drawn, mesh)

    def _score(self, texts: list[str], rows: np.ndarray, batch: Batch) -> Scores:
        """Scores texts, each an answer to the row of the batch, as this process has it, in `rows`."""
        settings: dict[str, Any] = {"thinking": self._tokenizer.opens_thinking, "config": self._reward}
        try:
            return score_texts(texts, batch.boxes[rows], batch.num_boxes[rows], **settings)
        except Exception as error:
            for text, row in zip(texts, rows, strict=True):
                try:
                    score_texts([text], batch.boxes[[row]], batch.num_boxes[[row]], **settings)
                except Exception:
                    what = f"the answer {text[:2000]!r} ({len(text)} characters) to pair {batch.ids[row]}"
                    raise RuntimeError(f"the reward failed on {what}: {error}") from error
            raise

    def _decode(self, drawn: Rollout, rows: np.ndarray) -> dict[int, str]:
        """The answers to these rows, by the number of the completion."""
        group = drawn.mask.shape[1]
        lengths = drawn.mask.sum(axis=-1).astype(int)
        return {
            int(row * group + place): self._tokenizer.decode(
                drawn.tokens[row, place, : lengths[row, place]].tolist()
            )
            for row in rows
            for place in range(group)
        }


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
        return parallel.from_owners(whole, owners)

    terms = {name: of_all(getattr(scores, name)) for name in METRICS}
    reasons = of_all(np.array([REASONS.index(reason) for reason in scores.reasons], np.int32))
    counts = terms["num_predicted"]
    boxes = np.zeros((len(numbers), max(1, counts.max()), 4), np.float32)
    for row, of_one in enumerate(scores.boxes):
        boxes[row, : len(of_one)] = of_one
    return Scores(
        **terms,
        reasons=tuple(REASONS[reason] for reason in reasons),
        boxes=tuple(padded[:count] for padded, count in zip(of_all(boxes), counts, strict=True)),
    )
