"""The phases of a step, GRPO or supervised, lowered as a run lowers them, for devices that are not there.

Shape letters: B prompts, G completions per prompt, R response tokens.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dig_jax import settings
from dig_jax.aot import flops, inputs
from dig_jax.aot.inputs import Workload
from dig_jax.machines import parallel
from dig_jax.models.architecture import Architecture
from dig_jax.models.nn import freeze
from dig_jax.models.nn.freeze import Freezing
from dig_jax.rollout.drawer import Limits, sampling_form
from dig_jax.rollout.programs import pool_shardings, rollout_programs
from dig_jax.rollout.sampling import Sampling
from dig_jax.run import loading
from dig_jax.run.batch import BatchConfig
from dig_jax.run.distillation import DistillConfig
from dig_jax.update import experts, sft
from dig_jax.update.grpo import GRPOConfig
from dig_jax.update.learner import Learner, TrainPrograms, TrainState, train_programs
from dig_jax.update.replay import ReplayConfig
from dig_jax.update.steps import part_names

END_OF_TURN, END_OF_TEXT = 151645, 151643  # of Qwen's tokenizers; which tokens they are costs nothing


@dataclasses.dataclass(frozen=True)
class Phase:
    """One program of a step.

    Attributes:
        name: as it is shown.
        lower: gives the program, to be compiled.
        resident: bytes per chip of what exists while it runs, by kind: its arguments, and what others keep.
        makes: the kind that its results are, but for those that are written over arguments.
        runs: how often a step runs it, or one turn of its open-ended loop.
        flops: of one run or turn, over all chips, without recomputation.
        gradients: bytes per chip of the gradients that are among its temporaries.
        on_host: bytes that the chip's host keeps meanwhile.
        counts_turns: a run ends when its data says so; cost is that of one turn of its loop.
    """

    name: str
    lower: Callable[[], Any]
    resident: dict[str, int]
    makes: str
    runs: float
    flops: float
    gradients: int = 0
    on_host: int = 0
    counts_turns: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is going to run: settings, architecture, shapes and devices."""

    config: ConfigDict
    architecture: Architecture
    work: Workload
    mesh: Mesh
    rollout_mesh: Mesh
    freezing: Freezing

    @property
    def supervised(self) -> bool:
        """Whether the step learns answers and draws none."""
        return bool(self.config.algorithm == "sft")


def make_plan(
    config: ConfigDict,
    architecture: Architecture,
    work: Workload,
    devices: list[jax.Device],
    freezing: Freezing | None = None,
) -> Plan:
    """Checks that the settings suit the devices.

    Args:
        config: of the run, or of a stage of it.
        architecture: of the model.
        work: what it computes.
        devices: that are not there.
        freezing: of the stage; None where the run has one alone.

    Raises:
        ValueError: as a run would.
    """
    mesh = parallel.make_mesh(config.mesh, devices)
    rollout_mesh = parallel.rollout_mesh(config.rollout.mesh, mesh)
    settings.check(config)
    experts.check_model(config, architecture)
    ReplayConfig.from_config(config).check_model(architecture)
    settings.check_batches(config, parallel.data_shards(mesh), parallel.data_shards(rollout_mesh))
    return Plan(config, architecture, work, mesh, rollout_mesh, freezing or Freezing.of(config))


def phases(plan: Plan) -> Iterator[Phase]:
    """The phases of a step in their order."""
    config = plan.config
    plain = loading.abstract_model(config, plan.architecture, plan.mesh)
    graphdef, params = loading.with_adapters(config, *plain, plan.mesh, plan.freezing.always)
    learner = make_learner(plan, graphdef)
    programs = train_programs(learner, params, plan.mesh)
    state = programs.state
    copied = parallel.abstract(programs.reference.eval_shape(params), plan.mesh)
    wanted = config.grpo.kl_coef or learner.distill.needs_reference
    reference = copied if wanted and not plan.supervised else None
    moments, remainders = learner.optimizer.cut(state.opt_state)
    held = {
        "parameters": chip_bytes(state.params),
        "optimizer": chip_bytes(moments),
        "remainders": chip_bytes(remainders),
        "reference": chip_bytes(reference),
    }
    on_host = chip_bytes(state, on_host=True)
    if plan.supervised:
        yield dataclasses.replace(_supervised_update(plan, programs, state, held), on_host=on_host)
        return
    for phase in _rollout_phases(plan, graphdef, params, held):
        yield dataclasses.replace(phase, on_host=on_host)
    for phase in _update_phases(plan, programs, state, reference, held):
        yield dataclasses.replace(phase, on_host=on_host)


