"""Training, top to bottom: settings, model, data, compiled steps, resume, loop.

One loop serves GRPO (rollout -> reward -> advantage -> update) and the supervised warm-up (batch -> update),
in one stage or in several (`curriculum`). All that a step needs besides the state is a function of the stage
and its number there, so a run that was stopped continues where it was.
"""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from dig_jax import settings
from dig_jax.data.loader import ExampleLoader
from dig_jax.evaluate import Draws, Evaluation, evaluate
from dig_jax.machines import compile_cache, parallel, profiling
from dig_jax.machines.distributed import texts_of_all
from dig_jax.machines.folder import write_json
from dig_jax.machines.stopping import Stop, Stopped
from dig_jax.models.nn import freeze
from dig_jax.report.runlog import RunLog
from dig_jax.report.shown import Shown
from dig_jax.rollout.drawer import answering_form, sampling_form
from dig_jax.rollout.programs import rollout_programs
from dig_jax.rollout.sampler import Sampler
from dig_jax.run import batch, curriculum, epochs, evaluations, loading, lock
from dig_jax.run.checkpoint import Checkpoints, describe_sizes
from dig_jax.run.curriculum import Progress, Stage
from dig_jax.run.evaluations import Entry, EvalConfig
from dig_jax.run.fingerprint import fingerprint
from dig_jax.run.model_folder import copy_model_files, find_model, find_workdir
from dig_jax.run.outputs import LogConfig
from dig_jax.tasks import rewards
from dig_jax.tasks.task import Asked, Task
from dig_jax.update import experts
from dig_jax.update.learner import TrainState
from dig_jax.update.replay import ReplayConfig
from dig_jax.update.steps import Step, StepMaker

logger = logging.getLogger("dig_jax")


