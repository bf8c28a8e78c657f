"""What a stage trains on: one data set of one task, or a mixture of parts.

`config.mixture` has the parts by name. Each has a weight, and changes some of the settings of the run or
stage (`PART_SETTINGS`), by the same names: its task, its data, its question, its reward. Question, weights of
the reward, augmentation and noise of answers are meant for the examples of one task, so a part of another
task than `config.task` begins without any. Shares are exact (`data.order.Dealt`): of weights 3 and 1, three
of every four examples are of one part and one is of the other, in an order that is drawn for each four.

A stage of a curriculum changes weights and settings of parts, or adds parts, by the same names. A part of
weight 0 is left out, and its data are not read.
"""

from __future__ import annotations

import dataclasses
import math
import re

from ml_collections import ConfigDict

from dig_jax.data import order
from dig_jax.run import keys

# What a part may set beside its weight: what is asked of which examples, and what answers earn.
PART_SETTINGS = (
    *("task", "reward", "referring", "conversation", "rewards"),
    *("sft.count_noise", "sft.count_noise_boxes"),
    *("data.train", "data.train_split", "data.num_differences", "data.question", "data.augment"),
    "data.images",
)


@dataclasses.dataclass(frozen=True)
class Part:
    """What some of the examples are.

    Attributes:
        name: "" where there is no mixture.
        share: of how many examples it has, among as many as all parts have together.
        config: the settings of the run or stage as the part has them.
    """

    name: str
    share: int
    config: ConfigDict


def parts(config: ConfigDict) -> tuple[Part, ...]:
    """The parts that a run or stage trains on, in the order of their names; one where it has no mixture.

    Raises:
        ValueError: names what is wrong with `config.mixture`.
    """
    if not config.mixture:
        return (Part("", 1, config),)
    weights = {name: _weight(name, config.mixture[name]) for name in sorted(config.mixture)}
    names = [name for name, weight in weights.items() if weight > 0]
    if not names:
        raise ValueError(f"config.mixture: the weights of {', '.join(weights)} are all 0: nothing is left")
    try:
        shares = order.whole_shares([weights[name] for name in names])
    except ValueError as error:
        raise ValueError(f"config.mixture ({', '.join(names)}): {error}") from None
    return tuple(
        Part(name, share, _part_config(config, name)) for name, share in zip(names, shares, strict=True)
    )


def of_another_task(config: ConfigDict, task: str) -> ConfigDict:
    """A copy of settings with another task, and with nothing that was meant for theirs."""
    own = config.copy_and_resolve_references()
    own.task, own.data.question = task, ""
    own.rewards.weights, own.rewards.file, own.rewards.normalize_apart = (), "", False
    return without_changes(own)


def without_changes(config: ConfigDict) -> ConfigDict:
    """A copy of settings under which examples and answers are as the data set has them."""
    own = config.copy_and_resolve_references()
    own.data.num_differences, own.sft.count_noise = (), 0.0
    for name in own.data.augment:
        own.data.augment[name] = False
    return own


def describe(config: ConfigDict) -> str:
    """In words for the log: what is trained on."""
    found = parts(config)
    if not config.mixture:
        return ", ".join(config.data.train)
    total = sum(part.share for part in found)
    return "; ".join(
        f"{part.name} ({part.share}/{total}: {part.config.task}, {', '.join(part.config.data.train)})"
        for part in found
    )


def _weight(name: str, changes: ConfigDict) -> float:
    where = f"config.mixture.{name}"
    if not re.fullmatch(r"\w+", name):
        raise ValueError(f"{where}: a name is letters, digits and _")
    if not isinstance(changes, ConfigDict):
        raise ValueError(f'{where}={changes!r}: expected settings, such as {{"weight": 1.0}}')
    weight = changes.get("weight")
    if weight is None:
        raise ValueError(f"{where}.weight is missing: how often examples of the part come, beside the others")
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight < math.inf:
        raise ValueError(f"{where}.weight={weight!r}: expected a number from 0 (left out) on")
    return weight


def _part_config(config: ConfigDict, name: str) -> ConfigDict:
    changes, where = config.mixture[name], f"config.mixture.{name}"
    task = changes.get("task", config.task)
    own = config.copy_and_resolve_references() if task == config.task else of_another_task(config, task)
    own.mixture = ConfigDict()
    own.lock()  # no setting appears by a misspelled name
    for path, value in keys.leaves(changes):
        if path == "weight":
            continue
        if not keys.is_in(path, PART_SETTINGS):
            raise ValueError(
                f"{where}.{path}: a part can not set this; it can set weight, {', '.join(PART_SETTINGS)}"
            )
        keys.change(own, path, value, where)
    return own
