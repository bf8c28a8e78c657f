"""Differential grounding for vision-language models: GRPO on Qwen-VL models in JAX.

`load_model(folder)` gives a `Session` that answers questions about images: docs/python.md. Training and
evaluation are commands, `python -m dig_jax.main --help`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dig_jax.session import Question, Session, load_model

__all__ = ["Question", "Session", "load_model"]


def __getattr__(name: str) -> Any:
    """What is behind the front door is imported when it is asked for: a command needs other rooms."""
    if name in __all__:
        from dig_jax import session

        return getattr(session, name)
    raise AttributeError(f"module 'dig_jax' has no attribute {name!r}")
