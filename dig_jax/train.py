"""Training, top to bottom: settings, model, data, compiled steps, resume, loop.

One loop serves GRPO (rollout -> reward -> advantage -> update) and the supervised warm-up (batch -> update).
All that a step needs besides the state is a function of its number, so a run that was stopped continues where
it was.
"""

import dataclasses
import json
import logging
import time
from typing import Any

import jax
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from dig_jax import freeze, loading, parallel, settings
from dig_jax.checkpoint import Checkpoints
from dig_jax.data.loader import PairLoader
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.evaluate import Evaluation, evaluate
from dig_jax.experience import Collector
from dig_jax.fingerprint import fingerprint
from dig_jax.folder import write_json
from dig_jax.learner import Learner, learning_rates, make_optimizer
from dig_jax.microbatches import Cut
from dig_jax.model_folder import copy_model_files, find_model, find_workdir, hf_files
from dig_jax.programs import train_programs
from dig_jax.rollout.programs import rollout_programs
from dig_jax.runlog import RunLog
from dig_jax.sampler import Sampler
from dig_jax.steps import grpo_step, sft_config, sft_step
from dig_jax.stopping import Stop, Stopped

logger = logging.getLogger("dig_jax")


def run(config: ConfigDict, workdir: epath.Path) -> None:
    """Trains as `config` says, in `workdir`; continues there if a checkpoint exists.

    Raises:
        Stopped: a signal or the machine's host asked for it; all that is done is saved.
        ValueError: a setting is unknown, contradictory, or differs from those the workdir was started with.
        FileNotFoundError: the model, the data or the stage to start from is missing.
        FloatingPointError: too many non-finite updates in a row; the last good checkpoint stays.
    """
    settings.check(config)
    with Stop(config.checkpoint.grace_seconds) as stop:
        _run(config, workdir, stop)


def _run(config: ConfigDict, workdir: epath.Path, stop: Stop) -> None:
    # Settings: what can be refused is refused here, before anything compiles.
    changes = settings.check_resume(config, workdir / "config.json")
    model_folder = find_model(config.model_path)
    init_folder = find_workdir(config.init_from) if config.init_from else model_folder
    mesh = parallel.make_mesh(config.mesh)
    sampling_mesh = parallel.rollout_mesh(config.rollout.mesh, mesh)
    settings.check_batches(config, parallel.data_shards(mesh), parallel.data_shards(sampling_mesh))

    # Data.
    tokenizer = load_tokenizer(hf_files(model_folder))
    train_data = loading.train_loader(config, model_folder, tokenizer)
    eval_data = loading.eval_loader(config, model_folder, tokenizer) if config.data.eval else None

    # Model: parameters land on the mesh as `parallel.RULES` say.
    graphdef, params = loading.load_params(config, model_folder, init_folder, mesh)
    updates_per_step = config.batch.prompts // config.batch.update_prompts
    schedule = learning_rates(config.optimizer, config.num_steps * updates_per_step)
    sampling_programs = rollout_programs(graphdef, params, sampling_mesh)
    sampler = Sampler(sampling_programs, tokenizer, settings.reward_config(config), stop.check)
    learner = Learner(
        graphdef=graphdef,
        optimizer=make_optimizer(config.optimizer),
        grpo=settings.grpo_config(config),
        sft=sft_config(config, tokenizer),
        temperature=config.rollout.temperature,
        allowed=sampler.sampling(1.0).allowed(loading.vocab_rows(model_folder)),
        chunk=config.model.head_chunk,
        cut=Cut.from_config(config),
        frozen=freeze.frozen_parts(config),
    )
    logger.info("%s", freeze.describe(params, learner.frozen))
    programs = train_programs(learner, params, mesh)

    # Resume. The reference is the model the run started from, never a later one: its fingerprint is kept.
    reference = programs.reference(params) if config.algorithm == "grpo" and config.grpo.kl_coef else None
    progress = Progress(reference=fingerprint(params))
    checkpoints = Checkpoints(workdir, config.checkpoint.keep)
    restored = checkpoints.restore_newest(parallel.abstract(jax.eval_shape(learner.init, params), mesh))
    state = programs.init(params) if restored is None else restored[0]
    del params  # their memory is the state's now
    if restored is not None:
        progress = _resume(progress, restored[1], workdir, init_folder)
        logger.info("resumed at step %d of %d", progress.step, config.num_steps)
        for change in changes:
            logger.info("with another setting: %s", change)
    if jax.process_index() == 0:
        copy_model_files(hf_files(model_folder), workdir / "model")
        write_json(workdir / "config.json", json.loads(config.to_json()))
    log = RunLog(workdir, config.log, first_step=progress.step, evaluated=progress.evaluated)
    log.padding({"training": train_data, "held-out": eval_data})

    # Compiled steps.
    rates = lambda update: float(schedule(update))  # noqa: E731
    if config.algorithm == "grpo":
        collector = Collector(config, sampler, train_data, learner.grpo)
        train_step = grpo_step(config, programs, collector, reference, mesh, rates)
    else:
        train_step = sft_step(config, programs, train_data, mesh, rates)

    def is_due(every: int) -> bool:
        return progress.step % every == 0 or progress.step == config.num_steps

    def evaluate_if_due() -> None:
        if eval_data is None or progress.evaluated == progress.step or not is_due(config.eval.every):
            return
        start = time.perf_counter()
        result = run_evaluation(config, sampler, state.params, eval_data)
        log.evaluation(progress.step, result, seconds=time.perf_counter() - start)
        progress.note_evaluation(result.metrics.get("reward_sampled", result.metrics["f1"]))

    def save() -> None:
        log.sync()  # no checkpoint is newer than its lines
        checkpoints.save(progress.step, state, dataclasses.asdict(progress), progress.best_step)

    # Loop. A stop is raised where `state` is that of `progress.step`: before a step, or while it samples.
    try:
        evaluate_if_due()
        while progress.step < config.num_steps:
            stop.check()
            start = time.perf_counter()
            state, metrics, skipped = train_step(state, progress.step)
            metrics["time/step"] = time.perf_counter() - start
            progress.step += 1
            log.step(progress.step, config.num_steps, metrics)
            for update in skipped:
                log.skipped_update(progress.step, update.number, update.ids, update.figures)
            _check_skipped(int(state.skipped), config, progress.step, workdir)
            evaluate_if_due()
            if is_due(config.checkpoint.every) or progress.best_step == progress.step:
                save()
    except Stopped:
        if progress.step not in (0, *checkpoints.steps):
            save()
        logger.info("stopped after step %d of %d: the same command goes on", progress.step, config.num_steps)
        raise
    finally:
        checkpoints.close()  # completes the write under way
    log.close()


