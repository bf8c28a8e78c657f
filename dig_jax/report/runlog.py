"""What a run says: lines on the terminal, metrics, sample pictures, and the report at the end."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.monitoring
from etils import epath
from PIL import Image

from dig_jax import report
from dig_jax.data.loader import ExampleLoader
from dig_jax.evaluate import Answer, Evaluation
from dig_jax.report import slices
from dig_jax.rollout.thinking import truncation_warning
from dig_jax.run.outputs import LogConfig
from dig_jax.tasks.task import Task
from dig_jax.update.group import Group

Metrics = Mapping[str, float]

logger = logging.getLogger("dig_jax")

LONG_COMPILE_S = 1.0  # compiling for longer is worth a line: a bucket that was not met before

# Shown on the terminal, in this order and behind the reward and the task's, where a step has them.
HEADLINES = (
    ("kl", "grpo/kl"),
    ("entropy", "grpo/entropy"),
    ("loss", "sft/loss"),
    ("aux", "sft/aux_loss"),
    ("grad", "grpo/grad_norm"),
    ("tokens/s", "tokens_per_second/step"),
)


class CompileClock:
    """Seconds that this process has spent compiling, or loading compiled programs from a cache."""

    def __init__(self) -> None:
        self._seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def lap(self) -> float:
        """Seconds since the last look."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def close(self) -> None:
        """Stops listening."""
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self._seconds += duration_secs


