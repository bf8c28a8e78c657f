"""The optimizer's step, in float32 whatever the parameters are kept in.

A bfloat16 number has 8 bits. Around 0.02 it steps by 1.2e-4, and an update of 1e-6 rounds to nothing, every
time again. So the 16 bits that bfloat16 lacks of float32 are kept beside each bfloat16 parameter (its
remainder), and a step works on the float32 number that both make together. That is a compensated sum without
an error of its own: what comes out is to the bit what parameters in float32 would become. A Kahan sum with
its compensation in bfloat16 takes the same 2 bytes, but loses updates below 2^-18 of the weight (4e-6 where
it is 1); a float32 copy takes 4; stochastic rounding takes none, but its noise is of the size of bfloat16's
steps, a hundred updates. The bits are cut and joined as integers: XLA may take a conversion to bfloat16 and
back for nothing, and with it the difference of both.

Parameters are stepped all at once, or one after another with their moments in host memory.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from ml_collections import ConfigDict

from dig_jax.machines import checks

MAX_DECAY = 1 - 1e-6  # of moments: an average over a million updates
SCHEDULES = ("constant", "linear", "cosine")

_HALF = 1 << 15  # of the value of a bfloat16 number's last bit, in bits of a float32 number


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its learning rate. Defaults live in `configs/base.py`.

    Attributes:
        learning_rate: the highest, after warm-up.
        schedule: after warm-up: `constant`, or `linear` or `cosine` down to 0.
        warmup_updates: over which it grows from near 0.
        warmup_ratio: the same, as a share of all updates of the schedule; 0 = warmup_updates says it.
        restart: of a stage: new moments, and a schedule that begins there.
        b1, b2: decay of the moments.
        weight_decay: a share of each parameter per update, times the learning rate.
        clip_norm: longest gradient; inf = any.
        offload: the state is kept in the hosts' memory.
        max_skipped_updates: that are not finite, in a row, before a run stops.
    """

    learning_rate: float
    schedule: str
    warmup_updates: int
    warmup_ratio: float
    restart: bool
    b1: float
    b2: float
    weight_decay: float
    clip_norm: float
    offload: bool
    max_skipped_updates: int

    @classmethod
    def from_config(cls, config: ConfigDict) -> "OptimizerConfig":
        """The checked settings of a run or stage."""
        return cls(**config.optimizer.to_dict())

    def __post_init__(self) -> None:
        checks.one_of("optimizer.schedule", self.schedule, SCHEDULES)
        for name in ("learning_rate", "weight_decay"):
            checks.at_least(f"optimizer.{name}", getattr(self, name), 0)
        for name in ("warmup_updates", "max_skipped_updates"):
            checks.at_least(f"optimizer.{name}", getattr(self, name), 0)
        for name in ("b1", "b2"):
            checks.within(f"optimizer.{name}", getattr(self, name), 0, MAX_DECAY)
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError(
                f"config.optimizer.warmup_ratio={self.warmup_ratio}: expected a share of all updates, from"
                " 0 (off) to less than 1"
            )
        if self.warmup_ratio and self.warmup_updates:
            raise ValueError(
                f"config.optimizer.warmup_ratio={self.warmup_ratio} and"
                f" config.optimizer.warmup_updates={self.warmup_updates} both say how long the warm-up is:"
                " set one of them to 0"
            )
        if not self.clip_norm > 0:
            raise ValueError(f"config.optimizer.clip_norm={self.clip_norm}: expected more than 0; inf is off")

    def make(self) -> "Optimizer":
        """AdamW with global-norm clipping. Its learning rate is a part of its state, set for every update."""
        adamw = optax.inject_hyperparams(optax.adamw, static_args=("b1", "b2", "weight_decay"))(
            learning_rate=self.learning_rate, b1=self.b1, b2=self.b2, weight_decay=self.weight_decay
        )
        return Optimizer(optax.clip_by_global_norm(self.clip_norm), adamw)

    @property
    def depends_on_length(self) -> bool:
        """Whether the learning rate of an update is another where there are more of them."""
        return self.schedule != "constant" or self.warmup_ratio > 0

    def warmup(self, total_updates: int) -> int:
        """Updates of the warm-up among so many; a share is rounded up, as transformers' trainer does."""
        return self.warmup_updates or math.ceil(self.warmup_ratio * total_updates)

    def learning_rates(self, total_updates: int) -> optax.Schedule:
        """The learning rate as a function of the number of updates before."""
        peak, warmup = self.learning_rate, self.warmup(total_updates)
        rest = max(1, total_updates - warmup)
        after = {
            "constant": optax.constant_schedule(peak),
            "linear": optax.linear_schedule(peak, 0.0, rest),
            "cosine": optax.cosine_decay_schedule(peak, rest),
        }[self.schedule]
        return optax.join_schedules(
            [optax.linear_schedule(peak / (warmup + 1), peak, max(1, warmup)), after], [warmup]
        )


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
        """The state before the first step: of the clip and of the rule, both float32; where parameters are
        bfloat16, also their remainders, uint16."""
        exact = _float32(params)
        state = self.clip.init(exact), self.rule.init(exact)
        remainders = _cut_off(exact, params)[1]
        return (*state, remainders) if jax.tree.leaves(remainders) else state

    def restart(self, params: nnx.State, state: optax.OptState) -> optax.OptState:
        """A new state for the same parameters: remainders are a part of those, and stay."""
        return (*self.init(params)[:2], *state[2:])

    def cut(self, state: optax.OptState) -> tuple[Any, Any]:
        """Moments and what belongs to them, and remainders."""
        return state[:2], state[2:]

    def clipped(self, grads: nnx.State) -> nnx.State:
        """The gradient in float32, no longer than it may be."""
        grads = _float32(grads)
        return self.clip.update(grads, self.clip.init(grads))[0]

    def step(
        self, grads: nnx.State, state: optax.OptState, params: nnx.State, wanted: jax.Array
    ) -> tuple[nnx.State, optax.OptState]:
        """Parameters and state after a step, or as they are where it is not `wanted`."""
        clip, *before = state
        grads, clip = self.clip.update(_float32(grads), clip, params)
        params, after = self._apply(grads, before, params, wanted)
        return params, (clip, *after)

    def step_from_host(
        self, grads: nnx.State, state: optax.OptState, params: nnx.State, wanted: jax.Array
    ) -> tuple[nnx.State, optax.OptState]:
        """`step` for a state in host memory: moments and remainders of one parameter at a time are on the
        devices, of experts those of one layer. (Those of all layers are one array, and most of the model.)

        Each waits for the one before it to be back on the host, and the first for the gradient; the compiler
        would bring all of them as early as it can, and their place is what activations need until then.
        """
        clip, *before = state
        grads, clip = self.clip.update(_float32(grads), clip, params)
        stepped: list[nnx.State] = []
        states: list[optax.OptState] = []
        done: Any = grads
        for path, param in nnx.to_flat_state(params):
            (own_grads, own), own_state, _ = jax.lax.optimization_barrier(
                (_pick((grads, params), path), _pick(before, path), done)
            )
            by_layer = "experts" in (param.get_metadata().get("out_sharding") or ())
            apply = self._apply_by_layer if by_layer else self._apply_from_host
            own, done = apply(own_grads, own_state, own, wanted)
            stepped.append(own)
            states.append(done)
        return nnx.merge_state(*stepped), (clip, *_join(states))

    def _apply_from_host(
        self, grads: nnx.State, state: list[optax.OptState], params: nnx.State, wanted: jax.Array
    ) -> tuple[nnx.State, list[optax.OptState]]:
        params, state = self._apply(grads, _move(state, jax.memory.Space.Device), params, wanted)
        return params, _move(state, jax.memory.Space.Host)

    def _apply_by_layer(
        self, grads: nnx.State, state: list[optax.OptState], params: nnx.State, wanted: jax.Array
    ) -> tuple[nnx.State, list[optax.OptState]]:
        """The same for arrays [L, ...], changed in place, of which one layer is on the devices."""
        count = jax.tree.leaves(params)[0].shape[0]

        def one(number: jax.Array, made: Any) -> Any:
            def cut(tree: Any) -> Any:
                cut = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=number, slice_size=1)
                return jax.tree.map(lambda x: cut(x) if jnp.ndim(x) else x, tree)

            def put(whole: jax.Array, part: jax.Array) -> jax.Array:
                if not jnp.ndim(whole):
                    return part
                return jax.lax.dynamic_update_slice_in_dim(whole, part, number, axis=0)

            # Numbers, such as that of the step, are for every layer those of before.
            before = jax.tree.map(lambda old, new: new if jnp.ndim(old) else old, state, made[1])
            return jax.tree.map(
                put, made, self._apply_from_host(cut(grads), cut(before), cut(made[0]), wanted)
            )

        return jax.lax.fori_loop(0, count, one, (params, state))

    def _apply(
        self, grads: nnx.State, state: list[optax.OptState], params: nnx.State, wanted: jax.Array
    ) -> tuple[nnx.State, list[optax.OptState]]:
        """Of parameters and the state of the rule, with remainders where there are any."""
        rule, *remainders = state
        before = whole(params, *remainders)
        updates, rule = self.rule.update(grads, rule, before)
        stepped, new_remainders = _cut_off(optax.apply_updates(before, updates), params)
        proposed = (stepped, [rule, new_remainders] if remainders else [rule])
        return jax.tree.map(lambda new, old: jnp.where(wanted, new, old), proposed, (params, state))