def run(config: ConfigDict, workdir: epath.Path) -> None:
    """Trains as `config` says, in `workdir`; continues there if a checkpoint exists.

    Raises:
        Stopped: a signal or the machine's host asked for it; all that is done is saved.
        ValueError: a setting is unknown, contradictory, or differs from those the workdir was started with;
            another run is writing there.
        FileNotFoundError: the model, the data or the stage to start from is missing.
        FloatingPointError: too many non-finite updates in a row; the last good checkpoint stays.
    """
    settings.check(config)
    config = epochs.with_steps(config)
    with (
        lock.held(workdir),
        Stop(config.checkpoint.grace_seconds) as stop,
        compile_cache.kept(config.compile_cache, workdir, config.compile_cache_gb),
    ):
        Run(config, workdir, stop).train()


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """One evaluation: what it is, its examples, and what draws and scores answers to them."""

    entry: Entry
    loader: ExampleLoader
    sampler: Sampler[Task]


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run is made of: settings, data and programs. All was checked, nothing is compiled.

    Attributes:
        opened: settings and tokenizer of the model.
        data: fingerprints of data and models, for the workdir.
        changes: settings that are other than when the workdir was begun, in words.
        stages: of the curriculum, one at least.
        asked: of each, what is asked.
        train_data: a loader for each.
        held_out: the evaluations, the main one first.
        shapes: the parameters, as shapes with shardings.
        start: reads the parameters that the run starts from.
        start_folder: where they are.
        maker: makes the training steps.
    """

    opened: loading.Opened
    data: dict[str, Any]
    changes: list[str]
    stages: tuple[Stage, ...]
    asked: list[Asked]
    train_data: list[ExampleLoader]
    held_out: list[HeldOut]
    shapes: nnx.State
    start: Callable[[], nnx.State]
    start_folder: epath.Path
    maker: StepMaker


def prepare(config: ConfigDict, workdir: epath.Path, check: Callable[[], None]) -> Parts:
    """Reads and checks what a run is made of; `check` is called before every slice that is sampled."""
    # Settings: what can be refused is refused here, before anything compiles.
    model_folder = find_model(config.model_path)
    init_folder = find_workdir(config.init_from) if config.init_from else model_folder
    data = settings.data_fingerprints(config)
    if len(set(texts_of_all(hashlib.sha256(json.dumps(data).encode()).hexdigest()))) > 1:
        raise ValueError("the hosts have different files under the folders of config.data: copy them anew")
    data |= settings.model_identities(config, model_folder, init_folder)
    changes = settings.check_resume(config, workdir / "config.json", data)
    stages = curriculum.stages(config)
    mesh = parallel.make_mesh(config.mesh)
    sampling_mesh = parallel.rollout_mesh(config.rollout.mesh, mesh)
    for stage in stages:
        settings.check_batches(stage.config, parallel.data_shards(mesh), parallel.data_shards(sampling_mesh))

    # Data.
    opened = loading.open_model(model_folder)
    for stage in stages:
        experts.check_model(stage.config, opened.architecture)
        ReplayConfig.from_config(stage.config).check_model(opened.architecture)
    tokenizer = opened.tokenizer
    Draws.from_config(config).check(tokenizer)
    all_asked = [loading.make_asked(stage.config, model_folder, tokenizer) for stage in stages]
    train_data = []
    for stage, asked in zip(stages, all_asked, strict=True):
        own = batch.train_rows(stage.config, mesh, sampling_mesh)
        loader = loading.train_loader(stage.config, asked, model_folder, tokenizer, own, workdir / "lengths")
        for number, task in enumerate(asked.parts.values()):
            rewards.try_out(task, loader.first(number))
        train_data.append(loader)
    entries = evaluations.measured(config)
    eval_tasks = [loading.make_eval_task(config, entry, model_folder, tokenizer) for entry in entries]
    using = model_folder, tokenizer, sampling_mesh
    eval_data = [
        loading.eval_loader(config, task, entry.data, entry.split, *using, entry.blind)
        for entry, task in zip(entries, eval_tasks, strict=True)
    ]

    # Model: parameters land on the mesh as `parallel.RULES` say. The start is read where it is needed.
    plain = loading.abstract_model(config, opened.architecture, mesh)
    graphdef, shapes = loading.with_adapters(config, *plain, mesh)
    for stage in stages:
        _check_trained(stage, shapes)

    def start() -> nnx.State:
        plain = loading.load_params(config, opened.with_weights_of(init_folder), mesh)
        return loading.with_adapters(config, *plain, mesh)[1]

    form, measured = sampling_form(config, sampling_mesh), answering_form(config, sampling_mesh)
    drawer = rollout_programs(graphdef, shapes, sampling_mesh, form)
    answering = drawer
    if measured != form:  # what is saved is measured, not what samples
        answering = rollout_programs(graphdef, shapes, sampling_mesh, measured)
    rows = opened.architecture.text.vocab_size
    maker = StepMaker(graphdef, shapes, mesh, drawer, tokenizer, rows, check)
    held_out = [
        HeldOut(entry, loader, maker.sampler(task, answering))
        for entry, loader, task in zip(entries, eval_data, eval_tasks, strict=True)
    ]
    return Parts(
        *(opened, data, changes, stages, all_asked, train_data, held_out),
        *(shapes, start, init_folder, maker),
    )


class Run:
    """A run in its workdir: from its newest checkpoint, or from its start, to its end.

    `state` is that of `progress.step` wherever a stop may be raised: before a step, or while it samples.
    """

    def __init__(self, config: ConfigDict, workdir: epath.Path, stop: Stop):
        self.config, self.workdir, self.stop = config, workdir, stop
        self.evals = EvalConfig.from_config(config)
        self.parts = parts = prepare(config, workdir, stop.check)
        self.programs = parts.maker.programs(parts.stages[0])
        logger.info("%s", freeze.describe(parts.shapes, parts.stages[0].freezing.always))
        keeping = {"keep": config.checkpoint.keep, "resumable": config.checkpoint.resumable}
        self.checkpoints = Checkpoints(workdir, **keeping)
        marked = len(parts.stages) - 1 + bool(parts.held_out)  # the ends of stages, and the best
        logger.info("%s", describe_sizes(self.programs.state, marked=marked, **keeping))
        restored = self.checkpoints.restore_newest(self.programs.state)
        if restored is None:
            self.state: TrainState = self.programs.init(parts.start())
            self.progress = Progress(reference=fingerprint(self.state.params))
        else:
            self.state, self.progress = restored[0], Progress(**restored[1])
            logger.info("resumed at step %d of %d", self.progress.step, self.planned_steps)
            for change in parts.changes:
                logger.info("with another setting: %s", change)
        if parts.held_out and self.progress.begin_to_measure(measured_by(parts, self.evals)):
            logger.info("the main evaluation is another one now: the best model so far is not compared with")
        self.stage = parts.stages[self.progress.stage]
        self.reference: tuple[int, nnx.State] | None = None  # of the KL penalty, and the step it was taken at
        self.log = begin_files(self)

    def train(self) -> None:
        """Evaluates, saves and steps, stage by stage; errors are those of `run`."""
        try:
            train_step = self.begin_stage()
            while True:
                self.evaluate_if_due()
                is_best = self.progress.best_step == self.progress.step
                due = self.is_due(self.config.checkpoint.every) or is_best
                if self.stage_is_over and self.stage is not self.parts.stages[-1]:
                    self.go_to_next_stage()
                    train_step = self.begin_stage()
                if due:
                    self.save()
                if self.stage_is_over:
                    break
                self.stop.check()
                self.take(train_step)
        except Stopped:
            self.save()
            step = self.progress.step
            logger.info("stopped after step %d of %d: the same command goes on", step, self.planned_steps)
            raise
        finally:
            self.checkpoints.close()  # completes the write under way
        self.log.close()

    def take(self, train_step: Step) -> None:
        """One training step, and its lines."""
        progress, start = self.progress, time.perf_counter()
        with profiling.step(self.workdir, self.config.log.profile_steps, progress.step + 1):
            self.state, metrics, notes = train_step(self.state, progress.step_in_stage)
        metrics["time/step"] = time.perf_counter() - start
        progress.step += 1
        self.log.step(progress.step, self.planned_steps, metrics | self.stage_figures)
        for update in notes.skipped:
            self.log.skipped_update(progress.step, update.number, update.ids, update.figures)
        if notes.group is not None and self.is_due(self.evals.every):
            self.log.group(progress.step, notes.group, self.parts.opened.tokenizer.decode)
        _check_skipped(int(self.state.skipped), self.config, progress.step, self.workdir)

    def evaluate_if_due(self) -> None:
        """Scores held-out examples, and notes whether the model is the best or the stage is over."""
        progress, held_out = self.progress, self.parts.held_out
        if not held_out or progress.evaluated == progress.step or not self.is_due(self.evals.every):
            return
        start = time.perf_counter()
        due = [one for one in held_out if self.is_due(one.entry.every)]
        result = run_evaluation(self.config, due, self.state.params)
        task = held_out[0].sampler.task
        progress.note_evaluation(result.metrics, self.parts.stages, task.main)
        result = dataclasses.replace(result, metrics=result.metrics | self.stage_figures)
        self.log.evaluation(progress.step, result, task, seconds=time.perf_counter() - start)

    def save(self) -> None:
        """Writes a checkpoint of this step, if there is none."""
        progress = self.progress
        if progress.step in (0, *self.checkpoints.steps):
            return
        self.log.sync()  # no checkpoint is newer than its lines
        self.checkpoints.save(progress.step, self.state, dataclasses.asdict(progress), progress.marked_steps)

    def begin_stage(self) -> Step:
        """The training step of the stage that is now."""
        stage, step = self.stage, self.progress.reference_step
        if stage.name:
            logger.info("%s", curriculum.describe(stage, len(self.parts.stages), self.progress))
        if kept := ReplayConfig.from_config(stage.config).describe(self.parts.opened.architecture):
            logger.info("%s", kept)
        if stage.uses_reference and (self.reference is None or self.reference[0] != step):
            self.reference = step, self.programs.reference(reference_params(self))
        reference = self.reference[1] if stage.uses_reference and self.reference else None
        asked, loader = self.parts.asked[stage.number], self.parts.train_data[stage.number]
        return self.parts.maker.step(stage, asked, loader, reference)

    def go_to_next_stage(self) -> None:
        """What changes between the last step of a stage and the first of the next."""
        progress = self.progress
        self.parts.train_data[self.stage.number].close()
        self.stage = self.parts.stages[self.stage.number + 1]
        progress.began.append(progress.step)
        if self.stage.config.optimizer.restart:
            self.state = self.programs.restart(self.state)
        if self.stage.config.grpo.reanchor:
            progress.reference_step, progress.reference = progress.step, fingerprint(self.state.params)

    def is_due(self, every: int) -> bool:
        """Whether what is done every so many steps, and at the end of stages, is done now."""
        return self.progress.step % every == 0 or self.stage_is_over

    @property
    def stage_is_over(self) -> bool:
        """Whether the current stage is done."""
        return curriculum.is_over(self.stage, self.progress)

    @property
    def planned_steps(self) -> int:
        """Steps the run will have, if none of the stages to come ends early."""
        return curriculum.planned_steps(self.parts.stages, self.progress)

    @property
    def stage_figures(self) -> dict[str, float]:
        """What metrics say of the current stage."""
        return {"stage": self.progress.stage + 1.0} if self.stage.name else {}


def begin_files(run: Run) -> RunLog:
    """Writes what a workdir has beside checkpoints, and opens the log."""
    workdir, parts, progress = run.workdir, run.parts, run.progress
    if jax.process_index() == 0:
        copy_model_files(parts.opened.files, workdir / "model")
        settings.note(workdir, parts.data, resumed=progress.step > 0)
        write_json(workdir / "config.json", json.loads(run.config.to_json()))
    places = {"first_step": progress.step, "evaluated": progress.evaluated}
    evaluated = {one.entry.name: one.sampler.task for one in parts.held_out}
    shown = Shown.of(parts.asked, evaluated, run.evals.main)
    log = RunLog(workdir, LogConfig.from_config(run.config), shown, **places)
    log.padding({f"{stage.name} training".strip(): parts.train_data[stage.number] for stage in parts.stages})
    log.padding({f"{shown.label(one.entry.name)} held-out".strip(): one.loader for one in parts.held_out})
    return log


def measured_by(parts: Parts, evals: EvalConfig) -> str:
    """What the main evaluation tells of a model: scores of anything else can not be compared with its own."""
    one = parts.held_out[0]
    metric = "reward_sampled" if evals.group_size else one.sampler.task.main
    held = parts.data.get(f"evals.{one.entry.name}.data", "")
    return f"{metric} of {one.entry.task}, {one.entry.num_examples or 'all'} of {one.entry.split} of {held}"


def reference_params(run: Run) -> nnx.State:
    """The parameters that the KL reference is: the model as it was at a step, known by its fingerprint.

    Raises:
        ValueError: the model is another by now.
    """
    parts, step, wanted = run.parts, run.progress.reference_step, run.progress.reference
    if step == run.progress.step:
        params = run.state.params
    else:
        params = run.checkpoints.restore_params(step, parts.shapes) if step else parts.start()
    if fingerprint(params) != wanted:
        where = f"its checkpoint {step}" if step else parts.start_folder
        raise ValueError(
            f"the KL reference of {run.workdir} is another model (fingerprint {wanted}) than {where} holds"
            f" now ({fingerprint(params)}): restore that model, or use a new workdir"
        )
    return params


def _check_trained(stage: Stage, shapes: nnx.State) -> None:
    if not freeze.split(shapes, stage.freezing.now)[0]:
        raise ValueError(
            f"stage {stage.name}: all layers of config.model.lora.targets are in parts of the model that it"
            f" freezes ({', '.join(sorted(stage.freezing.now))}): nothing is left to train"
        )


def _check_skipped(in_a_row: int, config: ConfigDict, step: int, workdir: epath.Path) -> None:
    if in_a_row > config.optimizer.max_skipped_updates:
        raise FloatingPointError(
            f"{in_a_row} updates in a row had a non-finite loss or gradient, up to step {step}; the newest"
            f" checkpoint in {workdir} is from before, and skipped.jsonl there names the examples. Lower"
            " config.optimizer.learning_rate, or look at the samples"
        )


def run_evaluation(config: ConfigDict, held_out: Sequence[HeldOut], params: nnx.State) -> Evaluation:
    """Evaluates on held-out examples.

    Args:
        config: of the run.
        held_out: what to evaluate, the main evaluation first. The metrics of NAME are named NAME/metric;
            answers are those to the main one.
        params: the policy.
    """
    results = {
        one.entry.name: evaluate(
            one.sampler,
            params,
            one.loader,
            num_examples=min(one.entry.num_examples or one.loader.num_examples, one.loader.num_examples),
            draws=Draws.from_config(config),
        )
        for one in held_out
    }
    metrics = {
        f"{name}/{key}": value for name, result in results.items() for key, value in result.metrics.items()
    }
    return Evaluation(metrics, results[held_out[0].entry.name].answers)
