"""What to change when a step does not fit: the settings that make the largest kinds of memory smaller."""

from ml_collections import ConfigDict

from dig_jax.aot.chips import GIB, Chip
from dig_jax.aot.phases import Plan
from dig_jax.aot.roofline import Measured
from dig_jax.machines import parallel

WORTH_NAMING = 0.1  # of the memory that is missing; smaller kinds are left out
SAMPLING = ("reshard", "prefill", "decode")


def explain(plan: Plan, phase: Measured, chip: Chip) -> str:
    """Which program does not fit, which kinds of memory it needs most, and what makes those smaller.

    Args:
        plan: of the step.
        phase: the program.
        chip: that it is for.
    """
    limit = chip.usable * chip.hbm
    missing = max(0, phase.total - limit)
    options = _sampling_options(plan) if phase.name in SAMPLING else _training_options(plan)
    lines = [
        f"DOES NOT FIT: {phase.name} needs {phase.total / GIB:.2f} GiB per chip of {limit / GIB:.2f}"
        f" ({chip.usable:.0%} of the memory): {missing / GIB:.2f} too many. To make smaller, largest first:"
    ]
    for kind, size in sorted(phase.memory.items(), key=lambda item: -item[1]):
        if options.get(kind) and size > WORTH_NAMING * missing:
            lines.append(f"  {kind} ({size / GIB:.2f} GiB): {'; '.join(options[kind])}")
    return "\n".join([*lines, "  all of these: a larger slice"])


def _training_options(plan: Plan) -> dict[str, list[str]]:
    config, mesh = plan.config, plan.mesh.shape
    split = [f"mesh.fsdp={mesh['fsdp'] * mesh['data']}, mesh.data=1"] if mesh["data"] > 1 else []
    lora = [] if config.model.lora.rank else ["model.lora.rank=64 (adapters alone are trained)"]
    offload = [] if config.optimizer.offload else ["optimizer.offload=True (in the hosts' memory)"]
    # A supervised example has one answer.
    group, pieces = (1, 0) if plan.supervised else (config.rollout.group_size, config.batch.micro_completions)
    remat = ["model.remat=full"] if config.model.remat != "full" else []
    return {
        "parameters": split + _half(config),
        "gradients": split + lora,
        "optimizer": offload + split + lora,
        "remainders": offload + split + lora,
        "reference": [*split, "grpo.kl_coef=0 (no reference)"],
        "batch": _less("batch.update_prompts", config.batch.update_prompts, config.batch.micro_prompts),
        "activations": remat
        + _less("batch.micro_prompts", config.batch.micro_prompts, parallel.data_shards(plan.mesh))
        + _less("batch.micro_completions", pieces or group, 1)
        + _more_tensor(plan, "mesh.tensor", mesh["tensor"]),
    }


def _half(config: ConfigDict) -> list[str]:
    """Parameters in bfloat16. Where they are trained the optimizer keeps the other half: on the devices, too,
    unless it is offloaded."""
    if config.model.param_dtype != "float32":
        return []
    if config.model.lora.rank:
        return ["model.param_dtype=bfloat16 (half; they are not trained)"]
    return ["model.param_dtype=bfloat16 with optimizer.offload=True (half; the other half goes to the hosts)"]


def _sampling_options(plan: Plan) -> dict[str, list[str]]:
    config, tensor = plan.config, plan.rollout_mesh.shape["tensor"]
    training = _training_options(plan)
    shards = parallel.data_shards(plan.rollout_mesh)
    rows = _less("rollout.rows", config.rollout.rows or config.batch.rollout_prompts, shards)
    wider = _more_tensor(plan, "rollout.mesh.tensor", tensor)
    slots = _less("rollout.slots", config.rollout.slots or config.rollout.group_size, 1)
    return {kind: training[kind] for kind in ("parameters", "optimizer", "remainders", "reference")} | {
        "sampling weights": wider,
        "caches": rows + slots + wider + ["rollout.max_new_tokens"],
        "batch": _less("batch.rollout_prompts", config.batch.rollout_prompts, shards),
        "activations": rows + wider,
    }


def _less(name: str, now: int, least: int) -> list[str]:
    return [f"{name} below {now}, down to {least}"] if now > least else []


def _more_tensor(plan: Plan, name: str, now: int) -> list[str]:
    most = min(plan.mesh.size, plan.architecture.text.num_key_value_heads)
    return [f"{name} above {now}, up to {most}"] if now < most else []
