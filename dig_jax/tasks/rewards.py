"""Rewards of several terms: what each weighs, and terms of a user's own function.

Without `config.rewards.weights` a task's own reward is what training raises. With them it is the weighted sum
of the terms they name: "task" is the task's own reward; any term of the task may be named, such as "iou"; all
other names are terms that the function in `config.rewards.file` returns. docs/add_a_reward.md shows one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from dig_jax.data.example import Demonstration, Example, Size, Source
from dig_jax.data.tokenizer import THINK_END
from dig_jax.machines import pyfile
from dig_jax.tasks.registry import task_class
from dig_jax.tasks.task import Answerer, Metric, Scores, Task, Terms

OWN = "task"  # the task's own reward, among the terms
FUNCTION = "reward"  # in the user's file
FLAG = "--reward_file"

Reward = Callable[[list[str], list[Example]], Mapping[str, Sequence[float]]]


@dataclasses.dataclass(frozen=True)
class RewardMix:
    """What a reward is made of.

    Attributes:
      file: Python file with the user's function; "" for none.
      weights: term -> weight; empty for the task's own reward alone.
      normalize_apart: each weighted term is normalised within its group before they are added (GDPO).
    """

    file: str
    weights: Mapping[str, float]
    normalize_apart: bool

    @classmethod
    def from_config(cls, config: ConfigDict) -> RewardMix:
        """The checked settings of a run.

        Raises:
          ValueError: names the setting that is wrong, or contradicts another.
        """
        settings = config.rewards
        mix = cls(settings.file, _weights(settings.weights), settings.normalize_apart)
        if mix.file and not mix.weights:
            raise ValueError(
                f"config.rewards.file={mix.file}, but config.rewards.weights is empty: say what each term"
                ' weighs, such as ("task=1", "brevity=0.2")'
            )
        known = {OWN, *task_class(config.task, config.task_file).terms}
        if not mix.file and (unknown := mix.weights.keys() - known):
            raise ValueError(
                f"config.rewards.weights names {', '.join(sorted(unknown))}; without a {FLAG} there are"
                f" {', '.join(sorted(known))}"
            )
        if mix.file:
            load_reward(mix.file)
            if not mix.weights.keys() - known:
                raise ValueError(
                    f"config.rewards.weights names no term of config.rewards.file={mix.file}: drop the file,"
                    " or give its terms a weight (0 logs them alone)"
                )
        if mix.normalize_apart:
            _check_apart(config, mix)
        return mix


def _check_apart(config: ConfigDict, mix: RewardMix) -> None:
    if sum(weight != 0 for weight in mix.weights.values()) < 2:
        raise ValueError(
            "config.rewards.normalize_apart=True needs two terms or more with weights in"
            f" config.rewards.weights={tuple(f'{name}={weight:g}' for name, weight in mix.weights.items())}"
        )
    if not config.grpo.normalize_std:
        raise ValueError(
            "config.rewards.normalize_apart=True divides each term by its deviation, and"
            " config.grpo.normalize_std=False asks for none: set one of them back"
        )
    if config.grpo.overlong.buffer:
        raise ValueError(
            "config.grpo.overlong is added to a reward, and config.rewards.normalize_apart=True has several:"
            " make the length a term of config.rewards.file instead"
        )


def _weights(texts: Sequence[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for text in texts:
        name, _, number = str(text).partition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name.isidentifier() or name == "reward" or name in weights or not math.isfinite(weight):
            raise ValueError(
                f"config.rewards.weights={tuple(texts)}: expected terms of different names, each with a"
                ' number, such as ("task=1", "brevity=0.2")'
            )
        weights[name] = weight
    if texts and not any(weights.values()):
        raise ValueError(f"config.rewards.weights={tuple(texts)}: all weights are 0, so nothing is learnt")
    return weights


def load_reward(path: str) -> Reward:
    """The function `reward` of a user's file; a file that was loaded is not run again.

    Raises:
      ValueError: it is no Python file, fails, or has no such function; names the file.
    """
    return _loaded(path, pyfile.read(path, FLAG))


@functools.lru_cache(maxsize=8)
def _loaded(path: str, text: str) -> Reward:
    function = getattr(pyfile.run(path, FLAG), FUNCTION, None)
    if not callable(function):
        raise ValueError(f"{FLAG}={path} defines no function {FUNCTION}(texts, examples)")
    return function


def make_task(config: ConfigDict, answerer: Answerer) -> Task:
    """The task that the config names, with the reward that it asks for.

    Raises:
      ValueError: there is no such task, or a setting of it or of its reward is wrong.
    """
    task = task_class(config.task, config.task_file)(config, answerer)
    mix = RewardMix.from_config(config)
    return Rewarded(task, mix) if mix.weights else task


class Rewarded(Task):
    """A task with another reward: the weighted sum of terms, some of them a user's own.

    Attributes:
      task: what is asked, and all else of it.
      mix: what the reward is made of.
    """

    def __init__(self, task: Task, mix: RewardMix):
        super().__init__(task.config, task.answerer)
        self.task, self.mix = task, mix
        self._own = tuple(name for name in mix.weights if name not in (OWN, *task.terms))
        self.name, self.main, self.notes, self.charts = task.name, task.main, task.notes, task.charts
        self.privileges = task.privileges
        self.terms = (OWN, *task.terms, *self._own)
        self.metrics = (
            *task.metrics,
            Metric(OWN, "task's reward"),
            *(Metric(name, name) for name in self._own),
        )

    def score(self, texts: Sequence[str], examples: Sequence[Example]) -> Scores:
        """The task's scores with the user's terms, and the weighted sum as reward.

        Raises:
          ValueError: the user's function returns other terms than the weights name, or no finite number for
            each answer.
        """
        scores = self.task.score(texts, examples)
        terms = {OWN: scores.reward, **scores.terms, **self._terms(texts, examples)}
        total = sum(weight * np.asarray(terms[name], np.float32) for name, weight in self.mix.weights.items())
        return dataclasses.replace(scores, reward=np.asarray(total, np.float32), terms=terms)

    def _terms(self, texts: Sequence[str], examples: Sequence[Example]) -> dict[str, np.ndarray]:
        """The user's terms, float32 [n] each."""
        if not self._own or not texts:  # a process may have no answers of its own
            return {name: np.zeros(len(texts), np.float32) for name in self._own}
        # What follows the thought; "" where that was cut off.
        thinking = self.answerer.thinking
        parts = [text.rpartition(THINK_END) if thinking else ("", THINK_END, text) for text in texts]
        answers = [answer if ended else "" for _, ended, answer in parts]
        returned = load_reward(self.mix.file)(answers, list(examples))
        if not isinstance(returned, Mapping) or returned.keys() != set(self._own):
            names = ", ".join(map(str, returned)) if isinstance(returned, Mapping) else repr(returned)[:200]
            raise ValueError(
                f"{FLAG}={self.mix.file} returns the terms {names}, and config.rewards.weights names"
                f" {', '.join(self._own)}: give all of them a weight, 0 to log them alone"
            )
        return {name: self._checked(name, returned[name], len(texts)) for name in self._own}

    def _checked(self, name: str, values: Sequence[float], count: int) -> np.ndarray:
        try:
            array = np.asarray(values, np.float32)
        except (TypeError, ValueError):
            array = np.zeros(0, np.float32)
        if array.shape != (count,) or not np.isfinite(array).all():
            raise ValueError(
                f"{FLAG}={self.mix.file}: {name} is {str(values)[:200]}; expected {count} finite numbers, one"
                " for each text"
            )
        return array

    def figures(self, terms: Terms) -> dict[str, float]:
        """The task's figures, and the means of the other terms."""
        more = {name: float(np.mean(terms[name])) for name in (OWN, *self._own)}
        return {**self.task.figures(terms), **more}

    def summary(self, scores: Scores) -> dict[str, float]:
        """As of the task, with the other terms."""
        return self.task.summary(scores)

    @property
    def unit(self) -> str:
        """As of the task; so are the members below."""
        return self.task.unit

    def question(self, sizes: Sequence[Size]) -> str:
        """As of the task."""
        return self.task.question(sizes)

    def open(self, folder: epath.PathLike, split: str) -> Source:
        """As of the task."""
        return self.task.open(folder, split)

    def augment(self, example: Example, rng: np.random.Generator) -> Example:
        """As of the task."""
        return self.task.augment(example, rng)

    def demonstrate(self, example: Example, rng: np.random.Generator) -> Demonstration:
        """As of the task."""
        return self.task.demonstrate(example, rng)

    def privileged(self, example: Example, kind: str) -> Example:
        """As of the task."""
        return self.task.privileged(example, kind)

    def truth(self, example: Example) -> dict[str, Any]:
        """As of the task."""
        return self.task.truth(example)

    def found(self, read: Mapping[str, Any], truth: Mapping[str, Any]) -> list[bool]:
        """As of the task."""
        return self.task.found(read, truth)

    def draw(self, example: Example, read: Mapping[str, Any], caption: Sequence[str]) -> Image.Image:
        """As of the task."""
        return self.task.draw(example, read, caption)


def weights_apart(task: Task) -> Mapping[str, float]:
    """The weights of the terms of a task, where these are normalised apart; else none."""
    return task.mix.weights if isinstance(task, Rewarded) and task.mix.normalize_apart else {}


def try_out(task: Task, example: Example) -> None:
    """Scores an empty answer, so that a user's function that does not work is refused before training.

    Raises:
      ValueError: it fails; names its file.
    """
    if not isinstance(task, Rewarded) or not task.mix.file:
        return
    try:
        task.score([""], [example])
    except Exception as error:
        if FLAG in str(error):
            raise
        raise ValueError(
            f"{FLAG}={task.mix.file} fails on an empty answer to {example.id}:"
            f" {type(error).__name__}: {error}"
        ) from error
