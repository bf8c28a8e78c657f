"""Reading and writing Hugging Face checkpoints of Qwen3-VL, tensor by tensor and bit for bit.

`WEIGHTS` is the whole mapping. A checkpoint holds one tensor per layer, with kernels as [out, in]; the
model stacks the layers and keeps kernels as [in, out], with the heads as a dimension of their own.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy, which safetensors needs to read it)
import numpy as np
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import save_file

from dig_jax.models.qwen3_vl.config import Qwen3VLConfig
from dig_jax.models.qwen3_vl.model import Qwen3VL

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


class Weight(NamedTuple):
    """How one parameter is called in the model and in a checkpoint.

    path: in the model. name: in the checkpoint; "{}" stands for the number of the layer.
    inputs: leading dimensions of a kernel that are inputs; 0 if it is no kernel and is not transposed.
    """

    path: str
    name: str
    inputs: int = 0


def _linear(path: str, name: str, inputs: int = 1) -> tuple[Weight, ...]:
    """A linear layer with bias."""
    return Weight(f"{path}.kernel", f"{name}.weight", inputs), Weight(f"{path}.bias", f"{name}.bias")


def _norm(path: str, name: str) -> tuple[Weight, ...]:
    """A layer norm."""
    return Weight(f"{path}.scale", f"{name}.weight"), Weight(f"{path}.bias", f"{name}.bias")


_LAYER = "model.language_model.layers.{}"
_BLOCK = "model.visual.blocks.{}"
_DEEPSTACK = "model.visual.deepstack_merger_list.{}"

WEIGHTS: tuple[Weight, ...] = (
    Weight("head", "lm_head.weight"),
    Weight("text.embedding", "model.language_model.embed_tokens.weight"),
    Weight("text.norm.scale", "model.language_model.norm.weight"),
    Weight("text.layers.input_norm.scale", f"{_LAYER}.input_layernorm.weight"),
    Weight("text.layers.post_norm.scale", f"{_LAYER}.post_attention_layernorm.weight"),
    Weight("text.layers.attn.q_proj.kernel", f"{_LAYER}.self_attn.q_proj.weight", 1),
    Weight("text.layers.attn.k_proj.kernel", f"{_LAYER}.self_attn.k_proj.weight", 1),
    Weight("text.layers.attn.v_proj.kernel", f"{_LAYER}.self_attn.v_proj.weight", 1),
    Weight("text.layers.attn.o_proj.kernel", f"{_LAYER}.self_attn.o_proj.weight", 2),
    Weight("text.layers.attn.q_norm.scale", f"{_LAYER}.self_attn.q_norm.weight"),
    Weight("text.layers.attn.k_norm.scale", f"{_LAYER}.self_attn.k_norm.weight"),
    Weight("text.layers.mlp.gate_proj.kernel", f"{_LAYER}.mlp.gate_proj.weight", 1),
    Weight("text.layers.mlp.up_proj.kernel", f"{_LAYER}.mlp.up_proj.weight", 1),
    Weight("text.layers.mlp.down_proj.kernel", f"{_LAYER}.mlp.down_proj.weight", 1),
    Weight("vision.pos_embed", "model.visual.pos_embed.weight"),
    *_linear("vision.patch_embed", "model.visual.patch_embed.proj"),
    *_norm("vision.blocks.norm1", f"{_BLOCK}.norm1"),
    *_linear("vision.blocks.attn.qkv", f"{_BLOCK}.attn.qkv"),
    *_linear("vision.blocks.attn.proj", f"{_BLOCK}.attn.proj", 2),
    *_norm("vision.blocks.norm2", f"{_BLOCK}.norm2"),
    *_linear("vision.blocks.mlp.fc1", f"{_BLOCK}.mlp.linear_fc1"),
    *_linear("vision.blocks.mlp.fc2", f"{_BLOCK}.mlp.linear_fc2"),
    *_norm("vision.merger.norm", "model.visual.merger.norm"),
    *_linear("vision.merger.fc1", "model.visual.merger.linear_fc1"),
    *_linear("vision.merger.fc2", "model.visual.merger.linear_fc2"),
    *_norm("vision.deepstack_mergers.norm", f"{_DEEPSTACK}.norm"),
    *_linear("vision.deepstack_mergers.fc1", f"{_DEEPSTACK}.linear_fc1"),
    *_linear("vision.deepstack_mergers.fc2", f"{_DEEPSTACK}.linear_fc2"),
)


class _Tensor(NamedTuple):
    """A parameter's layout: `names` in the checkpoint (one per layer) and the shapes on both sides."""

    names: tuple[str, ...]
    stacked: bool
    shape: tuple[int, ...]  # in the model, of one layer
    file_shape: tuple[int, ...]
    transposed: bool

    def from_file(self, array: np.ndarray) -> np.ndarray:
        if self.transposed:
            array = array.reshape(array.shape[0], -1).T
        return array.reshape(self.shape)

    def to_file(self, array: np.ndarray) -> np.ndarray:
        if self.transposed:
            array = array.reshape(-1, self.file_shape[0]).T
        # safetensors writes the buffer as it lies in memory, whatever its strides.
        return np.ascontiguousarray(array.reshape(self.file_shape))


