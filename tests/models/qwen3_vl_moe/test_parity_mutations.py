"""The gate of the parity tests notices the mistakes that ports of a mixture of experts make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dig_jax.models.nn import moe
from tests.models.parity import QUICK, case, check_logits


@pytest.fixture(scope="module")
def pair():
    return case("experts")


@pytest.fixture(scope="module")
def prompts(pair):
    """Of text alone, without room for images: the tower is not compiled."""
    return pair.make.pad(*pair.examples("text only"), prompt_length=16, num_patches=0)


@pytest.fixture(scope="module")
def theirs(pair):
    return pair.reference.logits(*pair.examples("text only"))


def unnormalised(patch, router=moe.Router.__call__, experts_mlp=moe.experts_mlp):
    """Probabilities of the chosen experts as they are, which sum to less than 1."""
    last = []

    def probabilities(self, x):
        last[:] = [router(self, x).reshape(-1, self.kernel.shape[-1])]
        return last[0].reshape(*x.shape[:-1], -1)

    def experts(x, ids, weights, *kernels):
        return experts_mlp(x, ids, jnp.take_along_axis(last[0], ids, axis=-1), *kernels)

    patch.setattr(moe.Router, "__call__", probabilities)
    patch.setattr(moe, "experts_mlp", experts)


def bfloat16_router(patch):
    def probabilities(self, x):
        half = jnp.bfloat16
        return jax.nn.softmax((x.astype(half) @ self.kernel[...].astype(half)).astype(jnp.float32))

    patch.setattr(moe.Router, "__call__", probabilities)


def changed(change):
    """The experts with other arguments."""

    def patch_with(patch, experts_mlp=moe.experts_mlp):
        patch.setattr(moe, "experts_mlp", lambda *args: experts_mlp(*change(*args[:5]), *args[5:]))

    return patch_with


def drop_the_second(x, ids, weights, gate_up, down):
    return x, ids, weights.at[:, 1].set(0), gate_up, down


def drop_beyond_capacity(x, ids, weights, gate_up, down):
    """Each expert takes as many tokens as if all were used alike, in their order."""
    count, capacity = gate_up.shape[0], ids.size // gate_up.shape[0]
    chosen = jax.nn.one_hot(ids.reshape(-1), count, dtype=jnp.int32)
    place = jnp.sum(jnp.cumsum(chosen, axis=0) * chosen, axis=-1).reshape(ids.shape)
    return x, ids, jnp.where(place <= capacity, weights, 0), gate_up, down


def swap_halves(x, ids, weights, gate_up, down):
    return x, ids, weights, jnp.concatenate(jnp.split(gate_up, 2, axis=-1)[::-1], axis=-1), down


def interleave(x, ids, weights, gate_up, down):
    pairs = gate_up.reshape(*gate_up.shape[:-1], -1, 2)
    return x, ids, weights, jnp.concatenate([pairs[..., 0], pairs[..., 1]], axis=-1), down


def exchange_sides(x, ids, weights, gate_up, down):
    """The bits of a matrix read as if it were [outputs, inputs]."""
    count, width, inner = gate_up.shape
    return x, ids, weights, gate_up.reshape(count, inner, width).swapaxes(1, 2), down


def weigh_the_input(x, ids, weights, gate_up, down, how, experts_mlp=moe.experts_mlp):
    flat = experts_mlp(
        (x[:, None] * weights[..., None]).reshape(-1, x.shape[-1]),
        ids.reshape(-1, 1),
        jnp.ones((ids.size, 1)),
        gate_up,
        down,
        how,
    )
    return jnp.sum(flat.reshape(*ids.shape, -1), axis=1)


MISTAKES = {
    "probabilities are not made to sum to 1": unnormalised,
    "a bfloat16 router": bfloat16_router,
    "the second expert of a token is dropped": changed(drop_the_second),
    "matrices with inputs and outputs exchanged": changed(exchange_sides),
}
MORE_MISTAKES = {
    "choices beyond a capacity are dropped": changed(drop_beyond_capacity),
    "up in the first half": changed(swap_halves),
    "gate and up take turns": changed(interleave),
    "weights on what goes into experts": lambda patch: patch.setattr(moe, "experts_mlp", weigh_the_input),
}
NAMES = [*MISTAKES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_MISTAKES)]


def runner():
    """Traces anew: logits, and what routers say."""

    def run(model, prompts):
        hidden, _, extras = model(prompts)
        return model.logits(hidden), extras

    return jax.jit(run, compiler_options=QUICK)


@pytest.mark.parametrize("mistake", NAMES)
def test_a_mistake_fails_the_gate(pair, prompts, theirs, monkeypatch, mistake):
    (MISTAKES | MORE_MISTAKES)[mistake](monkeypatch)
    with pytest.raises(AssertionError, match="logits differ"):
        check_logits(runner()(pair.model, prompts)[0], theirs)


def test_without_a_mistake_the_gate_is_passed_and_without_any_one_weight_it_is_not(pair, prompts, theirs):
    """The weights of the busiest expert of the first layer, one after another."""
    run = runner()
    logits, extras = run(pair.model, prompts)
    check_logits(logits, theirs)
    busiest = int(np.asarray(extras["router"].chosen)[0].argmax())
    graphdef, params = nnx.split(pair.model, nnx.Param)
    for part in ("router", "gate_up", "down"):

        def drop(path, param, part=part):
            if part not in path:
                return param
            where = np.s_[0, :, busiest] if part == "router" else np.s_[0, busiest]
            return param.replace(param[...].at[where].set(0))

        with pytest.raises(AssertionError, match="logits differ"):
            check_logits(run(nnx.merge(graphdef, nnx.map_state(drop, params)), prompts)[0], theirs)
