"""GRPO steps of a small model, run by test_parallel.py in one or several processes; prints JSON for each.

    python tests/helpers/distributed_step.py FOLDER RUNS PORT PROCESSES PROCESS

RUNS is a JSON list of [mesh, tensor of the rollout mesh, numbers of the devices in mesh order, settings].
"""

import dataclasses
import json
import sys
from typing import Any

import jax

folder, runs, port, processes, process = sys.argv[1:]
if int(processes) > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(process))

import numpy as np  # noqa: E402  after the devices are set up
from etils import epath  # noqa: E402

from configs import base  # noqa: E402
from dig_jax import settings  # noqa: E402
from dig_jax.machines import parallel  # noqa: E402
from dig_jax.rollout.programs import rollout_programs  # noqa: E402
from dig_jax.rollout.sampler import Sampler  # noqa: E402
from dig_jax.run import loading  # noqa: E402
from dig_jax.run.batch import train_rows  # noqa: E402
from dig_jax.update import steps  # noqa: E402
from dig_jax.update.experience import Collected, Collector  # noqa: E402
from dig_jax.update.grpo import GRPOConfig  # noqa: E402
from dig_jax.update.learner import Learner, train_programs  # noqa: E402

PROMPTS = 16


def step(sizes: list[int], tensor: int, order: list[int], changes: dict[str, Any]) -> dict[str, Any]:
    """One step on these devices, and what came of it; without floats that no one compares."""
    config = base.get_config()
    model = epath.Path(folder) / "model"
    config.model.dtype = "float32"
    config.data.train = (f"{folder}/pairs",)
    config.data.question = "Find differences."
    config.batch.prompts = config.batch.update_prompts = config.batch.rollout_prompts = PROMPTS
    config.batch.micro_prompts = 8
    config.rollout.group_size = 2
    config.rollout.max_new_tokens = 8
    config.distill.weight, config.distill.teacher = 0.5, "reference"
    config.update_from_flattened_dict(changes)
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = sizes
    mesh = parallel.make_mesh(config.mesh, [jax.devices()[number] for number in order])
    config.rollout.mesh.tensor = tensor
    sampling_mesh = parallel.rollout_mesh(config.rollout.mesh, mesh)
    settings.check_batches(config, parallel.data_shards(mesh), parallel.data_shards(sampling_mesh))
    opened = loading.open_model(model)
    tokenizer = opened.tokenizer
    graphdef, params = loading.load_params(config, opened, mesh)
    sampling_programs = rollout_programs(graphdef, params, sampling_mesh)
    task = loading.make_task(config, model, tokenizer)
    sampler = Sampler(sampling_programs, tokenizer, task)
    rows = train_rows(config, mesh, sampling_mesh)
    loader = loading.train_loader(config, task, model, tokenizer, rows)
    collector = Collector(config, sampler, loader, GRPOConfig.from_config(config))
    learner = Learner.from_config(
        config,
        graphdef,
        sft=steps.sft_config(config, tokenizer),
        allowed=sampler.sampling(1.0).allowed(opened.architecture.text.vocab_size),
    )
    collected = collector.collect(params, 0)
    fixed = made_up(collected)
    programs = train_programs(learner, params, mesh)
    reference, rates = programs.reference(params), lambda update: config.optimizer.learning_rate
    make = steps.grpo_step(config, programs, FixedCollector(fixed), reference, mesh, rates)
    state = programs.init(jax.tree.map(jax.numpy.copy, params))
    _, metrics, _ = make(state, 0)
    gate = params["text"]["layers"]["mlp"]["gate_proj"]["kernel"].get_value()
    return {
        "tokens": dict(zip(fixed.rows.tolist(), fixed.experience.tokens.tolist(), strict=True)),
        "ids": dict(zip(fixed.rows.tolist(), fixed.ids.tolist(), strict=True)),
        "shard_size": gate.addressable_shards[0].data.size,  # of the gate projections
        "response_length": collected.metrics["rollout/response_length_mean"],
        "padded_tokens": float(made_up_mask().sum() / (1 - metrics["grpo/response_padding"])),
        "taught_kl": metrics["distill/kl"],
        **{name: float(metrics[f"grpo/{name}"]) for name in ("loss", "grad_norm", "kl", "entropy")},
    }


def made_up_mask() -> np.ndarray:
    """Of two completions of every prompt: 1 to 4 tokens, but for the first one of every second prompt, and of
    each of the last eight: 5 to 8. So the halves of a batch have long ones in unequal numbers.
    """
    prompts = np.arange(PROMPTS)[:, None]
    long = (np.arange(2) == 0) & ((prompts % 2 == 0) | (prompts >= 8))
    return (np.arange(8) < (1 + prompts % 4 + 4 * long)[..., None]).astype(np.float32)


def made_up(collected: Collected) -> Collected:
    """With advantages and lengths that an untrained model would not have: it earns nothing and never ends."""
    rows = collected.rows
    experience = dataclasses.replace(
        collected.experience,
        mask=collected.experience.mask * made_up_mask()[rows],
        advantages=(np.cos(rows[:, None]) * np.array([1, -1])).astype(np.float32),
    )
    return dataclasses.replace(collected, experience=experience)


class FixedCollector:
    """Hands out one experience."""

    def __init__(self, collected: Collected):
        self._collected = collected

    def collect(self, params: object, step: int) -> Collected:
        return self._collected


if __name__ == "__main__":
    for given in json.loads(runs):
        print(json.dumps(step(*given)), flush=True)
