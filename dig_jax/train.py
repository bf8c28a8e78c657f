"""Training, top to bottom: settings, model, data, compiled steps, resume, loop.

One loop serves GRPO (rollout -> reward -> advantage -> update) and the supervised warm-up (batch -> update),
in one stage or in several (`curriculum`). All that a step needs besides the state is a function of the stage
and its number there, so a run that was stopped continues where it was.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import time

import jax
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from dig_jax import settings
from dig_jax.data.loader import PairLoader
from dig_jax.evaluate import Draws, Evaluation, evaluate
from dig_jax.machines import compile_cache, parallel, profiling
from dig_jax.machines.distributed import texts_of_all
from dig_jax.machines.folder import write_json
from dig_jax.machines.stopping import Stop, Stopped
from dig_jax.models.nn import freeze
from dig_jax.report.runlog import RunLog
from dig_jax.rollout.programs import rollout_programs
from dig_jax.rollout.sampler import Sampler
from dig_jax.run import curriculum, loading, lock
from dig_jax.run.checkpoint import Checkpoints, describe_sizes
from dig_jax.run.curriculum import Progress, Stage
from dig_jax.run.fingerprint import fingerprint
from dig_jax.run.model_folder import copy_model_files, find_model, find_workdir
from dig_jax.run.outputs import LogConfig
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
    with (
        lock.held(workdir),
        Stop(config.checkpoint.grace_seconds) as stop,
        compile_cache.kept(config.compile_cache, workdir),
    ):
        _run(config, workdir, stop)


def _run(config: ConfigDict, workdir: epath.Path, stop: Stop) -> None:
    # Settings: what can be refused is refused here, before anything compiles.
    model_folder = find_model(config.model_path)
    init_folder = find_workdir(config.init_from) if config.init_from else model_folder
    data = settings.data_fingerprints(config)
    if len(set(texts_of_all(hashlib.sha256(json.dumps(data).encode()).hexdigest()))) > 1:
        raise ValueError("the hosts have different pairs under the folders of config.data: copy them anew")
    changes = settings.check_resume(config, workdir / "config.json", data)
    stages = curriculum.stages(config)
    mesh = parallel.make_mesh(config.mesh)
    sampling_mesh = parallel.rollout_mesh(config.rollout.mesh, mesh)
    for stage in stages:
        settings.check_batches(stage.config, parallel.data_shards(mesh), parallel.data_shards(sampling_mesh))

    # Data.
    opened = loading.open_model(model_folder)
    tokenizer = opened.tokenizer
    Draws.from_config(config).check(tokenizer)
    train_data = []
    for stage in stages:
        own = loading.train_rows(stage.config, mesh, sampling_mesh)
        train_data.append(loading.train_loader(stage.config, model_folder, tokenizer, own))
    eval_data = {
        name: loading.eval_loader(config, folder, model_folder, tokenizer, sampling_mesh)
        for name, folder in settings.eval_folders(config).items()
        if folder
    }

    # Model: parameters land on the mesh as `parallel.RULES` say. The start is read where it is needed.
    plain = loading.abstract_model(config, opened.architecture, mesh)
    graphdef, shapes = loading.with_adapters(config, *plain, mesh)

    def start_params() -> nnx.State:
        plain = loading.load_params(config, model_folder, init_folder, mesh)
        return loading.with_adapters(config, *plain, mesh)[1]

    drawer = rollout_programs(graphdef, shapes, sampling_mesh)
    rows = opened.architecture.text.vocab_size
    maker = StepMaker(graphdef, shapes, mesh, drawer, tokenizer, rows, stop.check)
    programs, evaluator = maker.programs(stages[0].config), maker.sampler(config)
    logger.info("%s", freeze.describe(shapes, freeze.frozen_parts(config)))

    # Resume, or start.
    keeping = {"keep": config.checkpoint.keep, "resumable": config.checkpoint.resumable}
    checkpoints = Checkpoints(workdir, **keeping)
    marked = len(stages) - 1 + bool(eval_data)  # the ends of stages, and the best
    logger.info("%s", describe_sizes(programs.state, marked=marked, **keeping))
    restored = checkpoints.restore_newest(programs.state)
    if restored is None:
        state = programs.init(start_params())
        progress = Progress(reference=fingerprint(state.params))
    else:
        state, progress = restored[0], Progress(**restored[1])
        logger.info("resumed at step %d of %d", progress.step, curriculum.planned_steps(stages, progress))
        for change in changes:
            logger.info("with another setting: %s", change)
    if jax.process_index() == 0:
        copy_model_files(opened.files, workdir / "model")
        write_json(workdir / settings.DATA_FILE, data)
        write_json(workdir / "config.json", json.loads(config.to_json()))
    log = RunLog(
        workdir, LogConfig.from_config(config), first_step=progress.step, evaluated=progress.evaluated
    )
    log.padding({f"{stage.name} training".strip(): train_data[stage.number] for stage in stages})
    log.padding({f"{name} held-out".strip(): loader for name, loader in eval_data.items()})

    # The reference of the KL penalty is the model as it was at a certain step, known by its fingerprint.
    @functools.lru_cache(maxsize=1)
    def reference_of(step: int) -> nnx.State:
        if step == progress.step:
            params = state.params
        else:
            params = checkpoints.restore_params(step, shapes) if step else start_params()
        if fingerprint(params) != progress.reference:
            raise ValueError(
                f"the KL reference of {workdir} is another model (fingerprint {progress.reference}) than"
                f" {f'its checkpoint {step}' if step else init_folder} holds now ({fingerprint(params)}):"
                " restore that model, or use a new workdir"
            )
        return programs.reference(params)

    def begin(stage: Stage) -> Step:
        if stage.name:
            logger.info("%s", curriculum.describe(stage, len(stages), progress))
        reference = reference_of(progress.reference_step) if stage.uses_reference else None
        return maker.step(stage, train_data[stage.number], reference)

    def is_due(every: int) -> bool:
        return progress.step % every == 0 or curriculum.is_over(stage, progress)

    def evaluate_if_due() -> None:
        if not eval_data or progress.evaluated == progress.step or not is_due(config.eval.every):
            return
        start = time.perf_counter()
        result = run_evaluation(config, evaluator, state.params, eval_data)
        progress.note_evaluation(result.metrics, stages)
        result = dataclasses.replace(result, metrics=result.metrics | stage_figures())
        log.evaluation(progress.step, result, seconds=time.perf_counter() - start)

    def stage_figures() -> dict[str, float]:
        return {"stage": progress.stage + 1.0} if stage.name else {}

    def save() -> None:
        if progress.step in (0, *checkpoints.steps):
            return
        log.sync()  # no checkpoint is newer than its lines
        checkpoints.save(progress.step, state, dataclasses.asdict(progress), progress.marked_steps)

    # Loop. A stop is raised where `state` is that of `progress.step`: before a step, or while it samples.
    try:
        stage = stages[progress.stage]
        train_step = begin(stage)
        while True:
            evaluate_if_due()
            due = is_due(config.checkpoint.every) or progress.best_step == progress.step
            if curriculum.is_over(stage, progress) and stage is not stages[-1]:
                train_data[stage.number].close()
                stage = stages[stage.number + 1]
                progress.began.append(progress.step)
                if stage.config.optimizer.restart:
                    state = programs.restart(state)
                if stage.config.grpo.reanchor:
                    progress.reference_step, progress.reference = progress.step, fingerprint(state.params)
                train_step = begin(stage)
            if due:
                save()
            if curriculum.is_over(stage, progress):
                break
            stop.check()
            start = time.perf_counter()
            with profiling.step(workdir, config.log.profile_steps, progress.step + 1):
                state, metrics, skipped = train_step(state, progress.step_in_stage)
            metrics["time/step"] = time.perf_counter() - start
            progress.step += 1
            log.step(progress.step, curriculum.planned_steps(stages, progress), metrics | stage_figures())
            for update in skipped:
                log.skipped_update(progress.step, update.number, update.ids, update.figures)
            _check_skipped(int(state.skipped), config, progress.step, workdir)
    except Stopped:
        save()
        total = curriculum.planned_steps(stages, progress)
        logger.info("stopped after step %d of %d: the same command goes on", progress.step, total)
        raise
    finally:
        checkpoints.close()  # completes the write under way
    log.close()


def _check_skipped(in_a_row: int, config: ConfigDict, step: int, workdir: epath.Path) -> None:
    if in_a_row > config.optimizer.max_skipped_updates:
        raise FloatingPointError(
            f"{in_a_row} updates in a row had a non-finite loss or gradient, up to step {step}; the newest"
            f" checkpoint in {workdir} is from before, and skipped.jsonl there names the pairs. Lower"
            " config.optimizer.learning_rate, or look at the samples"
        )


def run_evaluation(
    config: ConfigDict, sampler: Sampler, params: nnx.State, loaders: dict[str, PairLoader]
) -> Evaluation:
    """Evaluates on the held-out pairs that `config.eval` names.

    Args:
        config: of the run.
        sampler: draws and scores completions.
        params: the policy.
        loaders: of the held-out sets by name; the figures of set "x" are named "x/f1" and so on, and those of
            the main set, "", just "f1". Answers are those to the main set.
    """
    results = {
        name: evaluate(
            sampler,
            params,
            loader,
            num_pairs=min(config.eval.num_pairs or loader.num_pairs, loader.num_pairs),
            draws=Draws.from_config(config),
        )
        for name, loader in loaders.items()
    }
    metrics = {
        f"{name}/{key}" if name else key: value
        for name, result in results.items()
        for key, value in result.metrics.items()
    }
    return Evaluation(metrics, results[""].answers)