def _layout(weight: Weight, shape: tuple[int, ...], config: Qwen3VLConfig) -> _Tensor:
    """The checkpoint side of a parameter of `shape`."""
    stacked = "{}" in weight.name
    names = tuple(weight.name.format(i) for i in range(shape[0])) if stacked else (weight.name,)
    shape = shape[1:] if stacked else shape
    vision = config.vision
    file_shape: tuple[int, ...]
    if weight.path == "vision.patch_embed.kernel":  # a 3-D convolution in the checkpoint
        sides = (vision.temporal_patch_size, vision.patch_size, vision.patch_size)
        file_shape = (vision.hidden_size, vision.in_channels, *sides)
    elif weight.inputs:
        file_shape = (math.prod(shape[weight.inputs :]), math.prod(shape[: weight.inputs]))
    else:
        file_shape = (math.prod(shape),) if weight.path.endswith(".bias") else shape
    return _Tensor(names, stacked, shape, file_shape, transposed=weight.inputs > 0)


def _layouts(state: nnx.State, config: Qwen3VLConfig) -> dict[tuple[Any, ...], _Tensor]:
    """The layout of every parameter of a model, by its path in `state`."""
    weights = {weight.path: weight for weight in WEIGHTS}
    return {
        path: _layout(weights[".".join(map(str, path))], variable.shape, config)
        for path, variable in nnx.to_flat_state(state)
    }


