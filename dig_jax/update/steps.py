"""One training step: GRPO (rollout -> reward -> advantage -> update) or supervised (batch -> update).

A step is a function of the state and the step's number alone. Which prompts an update has does not depend on
the number of processes: update k of a step has rows k * U to (k + 1) * U - 1 of its batch, U being
`batch.update_prompts`. Each process has some rows of each.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from dig_jax.data.loader import ExampleLoader
from dig_jax.data.tokenizer import Tokenizer
from dig_jax.machines import agreement, gathering, parallel
from dig_jax.rollout.drawer import Drawer
from dig_jax.rollout.sampler import AskedT, Sampler, sampling_of
from dig_jax.run import keys, mixture
from dig_jax.run.batch import BatchConfig
from dig_jax.run.curriculum import Stage
from dig_jax.run.distillation import DistillConfig
from dig_jax.tasks.supervision import SupervisionConfig
from dig_jax.tasks.task import Asked
from dig_jax.update import grpo, sft
from dig_jax.update.experience import Collector
from dig_jax.update.group import Group
from dig_jax.update.grpo import GRPOConfig
from dig_jax.update.learner import Learner, TrainPrograms, TrainState, train_programs, with_learning_rate
from dig_jax.update.optimizer import OptimizerConfig
from dig_jax.update.policy import Experience
from dig_jax.update.replay import ReplayConfig

Metrics = dict[str, float]
Step = Callable[[TrainState, int], tuple[TrainState, Metrics, "Notes"]]
Rates = Callable[[int], float]  # number of the update, from 0 -> its learning rate


# What stages may change without another program: their length and seed, which pairs they read, what the host
# does with completions and scores, and learning rates, which are arguments. All else is taken to matter.
NOT_COMPILED = (
    *("algorithm", "num_steps", "num_epochs", "seed", "advance", "data", "curriculum"),
    *("mixture", "task", "task_file", "reward", "referring", "conversation", "rewards"),
    *("moe.replay", "moe.measure_every"),  # which arrays an update is given, and what is measured beside it
    *("grpo.dynamic_sampling", "grpo.reanchor", "grpo.mask_truncated", "grpo.overlong"),
    *("optimizer.learning_rate", "optimizer.schedule", "optimizer.warmup_updates", "optimizer.warmup_ratio"),
    "optimizer.restart",
)


def programs_key(config: ConfigDict) -> str:
    """What tells apart the settings under which other programs are compiled."""
    flat = keys.flat(json.loads(config.to_json()))
    kept = {key: value for key, value in flat.items() if not keys.is_in(key, NOT_COMPILED)}
    return json.dumps(kept | {"parts": part_names(config) if config.algorithm == "sft" else ()})


def part_names(config: ConfigDict) -> tuple[str, ...]:
    """Of the mixture; () where there is none."""
    return tuple(part.name for part in mixture.parts(config) if part.name)


class StepMaker:
    """Makes the training step of each stage; what stages have in common is compiled once.

    Args:
        graphdef: the policy's structure.
        params: its parameters, as shapes with shardings.
        mesh: of training.
        drawer: of its completions.
        tokenizer: its own.
        vocab_rows: of its output head.
        check: called before every slice of prompts that is sampled; what it raises abandons the step.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        params: nnx.State,
        mesh: jax.sharding.Mesh,
        drawer: Drawer,
        tokenizer: Tokenizer,
        vocab_rows: int,
        check: Callable[[], None],
    ):
        self._graphdef = graphdef
        self._params = params
        self._mesh = mesh
        self._drawer = drawer
        self._tokenizer = tokenizer
        self._vocab_rows = vocab_rows
        self._check = check
        self._made: dict[str, TrainPrograms] = {}

    def step(self, stage: Stage, asked: Asked, loader: ExampleLoader, reference: nnx.State | None) -> Step:
        """The step of a stage; its argument `index` counts the steps of the stage, from 0.

        Args:
            stage: which one.
            asked: scores what is drawn for the loader's examples.
            loader: of its training data.
            reference: parameters of the reference; None where the loss asks for none.
        """
        config = stage.config
        programs = self.programs(stage)
        schedule = OptimizerConfig.from_config(config).learning_rates(stage.total_updates)

        def rates(update: int) -> float:
            return float(schedule(stage.first_update + update))

        if config.algorithm == "sft":
            return sft_step(config, programs, loader, self._mesh, rates)
        collector = Collector(config, self.sampler(asked), loader, GRPOConfig.from_config(config))
        return grpo_step(config, programs, collector, reference, self._mesh, rates)

    def programs(self, stage: Stage) -> TrainPrograms:
        """The compiled half of a stage's steps: stages of the same losses and frozen parts share it.

        All stages of a run have a state of the same structure.
        """
        key = programs_key(stage.config)
        if key not in self._made:
            self._made[key] = train_programs(self._learner(stage), self._params, self._mesh)
        return self._made[key]

    def sampler(self, asked: AskedT, drawer: Drawer | None = None) -> Sampler[AskedT]:
        """Draws completions and has them scored; None: with the drawer of the steps."""
        return Sampler(drawer or self._drawer, self._tokenizer, asked, self._check)

    def _learner(self, stage: Stage) -> Learner:
        return Learner.from_config(
            stage.config,
            self._graphdef,
            freezing=stage.freezing,
            sft=sft_config(stage.config, self._tokenizer),
            allowed=sampling_of(self._tokenizer, 1.0).allowed(self._vocab_rows),
        )


