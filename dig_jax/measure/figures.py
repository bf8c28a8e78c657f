"""What an evaluation says of completions: figures over all of them, and how sure their means are."""

from __future__ import annotations

import numpy as np

from dig_jax.tasks.task import Task, Terms


def figures_of(task: Task, terms: Terms) -> dict[str, float]:
    """What an evaluation says about completions, of their terms [n].

    Returns:
        The task's own figures; `length_mean`, `length_p50`, `length_p90`, `length_p99`, tokens, where one
        that was cut counts as long as it got; `truncated`, the share of those; with a thinking budget also
        `thought_closed`, the share it closed.
    """
    figures = dict(task.figures(terms))
    figures["length_mean"] = terms["length"].mean()
    for percent in (50, 90, 99):
        figures[f"length_p{percent}"] = np.percentile(terms["length"], percent, method="higher")
    figures |= {name: terms[name].mean() for name in ("truncated", "thought_closed") if name in terms}
    return {name: float(value) for name, value in figures.items()}


def standard_errors(task: Task, terms: Terms, group: int) -> dict[str, float]:
    """How sure the means of the task's metrics are: NAME_se, of the mean over examples.

    Args:
        task: of the completions.
        terms: of them [n], those of an example, `group` of them, next to each other: they are alike, so that
            examples count and not completions.
    """
    means = {m.name: terms[m.name].reshape(-1, group).mean(axis=1) for m in task.metrics if m.name in terms}
    return {
        f"{name}_se": float(values.std(ddof=1) / np.sqrt(len(values)))
        for name, values in means.items()
        if len(values) > 1
    }
