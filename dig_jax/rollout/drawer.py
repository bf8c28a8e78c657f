"""What draws completions, as those who ask for them see it.

Two do it: `programs`, with a pool whose slots are refilled, for many completions of very different lengths;
and `lockstep`, which decodes all of them in step and can give them out while they grow. Both draw the same
completions: what one is depends on its prompt and its key alone.

Shapes: B prompts of all processes, G completions per prompt, R response tokens.
"""

import dataclasses
from typing import Protocol

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dig_jax.models.inputs import Prompts
from dig_jax.models.nn.sampling_copy import Form
from dig_jax.rollout.engine import Rollout
from dig_jax.rollout.sampling import RolloutConfig, Sampling
from dig_jax.rollout.thinking import Budget


@dataclasses.dataclass(frozen=True)
class Limits:
    """How to draw completions. Hashable: each value compiles programs of its own.

    Attributes:
        sampling: the distribution to draw from.
        max_new_tokens: R.
        slots: completions decoded at a time for each of the rows, the next of any prompt there when one ends;
            0 for G.
        rows: prompts decoded at a time, over all devices, the next when one is done; 0 for all.
        routing: keep which experts the tokens went to, of a model that has experts.
    """

    sampling: Sampling
    max_new_tokens: int
    slots: int = 0
    rows: int = 0
    routing: bool = False


class Drawer(Protocol):
    """Draws completions on a mesh."""

    @property
    def mesh(self) -> Mesh:
        """The devices it draws on."""
        ...

    @property
    def moved_bytes(self) -> int:
        """Bytes that travel between devices in `weights`, over all devices."""
        ...

    def weights(self, params: nnx.State, /) -> nnx.State:
        """A copy of the policy's parameters, in the form and laid out for drawing."""
        ...

    def draw(
        self,
        weights: nnx.State,
        prompts: Prompts,
        rows: np.ndarray,
        keys: jax.Array,
        limits: Limits,
        budget: Budget | None = None,
    ) -> Rollout:
        """Draws G completions of every prompt.

        Args:
            weights: from `weights`.
            prompts: those of B prompts that this process has; its devices need some of them at least.
            rows: int, ascending, which of the B prompts these are.
            keys: typed PRNG keys [B, G], on every process those of all.
            limits: how.
            budget: of thought, [B, G]; None for as much as there is.

        Returns:
            The completions of all prompts and the decoding steps they took, numpy, on every process.
        """
        ...


def sampling_form(config: ConfigDict, mesh: Mesh) -> Form:
    """The form of the weights that training draws with on `mesh`."""
    settings = RolloutConfig.from_config(config)
    return Form.choose(settings.layers, settings.weight_dtype, mesh.devices.flat[0].platform)


def answering_form(config: ConfigDict, mesh: Mesh) -> Form:
    """The same where answers are measured or given to somebody: those of the weights that are saved."""
    return dataclasses.replace(sampling_form(config, mesh), int8=False)
