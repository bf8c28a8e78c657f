"""Safetensors files on any path: headers checked, tensors read in pieces and written one by one.

A file is: 8 bytes, the length of the header (little-endian); the header, JSON that gives every tensor's
dtype, shape and place; the data (https://github.com/huggingface/safetensors#format). A checkpoint is one such
file, or several with an index that tells which tensor is in which.

The format's own reader maps files into memory: it needs a local file, and mapped pages count as the process's
until the system wants them back. Reading ranges serves a local disk and a bucket (`gs://`) with the same
code, and the process holds what it asked for and nothing else.
"""

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np
from etils import epath

from dig_jax.machines import textfile
from dig_jax.machines.folder import matching

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# The dtypes that parameters may have, by the format's names.
DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16)}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

logger = logging.getLogger("dig_jax")

_MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own reader
_WRITE_BYTES = (
    16 << 20
)  # file objects of buckets take `bytes` alone: arrays are copied out in pieces of this size
_LFS_POINTER = b"version "  # how a Git LFS pointer begins


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where a tensor lies.

    Attributes:
      file: the safetensors file.
      dtype: as the header calls it, for example "BF16".
      shape: of the tensor.
      start: byte of the file where its data begins.
    """

    file: epath.Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    def read(self, first: int, count: int) -> np.ndarray:
        """`count` elements from element `first` on, in row-major order: [count], of a dtype in `DTYPES`.

        Opens the file anew, so that threads can read side by side.
        """
        dtype = DTYPES[self.dtype]
        with self.file.open("rb") as file:
            file.seek(self.start + first * dtype.itemsize)
            data = file.read(count * dtype.itemsize)
        if len(data) != count * dtype.itemsize:
            raise ValueError(f"{self.file} became shorter while it was read")
        return np.frombuffer(data, dtype)


def read_header(path: epath.Path) -> dict[str, Entry]:
    """The tensors of a file by name.

    Raises:
      ValueError: the file is truncated, or is no (sound) safetensors file.
    """
    size = path.stat().length
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if prefix == _LFS_POINTER:
            raise ValueError(
                f"{path} is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
            )
        if len(prefix) < 8 or (length <= _MAX_HEADER_BYTES and 8 + length > size):
            raise ValueError(f"{path} is truncated: it ends inside its header, after {size} bytes")
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"{path} is not a safetensors file, or its beginning is damaged")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_unique_keys)
        header.pop("__metadata__", None)
        entries = {name: _entry(path, value, 8 + length) for name, value in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} has a damaged header: {error or type(error).__name__}") from error
    _check_places(path, header, size - 8 - length)
    return entries


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands in it twice")
    return found


def _entry(path: epath.Path, value: dict[str, Any], data_start: int) -> Entry:
    start, stop = value["data_offsets"]
    shape, dtype = tuple(value["shape"]), value["dtype"]
    if not all(type(n) is int and n >= 0 for n in (start, stop, *shape)):
        raise ValueError(f"shape {list(shape)} and offsets {start}..{stop} must be whole numbers, 0 or more")
    if dtype in DTYPES and math.prod(shape) * DTYPES[dtype].itemsize != stop - start:
        raise ValueError(f"{dtype} {list(shape)} does not fit in bytes {start}..{stop}")
    return Entry(path, dtype, shape, data_start + start)


def _check_places(path: epath.Path, header: dict[str, Any], data_bytes: int) -> None:
    """The tensors must lie end to end and fill the file."""
    end = 0
    for start, stop in sorted(value["data_offsets"] for value in header.values()):
        if start != end or stop < start:
            raise ValueError(
                f"{path} has a damaged header: a gap or an overlap at byte {min(start, end)} of the data"
            )
        end = stop
    if end > data_bytes:
        raise ValueError(
            f"{path} is truncated: {data_bytes} bytes of data, but the header says {end}; fetch it again"
        )
    if end < data_bytes:
        raise ValueError(f"{path} is damaged: {data_bytes} bytes of data, but the header says {end}")


def find_tensors(folder: epath.Path) -> dict[str, Entry]:
    """The tensors of a checkpoint by name, in one file or in those that its index lists.

    Where both are there, it is the one file that counts, as in transformers, and the index is out of date;
    unless that names the file beside others that are there too.

    Raises:
      FileNotFoundError: there are no weights, or files that the index lists are absent.
      ValueError: a file is damaged, index and files disagree, or the weights are pickled.
    """
    index, single = folder / INDEX_FILE, folder / SINGLE_FILE
    if not index.exists():
        if not single.exists():
            raise _no_weights(folder)
        return read_header(single)
    if single.exists() and not _is_listed(single, index):
        return read_header(single)
    weight_map = _read_index(index)
    files = sorted(set(weight_map.values()))
    absent = [file for file in files if not (folder / file).exists()]
    if absent:
        raise FileNotFoundError(f"{index} names files that are not there: {', '.join(absent)}")
    found: dict[str, Entry] = {}
    problems = []
    for file in files:
        for name, entry in read_header(folder / file).items():
            if name in found:
                problems.append(f"{name} is in two files, {found[name].file.name} and {file}")
            elif weight_map.get(name, file) != file:
                problems.append(f"{name} is in {file}, not in {weight_map[name]}")
            found.setdefault(name, entry)
    problems += [f"{name} is not in {file}" for name, file in weight_map.items() if name not in found]
    if problems:
        raise ValueError(f"{index} does not fit the files it lists\n  " + "\n  ".join(problems))
    return found


def _is_listed(single: epath.Path, index: epath.Path) -> bool:
    """Whether `single` is one of several files that `index` lists, all of which are there."""
    try:
        files = set(_read_index(index).values())
    except ValueError:
        return False
    complete = bool(files) and all((index.parent / file).exists() for file in files)
    if complete and single.name not in files:
        logger.warning(
            "%s has two sets of weights: %s is read, not the files that %s lists; remove what is out of date",
            *(index.parent, single.name, index.name),
        )
    return complete and len(files) > 1 and single.name in files


def _read_index(index: epath.Path) -> dict[str, str]:
    """Tensor name -> file name."""
    try:
        weight_map = json.loads(textfile.read_text(index))["weight_map"]
        for file in weight_map.values():
            # A checkpoint comes from others: its index must not reach outside its folder.
            if not isinstance(file, str) or "/" in file or "\\" in file or not file.endswith(".safetensors"):
                raise ValueError(f"{file!r} is not the name of a safetensors file in the same folder")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index} is not an index of safetensors files: {error}") from error
    return weight_map


def _no_weights(folder: epath.Path) -> Exception:
    pickled = ("*.bin", "*.bin.index.json", "*.pt", "*.pth")
    names = [path.name for path in matching(folder, *pickled)]
    if names:
        return ValueError(
            f"{folder} has its weights as Python pickles ({', '.join(names)}), which can run any code when"
            " they are read; only safetensors are read here. If you trust them, convert them: load the folder"
            " with transformers and save it with save_pretrained."
        )
    return FileNotFoundError(f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}")


@dataclasses.dataclass(frozen=True)
class Spec:
    """A tensor to write."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Tensor(NamedTuple):
    """A tensor that is made, or read from another file, when it is its turn to be written."""

    spec: Spec
    make: Callable[[], np.ndarray]


