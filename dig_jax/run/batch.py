"""How many prompts are sampled, scored and learnt from together (`config.batch`)."""

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dig_jax.machines import checks, data_axis, parallel


@dataclasses.dataclass(frozen=True)
class BatchConfig:
    """Sizes of a step. Defaults live in `configs/base.py`.

    Attributes:
        prompts: of a step, a multiple of `update_prompts`.
        update_prompts: of an optimizer update, a multiple of `micro_prompts`.
        update_epochs: times that updates go through a step's prompts.
        micro_prompts: of a slice whose gradient is summed, over all devices.
        micro_completions: of each of these prompts in a slice; 0 = all.
        response_buckets: tokens that responses of a slice are padded to; () = halvings of the longest.
        sum_gradients: when parts of the mesh along `data` sum their gradients, of `data_axis.SUMS`.
        rollout_prompts: sampled together, over all devices.
    """

    prompts: int
    update_prompts: int
    update_epochs: int
    micro_prompts: int
    micro_completions: int
    response_buckets: tuple[int, ...]
    sum_gradients: str
    rollout_prompts: int

    @classmethod
    def from_config(cls, config: ConfigDict) -> "BatchConfig":
        """The checked settings of a run or stage."""
        return cls(**config.batch.to_dict())

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates of one training step."""
        return self.prompts // self.update_prompts * self.update_epochs

    def __post_init__(self) -> None:
        for name in ("prompts", "update_prompts", "update_epochs", "micro_prompts", "rollout_prompts"):
            checks.at_least(f"batch.{name}", getattr(self, name), 1)
        checks.at_least("batch.micro_completions", self.micro_completions, 0, "all of a group")
        checks.whole_numbers(
            "batch.response_buckets",
            self.response_buckets,
            1,
            "numbers of tokens, such as (512, 1024), or () for halvings of config.rollout.max_new_tokens",
        )
        checks.one_of("batch.sum_gradients", self.sum_gradients, data_axis.SUMS)
        self.check_multiple("prompts", "update_prompts")
        self.check_multiple("update_prompts", "micro_prompts")

    def check_multiple(self, key: str, divisor: str) -> None:
        """Refuses sizes of which one is not a multiple of the other."""
        size, part = getattr(self, key), getattr(self, divisor)
        if size % part:
            raise ValueError(f"config.batch.{key}={size} is not a multiple of config.batch.{divisor}={part}")


def train_rows(config: ConfigDict, mesh: Mesh, sampling_mesh: Mesh) -> np.ndarray:
    """The rows of a training batch that this process needs: those of its devices in updates and in rollouts.

    The two meshes may give it different ones, and no prompt travels between processes.
    """
    batch, process = config.batch, jax.process_index()
    rows = parallel.row_layout(mesh, batch.prompts, batch.update_prompts).of(process)
    if config.algorithm == "sft":
        return rows
    drawn = parallel.row_layout(sampling_mesh, batch.prompts, batch.rollout_prompts).of(process)
    return np.union1d(rows, drawn)
