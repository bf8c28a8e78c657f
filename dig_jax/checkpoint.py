"""Orbax checkpoints of a run, and finding the model a run starts from.

A checkpoint holds everything the next step depends on: parameters, optimizer state, the step (which fixes the
data position and all randomness), the best score so far, and the fingerprint of the frozen reference model. A
workdir also keeps `model/`, the Hugging Face files without weights, so that a workdir can be used wherever a
model is asked.
"""

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx

from dig_jax.folder import is_local

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)


class Checkpoints:
    """Asynchronous checkpoints under `workdir/checkpoints`; the newest `keep` stay."""

    def __init__(self, workdir: epath.Path, keep: int = 1):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        # Orbax wants an absolute path. That of a bucket is, and `resolve` would look for it on the disk.
        folder = workdir.resolve() if is_local(workdir) else workdir
        self._manager = ocp.CheckpointManager(
            folder / "checkpoints", options=options, item_names=("state", "meta")
        )

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint; None when there is none."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Starts writing `state` (a pytree of arrays) and `meta` (JSON); returns before the write is done."""
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=items)

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """Reads the checkpoint of `step` into the structure, dtypes and shardings of `like`."""
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        return restored["state"], restored["meta"]

    def restore_params(self, step: int, like: nnx.State) -> nnx.State:
        """Reads only the parameters of a checkpoint, cast to the dtypes of `like`."""
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
        items = ocp.args.PyTreeRestore(
            item={"params": abstract}, restore_args={"params": restore_args}, partial_restore=True
        )
        directory = self._manager.directory / str(step) / "state"
        with ocp.PyTreeCheckpointer() as reader:
            return reader.restore(directory, args=items)["params"]

    def close(self) -> None:
        """Completes the write under way and stops the background threads."""
        self._manager.wait_until_finished()
        self._manager.close()


def is_workdir(path: epath.Path) -> bool:
    """Whether `path` is a training workdir (as opposed to a Hugging Face folder)."""
    return (path / "checkpoints").is_dir() and (path / "model" / "config.json").exists()


def find_model(path: str) -> epath.Path:
    """Resolves a Hugging Face folder, a workdir or a hub id to a folder, local or in a bucket.

    A hub id (`organisation/name`) is taken from the local hub cache, or fetched by `huggingface_hub`.

    Raises:
        FileNotFoundError: there is no such folder and the hub did not give it; the message says how to get
            one.
        ValueError: it is in a bucket, and what reads those is not installed.
    """
    how = (
        "Download it where there is a network, for example\n"
        "    hf download Qwen/Qwen3-VL-4B-Thinking --local-dir models/Qwen3-VL-4B-Thinking\n"
        "and pass --config.model_path=models/Qwen3-VL-4B-Thinking (evaluate and generate: --model=...);"
        " a training workdir works too."
    )
    if not path:
        raise FileNotFoundError(f"no model is given (model_path is empty). {how}")
    folder = epath.Path(path).expanduser()  # shells leave the ~ of --model=~/folder to us
    try:
        found = folder.is_dir()
    except ImportError as error:
        raise ValueError(f"{path}: buckets need another package ({error}), gcsfs for gs://") from error
    if found:
        if not is_workdir(folder) and not (folder / "config.json").exists():
            raise FileNotFoundError(f"{path} is neither a Hugging Face folder nor a finished workdir. {how}")
        return folder
    parts = path.split("/")
    if len(parts) != 2 or not all(parts) or path.startswith("."):
        raise FileNotFoundError(f"model folder {path} does not exist. {how}")
    return _from_hub(path, how)


def find_workdir(path: str) -> epath.Path:
    """The workdir of an earlier stage.

    Raises:
        FileNotFoundError: it is not one; the message says how to get one.
    """
    workdir = epath.Path(path).expanduser()
    if not is_workdir(workdir):
        raise FileNotFoundError(
            f"init_from={path} is not a workdir with a checkpoint: train the earlier stage with"
            f" --workdir={path} first, name another with --config.init_from=DIR, or start from the model"
            " itself with --config.init_from="
        )
    return workdir


def _from_hub(repo: str, how: str) -> epath.Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt"]
    try:
        return epath.Path(snapshot_download(repo, allow_patterns=patterns, etag_timeout=5))
    except Exception as error:  # the hub client raises many kinds; all mean that there is no model
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"model {repo} is not a local folder, and the hub did not give it ({reason}). {how}"
        ) from error


def hf_files(model: epath.Path) -> epath.Path:
    """The folder with config, tokenizer and processor files of a Hugging Face folder or workdir."""
    return model / "model" if is_workdir(model) else model


def copy_model_files(source: epath.Path, target: epath.Path) -> None:
    """Copies configuration, tokenizer and processor files, but no weights."""
    target.mkdir(parents=True, exist_ok=True)
    for name in MODEL_FILES:
        if (source / name).exists():
            (source / name).copy(target / name, overwrite=True)


def fingerprint(params: nnx.State) -> str:
    """Identity of a set of parameters: a hash of every tensor's bits, summed on the devices that hold them.

    Each element's bits are multiplied by an odd number that depends on its position, so that permuted or
    changed elements change the sum; only one number per tensor travels to the host.
    """

    @jax.jit
    def checksums(tree: nnx.State) -> list[jax.Array]:
        return [_checksum(leaf) for leaf in jax.tree.leaves(tree)]

    digest = hashlib.sha256()
    for value in checksums(params):
        digest.update(np.asarray(value).tobytes())
    return digest.hexdigest()[:16]


def _checksum(array: jax.Array) -> jax.Array:
    unsigned = {2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)
    position = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    return jnp.sum(bits * (2 * position + 1) * jnp.uint32(2654435761), dtype=jnp.uint32)


def write_json(path: epath.Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never a part."""
    temporary = path.parent / f".{path.name}.tmp"
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    temporary.replace(path)
