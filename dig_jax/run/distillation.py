"""What a teacher with privileged input is, and what it is shown (`config.distill`): see `update.distill`."""

import dataclasses
from collections.abc import Callable

from ml_collections import ConfigDict

from dig_jax.data.example import Example
from dig_jax.machines import checks
from dig_jax.run import mixture
from dig_jax.tasks.boxes.privilege import KINDS
from dig_jax.tasks.registry import task_class
from dig_jax.tasks.task import Asked

TEACHERS = ("policy", "reference")


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """What is distilled. Defaults live in `configs/base.py`.

    Attributes:
      weight: of the divergence in the loss; 0: off.
      privilege: what the teacher is shown, of `privilege.KINDS`.
      teacher: "policy", the weights that are trained, as they are in each update, or "reference", the model
        that the KL penalty holds on to.
      beta: which divergence, see `head.token_divergences`: 0 forward KL, 1 reverse KL, between them the
        generalized Jensen-Shannon divergence.
    """

    weight: float
    privilege: str
    teacher: str
    beta: float

    @classmethod
    def from_config(cls, config: ConfigDict) -> "DistillConfig":
        """The checked settings of a run or stage."""
        return cls(**config.distill.to_dict())

    def __post_init__(self) -> None:
        checks.at_least("distill.weight", self.weight, 0, "off")
        checks.one_of("distill.privilege", self.privilege, KINDS)
        checks.one_of("distill.teacher", self.teacher, TEACHERS)
        checks.within("distill.beta", self.beta, 0, 1)

    @property
    def needs_reference(self) -> bool:
        """Whether the teacher is the frozen reference."""
        return self.weight > 0 and self.teacher == "reference"

    def check(self, config: ConfigDict) -> None:
        """Refuses what contradicts a run or stage with these settings.

        Raises:
          ValueError: names the settings.
        """
        if config.algorithm == "distill":
            if not self.weight:
                raise ValueError(
                    "config.algorithm='distill' has no loss with config.distill.weight=0: set it to 1"
                )
            if config.grpo.dynamic_sampling:
                raise ValueError(
                    f"config.grpo.dynamic_sampling={config.grpo.dynamic_sampling} replaces groups that earn"
                    " alike, which config.algorithm='distill' learns from as from others: set it to 0"
                )
            if config.grpo.visual_dependency:
                raise ValueError(
                    f"config.grpo.visual_dependency={config.grpo.visual_dependency} weighs advantages, and"
                    " config.algorithm='distill' has none: set it to 0"
                )
            if config.grpo.overlong.buffer:
                raise ValueError(
                    f"config.grpo.overlong.buffer={config.grpo.overlong.buffer} changes rewards, which"
                    " config.algorithm='distill' does not learn from: set it to 0"
                )
        if not self.weight:
            return
        if config.algorithm == "sft":
            raise ValueError(
                f"config.distill.weight={self.weight}: supervised training draws no samples to distill on;"
                " set it to 0"
            )
        for part in mixture.parts(config):
            own = part.config
            if self.privilege not in task_class(own.task, own.task_file).privileges:
                where = f" (config.mixture.{part.name})" if part.name else ""
                raise ValueError(
                    f"config.distill.weight={self.weight}: the task {own.task}{where} has nothing to show a"
                    f" teacher by config.distill.privilege={self.privilege!r}; set the weight to 0"
                )


def shown_to_teacher(config: ConfigDict, asked: Asked) -> Callable[[Example], Example] | None:
    """What makes the example that the teacher sees of the student's; None where there is no teacher."""
    settings = DistillConfig.from_config(config)
    if config.algorithm == "sft" or not settings.weight:
        return None

    def privileged(example: Example) -> Example:
        return asked.parts[example.part].privileged(example, settings.privilege)

    return privileged
