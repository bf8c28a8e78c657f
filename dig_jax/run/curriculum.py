"""A run's stages, one after another: which settings hold at which step. Pure functions, no devices.

A stage is the run's settings with a few changed while it lasts: the pairs it trains on, the algorithm, the
reward. `config.curriculum.order` names the stages, `config.curriculum.stages` has what each changes, and any
of them can be given on the command line:

    --config.curriculum.stages.mixed.num_steps=90     where the config file has that setting of that stage
    --config.curriculum.order='("mixed",)'            mixed from the start

A stage ends after its `num_steps`, or at the first evaluation inside it whose `advance.metric`, such as
"single/f1", reaches `advance.at`. What goes on from one stage to the next, and what does not:

- parameters go on; so do the optimizer's moments and the learning-rate schedule, which covers all stages as
  if none ended early, unless a stage sets `optimizer.restart`: from there both begin anew;
- what is frozen is a stage's own (`model.freeze_vision` and the like): parameters and moments of frozen parts
  rest as they are, and go on from there in the next stage that trains them;
- the KL reference stays the model the run started from, unless a stage sets `grpo.reanchor`: from there it
  is the model that stage started from;
- each stage has its own order of the data and its own noise, from a seed of its own (`seed_of`), and counts
  its steps from 0;
- held-out pairs, and the reward they are scored by, are those of the run: figures compare across stages.

So a stage that sets both `restart` and `reanchor` trains as a separate command would with `init_from`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from ml_collections import ConfigDict

from dig_jax.models.nn import freeze
from dig_jax.models.nn.freeze import Freezing
from dig_jax.run import keys, mixture
from dig_jax.run.batch import BatchConfig
from dig_jax.run.distillation import DistillConfig
from dig_jax.run.evaluations import metric_name

_Answer = TypeVar("_Answer")

# What a stage may change: what its steps compute and train, but neither the model nor how the run is watched.
STAGE_SETTINGS = (
    *("algorithm", "num_steps", "num_epochs", "advance", "batch", "grpo", "distill", "sft", "optimizer"),
    *("mixture", "task", "reward", "referring", "conversation", "rewards.weights"),
    "rewards.normalize_apart",
    *("data.train", "data.train_split", "data.num_differences", "data.augment", "data.group_sizes"),
    *("data.images", "data.prompt_lengths"),
    *("rollout.group_size", "rollout.slots", "rollout.rows", "rollout.max_new_tokens"),
    *("rollout.temperature", "rollout.top_p", "rollout.top_k"),
    *("model.freeze_vision", "model.freeze_projector", "model.freeze_text"),
    "model.freeze_router",
)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        number: from 0.
        name: "" where the run has no curriculum.
        config: an ordinary config, the run's own with what the stage changes.
        first_update: place of its first update in the learning-rate schedule.
        total_updates: length of that schedule.
        freezing: what it leaves as it is, and what all stages do.
    """

    number: int
    name: str
    config: ConfigDict
    first_update: int
    total_updates: int
    freezing: Freezing

    @property
    def uses_reference(self) -> bool:
        """Whether its loss has a KL penalty, or a teacher that is the reference."""
        distill = DistillConfig.from_config(self.config)
        return self.config.algorithm != "sft" and (self.config.grpo.kl_coef != 0 or distill.needs_reference)


@dataclasses.dataclass
class Progress:
    """Where a run is: what its checkpoints hold beside the arrays.

    Attributes:
        reference: fingerprint of the parameters that the KL reference is.
        reference_step: the step it was taken at; 0 is the model the run started from.
        step: training steps done, of all stages.
        began: the step at which each stage so far began.
        evaluated: the step of the last evaluation; -1 before the first.
        passed: the step of the last evaluation that reached its stage's `advance.at`; -1 for none.
        best_score: of all evaluations; None before the first.
        best_step: the step it was reached at.
        best_of: what that is a score of, in words; "" where an older version did not say.
    """

    reference: str
    reference_step: int = 0
    step: int = 0
    began: list[int] = dataclasses.field(default_factory=lambda: [0])
    evaluated: int = -1
    passed: int = -1
    best_score: float | None = None
    best_step: int | None = None
    best_of: str = ""

    @property
    def stage(self) -> int:
        """Number of the current stage, from 0."""
        return len(self.began) - 1

    @property
    def marked_steps(self) -> set[int]:
        """Steps whose checkpoints stay: the best, and the ends of stages, one of which is the reference."""
        return {*self.began, *([] if self.best_step is None else [self.best_step])} - {0}

    @property
    def step_in_stage(self) -> int:
        """Steps of the current stage that are done."""
        return self.step - self.began[-1]

    def begin_to_measure(self, what: str) -> bool:
        """Says what scores are of from now on; whether a best score of something else was dropped."""
        dropped = self.best_score is not None and self.best_of not in ("", what)
        if dropped:
            self.best_score = self.best_step = None
        self.best_of = what
        return dropped

    def note_evaluation(self, metrics: Mapping[str, float], all_stages: Sequence[Stage], main: str) -> None:
        """The evaluations of the current step gave these metrics.

        Args:
            metrics: by their whole names, evaluation/metric.
            all_stages: of the run.
            main: the metric of greedy answers that tells which of two models is better, where none are
                sampled; where they are, the mean reward of those does. Both are of the main evaluation.

        Raises:
            ValueError: a metric that a stage waits for is not among them.
        """
        evaluation = all_stages[0].config.eval.main
        for stage in all_stages:
            advance = stage.config.advance
            if advance.at and metric_name(advance.metric, evaluation) not in metrics:
                raise ValueError(
                    f"config.advance.metric={advance.metric!r} is no held-out metric of this run; it has"
                    f" {', '.join(sorted(metrics))}"
                )
        self.evaluated = self.step
        sampled = f"{evaluation}/reward_sampled"
        score = metrics[sampled if sampled in metrics else f"{evaluation}/{main}"]
        if self.best_score is None or score > self.best_score:
            self.best_score, self.best_step = score, self.step
        wanted = all_stages[self.stage].config.advance
        if wanted.at and metrics[metric_name(wanted.metric, evaluation)] >= wanted.at:
            self.passed = self.step


