"""TinyGroundingGPT, all stages (arXiv 2411.09691, Table 6), for 8 GPUs of 80 GB; sizes have files of their
own.

    python -m dig_jax.assemble --clip=models/clip --dino=models/dino --qwen=models/qwen --out=models/tiny-3B
    python -m data_gen.align --data=DIR --out=data/align
    python -m data_gen.align --data=DIR --items=conversation:1,description:0.8 --out=data/align_global
    python -m dig_jax.main --config=configs/tiny_grounding_3b.py --workdir=runs/tiny-3B

Four stages of supervised training, each with a new optimizer and a cosine over its own length:

    align    1a  the projector alone learns, of LLaVA's 595K captions           1e-3, 256, 1 epoch
    caption  1b  projector and decoder, of the same captions                    2e-5, 256, 1 epoch
    local    2   phrases and boxes of RefCOCO, RefCOCO+, RefCOCOg and
                 Visual Genome, and the kinds with object crops                 2e-5, 256, 17,016 steps
    detail   3   LLaVA's 665K, grounded conversations and descriptions          2e-5, 128, 2 epochs

Batches are the paper's, 32 and 16, for each of its 8 GPUs. Of what it does not say: both towers stay frozen;
the optimizer is AdamW with LLaVA's defaults; examples of `local` come in the shares of the paper's counts,
4.1M : 210K : 46K, phrases (to box) and regions (to words) evenly. docs/tiny_grounding.md has the data. It was
not run at this size.
"""

from ml_collections import ConfigDict

from configs import base

CAPTIONS = "data/llava/LLaVA-CC3M-Pretrain-595K/chat.json"
INSTRUCTIONS = "data/llava/llava_v1_5_mix665k.json"
PHRASES = ("data/refcoco", "data/refcoco+", "data/refcocog", "data/visual_genome/region_descriptions.json")
ALIGNED, GLOBAL = "data/align", "data/align_global"
ORDER = ("align", "caption", "local", "detail")


def get_config() -> ConfigDict:
    """Returns the settings that all sizes have in common; `model_path` is for each to say."""
    config = base.get_config()
    config.algorithm, config.task = "sft", "conversation"
    config.data.train = (CAPTIONS,)
    config.model.freeze_vision = True  # "we train both the LLM and the projector"
    config.model.head_chunk = 256
    config.referring.bare = True  # boxes as in the texts of the other parts
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_ratio = 0.03
    config.optimizer.weight_decay = 0.0
    config.sft.cut_answers = True  # as LLaVA cuts what is longer than its 2,048 tokens
    config.conversation.max_characters = 5500  # with an image below those 2,048, as a rule
    config.data.max_bad_records = 100
    # Held-out scenes, by greedy answers; the best checkpoint is that of the most boxes found.
    config.eval.main = "boxes"
    config.evals = ConfigDict(
        {
            name: {"task": task, "data": ALIGNED, "split": "test"}
            for name, task in (("boxes", "referring"), ("crops", "choice"), ("exist", "yes_no"))
        }
    )
    config.eval.group_size, config.eval.num_pairs, config.eval.every = 0, 1024, 500
    config.rollout.max_new_tokens = 64
    config.checkpoint.every = 500
    config.checkpoint.resumable = 2
    config.log.every = 10
    config.curriculum.order = ORDER
    config.curriculum.stages = ConfigDict(
        {
            "align": _stage(1e-3, 256, 64, model={"freeze_text": True}, data=_captions(), num_epochs=1.0),
            "caption": _stage(2e-5, 256, 64, data=_captions(), num_epochs=1.0),
            # Questions with four crops are five times an image: each batch is of one part.
            "local": _stage(2e-5, 256, 64, num_steps=17_016, mixture=_local(), data={"group_sizes": True}),
            "detail": _stage(
                2e-5,
                128,
                512,
                earlier=1024,
                num_epochs=2.0,
                data={
                    "train": (INSTRUCTIONS, GLOBAL),
                    # Texts of one image differ ten times in length: batches are of like ones.
                    "prompt_lengths": (640, 704, 832, 1024, 1536),
                    "group_sizes": True,
                },
            ),
        }
    )
    return config


def _stage(rate: float, prompts: int, answer: int, earlier: int = 0, **settings: object) -> dict:
    """A stage with a new optimizer.

    Args:
        rate: learning rate.
        prompts: of a batch, over all GPUs.
        answer: tokens that last answers are padded to.
        earlier: tokens of those before it that are learnt.
        **settings: what else it changes.
    """
    return {
        "batch": {"prompts": prompts, "update_prompts": prompts, "micro_prompts": 8},
        "optimizer": {"learning_rate": rate, "restart": True},
        "sft": {"max_answer_tokens": answer, "max_earlier_tokens": earlier},
        **settings,
    }


def _captions() -> dict:
    return {"train": (CAPTIONS,), "images": "data/llava/LLaVA-CC3M-Pretrain-595K/images"}


def _local() -> dict:
    """4,100 : 210 : 46 as 891 : 46 : 10, which makes blocks of 947 examples."""
    coordinates = {
        "task": "referring",
        "data": {"train": PHRASES},
    }
    crops = {"task": "conversation", "data": {"train": (ALIGNED,)}}
    return {
        "phrases": {"weight": 446.0, **coordinates},
        "regions": {"weight": 445.0, "task": "describe", "data": {"train": PHRASES}},
        "located": {"weight": 46.0, **crops, "conversation": {"kinds": ("I-C", "C-I")}},
        "named": {"weight": 10.0, **crops, "conversation": {"kinds": ("T-I", "I-T")}},
    }
