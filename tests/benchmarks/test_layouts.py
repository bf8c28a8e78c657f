"""Layouts that the golden releases lack, made by hand, and files that are not as they should be."""

import base64
import io
import json
import pathlib
import pickle
import re
import subprocess
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from etils import epath
from PIL import Image

from dig_jax.benchmarks import together
from dig_jax.benchmarks.releases import (
    ai2d,
    cv_bench,
    cyws,
    hallusion,
    hr_bench,
    mme,
    mmstar,
    mmvp,
    own_pairs,
    pope,
    ref_coco,
    science_qa,
    vsr,
    vstar,
)
from dig_jax.benchmarks.row import pixels
from tests.helpers.drawn_pairs import png
from tests.helpers.paths import ASSETS, DOCS
from tests.helpers.ref_coco import write_ref_coco

GREY = png(np.full((48, 64, 3), 128, np.uint8))


def write(path: pathlib.Path, content: bytes | str | list | dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_science_qa_asks_what_has_a_picture_in_the_order_of_its_split(tmp_path):
    problem = {
        "question": "Which?",
        "choices": ["x", "y", "z"],
        "hint": "Look.",
        "subject": "natural science",
    }
    problems = {
        "5": problem | {"answer": 2, "image": "image.png"},
        "7": problem | {"answer": 0, "image": None},
        "9": problem | {"answer": 1, "image": "image.png"},
    }
    write(tmp_path / "ScienceQA" / "problems.json", problems)
    write(tmp_path / "ScienceQA" / "pid_splits.json", {"test": ["9", "7", "5"], "val": ["7"]})
    write(tmp_path / "ScienceQA" / "images" / "test" / "9" / "image.png", GREY)
    rows = science_qa.rows(epath.Path(tmp_path), "test")
    assert [(row.index, row.answer, row.hint) for row in rows] == [("9", "B", "Look."), ("5", "C", "Look.")]
    assert rows[0].images[0].read() == GREY
    write(tmp_path / "ScienceQA" / "pid_splits.json", {"test": ["9", "8"]})
    with pytest.raises(ValueError, match="problems.json, 8: there is no such problem"):
        science_qa.rows(epath.Path(tmp_path), "test")


def test_ai2d_draws_the_letters_that_questions_speak_of_and_leaves_other_pictures_alone(tmp_path):
    write(tmp_path / "AI2D" / "ai2d_test_ids.csv", "10\n2\n")
    for id, labelled in (("2", True), ("10", False), ("11", False)):
        question = {
            "abcLabel": labelled,
            "answerTexts": ["A", "B"],
            "correctAnswer": 1,
            "questionId": f"{id}-0",
        }
        write(tmp_path / "AI2D" / "questions" / f"{id}.png.json", {"questions": {"Which part?": question}})
        write(tmp_path / "AI2D" / "images" / f"{id}.png", GREY)
    label = {"rectangle": [[8, 8], [24, 24]], "replacementText": "B"}
    write(tmp_path / "AI2D" / "annotations" / "2.png.json", {"text": {"T0": label}})
    rows = ai2d.rows(epath.Path(tmp_path), "test")
    assert [(row.index, row.answer) for row in rows] == [("2-0", "B"), ("10-0", "B")]  # 11 is of no test
    drawn, plain = (pixels(row.images[0]) for row in rows)
    inside = np.zeros((48, 64), bool)
    inside[8:25, 8:25] = True
    assert (drawn[inside] == 255).any() and (drawn[inside] < 100).any()  # a black letter on white
    assert (drawn[~inside] == 128).all() and (plain == 128).all()


def test_mmstar_parquet_is_read_with_options_out_of_the_text_and_pictures_on_demand(tmp_path):
    text = "What is it?\nOptions: A: red, B: dark red, or so, C: None, D: blue."
    columns = {
        "index": [0, 1, 2],
        "question": [text, text, "Which?\nChoices:\n(A) 12\n(B) 1"],
        "image": [{"bytes": GREY, "path": None}] * 3,
        "answer": ["C", "A", "B"],
        "category": ["math"] * 3,
        "l2_category": ["geometry"] * 3,
    }
    (tmp_path / "MMStar").mkdir()
    path = tmp_path / "MMStar" / "mmstar.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    rows = mmstar.rows(epath.Path(tmp_path), "val")
    assert [(row.index, row.answer) for row in rows] == [("0", "C"), ("1", "A"), ("2", "B")]
    assert rows[0].question == "What is it?"
    assert rows[0].options == {"A": "red", "B": "dark red, or so", "C": "None", "D": "blue."}
    assert rows[2].options == {"A": "12", "B": "1"}
    assert [row.images[0].read() for row in rows] == [GREY] * 3

    columns["question"][1] = "What is it?"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(ValueError, match="row 2: no list 'Options: A: ..., B: ...'"):
        mmstar.rows(epath.Path(tmp_path), "val")
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="mmstar.parquet: not a readable parquet file"):
        mmstar.rows(epath.Path(tmp_path), "val")