def write_file(path: epath.Path, specs: Sequence[Spec], arrays: Iterable[np.ndarray]) -> None:
    """Writes a safetensors file, holding one tensor at a time.

    Args:
      path: of the file.
      specs: the tensors in the order in which they come; wider dtypes first, or readers that map the file
        would find tensors at odd addresses.
      arrays: one per spec; each is asked for when the one before is written.

    Raises:
      ValueError: an array is not what its spec says.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers insists on a format
    end = 0
    for spec in specs:
        place = [end, end + spec.nbytes]
        header[spec.name] = {"dtype": _NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": place}
        end += spec.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of 8
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        remaining = iter(arrays)
        for spec in specs:
            _write_array(file, spec, next(remaining))  # not `zip`, which would keep the one before


def _write_array(file: IO[bytes], spec: Spec, array: np.ndarray) -> None:
    if array.dtype != spec.dtype or array.shape != spec.shape:
        raise ValueError(f"{spec.name} is {array.dtype} {array.shape}, announced as {spec}")
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, len(data), _WRITE_BYTES):
        file.write(data[start : start + _WRITE_BYTES].tobytes())


def write_checkpoint(
    folder: epath.Path, specs: Sequence[Spec], arrays: Iterable[np.ndarray], max_shard_bytes: int
) -> None:
    """Writes tensors into one file, or into several of at most `max_shard_bytes` of data with an index.

    Args:
      folder: that exists.
      specs, arrays: see `write_file`. A tensor larger than `max_shard_bytes` has a file of its own.
      max_shard_bytes: at least 1.
    """
    shards = split_shards(specs, max_shard_bytes)
    remaining = iter(arrays)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = SINGLE_FILE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_file(folder / file, shard, (next(remaining) for _ in shard))
        weight_map.update((spec.name, file) for spec in shard)
    if len(shards) > 1:
        totals = {
            "total_parameters": sum(math.prod(spec.shape) for spec in specs),
            "total_size": sum(spec.nbytes for spec in specs),
        }
        index = {"metadata": totals, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def split_shards(specs: Iterable[Spec], max_shard_bytes: int) -> list[list[Spec]]:
    """`specs` in groups of at most `max_shard_bytes`, in order; a group has at least one."""
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes is {max_shard_bytes}, expected at least 1")
    shards: list[list[Spec]] = [[]]
    used = 0
    for spec in specs:
        if shards[-1] and used + spec.nbytes > max_shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(spec)
        used += spec.nbytes
    return shards
