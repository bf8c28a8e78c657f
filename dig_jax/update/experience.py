"""One GRPO step's experience: sample a group per prompt, score it, compare within the group.

What was drawn and earned is known to every process for all prompts, so all of them compare and choose alike,
however many they are. The prompts themselves, with their images, each process has for its own devices only:
where one prompt takes the place of another, the processes that need it there load it again.

Shapes: B prompts of all processes, b of this one, G completions per prompt, R response tokens.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from dig_jax.data.encode import Batch
from dig_jax.data.loader import ExampleLoader
from dig_jax.machines import agreement
from dig_jax.models.inputs import Prompts, widen
from dig_jax.rollout import routing as experts
from dig_jax.rollout.drawer import Limits
from dig_jax.rollout.engine import Rollout, sample_keys
from dig_jax.rollout.routing import KeptRouting
from dig_jax.rollout.sampler import Completions, Sampler
from dig_jax.rollout.sampling import RolloutConfig
from dig_jax.tasks import mixture
from dig_jax.tasks.rewards import weights_apart
from dig_jax.update import grpo
from dig_jax.update.group import Group, most_told
from dig_jax.update.policy import Experience
from dig_jax.update.replay import ReplayConfig

Shown = tuple[Prompts, Prompts | None]  # to the policy, and to a teacher where there is one


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What was drawn for B prompts, all of them, and where those are in the sequence of the loader.

    Attributes:
        positions: int [B].
        parts: int [B], number of the part of the mixture; 0 where there is one thing to ask.
        names: int32 [B], `agreement.checksums` of the pairs there; -1 where no process has the row.
        tokens, mask, behaviour_logprobs, advantages: as in `Experience`.
        routing: the sampler's; None where it is not kept.
    """

    positions: np.ndarray
    parts: np.ndarray
    names: np.ndarray
    tokens: grpo.Array
    mask: grpo.Array
    behaviour_logprobs: grpo.Array
    advantages: grpo.Array
    routing: KeptRouting | None = None

    @property
    def informative(self) -> np.ndarray:
        """bool [B]: groups with a completion that has an advantage, and tokens in the loss to learn it by."""
        return np.any((self.advantages != 0) & np.any(self.mask > 0, axis=-1), axis=-1)


@dataclasses.dataclass(frozen=True)
class Collected:
    """What a step learns from, and what it cost.

    Attributes:
        experience: numpy arrays, [b, ...].
        rows: int [b], ascending: which of the B rows of the step these are.
        ids: text [b], the pair of each row.
        metrics: reward terms and rollout figures, over every completion that was drawn.
        seconds: wall time per phase.
        response_tokens: tokens drawn, over all processes.
        group: one of its groups, for a reader.
    """

    experience: Experience
    rows: np.ndarray
    ids: np.ndarray
    metrics: dict[str, float]
    seconds: dict[str, float]
    response_tokens: int
    group: Group | None = None


