"""What draws completions, as those who ask for them see it.

Two do it: `programs`, with a pool whose slots are refilled, for many completions of very different lengths;
and `lockstep`, which decodes all of them in step and can give them out while they grow. Both draw the same
completions: what one is depends on its prompt and its key alone.

Shapes: B prompts of all processes, G completions per prompt, R response tokens.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from dig_jax.machines import parallel
from dig_jax.machines.parallel import MeshJit
from dig_jax.models.inputs import Prompts
from dig_jax.models.nn.sampling_copy import Form, sampling_copy
from dig_jax.rollout.engine import Rollout
from dig_jax.rollout.sampling import RolloutConfig, Sampling
from dig_jax.rollout.thinking import Budget


@dataclasses.dataclass(frozen=True)
class Limits:
    """How to draw completions. Hashable: each value compiles programs of its own.

    Attributes:
        sampling: the distribution to draw from.
        max_new_tokens: R.
        slots: completions of a prompt decoded at a time, the next when one ends; 0 for all G.
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


@dataclasses.dataclass(frozen=True)
class WeightsCopy:
    """What makes the copy of the weights that is drawn with.

    Attributes:
        program: the program of `Drawer.weights`.
        graphdef: structure of the model whose parameters come out.
        moved_bytes: see `Drawer`.
    """

    program: MeshJit
    graphdef: nnx.GraphDef
    moved_bytes: int


def weights_copy(graphdef: nnx.GraphDef, params: nnx.State, mesh: Mesh, form: Form) -> WeightsCopy:
    """The copy for drawing of parameters like `params`, in the given form on `mesh`.

    Adapters stay apart, so that drawing computes what training does.
    """

    def copied(params: nnx.State, form: Form) -> Any:
        return sampling_copy(nnx.merge(graphdef, params), form)

    def weights(params: nnx.State) -> nnx.State:
        return nnx.state(copied(params, form), nnx.Param)

    def shapes(form: Form) -> tuple[nnx.GraphDef, nnx.State]:
        return nnx.split(nnx.eval_shape(lambda params: copied(params, form), params), nnx.Param)

    own_graphdef, made = shapes(form)
    program = parallel.jit(weights, mesh, out_shardings=parallel.shardings(made, mesh))
    stacked = shapes(dataclasses.replace(form, apart=False))[1]
    return WeightsCopy(program, own_graphdef, _moved_bytes(params, stacked, mesh))


def _moved_bytes(params: nnx.State, copied: nnx.State, mesh: Mesh) -> int:
    """Bytes of the copy's shards that their devices do not have of the parameters already.

    Args:
        params: where training has them.
        copied: shapes of the copy, with the same names: how it is cut up does not change what moves.
            Scales of int8 kernels are not counted: they are small.
        mesh: of the copy.
    """

    def volume(ranges: list[range]) -> int:
        return int(np.prod([len(r) for r in ranges]))

    def moved(before: Any, sharding: NamedSharding) -> int:
        shape = before.shape
        have = before.sharding.devices_indices_map(shape)
        total = 0
        for device, index in sharding.devices_indices_map(shape).items():
            wanted = [range(*s.indices(n)) for s, n in zip(index, shape, strict=True)]
            owned = [range(*s.indices(n)) for s, n in zip(have[device], shape, strict=True)]
            common = [
                range(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(wanted, owned, strict=True)
            ]
            total += volume(wanted) - volume(common)
        return total

    after, placed = (dict(nnx.to_flat_state(tree)) for tree in (copied, parallel.shardings(params, mesh)))
    return sum(
        moved(before.get_value(), placed[path].get_value()) * jnp.dtype(after[path].dtype).itemsize
        for path, before in nnx.to_flat_state(params)
    )
