"""One GRPO step of a small model, run by test_parallel.py in one or several processes; prints JSON."""

import dataclasses
import json
import sys

import jax

folder, mesh_sizes, changes, port, processes, process = sys.argv[1:]
if int(processes) > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(process))

import numpy as np  # noqa: E402  after the devices are set up
from etils import epath  # noqa: E402

from configs import base  # noqa: E402
from dig_jax import loading, parallel, settings, steps  # noqa: E402
from dig_jax.data.tokenizer import load_tokenizer  # noqa: E402
from dig_jax.experience import Collected, Collector  # noqa: E402
from dig_jax.learner import Learner  # noqa: E402
from dig_jax.policy import Experience  # noqa: E402
from dig_jax.programs import train_programs  # noqa: E402
from dig_jax.rollout.programs import rollout_programs  # noqa: E402
from dig_jax.sampler import Sampler  # noqa: E402


def main() -> None:
    config = base.get_config()
    model = epath.Path(folder) / "model"
    config.model.dtype = "float32"
    config.data.train = (f"{folder}/pairs",)
    config.data.question = "Find differences."
    config.batch.prompts = config.batch.update_prompts = config.batch.rollout_prompts = 16
    config.batch.micro_prompts = 8
    config.rollout.group_size = 2
    config.rollout.max_new_tokens = 8
    config.update_from_flattened_dict(json.loads(changes))
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = map(int, mesh_sizes.split(","))
    mesh = parallel.make_mesh(config.mesh)
    config.rollout.mesh.tensor = mesh.shape["tensor"]
    sampling_mesh = parallel.rollout_mesh(config.rollout.mesh, mesh)
    settings.check_batches(config, parallel.data_shards(mesh), parallel.data_shards(sampling_mesh))
    tokenizer = load_tokenizer(model)
    graphdef, params = loading.load_params(config, model, model, mesh)
    sampling_programs = rollout_programs(graphdef, params, sampling_mesh)
    sampler = Sampler(sampling_programs, tokenizer, settings.reward_config(config))
    loss = settings.grpo_config(config)
    collector = Collector(config, sampler, loading.train_loader(config, model, tokenizer), loss)
    learner = Learner.from_config(
        config,
        graphdef,
        sft=steps.sft_config(config, tokenizer),
        allowed=sampler.sampling(1.0).allowed(loading.vocab_rows(model)),
    )
    collected = collector.collect(params, 0)
    experience = made_up(collected.experience)
    programs = train_programs(learner, params, mesh)
    reference, rates = programs.reference(params), lambda update: config.optimizer.learning_rate
    step = steps.grpo_step(config, programs, FixedCollector(experience), reference, mesh, rates)
    state = programs.init(jax.tree.map(jax.numpy.copy, params))
    _, metrics, _ = step(state, 0)
    gate = params["text"]["layers"]["mlp"]["gate_proj"]["kernel"].get_value()
    printed = {
        "tokens": experience.tokens.tolist(),
        "shard_size": gate.addressable_shards[0].data.size,  # of the gate projections
        "response_length": collected.metrics["rollout/response_length_mean"],
        "padded_tokens": parallel.gather_rows(experience.mask).sum() / (1 - metrics["grpo/response_padding"]),
        **{name: metrics[f"grpo/{name}"] for name in ("loss", "grad_norm", "kl", "entropy")},
    }
    print(json.dumps({name: np.asarray(value).tolist() for name, value in printed.items()}))


def made_up(experience: Experience) -> Experience:
    """With advantages and lengths that an untrained model would not have: it earns nothing and never ends.

    Responses have 1 to 4 tokens, but for the first one of every second prompt, and of each of the last eight:
    5 to 8. With two completions per prompt, two processes have them in unequal numbers.
    """
    rows, group, longest = experience.mask.shape
    prompts = jax.process_index() * rows + np.arange(rows)[:, None]
    long = (np.arange(group) == 0) & ((prompts % 2 == 0) | (prompts >= 8))
    mask = np.arange(longest) < (1 + prompts % 4 + 4 * long)[..., None]
    advantages = np.cos(prompts) * np.array([1, -1])
    return dataclasses.replace(
        experience, mask=experience.mask * mask, advantages=advantages.astype(np.float32)
    )


class FixedCollector:
    """Hands out one experience."""

    def __init__(self, experience: Experience):
        self._experience = experience

    def collect(self, params: object, step: int) -> Collected:
        ids = np.array([f"pair-{row}" for row in range(len(self._experience.tokens))])
        return Collected(self._experience, ids, {}, {"rollout": 1.0, "reward": 1.0}, 1)


if __name__ == "__main__":
    main()
