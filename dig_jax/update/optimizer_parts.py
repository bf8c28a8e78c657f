"""The optimizer of a run whose stages train different parts of the model: a state for each part.

Every part that any stage trains has moments, a count of its updates and, in bfloat16, remainders of its own,
from the run's first step on. While a stage leaves a part as it is, its state rests, bit for bit. When a later
stage trains it again, it goes on from there; one that was never trained begins as a new optimizer does, for
the bias of young moments is corrected by the part's own count. The gradient is clipped by its norm over all
that is trained.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import optax
from flax import nnx

from dig_jax.models.nn import freeze
from dig_jax.update.optimizer import Optimizer

States = dict[str, optax.OptState]  # part -> state of an `Optimizer` of its parameters


@dataclasses.dataclass(frozen=True)
class OptimizerOfParts:
    """As `Optimizer`, of which each part of the model has one, but for the clipping.

    Attributes:
        whole: what each part has.
    """

    whole: Optimizer

    def init(self, params: nnx.State) -> States:
        """The state before the first step of all parts that these parameters are of."""
        return {part: self.whole.init(own) for part, own in freeze.by_part(params).items()}

    def restart(self, params: nnx.State, state: States) -> States:
        """A new state for the same parameters, whether they are trained now or rest."""
        return {part: self.whole.restart(own, state[part]) for part, own in freeze.by_part(params).items()}

    def cut(self, state: States) -> tuple[Any, Any]:
        """Moments and what belongs to them, and remainders."""
        both = [self.whole.cut(own) for own in state.values()]
        return [moments for moments, _ in both], [remainders for _, remainders in both]

    def step(
        self, grads: nnx.State, state: States, params: nnx.State, wanted: jax.Array
    ) -> tuple[nnx.State, States]:
        """Parameters of some parts after a step, and the state of all, as of `Optimizer.step`."""
        return self._step(grads, state, params, wanted, from_host=False)

    def step_from_host(
        self, grads: nnx.State, state: States, params: nnx.State, wanted: jax.Array
    ) -> tuple[nnx.State, States]:
        """`step` for a state in host memory: the moments of one parameter at a time are on the devices."""
        return self._step(grads, state, params, wanted, from_host=True)

    def _step(
        self, grads: nnx.State, state: States, params: nnx.State, wanted: jax.Array, *, from_host: bool
    ) -> tuple[nnx.State, States]:
        alone = dataclasses.replace(self.whole, clip=optax.identity())
        gradients = freeze.by_part(self.whole.clipped(grads))
        stepped, states, done = [], dict(state), None
        for part, own in freeze.by_part(params).items():
            gradient = gradients[part]
            if from_host and done is not None:  # the first parameter waits for the last of the part before
                gradient, _ = jax.lax.optimization_barrier((gradient, done))
            step = alone.step_from_host if from_host else alone.step
            param, states[part] = step(gradient, state[part], own, wanted)
            stepped.append(param)
            done = states[part]
        return nnx.merge_state(*stepped), states
