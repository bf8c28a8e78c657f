"""Training, top to bottom: settings, model, data, compiled steps, resume, loop.

One loop serves GRPO (rollout -> reward -> advantage -> update) and the supervised warm-up (batch -> update).
All that a step needs besides the state is a function of its number, so a run that was stopped continues where
it was.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from dig_jax import freeze, loading, parallel, settings, sft
from dig_jax.checkpoint import Checkpoints
from dig_jax.data.loader import PairLoader
from dig_jax.data.tokenizer import Tokenizer, load_tokenizer
from dig_jax.evaluate import Evaluation, evaluate
from dig_jax.experience import Collector
from dig_jax.fingerprint import fingerprint
from dig_jax.folder import write_json
from dig_jax.learner import Learner, TrainState, make_optimizer
from dig_jax.model_folder import copy_model_files, find_model, find_workdir, hf_files
from dig_jax.policy import Experience
from dig_jax.programs import TrainPrograms, train_programs
from dig_jax.rollout.programs import rollout_programs
from dig_jax.runlog import RunLog
from dig_jax.sampler import Sampler
from dig_jax.stopping import Stop, Stopped

Metrics = dict[str, float]
Step = Callable[[TrainState, int], tuple[TrainState, Metrics, list["SkippedUpdate"]]]
Batched = TypeVar("Batched")

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
    optimizer, schedule = make_optimizer(config.optimizer, config.num_steps * updates_per_step)
    sampling_programs = rollout_programs(graphdef, params, sampling_mesh)
    sampler = Sampler(sampling_programs, tokenizer, settings.reward_config(config), stop.check)
    learner = Learner(
        graphdef=graphdef,
        optimizer=optimizer,
        grpo=settings.grpo_config(config),
        sft=sft_config(config, tokenizer),
        temperature=config.rollout.temperature,
        allowed=sampler.sampling(1.0).allowed(loading.vocab_rows(model_folder)),
        chunk=config.model.head_chunk,
        micro_prompts=config.batch.micro_prompts,
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
    if config.algorithm == "grpo":
        collector = Collector(config, sampler, train_data, learner.grpo)
        train_step = grpo_step(config, programs, collector, reference, mesh)
    else:
        train_step = sft_step(config, programs, train_data, mesh)

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
            metrics["learning_rate"] = float(schedule(int(state.updates) - 1))
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


def sft_config(config: ConfigDict, tokenizer: Tokenizer) -> sft.SFTConfig:
    """The supervised loss; its auxiliary question is answered with the tokens "1" (yes) and "0" (no)."""
    yes, no = (tokenizer.encode(text)[0] for text in "10")
    return sft.SFTConfig(aux_weight=config.sft.aux_weight, token_yes=yes, token_no=no)


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


def grpo_step(
    config: ConfigDict,
    programs: TrainPrograms,
    collector: Collector,
    reference: nnx.State | None,
    mesh: jax.sharding.Mesh,
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
        for part in slices:
            state, figures = programs.update_grpo(state, part)
            parts.append(jax.device_get(figures))
        end = time.perf_counter()
        seconds = collected.seconds | {"score": scored - start, "update": end - scored}
        sampling_seconds = max(seconds["rollout"], 1e-9)
        metrics = {
            **collected.metrics,
            **{f"grpo/{name}": value for name, value in _mean(parts).items()},
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
    config: ConfigDict, programs: TrainPrograms, loader: PairLoader, mesh: jax.sharding.Mesh
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
        for part in _cut(examples, num_updates):
            state, figures = programs.update_sft(state, parallel.put_batch(part, mesh))
            parts.append(jax.device_get(figures))
        seconds = {"data": loaded - start, "update": time.perf_counter() - loaded}
        metrics = {
            **{f"sft/{name}": value for name, value in _mean(parts).items()},
            **loader.figures(index),
            **{f"time/{name}": value for name, value in seconds.items()},
        }
        return state, metrics, _skipped(parts, np.array(batch.ids))

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
