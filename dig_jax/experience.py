"""One GRPO step's experience: sample a group per prompt, score it, compare within the group.

Shapes: B prompts of this process, G completions per prompt, R response tokens.
"""

import dataclasses
import time

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from dig_jax import grpo, parallel
from dig_jax.data.loader import PairLoader
from dig_jax.models.qwen3_vl.inputs import Prompts, widen
from dig_jax.policy import Experience
from dig_jax.rewards.reward import mean_metrics
from dig_jax.rollout.engine import Rollout, sample_keys
from dig_jax.sampler import Completions, Limits, Sampler

Rows = tuple[Experience, np.ndarray]  # what was drawn for B pairs, and their ids


@dataclasses.dataclass(frozen=True)
class Collected:
    """What a step learns from, and what it cost.

    Attributes:
        experience: numpy arrays, [B, ...].
        ids: text [B], the pair of each row.
        metrics: reward terms and rollout figures, over every completion that was drawn.
        seconds: wall time per phase.
        response_tokens: tokens drawn, over all processes.
    """

    experience: Experience
    ids: np.ndarray
    metrics: dict[str, float]
    seconds: dict[str, float]
    response_tokens: int


class Collector:
    """Draws the experience of any step; a pure function of parameters, step and seed."""

    def __init__(self, config: ConfigDict, sampler: Sampler, loader: PairLoader, loss: grpo.GRPOConfig):
        self._sampler = sampler
        self._loader = loader
        self._loss = loss
        self._group_size = config.rollout.group_size
        self._slice_prompts = config.batch.rollout_prompts
        self._attempts = 1 + config.grpo.dynamic_sampling
        self._mask_truncated = config.grpo.mask_truncated
        self._overlong = config.grpo.overlong
        self._key = jax.random.key(config.seed)
        rows = (config.rollout.rows or config.batch.rollout_prompts) // jax.process_count()
        self._num_slots = rows * (config.rollout.slots or self._group_size)
        sampling = sampler.sampling(config.rollout.temperature, config.rollout.top_p, config.rollout.top_k)
        self._limits = Limits(
            sampling, config.rollout.max_new_tokens, config.rollout.slots, config.rollout.rows
        )

    def collect(self, params: nnx.State, step: int) -> Collected:
        """Samples and scores the prompts of `step`.

        With dynamic sampling, prompts whose completions all earned the same reward carry no gradient and are
        replaced by informative ones from further batches, as long as attempts are left.
        """
        start = time.perf_counter()
        weights = self._sampler.weights(params)
        reshard_seconds = time.perf_counter() - start
        drawn: list[Completions] = []
        costs: list[dict[str, float]] = []
        rows: Rows | None = None
        for attempt in range(self._attempts):
            index = step * self._attempts + attempt
            batch = self._loader.batch(index)
            completions = self._sampler.complete(
                weights,
                batch,
                self._keys(index),
                self._limits,
                slice_prompts=self._slice_prompts,
            )
            drawn.append(completions)
            costs.append(self._loader.figures(index))
            fresh = (self._compare(batch.prompts, completions), np.array(batch.ids))
            rows = fresh if rows is None else _replace_uninformative(rows, fresh)
            if np.all(parallel.gather_rows(_informative(rows[0]))):  # all processes stop together
                break
        assert rows is not None  # there is at least one attempt
        metrics, seconds, response_tokens = self._figures(drawn)
        metrics["rollout/reshard_gb"] = self._sampler.moved_bytes / 1e9
        seconds["reshard"] = reshard_seconds
        metrics |= {name: float(np.mean([part[name] for part in costs])) for name in costs[0]}
        return Collected(*rows, metrics, seconds, response_tokens)

    def _keys(self, index: int) -> jax.Array:
        prompts = self._loader.batch_size
        first = jax.process_index() * prompts
        group = self._group_size
        return sample_keys(self._key, index, (first + np.arange(prompts)[:, None]) * group + np.arange(group))

    def _rewards(self, completions: Completions) -> np.ndarray:
        """What completions are compared by, [B, G]: the reward of the answer, less what its length costs."""
        rewards = completions.scores.reward.reshape(completions.rollout.finished.shape)
        return rewards + self._length_penalty(completions.rollout) if self._overlong.buffer else rewards

    def _length_penalty(self, rollout: Rollout) -> np.ndarray:
        return grpo.overlong_penalty(
            rollout.mask.sum(axis=-1),
            max_new_tokens=self._limits.max_new_tokens,
            buffer=self._overlong.buffer,
            penalty=self._overlong.penalty,
        )

    def _compare(self, prompts: Prompts, completions: Completions) -> Experience:
        rollout = completions.rollout
        advantages = grpo.group_advantages(
            self._rewards(completions), normalize_std=self._loss.normalize_std, eps=self._loss.advantage_eps
        )
        # As in TRL, a truncated completion stays in its group's mean and deviation: that the others did
        # better is true. What it was cut off from is not known, so its own tokens teach nothing.
        mask = rollout.mask * rollout.finished[..., None] if self._mask_truncated else rollout.mask
        return Experience(prompts, rollout.tokens, mask, rollout.logprobs, np.asarray(advantages))

    def _figures(self, drawn: list[Completions]) -> tuple[dict[str, float], dict[str, float], int]:
        figures = []
        for completions in drawn:
            rollout, scores = completions.rollout, completions.scores
            rewards = self._rewards(completions)
            rollout_metrics = grpo.rollout_metrics(rewards, rollout.mask, rollout.finished)
            figures.append(
                {f"reward/{name}": value for name, value in mean_metrics(scores).items()}
                | {"reward/std_in_group": float(rewards.std(axis=1, ddof=1).mean())}
                | {f"rollout/{name}": float(value) for name, value in rollout_metrics.items()}
            )
            if self._overlong.buffer:
                figures[-1]["reward/overlong"] = float(self._length_penalty(rollout).mean())
        metrics = {name: float(np.mean([part[name] for part in figures])) for name in figures[0]}
        tokens = sum(float(part.rollout.mask.sum()) for part in drawn)
        metrics |= {
            "rollout/attempts": len(drawn),
            "rollout/tokens": tokens,
            "rollout/slot_use": tokens / sum(int(part.rollout.steps) for part in drawn) / self._num_slots,
        }
        metrics = parallel.combine_over_processes(metrics)
        metrics["rollout/tokens"] *= jax.process_count()
        seconds = {name: sum(part.seconds[name] for part in drawn) for name in drawn[0].seconds}
        return metrics, seconds, round(metrics["rollout/tokens"])


