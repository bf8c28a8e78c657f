"""What a run writes, and how often: checkpoints (`config.checkpoint`), lines and pictures (`config.log`)."""

import dataclasses

from ml_collections import ConfigDict

from dig_jax.machines import checks


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written, and which are kept. Defaults live in `configs/base.py`.

    Attributes:
        every: steps between them.
        keep: how many of the newest stay.
        resumable: how many of those keep the optimizer's state; 0 = all.
        grace_seconds: from a request to stop to the end, at most.
    """

    every: int
    keep: int
    resumable: int
    grace_seconds: float

    @classmethod
    def from_config(cls, config: ConfigDict) -> "CheckpointConfig":
        """The checked settings of a run."""
        return cls(**config.checkpoint.to_dict())

    def __post_init__(self) -> None:
        for name in ("every", "keep", "grace_seconds"):
            checks.at_least(f"checkpoint.{name}", getattr(self, name), 1)
        checks.within("checkpoint.resumable", self.resumable, 0, self.keep, "checkpoint.keep", "all")


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """What is shown of a run. Defaults live in `configs/base.py`.

    Attributes:
        every: steps between lines on the terminal.
        samples: pictures of held-out answers per evaluation.
        tensorboard: whether its events are written.
        wandb_project: of Weights & Biases; "" = off.
        profile_steps: steps, from 1, that are traced.
    """

    every: int
    samples: int
    tensorboard: bool
    wandb_project: str
    profile_steps: tuple[int, ...]

    @classmethod
    def from_config(cls, config: ConfigDict) -> "LogConfig":
        """The checked settings of a run."""
        return cls(**config.log.to_dict())

    def __post_init__(self) -> None:
        checks.at_least("log.every", self.every, 1)
        checks.at_least("log.samples", self.samples, 0, "no pictures")
        checks.whole_numbers("log.profile_steps", self.profile_steps, 1, "steps, from 1, such as (10, 11)")