def test_hr_bench_parquet_has_four_cycles_a_question(tmp_path):
    columns = {"index": [*range(4)], "question": ["Which?"] * 4, "answer": ["A", "B", "C", "D"]}
    columns |= {letter: ["x"] * 4 for letter in "ABCD"} | {"cycle_category": [*range(4)]}
    columns |= {"category": ["single"] * 4, "image": [base64.b64encode(GREY).decode()] * 4}
    (tmp_path / "HR-Bench").mkdir()
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "HR-Bench" / "hr_bench_8k.parquet")
    rows = hr_bench.rows(epath.Path(tmp_path), "8k")
    assert together.cycles(rows) == [] and [row.answer for row in rows] == ["A", "B", "C", "D"]
    assert rows[3].images[0].read() == GREY
    assert together.cycles(rows[:3])


def test_cv_bench_parquet_counts_where_no_pictures_lie_beside_the_lines(tmp_path):
    columns = {
        "idx": [0],
        "task": ["Count"],
        "source": ["COCO"],
        "question": ["How many?"],
        "choices": [["3", "1"]],
        "answer": ["(B)"],
        "image": [base64.b64encode(GREY).decode()],
    }
    (tmp_path / "CV-Bench").mkdir()
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "CV-Bench" / "test_2d.parquet")
    (row,) = cv_bench.rows(epath.Path(tmp_path), "2D")
    assert (row.answer, row.options, row.fields["source"]) == ("B", {"A": "3", "B": "1"}, "COCO")
    assert row.images[0].read() == GREY
    with pytest.raises(FileNotFoundError, match="no test_3d: looked for CV-Bench/test_3d.jsonl"):
        cv_bench.rows(epath.Path(tmp_path), "3D")


def test_coco_inpainted_boxes_what_the_mask_names(tmp_path):
    folder = tmp_path / "coco_inpainted" / "test" / "small"
    objects = [[0, 0, 16, 12], [32, 24, 16, 12], [8, 8, 8, 8]]  # x, y, width, height
    write(folder / "annotations.json", {"1": objects, "2": objects[:1]})
    for index, mask in (("1", "5"), ("2", "")):
        write(folder / "images_and_masks" / f"{index}.png", GREY)
        write(folder / "inpainted" / f"{index}_mask{mask}.png", GREY)
    first, second = cyws.inpainted_rows(epath.Path(tmp_path), "small")
    assert first.boxes == ((0, 0, 0.25, 0.25), (0.125, 1 / 6, 0.25, 1 / 3))  # binary 101: not the middle one
    assert second.boxes == ((0, 0, 0.25, 0.25),)
    assert [picture.path.name for picture in first.images] == ["1.png", "1_mask5.png"]
    write(folder / "inpainted" / "2_mask2.png", GREY)
    with pytest.raises(ValueError, match="2_mask2.png: the mask 2 is of no object; the picture has 1"):
        cyws.inpainted_rows(epath.Path(tmp_path), "small")


def test_the_commands_of_the_page_convert_pickled_boxes(tmp_path):
    """They are the user's to run, on files that the user trusts; here on files made by the test."""
    commands = re.findall(r'^python -c "(.+)"$', (DOCS / "benchmark_sets.md").read_text(), re.MULTILINE)
    refs = [{"ref_id": 1, "sentences": [{"sent": "a cup"}]}]
    std = {7: np.array([[1.0, 2.0, 3.0, 4.0]])}
    write(tmp_path / "refs(unc).p", pickle.dumps(refs, protocol=2))
    write(tmp_path / "annotations.npy", npy(std))
    write(tmp_path / "metadata" / "12.npy", npy([{"bbox": [1, 2, 3, 4.5], "id": 9}]))
    made = []
    for command in commands:
        subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True)
        made.append(json.loads((tmp_path / ("annotations.json" if made else "refs.json")).read_text()))
    assert made == [refs, {"7": [[1, 2, 3, 4]]}, {"12": [[1, 2, 3, 4.5]]}]


def npy(value: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(value, dtype=object), allow_pickle=True)
    return file.getvalue()


