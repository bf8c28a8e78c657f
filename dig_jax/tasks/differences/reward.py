"""The DiG reward: how well an answer's boxes ground the true differences (arXiv 2512.12633, section 3).

Predicted boxes P (N of them) are matched one to one with true boxes T (M of them) at least total cost

    cost[i, j] = l1_weight * mean|P_i - T_j| + giou_weight * (1 - GIoU(P_i, T_j))

and then

    TP       = number of matched pairs with IoU >= iou_threshold
    F1       = harmonic mean of precision = TP / N and recall = TP / M
    IoU      = sum of the matched pairs' IoU / max(N, M)          (or / matched pairs, see `iou_average`)
    accuracy = f1_weight * F1 + iou_weight * IoU
    format   = 1 if the answer has the required form, else 0
    reward   = (1 - format_weight) * accuracy + format_weight * format

No differences, correctly answered `[]`, is F1 = IoU = 1. Text that is not a list at all (cut off, prose) is
not the answer "none": with M = 0 it still earns nothing, or stopping early would be the best policy on
identical pairs.

The paper states neither threshold nor denominator. Without a threshold "always 3 boxes" earns F1 0.857 at
M = 4 wherever they are, and averaging over matched pairs alone pays for leaving out hard boxes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ml_collections import ConfigDict

from dig_jax.tasks.boxes.iou import IOU_SLACK, costs_and_ious, padded_size
from dig_jax.tasks.boxes.matching import assign
from dig_jax.tasks.boxes.text import THOUSANDTHS, Reading, Scale, read_boxes

IOU_AVERAGES = ("max", "matched")


@dataclass(frozen=True)
class RewardConfig:
    """Settings of the reward; the formula is in the module's docstring.

    Attributes:
      f1_weight: weight of F1 in the accuracy, the paper's lambda_1.
      iou_weight: weight of the mean IoU in the accuracy, the paper's lambda_2. The two sum to at most 1.
      format_weight: share of the format reward, the paper's alpha, in 0..1.
      iou_threshold: IoU from which a matched pair counts as found, in 0..1. 0 counts every matched pair.
      iou_average: what the IoU sum is divided by: "max" for max(N, M), "matched" for the number of matched
      pairs. l1_weight: weight of the L1 distance in the matching cost.
      giou_weight: weight of 1 - GIoU in the matching cost.
      max_boxes: boxes kept of one answer; more is a format error.
    """

    f1_weight: float
    iou_weight: float
    format_weight: float
    iou_threshold: float
    iou_average: str
    l1_weight: float
    giou_weight: float
    max_boxes: int

    @classmethod
    def from_config(cls, config: ConfigDict) -> "RewardConfig":
        """The checked reward settings of a run."""
        return cls(**config.reward.to_dict())

    def __post_init__(self) -> None:
        for name in ("f1_weight", "iou_weight", "format_weight", "iou_threshold"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"reward.{name} is {value}; expected a number from 0 to 1")
        for name in ("l1_weight", "giou_weight"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"reward.{name} is {value}; expected a finite number of at least 0")
        total = self.f1_weight + self.iou_weight
        if not 0 < total <= 1 + 1e-9:
            raise ValueError(
                f"reward.f1_weight + reward.iou_weight is {total}; expected more than 0 and at most 1, "
                "so that the reward stays within 0..1"
            )
        if self.l1_weight == self.giou_weight == 0:
            raise ValueError(
                "reward.l1_weight and reward.giou_weight are both 0; one must be positive to match boxes"
            )
        if self.iou_average not in IOU_AVERAGES:
            raise ValueError(f"reward.iou_average is {self.iou_average!r}; expected one of {IOU_AVERAGES}")
        if isinstance(self.max_boxes, bool) or not isinstance(self.max_boxes, int) or self.max_boxes < 1:
            raise ValueError(f"reward.max_boxes is {self.max_boxes!r}; expected an integer of at least 1")


@dataclass(frozen=True, eq=False)
class BoxScores:
    """Every reward term of n completions, in the order given; arrays are [n].

    Attributes:
      reward, accuracy, format, f1, iou, precision, recall: float32, each in 0..1.
      num_predicted, num_true, true_positives: int32.
      reasons: why the form was or was not valid, from `boxes.text.REASONS`.
      boxes: the boxes read from each completion, float32 [N, 4] normalised.
    """

    reward: np.ndarray
    accuracy: np.ndarray
    format: np.ndarray
    f1: np.ndarray
    iou: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    num_predicted: np.ndarray
    num_true: np.ndarray
    true_positives: np.ndarray
    reasons: tuple[str, ...]
    boxes: tuple[np.ndarray, ...]


METRICS = (
    "reward",
    "accuracy",
    "format",
    "f1",
    "iou",
    "precision",
    "recall",
    "num_predicted",
    "num_true",
    "true_positives",
)


def score_texts(
    texts: Sequence[str],
    true_boxes: np.ndarray,
    num_true: np.ndarray,
    *,
    thinking: bool,
    config: RewardConfig,
    scales: Sequence[Scale] | None = None,
) -> BoxScores:
    """Scores completions against the true boxes of their pairs.

    Args:
      texts: n decoded completions.
      true_boxes: float32 [n, M, 4], normalised, padded with anything.
      num_true: int [n], how many of the M are boxes.
      thinking: whether the prompt opened `<think>`; see `read_boxes`.
      config: the reward's settings.
      scales: coordinates of the right and the bottom edge of the image that each text is about; None for
        thousandths.

    Raises:
      ValueError: shapes disagree, a true box is not finite, or a pair has more than `max_boxes` true boxes
        (no answer could then reach full recall).
    """
    answers = [
        read_boxes(text, thinking=thinking, max_boxes=config.max_boxes, scale=scale)
        for text, scale in zip(texts, [THOUSANDTHS] * len(texts) if scales is None else scales, strict=True)
    ]
    return score_answers(answers, true_boxes, num_true, config)


def score_answers(
    answers: Sequence[Reading], true_boxes: np.ndarray, num_true: np.ndarray, config: RewardConfig
) -> BoxScores:
    """Scores n answers as `score_texts` does the texts they were read from."""
    true_boxes, num_true = np.asarray(true_boxes), np.asarray(num_true)
    true, num_true = _check_true(len(answers), true_boxes, num_true, config)
    boxes = tuple([answer.boxes for answer in answers])
    reasons = tuple([answer.reason for answer in answers])
    num_predicted = np.fromiter(map(len, boxes), np.int32, len(boxes))
    joined = b"".join(boxes)  # type: ignore[arg-type]  # arrays are buffers, and this is the fastest way
    predicted = np.frombuffer(joined, np.float32).reshape(-1, 4)
    valid = np.frombuffer(bytes([answer.valid for answer in answers]), bool)
    row, ious = _matched_ious(predicted, num_predicted, true, num_true, config, true_boxes.shape[1])

    found = row[ious >= config.iou_threshold - IOU_SLACK]
    true_positives = np.bincount(found, minlength=len(boxes)).astype(np.int32)
    divisor = np.minimum if config.iou_average == "matched" else np.maximum
    iou_sum = np.bincount(row, weights=ious, minlength=len(boxes))
    iou = iou_sum / np.maximum(divisor(num_predicted, num_true), 1)
    precision = true_positives / np.maximum(num_predicted, 1)
    recall = true_positives / np.maximum(num_true, 1)
    # The harmonic mean of TP / N and TP / M.
    f1 = 2 * true_positives / np.maximum(num_predicted + num_true, 1)

    rightly_none = valid & (num_predicted == 0) & (num_true == 0)
    f1, iou, precision, recall = (np.where(rightly_none, 1.0, term) for term in (f1, iou, precision, recall))
    accuracy = np.clip(config.f1_weight * f1 + config.iou_weight * iou, 0.0, 1.0)
    reward = (1 - config.format_weight) * accuracy + config.format_weight * valid
    return BoxScores(
        reward=np.clip(reward, 0.0, 1.0).astype(np.float32),
        accuracy=accuracy.astype(np.float32),
        format=valid.astype(np.float32),
        f1=f1.astype(np.float32),
        iou=iou.astype(np.float32),
        precision=precision.astype(np.float32),
        recall=recall.astype(np.float32),
        num_predicted=num_predicted,
        num_true=num_true,
        true_positives=true_positives,
        reasons=reasons,
        boxes=boxes,
    )


def _check_true(
    count: int, true_boxes: np.ndarray, num_true: np.ndarray, config: RewardConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the true boxes one after another, float32 [sum(num_true), 4], and the counts as int32."""
    if true_boxes.ndim != 3 or true_boxes.shape[0] != count or true_boxes.shape[2] != 4:
        raise ValueError(
            f"true_boxes has shape {true_boxes.shape}; expected ({count}, M, 4) for {count} texts"
        )
    if num_true.shape != (count,):
        raise ValueError(f"num_true has shape {num_true.shape}; expected ({count},) for {count} texts")
    limit = min(true_boxes.shape[1], config.max_boxes)
    wrong = np.flatnonzero((num_true < 0) | (num_true > limit))
    if wrong.size:
        row = wrong[0]
        raise ValueError(
            f"num_true[{row}] is {num_true[row]}; expected 0..{limit} (true_boxes has room for "
            f"{true_boxes.shape[1]} and reward.max_boxes is {config.max_boxes})"
        )
    boxes = _numbers(_whole(true_boxes)[np.arange(true_boxes.shape[1]) < num_true[:, None]])
    finite = np.isfinite(boxes)
    if not finite.all():
        row = np.repeat(np.arange(count), num_true)[np.argmin(finite.all(axis=1))]
        raise ValueError(f"true_boxes[{row}] has a coordinate that is not finite: {true_boxes[row].tolist()}")
    return boxes, num_true.astype(np.int32)


