"""One group of a step as a reader wants to see it: the completions of a prompt, what they earned and teach.

Shapes: B prompts of all processes, b of this one, G completions per prompt, R response tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dig_jax.data.encode import Batch
from dig_jax.data.example import Example
from dig_jax.rollout.sampler import Completions
from dig_jax.tasks.task import Asked


@dataclasses.dataclass(frozen=True)
class Group:
    """The completions of one prompt.

    Attributes:
        example: what they answer, augmented as the model saw it.
        truth: what is right, from its task.
        tokens: of each, without padding.
        finished: bool [G], not cut at the most tokens allowed.
        read: what was read from each.
        terms: of the score, [G] each, the reward among them; NaN for one that the example's task has not.
        compared: float [G], what advantages are made of: the reward, less what its length costs.
        advantages: float [G].
        learnt: bool [G], whether the loss has its tokens.
    """

    example: Example
    truth: Mapping[str, Any]
    tokens: list[list[int]]
    finished: np.ndarray
    read: tuple[Mapping[str, Any], ...]
    terms: Mapping[str, np.ndarray]
    compared: np.ndarray
    advantages: np.ndarray
    learnt: np.ndarray


def most_told(
    asked: Asked,
    batch: Batch,
    completions: Completions,
    compared: np.ndarray,
    advantages: np.ndarray,
    learnt: np.ndarray,
) -> Group | None:
    """Of the groups that this process has the prompt of, the one whose completions differ the most.

    Args:
        asked: has the task of the example.
        batch: b of B prompts.
        completions: to all B.
        compared, advantages, learnt: [B, G], see `Group`.

    Returns:
        None where this process has no prompts.
    """
    if not len(batch.rows):
        return None
    own = int(compared[batch.rows].std(axis=1).argmax())
    row, example = int(batch.rows[own]), batch.examples[own]
    rollout, size = completions.rollout, compared.shape[1]
    lengths = np.asarray(rollout.mask[row]).sum(axis=-1).astype(int)
    of_group = slice(row * size, (row + 1) * size)
    return Group(
        example=example,
        truth=asked.parts[example.part].truth(example),
        tokens=[np.asarray(x)[:n].tolist() for x, n in zip(rollout.tokens[row], lengths, strict=True)],
        finished=np.asarray(rollout.finished[row]),
        read=completions.scores.read[of_group],
        terms={name: values[of_group] for name, values in completions.scores.all_terms.items()},
        compared=compared[row],
        advantages=advantages[row],
        learnt=learnt[row],
    )
