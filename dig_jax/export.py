"""Writes a Hugging Face folder from a checkpoint: `python -m dig_jax.export --workdir=DIR --out=DIR`.

The folder holds config.json, generation_config.json, safetensors (in several files with an index where they
are large), tokenizer and processor files: transformers loads it, and so do the other commands (`--model=DIR`)
and training (`--config.model_path=DIR`). A small file beside them, dig_jax.json, has the question, length of
answers, sampling, image limits and box convention of the run: the other commands ask the model as the run
did. The folder appears when it is complete; what an interrupted export leaves has another, hidden name, and
the next export to the same place removes it. Both folders may be in a bucket.

A run with adapters (LoRA) is written as one plain model, merged in float32. `--adapters` writes the adapters
alone, as PEFT keeps them: `PeftModel.from_pretrained(model, DIR)` puts them onto the model they were trained
beside.

The parameters are held by this machine's devices meanwhile, or by those of all processes (--distributed); the
host holds one tensor at a time.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dig_jax.machines import parallel, textfile
from dig_jax.machines.folder import check_free, to_path, writable_folder, write_json
from dig_jax.models.hf import checkpoint, peft
from dig_jax.run import cli, loading, model_folder
from dig_jax.run.loading import Opened


def export(
    workdir: epath.Path,
    out: epath.Path,
    mesh: Mesh,
    *,
    step: int | None = None,
    dtype: str | None = None,
    max_shard_bytes: int = checkpoint.MAX_SHARD_BYTES,
) -> None:
    """Writes the parameters of a checkpoint as a Hugging Face folder; `out` appears when it is complete.

    Args:
        workdir: of the run.
        out: folder to create.
        mesh: where the parameters are held meanwhile. With several processes all must call this; the first
            one writes.
        step: which checkpoint; None takes the newest.
        dtype: of the written tensors; None takes that of the model the run started from, as its config.json
            says, and where it says none, the run's parameter dtype.
        max_shard_bytes: size above which the weights are split into several files.

    Raises:
        FileNotFoundError: there is no such workdir or checkpoint.
        FileExistsError: `out` has something in it, or another process is writing it.
    """
    opened = _open(workdir, out)
    config = opened.config
    settings = textfile.read_json(opened.files / "config.json")
    dtype = dtype or _dtype_of(settings)
    _, params = loading.load_params(config, opened, mesh, step, merged_dtype=dtype)
    with checkpoint.writer(out) as folder:
        written_dtype = checkpoint.write_weights(
            folder, params, opened.architecture, jnp.dtype(dtype) if dtype else None, max_shard_bytes
        )
        if folder is not None:
            model_folder.copy_model_files(opened.files, folder)
            model_folder.write_run_file(config, folder)
            write_json(folder / "config.json", _with_dtype(settings, written_dtype))


def _dtype_of(config: dict[str, Any]) -> str | None:
    """The dtype that a config.json names, for the whole or for the decoder; None where it names none."""
    for part in (config, config.get("text_config", {})):
        for key in ("dtype", "torch_dtype"):
            if part.get(key) in {"bfloat16", "float16", "float32"}:
                return part[key]
    return None


def export_adapters(
    workdir: epath.Path,
    out: epath.Path,
    mesh: Mesh,
    *,
    step: int | None = None,
    dtype: str | None = None,
    base: str | None = None,
) -> None:
    """Writes the adapters of a checkpoint as PEFT keeps them; `out` appears when it is complete.

    Args:
        workdir, out, mesh, step: see `export`.
        dtype: of the written tensors; None keeps float32, in which they are trained.
        base: name or folder of the model they were trained beside; None takes the run's `model_path`. One
            that is a folder here is compared with the run's parameters.

    Raises:
        FileNotFoundError: there is no such workdir or checkpoint.
        FileExistsError: `out` has something in it, or another process is writing it.
        ValueError: the run trained no adapters, or they belong to another model.
    """
    opened = _open(workdir, out)
    config = opened.config
    if not config.model.lora.rank:
        raise ValueError(f"--adapters: the run in {workdir} trained none (config.model.lora.rank=0)")
    start = config.init_from or config.model_path
    if base is None and (config.init_from or model_folder.is_workdir(to_path(start))):
        raise ValueError(
            f"--adapters: this run started from another one, {start}, so its adapters go onto the model of"
            f" that: export it with --workdir={start} --dtype={config.model.param_dtype} and name its folder"
            " here with --base=DIR"
        )
    base = base or start
    _, params = loading.load_policy(config, opened, mesh, step)
    if to_path(base).is_dir():
        peft.check_base(to_path(base), params, opened.architecture)
    with checkpoint.writer(out) as folder:
        peft.write_adapters(
            folder,
            params,
            opened.architecture,
            rank=config.model.lora.rank,
            alpha=config.model.lora.alpha,
            base=base,
            dtype=jnp.dtype(dtype or "float32"),
        )


def _open(workdir: epath.Path, out: epath.Path) -> Opened:
    """The run's model; errors of both folders come before the time that loading takes."""
    if not model_folder.is_workdir(workdir):
        raise FileNotFoundError(f"--workdir={workdir} is not the workdir of a run with a checkpoint")
    check_free(out)
    if jax.process_index() == 0:
        writable_folder(out, "--out")
    return loading.open_weights(workdir)