class RunLog:
    """Writes the log of a run under its workdir; only the first process writes.

    Args:
        workdir: of the run.
        config: `config.log`.
        shown: which metrics its tasks want to be shown.
        first_step: the step the run (re)starts at; lines of later steps, left by a run that was stopped after
            its last checkpoint, are dropped, because they will be written again.
        evaluated: the last step whose evaluation is kept; -1 for none.
    """

    def __init__(
        self, workdir: epath.Path, config: LogConfig, shown: report.Shown, *, first_step: int, evaluated: int
    ):
        self._every = config.every
        self._samples = config.samples
        self._shown = shown
        self._workdir = workdir
        self._first_step = first_step
        self._started = time.monotonic()
        self._compiling = CompileClock()
        self._warned = False  # that the last step's completions were mostly truncated
        self._writer = None
        if jax.process_index() == 0:
            formerly = report.Shown.read(workdir).renamed(shown)
            shown.write(workdir)
            self._writer = report.MetricsWriter(
                workdir,
                first_step=first_step,
                evaluated=evaluated,
                main=shown.main,
                formerly=formerly,
                tensorboard=config.tensorboard,
                wandb_project=config.wandb_project,
            )

    def padding(self, loaders: dict[str, ExampleLoader | None]) -> None:
        """Says what the batches of each loader are padded to, and what that costs."""
        for name, loader in loaders.items():
            if loader is not None and self._writer is not None:
                for line in loader.describe_padding():
                    logger.info("%s data: %s", name, line)

    def step(self, done: int, total: int, metrics: Metrics) -> None:
        """Logs the metrics of a finished step; `done` counts from 1."""
        metrics = {**metrics, "time/compile": self._compiling.lap()}
        if self._writer is None:
            return
        self._writer.step(done, metrics)
        if metrics["time/compile"] >= LONG_COMPILE_S:
            logger.info(
                "step %d compiled for %.0f s: prompts of %d tokens and %d patches",
                *(done, metrics["time/compile"]),
                *(metrics["bucket/prompt_length"], metrics["bucket/num_patches"]),
            )
        is_shown = done % self._every == 0 or done == total
        warning = truncation_warning(f"step {done}", metrics.get("rollout/truncated", 0.0))
        if warning and (is_shown or not self._warned):
            logger.warning("%s", warning)
        self._warned = bool(warning)
        if not is_shown:
            return
        lines = [*self._headlines(), *HEADLINES]
        shown = [f"{name} {metrics[key]:.3g}" for name, key in lines if key in metrics]
        pace = (time.monotonic() - self._started) / (done - self._first_step)
        logger.info(
            "step %d/%d  %s  %.2f s/step  %s left",
            done,
            total,
            "  ".join(shown),
            pace,
            _clock(pace * (total - done)),
        )

    def _headlines(self) -> list[tuple[str, str]]:
        """The reward, the main terms of the run's tasks, and whether answers have the right form."""
        mains = dict.fromkeys(declared.headline() for declared in self._shown.training.values())
        return [("reward", "reward/reward"), *mains, ("format", "reward/format")]

    def skipped_update(self, step: int, update: int, ids: Sequence[str], metrics: Metrics) -> None:
        """Notes an update whose loss or gradient was not finite, and the examples it was computed on."""
        if self._writer is None:
            return
        self._writer.skipped_update(step, update, ids, metrics)
        logger.warning(
            "step %d: update %d skipped, its loss or gradient is not finite; skipped.jsonl has its examples",
            *(step, update),
        )

    def sync(self) -> None:
        """Returns when everything logged so far is on the disk."""
        if self._writer is not None:
            self._writer.sync()

    def evaluation(self, step: int, result: Evaluation, task: Task, seconds: float) -> None:
        """Logs held-out figures, and pictures of the first answers to examples that this process has.

        Args:
            step: training steps done.
            result: of the evaluation.
            task: of the answers.
            seconds: that it took.
        """
        self._compiling.lap()  # that was for the evaluation, not for the next step
        if self._writer is None:
            return
        self._writer.evaluation(step, result.metrics | {"seconds": seconds})
        shown = [answer for answer in result.answers if answer.example is not None]
        for number, answer in enumerate(shown[: self._samples]):
            self._writer.sample(step, number, answer, *self._drawn(step, answer, task))
        worst = slices.worst(task, result.answers, self._samples)
        self._writer.worst(step, [(answer, *self._drawn(step, answer, task)) for answer in worst])
        if found := slices.slices_of(task, result.answers):
            self._writer.slices(step, found)
        for held_out in self._shown.sets([result.metrics]):
            keys = {name: f"{held_out}/{name}" for name in self._shown.of_set(held_out).held_out}
            figures = [
                f"{name} {result.metrics[key]:.3f}" for name, key in keys.items() if key in result.metrics
            ]
            what = f"held out ({self._shown.label(held_out)})".removesuffix(" ()")
            logger.info("%s at step %d: %s  (%.0f s)", what, step, "  ".join(figures), seconds)
            truncated = result.metrics.get(f"{held_out}/truncated_sampled", 0.0)
            if warning := truncation_warning(f"{what} at step {step}", truncated):
                logger.warning("%s", warning)
        report.write_report(self._workdir)

    def _drawn(self, step: int, answer: Answer, task: Task) -> tuple[Mapping[str, Any], Image.Image]:
        """What is true of an answer's example, and their picture."""
        assert answer.example is not None
        first = dict.fromkeys(["reward", task.main, *(metric.name for metric in task.metrics)])
        terms = [f"{name} {answer.terms[name]:.2f}" for name in first if name in answer.terms]
        caption = (f"step {step}   {answer.id}", "   ".join(terms), answer.text)
        return task.truth(answer.example), task.draw(answer.example, answer.read, caption)

    def group(self, step: int, group: Group, decode: Callable[[list[int]], str]) -> None:
        """Keeps one of the groups that training step number `step` learnt from; `decode` makes texts."""
        if self._writer is not None:
            self._writer.group(step, group, [decode(tokens) for tokens in group.tokens])

    def close(self) -> None:
        """Writes the report and prints the held-out figures before and after."""
        self._compiling.close()
        if self._writer is None:
            return
        self._writer.close()
        report.write_report(self._workdir)
        report.print_before_after(self._workdir)
        print(f"report: {self._workdir / 'report.html'}   samples: {self._workdir / 'samples'}")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
