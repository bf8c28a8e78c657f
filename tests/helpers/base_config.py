"""The settings of configs/base.py with changes, and what `settings.check` says of them."""

from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import base
from dig_jax import settings


def base_config(changes: dict[str, Any] | None = None) -> ConfigDict:
    """A run on pairs, as far as settings go, with these changed: dotted keys and their values."""
    config = base.get_config()
    config.model_path, config.data.train = "model", ("pairs",)
    config.update_from_flattened_dict(changes or {})
    return config


def assert_refused(changes: dict[str, Any], message: str) -> None:
    """These changes make settings that are refused by a ValueError, which `message` is found in."""
    with pytest.raises(ValueError, match=message):
        settings.check(base_config(changes))
