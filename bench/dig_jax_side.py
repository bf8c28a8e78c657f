"""dig_jax's side of `bench/grpo_step.py`: the training step of `dig_jax.train`, on pairs held in memory."""

from pathlib import Path
from typing import cast

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from bench.timing import Seconds
from dig_jax.data.encode import ExampleEncoder
from dig_jax.data.example import Example, Shape
from dig_jax.data.images import ImageConfig
from dig_jax.data.loader import ExampleDataset, ExampleLoader
from dig_jax.data.records import Pair
from dig_jax.machines import parallel
from dig_jax.rollout.programs import rollout_programs
from dig_jax.run import curriculum, loading
from dig_jax.tasks.differences.task import Differences
from dig_jax.update.steps import StepMaker


class InMemory(list[Example]):
    """Examples as the loader reads them from a dataset: counted, indexed, of known shapes."""

    @property
    def shapes(self) -> list[Shape]:
        return [example.shape for example in self]


class DigJaxSide:
    """Steps of one GRPO run, on request.

    Attributes:
      parameters: of the model.
      prompt_tokens: of one prompt.
      prompt_length: P, what prompts are padded to.
    """

    def __init__(self, config: ConfigDict, folder: Path, pairs: list[Pair], question: str):
        mesh = parallel.make_mesh(config.mesh)
        opened = loading.open_model(epath.Path(folder))
        tokenizer, model_config = opened.tokenizer, opened.architecture
        encoder = ExampleEncoder(
            tokenizer,
            ImageConfig.from_folder(folder),
            model_config,
            max_answer_length=0,
        )
        config.data.question = question
        task = loading.make_task(config, epath.Path(folder), tokenizer)
        assert isinstance(task, Differences)
        examples = InMemory(map(task.example, pairs))
        loader = ExampleLoader(
            cast(ExampleDataset, examples),
            encoder,
            bucket_pixels=(),
            global_batch_size=config.batch.prompts,
            seed=config.seed,
            shuffle=True,
            group_sizes=False,
            augment=task.augment,
        )
        graphdef, params = loading.load_params(config, opened, mesh)
        sampling = rollout_programs(graphdef, params, parallel.rollout_mesh(config.rollout.mesh, mesh))
        maker = StepMaker(
            graphdef, params, mesh, sampling, tokenizer, model_config.text.vocab_size, check=lambda: None
        )
        (stage,) = curriculum.stages(config)
        programs = maker.programs(stage)
        self._step = maker.step(stage, task, loader, programs.reference(params))
        self._state = programs.init(params)
        prompts = encoder(examples[:1], loader.bucket(0)).prompts
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        self.prompt_tokens = int(np.asarray(prompts.length)[0])
        self.prompt_length = loader.bucket(0).prompt_length

    def step(self, index: int) -> dict[str, float]:
        """Runs a step; seconds in all, of its CPU, sampling and reward; tokens of the longest completion."""
        begin = Seconds.now()
        self._state, metrics, _ = self._step(self._state, index)
        jax.block_until_ready(self._state)
        taken = Seconds.now().since(begin)
        return {
            "step_s": taken.wall,
            "cpu_s": taken.cpu,
            "rollout_s": metrics["time/rollout"],
            "reward_s": metrics["time/reward_work"],
            "decoded": metrics["rollout/response_length_max"],
        }
