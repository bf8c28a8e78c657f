"""The answers that supervised training shows: `config.sft`, but for the noise that a task adds to them."""

import dataclasses

from ml_collections import ConfigDict

from dig_jax.machines import checks
from dig_jax.tasks.boxes.text import BoxFormat
from dig_jax.tasks.task import Answerer


@dataclasses.dataclass(frozen=True)
class SupervisionConfig:
    """Answers to learn, and what is learnt beside them. Defaults live in `configs/base.py`.

    Attributes:
        answer_step: written coordinates are multiples of this many thousandths.
        max_answer_tokens: that answers are padded to; a longer one is an error.
        max_earlier_tokens: of earlier answers of a conversation, that are learnt too; 0 = the last alone.
        cut_answers: whether longer ones are learnt as far as that goes, and are no error.
        aux_weight: weight of the auxiliary loss, 0 = off.
    """

    answer_step: int
    max_answer_tokens: int
    max_earlier_tokens: int
    cut_answers: bool
    aux_weight: float

    @classmethod
    def from_config(cls, config: ConfigDict) -> "SupervisionConfig":
        """The checked settings of a run or stage."""
        return cls(**{field.name: config.sft[field.name] for field in dataclasses.fields(cls)})

    def __post_init__(self) -> None:
        checks.at_least("sft.answer_step", self.answer_step, 1)
        checks.at_least("sft.max_answer_tokens", self.max_answer_tokens, 1)
        checks.at_least("sft.max_earlier_tokens", self.max_earlier_tokens, 0, "last answers alone")
        checks.at_least("sft.aux_weight", self.aux_weight, 0, "off")


def box_format(config: ConfigDict, answerer: Answerer) -> BoxFormat:
    """How the answers and questions of a task write boxes for that model."""
    step = SupervisionConfig.from_config(config).answer_step
    return BoxFormat(answerer.box_convention, step, answerer.resized)


def check_words(config: ConfigDict, task: str, reason: str) -> None:
    """Refuses what would make answers in words wrong: changed pictures, noise in a number of boxes.

    Args:
      config: of the run.
      task: its name.
      reason: why pictures may not change, such as "phrases name colors".

    Raises:
      ValueError: names the setting.
    """
    for name, value in config.data.augment.items():
        if value:
            raise ValueError(
                f"config.data.augment.{name}=True: {reason}, so pictures stay as they are for the task"
                f" {task}; set it to False"
            )
    if config.sft.count_noise:
        raise ValueError(
            f"config.sft.count_noise={config.sft.count_noise}: an answer of the task {task} has no number of"
            " boxes; set it to 0"
        )
