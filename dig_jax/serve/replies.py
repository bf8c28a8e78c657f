"""Answers as OpenAI's clients read them: whole, or in chunks while they are decoded.

`content` is always a string. The thought of a model that thinks is in `reasoning_content` beside it, and what
follows the first `</think>` is the content, without the line ends around that tag.
"""

import functools
import time
import uuid
from collections.abc import Sequence
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

from dig_jax.data.tokenizer import Tokenizer
from dig_jax.rollout.asking import Reply
from dig_jax.rollout.thought import Thought
from dig_jax.rollout.tickets import Piece, Token
from dig_jax.serve.protocol import Asked

LEAST_LOGPROB = -9999.0  # as OpenAI's; JSON has no infinity


class Wording:
    """Makes the JSON of one request's answer.

    Args:
      asked: the request.
      model: its name, as the client knows it.
      tokenizer: of the model.

    Attributes:
      step: of the run whose weights answer, where that is known.
    """

    def __init__(self, asked: Asked, model: str, tokenizer: Tokenizer):
        self.step: int | None = None
        self._asked = asked
        self._tokenizer = tokenizer
        self._thoughts = [Thought(tokenizer.opens_thinking) for _ in range(asked.count)]
        self._replies: dict[int, Reply] = {}
        self._texts: dict[int, list[tuple[str, str]]] = {choice: [] for choice in range(asked.count)}
        self._tokens: dict[int, list[Token]] = {choice: [] for choice in range(asked.count)}
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    @property
    def complete(self) -> bool:
        """Whether all answers have come."""
        return len(self._replies) == self._asked.count

    def add(self, piece: Piece) -> tuple[str, str]:
        """Takes a piece of an answer: what is new of its thought, and of its content."""
        thought, content = self._thoughts[piece.choice].add(piece.text)
        if piece.reply is not None:
            self._replies[piece.choice] = piece.reply
            rest = self._thoughts[piece.choice].end()
            thought, content = thought + rest[0], content + rest[1]
        if not self._asked.streamed:
            self._texts[piece.choice].append((thought, content))
            self._tokens[piece.choice].extend(piece.tokens)
        return thought, content

    def whole(self) -> dict[str, Any]:
        """The answer to a request that is not streamed."""
        choices = []
        for number, parts in self._texts.items():
            message = {"role": "assistant", "content": "".join(content for _, content in parts)}
            if self._tokenizer.opens_thinking:
                message["reasoning_content"] = "".join(thought for thought, _ in parts)
            choice = {"index": number, "message": message, "logprobs": self._logprobs(self._tokens[number])}
            choices.append(choice | self._end(number))
        extra = {"usage": self.usage(), "seed": self._asked.seed, "notes": self._notes()}
        return self._begin() | {"object": "chat.completion", "choices": choices} | extra

    def first(self) -> list[dict[str, Any]]:
        """The chunks that begin a stream."""
        return [
            self._chunk([{"index": number, "delta": {"role": "assistant", "content": ""}, **_NOT_ENDED}])
            for number in range(self._asked.count)
        ]

    def chunks(self, piece: Piece) -> list[dict[str, Any]]:
        """The chunks that tell a piece of an answer."""
        thought, content = self.add(piece)
        delta = {"content": content} if content else {}
        if thought:
            delta["reasoning_content"] = thought
        chunks = []
        logprobs = self._logprobs(piece.tokens)
        if delta or (logprobs and logprobs["content"]):
            chunks.append({"index": piece.choice, "delta": delta, **_NOT_ENDED, "logprobs": logprobs})
        if piece.reply is not None:
            chunks.append({"index": piece.choice, "delta": {}, "logprobs": None} | self._end(piece.choice))
        return [self._chunk([chunk]) for chunk in chunks]

    def last(self) -> list[dict[str, Any]]:
        """The chunks that end a stream."""
        if not self._asked.usage:
            return []
        extra = {"usage": self.usage(), "seed": self._asked.seed, "notes": self._notes()}
        return [self._chunk([]) | extra]

    def usage(self) -> dict[str, Any]:
        """Tokens read and drawn."""
        read = len(self._asked.request.ids)
        drawn = sum(len(reply.tokens) for reply in self._replies.values())
        thought = sum(self._thought_tokens(reply) for reply in self._replies.values())
        return {
            "prompt_tokens": read,
            "completion_tokens": drawn,
            "total_tokens": read + drawn,
            "completion_tokens_details": {"reasoning_tokens": thought},
        }

    def _thought_tokens(self, reply: Reply) -> int:
        end = self._tokenizer.think_end_id
        if not self._tokenizer.opens_thinking:
            return 0
        return reply.tokens.index(end) + 1 if end in reply.tokens else len(reply.tokens)

    def _begin(self) -> dict[str, Any]:
        """What every object of this answer has."""
        step = None if self.step is None else f"step-{self.step}"
        return self._head | {"system_fingerprint": step}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = self._begin() | {"object": "chat.completion.chunk", "choices": choices}
        return chunk | {"usage": None} if self._asked.usage else chunk

    def _end(self, number: int) -> dict[str, Any]:
        """How an answer ended, and the boxes that are read from it."""
        reply = self._replies[number]
        boxes = {"boxes": reply.boxes.tolist(), "form": reply.form}
        return {"finish_reason": "stop" if reply.finished else "length"} | boxes

    def _notes(self) -> list[str]:
        return [note for image in self._asked.request.shown for note in image.notes]

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        """Log-probs of the tokens but the end token; None where nobody asked."""
        if not self._asked.logprobs:
            return None
        ends = self._asked.request.sampling.eos_ids
        return {
            "content": [
                self._token(token.id, token.logprob)
                | {"top_logprobs": [self._token(*alternative) for alternative in token.top]}
                for token in tokens
                if token.id not in ends
            ],
            "refusal": None,
        }

    def _token(self, id: int, logprob: float) -> dict[str, Any]:
        data = _bytes_of(self._tokenizer.hf, id)
        return {
            "token": data.decode(errors="replace"),
            "logprob": logprob if logprob > LEAST_LOGPROB else LEAST_LOGPROB,
            "bytes": list(data),
        }


_NOT_ENDED: dict[str, Any] = {"logprobs": None, "finish_reason": None}


@functools.cache
def _byte_of() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for."""
    return {character: byte for byte, character in bytes_to_unicode().items()}


def _bytes_of(hf: Any, id: int) -> bytes:
    """The bytes of a token, which need not be whole characters; those of a special one spell its name."""
    name = hf.convert_ids_to_tokens(id) or ""
    if id in hf.added_tokens_decoder or not all(character in _byte_of() for character in name):
        return name.encode()
    return bytes(_byte_of()[character] for character in name)
