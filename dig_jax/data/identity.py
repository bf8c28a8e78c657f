"""What datasets and other files hold, wherever they lie: what a run that goes on must find again."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from dig_jax.data.records import dataset_folder
from dig_jax.machines.folder import to_path

_PIECE = 64 << 10  # bytes read at a place of a file
_PLACES = 8  # of a file, the first and the last piece among them
_READERS = 16


def fingerprint_of_data(folder: epath.PathLike, split: str) -> str:
    """A hash of names, sizes and samples of the files that a split is in.

    Eight pieces of each file are read, so that large datasets in a bucket take seconds. One that was rendered
    anew differs in them; a changed bit elsewhere is damage, which the checksum of its record tells.

    Args:
        folder: of a TFDS dataset, see `records.dataset_folder`; or another folder, whose own files count; or
            a file.
        split: "train", or a slice such as "train[:256]"; the files are those of the whole split.

    Raises:
        FileNotFoundError, ValueError: there is no dataset, or there are several.
    """
    path = to_path(folder)
    if path.exists() and not path.is_dir():
        return _sample(path).hex()[:16]  # whatever it is called
    return fingerprint_of_files(_files(path, split.split("[")[0]))


def fingerprint_of_files(files: Sequence[epath.Path]) -> str:
    """A hash of names, sizes and samples of these files, in this order."""
    digest = hashlib.sha256()
    with ThreadPoolExecutor(_READERS) as readers:
        for path, sample in zip(files, readers.map(_sample, files), strict=True):
            digest.update(path.name.encode() + sample)
    return digest.hexdigest()[:16]


def _files(path: epath.Path, split: str) -> list[epath.Path]:
    try:
        dataset = dataset_folder(path)
    except FileNotFoundError:
        files = sorted(file for file in path.iterdir() if not file.is_dir()) if path.exists() else []
        if not files:
            raise
        return files
    records = sorted(file for file in dataset.iterdir() if ".array_record" in file.name)
    return [file for file in records if f"-{split}." in file.name] or records


def _sample(path: epath.Path) -> bytes:
    """A hash of a file's size and of pieces of it."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        last = max(0, size - _PIECE)
        digest = hashlib.sha256(str(size).encode())
        for place in sorted({last * i // (_PLACES - 1) for i in range(_PLACES)}):
            file.seek(place)
            digest.update(file.read(_PIECE))
    return digest.digest()
