"""Answers while they are decoded, as the page tells them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator

import numpy as np

from dig_jax.data.example import Example, Size
from dig_jax.rollout.asking import Desk, Reply, Request
from dig_jax.rollout.batcher import Batcher
from dig_jax.rollout.thought import Thought
from dig_jax.rollout.tickets import Failure, Piece
from dig_jax.tasks.task import Task


@dataclasses.dataclass
class Told:
    """What is known of an answer so far.

    Attributes:
      thought: its thought; "" of a model that does not think.
      content: what follows.
      boxes: float32 [N, 4], those written so far, in 0..1.
      reply: all of it, when it is complete.
      terms: the reward and its terms, by name, where the truth is known and the answer complete.
    """

    thought: str = ""
    content: str = ""
    boxes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 4), np.float32))
    reply: Reply | None = None
    terms: dict[str, float] | None = None


@dataclasses.dataclass(frozen=True)
class Progress:
    """What is known of all answers to a question.

    Attributes:
      answers: of each, what is known.
      step: of the run whose weights answer; None where that is not known.
    """

    answers: tuple[Told, ...]
    step: int | None

    @property
    def complete(self) -> bool:
        """Whether all have come."""
        return all(told.reply is not None for told in self.answers)


async def answers(
    batcher: Batcher, desk: Desk, request: Request, count: int, task: Task, example: Example | None
) -> AsyncGenerator[Progress, None]:
    """What comes of a request, whenever more has come. Left early, its rows are free within a few tokens.

    Args:
      batcher: answers it, beside others.
      desk: of the model.
      request: about two pictures.
      count: answers to it.
      task: scores them.
      example: the truth, where it is known.

    Raises:
      ValueError, Full, Closed: as `Batcher.submit`.
      Exception: decoding failed.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Piece | Failure] = asyncio.Queue()

    def listen(event: Piece | Failure) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(events.put_nowait, event)

    ticket = batcher.submit(request, listen, n=count)
    told = tuple(Told() for _ in range(count))
    thoughts = [Thought(desk.tokenizer.opens_thinking) for _ in range(count)]
    size = request.shown[0].size
    try:
        while not all(one.reply is not None for one in told):
            came = [await events.get()]
            while not events.empty():  # a page that is slow is told less often
                came.append(events.get_nowait())
            for event in came:
                if isinstance(event, Failure):
                    raise event.error
                _add(told[event.choice], thoughts[event.choice], event, desk, size)
                if event.reply is not None and example is not None:
                    told[event.choice].terms = await asyncio.to_thread(terms, task, event.reply.text, example)
            yield Progress(told, ticket.step)
    finally:
        ticket.cancel()


def _add(told: Told, thoughts: Thought, piece: Piece, desk: Desk, size: Size) -> None:
    thought, content = thoughts.add(piece.text)
    told.thought += thought
    told.content += content
    if piece.reply is None:
        told.boxes = growing_boxes(told.content, desk, size)
        return
    told.thought += thoughts.end()[0]
    told.reply = piece.reply
    told.boxes = piece.reply.boxes


def growing_boxes(content: str, desk: Desk, size: Size) -> np.ndarray:
    """The whole boxes of a list that is not complete, float32 [N, 4]."""
    end = max(content.rfind("]"), content.rfind("}")) + 1
    return desk.boxes.read(f"{content[:end]}]", size, thinking=False, max_boxes=desk.max_boxes).boxes


def terms(task: Task, text: str, example: Example) -> dict[str, float]:
    """The reward of an answer, and its terms."""
    scores = task.score([text], [example])
    return {name: float(values[0]) for name, values in scores.all_terms.items()}
