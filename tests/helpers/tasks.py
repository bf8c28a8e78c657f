"""The task of pairs as tests of loaders and encoders want it: on its own settings, without a model folder."""

import pathlib
from collections.abc import Sequence
from typing import Any

from configs import base
from dig_jax.data.example import Example
from dig_jax.data.loader import ExampleDataset
from dig_jax.data.records import Pair
from dig_jax.tasks.boxes.text import BoxFormat
from dig_jax.tasks.differences.task import Differences
from dig_jax.tasks.task import Answerer


def box_format(convention: str = "thousandths", step: int = 1) -> BoxFormat:
    """Boxes as a model writes them that sees images as they are."""
    return BoxFormat(convention, step, lambda size: size)


def answerer(convention: str = "thousandths", thinking: bool = False) -> Answerer:
    """A model that sees images as they are."""
    return Answerer(thinking, convention, lambda size: size)


def pairs_task(**changes: Any) -> Differences:
    """The task with a short question, four boxes at most, answers in steps of 20; `changes` name settings."""
    config = base.get_config()
    config.data.question = "Find differences."
    config.reward.max_boxes = 4
    config.sft.answer_step = 20
    config.update_from_flattened_dict(changes)
    return Differences(config, answerer())


def pairs_dataset(
    folders: Sequence[pathlib.Path],
    task: Differences | None = None,
    kind: type[ExampleDataset] = ExampleDataset,
    *,
    max_bad_records: int = 0,
    cache_bytes: int = 1 << 20,
) -> ExampleDataset:
    """The training pairs of these folders."""
    opened = [(task or pairs_task()).open(folder, "train") for folder in folders]
    return kind(opened, max_bad_records=max_bad_records, cache_bytes=cache_bytes)


def asked(pair: Pair) -> Example:
    """The short question about a pair."""
    return pairs_task().example(pair)
