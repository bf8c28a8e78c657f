"""Moments in host memory (`optimizer.offload`): the same updates, and less memory of the devices."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import base
from dig_jax.compile import quiet, topology
from dig_jax.machines import parallel
from dig_jax.run import fingerprint
from dig_jax.update.optimizer import OptimizerConfig, whole
from tests.commands.test_compile import needs_compiler
from tests.commands.test_train import assert_same_steps, inputs, run, small_config  # noqa: F401  (a fixture)


@pytest.mark.slow
def test_a_run_with_moments_in_host_memory_resumes_and_computes_the_same(
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
) -> None:
    offload = {"optimizer.offload": True}
    straight = run(small_config(inputs, "sft"), tmp_path / "straight")
    run(small_config(inputs, "sft", num_steps=1, **offload), tmp_path / "offloaded")
    offloaded = run(small_config(inputs, "sft", **offload), tmp_path / "offloaded")
    assert_same_steps(offloaded, straight, rel=1e-5)
    # What one run keeps on its devices, another may restore to the memory of its hosts.
    run(small_config(inputs, "sft", num_steps=3, **offload), tmp_path / "straight")


COUNT, SIDE = 6, 4096


class Layers(nnx.Module):
    """A few large kernels."""

    def __init__(self, dtype: jnp.dtype) -> None:
        for number in range(COUNT):
            kernel = nnx.Param(
                jnp.zeros((SIDE, SIDE), dtype), out_sharding=("embed", "mlp"), eager_sharding=False
            )
            setattr(self, f"layer{number}", kernel)


class ExpertLayers(nnx.Module):
    """As many kernels of the same size, each of 8 experts of a layer, in one array."""

    def __init__(self, dtype: jnp.dtype) -> None:
        names = ("layers", "experts", "expert_embed", "expert_mlp")
        kernels = jnp.zeros((COUNT, 8, SIDE, SIDE // 8), dtype)
        self.kernels = nnx.Param(kernels, out_sharding=names, eager_sharding=False)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_parameters_one_after_another_end_as_all_at_once(dtype):
    config = base.get_config()
    config.optimizer.learning_rate, config.optimizer.clip_norm = 1e-2, 0.5  # less than the gradient's norm
    optimizer = OptimizerConfig.from_config(config).make()
    model = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    names = ("layers", "experts", "expert_embed", "expert_mlp")  # those are stepped layer by layer
    experts = jax.random.normal(jax.random.key(1), (2, 3, 4, 5)).astype(dtype)
    model.experts = nnx.Param(experts, out_sharding=names, eager_sharding=False)
    params = nnx.state(model, nnx.Param)
    grads = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), params)
    at_once = (params, optimizer.init(params))
    host = jax.sharding.SingleDeviceSharding(jax.devices()[0], memory_kind="pinned_host")
    on_host = jax.tree.map(lambda x: jax.device_put(x, host) if jnp.ndim(x) else x, at_once[1])
    one_by_one = (params, on_host)
    for wanted in (True, False, True):
        at_once = jax.jit(optimizer.step)(grads, at_once[1], at_once[0], wanted)
        one_by_one = jax.jit(optimizer.step_from_host)(grads, one_by_one[1], one_by_one[0], wanted)
    assert jax.tree.structure(at_once) == jax.tree.structure(one_by_one)
    exact = [
        (whole(params, *state[2:]), state[:2]) for params, state in jax.device_get((at_once, one_by_one))
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *exact)
    places = {x.ndim > 0: x.sharding.memory_kind for x in jax.tree.leaves(one_by_one[1])}
    assert places == {True: "pinned_host", False: "device"}


def test_a_fingerprint_brings_what_is_on_the_host_to_the_devices_one_array_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays = [jnp.arange(12.0).reshape(3, 4), jnp.ones(5), jnp.int32(7), jnp.arange(6.0) - 2]
    host = jax.sharding.SingleDeviceSharding(jax.devices()[0], memory_kind="pinned_host")
    offloaded = [jax.device_put(arrays[0], host), arrays[1], arrays[2], jax.device_put(arrays[3], host)]
    together = []
    checksums = fingerprint._checksums
    monkeypatch.setattr(
        fingerprint,
        "_checksums",
        lambda leaves: together.append([leaf.sharding.memory_kind for leaf in leaves]) or checksums(leaves),
    )
    assert fingerprint.fingerprint(offloaded) == fingerprint.fingerprint(arrays)
    assert together[:3] == [["device", "device"], ["pinned_host"], ["pinned_host"]]
    swapped = [offloaded[3], *offloaded[1:3], offloaded[0]]
    assert fingerprint.fingerprint(swapped) != fingerprint.fingerprint(offloaded)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "dtype", "kernels"),
    [(Layers, jnp.float32, 4), (Layers, jnp.bfloat16, 6), (ExpertLayers, jnp.bfloat16, 6)],
)
def test_the_tpu_compiler_holds_no_moments_but_those_it_is_working_on(make, dtype, kernels):
    with quiet():
        mesh = parallel.make_mesh(base.get_config().mesh, topology("v5e:2x2", 1)[1])
    params = parallel.abstract(nnx.state(nnx.eval_shape(lambda: make(dtype)), nnx.Param), mesh)
    optimizer = OptimizerConfig.from_config(base.get_config()).make()
    kept = parallel.abstract(jax.eval_shape(optimizer.init, params), mesh)

    def memory(step, state):
        def update(params, state, x):
            grads = jax.tree.map(lambda w: jnp.cos(w.astype(jnp.float32)) * x, params)
            return step(grads, state, params, x > 0)

        out = jax.tree.map(lambda leaf: leaf.sharding, (params, state))
        x = jax.ShapeDtypeStruct((), jnp.float32, sharding=parallel.replicated(mesh))
        program = parallel.jit(update, mesh, donate_argnums=(0, 1), out_shardings=out)
        with quiet():
            return program.lower(params, state, x).compile().memory_analysis()

    one = 4 * SIDE * SIDE // 4  # bytes of a kernel on each of four chips
    before, after = memory(optimizer.step, kept), memory(optimizer.step_from_host, parallel.on_host(kept))
    moments = 2 * COUNT * one + (COUNT * one // 2 if dtype == jnp.bfloat16 else 0)  # and remainders
    assert before.argument_size_in_bytes - after.argument_size_in_bytes == pytest.approx(moments, rel=1e-3)
    assert after.host_argument_size_in_bytes == pytest.approx(moments, rel=1e-3)
    assert after.host_output_size_in_bytes == pytest.approx(moments, rel=1e-3)
    assert after.temp_size_in_bytes < COUNT * one + kernels * one  # the gradient, and moments of one kernel