def make_learner(plan: Plan, graphdef: nnx.GraphDef) -> Learner:
    """The learner of a run with these settings; of the tokenizer only the number of tokens matters."""
    parts = part_names(plan.config) if plan.supervised else ()
    return Learner.from_config(
        plan.config,
        graphdef,
        sft=sft.SFTConfig(plan.config.sft.aux_weight, token_yes=1, token_no=0, parts=parts),
        allowed=np.ones(plan.architecture.text.vocab_size, bool),
        freezing=plan.freezing,
    )


def _rollout_phases(
    plan: Plan, graphdef: nnx.GraphDef, params: nnx.State, held: dict[str, int]
) -> Iterator[Phase]:
    config, work, mesh = plan.config, plan.work, plan.rollout_mesh
    programs = rollout_programs(graphdef, params, mesh, sampling_form(config, mesh))
    weights = parallel.abstract(programs.weights.eval_shape(params), mesh)
    made = parallel.abstract(programs.weights.made(params), mesh)  # the others are the parameters themselves
    if jax.tree.leaves(made):
        lower = partial(programs.weights.lower, params)
        yield Phase("reshard", lower, held, "sampling weights", runs=1, flops=0)

    held = held | {"sampling weights": chip_bytes(made)}
    total = config.batch.rollout_prompts
    keep = ReplayConfig.from_config(config).keeps_sampled
    limits = Limits(_sampling(plan), work.response, config.rollout.slots, config.rollout.rows, routing=keep)
    prompts = inputs.prompts(plan.architecture, work.bucket, total, mesh)
    keys = inputs.keys(total, work.group, mesh)
    slices = config.batch.prompts / total
    yield Phase(
        "prefill",
        partial(programs.fill.lower, weights, prompts, keys, limits),
        held | {"batch": chip_bytes((prompts, keys))},
        "caches",
        runs=slices,
        flops=total * flops.prefill(plan.architecture, work),
    )
    filled = programs.fill.eval_shape(weights, prompts, keys, limits)
    pool = jax.tree.map(_with_sharding, filled, pool_shardings(filled, mesh))
    slots = (config.rollout.rows or total) * (config.rollout.slots or work.group)
    yield Phase(
        "decode",
        partial(programs.drain.lower, weights, pool, keys, limits),
        held | {"caches": chip_bytes(pool), "batch": chip_bytes(keys)},
        "batch",
        # No completion is longer than R; refilled slots share the work evenly.
        runs=config.batch.prompts * work.group * work.response / slots,
        flops=slots * flops.decode(plan.architecture, work.bucket.prompt_length + work.response / 2),
        counts_turns=True,
    )


