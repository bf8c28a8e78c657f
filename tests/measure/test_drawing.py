"""Answers to rows: one program per bucket, and answers that depend on nothing but prompt, seed and index."""

import collections

import numpy as np
import pytest
from etils import epath

from configs import small
from dig_jax.data.buckets import Bucket
from dig_jax.measure import command, model
from dig_jax.measure.drawing import Part, RowSource
from dig_jax.rollout import pool
from dig_jax.run import loading
from tests.helpers import made_benchmark
from tests.helpers.small_model import make_small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> epath.Path:
    folder = tmp_path_factory.mktemp("measured") / "model"
    make_small_model(folder)
    return epath.Path(folder)


def loaded(folder: epath.Path, rows: int, patches: int, seed: int = 0):
    config = small.get_config()
    config.model.dtype = "float32"
    config.rollout.max_new_tokens = 4
    config.data.max_pixels = 160 * 160
    opened = loading.open_model(folder)
    settings = model.sampling_settings(config, opened, {"temperature": 1.0, "seed": seed})
    return model.load(config, opened, model.how_of(settings, opened.tokenizer, rows, patches))


def drawn(loaded, rows, done=()):
    one, weights, _ = loaded
    source = one.source(made_benchmark.BENCHMARK, rows)
    known = np.array([row.index in done for row in rows])
    batches = list(one.desk.answers(weights, source, one.desk.parts(source), known))
    return {answer.index: answer for batch in batches for answer in batch}


@pytest.mark.slow
def test_a_bucket_compiles_once_and_an_answer_depends_on_its_row_alone(
    folder: epath.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces: collections.Counter = collections.Counter()
    fill = pool.fill

    def counted(model, prompts, *args, **options):
        traces[Bucket(prompts.tokens.shape[1], prompts.patches.shape[1])] += 1
        return fill(model, prompts, *args, **options)

    monkeypatch.setattr(pool, "fill", counted)
    rows = made_benchmark.rows_of(14)
    first = loaded(folder, rows=4, patches=10**6)
    answers = drawn(first, rows)
    assert answers.keys() == {row.index for row in rows}
    assert set(traces.values()) == {1} and len(traces) == 2  # two sizes of pictures, batches of 4 and 4
    rest = drawn(first, rows, done=list(answers)[:9])  # as after a kill: what was left of a batch
    assert rest == {index: answers[index] for index in list(answers)[9:]}
    assert set(traces.values()) == {1}
    # Other rows beside them, and others in another order.
    assert drawn(first, rows[::-1][:5]) == {row.index: answers[row.index] for row in rows[::-1][:5]}
    lengths = {answer.tokens for answer in answers.values()}
    assert max(lengths) == 4 and all(a.finished or a.tokens == 4 for a in answers.values())
    other = drawn(loaded(folder, rows=4, patches=10**6, seed=1), rows)
    assert other != answers


def test_buckets_of_large_pictures_take_fewer_rows_at_a_time(folder: epath.Path) -> None:
    one, *_ = loaded(folder, rows=9, patches=100)
    rows = made_benchmark.rows_of(12, sizes=[(64, 64), (160, 160)])
    parts = one.desk.parts(one.source(made_benchmark.BENCHMARK, rows))
    patches = [part.bucket.num_patches for part in parts]
    assert len(parts) == 2 and sum(len(part.rows) for part in parts) == 12
    for part, count in zip(parts, patches, strict=True):
        assert part.size == max(1, 2 ** int(np.log2(max(1, min(9, 100 // count)))))
    assert parts[0].size > parts[1].size == 1
    few = made_benchmark.rows_of(2, sizes=[(64, 64)])  # do not wait for a batch of empty rows
    assert [part.size for part in one.desk.parts(one.source(made_benchmark.BENCHMARK, few))] == [2]


def test_a_picture_that_cannot_be_read_is_refused() -> None:
    rows = made_benchmark.rows_of(4)
    broken = made_benchmark.Drawn("gone", (8, 8), (0, 0, 0))
    object.__setattr__(broken, "size", (0, 0))
    rows[2] = type(rows[2])("row2", (broken,), "?")
    with pytest.raises(ValueError, match="Squares: 1 of 3 pictures cannot be read"):
        RowSource("Squares", rows, lambda row, sizes: made_benchmark.BENCHMARK.ask(row, sizes, None))


def test_what_is_asked_has_a_digest_that_no_order_changes() -> None:
    def digest(rows):
        return RowSource("x", rows, lambda row, sizes: made_benchmark.BENCHMARK.ask(row, sizes, None)).digest

    rows = made_benchmark.rows_of(6)
    assert digest(rows) == digest(rows[::-1]) != digest(rows[:5])
    assert digest(made_benchmark.rows_of(6, sizes=[(64, 66)])) != digest(rows)


def test_published_sampling_holds_where_nothing_else_is_asked_for(folder: epath.Path) -> None:
    config, opened = small.get_config(), loading.open_model(folder)

    def settings(**given):
        return model.sampling_settings(config, opened, given)

    published = settings()
    assert published["temperature"] > 0 and published["source"] == "as published"
    assert settings(temperature=0.3) == published | {"temperature": 0.3, "source": "as published and flags"}
    greedy = settings(greedy=True)
    assert (greedy["temperature"], greedy["top_p"], greedy["top_k"]) == (0, 1, 0)
    assert settings(temperature=0.0) == greedy
    with pytest.raises(ValueError, match="--greedy and --top_k contradict"):
        settings(greedy=True, top_k=3)
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        settings(max_new_tokens=0)


def test_what_is_to_be_done_is_said_with_the_memory_of_a_row(caplog: pytest.LogCaptureFixture) -> None:
    part = Part(Bucket(16384, 65536), np.arange(3), 2)
    with caplog.at_level("INFO", "dig_jax"):
        command.Progress("HR-Bench 8K", 800, 797).begin([part], lambda bucket: 5 * bucket.num_patches * 2**13)
    assert [record.message for record in caplog.records] == [
        "HR-Bench 8K: goes on after 797 of 800 rows",
        "HR-Bench 8K: 3 rows in the bucket of 16384 tokens and 65536 patches, 2 at a time, 2.5 GiB a row at"
        " least",
    ]
