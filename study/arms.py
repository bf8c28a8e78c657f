"""What the study compares: data, warm-ups and arms, each a few changes of configs/scratch.py.

A change is named by stage and setting, such as "mixed.num_steps"; "*" stands for every stage that is run. All
arms start from a warm-up and have as many GRPO steps as `full`, unless their words say otherwise. Rewards are
those that an arm trains with: held-out figures are by the default reward for all of them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from configs import scratch

Changes = Mapping[str, Any]

FINAL = "final"  # mixed pairs that no choice was made on: the ends of runs are scored on them
# Folder -> options of the generator. Training and held-out pairs, and the folders, have different seeds.
# Stages and curves are measured on the test pairs of `single` and `mixed`, on which the recipe was chosen.
DATA: Mapping[str, Mapping[str, Any]] = {
    "single": {"differences": "1", "num_pairs": 2400, "test_pairs": 200, "seed": 101},
    "double": {"differences": "2", "num_pairs": 2000, "test_pairs": 0, "seed": 102},
    "mixed": {"differences": "0-4", "num_pairs": 2000, "test_pairs": 400, "seed": 103},
    FINAL: {"differences": "0-4", "num_pairs": 0, "test_pairs": 400, "seed": 104},
}

WARMUPS: Mapping[str, Changes] = {
    "warmup": {},
    "warmup_no_noise": {"warmup.sft.count_noise": 0.0},
    "warmup_no_aux": {"warmup.sft.aux_weight": 0.0},
}

_STEPS = sum(scratch.get_config().curriculum.stages[name].num_steps for name in scratch.GRPO)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One training run per seed.

    Attributes:
        words: what it is, for tables and plots.
        changes: of the settings of configs/scratch.py.
        order: its stages.
        warmup: where it starts from.
        base: the arm that tables compare it with, seed by seed; "" for none.
    """

    words: str
    changes: Changes = dataclasses.field(default_factory=dict)
    order: tuple[str, ...] = scratch.GRPO
    warmup: str = "warmup"
    base: str = "full"


ARMS: Mapping[str, Arm] = {
    "full": Arm("GRPO, full reward, curriculum", base=""),
    "control": Arm(
        "control: more answers on single pairs",
        {
            "single.algorithm": "sft",
            "single.num_steps": 1800,  # at least the minutes of `full`
            "single.batch": {"prompts": 16, "update_prompts": 16, "micro_prompts": 16},
            "single.sft": {"max_answer_tokens": 12, "aux_weight": 1.0, "count_noise": 0.0},
            "single.optimizer": {"learning_rate": 1e-3, "weight_decay": 0.05},
        },
        order=("single",),
    ),
    "mixed_only": Arm("mixed from the start", {"mixed.num_steps": _STEPS}, order=("mixed",)),
    "format_only": Arm("reward: format only", {"*.reward.format_weight": 1.0}),
    "iou_only": Arm("reward: IoU only", {"*.reward": {"f1_weight": 0.0, "iou_weight": 1.0}}),
    "f1_only": Arm("reward: F1 only", {"*.reward": {"f1_weight": 1.0, "iou_weight": 0.0}}),
    "no_kl": Arm("no KL in any stage", {"*.grpo.kl_coef": 0.0}),
    "kl": Arm("KL 0.1 in the mixed stage as well", {"mixed.grpo.kl_coef": 0.1}),
    "threshold_0": Arm("iou_threshold 0 in the reward", {"*.reward.iou_threshold": 0.0}),
    "iou_matched": Arm("IoU averaged over matched boxes", {"*.reward.iou_average": "matched"}),
    "no_identical": Arm("no identical pairs in training", {"mixed.data.num_differences": (1, 2, 3, 4)}),
    "std": Arm("advantages over the group's deviation", {"*.grpo.normalize_std": True}),
    "no_noise": Arm("warm-up without count noise", warmup="warmup_no_noise"),
    "no_aux": Arm("warm-up without auxiliary loss", warmup="warmup_no_aux"),
}
