"""The config of a run of the study: `--config=study/config.py:NAME`, an arm or a warm-up of study/arms.py.

`NAME,quick` is the same with two steps per stage and few pairs: it shows that everything works.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import scratch
from study.arms import ARMS, WARMUPS, Changes


def get_config(name: str) -> ConfigDict:
    """Returns the settings of an arm or a warm-up.

    Raises:
        ValueError: there is none of that name.
    """
    name, _, quick = name.partition(",")
    order: tuple[str, ...]
    if name in WARMUPS:
        order, changes = ("warmup",), WARMUPS[name]
    elif name in ARMS:
        order, changes = ARMS[name].order, ARMS[name].changes
    else:
        raise ValueError(f"the study has no arm {name!r}; it has {', '.join((*WARMUPS, *ARMS))}")
    config = scratch.get_config()
    config.curriculum.order = order
    for stage in set(config.curriculum.stages) - set(order):
        del config.curriculum.stages[stage]  # a run that is stopped goes on whatever becomes of the others
    _change(config.curriculum.stages, order, changes)
    if name in ARMS:
        config.eval.every = 100  # and after stages
    if quick:
        _change(config.curriculum.stages, order, {"*.num_steps": 2})
        config.batch.prompts = config.batch.update_prompts = config.batch.rollout_prompts = 8
        config.batch.response_buckets = (config.rollout.max_new_tokens,)  # fewer programs
        config.rollout.group_size = config.eval.group_size
        config.eval.num_pairs = config.eval.batch_prompts = 8
    return config


def _change(stages: ConfigDict, order: tuple[str, ...], changes: Changes) -> None:
    for path, value in changes.items():
        stage, *keys = path.split(".")
        for name in order if stage == "*" else (stage,):
            _set(stages[name], keys, value)


def _set(group: ConfigDict, keys: list[str], value: Any) -> None:
    """Sets a setting, making the groups it is in; a dict sets those that it names."""
    *groups, last = keys
    for key in groups:
        if key not in group:
            group[key] = ConfigDict()
        group = group[key]
    if isinstance(value, dict):
        for key, item in value.items():
            _set(group, [last, key], item)
    else:
        with group.ignore_type():
            group[last] = value
