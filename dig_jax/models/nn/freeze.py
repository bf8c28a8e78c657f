"""Frozen parts of the model: parameters that a run leaves as they are.

The model has three parts. `projector` is what maps image features to the decoder's width (the merger and the
DeepStack mergers), `vision` the rest of the vision tower, and `text` the decoder with its embedding and head.
A frozen part stays in the policy's parameters, so sampling, checkpoints and export see the whole model; it
has no gradient and no optimizer state, and weight decay does not touch it. Where the model has adapters
(`lora`), they alone are trained.
"""

import jax
from flax import nnx
from ml_collections import ConfigDict

PARTS = ("vision", "projector", "text")

_PROJECTOR = ("merger", "deepstack_mergers")


def frozen_parts(config: ConfigDict) -> frozenset[str]:
    """The parts that `config.model` freezes.

    Raises:
        ValueError: all of them, which leaves nothing to train.
    """
    frozen = frozenset(part for part in PARTS if config.model[f"freeze_{part}"])
    if len(frozen) == len(PARTS):
        names = ", ".join(f"config.model.freeze_{part}" for part in PARTS)
        raise ValueError(f"{names} are all True: nothing is left to train; set at least one to False")
    return frozen


def part_of(path: tuple) -> str:
    """The part that a parameter belongs to.

    Args:
        path: of the parameter in the model's state, such as ("vision", "blocks", "norm1", "scale").
    """
    if path[0] == "vision":
        return "projector" if path[1] in _PROJECTOR else "vision"
    if path[0] in ("text", "head"):
        return "text"
    raise ValueError(
        f"parameter {'/'.join(map(str, path))} belongs to no part of the model; expected {PARTS}"
    )


def split_adapters(params: nnx.State) -> tuple[nnx.State, nnx.State]:
    """The adapters (`lora.Adapter`) among the parameters, none where there are none, and all others."""
    adapters, others = nnx.split_state(params, lambda path, _: "adapter" in path, ...)
    return adapters, others


def split(params: nnx.State, frozen: frozenset[str]) -> tuple[nnx.State, nnx.State]:
    """Cuts parameters into those that are trained and the others; `nnx.merge_state` joins them again."""
    adapters, others = split_adapters(params)
    if adapters:
        return adapters, others
    trained, held = nnx.split_state(params, lambda path, _: part_of(path) not in frozen, ...)
    return trained, held


def describe(params: nnx.State, frozen: frozenset[str]) -> str:
    """One line: how many parameters are trained, and what is frozen."""
    trained, held = (sum(leaf.size for leaf in jax.tree.leaves(part)) for part in split(params, frozen))
    names = ", ".join(sorted(frozen)) or "none"
    if split_adapters(params)[0]:
        names = "all but the adapters"
    return f"training {trained:,} of {trained + held:,} parameters; frozen: {names}"
