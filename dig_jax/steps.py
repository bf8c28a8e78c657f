"""One training step: GRPO (rollout -> reward -> advantage -> update) or supervised (batch -> update).

A step is a function of the state and the step's number alone. Shapes: B prompts of this process.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from dig_jax import parallel, sft
from dig_jax.data.loader import PairLoader
from dig_jax.data.tokenizer import Tokenizer
from dig_jax.experience import Collector
from dig_jax.learner import TrainState, with_learning_rate
from dig_jax.policy import Experience
from dig_jax.programs import TrainPrograms

Metrics = dict[str, float]
Step = Callable[[TrainState, int], tuple[TrainState, Metrics, list["SkippedUpdate"]]]
Rates = Callable[[int], float]  # number of the update, from 0 -> its learning rate
Batched = TypeVar("Batched")


def grpo_step(
    config: ConfigDict,
    programs: TrainPrograms,
    collector: Collector,
    reference: nnx.State | None,
    mesh: jax.sharding.Mesh,
    rates: Rates,
) -> Step:
    """One GRPO step: experience for `batch.prompts` prompts, then updates on `batch.update_prompts` each."""
    num_updates = config.batch.prompts // config.batch.update_prompts
    # With a single update per step the policy's log-probs before it are those of the update itself.
    needs_old = num_updates > 1

    def step(state: TrainState, index: int) -> tuple[TrainState, Metrics, list[SkippedUpdate]]:
        collected = collector.collect(state.params, index)
        start = time.perf_counter()
        slices = [_score(state, part) for part in _cut(collected.experience, num_updates)]
        jax.block_until_ready(slices)
        scored = time.perf_counter()
        parts = []
        for number, part in enumerate(slices, start=index * num_updates):
            state = with_learning_rate(state, rates(number))
            state, figures = programs.update_grpo(state, part)
            parts.append(jax.device_get(figures))
        end = time.perf_counter()
        seconds = collected.seconds | {"score": scored - start, "update": end - scored}
        sampling_seconds = max(seconds["rollout"], 1e-9)
        metrics = {
            **collected.metrics,
            **{f"grpo/{name}": value for name, value in _mean(parts).items()},
            "learning_rate": rates((index + 1) * num_updates - 1),
            **{f"time/{name}": value for name, value in seconds.items()},
            "tokens_per_second/rollout": collected.response_tokens / sampling_seconds,
            "tokens_per_second/step": collected.response_tokens / sum(seconds.values()),
        }
        return state, metrics, _skipped(parts, collected.ids)

    def _score(state: TrainState, experience: Experience) -> Experience:
        experience = parallel.put_batch(experience, mesh)
        if reference is not None:
            ref = programs.logprobs(reference, experience)
            experience = dataclasses.replace(experience, ref_logprobs=ref)
        if needs_old:
            old = programs.logprobs(state.params, experience)
            experience = dataclasses.replace(experience, old_logprobs=old)
        return experience

    return step


def sft_step(
    config: ConfigDict, programs: TrainPrograms, loader: PairLoader, mesh: jax.sharding.Mesh, rates: Rates
) -> Step:
    """One supervised step on `batch.prompts` pairs, an update per `batch.update_prompts` of them."""
    num_updates = config.batch.prompts // config.batch.update_prompts

    def step(state: TrainState, index: int) -> tuple[TrainState, Metrics, list[SkippedUpdate]]:
        start = time.perf_counter()
        batch = loader.batch(index)
        loaded = time.perf_counter()
        examples = sft.Supervised(
            batch.prompts, batch.answers, batch.answer_mask, batch.cell_mask, batch.cell_targets
        )
        parts = []
        for number, part in enumerate(_cut(examples, num_updates), start=index * num_updates):
            state = with_learning_rate(state, rates(number))
            state, figures = programs.update_sft(state, parallel.put_batch(part, mesh))
            parts.append(jax.device_get(figures))
        seconds = {"data": loaded - start, "update": time.perf_counter() - loaded}
        metrics = {
            **{f"sft/{name}": value for name, value in _mean(parts).items()},
            "learning_rate": rates((index + 1) * num_updates - 1),
            **loader.figures(index),
            **{f"time/{name}": value for name, value in seconds.items()},
        }
        return state, metrics, _skipped(parts, np.array(batch.ids))

    return step


def sft_config(config: ConfigDict, tokenizer: Tokenizer) -> sft.SFTConfig:
    """The supervised loss; its auxiliary question is answered with the tokens "1" (yes) and "0" (no)."""
    yes, no = (tokenizer.encode(text)[0] for text in "10")
    return sft.SFTConfig(aux_weight=config.sft.aux_weight, token_yes=yes, token_no=no)


@dataclasses.dataclass(frozen=True)
class SkippedUpdate:
    """An update that was not made, because its loss or gradient was not finite.

    Attributes:
        number: within its step, from 0.
        ids: the pairs it was computed on, of all processes.
        figures: its loss and gradient norm.
    """

    number: int
    ids: list[str]
    figures: Metrics


def _skipped(parts: list[dict[str, np.ndarray]], ids: np.ndarray) -> list[SkippedUpdate]:
    """The skipped ones of a step's updates; every process sees the same metrics, and its own ids."""
    return [
        SkippedUpdate(
            number,
            parallel.gather_texts(own.tolist()),
            {key: float(part[key]) for key in ("loss", "grad_norm")},
        )
        for number, (part, own) in enumerate(zip(parts, np.split(ids, len(parts)), strict=True))
        if part["skipped_updates"]
    ]


def _cut(batch: Batched, count: int) -> list[Batched]:
    """Cuts the rows [B, ...] of every leaf into `count` equal parts."""
    rows = jax.tree.leaves(batch)[0].shape[0] // count
    return [jax.tree.map(lambda x, i=i: x[i * rows : (i + 1) * rows], batch) for i in range(count)]


def _mean(parts: list[dict[str, np.ndarray]]) -> Metrics:
    """Metrics of a step from those of its updates: the maximum of `*_max`, the mean of the others."""
    columns = {name: [part[name] for part in parts] for name in parts[0]}
    return {
        name: float(max(values) if name.endswith("_max") else np.mean(values))
        for name, values in columns.items()
    }
