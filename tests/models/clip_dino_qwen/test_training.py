"""A small TinyGroundingGPT goes through whole runs, and answers questions as any family does."""

import numpy as np
import pytest

import dig_jax
from dig_jax.data.images import preprocess
from tests.commands.test_train import lines, run, small_config
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.small_model import make_small_model
from tests.models.clip_dino_qwen.reference import make_reference
from tests.models.conftest import Example
from tests.models.hf.test_checkpoint import tensors

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip_dino_qwen")
    make_small_model(folder / "model", family="clip_dino_qwen")
    pairs = [draw_pair(i, size=(64, 64), num_differences=i % 3, seed=0) for i in range(16)]
    write_pairs(folder / "pairs", {"train": pairs[:12], "test": pairs[12:]})
    return folder


def test_grpo_with_adapters_samples_what_it_trains(inputs, tmp_path):
    """One step: unit boxes, the pool, adapters beside frozen towers, a checkpoint."""
    adapters = {"model.lora.rank": 2, "model.freeze_vision": True, "num_steps": 1}
    workdir = run(small_config(inputs, "grpo", **adapters), tmp_path / "grpo")
    (step,) = lines(workdir, "metrics.jsonl")
    assert step["grpo/sampler_trainer_gap_max"] < 1e-4
    assert step["rollout/response_length_max"] > 0


def test_it_learns_answers_in_shares_of_the_square(inputs, tmp_path):
    workdir = run(small_config(inputs, "sft", **{"num_steps": 12}), tmp_path / "sft")
    first, *_, last = lines(workdir, "metrics.jsonl")
    assert last["sft/answer_loss"] < 0.5 * first["sft/answer_loss"]


def test_a_session_answers_as_transformers_parts_do_and_the_pool_as_it(tiny):
    """Sixteen greedy tokens, words that are never drawn left out."""
    session = dig_jax.load_model(str(tiny), dtype="float32")
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (*size, 3), np.uint8) for size in ((48, 80), (64, 64))]
    alone = session.answer(pictures, "<image> What is <object>?", max_new_tokens=16)
    request = session.request(pictures, "<image> What is <object>?")
    images = [preprocess(picture, session.desk.image_config) for picture in pictures]
    weights = {name: np.asarray(tensor, np.float32) for name, tensor in tensors(tiny).items()}
    reference = make_reference(session.opened.architecture, weights, "float32")
    tokenizer, ids = session.opened.tokenizer, list(request.ids)
    never = [*tokenizer.suppressed, *range(tokenizer.vocab_size, session.opened.architecture.text.vocab_size)]
    for token in alone.tokens:
        (logits,) = reference.logits(Example(np.array(ids), images))
        logits[-1, never] = -np.inf
        assert logits[-1].argmax() == token
        ids.append(token)

    together = session.answer_all(
        [dig_jax.Question(pictures, "<image> What is <object>?"), dig_jax.Question([], "Who?")],
        max_new_tokens=16,
    )
    assert alone.tokens == together[0][0].tokens
    with pytest.raises(ValueError, match="the text marks 1 images and 2 objects, but 2 pictures are given"):
        session.answer(pictures, "<image> Is <object> or <object> in it?")
    assert alone.notes == (
        "image 1 of 2: 80x48 pixels, shown as 32x32 (at most 1024 pixels)",
        "image 2 of 2: 64x64 pixels, shown as 32x32 (at most 1024 pixels)",
    )
