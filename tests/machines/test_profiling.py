"""Profiles of chosen steps."""

from pathlib import Path

import jax
import jax.numpy as jnp
from etils import epath

from dig_jax.machines import profiling


def test_a_chosen_step_leaves_a_trace_that_names_what_it_ran(tmp_path: Path):
    def recognisable(x: jax.Array) -> jax.Array:
        return x @ x

    compiled = jax.jit(recognisable)
    for number in (1, 2, 3):
        with profiling.step(epath.Path(tmp_path), (2,), number):
            jax.block_until_ready(compiled(jnp.ones((64, 64))))
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["step_000002"]
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert b"recognisable" in trace.read_bytes()
