"""The optimizer's step: all parameters at once, or one after another with their moments in host memory."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Clips the gradient by its global norm; then follows a rule that treats every parameter by itself.

    Attributes:
        clip: of the whole gradient; it has no state to speak of.
        rule: such as AdamW; of a part of the parameters it makes what it makes of them among all.
    """

    clip: optax.GradientTransformation
    rule: optax.GradientTransformation

    def init(self, params: nnx.State) -> optax.OptState:
        """The state before the first step."""
        return self.clip.init(params), self.rule.init(params)

    def step(
        self, grads: nnx.State, state: optax.OptState, params: nnx.State, wanted: jax.Array
    ) -> tuple[nnx.State, optax.OptState]:
        """Parameters and state after a step, or as they are where it is not `wanted`."""
        clip, before = state
        grads, clip = self.clip.update(grads, clip, params)
        params, after = self._apply(grads, before, params, wanted)
        return params, (clip, after)

    def step_from_host(
        self, grads: nnx.State, state: optax.OptState, params: nnx.State, wanted: jax.Array
    ) -> tuple[nnx.State, optax.OptState]:
        """`step` for moments in host memory: those of one parameter at a time are on the devices.

        Each waits for the one before it to be back on the host, and the first for the gradient; the compiler
        would bring all of them as early as it can, and their place is what activations need until then.
        """
        clip, before = state
        grads, clip = self.clip.update(grads, clip, params)
        stepped: list[nnx.State] = []
        states: list[optax.OptState] = []
        done: Any = grads
        for path, _ in nnx.to_flat_state(params):
            part, own, _ = jax.lax.optimization_barrier(
                (_pick((grads, params), path), _pick(before, path), done)
            )
            param, after = self._apply(part[0], _move(own, jax.memory.Space.Device), part[1], wanted)
            stepped.append(param)
            states.append(_move(after, jax.memory.Space.Host))
            done = states[-1]
        return nnx.merge_state(*stepped), (clip, _join(states))

    def _apply(
        self, grads: nnx.State, state: optax.OptState, params: nnx.State, wanted: jax.Array
    ) -> tuple[nnx.State, optax.OptState]:
        updates, after = self.rule.update(grads, state, params)
        proposed = (optax.apply_updates(params, updates), after)
        return jax.tree.map(lambda new, old: jnp.where(wanted, new, old), proposed, (params, state))


def _is_state(x: Any) -> bool:
    return isinstance(x, nnx.State)


def _pick(tree: Any, path: tuple) -> Any:
    """A tree with states made like parameters (gradients, moments), cut to the one parameter at `path`."""

    def cut(x: Any) -> Any:
        return nnx.filter_state(x, lambda at, _: at == path) if _is_state(x) else x

    return jax.tree.map(cut, tree, is_leaf=_is_state)


def _join(parts: list[Any]) -> Any:
    """The inverse of `_pick`; what is no state made like parameters is the same in all parts."""

    def join(*xs: Any) -> Any:
        return nnx.merge_state(*xs) if _is_state(xs[0]) else xs[0]

    return jax.tree.map(join, *parts, is_leaf=_is_state)


def _move(state: optax.OptState, space: Any) -> optax.OptState:
    """The state with its moments there; numbers stay on the devices."""
    return jax.tree.map(lambda x: jax.device_put(x, space) if jnp.ndim(x) else x, state)
