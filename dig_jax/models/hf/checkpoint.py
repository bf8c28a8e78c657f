"""Reading and writing Hugging Face checkpoints of any family, piece by piece and bit for bit.

Reading: every process reads the rows of each tensor that its own devices hold a part of, a few megabytes at a
time, and puts them where they belong in its shards of one parameter, which go to the devices when they are
complete. It holds those and the pieces under way, never a whole tensor of the file. (A process whose devices
hold some columns of a tensor reads its rows whole: they are what lies together in a file.)

Writing: one layer of one parameter is brought to the host at a time.
"""

import collections
import contextlib
import functools
import json
import math
import operator
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.experimental import multihost_utils

from dig_jax.machines.folder import whole_folder
from dig_jax.models import families
from dig_jax.models.architecture import Architecture
from dig_jax.models.families import abstract_model, layouts, load_config
from dig_jax.models.hf import experts
from dig_jax.models.hf.layout import Layout
from dig_jax.models.hf.safetensors_io import DTYPES, Entry, Spec, find_tensors, write_checkpoint
from dig_jax.models.nn.multimodal import VisionLanguageModel

MAX_SHARD_BYTES = 5 * 10**9

# Enough requests under way for a bucket, and pieces large enough to be worth one: 64 MiB in all.
_READERS = 8
_READ_BYTES = 8 << 20


def load_model(
    folder: epath.PathLike,
    *,
    dtype: Any = jnp.float32,
    param_dtype: Any | None = None,
    remat: str = "none",
) -> VisionLanguageModel:
    """The model in a Hugging Face folder.

    Args:
      folder: with config.json and safetensors, in one file or several; local or in a bucket.
      dtype: of activations.
      param_dtype: of parameters; None keeps that of the checkpoint.
      remat: see `VisionLanguageModel`.

    Raises:
      FileNotFoundError: when a file is missing.
      ValueError: when a file is damaged, or listing every tensor that is missing, unexpected or wrong.
    """
    config = load_config(folder)
    graphdef, _ = nnx.split(abstract_model(config, dtype=dtype, remat=remat))
    return nnx.merge(graphdef, load_params(folder, config, param_dtype=param_dtype))


def load_params(
    folder: epath.PathLike,
    config: Architecture,
    *,
    param_dtype: Any | None = None,
    shardings: nnx.State | None = None,
) -> nnx.State:
    """The parameters in a Hugging Face folder, as `nnx.state(model, nnx.Param)`.

    Args:
      folder, param_dtype: see `load_model`.
      config: from `families.load_config(folder)`.
      shardings: a state of the same structure that holds a `jax.sharding.Sharding` per parameter; None puts
        all on the default device. Its devices may be those of several processes: each reads for its own.

    Raises:
      as `load_model`.
    """
    shapes = nnx.state(abstract_model(config), nnx.Param)
    entries = find_entries(folder, config)
    plan = experts.as_found(layouts(shapes, config), entries, folder)
    _check(folder, entries, plan, param_dtype, tied=config.tie_word_embeddings)
    placed = {} if shardings is None else dict(nnx.to_flat_state(shardings))
    loaded = []
    with ThreadPoolExecutor(_READERS) as readers:
        for path, variable in nnx.to_flat_state(shapes):
            sharding = placed.get(path)
            sharding = sharding.get_value() if isinstance(sharding, nnx.Variable) else sharding
            array = _load_param(plan[path], entries, param_dtype, sharding, readers)
            loaded.append((path, variable.replace(array)))
    return nnx.from_flat_state(loaded)


def find_entries(folder: epath.PathLike, config: Architecture) -> dict[str, Entry]:
    """The tensors in a folder by their names in a checkpoint of the family, whichever they have there."""
    name = families.of(config).checkpoint_name
    return {name(given): entry for given, entry in find_tensors(epath.Path(folder)).items()}