def sft_config(config: ConfigDict, tokenizer: Tokenizer) -> sft.SFTConfig:
    """The supervised loss; its auxiliary question is answered with the tokens "1" (yes) and "0" (no)."""
    yes, no = (tokenizer.encode(text)[0] for text in "10")
    weight, parts = SupervisionConfig.from_config(config).aux_weight, part_names(config)
    return sft.SFTConfig(aux_weight=weight, token_yes=yes, token_no=no, parts=parts)


def grpo_step(
    config: ConfigDict,
    programs: TrainPrograms,
    collector: Collector,
    reference: nnx.State | None,
    mesh: jax.sharding.Mesh,
    rates: Rates,
) -> Step:
    """One GRPO step: experience for `batch.prompts` prompts, then updates on `batch.update_prompts` each.

    With `batch.update_epochs` above 1 the updates are made again, on the same experience in the same order.
    """
    batch = BatchConfig.from_config(config)
    num_updates, epochs, size = batch.updates_per_step, batch.update_epochs, batch.update_prompts
    replaying, loss = ReplayConfig.from_config(config), GRPOConfig.from_config(config)
    needs_old = replaying.replay == "old" or loss.needs_old_logprobs(num_updates)
    penalised = reference is not None and loss.kl_coef > 0
    taught_by = (reference,) if DistillConfig.from_config(config).needs_reference else ()

    def step(state: TrainState, index: int) -> tuple[TrainState, Metrics, Notes]:
        began = time.perf_counter()
        collected = collector.collect(state.params, index)
        start = time.perf_counter()
        cut = (collected.rows, size, batch.prompts)
        slices = parallel.cut_rows(collected.experience, *cut)
        replayed = _replay_figures(state, *slices[0]) if replaying.measures(index) else {}
        began_scoring = time.perf_counter()
        if replaying.replay != "rollout":
            slices = [(dataclasses.replace(part, routing=None), rows) for part, rows in slices]
        logprobs = [_logprobs(state, *part) for part in slices]
        scored = time.perf_counter()
        parts = []
        order = epochs * list(zip(slices, logprobs, strict=True))
        for number, ((part, rows), known) in enumerate(order, start=index * num_updates):
            state = with_learning_rate(state, rates(number))
            # As above: patches of many images are large.
            experience = dataclasses.replace(parallel.put_batch(part, mesh, rows, size), **known)
            state, measured = programs.update_grpo(state, experience, *taught_by)
            parts.append(jax.device_get(measured))
        end = time.perf_counter()
        seconds = collected.seconds | {"score": scored - began_scoring, "update": end - scored}
        if replayed:
            seconds["measure_replay"] = began_scoring - start
        sampling_seconds = max(seconds["rollout"], 1e-9)
        figures = _mean(parts)
        if not needs_old:  # only the first update is made on the policy that sampled
            figures |= {name: float(parts[0][name]) for name in grpo.GAPS if name in figures}
        metrics = {
            **collected.metrics,
            **{name if "/" in name else f"grpo/{name}": value for name, value in figures.items()},
            **replayed,
            "learning_rate": rates((index + 1) * num_updates - 1),
            **{f"time/{name}": value for name, value in seconds.items()},
            "tokens_per_second/rollout": collected.response_tokens / sampling_seconds,
            "tokens_per_second/step": collected.response_tokens / (end - began),
        }
        skipped = _skipped(parts, epochs * parallel.cut_rows(collected.ids, *cut), mesh, size)
        return state, metrics, Notes(skipped, collected.group)

    def _replay_figures(state: TrainState, part: Experience, rows: np.ndarray) -> Metrics:
        """What replay changes, or would change, on the pairs of the first update."""
        figures = programs.replay_figures(state.params, parallel.put_batch(part, mesh, rows, size))
        return {f"moe/{name}": float(value) for name, value in jax.device_get(figures).items()}

    def _logprobs(state: TrainState, part: Experience, rows: np.ndarray) -> dict[str, Any]:
        """The fields of `Experience` that are of other parameters than the update's: log-probs, and routing.

        The devices hold the prompts of one part at a time, and of none where no log-probs are wanted.
        """
        known: dict[str, Any] = {}
        if not (penalised or needs_old or loss.visual_dependency):
            return known
        experience = parallel.put_batch(part, mesh, rows, size)
        if penalised:
            known["ref_logprobs"] = programs.reference_logprobs(reference, state.params, experience)
        if loss.visual_dependency:
            known["blind_logprobs"] = programs.blind_logprobs(state.params, experience)
        if replaying.replay == "old":
            scored = programs.logprobs_and_routing(state.params, experience)
            known["old_logprobs"], known["routing"] = scored
        elif needs_old:
            known["old_logprobs"] = programs.logprobs(state.params, experience)
        return jax.block_until_ready(known)

    return step


