"""Which checkpoint of a workdir is the newest, while its run may be writing there."""

from etils import epath

from dig_jax.run import model_folder
from dig_jax.run.checkpoint import Checkpoints


def newest_step(workdir: epath.Path) -> int:
    """The step of the newest whole checkpoint, of those that every process sees.

    Raises:
        FileNotFoundError: there is none.
    """
    checkpoints = Checkpoints(workdir, read_only=True)
    try:
        steps = checkpoints.common_steps()
    finally:
        checkpoints.close()
    if not steps:
        raise FileNotFoundError(f"{workdir} has no complete checkpoint")
    return steps[-1]


def check_followed(model: epath.Path, seconds: float) -> None:
    """Refuses to look for newer checkpoints where none can come.

    Args:
        model: folder.
        seconds: between two looks; 0 for none.

    Raises:
        ValueError: the folder is not the workdir of a run, or the seconds are negative.
    """
    if seconds < 0:
        raise ValueError(f"--newest_seconds={seconds:g}: expected 0 or more")
    if seconds and not model_folder.is_workdir(model):
        raise ValueError(
            f"--newest_seconds={seconds:g}: {model} is not the workdir of a run, so no newer checkpoints come"
        )
