"""Frozen parts of the model: parameters that a run, or a stage of it, leaves as they are.

The model has three parts. `projector` is what maps image features to the decoder's width (the merger and the
DeepStack mergers), `vision` the rest of the vision tower, and `text` the decoder with its embedding and head.
Of a model with experts, the routers are a fourth one, which is frozen with `text`, or alone.
A frozen part stays in the policy's parameters, so sampling, checkpoints and export see the whole model; it
has no gradient, and weight decay does not touch it. One that no stage trains has no optimizer state either.
Where the model has adapters (`lora`), they alone are trained, but for those in frozen parts.
"""

import dataclasses
from collections.abc import Sequence

import jax
from flax import nnx
from ml_collections import ConfigDict

PARTS = ("vision", "projector", "text")
ROUTER = "router"  # of models with experts

_PROJECTOR = ("merger", "deepstack_mergers")


def frozen_parts(config: ConfigDict) -> frozenset[str]:
    """The parts that `config.model` freezes.

    Raises:
        ValueError: all of them, which leaves nothing to train.
    """
    frozen = frozenset(part for part in (*PARTS, ROUTER) if config.model[f"freeze_{part}"])
    if frozen.issuperset(PARTS):
        names = ", ".join(f"config.model.freeze_{part}" for part in PARTS)
        raise ValueError(f"{names} are all True: nothing is left to train; set at least one to False")
    return frozen


@dataclasses.dataclass(frozen=True)
class Freezing:
    """What a stage of a run leaves as it is.

    Attributes:
        now: parts that the stage freezes.
        always: those of them that all stages of the run do.
        varies: whether other stages of the run freeze other parts.
    """

    now: frozenset[str]
    always: frozenset[str]
    varies: bool

    @classmethod
    def of(cls, config: ConfigDict) -> "Freezing":
        """Of a run of one stage."""
        frozen = frozen_parts(config)
        return cls(frozen, frozen, varies=False)

    @classmethod
    def of_stages(cls, each: Sequence[frozenset[str]]) -> "list[Freezing]":
        """Of each stage of a run, from what each freezes."""
        always, varies = frozenset.intersection(*each), len(set(each)) > 1
        return [cls(now, always, varies) for now in each]

    @property
    def resting(self) -> frozenset[str]:
        """Parts that the stage freezes, and another one trains."""
        return self.now - self.always


def part_of(path: tuple) -> str:
    """The part that a parameter belongs to.

    Args:
        path: of the parameter in the model's state, such as ("vision", "blocks", "norm1", "scale").
    """
    if path[0] == "vision":
        return "projector" if path[1] in _PROJECTOR else "vision"
    if path[0] in ("text", "head"):
        return ROUTER if ROUTER in path else "text"
    raise ValueError(
        f"parameter {'/'.join(map(str, path))} belongs to no part of the model; expected {PARTS}"
    )


def split_adapters(params: nnx.State) -> tuple[nnx.State, nnx.State]:
    """The adapters (`lora.Adapter`) among the parameters, none where there are none, and all others."""
    adapters, others = nnx.split_state(params, lambda path, _: "adapter" in path, ...)
    return adapters, others


def split(params: nnx.State, frozen: frozenset[str]) -> tuple[nnx.State, nnx.State]:
    """Cuts parameters into those that are trained and the others; `nnx.merge_state` joins them again."""
    has_adapters = bool(split_adapters(params)[0])

    def is_trained(path: tuple, _: object) -> bool:
        return not _is_frozen(part_of(path), frozen) and (not has_adapters or "adapter" in path)

    trained, held = nnx.split_state(params, is_trained, ...)
    return trained, held


def _is_frozen(part: str, frozen: frozenset[str]) -> bool:
    return part in frozen or (part == ROUTER and "text" in frozen)


def by_part(params: nnx.State) -> dict[str, nnx.State]:
    """Parameters by the parts they are of, in the order of `PARTS`, routers last; no part without any."""
    found: dict[str, list[tuple]] = {part: [] for part in (*PARTS, ROUTER)}
    for path, leaf in nnx.to_flat_state(params):
        found[part_of(path)].append((path, leaf))
    return {part: nnx.from_flat_state(leaves) for part, leaves in found.items() if leaves}


def has_experts(params: nnx.State) -> bool:
    """Whether the model has routers, and so experts."""
    return ROUTER in by_part(params)


def describe(params: nnx.State, frozen: frozenset[str]) -> str:
    """One line: how many parameters are trained, and what is frozen."""
    trained, held = (sum(leaf.size for leaf in jax.tree.leaves(part)) for part in split(params, frozen))
    names = ", ".join(sorted(frozen)) or "none"
    if adapters := split_adapters(params)[0]:
        held_back = sorted(set(by_part(adapters)) & frozen)
        names = "all but the adapters" + (f", and those of {', '.join(held_back)}" if held_back else "")
    return f"training {trained:,} of {trained + held:,} parameters; frozen: {names}"