def load_config(folder: str | os.PathLike[str]) -> Qwen3VLConfig:
    """The configuration in `folder`/config.json. FileNotFoundError or ValueError say what is wrong."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; expected the Hugging Face folder of a Qwen3-VL model"
        )
    return Qwen3VLConfig.from_dict(json.loads(path.read_text()))


def load_model(
    folder: str | os.PathLike[str],
    *,
    dtype: Any = jnp.float32,
    param_dtype: Any | None = None,
    remat: str = "none",
) -> Qwen3VL:
    """The model in a Hugging Face folder.

    Args:
      folder: with config.json and safetensors, in one file or several.
      dtype: of activations.
      param_dtype: of parameters; None keeps that of the checkpoint.
      remat: see `Qwen3VL`.

    Raises:
      FileNotFoundError: when a file is missing.
      ValueError: listing every tensor that is missing, unexpected or of the wrong shape.
    """
    config = load_config(folder)
    graphdef, _ = nnx.split(_abstract_model(config, dtype=dtype, remat=remat))
    return nnx.merge(graphdef, load_params(folder, config, param_dtype=param_dtype))


def load_params(
    folder: str | os.PathLike[str],
    config: Qwen3VLConfig,
    *,
    param_dtype: Any | None = None,
    shardings: nnx.State | None = None,
) -> nnx.State:
    """The parameters in a Hugging Face folder, as `nnx.state(model, nnx.Param)`.

    Args:
      folder, param_dtype: see `load_model`.
      config: from `load_config(folder)`.
      shardings: a state of the same structure that holds a `jax.sharding.Sharding` per parameter. Each
        parameter is placed as soon as it is read, so the host never holds more than one (stacked) parameter.

    Raises:
      as `load_model`.
    """
    state = nnx.state(_abstract_model(config), nnx.Param)
    layouts = _layouts(state, config)
    placed = dict(nnx.to_flat_state(shardings)) if shardings is not None else None
    with ExitStack() as stack:
        files = _open_checkpoint(Path(folder), stack)
        _check(Path(folder), files, layouts, tied=config.tie_word_embeddings)
        loaded = []
        for path, variable in nnx.to_flat_state(state):
            array = _read(files, layouts[path], param_dtype)
            sharding = None if placed is None else placed[path]
            loaded.append((path, variable.replace(_place(array, sharding))))
    return nnx.from_flat_state(loaded)


def _place(array: np.ndarray, sharding: Any | None) -> jax.Array:
    if sharding is None:
        return jnp.asarray(array)
    sharding = sharding.get_value() if isinstance(sharding, nnx.Variable) else sharding
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _abstract_model(config: Qwen3VLConfig, **options: Any) -> Qwen3VL:
    """The model with shapes for parameters."""
    return nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0), **options))


def _open_checkpoint(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """An open safetensors file for every tensor name in the folder."""
    index, single = folder / INDEX_FILE, folder / SINGLE_FILE
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    elif single.is_file():
        names = [SINGLE_FILE]
    else:
        raise FileNotFoundError(f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}")
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise FileNotFoundError(f"{folder}: {INDEX_FILE} names files that are not there: {', '.join(absent)}")
    files: dict[str, Any] = {}
    for name in names:
        file = stack.enter_context(safe_open(folder / name, framework="numpy"))
        files.update(dict.fromkeys(file.keys(), file))
    return files


def _check(folder: Path, files: dict[str, Any], layouts: dict[Any, _Tensor], *, tied: bool) -> None:
    """Raises one ValueError with all that differs between the checkpoint and the model."""
    expected = {name: tensor.file_shape for tensor in layouts.values() for name in tensor.names}
    problems = [f"missing: {name} {list(expected[name])}" for name in sorted(expected.keys() - files.keys())]
    # Some writers keep a copy of the tied head; transformers ignores it, and so do we.
    unexpected = files.keys() - expected.keys() - ({"lm_head.weight"} if tied else set())
    problems += [f"unexpected: {name}" for name in sorted(unexpected)]
    for name in sorted(expected.keys() & files.keys()):
        found = tuple(files[name].get_slice(name).get_shape())
        if found != expected[name]:
            problems.append(f"wrong shape: {name} is {list(found)}, expected {list(expected[name])}")
    if problems:
        raise ValueError(
            f"{folder}: the weights do not fit config.json ({len(problems)} problems)\n  "
            + "\n  ".join(problems)
        )


def _read(files: dict[str, Any], tensor: _Tensor, param_dtype: Any | None) -> np.ndarray:
    """One parameter, its layers stacked."""
    out: np.ndarray | None = None
    for i, name in enumerate(tensor.names):
        array = tensor.from_file(files[name].get_tensor(name))
        if out is None:
            out = np.empty((len(tensor.names), *tensor.shape), param_dtype or array.dtype)
        elif param_dtype is None and array.dtype != out.dtype:
            raise ValueError(
                f"{name} is {array.dtype} but {tensor.names[0]} is {out.dtype}; give a param_dtype"
            )
        out[i] = array
    assert out is not None
    return out if tensor.stacked else out[0]


def save_model(
    folder: str | os.PathLike[str],
    model: Qwen3VL,
    *,
    dtype: Any | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes config.json and safetensors that transformers and `load_model` read.

    All is written into a temporary folder beside `folder`, which is renamed at the end: a folder of that
    name is always whole.

    Args:
      folder: to create; it may exist if it is empty.
      model: with parameters this process can read.
      dtype: to convert the parameters to; None keeps theirs, bit for bit.
      max_shard_bytes: size above which the weights are split into several files.

    Raises:
      FileExistsError: if `folder` has something in it.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder; remove it or choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        state = nnx.state(model, nnx.Param)
        written = _write_weights(temporary, state, model.config, dtype, max_shard_bytes)
        config = {**model.config.to_dict(), "dtype": written}
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        temporary.chmod(0o755)  # mkdtemp and safetensors make them private
        for path in temporary.iterdir():
            path.chmod(0o644)
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_weights(
    folder: Path, state: nnx.State, config: Qwen3VLConfig, dtype: Any | None, max_shard_bytes: int
) -> str:
    """Writes the weights and, if there are several files, their index. Returns the name of the dtype."""
    shards = _plan_shards(state, config, dtype, max_shard_bytes)
    tensors = checkpoint_tensors(state, config, dtype)
    weight_map: dict[str, str] = {}
    total_size = total_parameters = 0
    dtypes = []
    for number, names in enumerate(shards, start=1):
        file = SINGLE_FILE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        arrays = dict(next(tensors) for _ in names)
        save_file(arrays, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(arrays, file))
        total_size += sum(array.nbytes for array in arrays.values())
        total_parameters += sum(array.size for array in arrays.values())
        dtypes += [array.dtype.name for array in arrays.values()]
    if len(shards) > 1:
        metadata = {"total_size": total_size, "total_parameters": total_parameters}
        index = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")
    return max(set(dtypes), key=dtypes.count)


def _plan_shards(
    state: nnx.State, config: Qwen3VLConfig, dtype: Any | None, max_shard_bytes: int
) -> list[list[str]]:
    """Tensor names of each file, in the order of `checkpoint_tensors`; a file holds at least one tensor."""
    shards: list[list[str]] = [[]]
    used = 0
    layouts = _layouts(state, config)
    for path, variable in nnx.to_flat_state(state):
        size = math.prod(layouts[path].file_shape) * np.dtype(dtype or variable.dtype).itemsize
        for name in layouts[path].names:
            if shards[-1] and used + size > max_shard_bytes:
                shards.append([])
                used = 0
            shards[-1].append(name)
            used += size
    return shards


def checkpoint_tensors(
    state: nnx.State, config: Qwen3VLConfig, dtype: Any | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of the checkpoint by name, one parameter on the host at a time."""
    layouts = _layouts(state, config)
    for path, variable in nnx.to_flat_state(state):
        tensor, array = layouts[path], np.asarray(variable.get_value())
        array = array if dtype is None else array.astype(dtype)
        for name, layer in zip(tensor.names, array if tensor.stacked else array[None], strict=True):
            yield name, tensor.to_file(layer)
