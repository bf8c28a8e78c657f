"""Writes a Hugging Face folder from a checkpoint: `python -m dig_jax.export --workdir=DIR --out=DIR
[--step=N]`.

The folder holds config, safetensors (sharded above 5 GB), tokenizer and processor files: transformers loads
it, and so do the other commands (`--model=DIR`) and training (`--config.model_path=DIR`).
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence

import jax.numpy as jnp
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from dig_jax import checkpoint, cli, loading, parallel
from dig_jax.models.qwen3_vl import hf


def export(
    workdir: epath.Path, out: epath.Path, mesh: Mesh, step: int | None = None, dtype: str | None = None
) -> None:
    """Writes the parameters of a checkpoint as a Hugging Face folder; `out` appears when it is complete.

    Args:
        workdir: of the run.
        out: folder to create.
        mesh: where the parameters are held meanwhile.
        step: which checkpoint; None takes the newest.
        dtype: of the written tensors; None keeps the run's parameter dtype.

    Raises:
        FileNotFoundError: there is no such workdir or checkpoint.
        FileExistsError: `out` has something in it.
    """
    if not checkpoint.is_workdir(workdir):
        raise FileNotFoundError(f"--workdir={workdir} is not the workdir of a run with a checkpoint")
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"--out={out} is not empty; remove it or choose another name")
    config = cli.config_of(workdir)
    graphdef, params = loading.load_params(config, workdir, workdir, mesh, step=step)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        folder = epath.Path(temporary) / "model"
        hf.save_model(folder, nnx.merge(graphdef, params), dtype=jnp.dtype(dtype) if dtype else None)
        written = (folder / "config.json").read_text()
        checkpoint.copy_model_files(workdir / "model", folder)
        (folder / "config.json").write_text(written)
        if out.exists():
            out.rmdir()
        shutil.move(folder, out)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="dig_jax.export", description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True, help="workdir of a run")
    parser.add_argument("--out", required=True, help="Hugging Face folder to create")
    parser.add_argument("--step", type=int, help="checkpoint to export (default: the newest)")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), help="of the tensors (default: the run's)"
    )
    args = parser.parse_args(argv)
    with cli.user_errors():
        mesh = parallel.make_mesh(cli.config_of(epath.Path(args.workdir)).mesh)
        export(epath.Path(args.workdir), epath.Path(args.out), mesh, args.step, args.dtype)
        print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
