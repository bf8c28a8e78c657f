"""Quickstart of TinyGroundingGPT: a small random model learns phrases, boxes and object crops in stages.

    make quickstart-align

renders scenes, makes the kinds of questions of them, trains with this config from a random model
(`dig_jax.scratch --family=clip_dino_qwen`), and writes a page of held-out answers. The stages are those of
`tiny_grounding.py`, and one more, of scenes alone:

    align    1a  relations and attributes of crops (I-T); the decoder is frozen
    caption  1b  the same; all is learnt
    boxes        phrases and crops to boxes, alone: other questions beside them would hold that up
    local    2   the same, which crop, yes or no, and words for crops and boxes
    detail   3   conversations and descriptions with boxes, beside questions of the stage before

Nothing here is pretrained, so both towers learn in all stages; the paper freezes them throughout. Questions
stand before the picture (`data_gen.align --picture=last`), whose cells are asked besides whether they overlap
the box: phrases are learnt so, and hardly otherwise (docs/tiny_grounding.md). Pictures have 36 tokens and
crops 9. Boxes are multiples of 20 thousandths, whose numbers are one token each.
"""

from ml_collections import ConfigDict

from configs import base

DATA = "data/quickstart_align"
ORDER = ("align", "caption", "boxes", "local", "detail")


def get_config() -> ConfigDict:
    """Returns the settings of all stages."""
    config = base.get_config()
    config.algorithm, config.task = "sft", "conversation"
    config.model_path = "runs/quickstart_align_model"
    config.data.train = (DATA,)
    config.data.group_sizes = True  # questions with four crops do not pad those with none
    config.model.dtype = "float32"
    config.model.remat = "none"
    config.referring.bare = True
    config.sft.answer_step = 20
    config.sft.max_answer_tokens = 16
    config.sft.aux_weight = 1.0
    config.batch.prompts = config.batch.update_prompts = config.batch.micro_prompts = 32
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_ratio = 0.03
    config.optimizer.weight_decay = 0.0
    config.optimizer.b2 = 0.98
    config.optimizer.restart = True
    config.rollout.max_new_tokens = 16
    config.eval.main = "boxes"
    config.evals = ConfigDict(
        {
            name: {"task": task, "data": DATA, "split": "test"}
            for name, task in (("boxes", "referring"), ("crops", "choice"))
        }
    )
    config.eval.greedy = True
    config.eval.group_size, config.eval.num_pairs, config.eval.every = 0, 256, 400
    config.checkpoint.every = 300
    config.log.every = 50
    relations = {"conversation": {"kinds": ("I-T",)}}
    config.curriculum.order = ORDER
    config.curriculum.stages = ConfigDict(
        {
            "align": {"num_steps": 20, "model": {"freeze_text": True}, **relations},
            "caption": {"num_steps": 40, **relations},
            "boxes": {"num_steps": 800, "task": "referring", "optimizer": {"schedule": "constant"}},
            "local": {"num_steps": 500, "mixture": _local()},
            "detail": {
                "num_steps": 50,
                "optimizer": {"learning_rate": 3e-4},
                "sft": {"max_answer_tokens": 96, "max_earlier_tokens": 96, "cut_answers": True},
                "mixture": {**_local(), "dialogue": {"weight": 4.0, "conversation": {"kinds": _DIALOGUE}}},
            },
        }
    )
    return config


_DIALOGUE = ("conversation", "description")


def _local() -> dict:
    return {
        "boxes": {"weight": 7.0, "task": "referring"},  # T-C and I-C
        "crops": {"weight": 2.0, "task": "choice"},  # C-I and T-I
        "words": {"weight": 1.0, "conversation": {"kinds": ("C-T", "I-T", "exist")}},
    }
