"""Scoring what was drawn: beside the drawing, of the answers alone, and with the same result."""

import dataclasses
import pathlib
import threading
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from configs import base
from dig_jax.data.tokenizer import Tokenizer, load_tokenizer
from dig_jax.machines import parallel
from dig_jax.rollout.engine import Rollout
from dig_jax.rollout.sampler import Completions, Sampler
from dig_jax.tasks.differences.task import Differences
from tests.helpers.drawn_pairs import draw_pair
from tests.helpers.tasks import answerer, asked

THOUGHT = "a thought with a box [[1,2,3,4]] in it"
TEXTS = [
    [f"{THOUGHT}</think>[[0,0,500,500]]", f"{THOUGHT}</think>[[0,0,400,500],[500,500,900,900]]"],
    [THOUGHT, f"</think>{THOUGHT}</think>[]"],
    [f"{THOUGHT}</think>no boxes", "</think>[[100,100,900,900]]"],
    ["", f"{THOUGHT}</think>```json\n[[0,0,500,510]]\n```"],
]
BOXES = np.array([[[0, 0, 0.5, 0.5], [0.5, 0.5, 0.9, 0.9]]] * 4, np.float32)
COUNTS = (1, 0, 2, 2)
EXAMPLES = tuple(
    asked(dataclasses.replace(draw_pair(row), boxes=BOXES[row, :count])) for row, count in enumerate(COUNTS)
)
TASK = Differences(base.get_config(), answerer(thinking=True))
BATCH: Any = types.SimpleNamespace(
    prompts=np.zeros((4, 1)),
    rows=np.arange(4),
    ids=list("abcd"),
    examples=EXAMPLES,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_qwen3vl_thinking: pathlib.Path) -> Tokenizer:
    return load_tokenizer(tiny_qwen3vl_thinking)


def drawn(tokenizer: Tokenizer, texts: list[list[str]], length: int = 64) -> Rollout:
    """A rollout that ends in these texts, [B, G]."""
    tokens = np.full((len(texts), len(texts[0]), length), tokenizer.pad_id, np.int32)
    mask = np.zeros(tokens.shape, np.float32)
    for row, column in np.ndindex(tokens.shape[:2]):
        ids = [*tokenizer.encode(texts[row][column]), tokenizer.eos_ids[0]]
        tokens[row, column, : len(ids)], mask[row, column, : len(ids)] = ids, 1
    return Rollout(tokens, mask, mask, mask, mask.any(-1), np.int32(length), np.float32(0))


@pytest.fixture
def complete(tokenizer: Tokenizer) -> Callable[..., tuple]:
    """Completes `TEXTS`, slice by slice; `before_drawing` is called with the number of each."""
    config = base.get_config()
    mesh = parallel.make_mesh(config.mesh, jax.devices()[:1])

    def run(
        slice_prompts: int, before_drawing: Callable[[int], None] = lambda number: None
    ) -> tuple[Sampler, Completions]:
        numbers = iter(range(len(TEXTS)))

        def draw(*_: Any) -> Rollout:
            number = next(numbers)
            before_drawing(number)
            return drawn(tokenizer, TEXTS[number * slice_prompts : (number + 1) * slice_prompts])

        drawer: Any = types.SimpleNamespace(mesh=mesh, moved_bytes=0, draw=draw)
        sampler = Sampler(drawer, tokenizer, TASK)
        limits: Any = None
        return sampler, sampler.complete(None, BATCH, np.zeros((4, 2)), limits, slice_prompts)  # type: ignore[arg-type]

    return run


@pytest.mark.parametrize("slice_prompts", [1, 2, 4])
def test_answers_scored_slice_by_slice_earn_what_whole_texts_scored_at_once_do(
    complete: Callable[..., tuple], slice_prompts: int
) -> None:
    sampler, completions = complete(slice_prompts)
    texts = [text for group in TEXTS for text in group]
    rows = np.repeat(np.arange(4), 2)
    expected = TASK.score(texts, [EXAMPLES[row] for row in rows])
    assert completions.scores.all_terms.keys() == {"reward", *TASK.terms}
    for name, values in completions.scores.all_terms.items():
        np.testing.assert_array_equal(values, expected.all_terms[name], name)
    assert completions.scores.notes == expected.notes
    assert completions.scores.read == expected.read
    assert len(set(completions.scores.reward)) > 4
    assert sampler.first_texts(completions) == texts[::2]  # as they are shown: with their thoughts


def test_a_slice_is_scored_while_the_next_is_drawn(
    complete: Callable[..., tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = [threading.Event() for _ in range(4)]
    score = Sampler._score

    def note(self: Sampler, drawn: Rollout, rows: np.ndarray, first: int, batch: Any) -> Any:
        result = score(self, drawn, rows, first, batch)
        scored[first].set()
        return result

    monkeypatch.setattr(Sampler, "_score", note)

    def before_drawing(number: int) -> None:
        # The devices have slice `number` in hand, and give it back no sooner than the one before is scored.
        assert number == 0 or scored[number - 1].wait(timeout=60)

    _, completions = complete(1, before_drawing)
    assert completions.seconds["reward_work"] > 0
