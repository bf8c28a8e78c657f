"""The smallest model that trains, as a Hugging Face folder: for tests of steps and of whole commands."""

import atexit
import functools
import pathlib
import shutil
import tempfile

from dig_jax.scratch import ScratchConfig, make_scratch_folder

SIZES = {"vision_depth": 1, "vision_inner": 64, "text_depth": 1, "text_inner": 64, "image_size": 64}
# Instead of the three heads of its vision tower: so many that two devices of a `tensor` group can share them,
# or four.
FOR_TWO_DEVICES = {"vision_heads": 4, "vision_width": 128}
FOR_FOUR_DEVICES = FOR_TWO_DEVICES | {"text_heads": 4, "text_kv_heads": 4}


def make_small_model(folder: pathlib.Path, **changes: int | str) -> None:
    """Writes the model, random, with `changes` to its `ScratchConfig`: a copy of the first one like it."""
    shutil.copytree(_made(**changes), folder, dirs_exist_ok=True)


@functools.cache
def _made(**changes: int | str) -> pathlib.Path:
    """A folder with the model, for as long as this process. Making one takes seconds."""
    parent = pathlib.Path(tempfile.mkdtemp(prefix="small_model_"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    make_scratch_folder(parent / "model", ScratchConfig(**SIZES | changes))
    return parent / "model"
