"""Makes the folder of a model whose parts are published apart: the start of its training.

    python -m dig_jax.assemble --clip=DIR --dino=DIR --qwen=DIR --out=DIR

The parts are Hugging Face folders with safetensors; which there are, a family says (`models.api.Family`).
Their tensors are copied bit for bit, one at a time and in the dtype they have; what no part has is drawn from
`--seed`. The tokenizer and the settings of sampling are those of the part that has a tokenizer; chat template
and image processor are written. The folder loads wherever a model is asked, and appears whole or not at all.
"""

import argparse
import collections
import inspect
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from flax import nnx

from dig_jax.data.images import ImageConfig
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.machines.folder import check_free, to_path, whole_folder, writable_folder
from dig_jax.models import families
from dig_jax.models.api import Family
from dig_jax.models.architecture import Architecture
from dig_jax.models.hf import checkpoint
from dig_jax.models.hf.chat_template import chat_template
from dig_jax.models.hf.safetensors_io import Tensor, write_checkpoint
from dig_jax.run import model_folder

# Of a part's folder; the rest is written anew.
_TOKENIZER_FILES = tuple(
    name
    for name in model_folder.MODEL_FILES
    if name != "config.json" and "processor" not in name and "chat_template" not in name
)


def assemble(
    family: Family,
    parts: Mapping[str, epath.Path],
    out: epath.PathLike,
    *,
    max_shard_bytes: int = checkpoint.MAX_SHARD_BYTES,
    **options: Any,
) -> Architecture:
    """Writes the folder, and returns the model's configuration.

    Args:
      family: with parts.
      parts: folder of each, by name.
      out: the folder to make; it may exist if it is empty.
      max_shard_bytes: size above which the weights are split into several files.
      options: keywords of `family.assemble`.

    Raises:
      FileNotFoundError: a folder or a file of it is missing.
      ValueError: the parts do not fit each other, or are of other models.
      FileExistsError: `out` has something in it.
    """
    assert family.assemble is not None
    out = to_path(out)
    check_free(out)
    writable_folder(out, "--out")
    config, tensors = family.assemble(parts, **options)
    tensors = sorted(tensors, key=lambda tensor: -tensor.spec.dtype.itemsize)
    _check(tensors, config)
    texts = next(folder for folder in parts.values() if _has_tokenizer(folder))
    with whole_folder(out) as folder:
        model_folder.copy_model_files(texts, folder)
        for name in set(model_folder.MODEL_FILES) - set(_TOKENIZER_FILES):
            (folder / name).unlink(missing_ok=True)
        (folder / "chat_template.jinja").write_text(chat_template(family))
        _image_config(family, config).save(folder, family.processor)
        written = {**config.to_dict(), "dtype": _main_dtype(tensors)}
        (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")
        load_tokenizer(folder)  # refuses one that does not fit
        write_checkpoint(
            folder,
            [tensor.spec for tensor in tensors],
            (tensor.make() for tensor in tensors),
            max_shard_bytes,
        )
    return config


def _has_tokenizer(folder: epath.Path) -> bool:
    return (folder / "tokenizer.json").exists() or (folder / "merges.txt").exists()


def _image_config(family: Family, config: Architecture) -> ImageConfig:
    vision = config.vision
    area = (vision.fixed_side or vision.patch_size) ** 2
    return ImageConfig(
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
        temporal_patch_size=vision.temporal_patch_size,
        min_pixels=area,
        max_pixels=area,
        mean=family.pixel_mean,
        std=family.pixel_std,
        square=vision.fixed_side is not None,
    )


def _check(tensors: Sequence[Tensor], config: Architecture) -> None:
    """Raises one ValueError with all that differs between the tensors and the model."""
    plan = families.layouts(nnx.state(families.abstract_model(config), nnx.Param), config)
    wanted = {name: layout.file_shape for layout in plan.values() for name in layout.names}
    have = {tensor.spec.name: tensor.spec.shape for tensor in tensors}
    problems = [
        f"{name} is {have.get(name, 'missing')}, expected {wanted.get(name, 'none')}"
        for name in sorted(wanted.keys() | have.keys())
        if have.get(name) != wanted.get(name)
    ]
    if problems:
        raise ValueError(f"the parts do not fit (problems: {len(problems)})\n  " + "\n  ".join(problems))


def _main_dtype(tensors: Sequence[Tensor]) -> str:
    sizes: collections.Counter[str] = collections.Counter()
    for tensor in tensors:
        sizes[tensor.spec.dtype.name] += tensor.spec.nbytes
    return sizes.most_common(1)[0][0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dig_jax.assemble", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made = [family for family in families.FAMILIES if family.assemble]
    parser.add_argument("--out", required=True, help="folder to make; it may exist if it is empty")
    parser.add_argument(
        "--family",
        choices=[family.model_type for family in made],
        default=made[0].model_type if made else None,
        help="default: %(default)s",
    )
    for family in made:
        for name, words in family.parts.items():
            parser.add_argument(f"--{name}", metavar="DIR", help=f"{family.title}: {words}")
        for option in _options(family):
            default = option.default
            parser.add_argument(f"--{option.name}", type=int, help=f"{family.title}: default {default}")
    return parser


def _options(family: Family) -> list[inspect.Parameter]:
    assert family.assemble is not None
    parameters = inspect.signature(family.assemble).parameters.values()
    return [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code: 0, or 1 with a message on stderr."""
    parser = _parser()
    given = vars(parser.parse_args(argv))
    family = families.of_type(given["family"])
    if missing := [f"--{name}" for name in family.parts if not given[name]]:
        parser.error(f"{family.title} is assembled from all of its parts; missing: {', '.join(missing)}")
    options = {o.name: given[o.name] for o in _options(family) if given[o.name] is not None}
    try:
        parts = {name: model_folder.find_model(given[name]) for name in family.parts}
        config = assemble(family, parts, given["out"], **options)
    except (ValueError, OSError) as error:
        print(f"dig_jax.assemble: {error}", file=sys.stderr)
        return 1
    shapes = nnx.state(families.abstract_model(config), nnx.Param)
    count = sum(math.prod(variable.shape) for _, variable in nnx.to_flat_state(shapes))
    print(f"{given['out']}: {family.title} with {count:,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