def _with_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """A config.json that names the dtype of the weights, here and in its parts; all else stays."""

    def changed(part: dict[str, Any]) -> dict[str, Any]:
        part = {key: changed(value) if isinstance(value, dict) else value for key, value in part.items()}
        return {**part, **{key: dtype for key in ("dtype", "torch_dtype") if key in part}}

    return {**changed(config), "dtype": dtype}


def mesh_for(sizes: ConfigDict) -> Mesh:
    """The run's mesh, where these are as many devices as it had; else all devices share the parameters."""
    try:
        return parallel.make_mesh(sizes)
    except ValueError:
        return parallel.make_mesh(ConfigDict({"data": 1, "fsdp": jax.device_count(), "tensor": 1}))


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="dig_jax.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, help="workdir of a run")
    parser.add_argument("--out", required=True, help="Hugging Face folder to create; it may exist if empty")
    parser.add_argument("--step", type=int, help="checkpoint to export (default: the newest)")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="of the tensors (default: that of the model the run started from)",
    )
    parser.add_argument(
        "--max_shard_bytes",
        type=int,
        default=checkpoint.MAX_SHARD_BYTES,
        help="weights above this size are split into several files (default: %(default)s)",
    )
    parser.add_argument(
        "--adapters", action="store_true", help="write the adapters of a LoRA run alone, in PEFT's layout"
    )
    parser.add_argument(
        "--base", help="with --adapters: the model they were trained beside (default: the run's model_path)"
    )
    cli.add_process_flags(parser)
    args = parser.parse_args(argv)
    if args.max_shard_bytes < 1:
        parser.error(f"--max_shard_bytes={args.max_shard_bytes}: expected at least 1")
    if args.base and not args.adapters:
        parser.error("--base is for --adapters: a merged model needs no other")
    with cli.user_errors():
        workdir, out = to_path(args.workdir), to_path(args.out)
        config = cli.config_of(workdir)
        with cli.processes(args, config.distributed.silence_seconds), cli.user_errors():
            mesh = mesh_for(config.mesh)
            if args.adapters:
                export_adapters(workdir, out, mesh, step=args.step, dtype=args.dtype, base=args.base)
            else:
                shard_bytes = args.max_shard_bytes
                export(workdir, out, mesh, step=args.step, dtype=args.dtype, max_shard_bytes=shard_bytes)
            if jax.process_index() == 0:
                print(f"wrote {out}")


if __name__ == "__main__":
    main()