@dataclasses.dataclass
class Progress:
    """Where a run is: what its checkpoints hold beside the arrays.

    Attributes:
        reference: fingerprint of the model the run started from.
        step: training steps done.
        evaluated: the step of the last evaluation; -1 before the first.
        best_score: of all evaluations; None before the first.
        best_step: the step it was reached at.
    """

    reference: str
    step: int = 0
    evaluated: int = -1
    best_score: float | None = None
    best_step: int | None = None

    def note_evaluation(self, score: float) -> None:
        """An evaluation of the current step gave this score."""
        self.evaluated = self.step
        if self.best_score is None or score > self.best_score:
            self.best_score, self.best_step = score, self.step


def _resume(start: Progress, saved: dict[str, Any], workdir: epath.Path, init_folder: epath.Path) -> Progress:
    """Where a restored run is.

    Raises:
        ValueError: it started from another model than this one does.
    """
    progress = Progress(**saved)
    if progress.reference != start.reference:
        raise ValueError(
            f"{workdir} was started from another model (fingerprint {progress.reference}) than"
            f" {init_folder} holds now ({start.reference}): restore that model, or use a new workdir"
        )
    return progress


def _check_skipped(in_a_row: int, config: ConfigDict, step: int, workdir: epath.Path) -> None:
    if in_a_row > config.optimizer.max_skipped_updates:
        raise FloatingPointError(
            f"{in_a_row} updates in a row had a non-finite loss or gradient, up to step {step}; the newest"
            f" checkpoint in {workdir} is from before, and skipped.jsonl there names the pairs. Lower"
            " config.optimizer.learning_rate, or look at the samples"
        )


def run_evaluation(config: ConfigDict, sampler: Sampler, params: nnx.State, loader: PairLoader) -> Evaluation:
    """Evaluates on the held-out pairs that `config.eval` names."""
    return evaluate(
        sampler,
        params,
        loader,
        num_pairs=min(config.eval.num_pairs or loader.num_pairs, loader.num_pairs),
        group_size=config.eval.group_size,
        max_new_tokens=config.rollout.max_new_tokens,
        slots=config.rollout.slots,
        rows=config.rollout.rows,
        seed=config.seed,
    )
