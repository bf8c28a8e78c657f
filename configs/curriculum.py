"""The whole DiG curriculum in one command: one difference, two, then a mix, Qwen3-VL-4B-Thinking.

    for n in 1 2 3; do
      python -m data_gen --preset=stage$n --num_pairs=1600 --test_pairs=128 --seed=$n --out=data/stage$n
    done
    python -m dig_jax.main --config=configs/curriculum.py --workdir=runs/curriculum --config.model_path=MODEL

The same as configs/stage1.py, stage2.py and stage3.py one after another, 45 steps each: every stage begins
with a new optimizer and takes the model it starts from as its KL reference. Held-out figures are those of the
mixed pairs throughout, with those of the other two sets beside them and, now and then, of 12 pairs of another
preset; the last checkpoint of each stage is kept. To try:

    --config.curriculum.order='("mixed",)'                 mixed pairs from the start, for comparison
    --config.curriculum.stages.single.advance.at=0.7       on to two differences as soon as the mean reward of
                                                           sampled answers to held-out single pairs is 0.7
    --config.curriculum.stages.mixed.grpo.reanchor=False   the KL reference of the stage before stays
"""

from ml_collections import ConfigDict

from configs import stage1


def get_config() -> ConfigDict:
    """Returns the settings of the three stages."""
    config = stage1.get_config()
    folders = {"mixed": "data/stage3", "single": "data/stage1", "double": "data/stage2"}
    config.data.eval, config.eval.main = "", "mixed"
    config.evals = ConfigDict({name: {"data": folder} for name, folder in folders.items()})
    config.evals.rich = ConfigDict({"data": "assets/sample_pairs", "split": "train", "every": 15})
    config.curriculum.order = ("single", "double", "mixed")
    config.curriculum.stages = ConfigDict(
        {name: _stage(folders[name], f"{name}/reward_sampled") for name in config.curriculum.order}
    )
    return config


def _stage(folder: str, metric: str) -> dict:
    return {
        "num_steps": 45,
        "data": {"train": (folder,)},
        "advance": {"metric": metric, "at": 0.0},
        "optimizer": {"restart": True},
        "grpo": {"reanchor": True},
    }
