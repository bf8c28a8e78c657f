"""From prompts to scored completions: the rollout on the devices, text and reward on the host.

Shapes: B prompts of this process, G completions per prompt, R response tokens.
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
from dig_jax.rewards.reward import RewardConfig, Scores, score_texts
from dig_jax.rollout.engine import Rollout
from dig_jax.rollout.programs import Limits, RolloutPrograms
from dig_jax.rollout.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Completions:
    """Scored completions of a batch.

    Attributes:
        rollout: tokens, masks and log-probs, numpy [B, G, ...].
        texts: B * G answers, the completions of a prompt next to each other.
        scores: reward and its terms, arrays [B * G].
        seconds: wall time of the phases `rollout` and `reward`.
    """

    rollout: Rollout
    texts: list[str]
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
            batch: B prompts with their true boxes.
            keys: typed PRNG keys [B, G].
            limits: how.
            slice_prompts: prompts read and decoded together, over all processes; divides B.
        """
        start = time.perf_counter()
        size = slice_prompts // jax.process_count()
        parts = []
        for first in range(0, len(keys), size):
            self._check()
            rows = slice(first, first + size)
            prompts = jax.tree.map(lambda x, rows=rows: x[rows], batch.prompts)
            parts.append(self._draw(weights, prompts, keys[rows], limits))
        drawn = jax.tree.map(lambda *x: np.concatenate(x) if x[0].ndim else np.sum(x), *parts)
        sampled = time.perf_counter()
        texts = self._decode(drawn)
        group = keys.shape[1]
        scores = self._score(texts, np.repeat(np.arange(len(batch.ids)), group), batch)
        seconds = {"rollout": sampled - start, "reward": time.perf_counter() - sampled}
        return Completions(drawn, texts, scores, seconds)

    def _draw(self, weights: nnx.State, prompts: Prompts, keys: jax.Array, limits: Limits) -> Rollout:
        programs = self._programs
        keys = jax.random.wrap_key_data(parallel.put_batch(jax.random.key_data(keys), programs.mesh))
        # No name keeps the prompts on the devices: their patches are not needed while they are answered.
        pool = programs.fill(weights, parallel.put_batch(prompts, programs.mesh), keys, limits)
        drawn, _ = programs.drain(weights, pool, keys, limits)
        return parallel.local_rows(drawn)

    def _score(self, texts: list[str], rows: np.ndarray, batch: Batch) -> Scores:
        """Scores texts, each an answer to a row of the batch."""
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

    def _decode(self, drawn: Rollout) -> list[str]:
        lengths = drawn.mask.sum(axis=-1).astype(int).reshape(-1)
        rows = drawn.tokens.reshape(len(lengths), -1)
        return [self._tokenizer.decode(row[:n].tolist()) for row, n in zip(rows, lengths, strict=True)]
