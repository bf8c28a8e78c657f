"""Answers requests as they come: a thread that keeps the rows of `continuous` full.

    batcher = session.batcher()
    ticket = batcher.submit(session.request(["a.png", "b.png"]), listener=print)
    batcher.close()

A request waits until a row is free, is read once for all its answers, and joins those that are decoded. Its
listener is told of every few tokens in the batcher's thread: what it does must be quick, such as putting the
event into a queue. Who reads that queue slowly, or not at all, holds up nobody.

What an answer is depends on its request, its number and the weights alone: the tokens are those of
`Session.answer_all`. Newer weights (`take`) answer requests that have not begun, once all that have are
complete.
"""

import collections
import dataclasses
import logging
import queue
import threading

import jax
import numpy as np
from flax import nnx

from dig_jax.machines import parallel
from dig_jax.rollout.asking import Desk, Request, TextUntil, row_of
from dig_jax.rollout.continuous import ContinuousPrograms, Drawn, Rows
from dig_jax.rollout.thinking import make_budget
from dig_jax.rollout.tickets import Closed, Failure, Full, Listener, Piece, Stats, Ticket, Token

logger = logging.getLogger("dig_jax")


class _Answer:
    """An answer in a row."""

    def __init__(self, ticket: Ticket, choice: int, desk: Desk):
        self.ticket = ticket
        self.choice = choice
        self.ended = False
        self._desk = desk
        self._until = TextUntil(desk.tokenizer, ticket.request.settings.stop)
        self._ends = ticket.request.sampling.eos_ids
        self._tokens: list[Token] = []

    def add(self, fresh: list[Token]) -> Piece:
        """What is to be told after these tokens."""
        text, request, told = "", self.ticket.request, len(self._tokens)
        finished = False
        for token in fresh:
            self._tokens.append(token)
            text += self._until.add([token.id])
            finished = token.id in self._ends
            self.ended = finished or self._until.stopped or len(self._tokens) >= request.most
            if self.ended:
                break
        reply = None
        if self.ended:
            ids = np.array([token.id for token in self._tokens], np.int32)
            logprobs = np.array([token.logprob for token in self._tokens], np.float32)
            reply = self._desk.reply_of(ids, logprobs, finished, request)
            text += self._until.end(reply.text)
        return Piece(self.choice, text, tuple(self._tokens[told:]), reply)


