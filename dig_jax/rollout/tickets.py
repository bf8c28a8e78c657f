"""What goes between those who ask and the batcher: a ticket for each request, and events that tell of it."""

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Any

from dig_jax.rollout.asking import Reply, Request

logger = logging.getLogger("dig_jax")


@dataclasses.dataclass(frozen=True, eq=False)
class Token:
    """One token of an answer.

    Attributes:
      id: of the token.
      logprob: under the model itself.
      top: the most probable tokens in its place and their log-probs, the first first; as many as were asked
        for.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """What came of an answer.

    Attributes:
      choice: which answer to the request, from 0.
      text: what is certain beyond the pieces before; what was given out never changes.
      tokens: those beyond the pieces before. Their text may come later.
      reply: the whole answer, with its last piece; None before.
    """

    choice: int
    text: str
    tokens: tuple[Token, ...]
    reply: Reply | None


@dataclasses.dataclass(frozen=True, eq=False)
class Failure:
    """The request can not be answered; nothing follows.

    Attributes:
      error: why.
    """

    error: Exception


Listener = Callable[[Piece | Failure], object]


class Full(Exception):
    """As many requests wait as may."""


class Closed(Exception):
    """The batcher takes no more requests."""


@dataclasses.dataclass(frozen=True)
class Stats:
    """What a batcher is doing, and did since it began.

    Attributes:
      waiting: requests of which no answer has begun.
      running: answers that are being decoded.
      rows: the most there can be.
      steps: calls of the program that decodes.
      row_steps: rows that it decoded, over all of them.
      prompt_tokens: read.
      answer_tokens: drawn.
      alive: whether the thread goes on.
    """

    waiting: int
    running: int
    rows: int
    steps: int
    row_steps: int
    prompt_tokens: int
    answer_tokens: int
    alive: bool


class Ticket:
    """A request that was handed in.

    Attributes:
      request: the request.
      count: answers to it.
      top: alternatives that are told of each token.
      begun: answers that have got a row.
      ended: answers that are complete.
      prompt: its prompt as the programs have read it, until every answer has got a row; None before.
      step: of the run whose weights answer it, once it has begun; None where that is not known.
    """

    def __init__(
        self, request: Request, count: int, top: int, listener: Listener, forget: Callable[[], None]
    ):
        self.request = request
        self.count = count
        self.top = top
        self.begun = 0
        self.ended = 0
        self.prompt: Any = None
        self.step: int | None = None
        self._listener = listener
        self._forget = forget
        self._over = threading.Event()

    def cancel(self) -> None:
        """Ends the answers where they are; the rows are free within a few tokens. From any thread."""
        self._over.set()
        self._forget()

    @property
    def over(self) -> bool:
        """Whether all answers have ended, were cancelled or failed."""
        return self._over.is_set()

    def tell(self, event: Piece | Failure) -> None:
        """Tells the listener, unless it is over, which the last piece and a failure make it."""
        if self._over.is_set():
            return
        if isinstance(event, Failure):
            self._over.set()
        elif event.reply is not None:
            self.ended += 1
            if self.ended == self.count:
                self._over.set()
        try:
            self._listener(event)
        except Exception:
            logger.exception("the listener of a request failed: its answers are cancelled")
            self._over.set()
        if self._over.is_set():
            self._forget()
