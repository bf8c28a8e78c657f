"""In which order a checkpoint has the matrices of experts: [inputs, outputs] as the model, or exchanged.

Files of the hub, written by transformers 4, have them as the model; transformers 5 writes them exchanged,
under the same names. The shape tells which, unless a matrix is square. Then the version in config.json does,
which transformers does not look at: it takes a square one as its own, whoever wrote it.
"""

from collections.abc import Mapping
from typing import Any

from etils import epath

from dig_jax.machines import textfile
from dig_jax.models.hf.layout import Layout
from dig_jax.models.hf.safetensors_io import Entry

Plan = dict[tuple[Any, ...], Layout]


def as_found(plan: Plan, entries: Mapping[str, Entry], folder: epath.PathLike) -> Plan:
    """The layouts of parameters as a folder has them.

    Args:
      plan: as they would be written.
      entries: the tensors of the folder.
      folder: of the file.

    Raises:
      ValueError: a matrix is square, and no version says how it is meant; or layers differ.
    """
    return {path: _of_experts(layout, entries, epath.Path(folder)) for path, layout in plan.items()}


def _of_experts(layout: Layout, entries: Mapping[str, Entry], folder: epath.Path) -> Layout:
    if not layout.matrices:
        return layout
    as_model, flipped = layout.with_experts(flipped=False), layout.with_experts(flipped=True)
    if as_model.file_shape == flipped.file_shape:
        return flipped if _written_by_5(folder, layout) else as_model
    shapes = {entries[name].shape for name in layout.names if name in entries}
    return flipped if shapes == {flipped.file_shape} else as_model  # what differs is an error of the reader


def _written_by_5(folder: epath.Path, layout: Layout) -> bool:
    """Whether transformers 5 wrote the folder, and not 4."""
    config = folder / "config.json"
    version = textfile.read_json(config).get("transformers_version")
    major = str(version).partition(".")[0]
    if major not in ("4", "5"):
        raise ValueError(
            f"{config}: transformers_version is {version!r}, and the experts {layout.names[0]} are square"
            f" {list(layout.file_shape)}: the shape does not tell whether they are [inputs, outputs], as"
            " transformers 4 writes them, or exchanged, as transformers 5 does; expected its version"
        )
    return major == "5"
