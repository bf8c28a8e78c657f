"""Every release is read as its makers publish it: the golden ones, which are made data in those layouts."""

import collections
import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
from etils import epath

from dig_jax.benchmarks import registry
from dig_jax.benchmarks.opening import open_rows
from dig_jax.benchmarks.releases import cv_bench, cyws, hallusion, mig, mme, mmvp, pope, ref_coco, vsr, vstar
from dig_jax.benchmarks.row import Mark, Reader


def lines(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def answers(rows) -> list[str]:
    return [row.answer for row in rows]


@pytest.mark.parametrize("root", ["", "POPE"])
def test_pope_has_a_file_for_each_split_found_from_either_folder(release, expected, root):
    for split in pope.SPLITS:
        rows = {row.index: row for row in pope.rows(epath.Path(release / root), split)}
        assert len(rows) == 24
        counts = collections.Counter()
        for line in lines(release / "POPE" / "predictions.jsonl"):
            if line["kind"] == split:
                right = rows[f"{split}-{line['question_id']}"].answer
                counts[pope.official_answer(line["answer"]), right] += 1
        scores = expected["POPE"]["scores"][split]
        assert counts["Yes", "Yes"] == scores["TP"] and counts["Yes", "No"] == scores["FP"]
        assert counts["No", "No"] == scores["TN"] and counts["No", "Yes"] == scores["FN"]


def test_mme_has_both_kinds_of_folders_and_two_questions_a_picture(release, expected):
    rows = {row.index: row for row in mme.rows(epath.Path(release), "test")}
    assert len(rows) == 84 and {row.category for row in rows.values()} == set(mme.SUBTASKS)
    assert rows["posters/0001-1"].images[0].path.parent.name == "images"
    assert rows["OCR/0001-1"].images[0].path.parent.name == "OCR"
    given = lines(release / "MME" / "predictions.jsonl")
    hits = collections.defaultdict(list)
    for number, line in enumerate(given):
        stem = pathlib.Path(line["image"]).stem
        row = rows[f"{line['subtask']}/{stem}-{1 + number % 2}"]
        assert (row.question, row.answer) == (line["question"], line["label"])
        hits[line["subtask"], stem].append(
            mme.official_answer(" ".join(line["answer"].split())) == row.answer
        )
    for subtask in mme.SUBTASKS:
        own = [found for (name, _), found in hits.items() if name == subtask]
        score = 100 * np.mean(own) + 100 * np.mean([all(found) for found in own])
        assert score == pytest.approx(expected["MME"]["scores"][subtask], abs=1e-6)


def test_hallusion_bench_asks_the_questions_without_a_picture_too(release):
    rows = hallusion.rows(epath.Path(release), "all")
    assert len(rows) == 56 and sum(not row.images for row in rows) == 12
    assert {row.category for row in rows if not row.images} == {"VS"}
    assert all(row.images[0].path.exists() for row in rows if row.images)
    first = rows[0]
    assert (first.index, first.answer, first.fields["l2-category"]) == (
        "VD_illusion_1_0_0_0",
        "No",
        "VD_illusion",
    )


def test_the_official_figures_of_hallusion_bench_count_what_is_asked_without_a_picture(release, expected):
    rows = hallusion.rows(epath.Path(release), "all")
    said = {line["key"]: line["ours"] for line in lines(release / "HallusionBench" / "predictions.jsonl")}
    keys = [row.index.split("_") for row in rows]  # with the kind of picture, which the predictions leave out
    texts = [said["_".join([*key[:2], *key[3:]])] for key in keys]
    marks = [
        Mark(row.index, text, float(text == row.answer), "") for row, text in zip(rows, texts, strict=True)
    ]
    truth = expected["HallusionBench"]["scores"]["ours_answers"]
    rows = [dataclasses.replace(row, fields={}) for row in rows]  # as those of a table
    assert hallusion.official_scores(rows, marks) == {
        "official/aAcc": pytest.approx(truth["aAcc"]["value"], abs=1e-6),
        "official/qAcc": pytest.approx(truth["qAcc"]["value"], abs=1e-6),
        "official/fAcc": pytest.approx(truth["fAcc"]["value"], abs=1e-6),
        "official/easy": pytest.approx(truth["easy_aAcc"]["value"], abs=1e-6),
        "official/hard": pytest.approx(truth["hard_aAcc"]["value"], abs=1e-6),
    }


def test_vsr_statements_become_questions(release, expected):
    rows = vsr.rows(epath.Path(release), "zeroshot")
    assert answers(rows) == [{0: "No", 1: "Yes"}[label] for label in expected["loaders"]["VSR"]["labels"]]
    assert "The cup is under the cushion." in rows[0].question and rows[0].question.startswith("Is ")


def test_vstar_takes_the_order_of_its_list_or_shuffles_but_never_shows_the_right_option_first(
    release, expected, tmp_path
):
    truth = expected["loaders"]["vstar_bench"]
    rows = vstar.rows(epath.Path(release), "test")
    assert answers(rows) == truth["labels"]
    assert collections.Counter(row.category for row in rows) == truth["per_category"]

    shutil.copytree(release / "vstar_bench", tmp_path / "vstar_bench")
    (tmp_path / "vstar_bench" / "test_questions.jsonl").unlink()
    shuffled = vstar.rows(epath.Path(tmp_path), "test")
    assert answers(shuffled) == answers(vstar.rows(epath.Path(tmp_path), "test")) != ["A"] * 5
    by_picture = {row.images[0].path.name: row for row in rows}
    for row in shuffled:
        listed = by_picture[row.images[0].path.name]
        assert row.options[row.answer] == listed.options[listed.answer]
        assert sorted(row.options.values()) == sorted(listed.options.values())
    # A file more changes the order of no other.
    extra = tmp_path / "vstar_bench" / "direct_attributes" / "aa.json"
    extra.write_text(json.dumps({"question": "Which?", "options": ["right", "wrong"]}))
    more = {row.index: row for row in vstar.rows(epath.Path(tmp_path), "test")}
    assert [more[row.index] for row in shuffled] == shuffled and len(more) == 6


@pytest.mark.parametrize("half", cv_bench.SPLITS)
def test_cv_bench_has_halves_with_sources(release, expected, half):
    rows = cv_bench.rows(epath.Path(release), half)
    truth = expected["loaders"][f"CV-Bench-{half}"]
    assert [f"({row.answer})" for row in rows] == truth["answers"]
    assert [row.fields["source"] for row in rows] == truth["sources"]
    assert all(row.images[0].path.exists() for row in rows)


def test_mmvp_labels_are_repaired_on_demand_and_what_changed_is_said(release, expected):
    rows = mmvp.rows(epath.Path(release), "test")
    truth = expected["loaders"]["MMVP"]
    assert "".join(answers(rows)).lower() == truth["published"]
    repaired, said = mmvp.repaired(rows)
    assert "".join(answers(repaired)).lower() == truth["repaired"]
    assert [int(line.split()[1].rstrip(":")) for line in said] == truth["repaired_rows"]
    assert mmvp.repaired(repaired) == (repaired, [])  # what is right already stays
    opened = [open_rows(registry.benchmark("mmvp"), release, repair=repair) for repair in (False, True)]
    assert [len(one.repaired) for one in opened] == [0, 4]
    assert [list(one.rows) for one in opened] == [list(rows), repaired]


def test_rec_lines_are_found_with_their_pictures_and_boxes(release):
    rows = ref_coco.rows(epath.Path(release), "RefCOCO val")
    assert len(rows) == 5 and all(row.images[0].path.exists() for row in rows)
    assert (rows[0].question, rows[0].size) == ("the cup", (480, 640))
    pixels = np.multiply(rows[0].boxes[0], [640, 480] * 2)
    np.testing.assert_allclose(pixels, [10.5, 20.25, 110.5, 220.75])
    with pytest.raises(FileNotFoundError, match="no phrases of RefCOCO testA: looked for REC/data/refcoco"):
        ref_coco.rows(epath.Path(release), "RefCOCO testA")
    with pytest.raises(ValueError, match="no split 'RefCOCO test'; it has RefCOCO val"):
        ref_coco.rows(epath.Path(release), "RefCOCO test")


def test_mig_bench_items_of_a_task_keep_their_numbers(release):
    rows = mig.rows(epath.Path(release), "diff")
    assert len(rows) == 60 and [row.index for row in rows] == [str(number) for number in range(60)]
    assert all(picture.path.exists() for row in rows[:6] for picture in row.images)
    assert rows[0].size == (12, 12)
    assert rows[0].boxes == ((0.166, 0.084, 0.386, 0.334),)
    assert not mig.rows(epath.Path(release), "view_diff")


def test_virat_boxes_are_read_from_json_and_those_outside_their_pictures_are_counted(
    release, expected, tmp_path
):
    truth = expected["loaders"]["VIRAT-STD"]
    rows = cyws.virat_rows(epath.Path(release), "test")
    assert len(rows) == truth["pairs"]
    for row in rows:
        height, width = row.size
        pixels = np.multiply(row.boxes, [width, height] * 2)
        np.testing.assert_allclose(pixels, truth["boxes"][row.index.removeprefix("test/")])
    assert "10 boxes lie outside" in cyws.faults(rows)[0]  # the golden pictures are of 12x12 pixels
    (tmp_path / "std").mkdir()
    with pytest.raises(FileNotFoundError, match="which run code when they are read"):
        cyws.virat_rows(epath.Path(tmp_path), "test")


@pytest.mark.parametrize(
    ("name", "folder", "splits"),
    [("pope", "POPE", ()), ("mme", "MME", ()), ("hallusionbench", "HallusionBench", ("image", "text"))],
)
def test_answers_to_the_golden_releases_are_read_as_a_careful_reader_does(release, name, folder, splits):
    benchmark = registry.benchmark(name)
    rows = {row.index: row for row in open_rows(benchmark, release, splits).rows}
    given = lines(release / folder / "predictions.jsonl")
    assert len(given) == len(rows)
    for number, line in enumerate(given):
        if name == "pope":
            row = rows[f"{line['kind']}-{line['question_id']}"]
        elif name == "mme":
            row = rows[f"{line['subtask']}/{pathlib.Path(line['image']).stem}-{1 + number % 2}"]
        else:
            category, sub, *parts = line["key"].split("_")
            (row,) = (
                row
                for index, row in rows.items()
                if index.split("_")[:2] == [category, sub] and index.split("_")[3:] == parts
            )
        mark = benchmark.mark(row, line["answer"], Reader())
        assert mark.answer.lower() == line["ours"].lower(), line
