"""Text that appears token by token: whole characters, and in the end the text of all tokens."""

import pathlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.data.tokenizer import TextStream, Tokenizer, load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_qwen3vl: pathlib.Path) -> Tokenizer:
    return load_tokenizer(tiny_qwen3vl)


def test_a_character_is_shown_when_its_last_byte_is_there(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer)
    ids = tokenizer.encode("a€b")  # the tiny tokenizer has a token per byte of the euro sign
    assert [stream.add([id]) for id in ids] == ["a", "", "", "€", "b"]
    assert stream.end() == ""


def test_bytes_that_never_become_a_character_are_shown_at_the_end(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer)
    ids = tokenizer.encode("a€")[:-1]
    assert stream.add(ids) == "a"
    assert stream.end() == "\N{REPLACEMENT CHARACTER}" == tokenizer.decode(ids)[1:]


@settings(deadline=None)
@given(st.data())
def test_the_pieces_of_a_stream_are_the_text_whatever_the_tokens(tokenizer: Tokenizer, data: Any) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=5)))
    stream = TextStream(tokenizer)
    pieces = [stream.add(ids[i:j]) for i, j in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
    assert "".join(pieces) + stream.end() == tokenizer.decode(ids)
