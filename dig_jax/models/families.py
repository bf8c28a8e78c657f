"""The model families there are, and which of them a folder, a configuration or a name belongs to."""

from typing import Any

from etils import epath
from flax import nnx

from dig_jax.machines import textfile
from dig_jax.models.api import Architecture, Family
from dig_jax.models.clip_dino_qwen.family import FAMILY as CLIP_DINO_QWEN
from dig_jax.models.hf import layout
from dig_jax.models.qwen2_5_vl.family import FAMILY as QWEN2_5_VL
from dig_jax.models.qwen3_vl.family import FAMILY as QWEN3_VL
from dig_jax.models.qwen3_vl_moe.family import FAMILY as QWEN3_VL_MOE

FAMILIES: tuple[Family, ...] = (QWEN3_VL, QWEN3_VL_MOE, QWEN2_5_VL, CLIP_DINO_QWEN)


def of_type(model_type: Any) -> Family:
    """The family of a config.json with this model_type.

    Raises:
      ValueError: it is none of ours.
    """
    for family in FAMILIES:
        if family.model_type == model_type:
            return family
    known = " or ".join(f"{family.model_type!r} ({family.title})" for family in FAMILIES)
    raise ValueError(f"model_type is {model_type!r}, but only {known} is supported")


def of(architecture: Architecture) -> Family:
    """The family of a configuration."""
    return next(family for family in FAMILIES if type(architecture) is family.config)


def of_folder(folder: epath.PathLike) -> Family:
    """The family of a Hugging Face folder; errors as those of `load_config`."""
    return _read(folder)[0]


def load_config(folder: epath.PathLike) -> Architecture:
    """The configuration in `folder`/config.json.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged, of no family, or asks for something that its family does not do.
    """
    family, settings = _read(folder)
    try:
        return family.config.from_dict(settings)
    except ValueError as error:
        raise ValueError(f"{epath.Path(folder) / 'config.json'}: {error}") from error


def _read(folder: epath.PathLike) -> tuple[Family, dict[str, Any]]:
    path = epath.Path(folder) / "config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; expected the Hugging Face folder of a vision-language model"
        )
    settings = textfile.read_json(path)
    try:
        return of_type(settings.get("model_type")), settings
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def published(name: str) -> Architecture:
    """A published architecture by its size or its full name: "4B", "Qwen3-VL-4B", "Qwen3-VL-30B-A3B".

    Where several families have a size, the size alone means the first of them.

    Raises:
      ValueError: there is none of that name.
    """
    for family in FAMILIES:
        for size in family.sizes:
            if name in (size, f"{family.title}-{size}", f"{family.series}-{size}"):
                return family.published(size)
    raise ValueError(f"no published architecture is called {name!r}: give {', '.join(published_names())}")


def published_names() -> list[str]:
    """Full names of all published architectures, as hubs have them but for what follows ("-Thinking")."""
    return [f"{family.series}-{size}" for family in FAMILIES for size in family.sizes]


def make(config: Architecture, **options: Any) -> Any:
    """The model of a configuration; options as of `VisionLanguageModel`."""
    return of(config).model(config, **options)


def abstract_model(config: Architecture, **options: Any) -> Any:
    """The model with shapes for parameters; options as of `VisionLanguageModel`."""
    return nnx.eval_shape(lambda: make(config, rngs=nnx.Rngs(0), **options))


def layouts(params: nnx.State, config: Architecture) -> dict[tuple[Any, ...], layout.Layout]:
    """The layout in a checkpoint of every parameter (arrays or shapes), by its path in `params`."""
    return layout.layouts(params, of(config).weights(config))
