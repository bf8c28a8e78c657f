"""From prompts to scored completions: the rollout on the devices, text and reward on the host.

Shapes: B prompts of this process, G completions per prompt, R response tokens.
"""

import dataclasses
import time

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from dig_jax import parallel
from dig_jax.data.loader import Batch
from dig_jax.data.tokenizer import Tokenizer
from dig_jax.models.qwen3_vl.inputs import Prompts
from dig_jax.rewards.reward import RewardConfig, Scores, score_texts
from dig_jax.rollout.engine import Rollout, rollout
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


@dataclasses.dataclass(frozen=True)
class Limits:
    """How to draw completions. Hashable: each value compiles a program of its own.

    Attributes:
        sampling: the distribution to draw from.
        max_new_tokens: R.
        slots: completions of a prompt decoded at a time; 0 for all G.
    """

    sampling: Sampling
    max_new_tokens: int
    slots: int = 0


class Sampler:
    """Draws completions from a policy and scores them."""

    def __init__(self, graphdef: nnx.GraphDef, tokenizer: Tokenizer, reward: RewardConfig, mesh: Mesh):
        self._tokenizer = tokenizer
        self._reward = reward
        self._mesh = mesh

        def run(params: nnx.State, prompts: Prompts, keys: jax.Array, limits: Limits) -> Rollout:
            model = nnx.merge(graphdef, params)
            drawn = rollout(
                model,
                prompts,
                keys,
                sampling=limits.sampling,
                max_new_tokens=limits.max_new_tokens,
                slots=limits.slots or None,
            )
            return parallel.split_rows(drawn, mesh)

        self._rollout = parallel.jit(run, mesh, static_argnums=3)

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
        params: nnx.State,
        batch: Batch,
        keys: jax.Array,
        limits: Limits,
        slice_prompts: int,
    ) -> Completions:
        """Draws completions for every prompt of `batch` and scores them against its boxes.

        Args:
            params: the policy.
            batch: B prompts with their true boxes.
            keys: typed PRNG keys [B, G].
            limits: how.
            slice_prompts: prompts decoded together, over all processes; divides B.
        """
        start = time.perf_counter()
        size = slice_prompts // jax.process_count()
        parts = []
        for first in range(0, len(keys), size):
            rows = slice(first, first + size)
            prompts = jax.tree.map(lambda x, rows=rows: x[rows], batch.prompts)
            parts.append(self._draw(params, prompts, keys[rows], limits))
        drawn = jax.tree.map(lambda *x: np.concatenate(x) if x[0].ndim else np.max(x), *parts)
        sampled = time.perf_counter()
        texts = self._decode(drawn)
        group = keys.shape[1]
        scores = score_texts(
            texts,
            np.repeat(batch.boxes, group, axis=0),
            np.repeat(batch.num_boxes, group, axis=0),
            thinking=self._tokenizer.opens_thinking,
            config=self._reward,
        )
        seconds = {"rollout": sampled - start, "reward": time.perf_counter() - sampled}
        return Completions(drawn, texts, scores, seconds)

    def _draw(self, params: nnx.State, prompts: Prompts, keys: jax.Array, limits: Limits) -> Rollout:
        prompts = parallel.put_batch(prompts, self._mesh)
        keys = jax.random.wrap_key_data(parallel.put_batch(jax.random.key_data(keys), self._mesh))
        return parallel.local_rows(self._rollout(params, prompts, keys, limits))

    def _decode(self, drawn: Rollout) -> list[str]:
        lengths = drawn.mask.sum(axis=-1).astype(int).reshape(-1)
        rows = drawn.tokens.reshape(len(lengths), -1)
        return [self._tokenizer.decode(row[:n].tolist()) for row, n in zip(rows, lengths, strict=True)]
