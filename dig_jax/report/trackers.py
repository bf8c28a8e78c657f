"""What TensorBoard and Weights & Biases are told of a run: metrics, and answers with their boxes.

Weights & Biases draws boxes itself, over the images as they are, and lets a reader switch each class on and
off. TensorBoard draws none: it gets the picture that is in samples/, with the boxes in it.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from dig_jax.machines.folder import write_result

if TYPE_CHECKING:  # an annotation alone
    from PIL import Image

TENSORBOARD_FOLDER = "tensorboard"
WANDB_FILE = "wandb_id"
TRUE, PREDICTED = 1, 2  # classes of boxes

Box = Sequence[float]  # x0, y0, x1, y1, shares of width and height


@dataclasses.dataclass(frozen=True)
class Boxes:
    """Boxes of an answer, the same on all of its images.

    Attributes:
      true: of the example.
      predicted: read from the answer.
      kinds: of the true ones, or none.
    """

    true: Sequence[Box]
    predicted: Sequence[Box]
    kinds: Sequence[str] = ()

    def overlays(self) -> dict[str, Any]:
        """As `wandb.Image` takes them."""
        names = [*self.kinds] or ["true"] * len(self.true)
        true = [_box(box, TRUE, name) for box, name in zip(self.true, names, strict=True)]
        predicted = [_box(box, PREDICTED, "predicted") for box in self.predicted]
        return {
            "ground_truth": {"box_data": true, "class_labels": {TRUE: "true"}},
            "predictions": {"box_data": predicted, "class_labels": {PREDICTED: "predicted"}},
        }


def _box(box: Box, kind: int, caption: str) -> dict[str, Any]:
    x0, y0, x1, y1 = map(float, box)
    corners = {"minX": x0, "minY": y0, "maxX": x1, "maxY": y1}
    return {"position": corners, "class_id": kind, "box_caption": caption}


class Trackers:
    """Those that are asked for.

    Args:
      tensorboard: from `start_tensorboard`, or None.
      wandb: from `start_wandb`, or None.
    """

    def __init__(self, tensorboard: Any, wandb: Any):
        self._tensorboard, self._wandb = tensorboard, wandb

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tells numbers by their whole names."""
        if self._tensorboard:
            for name, value in metrics.items():
                self._tensorboard.add_scalar(name, value, step)
            self._tensorboard.flush()
        if self._wandb:
            self._wandb.log(dict(metrics), step=step)

    def sample(
        self, step: int, number: int, picture: Image.Image, images: Sequence[np.ndarray], boxes: Boxes
    ) -> None:
        """Shows one answer.

        Args:
          step: training steps done.
          number: of the answer, from 0.
          picture: of it, boxes and text included.
          images: what was asked about, uint8 [H, W, 3] each; none where answers have no boxes.
          boxes: of the answer.
        """
        name = f"samples/{number:02d}"
        if self._tensorboard:
            self._tensorboard.add_image(name, np.asarray(picture), step, dataformats="HWC")
        if self._wandb:
            import wandb

            shown = [wandb.Image(image, boxes=boxes.overlays()) for image in images]
            self._wandb.log({name: shown or [wandb.Image(picture)]}, step=step)

    def close(self) -> None:
        """Flushes and closes them."""
        if self._tensorboard:
            self._tensorboard.close()
        if self._wandb:
            self._wandb.finish()


def start_tensorboard(workdir: epath.Path, first_step: int) -> Any:
    """Opens the events of a run that goes on after `first_step`."""
    from tensorboardX import (
        SummaryWriter,
    )  # on use: it imports PyTorch, which takes seconds, where there is one

    # purge_step hides the events that a stopped run wrote for steps that will be done again.
    return SummaryWriter(str(workdir / TENSORBOARD_FOLDER), purge_step=first_step + 1 if first_step else 0)


def start_wandb(project: str, workdir: epath.Path, begun: bool) -> Any:
    """Opens the run of a workdir.

    Raises:
      ModuleNotFoundError: wandb is not installed.
    """
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"config.log.wandb_project={project!r} but wandb is not installed: `pip install wandb`, "
            'or set it to "" to log to files only'
        ) from error
    return wandb.init(project=project, id=_wandb_id(workdir, begun), name=workdir.name, resume="allow")


def _wandb_id(workdir: epath.Path, begun: bool) -> str:
    """The run's identity, kept in the workdir: a continued run goes on in the same curves, wherever it lies.

    Its name is none: others are called so, too. Runs that began before it was kept used that, and go on so.
    """
    file = workdir / WANDB_FILE
    if not file.exists():
        workdir.mkdir(parents=True, exist_ok=True)
        write_result(file, workdir.name if begun else secrets.token_hex(8))
    return file.read_text().strip()