def _update_phases(
    plan: Plan, programs: TrainPrograms, state: TrainState, reference: nnx.State | None, held: dict[str, int]
) -> Iterator[Phase]:
    config, work = plan.config, plan.work
    batch_config = BatchConfig.from_config(config)
    parts, updates = batch_config.prompts // batch_config.update_prompts, batch_config.updates_per_step
    prompts = inputs.prompts(plan.architecture, work.bucket, config.batch.update_prompts, plan.mesh)
    replay, distill = ReplayConfig.from_config(config).replay, DistillConfig.from_config(config)
    loss = GRPOConfig.from_config(config)
    old, blind = replay == "old" or loss.needs_old_logprobs(updates), loss.visual_dependency > 0
    batch = inputs.experience(
        *(prompts, work.group, work.response, plan.mesh),
        reference=config.grpo.kl_coef > 0,
        old=old,
        blind=blind,
        teacher=distill.weight > 0,
        experts=None if replay == "off" else plan.architecture.text,
    )
    # What is of the whole step; other parts come when used.
    # Until they are computed.
    known: dict[str, Any] = {"ref_logprobs": None, "old_logprobs": None, "blind_logprobs": None}
    kept = (*(getattr(batch, name) for name in known), batch.routing if replay == "old" else None)
    waiting = {"batch": chip_bytes(batch) + (parts - 1) * chip_bytes(kept)}
    forward = config.batch.update_prompts * flops.forward(plan.architecture, work)
    if config.grpo.kl_coef:
        bare = dataclasses.replace(batch, **known, routing=None)
        lower = partial(programs.reference_logprobs.lower, reference, state.params, bare)
        yield Phase("reference log-probs", lower, held | waiting, "batch", runs=parts, flops=forward)
    if blind:
        bare = dataclasses.replace(batch, **known)
        lower = partial(programs.blind_logprobs.lower, state.params, bare)
        yield Phase("blind log-probs", lower, held | waiting, "batch", runs=parts, flops=forward)
    if old:
        bare = dataclasses.replace(batch, old_logprobs=None, blind_logprobs=None)
        program = programs.logprobs
        if replay == "old":
            bare, program = dataclasses.replace(bare, routing=None), programs.logprobs_and_routing
        lower = partial(program.lower, state.params, bare)
        yield Phase("old log-probs", lower, held | waiting, "batch", runs=parts, flops=forward)
    cost = _gradient_cost(plan, state)
    if distill.weight:  # what the teacher says is computed in the update
        cost["flops"] += forward
    yield Phase(
        "update",
        partial(programs.update_grpo.lower, state, batch, *([reference] if distill.needs_reference else [])),
        held | waiting,
        "batch",
        runs=updates,
        **cost,
    )


def _supervised_update(plan: Plan, programs: TrainPrograms, state: TrainState, held: dict[str, int]) -> Phase:
    config, work = plan.config, plan.work
    prompts = inputs.prompts(plan.architecture, work.bucket, config.batch.update_prompts, plan.mesh)
    parts = bool(part_names(config))
    batch = inputs.supervised(prompts, work.response, work.earlier, plan.mesh, parts=parts)
    return Phase(
        "update",
        partial(programs.update_sft.lower, state, batch),
        held | {"batch": chip_bytes(batch)},
        "batch",
        runs=config.batch.prompts // config.batch.update_prompts,
        **_gradient_cost(plan, state),
    )


def _gradient_cost(plan: Plan, state: TrainState) -> dict[str, Any]:
    """FLOPs of an update, and bytes per chip of its gradients, as fields of a `Phase`."""
    config = plan.config
    trained, _ = freeze.split(state.params, plan.freezing.now)
    parts = {freeze.part_of(path) for path, _ in nnx.to_flat_state(trained)}
    each = flops.update(plan.architecture, plan.work, parts, config.model.lora.rank > 0)
    return {
        "flops": config.batch.update_prompts * each,
        "gradients": chip_bytes(jax.tree.map(_float32, trained)),
    }


def _sampling(plan: Plan) -> Sampling:
    settings, architecture = plan.config.rollout, plan.architecture
    return Sampling(
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        eos_ids=(min(END_OF_TURN, architecture.text.vocab_size - 1),),
        suppressed=tuple(sorted({architecture.image_token_id, architecture.video_token_id})),
        vocab_size=architecture.text.vocab_size,
        pad_id=min(END_OF_TEXT, architecture.text.vocab_size - 1),
    )


def _with_sharding(x: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _float32(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, np.float32, sharding=x.sharding)


def chip_bytes(tree: Any, *, on_host: bool = False) -> int:
    """Bytes of a tree of arrays or shapes in the memory of one chip, or of what its host keeps for it."""

    def size(x: Any) -> int:
        if (x.sharding.memory_kind == "pinned_host") != on_host:
            return 0
        shape = x.sharding.shard_shape(x.shape)
        dtype = x.dtype
        width = 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else dtype.itemsize  # a key is 2 words
        return int(np.prod(shape)) * width

    return sum(map(size, jax.tree.leaves(tree)))
