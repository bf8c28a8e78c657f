"""Finding the model that a command was given: a Hugging Face folder, a hub id, or the workdir of a run.

A workdir keeps `model/`, the Hugging Face files without weights, beside its checkpoints, so that it can be
used wherever a model is asked. A folder that was exported from one has `dig_jax.json`, which no other program
reads: how the run asked the model, and so how it is asked from there.
"""

import codecs
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from dig_jax.data.identity import fingerprint_of_files
from dig_jax.machines import textfile
from dig_jax.machines.folder import to_path, write_json

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)


RUN_FILE = "dig_jax.json"  # in an exported folder
# What a model's answers depend on beside its weights, and how they are scored where no flag says otherwise.
ASKED_BY = (
    *("task", "task_file", "seed", "model.dtype", "sft.answer_step", "reward", "referring"),
    "conversation",
    *("data.question", "data.box_convention", "data.min_pixels", "data.max_pixels"),
    *("rollout.max_new_tokens", "rollout.temperature", "rollout.top_p", "rollout.top_k"),
    *("eval.group_size", "eval.greedy", "eval.thinking_budget"),
)


def is_workdir(path: epath.Path) -> bool:
    """Whether `path` is a training workdir (as opposed to a Hugging Face folder)."""
    return (path / "checkpoints").is_dir() and (path / "model" / "config.json").exists()


def find_model(path: str) -> epath.Path:
    """Resolves a Hugging Face folder, a workdir or a hub id to a folder, local or in a bucket.

    A hub id (`organisation/name`) is taken from the local hub cache, or fetched by `huggingface_hub`.

    Raises:
        FileNotFoundError: there is no such folder and the hub did not give it; the message says how to get
            one.
        ValueError: it is in a bucket, and what reads those is not installed.
    """
    how = (
        "Download it where there is a network, for example\n"
        "    hf download Qwen/Qwen3-VL-4B-Thinking --local-dir models/Qwen3-VL-4B-Thinking\n"
        "and pass --config.model_path=models/Qwen3-VL-4B-Thinking (evaluate and generate: --model=...);"
        " a training workdir works too."
    )
    if not path:
        raise FileNotFoundError(f"no model is given (model_path is empty). {how}")
    folder = to_path(path)
    if folder.is_dir():
        if not is_workdir(folder) and not (folder / "config.json").exists():
            raise FileNotFoundError(f"{path} is neither a Hugging Face folder nor a finished workdir. {how}")
        return folder
    parts = path.split("/")
    if len(parts) != 2 or not all(parts) or path.startswith((".", "~")):
        raise FileNotFoundError(f"model folder {path} does not exist. {how}")
    return _from_hub(path, how)


def find_workdir(path: str) -> epath.Path:
    """The workdir of an earlier stage.

    Raises:
        FileNotFoundError: it is not one; the message says how to get one.
    """
    workdir = to_path(path)
    if not is_workdir(workdir):
        raise FileNotFoundError(
            f"init_from={path} is not a workdir with a checkpoint: train the earlier stage with"
            f" --workdir={path} first, name another with --config.init_from=DIR, or start from the model"
            " itself with --config.init_from="
        )
    return workdir


def _from_hub(repo: str, how: str) -> epath.Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt"]
    try:
        return epath.Path(snapshot_download(repo, allow_patterns=patterns, etag_timeout=5))
    except Exception as error:  # the hub client raises many kinds; all mean that there is no model
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"model {repo} is not a local folder, and the hub did not give it ({reason}). {how}"
        ) from error


def hf_files(model: epath.Path) -> epath.Path:
    """The folder with config, tokenizer and processor files of a Hugging Face folder or workdir."""
    return model / "model" if is_workdir(model) else model


def run_settings(model: epath.Path) -> dict[str, Any] | None:
    """Settings of the run that a model is of; None for one that others published.

    Of a workdir all of them, of an exported folder those that the model is asked by.

    Raises:
        ValueError: the file with them is damaged.
    """
    if is_workdir(model):
        return textfile.read_json(model / "config.json")
    file = model / RUN_FILE
    if not file.exists():
        return None
    return textfile.field(textfile.read_json(file), "settings", dict, file) or {}


def write_run_file(config: ConfigDict, folder: epath.Path) -> None:
    """Notes in an exported folder how the run with these settings asked its model, and scored its answers.

    A reward file does not travel with a model, so neither do the weights of its terms: `evaluate` then scores
    by the task's own reward, unless it is given the file again.
    """
    settings: dict[str, Any] = {}
    for name in (*ASKED_BY, *(() if config.rewards.file else ("rewards.weights",))):
        group, _, key = name.rpartition(".")
        value = config[group][key] if group else config[key]
        (settings.setdefault(group, {}) if group else settings)[key] = (
            value.to_dict() if isinstance(value, ConfigDict) else value
        )
    about = "how dig_jax asks this model where nothing else is asked for: as the run that trained it did"
    write_json(folder / RUN_FILE, {"about": about, "settings": settings})


def identity(model: epath.Path) -> str:
    """What a model is, wherever it lies: "FILES/WEIGHTS", two hashes.

    FILES are its settings, tokenizer and processor; WEIGHTS its safetensors, or of a workdir what its newest
    checkpoint says of itself, which has checksums of the parameters.
    """
    files = hf_files(model)
    own = [files / name for name in MODEL_FILES if (files / name).exists()]
    if is_workdir(model):
        steps = [int(path.name) for path in (model / "checkpoints").iterdir() if path.name.isdigit()]
        weights = [model / "checkpoints" / str(max(steps)) / "meta" / "metadata"] if steps else []
    else:
        weights = sorted(path for path in model.iterdir() if path.name.endswith(".safetensors"))
    present = [path for path in weights if path.exists()]
    return f"{fingerprint_of_files(own)}/{fingerprint_of_files(present)}"


def copy_model_files(source: epath.Path, target: epath.Path) -> None:
    """Copies configuration, tokenizer and processor files, but no weights.

    Without the byte-order mark that an editor on Windows may have left: transformers does not read over it.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in MODEL_FILES:
        if (source / name).exists():
            (target / name).write_bytes((source / name).read_bytes().removeprefix(codecs.BOM_UTF8))
