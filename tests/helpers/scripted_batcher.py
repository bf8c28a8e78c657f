"""A batcher whose answers were written beforehand: the demo is tested without a model that computes."""

import threading
from collections.abc import Sequence

from dig_jax.rollout.asking import Request
from dig_jax.rollout.batcher import _Answer
from dig_jax.rollout.continuous import Room
from dig_jax.rollout.tickets import Failure, Listener, Ticket, Token
from dig_jax.session import Session

TOKENS = 4  # of a piece


class ScriptedBatcher:
    """Tells the texts it was given, a few tokens at a time, to whoever asks; all at once, in threads.

    Args:
      session: whose requests it answers; its weights are not needed.
      texts: answer k of a request has text k, in turn.
      step: of the weights that it pretends to have.

    Attributes:
      goes_on: while it is not set, an answer stops after its first piece.
      asked: requests so far.
      tickets: of all of them.
      error: is told instead of an answer, where there is one.
    """

    def __init__(self, session: Session, texts: Sequence[str], step: int | None = None):
        self.room = Room(rows=4, prompt=4096, answer=512, every=TOKENS)
        self.step = step
        self.texts = list(texts)
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.asked: list[Request] = []
        self.tickets: list[Ticket] = []
        self.error: Exception | None = None
        self._session = session

    def submit(self, request: Request, listener: Listener, n: int = 1, top: int = 0) -> Ticket:
        """As `Batcher.submit`."""
        del top
        ticket = Ticket(request, n, 0, listener, lambda: None)
        ticket.step = self.step
        self.asked.append(request)
        self.tickets.append(ticket)
        threading.Thread(target=self._tell, args=(ticket,), daemon=True).start()
        return ticket

    def _tell(self, ticket: Ticket) -> None:
        if self.error is not None:
            ticket.tell(Failure(self.error))
            return
        hf = self._session.desk.tokenizer.hf
        for choice in range(ticket.count):
            ids = hf.encode(self.texts[choice % len(self.texts)], add_special_tokens=False)
            ids.append(self._session.desk.tokenizer.eos_ids[0])
            answer = _Answer(ticket, choice, self._session.desk)
            for first in range(0, len(ids), TOKENS):
                tokens = [Token(id, -0.1, ()) for id in ids[first : first + TOKENS]]
                ticket.tell(answer.add(tokens))
                if answer.ended:
                    break
                while not self.goes_on.wait(0.01) and not ticket.over:
                    pass