def _check(
    folder: epath.PathLike,
    entries: dict[str, Entry],
    plan: dict[Any, Layout],
    dtype: Any | None,
    *,
    tied: bool,
) -> None:
    """Raises one ValueError with all that differs between the checkpoint and the model."""
    shapes = {name: layout.file_shape for layout in plan.values() for name in layout.names}
    problems = [f"missing: {name} {list(shapes[name])}" for name in sorted(shapes.keys() - entries.keys())]
    # Some writers keep a copy of the tied head; transformers ignores it, and so do we.
    unexpected = entries.keys() - shapes.keys() - ({"lm_head.weight"} if tied else set())
    problems += [f"unexpected: {name}" for name in sorted(unexpected)]
    for name in sorted(shapes.keys() & entries.keys()):
        entry = entries[name]
        if entry.shape != shapes[name]:
            problems.append(f"wrong shape: {name} is {list(entry.shape)}, expected {list(shapes[name])}")
        if entry.dtype not in DTYPES:
            problems.append(f"wrong dtype: {name} is {entry.dtype}, expected one of {', '.join(DTYPES)}")
    for layout in plan.values() if dtype is None else ():
        first, *others = [name for name in layout.names if name in entries] or [""]
        problems += [
            f"mixed dtypes: {name} is {entries[name].dtype}, {first} {entries[first].dtype}: give param_dtype"
            for name in others
            if entries[name].dtype != entries[first].dtype
        ]
    if problems:
        raise ValueError(
            f"{folder}: the weights do not fit config.json (problems: {len(problems)})\n  "
            + "\n  ".join(problems)
        )


class _Shard(NamedTuple):
    """A part of a parameter [layers, *shape]: (first, end) per dimension, and the bits of its elements."""

    spans: tuple[tuple[int, int], ...]
    bits: np.ndarray


def _load_param(
    layout: Layout,
    entries: dict[str, Entry],
    dtype: Any | None,
    sharding: jax.sharding.Sharding | None,
    readers: ThreadPoolExecutor,
) -> jax.Array:
    """One parameter, its layers stacked, on the devices."""
    dtype = np.dtype(dtype or DTYPES[entries[layout.names[0]].dtype])
    shape = (len(layout.names), *layout.shape) if layout.stacked else layout.shape
    spans = _spans(layout, shape, sharding)
    shards = {s: _Shard(s, _empty_bits([b - a for a, b in s], dtype)) for s in spans.values()}

    fill = functools.partial(_read_rows, layout, entries, dtype, list(shards.values()))
    list(readers.map(lambda piece: fill(*piece), _pieces(layout, shards)))

    part_shape = shape if sharding is None else sharding.shard_shape(shape)
    arrays = [
        jax.device_put(shards[s].bits.view(dtype).reshape(part_shape), device) for device, s in spans.items()
    ]
    jax.block_until_ready(arrays)  # where devices have memory of their own, the host's is free from here on
    return (
        arrays[0] if sharding is None else jax.make_array_from_single_device_arrays(shape, sharding, arrays)
    )


def _spans(
    layout: Layout, shape: tuple[int, ...], sharding: jax.sharding.Sharding | None
) -> dict[jax.Device | None, tuple[tuple[int, int], ...]]:
    """What each device of this process holds: (first, end) per dimension of [layers, *shape of a layer]."""
    if sharding is None:
        indices: dict[Any, Any] = {None: (slice(None),) * len(shape)}
    else:
        indices = dict(sharding.addressable_devices_indices_map(shape))
    spans = {
        device: tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
        for device, index in indices.items()
    }
    return spans if layout.stacked else {device: ((0, 1), *span) for device, span in spans.items()}


def _empty_bits(shape: list[int], dtype: np.dtype) -> np.ndarray:
    """Memory for an array, as unsigned integers: NumPy moves those much faster than bfloat16.

    It starts at a multiple of 64 bytes: the CPU backend then takes it as it is, without a copy.
    """
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(f"u{dtype.itemsize}").reshape(shape)


