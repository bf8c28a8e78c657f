"""bfloat16 parameters learn as float32 ones do: sums, moments and steps are float32 in either case."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx

from configs import base
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.machines import parallel
from dig_jax.models import families
from dig_jax.models.hf import checkpoint
from dig_jax.run import loading
from dig_jax.run.fingerprint import fingerprint
from dig_jax.update import optimizer as optimizers
from dig_jax.update import sft
from dig_jax.update.learner import Learner, train_programs, with_learning_rate
from dig_jax.update.microbatches import accumulate
from dig_jax.update.optimizer import OptimizerConfig
from dig_jax.update.steps import sft_config
from tests.commands.test_train import assert_same_steps, final_params, inputs, run, small_config  # noqa: F401

UPDATES = 180  # of a stage of the recipe: 45 steps of 4 updates


def weights(dtype: jnp.dtype) -> nnx.State:
    """A kernel such as a model has, and numbers from 0.5 to 8, all of which bfloat16 holds exactly."""
    module = nnx.Linear(256, 48, rngs=nnx.Rngs(0))
    kernel = 0.02 * jax.random.normal(jax.random.key(1), (256, 48))
    module.kernel.set_value(kernel.astype(jnp.bfloat16).astype(dtype))
    module.bias.set_value(jnp.linspace(0.5, 8, 48).astype(jnp.bfloat16).astype(dtype))
    return nnx.state(module, nnx.Param)


OPTIMIZER = OptimizerConfig.from_config(base.get_config()).make()  # learning rate 1e-6


def trained(params: nnx.State, step: Callable) -> tuple[nnx.State, tuple]:
    """Parameters and the optimizer's state after `UPDATES` updates of one sign; gradients in bfloat16."""
    grads = jax.tree.map(lambda x: jnp.ones(x.shape, jnp.bfloat16), params)
    state, compiled = OPTIMIZER.init(params), jax.jit(step)
    for _ in range(UPDATES):
        params, state = compiled(grads, state, params, True)
    return params, state


def movement(before: nnx.State, after: nnx.State) -> nnx.State:
    """By how much each weight moved."""
    return jax.tree.map(lambda a, b: np.asarray(b, np.float64) - np.asarray(a, np.float64), before, after)


def test_cutting_off_a_remainder_rounds_to_the_nearest_and_loses_nothing():
    whole = jnp.array([1.0, 1.0 + 2**-9, 1.0 + 2**-8, -1.0 - 3 * 2**-9, 3e38, 1e-40, 0.0, -0.0])
    rounded, remainder = optimizers.cut_off(whole)
    assert rounded.tolist()[:4] == [1.0, 1.0, 1.0 + 2**-7, -1.0 - 2**-7]  # ties go away from zero
    assert (rounded == whole.astype(jnp.bfloat16)).tolist() == [i != 2 for i in range(8)]  # there, to even
    back = optimizers.put_on(rounded, remainder)
    assert np.asarray(back).tobytes() == np.asarray(whole).tobytes()


@pytest.mark.parametrize("step", [OPTIMIZER.step, OPTIMIZER.step_from_host])
def test_many_small_updates_add_up_in_bfloat16_as_in_float32(step):
    start = weights(jnp.bfloat16)
    moved, (_, rule, remainders) = trained(start, step)
    exact, _ = trained(weights(jnp.float32), step)
    whole = optimizers.whole(moved, jax.device_put(remainders, jax.memory.Space.Device))
    jax.tree.map(np.testing.assert_array_equal, whole, exact)
    assert {x.dtype for x in jax.tree.leaves(rule) if x.ndim} == {jnp.dtype(jnp.float32)}
    # What the model computes with is that, rounded: bfloat16 alone had moved 2% of the kernel by 2% of this.
    ours, theirs = (movement(start, end)["kernel"].get_value() for end in (moved, exact))
    assert (ours != 0).mean() > 0.95 and (theirs != 0).all()
    assert ours.sum() == pytest.approx(theirs.sum(), rel=0.1)


def test_a_new_optimizer_for_the_same_parameters_keeps_their_remainders():
    params, state = trained(weights(jnp.bfloat16), OPTIMIZER.step)
    clip, rule, remainders = OPTIMIZER.restart(params, state)
    assert all(not x.any() for x in jax.tree.leaves(rule.inner_state))
    jax.tree.map(np.testing.assert_array_equal, remainders, state[2])