class Collector:
    """Draws the experience of any step; a pure function of parameters, step and seed."""

    def __init__(self, config: ConfigDict, sampler: Sampler, loader: ExampleLoader, loss: grpo.GRPOConfig):
        self._sampler = sampler
        self._loader = loader
        self._loss = loss
        rollout = RolloutConfig.from_config(config)
        self._group_size = rollout.group_size
        self._slice_prompts = config.batch.rollout_prompts
        self._attempts = 1 + config.grpo.dynamic_sampling
        self._mask_truncated = config.grpo.mask_truncated
        self._overlong = config.grpo.overlong
        self._key = jax.random.key(config.seed)
        rows = rollout.rows or config.batch.rollout_prompts
        self._num_slots = rows * (rollout.slots or self._group_size)
        sampling = sampler.sampling(rollout.temperature, rollout.top_p, rollout.top_k)
        keep = ReplayConfig.from_config(config).keeps_sampled
        self._compares = config.algorithm != "distill"
        self._limits = Limits(sampling, rollout.max_new_tokens, rollout.slots, rollout.rows, routing=keep)

    def collect(self, params: nnx.State, step: int) -> Collected:
        """Samples and scores the prompts of `step`.

        With dynamic sampling, prompts whose completions all earned the same reward carry no gradient and are
        replaced by informative ones from further batches, as long as attempts are left; in a mixture by those
        of the same part, so that its share stays what it is.
        """
        start = time.perf_counter()
        weights = self._sampler.weights(params)
        reshard_seconds = time.perf_counter() - start
        data_seconds = 0.0
        drawn: list[Completions] = []
        costs: list[dict[str, float]] = []
        parts: list[np.ndarray] = []  # that the prompts of each attempt are of
        first: Batch | None = None
        kept: Drawn | None = None
        group: Group | None = None
        for attempt in range(self._attempts):
            index = step * self._attempts + attempt
            asked = time.perf_counter()
            batch = self._loader.batch(index, self._following(step, attempt))
            data_seconds += time.perf_counter() - asked
            first = first or batch
            names = agreement.agree_on_rows(batch.ids, batch.rows, self._loader.batch_size)
            completions = self._sampler.complete(
                weights,
                batch,
                self._keys(index),
                self._limits,
                slice_prompts=self._slice_prompts,
            )
            costs.append(self._loader.figures(index))
            positions = self._loader.positions(index)
            fresh = self._compare(positions, self._loader.parts(positions), names, completions)
            parts.append(fresh.parts)
            group = group or most_told(
                *(self._sampler.task, batch, completions, self._rewards(completions)),
                *(np.asarray(fresh.advantages), np.any(fresh.mask > 0, axis=-1)),
            )
            kept = fresh if kept is None else _replace_uninformative(kept, fresh)
            # By now `kept` has what is wanted of the experts, the largest of all arrays.
            drawn.append(completions.without_routing())
            if np.all(kept.informative):
                break
        assert first is not None and kept is not None  # there is at least one attempt
        asked = time.perf_counter()
        shown, ids = self._prompts(first, self._loader.positions(step * self._attempts), kept.positions)
        expected = kept.names[first.rows]
        if np.any((agreement.checksums(ids.tolist()) != expected) & (expected >= 0)):
            raise ValueError(
                "a pair that was sampled on another host can not be read here (the warning names it): give"
                " all hosts the same data"
            )
        data_seconds += time.perf_counter() - asked
        prompts, teacher = shown
        experience = Experience(
            prompts,
            tokens=kept.tokens[first.rows],
            mask=kept.mask[first.rows],
            behaviour_logprobs=kept.behaviour_logprobs[first.rows],
            advantages=kept.advantages[first.rows],
            routing=kept.routing and experts.take(kept.routing, first.rows, prompts.tokens.shape[1]),
            teacher=teacher,
        )
        metrics, seconds, response_tokens = self._figures(drawn, parts)
        metrics["rollout/reshard_gb"] = self._sampler.moved_bytes / 1e9
        seconds |= {"reshard": reshard_seconds, "data": data_seconds}
        metrics |= {name: float(np.mean([part[name] for part in costs])) for name in costs[0]}
        return Collected(experience, first.rows, ids, metrics, seconds, response_tokens, group)

    def _following(self, step: int, attempt: int) -> Iterator[int]:
        """The batches that may be wanted after this attempt: those of another one and of later steps."""
        first_of_next = (step + 1) * self._attempts
        again = step * self._attempts + attempt + 1
        yield from range(again, min(again + 1, first_of_next))
        yield from itertools.count(first_of_next)

    def _keys(self, index: int) -> jax.Array:
        prompts, group = self._loader.batch_size, self._group_size
        return sample_keys(self._key, index, np.arange(prompts)[:, None] * group + np.arange(group))

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

    def _prompts(self, first: Batch, before: np.ndarray, now: np.ndarray) -> tuple[Shown, np.ndarray]:
        """What a step's policy and teacher are shown, those rows that this process has, and their ids [b].

        Args:
            first: the step's first batch.
            before: int [B], where the pairs of all rows are in the loader's sequence.
            now: int [B], the same of those that took their places.
        """
        ids = np.array(first.ids)
        shown = first.prompts, first.teacher
        if np.array_equal(before, now):
            return shown, ids
        # Batches come in different buckets; this one holds both, and is the same on all processes.
        bucket = self._loader.bucket_for(np.concatenate([before, now]))
        sizes = dataclasses.asdict(bucket)
        prompts = widen(first.prompts, **sizes)
        teacher = widen(first.teacher, **sizes) if first.teacher is not None else None
        moved = np.flatnonzero((now != before)[first.rows])
        if not moved.size:
            return (prompts, teacher), ids
        batch = self._loader.load(now[first.rows[moved]], bucket)

        def replace(old: np.ndarray, new: np.ndarray) -> np.ndarray:
            changed = np.array(old)
            changed[moved] = new
            return changed

        names = replace(ids.astype(object), np.array(batch.ids, object))  # of any length
        replaced = jax.tree.map(replace, (prompts, teacher), (batch.prompts, batch.teacher))
        return replaced, names.astype(str)

    def _compare(
        self, positions: np.ndarray, parts: np.ndarray, names: np.ndarray, completions: Completions
    ) -> Drawn:
        rollout, eps = completions.rollout, self._loss.advantage_eps
        earned = self._rewards(completions)
        if self._compares:
            normalize = self._loss.normalize_std
            advantages = np.array(grpo.group_advantages(earned, normalize_std=normalize, eps=eps))
        else:  # a teacher alone says what is better
            advantages = np.zeros_like(earned)
        for number, task in enumerate(self._sampler.task.parts.values()):
            weights, own = weights_apart(task), np.flatnonzero(parts == number)
            if self._compares and weights and len(own):
                terms = [completions.scores.terms[name].reshape(earned.shape)[own] for name in weights]
                apart = grpo.advantages_apart(np.stack(terms), tuple(weights.values()), eps=eps)
                advantages[own] = np.asarray(apart)
        # As in TRL, a truncated completion stays in its group's mean and deviation: that the others did
        # better is true. What it was cut off from is not known, so its own tokens teach nothing.
        mask = rollout.mask * rollout.finished[..., None] if self._mask_truncated else rollout.mask
        drawn = (rollout.tokens, mask, rollout.logprobs, advantages, rollout.routing)
        return Drawn(positions, parts, names, *drawn)

    def _figures(
        self, drawn: list[Completions], parts: list[np.ndarray]
    ) -> tuple[dict[str, float], dict[str, float], int]:
        """Metrics of all attempts of a step, seconds of their phases, and how many tokens were drawn."""
        figures = [self._of_attempt(*attempt) for attempt in zip(drawn, parts, strict=True)]
        metrics = {  # a small part may be in some attempts alone
            name: float(np.mean([attempt[name] for attempt in figures if name in attempt]))
            for name in dict.fromkeys(itertools.chain(*figures))
        }
        tokens = sum(float(part.rollout.mask.sum()) for part in drawn)
        metrics |= {
            "rollout/attempts": len(drawn),
            "rollout/tokens": tokens,
            "rollout/slot_use": tokens / sum(int(part.rollout.steps) for part in drawn) / self._num_slots,
            "rollout/read_per_filled": read_per_filled(
                [part.rollout for part in drawn], self._num_slots, self._limits.max_new_tokens
            ),
        }
        seconds = {name: sum(part.seconds[name] for part in drawn) for name in drawn[0].seconds}
        return metrics, seconds, round(tokens)

    def _of_attempt(self, completions: Completions, parts: np.ndarray) -> dict[str, float]:
        """What was earned and drawn in one attempt: in all, and by each part of a mixture."""
        asked, rollout, earned = self._sampler.task, completions.rollout, self._rewards(completions)
        figures = mixture.summary(asked, completions.scores, np.repeat(parts, earned.shape[1]))
        penalty = self._length_penalty(rollout) if self._overlong.buffer else None
        groups = {"": np.arange(len(earned))}
        if len(asked.parts) > 1:
            groups |= {f"{part}/": np.flatnonzero(parts == n) for n, part in enumerate(asked.parts)}
        for prefix, own in groups.items():
            if not len(own):
                continue
            if earned.shape[1] > 1:
                figures[f"{prefix}reward/std_in_group"] = float(earned[own].std(axis=1, ddof=1).mean())
            if prefix:
                figures[f"{prefix}rollout/prompts"] = len(own)
            drawn = grpo.rollout_metrics(earned[own], rollout.mask[own], rollout.finished[own])
            figures |= {f"{prefix}rollout/{name}": float(value) for name, value in drawn.items()}
            if penalty is not None:
                figures[f"{prefix}reward/overlong"] = float(penalty[own].mean())
        return figures