def _matched_ious(
    predicted: np.ndarray,
    num_predicted: np.ndarray,
    true: np.ndarray,
    num_true: np.ndarray,
    config: RewardConfig,
    max_true: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Matches the boxes of each of n completions, which come one completion's after another's.

    Returns:
      Of every matched pair, completion by completion: which completion it belongs to, and its IoU, float32.
    """
    count = len(num_predicted)
    extra = (0, padded_size(count) - count)
    num_predicted, num_true = np.pad(num_predicted, extra), np.pad(num_true, extra)
    costs, ious = costs_and_ious(
        _in_rows(predicted, num_predicted, padded_size(config.max_boxes)),
        num_predicted,
        _in_rows(true, num_true, padded_size(max_true)),
        num_true,
        config.l1_weight,
        config.giou_weight,
    )
    most = int(num_predicted.max(initial=1))
    matches = assign(np.asarray(costs)[:count, :most], num_predicted[:count], num_true[:count])
    row, box = np.divmod(np.flatnonzero(matches >= 0), most)  # as np.nonzero, in half the time
    return row, np.asarray(ious)[row, box, matches[row, box]]


def _in_rows(boxes: np.ndarray, counts: np.ndarray, size: int) -> np.ndarray:
    """One row of boxes per completion, sorted and padded with infinity: [sum(counts), 4] to [n, size, 4].

    Sorted, so that assignments of equal cost are decided the same way whatever the order given.
    """
    rows = _whole(np.full((len(counts), size, 4), np.inf, np.float32))
    used = rows[:, : counts.max(initial=1)]
    used[np.arange(used.shape[1]) < counts[:, None]] = _whole(boxes + np.float32(0))  # -0.0 becomes 0.0
    used.sort(axis=1)
    return _numbers(rows)


# numpy moves and sorts the 16 bytes of a box several times faster as one number than as a row of four. Two
# finite float32 read as a float64 are finite too, so all boxes have an order, and rows of infinity come last.


def _whole(boxes: np.ndarray) -> np.ndarray:
    """Boxes [..., 4], each as one number [...]."""
    return np.ascontiguousarray(boxes, np.float32).view(np.complex128)[..., 0]


def _numbers(whole: np.ndarray) -> np.ndarray:
    """Boxes [..., 4] of what `_whole` returned."""
    return whole[..., None].view(np.float32)
