"""What a run says: lines on the terminal, metrics, sample pictures, and the report at the end."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.monitoring
from etils import epath

from dig_jax import report
from dig_jax.data.loader import PairLoader
from dig_jax.evaluate import Evaluation, truncation_warning
from dig_jax.run.outputs import LogConfig

Metrics = Mapping[str, float]

logger = logging.getLogger("dig_jax")

LONG_COMPILE_S = 1.0  # compiling for longer is worth a line: a bucket that was not met before

# Shown on the terminal, in this order, where a step has them.
HEADLINES = (
    ("reward", "reward/reward"),
    ("f1", "reward/f1"),
    ("format", "reward/format"),
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
        first_step: the step the run (re)starts at; lines of later steps, left by a run that was stopped after
            its last checkpoint, are dropped, because they will be written again.
        evaluated: the last step whose evaluation is kept; -1 for none.
    """

    def __init__(self, workdir: epath.Path, config: LogConfig, first_step: int, evaluated: int):
        self._every = config.every
        self._samples = config.samples
        self._workdir = workdir
        self._first_step = first_step
        self._started = time.monotonic()
        self._compiling = CompileClock()
        self._warned = False  # that the last step's completions were mostly truncated
        self._writer = None
        if jax.process_index() == 0:
            self._writer = report.MetricsWriter(
                workdir,
                first_step=first_step,
                evaluated=evaluated,
                tensorboard=config.tensorboard,
                wandb_project=config.wandb_project,
            )

    def padding(self, loaders: dict[str, PairLoader | None]) -> None:
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
        shown = [f"{name} {metrics[key]:.3g}" for name, key in HEADLINES if key in metrics]
        pace = (time.monotonic() - self._started) / (done - self._first_step)
        logger.info(
            "step %d/%d  %s  %.2f s/step  %s left",
            done,
            total,
            "  ".join(shown),
            pace,
            _clock(pace * (total - done)),
        )

    def skipped_update(self, step: int, update: int, ids: Sequence[str], metrics: Metrics) -> None:
        """Notes an update whose loss or gradient was not finite, and the pairs it was computed on."""
        if self._writer is None:
            return
        self._writer.skipped_update(step, update, ids, metrics)
        logger.warning(
            "step %d: update %d skipped, its loss or gradient is not finite; skipped.jsonl names its pairs",
            *(step, update),
        )

    def sync(self) -> None:
        """Returns when everything logged so far is on the disk."""
        if self._writer is not None:
            self._writer.sync()

    def evaluation(self, step: int, result: Evaluation, seconds: float) -> None:
        """Logs held-out figures, and pictures of the first answers to pairs that this process has."""
        self._compiling.lap()  # that was for the evaluation, not for the next step
        if self._writer is None:
            return
        self._writer.evaluation(step, result.metrics | {"seconds": seconds})
        shown = [answer for answer in result.answers if answer.pair is not None]
        for number, answer in enumerate(shown[: self._samples]):
            self._writer.sample(step, number, answer)
        for held_out in sorted({name.rpartition("/")[0] for name in result.metrics}):  # "": the main set
            keys = {name: f"{held_out}/{name}".removeprefix("/") for name in report.HELD_OUT}
            figures = [
                f"{name} {result.metrics[key]:.3f}" for name, key in keys.items() if key in result.metrics
            ]
            what = f"held out ({held_out})" if held_out else "held out"
            logger.info("%s at step %d: %s  (%.0f s)", what, step, "  ".join(figures), seconds)
            truncated = result.metrics.get(f"{held_out}/truncated_sampled".removeprefix("/"), 0.0)
            if warning := truncation_warning(f"{what} at step {step}", truncated):
                logger.warning("%s", warning)
        report.write_report(self._workdir)

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
