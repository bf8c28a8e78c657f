"""The text of an answer, piece by piece while it is decoded."""

from collections.abc import Iterator

from dig_jax.rollout.asking import Desk, Reply, Request, TextUntil
from dig_jax.rollout.engine import Rollout


class Stream:
    """The text of an answer, piece by piece while it is decoded.

    A piece is whole characters, and what was given out never changes. Several processes that share a model
    must all take all pieces.

    Attributes:
      reply: the whole answer, once all pieces were taken; None before.
    """

    def __init__(self, parts: Iterator[Rollout], desk: Desk, request: Request):
        self.reply: Reply | None = None
        self._parts = parts
        self._desk = desk
        self._request = request

    def __iter__(self) -> Iterator[str]:
        until, taken, drawn = TextUntil(self._desk.tokenizer, self._request.settings.stop), 0, None
        for drawn in self._parts:
            count = int(drawn.mask[0, 0].sum())
            if piece := until.add(drawn.tokens[0, 0, taken:count].tolist()):
                yield piece
            taken = count
            if until.stopped:
                break
        if drawn is None:  # all pieces were taken before
            return
        self.reply = self._desk.reply(drawn, (0, 0), self._request)
        if piece := until.end(self.reply.text):
            yield piece
