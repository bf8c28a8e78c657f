"""A dataset of pairs as Parquet files that Hugging Face's `datasets` loads, pictures as its `Image` feature.

    OUT/data/train-00000-of-00001.parquet, ...
    OUT/README.md, features.json, metadata.json

`datasets.load_dataset(OUT)` needs nothing else. The files are written with pyarrow alone; which features they
have is said in their schema, as `datasets` itself says it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_gen.exports.rows import Row, Rows, picture_names
from data_gen.records.dataset import NoDataset

ROWS_PER_FILE = 2000
ROWS_PER_GROUP = 100  # are in memory at a time
FOLDER = "data"


def write(rows: Rows, out: Path) -> None:
    """Writes all but features and metadata into the folder `out`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = rows.features
    pictures = picture_names(features)
    fields = {key: _described(feature, key in pictures) for key, feature in features.items()}
    said = json.dumps({"info": {"features": {key: words for key, (_, words) in fields.items()}}})
    schema = pa.schema({key: type for key, (type, _) in fields.items()}, {"huggingface": said})
    (out / FOLDER).mkdir()
    for split, count in rows.splits.items():
        files = max(1, math.ceil(count / ROWS_PER_FILE))
        source = rows.rows(split)
        for number in range(files):
            path = out / FOLDER / f"{split}-{number:05d}-of-{files:05d}.parquet"
            left = min(ROWS_PER_FILE, count - number * ROWS_PER_FILE)
            with pq.ParquetWriter(path, schema) as writer:
                for first in range(0, left, ROWS_PER_GROUP):
                    some = [next(source) for _ in range(min(ROWS_PER_GROUP, left - first))]
                    columns = {key: [_stored(key, row, pictures) for row in some] for key in fields}
                    writer.write_table(pa.table(columns, schema=schema))
    (out / "README.md").write_text(_card(rows))


def read(folder: Path) -> Rows:
    """What `write` wrote. Raises NoDataset where there are no such files."""
    import pyarrow.parquet as pq

    files: dict[str, list[Path]] = {}
    paths = sorted((folder / FOLDER).glob("*-*-of-*.parquet"))
    for path in sorted(paths, key=lambda path: not path.name.startswith("train-")):
        files.setdefault(path.name.rsplit("-", 3)[0], []).append(path)
    if not files:
        raise NoDataset(f"{folder / FOLDER} has no Parquet files such as train-00000-of-00001.parquet")
    counts = {
        split: sum(pq.ParquetFile(path).metadata.num_rows for path in paths) for split, paths in files.items()
    }

    def rows(split: str) -> Iterator[Row]:
        for path in files[split]:
            for batch in pq.ParquetFile(path).iter_batches(ROWS_PER_GROUP):
                for row in batch.to_pylist():
                    yield {key: value["bytes"] if _is_file(value) else value for key, value in row.items()}

    return Rows(folder, counts, rows)


def _described(feature: Any, is_picture: bool) -> tuple[Any, Any]:
    """A feature's type in Arrow, and what `datasets` calls it."""
    import pyarrow as pa
    import tensorflow_datasets as tfds

    if is_picture:
        return pa.struct({"bytes": pa.binary(), "path": pa.string()}), {"_type": "Image"}
    inner = getattr(feature, "feature", None)
    if isinstance(inner, tfds.features.FeaturesDict):  # a sequence of objects is kept column by column
        parts = {key: _listed(*_described(part, False)) for key, part in inner.items()}
        return pa.struct({key: type for key, (type, _) in parts.items()}), {
            key: words for key, (_, words) in parts.items()
        }
    if isinstance(feature, tfds.features.Text):
        return pa.string(), {"dtype": "string", "_type": "Value"}
    if isinstance(feature, tfds.features.Sequence):
        return _listed(*_described(inner, False))
    type = pa.from_numpy_dtype(feature.np_dtype)
    described = (type, {"dtype": str(type) if str(type) != "float" else "float32", "_type": "Value"})
    for _ in feature.shape:
        described = _listed(*described)
    return described


def _listed(type: Any, words: Any) -> tuple[Any, Any]:
    import pyarrow as pa

    return pa.list_(type), {"feature": words, "_type": "Sequence"}


def _stored(key: str, row: Row, pictures: list[str]) -> Any:
    return {"bytes": row[key], "path": f"{key}.png"} if key in pictures else row[key]


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"bytes", "path"}


def _card(rows: Rows) -> str:
    """The page of the dataset; `datasets` reads from its head which files are of which split."""
    paths = "".join(f"  - split: {split}\n    path: {FOLDER}/{split}-*\n" for split in rows.splits)
    counts = ", ".join(f"{count} {split}" for split, count in rows.splits.items())
    return (
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{paths}---\n# {rows.folder.name}\n\n"
        f"Pairs of nearly identical pictures with a box for every difference: {counts}. Exported from the\n"
        "dataset `dig_pairs`; `metadata.json` says how it was made.\n\n"
        "```python\nimport datasets\n\npairs = datasets.load_dataset(FOLDER)\n```\n"
    )
