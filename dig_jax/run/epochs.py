"""How long a stage is where its length is said in epochs: recipes give passes over the data, loops take
steps.

An epoch is as many examples as there are, of all parts of a mixture together, whatever their weights; the
last step of it is full, so steps are rounded up. The resolved `num_steps` is what a run's config.json keeps,
and what its learning rate, its checkpoints and its report count in.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from ml_collections import ConfigDict

from dig_jax.run import curriculum, loading, mixture
from dig_jax.run.model_folder import find_model

logger = logging.getLogger("dig_jax")


def with_steps(config: ConfigDict) -> ConfigDict:
    """The settings of a run with the steps of those stages that say their length in epochs.

    Raises:
        FileNotFoundError, ValueError: the model or the data of such a stage cannot be opened; a stage says
            both lengths.
    """
    if not any(stage.config.num_epochs for stage in curriculum.stages(config)):
        return config
    model = find_model(config.model_path)
    tokenizer = loading.open_model(model).tokenizer

    def count(stage: ConfigDict) -> int:
        asked = loading.make_asked(stage, model, tokenizer)
        sources = [loading.open_sources(part, asked.parts[part.name]) for part in mixture.parts(stage)]
        return sum(len(source) for part in sources for source in part)

    return resolved(config, count)


def resolved(config: ConfigDict, count: Callable[[ConfigDict], int]) -> ConfigDict:
    """As `with_steps`, with what counts the examples of a stage."""
    resolved = config.copy_and_resolve_references()
    known: dict[str, int] = {}
    for stage in curriculum.stages(config):
        epochs, size = stage.config.num_epochs, stage.config.batch.prompts
        if not epochs or stage.name in known:
            continue
        where = f"config.curriculum.stages.{stage.name}" if stage.name else "config"
        if stage.name and "num_steps" in config.curriculum.stages[stage.name]:
            raise ValueError(
                f"{where}.num_steps={stage.config.num_steps} and num_epochs={epochs:g} both say how long the"
                " stage is: leave one of them out, or set num_epochs to 0"
            )
        examples = count(stage.config)
        steps = known[stage.name] = max(1, math.ceil(epochs * examples / size - 1e-9))
        logger.info("%s: %g epochs of %d examples are %d steps of %d", where, epochs, examples, steps, size)
        with resolved.unlocked():
            (resolved.curriculum.stages[stage.name] if stage.name else resolved).num_steps = steps
    return resolved