def cut_off(whole: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A float32 array as the nearest bfloat16 numbers, and the last 16 bits of its own, uint16."""
    bits = jax.lax.bitcast_convert_type(whole, jnp.uint32)
    rounded = ((bits + _HALF) >> 16).astype(jnp.uint16)
    return jax.lax.bitcast_convert_type(rounded, jnp.bfloat16), bits.astype(jnp.uint16)


def put_on(rounded: jax.Array, remainder: jax.Array) -> jax.Array:
    """The inverse of `cut_off`: the float32 array."""
    high = jax.lax.bitcast_convert_type(rounded, jnp.uint16).astype(jnp.uint32)
    low = remainder.astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(((high - low // _HALF) << 16) | low, jnp.float32)


def whole(params: nnx.State, remainders: nnx.State | None = None) -> nnx.State:
    """Float32 parameters: bfloat16 ones with their remainders, others as they are."""
    low = dict(nnx.to_flat_state(remainders)) if remainders else {}
    return nnx.from_flat_state(
        (path, x.replace(put_on(x.get_value(), low[path].get_value())) if path in low else x)
        for path, x in nnx.to_flat_state(params)
    )


def _float32(tree: nnx.State) -> nnx.State:
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def _cut_off(whole: nnx.State, like: nnx.State) -> tuple[nnx.State, nnx.State]:
    """Float32 parameters in the dtypes of `like`, and the remainders of those that are bfloat16 there."""
    dtypes = {path: x.get_value().dtype for path, x in nnx.to_flat_state(like)}
    params, remainders = [], []
    for path, x in nnx.to_flat_state(whole):
        if dtypes[path] == jnp.bfloat16:
            rounded, low = cut_off(x.get_value())
            remainders.append((path, x.replace(low)))
            x = x.replace(rounded)
        params.append((path, x))
    return nnx.from_flat_state(params), nnx.from_flat_state(remainders)


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
    """The state with its arrays there; numbers stay on the devices."""
    return jax.tree.map(lambda x: jax.device_put(x, space) if jnp.ndim(x) else x, state)