def read_per_filled(rollouts: Sequence[Rollout], slots: int, longest: int) -> float:
    """Positions of response caches that attention read, for each one that held a token it could use.

    Args:
        rollouts: that were drawn one after another.
        slots: of the pool that drew them.
        longest: R, positions of the cache of each slot.
    """
    read = sum(float(rollout.cache_reads) for rollout in rollouts) * longest * slots
    lengths = np.concatenate([np.sum(rollout.mask, axis=-1).reshape(-1) for rollout in rollouts])
    # Token n was drawn with n - 2 before it in the cache: 0 for the second one.
    filled = float(np.sum((lengths - 1) * (lengths - 2) / 2, where=lengths > 1))
    return read / max(filled, 1.0)


def _replace_uninformative(kept: Drawn, fresh: Drawn) -> Drawn:
    """Puts informative rows of `fresh`, in order, where `kept` has uninformative ones of the same part."""
    targets, sources = [], []
    for part in np.unique(kept.parts):
        old = np.flatnonzero(~kept.informative & (kept.parts == part))
        new = np.flatnonzero(fresh.informative & (fresh.parts == part))
        targets.append(old[: len(new)])
        sources.append(new[: len(old)])
    into, taken = np.concatenate(targets), np.concatenate(sources)

    def replace(name: str) -> np.ndarray:
        values = np.array(getattr(kept, name))
        values[into] = getattr(fresh, name)[taken]
        return values

    names = {field.name for field in dataclasses.fields(Drawn)} - {"routing"}
    routing = None
    if kept.routing is not None and fresh.routing is not None:
        routing = experts.replace(kept.routing, into, fresh.routing, taken)
    return Drawn(routing=routing, **{name: replace(name) for name in names})
