"""Packing prompts: M-RoPE positions, patch coordinates, padding, and errors that name the prompt."""

import numpy as np
import pytest

from dig_jax.models.inputs import make_prompts, patch_coords, rope_positions


def test_positions_count_text_and_spread_over_an_image():
    """Two words, an image of 1 x 2 tokens, one word: the image takes positions 2 and 3 on its longer side."""
    positions, following = rope_positions(np.array([5, 6, 9, 9, 7]), [(2, 4)], {9: 2})
    assert positions.tolist() == [[0, 1, 2, 2, 4], [0, 1, 2, 2, 4], [0, 1, 2, 3, 4]]
    assert following == 5


def test_positions_of_text_alone_count_up():
    positions, following = rope_positions(np.zeros(3, int), [], {9: 2})
    assert positions.tolist() == [[0, 1, 2]] * 3
    assert following == 3


def test_flat_positions_count_image_tokens_like_text_whatever_placeholder_they_stand_at():
    """An image of 2 x 2 tokens of one patch, and one shown as an object, a single token of 2 x 2 patches."""
    ids = np.array([5, 9, 9, 9, 9, 5, 8, 5])
    positions, following = rope_positions(ids, [(2, 2), (2, 2)], {9: 1, 8: 2}, flat=True)
    assert positions.tolist() == [list(range(8))] * 3
    assert following == 8
    with pytest.raises(ValueError, match=r"image 1 has a grid of 2x2 patches and needs exactly 1 image"):
        rope_positions(np.array([5, 9, 9, 9, 9, 5, 8, 8]), [(2, 2), (2, 2)], {9: 1, 8: 2}, flat=True)


def test_positions_equal_those_of_transformers(reference, make):
    examples = [make.example([(4, 6), (2, 8)]), make.example([(6, 2)], text=2, seed=1)]
    prompts = make.pad(*examples)
    for row, example in enumerate(examples):
        inputs = reference.inputs(example)
        inputs.pop("pixel_values")
        theirs, delta = reference.model.model.get_rope_index(**inputs)
        length = len(example.ids)
        np.testing.assert_array_equal(prompts.positions[row, :, :length], theirs[:, 0])
        assert prompts.next_position[row] == length + delta.item()


def test_patches_come_in_merge_blocks():
    """A 2 x 4 image: the four patches of the left token, then those of the right one."""
    left, right = [[0, 0], [0, 1], [1, 0], [1, 1]], [[0, 2], [0, 3], [1, 2], [1, 3]]
    assert patch_coords((2, 4), 2).tolist() == left + right


def test_images_lie_one_after_another_and_the_rest_is_zero(make):
    prompts = make.pad(make.example([(2, 2), (2, 4)]), make.example([]))
    assert prompts.patch_image[0].tolist() == [1] * 4 + [2] * 8 + [0] * 84
    assert prompts.patch_grid[0, [0, 4, 12]].tolist() == [[2, 2], [2, 4], [0, 0]]
    assert not prompts.patches[0, 12:].any() and not prompts.patches[1].any()
    length = prompts.length[0]
    assert not prompts.tokens[0, length:].any() and not prompts.positions[0, :, length:].any()


def test_a_prompt_that_is_too_long_is_an_error(make):
    with pytest.raises(ValueError, match="prompt 1 has 60 tokens; expected 1 to prompt_length=48"):
        make.pad(make.example([]), make.example([], text=60))


def test_patches_that_do_not_fit_are_an_error(make):
    with pytest.raises(ValueError, match="prompt 0: 112 patches do not fit num_patches=96"):
        make.pad(make.example([(8, 8), (6, 8)]), prompt_length=64)


def test_too_few_image_tokens_are_an_error(make):
    example = make.example([(4, 4)])
    example.ids[6] = 1  # the first placeholder
    with pytest.raises(ValueError, match="prompt 0: image 0 has a grid of 4x4 patches and needs exactly 4"):
        make.pad(example)


def test_a_placeholder_without_an_image_is_an_error(make):
    example = make.example([(2, 2)])
    example.images.clear()
    with pytest.raises(ValueError, match="prompt 0: image tokens at 6 but only 0 images"):
        make.pad(example)


def test_an_image_without_a_placeholder_is_an_error(make):
    example = make.example([(2, 2)])
    example.images.append(example.images[0])
    with pytest.raises(ValueError, match="prompt 0: 2 images but placeholders for 1"):
        make.pad(example)


def test_patches_of_the_wrong_shape_are_an_error(make):
    example = make.example([(2, 4)])
    example.images[0] = (example.images[0][0][:4], (2, 4))
    with pytest.raises(
        ValueError, match=r"prompt 0: image 0 has patches of shape \(4, 1536\); expected \(8, 1536\)"
    ):
        make.pad(example)


def test_a_grid_that_does_not_divide_into_tokens_is_an_error(make):
    example = make.example([(2, 2)])
    example.images[0] = (np.zeros((6, 1536), np.float32), (2, 3))
    with pytest.raises(
        ValueError, match=r"prompt 0: image 0 has grid \(2, 3\); expected positive multiples of 2"
    ):
        make.pad(example)


def test_a_number_of_patches_that_does_not_divide_into_tokens_is_an_error(make):
    with pytest.raises(ValueError, match="num_patches is 10, expected a multiple of 4"):
        make_prompts([np.arange(3)], [[]], make.config, prompt_length=8, num_patches=10)


def test_every_prompt_needs_its_list_of_images(make):
    with pytest.raises(ValueError, match="2 prompts but 1 lists of images"):
        make_prompts([np.arange(3)] * 2, [[]], make.config, prompt_length=8, num_patches=0)


def test_video_tokens_are_an_error(make):
    example = make.example([])
    example.ids[2] = make.config.video_token_id
    with pytest.raises(ValueError, match="prompt 0 has video tokens; only images are supported"):
        make.pad(example)
