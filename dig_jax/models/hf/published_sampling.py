"""How a model is sampled by those who made it: generation_config.json, else what its family publishes."""

from collections.abc import Callable

from etils import epath

from dig_jax.machines import textfile
from dig_jax.models import families

# Settings of generation_config.json that would change what is drawn, with the values that do not.
_NEUTRAL = {
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}

_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "temperature": (lambda value: value > 0, "more than 0 (do_sample false is greedy)"),
    "top_p": (lambda value: 0 < value <= 1, "more than 0 and at most 1 (1 turns it off)"),
    "top_k": (lambda value: value >= 0, "0 (off) or more"),
}


def model_sampling(files: epath.Path, opens_thinking: bool) -> dict[str, float]:
    """Temperature, top_p and top_k that a model was published with.

    Those of the folder's generation_config.json if it samples, else those that its family publishes for its
    kind, Instruct or Thinking.

    Raises:
      ValueError: generation_config.json is damaged or asks for something that is not implemented.
    """
    family = families.of_folder(files)
    published = dict(family.thinking_sampling if opens_thinking else family.sampling)
    path = files / "generation_config.json"
    if not path.exists():
        return published
    settings = textfile.read_json(path)
    if not textfile.field(settings, "do_sample", bool, path):
        return published
    for key, neutral in _NEUTRAL.items():
        if settings.get(key) not in (None, neutral):
            raise ValueError(
                f"{path}: {key} is {settings[key]}, which is not implemented; choose --temperature, --top_p"
                " and --top_k yourself"
            )
    off = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
    found = {key: textfile.field(settings, key, type(value), path) for key, value in off.items()}
    chosen = {key: off[key] if value is None else value for key, value in found.items()}
    for key, (is_right, expected) in _RANGES.items():
        if not is_right(chosen[key]):
            raise ValueError(f"{path}: {key} is {chosen[key]} with do_sample true; expected {expected}")
    return chosen