def _informative(experience: Experience) -> np.ndarray:
    """bool [B]: groups with a completion that has an advantage, and tokens in the loss to learn it by."""
    return np.any((experience.advantages != 0) & np.any(experience.mask > 0, axis=-1), axis=-1)


def _replace_uninformative(kept: Rows, fresh: Rows) -> Rows:
    """Puts informative rows of `fresh`, in order, where `kept` has uninformative ones."""
    targets = np.flatnonzero(~_informative(kept[0]))
    sources = np.flatnonzero(_informative(fresh[0]))
    count = min(len(targets), len(sources))

    def replace(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        old = np.array(old)
        old[targets[:count]] = new[sources[:count]]
        return old

    experiences = _alike(kept[0], fresh[0])
    return jax.tree.map(replace, *experiences), replace(kept[1], fresh[1])


def _alike(kept: Experience, fresh: Experience) -> tuple[Experience, Experience]:
    """Both with the prompts padded to the same sizes: batches may have come in different buckets."""
    both = (kept, fresh)
    prompt_length = max(part.prompts.tokens.shape[1] for part in both)
    num_patches = max(part.prompts.patches.shape[1] for part in both)
    kept, fresh = (
        dataclasses.replace(
            part, prompts=widen(part.prompts, prompt_length=prompt_length, num_patches=num_patches)
        )
        for part in both
    )
    return kept, fresh
