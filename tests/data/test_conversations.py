"""A conversation of several rounds is one sequence, and all of its answers are learnt."""

import numpy as np
import pytest

from dig_jax.data.buckets import Bucket
from dig_jax.data.encode import Batch, ExampleEncoder
from dig_jax.data.example import Demonstration, Example, Turn
from dig_jax.data.images import ImageConfig
from dig_jax.data.prompts import answer_spans, conversation_ids
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.models.families import load_config

ROUNDS = (
    Turn("user", (0, "How many?")),
    Turn("assistant", ("[[0,0,500,500]]",)),
    Turn("user", ("And here?", 1)),
    Turn("assistant", ("[]",)),
    Turn("user", ("Which?",)),
)
ANSWER = Demonstration("[[1,2,3,4]]", earlier=(1, 3))


@pytest.fixture(scope="module")
def encoder(scratch_folder, tokenizer):
    def make(answer: int = 40, earlier: int = 40, cut: bool = False) -> ExampleEncoder:
        return ExampleEncoder(
            tokenizer,
            ImageConfig.from_folder(scratch_folder),
            load_config(scratch_folder),
            max_answer_length=answer,
            max_earlier_length=earlier,
            cut_answers=cut,
        )

    return make


def encoded(encoder: ExampleEncoder, *answers: Demonstration) -> Batch:
    """The conversation once for every answer."""
    images = tuple(np.zeros((64, 64, 3), np.uint8) for _ in range(2))
    example = Example("talk", ROUNDS, images, None, "conversation")
    return encoder([example] * len(answers), Bucket(256, 512), answers)


def learnt_before(batch: Batch, row: int = 0) -> list[int]:
    """Tokens of earlier answers that the loss covers."""
    slots = batch.earlier[row][batch.earlier_mask[row] > 0]
    return batch.prompts.tokens[row][slots].tolist()


def test_answers_are_found_in_a_conversation_with_their_ends(tokenizer):
    placeholders, grids = {tokenizer.image_token_id: 2}, [(4, 4), (2, 6)]
    ids = conversation_ids(tokenizer, ROUNDS, grids, placeholders)
    texts = [tokenizer.encode("[[0,0,500,500]]<|im_end|>"), tokenizer.encode("[]<|im_end|>")]
    spans = answer_spans(tokenizer, ROUNDS, (1, 3), grids, placeholders)
    assert [ids[first:end].tolist() for first, end in spans] == texts
    with pytest.raises(ValueError, match="turn 2 of a conversation is the user's"):
        answer_spans(tokenizer, ROUNDS, (2,), grids, placeholders)


def test_all_answers_of_a_conversation_are_learnt_and_nothing_else(encoder, tokenizer):
    batch = encoded(encoder(), ANSWER, Demonstration("[]"))
    assert learnt_before(batch) == tokenizer.encode("[[0,0,500,500]]<|im_end|>[]<|im_end|>")
    assert learnt_before(batch, 1) == []
    learnt = batch.answers[0][batch.answer_mask[0] > 0]
    assert learnt.tolist() == tokenizer.encode("[[1,2,3,4]]<|im_end|>")
    assert batch.earlier.min() == 0 and batch.earlier[batch.earlier_mask > 0].min() > 0


def test_without_room_for_earlier_answers_the_last_is_learnt_alone(encoder):
    batch = encoded(encoder(earlier=0), ANSWER)
    assert batch.earlier.shape == batch.earlier_mask.shape == (1, 0)
    assert encoded(encoder(answer=0), ANSWER).earlier.shape == (1, 0)  # where no answers are wanted


def test_longer_answers_are_refused_by_name_or_learnt_as_far_as_told(encoder, tokenizer):
    with pytest.raises(
        ValueError, match=r"talk: its earlier answers take 12 tokens, but config.sft.max_earlier_tokens is 5"
    ):
        encoded(encoder(earlier=5), ANSWER)
    with pytest.raises(ValueError, match="talk: the answer takes .* max_answer_length is 5"):
        encoded(encoder(answer=5), ANSWER)
    batch = encoded(encoder(answer=5, earlier=3, cut=True), ANSWER)
    assert batch.answers[0].tolist() == tokenizer.encode("[[1,2,3,4]]<|im_end|>")[:5]
    assert learnt_before(batch) == tokenizer.encode("[[0,0,500,500]]")[:3]


def test_a_template_that_rewrites_earlier_answers_is_refused(tiny_qwen3vl_thinking):
    thinking = load_tokenizer(tiny_qwen3vl_thinking)
    messages = (Turn("user", ("1?",)), Turn("assistant", ("2",)), Turn("user", ("3?",)))
    with pytest.raises(ValueError, match="otherwise than one that is asked for.*max_earlier_tokens=0"):
        answer_spans(thinking, messages, (1,), [], {thinking.image_token_id: 2})
