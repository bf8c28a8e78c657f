"""Programs grow neither with depth, for layers are stacked and run under scan, nor with slots of the pool."""

import pytest

from bench.compile_time import DEPTHS, POOLS, PROGRAMS, Shapes, lower, lower_pool


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_36_layers_is_as_long_as_one_of_4(program):
    few, many = (len(lower(program, Shapes(depth=depth)).as_text()) for depth in DEPTHS)
    assert DEPTHS == (4, 36)
    assert many <= 1.1 * few


def test_a_pool_of_512_slots_is_as_long_a_program_as_one_of_64():
    few, many = (lower_pool(Shapes(depth=3, prompts=rows, group=8)).as_text() for rows in POOLS)
    assert len(many) <= 1.05 * len(few)
    assert many.count("dynamic_update_slice") == few.count("dynamic_update_slice")


@pytest.mark.slow
def test_chunked_logprobs_need_less_memory_than_all_logits_and_remat_less_than_none():
    shapes = Shapes(depth=4, vocab=32768, prompts=1, response_length=128)

    def memory(remat: str, chunk: int) -> int:
        return (
            lower("update", shapes, remat=remat, chunk=chunk).compile().memory_analysis().temp_size_in_bytes
        )

    chunked, whole = memory("none", chunk=16), memory("none", chunk=128)
    logits = shapes.prompts * shapes.group * shapes.response_length * shapes.vocab * 4
    assert whole - chunked > 0.5 * logits
    assert memory("full", chunk=16) < chunked