def _pieces(layout: Layout, shards: Iterable[Any]) -> Iterator[tuple[int, int, int]]:
    """(layer, first row, end row) of what to read: rows in the file's order, a few megabytes each."""
    row_bytes = 4 * math.prod(layout.file_order[1:])
    step = max(1, _READ_BYTES // row_bytes)
    wanted = {(layer, spans[1 + layout.inputs]) for spans in shards for layer in range(*spans[0])}
    for layer, (first, end) in sorted(wanted):
        for start in range(first, end, step):
            yield layer, start, min(start + step, end)


def _read_rows(
    layout: Layout,
    entries: dict[str, Entry],
    dtype: np.dtype,
    shards: list[_Shard],
    layer: int,
    first: int,
    end: int,
) -> None:
    """Reads rows first..end of a layer and copies them into the shards that hold a part of them."""
    row = math.prod(layout.file_order[1:])
    elements = entries[layout.names[layer]].read(first * row, (end - first) * row)
    part = layout.from_file(elements.astype(dtype, copy=False)).view(f"u{dtype.itemsize}")
    for shard in shards:
        _copy_overlap(shard, part, layer, layout.inputs, first, end)


def _copy_overlap(shard: _Shard, part: np.ndarray, layer: int, axis: int, first: int, end: int) -> None:
    """Copies what `shard` holds of `part`, the elements first..end of a layer along `axis`."""
    (first_layer, end_layer), *spans = shard.spans
    start, stop = max(first, spans[axis][0]), min(end, spans[axis][1])
    if not first_layer <= layer < end_layer or start >= stop:
        return
    source = [slice(*span) for span in spans]
    target = [slice(None)] * len(spans)
    source[axis] = slice(start - first, stop - first)
    target[axis] = slice(start - spans[axis][0], stop - spans[axis][0])
    shard.bits[layer - first_layer][tuple(target)] = part[tuple(source)]


def save_model(
    folder: epath.PathLike,
    model: VisionLanguageModel,
    *,
    dtype: Any | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes config.json and safetensors that transformers and `load_model` read.

    The folder appears whole or not at all (`whole_folder`). With several processes all must call this; the
    first one writes.

    Args:
      folder: to create, local or in a bucket; it may exist if it is empty.
      model: with parameters on any devices of any process.
      dtype: to convert the parameters to; None keeps theirs, bit for bit.
      max_shard_bytes: size above which the weights are split into several files.

    Raises:
      FileExistsError: if `folder` has something in it.
    """
    with writer(epath.Path(folder)) as staging:
        params = nnx.state(model, nnx.Param)
        written = write_weights(staging, params, model.config, dtype, max_shard_bytes)
        if staging is not None:
            config = {**model.config.to_dict(), "dtype": written}
            (staging / "config.json").write_text(json.dumps(config, indent=2) + "\n")


@contextlib.contextmanager
def writer(folder: epath.Path) -> Iterator[epath.Path | None]:
    """`whole_folder(folder)` in the first process, None in the others; ends when the folder is there."""
    with whole_folder(folder) if jax.process_index() == 0 else contextlib.nullcontext() as staging:
        yield staging
    multihost_utils.sync_global_devices(f"written {folder}")


def write_weights(
    folder: epath.Path | None,
    params: nnx.State,
    config: Architecture,
    dtype: Any | None,
    max_shard_bytes: int,
) -> str:
    """Writes the weights, one tensor on the host at a time, and returns the name of (most of) their dtypes.

    Args:
      folder: that exists; None takes part in gathering tensors from several processes and writes nothing.
      params, config, dtype, max_shard_bytes: see `save_model`.
    """
    tensors = _wide_first(params, config, dtype)
    specs = [
        Spec(name, np.dtype(dtype or array.dtype), layout.file_shape)
        for layout, array in tensors
        for name in layout.names
    ]
    arrays = map(operator.itemgetter(1), checkpoint_tensors(params, config, dtype))
    if folder is None:
        collections.deque(arrays, maxlen=0)
    else:
        write_checkpoint(folder, specs, arrays, max_shard_bytes)
    bytes_of: collections.Counter[str] = collections.Counter()
    for spec in specs:
        bytes_of[spec.dtype.name] += spec.nbytes
    return bytes_of.most_common(1)[0][0]


def checkpoint_tensors(
    params: nnx.State, config: Architecture, dtype: Any | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of a checkpoint by name, one on the host at a time.

    With several processes all must ask for all of them: each gets the whole of every tensor.
    """
    for layout, array in _wide_first(params, config, dtype):
        for layer, name in enumerate(layout.names):
            yield name, layout.to_file(to_host(array, layer if layout.stacked else None, dtype))


def to_host(array: jax.Array, layer: int | None, dtype: Any | None) -> np.ndarray:
    """`array`, or one layer of it, in host memory."""
    if layer is not None:
        array = _take_layer(array, layer)
    elif isinstance(array, jax.Array):
        # The same array as a new object: JAX keeps the copy on the host for as long as the object lives.
        parts = [shard.data for shard in array.addressable_shards]
        array = jax.make_array_from_single_device_arrays(array.shape, array.sharding, parts)
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array).astype(dtype or array.dtype, copy=False)


def _wide_first(params: nnx.State, config: Architecture, dtype: Any | None) -> list[tuple[Layout, jax.Array]]:
    """Parameters with their layouts, wide dtypes first.

    Readers that map a file want every tensor at a multiple of its element's size.
    """
    plan = layouts(params, config)
    tensors = [(plan[path], variable.get_value()) for path, variable in nnx.to_flat_state(params)]
    return sorted(tensors, key=lambda tensor: -np.dtype(dtype or tensor[1].dtype).itemsize)


@jax.jit
def _take_layer(array: jax.Array, layer: int) -> jax.Array:
    """array[layer], sharded as `array` is; one program serves all layers."""
    return jax.lax.dynamic_index_in_dim(array, layer, keepdims=False)
