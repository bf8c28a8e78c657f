"""What a batcher answers on four devices, and in bfloat16; run as a process of its own.

    python tests/helpers/batcher_answers.py MODEL

It prints "same" where four devices draw the tokens of one, and every answer in bfloat16 has the tokens and
log-probs that it has without others beside it.
"""

import queue
import sys
from typing import Any

import numpy as np

import dig_jax
from dig_jax.rollout.tickets import Failure
from dig_jax.session import Session


def answers(session: Session, together: bool) -> dict[tuple[int, int], tuple[list[int], list[float]]]:
    """Tokens and log-probs of five requests, asked at once or one after another."""
    pixels = np.random.default_rng(0).integers(0, 255, (2, 64, 96, 3), dtype=np.uint8)
    batcher = session.batcher(rows=3, max_prompt_tokens=128, max_answer_tokens=32)
    came: queue.SimpleQueue[Any] = queue.SimpleQueue()
    found: dict[tuple[int, int], tuple[list[int], list[float]]] = {}

    def collect(count: int) -> None:
        while count:
            number, event = came.get()
            assert not isinstance(event, Failure), event.error
            if event.reply is not None:
                found[number, event.choice] = (event.reply.tokens, event.reply.logprobs)
                count -= 1

    for number in range(5):
        request = session.request(
            list(pixels), "What?", temperature=float(number % 2), seed=number, max_new_tokens=20 + number
        )
        batcher.submit(request, lambda event, number=number: came.put((number, event)), n=1 + number % 2)
        if not together:
            collect(1 + number % 2)
    if together:
        collect(7)
    batcher.close()
    return found


def main(model: str) -> None:
    """See the module."""
    one, four = (dig_jax.load_model(model, dtype="float32", devices=count) for count in (1, 4))
    drawn = [answers(session, together=True) for session in (one, four)]
    tokens = [{which: answer[0] for which, answer in of_one.items()} for of_one in drawn]
    half = dig_jax.load_model(model, dtype="bfloat16")
    same = answers(half, together=True) == answers(half, together=False)
    print("same" if tokens[0] == tokens[1] and same else (tokens, same))


if __name__ == "__main__":
    main(sys.argv[1])