def test_refer_folders_give_phrases_too(tmp_path):
    folder = tmp_path / "RefCOCO" / "refcoco+"
    instances = {
        "images": [{"id": 3, "file_name": "p.jpg", "height": 48, "width": 64}],
        "annotations": [{"id": 9, "bbox": [16, 12, 16, 24]}],
    }
    ref = {"ref_id": 5, "ann_id": 9, "image_id": 3, "split": "testA"}
    ref["sentences"] = [{"sent_id": 1, "sent": "a cup"}, {"sent_id": 2, "sent": "the cup"}]
    write(folder / "instances.json", instances)
    write(folder / "refs(unc).json", [ref])
    write(tmp_path / "coco" / "train2014" / "p.jpg", GREY)
    rows = ref_coco.rows(epath.Path(tmp_path), "RefCOCO+ testA")
    assert [row.question for row in rows] == ["a cup", "the cup"]
    assert rows[0].boxes == ((0.25, 0.25, 0.5, 0.75),) and rows[0].images[0].read() == GREY


def test_ref_coco_of_tfds_gives_phrases_with_pictures(tmp_path):
    counts = {"ragged_row_lengths_0": [1]}
    expressions = {
        "raw": {"ragged_flat_values": ["a cup"], **counts},
        "refexp_id": {"ragged_flat_values": [7], **counts},
    }
    boxes = np.float32([[0.25, 0.5, 0.75, 1.0]])  # y0, x0, y1, x1
    folder = tmp_path / "ref_coco" / "refcocog_umd" / "1.1.0"
    write_ref_coco(folder, {"bbox": boxes, "refexp": expressions, "mask": [b""]})
    (row,) = ref_coco.rows(epath.Path(tmp_path), "RefCOCOg val")
    assert (row.question, row.boxes, row.size) == ("a cup", ((0.5, 0.25, 1.0, 0.75),), (32, 64))
    assert pixels(row.images[0]).shape == (32, 64, 3)


def test_pairs_of_ones_own_are_rows_with_boxes():
    rows = own_pairs.rows(epath.Path(ASSETS / "sample_pairs"), "test")
    assert rows and all(len(row.boxes) == len(row.category.split(",")) for row in rows if row.boxes)
    assert Image.open(io.BytesIO(rows[0].images[1].read())).size[::-1] == rows[0].size


YES_NO = '{"question_id": 1, "image": "a.jpg", "text": "Is it?", "label": "yes"}\n'
BROKEN = [
    (pope.rows, "random", "POPE/coco_pope_random.json", YES_NO + "{\n", "line 2 is not JSON"),
    (
        pope.rows,
        "random",
        "POPE/coco_pope_random.json",
        YES_NO + YES_NO.replace("yes", "maybe"),
        'line 2: label is "maybe"; expected yes or no',
    ),
    (hallusion.rows, "all", "HallusionBench/HallusionBench.json", "{}", "expected a list of objects"),
    (
        hallusion.rows,
        "all",
        "HallusionBench/HallusionBench.json",
        '[{"category": "VX"}]',
        'entry 1: category is "VX"; expected vd or vs',
    ),
    (mme.rows, "test", "MME/OCR/1.txt", "Is it?\tYes\nIs it?\tyes", "1.txt, line 2: .* is not question, tab"),
    (mme.rows, "test", "MME/OCR/1.txt", "Is it?\tYes", "1 questions; expected two"),
    (vsr.rows, "zeroshot", "VSR/splits/zeroshot/test.jsonl", "[]", "line 1: expected an object"),
    (
        mmvp.rows,
        "test",
        "MMVP/Questions.csv",
        "Index,Question,Options,Correct Answer\n1,Which?,(a) x (b) y\n",
        "line 2: 3 cells, and the first line names 4",
    ),
    (
        mmvp.rows,
        "test",
        "MMVP/Questions.csv",
        "Index,Question,Options,Correct Answer\n1,Which?,x or y,(a)\n",
        "line 2: Options is 'x or y'",
    ),
    (
        vstar.rows,
        "test",
        "vstar_bench/direct_attributes/a.json",
        '{"question": "Which?", "options": []}',
        r"a.json: options is \[\]; expected a list of texts",
    ),
]


@pytest.mark.parametrize(("read", "split", "name", "content", "message"), BROKEN)
def test_a_broken_file_gives_one_error_with_file_and_line(tmp_path, read, split, name, content, message):
    for folder in ("POPE/val2014", "VSR/images", "MMVP/MMVP Images", "vstar_bench/relative_position"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    write(tmp_path / name, content)
    with pytest.raises(ValueError, match=message) as raised:
        read(epath.Path(tmp_path), split)
    assert pathlib.Path(name).name in str(raised.value)


@pytest.mark.parametrize("module", [pope, vsr, mme, hallusion, vstar, mmvp, mmstar, science_qa, ai2d])
def test_a_release_that_is_not_there_is_named_with_where_it_was_looked_for(tmp_path, module):
    split = {pope: "random", vsr: "zeroshot"}.get(module, "test")
    with pytest.raises(FileNotFoundError, match="looked (for|in) .*docs/benchmark_sets.md"):
        module.rows(epath.Path(tmp_path), split)
