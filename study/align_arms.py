"""What the study of object crops compares: kinds of questions in shares, and what stands for a crop.

The rule by which it is judged is in docs/align_study.md. All arms have one model, one number of steps and, as
near as whole prompts allow, one number of tokens (control E1): where an arm leaves kinds out, questions
about phrases and boxes take their share, and batches grow until as many tokens are seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

TEXT, IMAGE = ("T-C", "C-T"), ("I-C", "C-I", "T-I", "I-T")
# 50 : 41 : 9 of texts, crops with boxes, crops with texts. The paper's are 94 : 5 : 1, of which a small run
# would see nothing.
SHARES: Mapping[str, int] = {"T-C": 40, "C-T": 10, "I-C": 26, "C-I": 15, "T-I": 5, "I-T": 4}
STEPS = 2000
PROMPTS = 32  # of a batch of A1
ANSWER_STEP = 20  # thousandths: numbers of boxes are multiples of it
SEEDS = {"A0": 5, "A1": 5, "E3": 5}  # all others have 3
OTHER_SEEDS = 3


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        words: what it is.
        kinds: of questions with crops; those that are left out make room for phrases and boxes.
        crops: what stands for a crop, one of `align_data.CROPS`.
    """

    words: str
    kinds: tuple[str, ...] = IMAGE
    crops: str = "image"

    @property
    def shares(self) -> dict[str, int]:
        """Kind -> its share."""
        kept = {kind: SHARES[kind] for kind in (*TEXT, *self.kinds)}
        left_out = sum(SHARES.values()) - sum(kept.values())
        more = round(left_out * SHARES["T-C"] / (SHARES["T-C"] + SHARES["C-T"]))
        return kept | {"T-C": kept["T-C"] + more, "C-T": kept["C-T"] + left_out - more}


def _without(kind: str) -> Arm:
    return Arm(f"all six but {kind}", tuple(other for other in IMAGE if other != kind))


ARMS: Mapping[str, Arm] = {
    "A0": Arm("phrases and boxes alone (T-C, C-T)", ()),
    "A1": Arm("all six kinds"),
    "E3": Arm("all six kinds, every crop noise", crops="noise"),
    "E4": Arm("all six kinds, every crop in words", crops="words"),
    **{f"L{number}": _without(kind) for number, kind in enumerate(IMAGE, 1)},
}
DIG = ("A0", "A1")  # arms whose ends go on with pairs: supervised answers, then GRPO


def seeds_of(arm: str, most: int | None = None) -> range:
    """The seeds of an arm, at most `most` of them."""
    count = SEEDS.get(arm, OTHER_SEEDS)
    return range(count if most is None else min(count, most))