class Batcher:
    """Keeps the rows full; see the module.

    Args:
      programs: what decodes.
      weights: of the model.
      desk: reads and writes.
      waiting: requests that may be under way beyond one for each row.
      step: of the run whose weights they are; None where that is not known.

    Attributes:
      programs: those; another batcher can take them, and compiles nothing.
      room: what the rows hold.
      step: of the weights that answer now.
    """

    def __init__(
        self,
        programs: ContinuousPrograms,
        weights: nnx.State,
        desk: Desk,
        waiting: int,
        step: int | None = None,
    ):
        self.room = programs.room
        self.programs = programs
        self.step = step
        self._weights = weights
        self._newer: tuple[nnx.State, int | None] | None = None
        self._desk = desk
        self._most_waiting = waiting
        self._changed = threading.Condition()
        self._queue: collections.deque[Ticket] = collections.deque()
        self._answers: list[_Answer | None] = [None] * programs.room.rows
        self._rows: Rows = programs.empty(weights)
        self._closing = False
        self._abandoned = False
        self._counts = dict.fromkeys(("steps", "row_steps", "prompt_tokens", "answer_tokens"), 0)
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def fitted(self, request: Request) -> Request:
        """The request, or where it names no length of the answer, as long a one as there is room for.

        Raises:
          ValueError: its prompt, or the answer or thought it asks for, is longer than a row has room for.
        """
        length, room = len(request.ids), self.room
        if length > room.prompt:
            raise ValueError(
                f"the prompt has {length} tokens; there is room for {room.prompt}: show fewer or smaller"
                " images, or ask for more room (max_prompt_tokens) where the model is started"
            )
        if request.most > room.answer and request.settings.max_new_tokens is None:
            if request.budget is not None:
                make_budget(self._desk.tokenizer, request.settings.thinking_budget, room.answer)
            return dataclasses.replace(request, most=room.answer)
        if request.most > room.answer:
            raise ValueError(
                f"max_new_tokens={request.most}: there is room for {room.answer}; ask for more"
                " (max_answer_tokens) where the model is started"
            )
        return request

    def submit(self, request: Request, listener: Listener, n: int = 1, top: int = 0) -> Ticket:
        """Hands a request in.

        Args:
          request: from `Session.request` or `request_turns`.
          listener: is told of each `Piece`, in order, those of several answers mixed, or of a `Failure`.
          n: answers; they differ in their noise alone.
          top: alternatives to tell of each token, 0 to 20.

        Raises:
          ValueError: it does not fit (see `fitted`).
          Full: too many wait already.
          Closed: after `close`.
        """
        ticket = Ticket(self.fitted(request), n, top, listener, self._forget_over)
        with self._changed:
            if self._closing or not self._thread.is_alive():
                raise Closed("no more requests are taken")
            under_way = {id(ticket) for ticket in (*self._queue, *self._running()) if not ticket.over}
            if len(under_way) >= self.room.rows + self._most_waiting:
                raise Full(f"{len(under_way)} requests are under way already")
            self._queue.append(ticket)
            self._changed.notify()
        return ticket

    def warm_up(self, request: Request) -> None:
        """Answers a short question: what decodes is compiled before anybody waits for it.

        Raises:
          Exception: what came of it instead; the batcher is closed.
        """
        came: queue.SimpleQueue[Piece | Failure] = queue.SimpleQueue()
        self.submit(request, came.put)
        while isinstance(event := came.get(), Piece):
            if event.reply is not None:
                return
        self.close(0)
        raise event.error

    def take(self, weights: nnx.State, step: int | None) -> None:
        """Answers with other weights from now on, from any thread.

        What has begun is completed with the weights that began it; what has not waits until then.

        Args:
          weights: of the same model, as those before.
          step: of the run whose weights they are.
        """
        with self._changed:
            self._newer = (weights, step)
            self._changed.notify()

    def stats(self) -> Stats:
        """What it is doing now."""
        with self._changed:
            waiting = sum(not ticket.begun for ticket in self._queue)
            running = len(self._running())
        alive = self._thread.is_alive()
        return Stats(waiting, running, self.room.rows, **self._counts, alive=alive)

    def close(self, timeout: float | None = None) -> bool:
        """Takes no more requests, and waits until those that were taken are answered.

        Args:
          timeout: seconds to wait, after which what is left fails; None waits for all.

        Returns:
          Whether all were answered.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        if not self._thread.is_alive():
            return True
        with self._changed:
            self._abandoned = True
        self._thread.join()
        return False

    def _running(self) -> list[Ticket]:
        """Of every answer in a row, its ticket."""
        return [answer.ticket for answer in self._answers if answer is not None]

    def _forget_over(self) -> None:
        with self._changed:
            for ticket in [ticket for ticket in self._queue if ticket.over]:
                self._queue.remove(ticket)
            self._changed.notify()

    # In the thread

    def _run(self) -> None:
        try:
            while self._wait() and not self._abandoned:
                try:
                    self._fill()
                    self._advance()
                except Exception as error:  # of a device, out of memory: what is in the rows is lost alone
                    logger.exception("decoding failed: the answers under way are given up")
                    self._give_up(error)
        finally:
            with self._changed:
                self._closing = True
                left = [*self._queue, *self._running()]
            for ticket in left:
                ticket.tell(Failure(Closed("stopped before the answer was complete")))

    def _wait(self) -> bool:
        """Waits for something to do; False when it is time to end."""
        with self._changed:
            self._drop_over()
            self._exchange()
            while not (self._queue or any(self._answers)):
                if self._closing:
                    return False
                self._changed.wait()
                self._exchange()
        return True

    def _exchange(self) -> None:
        """Takes the newer weights, unless an answer of these ones is under way."""
        begun = any(self._answers) or any(ticket.prompt is not None for ticket in self._queue)
        if self._newer is not None and not begun:
            (self._weights, self.step), self._newer = self._newer, None

    def _drop_over(self) -> None:
        self._answers = [None if answer and answer.ticket.over else answer for answer in self._answers]

    def _give_up(self, error: Exception) -> None:
        with self._changed:
            lost = self._running()
            lost += [
                ticket for ticket in self._queue if ticket.prompt is not None
            ]  # more answers were to come
            self._answers = [None] * self.room.rows
        for ticket in lost:
            ticket.tell(Failure(error))
        self._rows = self.programs.empty(self._weights)

    def _fill(self) -> None:
        """Gives the free rows to those who wait, the first first."""
        for row, answer in enumerate(self._answers):
            if answer is not None:
                continue
            ticket = self._next()
            if ticket is None:
                return
            self._place(ticket, row)

    def _next(self) -> Ticket | None:
        """The first ticket of which an answer has no row yet, its prompt read; of those that may begin."""
        while True:
            with self._changed:
                may = [ticket for ticket in self._queue if self._newer is None or ticket.prompt is not None]
                ticket = next((ticket for ticket in may if not ticket.over), None)
            if ticket is None or ticket.prompt is not None:
                return ticket
            try:
                prompts = parallel.put_whole(self._desk.prompts([ticket.request]), self.programs.mesh)
                ticket.step = self.step
                # Waited for: a prompt that is too large for the devices fails here, and alone.
                ticket.prompt = jax.block_until_ready(self.programs.read(self._weights, prompts))
                self._counts["prompt_tokens"] += len(ticket.request.ids)
                return ticket
            except Exception as error:
                logger.exception("reading a prompt failed")
                ticket.tell(Failure(error))

    def _place(self, ticket: Ticket, row: int) -> None:
        """Puts the next answer of a ticket into a row; tells its first token."""
        answer = _Answer(ticket, ticket.begun, self._desk)
        last, prompt = ticket.prompt
        self._rows, drawn = self.programs.place(
            self._weights,
            self._rows,
            np.int32(row),
            last,
            prompt,
            row_of(ticket.request, answer.choice),
            np.bool_(ticket.top > 0),
        )
        with self._changed:
            self._answers[row] = answer
            ticket.begun += 1
            if ticket.begun == ticket.count:
                ticket.prompt = None
                if ticket in self._queue:  # else it was cancelled
                    self._queue.remove(ticket)
        self._tell(row, jax.device_get(drawn), 0)

    def _advance(self) -> None:
        """A few more tokens for all answers in the rows, told to their listeners."""
        self._drop_over()
        goes_on = np.array([answer is not None for answer in self._answers])
        if not goes_on.any():
            return
        wants_top = any(ticket.top for ticket in self._running())
        self._rows, drawn = self.programs.advance(self._weights, self._rows, goes_on, np.bool_(wants_top))
        self._counts["steps"] += 1
        self._counts["row_steps"] += int(goes_on.sum())
        drawn = jax.device_get(drawn)
        for row in np.flatnonzero(goes_on):
            self._tell(int(row), drawn, int(row))

    def _tell(self, row: int, drawn: Drawn, at: int) -> None:
        """Tells the tokens that came in row `row`, which is row `at` of `drawn`, numpy."""
        answer = self._answers[row]
        assert answer is not None
        fresh = _tokens(drawn, at, answer.ticket.top)
        self._counts["answer_tokens"] += len(fresh)
        piece = answer.add(fresh)
        if answer.ended:
            self._answers[row] = None
        answer.ticket.tell(piece)


def _tokens(drawn: Drawn, row: int, top: int) -> list[Token]:
    """The tokens of a row, numpy, with `top` alternatives each."""
    return [
        Token(
            int(drawn.tokens[row, at]),
            float(drawn.logprobs[row, at]),
            tuple(
                zip(
                    drawn.top_tokens[row, at, :top].tolist(),
                    drawn.top_logprobs[row, at, :top].tolist(),
                    strict=True,
                )
            ),
        )
        for at in range(int(drawn.count[row]))
    ]
