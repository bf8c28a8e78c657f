"""The config of a run of the study of object crops: `--config=study/align_config.py:ARM`.

`dig` in the place of an arm goes on with pairs. `ARM,quick` is the same with two steps: it shows that
everything works, and nothing else. `study.align` says on the command line where data lie, the seed and the
size of batches.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import quickstart_align, scratch
from study.align_arms import ANSWER_STEP, ARMS, PROMPTS, STEPS, TEXT

DATA = "data/align_study"


def get_config(name: str) -> ConfigDict:
    """Returns the settings of an arm, or of its continuation on pairs.

    Raises:
        ValueError: there is none of that name.
    """
    name, _, quick = name.partition(",")
    if name == "dig":
        return _dig(bool(quick))
    if name not in ARMS:
        raise ValueError(f"the study has no arm {name!r}; it has {', '.join((*ARMS, 'dig'))}")
    config = quickstart_align.get_config()
    config.curriculum.order, config.curriculum.stages = (), ConfigDict()
    config.num_steps = 2 if quick else STEPS
    config.sft.answer_step = ANSWER_STEP
    config.mixture = ConfigDict(
        {kind.replace("-", "_"): _part(kind, share) for kind, share in ARMS[name].shares.items()}
    )
    config.evals = ConfigDict({"boxes": {"task": "referring", "data": f"{DATA}/text", "split": "test"}})
    config.eval.num_pairs, config.eval.every = 8 if quick else 256, STEPS
    if quick:
        config.eval.batch_prompts = 8
    config.checkpoint.every, config.checkpoint.resumable, config.checkpoint.keep = 500, 1, 1
    config.batch.prompts = config.batch.update_prompts = config.batch.micro_prompts = PROMPTS
    config.log.every = 100
    return config


def _part(kind: str, share: int) -> dict[str, object]:
    """A kind as a part of the mixture: boxes by the task that scores them, all others as they are written."""
    data = {"data": {"train": (f"{DATA}/{'text' if kind in TEXT else 'image'}",)}}
    if kind in ("T-C", "I-C"):  # of its dataset the only kind that is answered by a box
        return {"weight": float(share), "task": "referring", **data}
    return {"weight": float(share), "conversation": {"kinds": (kind,)}, **data}


def _dig(quick: bool) -> ConfigDict:
    """Supervised answers to single pairs, then GRPO on all pairs, as in configs/scratch.py."""
    config = scratch.get_config()
    config.eval.every = 100
    if quick:
        for stage in config.curriculum.stages.values():
            stage.num_steps = 2
        config.batch.prompts = config.batch.update_prompts = config.batch.rollout_prompts = 8
        config.batch.response_buckets = (config.rollout.max_new_tokens,)
        config.rollout.group_size = config.eval.group_size
        config.eval.num_pairs = config.eval.batch_prompts = 8
    return config
