"""MME as published: MME_Benchmark_release_version/SUBTASK, a text file of two questions beside each picture.

Five subtasks keep pictures in images/ and questions in questions_answers_YN/; the others keep both together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from etils import epath

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.row import PictureFile, Row
from dig_jax.machines import textfile

# Questions of each subtask of the whole set. Those of perception come first, the last four are cognition.
SUBTASKS = {
    "existence": 60,
    "count": 60,
    "position": 60,
    "color": 60,
    "posters": 294,
    "celebrity": 340,
    "scene": 400,
    "landmark": 400,
    "artwork": 400,
    "OCR": 40,
    "commonsense_reasoning": 140,
    "numerical_calculation": 40,
    "text_translation": 40,
    "code_reasoning": 40,
}
_FOLDER = "MME_Benchmark_release_version"
_SUFFIXES = (".jpg", ".jpeg", ".png")


def rows(root: epath.Path, split: str) -> Sequence[Row]:
    """The questions of all subtasks that are there, two a picture.

    Raises:
      FileNotFoundError: there is no subtask.
      ValueError: a text file does not hold two lines of question, tab, and Yes or No; names file and line.
    """
    places = (f"MME/{_FOLDER}", f"MME/{_FOLDER}/MME_Benchmark", f"{_FOLDER}/MME_Benchmark", _FOLDER, "MME")
    base = next((path for path in (*files.candidates(root, *places), root) if _subtasks(path)), None)
    if base is None:
        raise FileNotFoundError(
            f"{root} has no folder with subtasks of MME: looked in {', '.join(places)}; {files.GUIDE}"
        )
    found = [row for subtask in _subtasks(base) for row in _rows(base / subtask, subtask, split)]
    return found


def _subtasks(folder: epath.Path) -> list[str]:
    return [subtask for subtask in SUBTASKS if (folder / subtask).exists()]


def _rows(folder: epath.Path, subtask: str, split: str) -> Iterator[Row]:
    apart = (folder / "questions_answers_YN").exists()
    texts = folder / "questions_answers_YN" if apart else folder
    pictures = folder / "images" if apart else folder
    by_stem = {path.stem: path for path in pictures.iterdir() if path.suffix.lower() in _SUFFIXES}
    for path in sorted(texts.glob("*.txt")):
        picture = by_stem.get(path.stem, pictures / f"{path.stem}.jpg")
        for number, (question, answer) in enumerate(_questions(path), start=1):
            yield Row(
                index=f"{subtask}/{path.stem}-{number}",
                images=(PictureFile(picture),),
                question=question,
                answer=answer,
                category=subtask,
                splits=(split,),
                fields={"category": subtask, "image_path": f"{subtask}/{picture.name}"},
            )


def _questions(path: epath.Path) -> list[tuple[str, str]]:
    lines = [line for line in textfile.read_text(path).split("\n") if line.strip()]
    if len(lines) != 2:
        raise ValueError(f"{path}: {len(lines)} questions; expected two, one of them answered yes")
    found = []
    for number, line in enumerate(lines, start=1):
        question, tab, answer = line.strip().rpartition("\t")
        if not tab or answer.strip() not in ("Yes", "No"):
            raise ValueError(f"{path}, line {number}: {line[:80]!r} is not question, tab, and Yes or No")
        found.append((question.strip(), answer.strip()))
    return found


def official_answer(text: str) -> str:
    """What the official script takes an answer for: its first four characters hold yes, else no, else "".

    "None" and "Not sure" are No so, "Yesterday" is Yes, and "The answer is yes" is neither.
    """
    start = text.lower()[:4]
    return "Yes" if "yes" in start else "No" if "no" in start else ""