def sft_step(
    config: ConfigDict, programs: TrainPrograms, loader: ExampleLoader, mesh: jax.sharding.Mesh, rates: Rates
) -> Step:
    """One supervised step on `batch.prompts` pairs, an update per `batch.update_prompts` of them."""
    sizes = BatchConfig.from_config(config)
    num_updates, size = sizes.updates_per_step, sizes.update_prompts
    has_parts = bool(part_names(config))

    def step(state: TrainState, index: int) -> tuple[TrainState, Metrics, Notes]:
        start = time.perf_counter()
        batch = loader.batch(index)
        agreement.agree_on_rows(batch.ids, batch.rows, sizes.prompts)
        loaded = time.perf_counter()
        examples = sft.Supervised(
            batch.prompts,
            batch.answers,
            batch.answer_mask,
            batch.cell_mask,
            batch.cell_targets,
            part=loader.parts(loader.positions(index))[batch.rows] if has_parts else None,
            earlier=batch.earlier if batch.earlier.size else None,
            earlier_mask=batch.earlier_mask if batch.earlier.size else None,
        )
        cut = (batch.rows, size, sizes.prompts)
        parts = []
        for number, (part, rows) in enumerate(parallel.cut_rows(examples, *cut), start=index * num_updates):
            state = with_learning_rate(state, rates(number))
            state, figures = programs.update_sft(state, parallel.put_batch(part, mesh, rows, size))
            parts.append(jax.device_get(figures))
        seconds = {"data": loaded - start, "update": time.perf_counter() - loaded}
        metrics = {
            **{f"sft/{name}": value for name, value in _mean(parts).items() if "/" not in name},
            **_of_parts(parts),
            "learning_rate": rates((index + 1) * num_updates - 1),
            **loader.figures(index),
            **{f"time/{name}": value for name, value in seconds.items()},
        }
        skipped = _skipped(parts, parallel.cut_rows(np.array(batch.ids), *cut), mesh, size)
        return state, metrics, Notes(skipped)

    return step


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


@dataclasses.dataclass(frozen=True)
class Notes:
    """What a reader is told of a step, beside its metrics.

    Attributes:
        skipped: updates that were not made.
        group: one of its groups; None for a supervised step.
    """

    skipped: list[SkippedUpdate]
    group: Group | None = None


def _skipped(
    parts: list[dict[str, np.ndarray]],
    ids: list[tuple[np.ndarray, np.ndarray]],
    mesh: jax.sharding.Mesh,
    size: int,
) -> list[SkippedUpdate]:
    """The skipped ones of a step's updates.

    Args:
        parts: metrics of the updates, on every process the same.
        ids: of each update the pairs that this process has, and which of its rows they are.
        mesh: of the updates.
        size: rows of an update.
    """
    owners = parallel.row_layout(mesh, size).owners
    return [
        SkippedUpdate(
            number,
            gathering.gather_texts(own.tolist(), rows, owners),
            {key: float(part[key]) for key in ("loss", "grad_norm")},
        )
        for number, (part, (own, rows)) in enumerate(zip(parts, ids, strict=True))
        if part["skipped_updates"]
    ]


def _of_parts(updates: list[dict[str, np.ndarray]]) -> Metrics:
    """Metrics of a step of those parts of a mixture that have tokens in it, from the sums in its updates."""
    sums = {name: sum(float(update[name]) for update in updates) for name in updates[0] if "/" in name}
    metrics = {}
    for whole_name, value in sums.items():
        part, _, name = whole_name.partition("/")
        if (tokens := sums[f"{part}/tokens"]) and name != "tokens":
            metrics[f"{part}/sft/{name}"] = value / tokens
    return metrics


def _mean(parts: list[dict[str, np.ndarray]]) -> Metrics:
    """Metrics of a step from those of its updates: the maximum of `*_max`, the mean of the others."""
    columns = {name: [part[name] for part in parts] for name in parts[0]}
    return {
        name: float(max(values) if name.endswith("_max") else np.mean(values))
        for name, values in columns.items()
    }