def test_gradients_are_summed_in_float32():
    """300 micro-batches of one: in bfloat16 the sum would stop at 256."""
    params = weights(jnp.bfloat16)
    ones = jax.tree.map(jnp.ones_like, params)
    for count in (1, 300):
        grads, _ = accumulate(lambda _: (ones, {"loss": 0.0}), jnp.zeros((count, 1)), zeros_like=params)
        assert {(x.dtype.name, float(x.min())) for x in jax.tree.leaves(grads)} == {("float32", count)}


@pytest.fixture(scope="module")
def update_of(inputs):  # noqa: F811
    """The function settings -> a state, and the compiled supervised update on one batch of four pairs."""
    model = epath.Path(inputs / "model")
    architecture, tokenizer = families.load_config(model), load_tokenizer(model)

    def make(**changes: object) -> tuple:
        config = small_config(inputs, "sft", **changes)
        config.batch.prompts = config.batch.update_prompts
        mesh = parallel.make_mesh(config.mesh)
        plain = loading.abstract_model(config, architecture, mesh)
        graphdef, shapes = loading.with_adapters(config, *plain, mesh)
        learner = Learner.from_config(
            config,
            graphdef,
            sft=sft_config(config, tokenizer),
            allowed=np.ones(architecture.text.vocab_size, bool),
        )
        programs = train_programs(learner, shapes, mesh)
        half = checkpoint.load_params(model, architecture, param_dtype=jnp.bfloat16)
        start = jax.tree.map(lambda x: x.astype(config.model.param_dtype), half)
        _, start = loading.with_adapters(config, plain[0], start, mesh)
        task = loading.make_task(config, model, tokenizer)
        loader = loading.train_loader(config, task, model, tokenizer)
        batch = loader.batch(0)
        loader.close()
        examples = sft.Supervised(
            batch.prompts, batch.answers, batch.answer_mask, batch.cell_mask, batch.cell_targets
        )
        examples = parallel.put_batch(examples, mesh)
        return programs.init(start), lambda state: programs.update_sft(
            with_learning_rate(state, 1e-6), examples
        )[0]

    return make


def test_the_learner_moves_bfloat16_parameters_as_far_as_float32_ones(update_of):
    """The same batch again and again: most gradients keep their sign."""
    ends = []
    for dtype in ("float32", "bfloat16"):
        state, update = update_of(**{"model.param_dtype": dtype})
        start = jax.tree.map(lambda x: np.asarray(x, np.float32), state.params)
        for _ in range(10):
            state = update(state)
        end = optimizers.whole(state.params, *state.opt_state[2:])
        ends.append(np.concatenate([x.ravel() for x in jax.tree.leaves(movement(start, end))]))
    exact, ours = ends
    assert (ours != 0).mean() == pytest.approx((exact != 0).mean(), abs=1e-3)
    assert np.linalg.norm(ours - exact) < 0.1 * np.linalg.norm(exact)  # some gradients are nearly 0
    assert ours @ exact == pytest.approx(exact @ exact, rel=0.01)


def test_adapters_are_float32_over_a_bfloat16_model(update_of):
    state, update = update_of(**{"model.param_dtype": "bfloat16", "model.lora.rank": 2})
    kept = {x.dtype.name for path, x in nnx.to_flat_state(state.params) if "adapter" not in path}
    assert kept == {"bfloat16"}
    assert len(state.opt_state) == 2  # no remainders
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    adapters = [x for path, x in nnx.to_flat_state(update(state).params) if "adapter" in path]
    assert {x.dtype.name for x in (*moments, *adapters)} == {"float32"} and len(moments) == 2 * len(adapters)


@pytest.mark.slow
def test_a_run_in_bfloat16_resumes_exactly_with_its_remainders_on_the_host_too(inputs, tmp_path):  # noqa: F811
    half = {"model.param_dtype": "bfloat16", "optimizer.learning_rate": 1e-5}
    straight = run(small_config(inputs, "sft", **half), tmp_path / "straight")
    half |= {"optimizer.offload": True}
    run(small_config(inputs, "sft", num_steps=1, **half), tmp_path / "stopped")
    stopped = run(small_config(inputs, "sft", **half), tmp_path / "stopped")
    assert_same_steps(stopped, straight, rel=1e-4)
    config = small_config(inputs, "sft", **half)
    assert fingerprint(final_params(config, stopped)) == fingerprint(final_params(config, straight))