def stages(config: ConfigDict) -> tuple[Stage, ...]:
    """The stages of a run, in order; a single one where it has no curriculum.

    Raises:
        ValueError: names what is wrong with the curriculum.
    """
    names = tuple(config.curriculum.order) or ("",)
    configs = [_stage_config(config, name, number) for number, name in enumerate(names)]
    updates = [_ask(name, part, _num_updates) for name, part in zip(names, configs, strict=True)]
    freezing = _freezing(names, configs)
    return tuple(
        Stage(number, name, part, sum(updates[first:number]), sum(updates[first:end]), freezing[number])
        for number, (name, part) in enumerate(zip(names, configs, strict=True))
        for first, end in [_span(configs, number)]
    )


def untrained(config: ConfigDict) -> frozenset[str]:
    """Parts of the model that no stage of a run trains."""
    names = tuple(config.curriculum.order) or ("",)
    configs = [_stage_config(config, name, number) for number, name in enumerate(names)]
    return _freezing(names, configs)[0].always


def is_over(stage: Stage, progress: Progress) -> bool:
    """Whether the current stage is done."""
    early = progress.passed == progress.step and progress.step_in_stage > 0
    return early or progress.step_in_stage >= stage.config.num_steps


def planned_steps(all_stages: Sequence[Stage], progress: Progress) -> int:
    """Steps the run will have, if none of the stages to come ends early."""
    return progress.began[-1] + sum(stage.config.num_steps for stage in all_stages[progress.stage :])


def describe(stage: Stage, count: int, progress: Progress) -> str:
    """One line for the log: what the current stage, one of `count`, is."""
    config, advance = stage.config, stage.config.advance
    until = f", less if {advance.metric} reaches {advance.at:g}" if advance.at else ""
    line = (
        f"stage {stage.number + 1} of {count}, {stage.name}: {config.algorithm} on"
        f" {mixture.describe(config)} for {config.num_steps} steps{until}"
    )
    if stage.freezing.varies:
        line += f"; frozen: {', '.join(sorted(stage.freezing.now)) or 'none'}"
    if config.optimizer.restart and stage.number:
        line += "; the optimizer begins anew"
    if stage.uses_reference:
        line += f"; the reference is the model of step {progress.reference_step}"
    return line


def seed_of(seed: int, number: int) -> int:
    """Seed of stage `number` of a run with this seed. The first stage has the run's own."""
    return seed if number == 0 else int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)


def _num_updates(config: ConfigDict) -> int:
    return config.num_steps * BatchConfig.from_config(config).updates_per_step


def _freezing(names: Sequence[str], configs: Sequence[ConfigDict]) -> list[Freezing]:
    frozen = [_ask(name, part, freeze.frozen_parts) for name, part in zip(names, configs, strict=True)]
    return Freezing.of_stages(frozen)


def _ask(name: str, config: ConfigDict, what: Callable[[ConfigDict], _Answer]) -> _Answer:
    """What a function says of a stage's settings; its errors name the stage."""
    try:
        return what(config)
    except ValueError as error:
        raise ValueError(f"stage {name}: {error}" if name else str(error)) from error


def _span(configs: Sequence[ConfigDict], number: int) -> tuple[int, int]:
    """The stages, first to end, that share their learning-rate schedule with stage `number`."""
    starts = [0, *(n for n, part in enumerate(configs) if n and part.optimizer.restart), len(configs)]
    return max(n for n in starts if n <= number), min(n for n in starts if n > number)


def _stage_config(config: ConfigDict, name: str, number: int) -> ConfigDict:
    part = config.copy_and_resolve_references()
    part.seed = seed_of(config.seed, number)
    if not name:
        return part.lock()
    where = f"config.curriculum.stages.{name}"
    if name not in config.curriculum.stages:
        known = ", ".join(sorted(config.curriculum.stages)) or "none"
        raise ValueError(f"config.curriculum.order names {name!r}, but config.curriculum.stages has {known}")
    part.curriculum.order = ()  # a stage has no stages
    # Names of parts, and what they set, are the user's: `mixture` checks them.
    with part.unlocked(), part.ignore_type():
        part.mixture.update(config.curriculum.stages[name].get("mixture", {}))
    part.lock()  # no setting appears by a misspelled name
    for path, value in keys.leaves(config.curriculum.stages[name]):
        if not keys.is_in(path, STAGE_SETTINGS):
            raise ValueError(
                f"{where}.{path}: a stage can not change this; it can change {', '.join(STAGE_SETTINGS)}"
            )
        if not path.startswith("mixture."):
            keys.change(part, path, value, where)
    return part
