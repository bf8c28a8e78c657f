"""Every setting, with values good and bad: which are accepted is on record, so that a check that moves stays.

After a check that is meant to change: DIG_JAX_RECORD=1 pytest tests/commands/test_setting_verdicts.py
"""

import json
import os
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dig_jax import settings
from dig_jax.run import keys
from tests.helpers.base_config import base_config

RECORDED = Path(__file__).parent / "setting_verdicts.json"

TRIED: dict[type, tuple[Any, ...]] = {
    bool: (False, True),
    int: (-1, 0, 1, 2, 3, 8, 1000, 1_000_000),
    float: (-1.0, 0.0, 1e-4, 0.5, 1.0, 2.0, float("nan"), float("inf")),
    str: ("", "nonsense", "grpo", "sft", "float32", "bfloat16", "full", "plain", "k1", "sequence", "cosine"),
    tuple: ((), ("",), ("a",), ("a=b",), ("a=b", "a=c"), (0,), (1,), (2, 3), (-1,)),
}
# Under which settings as many as possible of the others matter.
BACKGROUNDS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "supervised": {"algorithm": "sft"},
    "adapters": {"model.lora.rank": 8},
    "held out": {"data.eval": "pairs", "advance.at": 0.5},
    "phrases": {"task": "referring"},
    "conversations": {"task": "conversation"},
}


def accepted(config: ConfigDict) -> bool:
    try:
        settings.check(config)
    except ValueError:
        return False
    return True


def verdicts(background: dict[str, Any]) -> dict[str, list[str]]:
    """The values of every setting that are refused, as text."""
    refused: dict[str, list[str]] = {}
    config = base_config(background)
    as_it_was = keys.flat(config.to_dict())
    for key, value in keys.flat(base_config().to_dict()).items():
        wrong = []
        for tried in TRIED[type(value)]:
            config.update_from_flattened_dict({key: tried})
            wrong += [] if accepted(config) else [repr(tried)]
        config.update_from_flattened_dict({key: as_it_was[key]})
        if wrong:
            refused[key] = wrong
    assert keys.flat(config.to_dict()) == as_it_was  # a check changes nothing
    return refused


def test_each_value_of_each_setting_is_accepted_or_refused_as_recorded():
    found = {name: verdicts(background) for name, background in BACKGROUNDS.items()}
    if os.environ.get("DIG_JAX_RECORD"):
        RECORDED.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(RECORDED.read_text())


def test_every_number_refuses_something():
    settings_of = keys.flat(base_config().to_dict())
    refused = {key for found in json.loads(RECORDED.read_text()).values() for key in found}
    numbers = {key for key, value in settings_of.items() if type(value) in (int, float)}
    assert numbers <= refused
