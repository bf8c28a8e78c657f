"""What happens on the page, without its components: a question is asked, a pair is reported."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np

from dig_jax.data.example import Example
from dig_jax.demo import looks
from dig_jax.demo.answers import Progress, Told, answers
from dig_jax.demo.looks import Entry
from dig_jax.demo.pictures import read_two, shown_url
from dig_jax.demo.records import Records
from dig_jax.demo.samples import Samples
from dig_jax.rollout.asking import SettingChanges
from dig_jax.rollout.batcher import Batcher
from dig_jax.rollout.tickets import Closed, Full
from dig_jax.session import Session
from dig_jax.tasks.task import Task

logger = logging.getLogger("dig_jax")


@dataclasses.dataclass(frozen=True)
class House:
    """What all tabs of the page share.

    Attributes:
      session: the model.
      batcher: answers.
      task: scores pairs.
      samples: to choose from.
      records: where reports are saved.
      name: of the model.
      notes: what is to be said when the page is opened.
    """

    session: Session
    batcher: Batcher
    task: Task
    samples: Samples
    records: Records
    name: str
    notes: tuple[str, ...] = ()

    def head(self) -> str:
        """The top of the page: which weights answer."""
        step = self.batcher.step
        which = "" if step is None else f" &middot; checkpoint of step {step}"
        name = looks.html.escape(self.name)
        return f'<div class="dig-head"><h1>Find the differences</h1><p>{name}{which}</p></div>'


@dataclasses.dataclass(frozen=True)
class Chosen:
    """How a question is to be answered, as the inputs of the page say it."""

    greedy: bool
    temperature: float
    top_p: float
    count: float
    seed: float | None
    most: float | None
    budget: float | None
    question: str | None

    def changes(self) -> SettingChanges:
        """The settings of the request."""
        found: SettingChanges = {
            "temperature": 0.0 if self.greedy else self.temperature,
            "top_p": 1.0 if self.greedy else self.top_p,
            "top_k": 0,
            "seed": random.getrandbits(31) if self.seed is None else int(self.seed),
            "max_new_tokens": None if self.most is None else int(self.most),
        }
        if self.budget:
            found["thinking_budget"] = int(self.budget)
        return found

    @property
    def answers(self) -> int:
        """How many are drawn: greedy ones would all be alike."""
        return 1 if self.greedy else int(self.count)

    @property
    def words(self) -> str:
        """For the history."""
        return "greedy" if self.greedy else f"temperature {self.temperature:g}"


async def ask(
    house: House, paths: tuple[str | None, str | None], known: Example | None, chosen: Chosen, number: int
) -> AsyncGenerator[Entry, None]:
    """What is known of the answers to a question about two pictures, whenever more is.

    Args:
      house: of the page.
      paths: files of the pictures.
      known: a sample that was chosen; its truth holds if the pictures are still its own.
      chosen: how to answer.
      number: of the question.

    Raises:
      ValueError: in words for the page.
    """
    pictures = await asyncio.to_thread(read_two, paths)
    same = known is not None and all(map(np.array_equal, known.images, pictures))
    try:
        request = await asyncio.to_thread(
            house.session.request, pictures, (chosen.question or "").strip() or None, **chosen.changes()
        )
    except (ValueError, OverflowError) as error:
        raise ValueError(_capital(str(error))) from error
    blank = Progress(tuple(Told() for _ in range(chosen.answers)), None)
    urls = (shown_url(pictures[0]), shown_url(pictures[1]))
    entry = Entry(number, pictures, urls, known if same else None, blank, chosen.words)
    yield entry
    try:
        told = answers(house.batcher, house.session.desk, request, chosen.answers, house.task, entry.example)
        async with contextlib.aclosing(told):
            async for progress in told:
                yield dataclasses.replace(entry, progress=progress)
    except Full:
        raise ValueError("Too many questions are being answered: try again in a moment.") from None
    except Closed:
        raise ValueError("The demo is stopping.") from None
    except ValueError as error:  # longer than a row
        raise ValueError(_capital(str(error))) from error
    except Exception as error:
        logger.exception("an answer failed")
        raise ValueError("The answer failed: the log of the demo says why.") from error


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def report(house: House, entry: Entry | None, data: dict[str, Any]) -> str:
    """Saves what the viewer sent of an entry as a record; what is to be said of it.

    Args:
      house: of the page.
      entry: whose pictures are shown.
      data: `id` of the entry and `boxes`, from the browser.
    """
    if entry is None or data.get("id") != entry.number:
        return looks.status("There is no pair to save: ask about one first.", "error")
    try:
        boxes = np.asarray(data["boxes"], float).reshape(-1, 4)
        saved = house.records.add(entry.pictures, boxes)
    except (KeyError, TypeError, ValueError, OSError) as error:
        return looks.status(f"Not saved: {error}", "error")
    again = "replaces what was saved of it before" if saved.replaced else "is saved"
    return looks.status(
        f"The pair {again}, with {len(boxes)} box{'es' * (len(boxes) != 1)}. {saved.pairs} in"
        f" {saved.dataset}: train on them with --config.data.train=\"('{saved.dataset}',)\""
    )
