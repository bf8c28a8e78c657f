"""From a seed to the two scenes of a pair: pure functions, no renderer.

What a pair shows depends on (preset, seed, split, index, attempt) alone. The number of its differences, and
the kind, size and region of each, do not depend on the attempt, so resampling a rejected scene does not shift
the dataset's balance.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any, TypeVar

from data_gen.changes import CHANGES, Change, unchanged
from data_gen.plan.describe import subject
from data_gen.plan.layout import REGIONS, NoRoom, place
from data_gen.scenes import rig, scene
from data_gen.scenes.presets import Preset
from data_gen.scenes.scene import Object, Scene

SUITABLE_TRIES = 200  # objects drawn until one suits a change

Choice = TypeVar("Choice")


class Rejected(Exception):
    """This attempt at a pair is not good enough; `str(error)` is a short reason, used to count rejections."""


@dataclasses.dataclass(frozen=True)
class PairPlan:
    """Two scenes and the differences between them. `id` is unique over presets, seeds, splits and indices."""

    id: str
    preset: str
    seed: int
    split: str
    index: int
    attempt: int
    scene_a: Scene
    scene_b: Scene
    changes: tuple[Change, ...]

    @property
    def has_distractors(self) -> bool:
        """Whether the camera or the light differs, so that pictures cannot be compared pixel by pixel."""
        a, b = self.scene_a, self.scene_b
        return (a.camera, a.lighting) != (b.camera, b.lighting)

    @property
    def scene_b_undistracted(self) -> Scene:
        """Scene B as seen with A's camera and light: what differs from A is the changes alone."""
        return dataclasses.replace(self.scene_b, camera=self.scene_a.camera, lighting=self.scene_a.lighting)


@dataclasses.dataclass(frozen=True)
class Target:
    """What a difference shall be: its kind and, in balanced presets, the object's size and where it is.

    `region` is the number of a cell of layout's grid over the picture.
    """

    kind: str
    size: str | None = None
    region: int | None = None


def to_dict(plan: PairPlan) -> dict[str, Any]:
    """The plan as JSON values, one line of a plan file."""
    return dataclasses.asdict(plan)


def from_dict(data: dict[str, Any]) -> PairPlan:
    """The plan written by `to_dict`. Raises ValueError, naming the key, for anything else."""
    known = {field.name for field in dataclasses.fields(PairPlan)}
    if not isinstance(data, dict) or set(data) != known:
        wrong = sorted(known.symmetric_difference(data if isinstance(data, dict) else ()))
        raise ValueError(
            f"a plan has the keys {', '.join(sorted(known))}; missing or unknown: {', '.join(wrong)}"
        )
    scenes = {}
    for key in ("scene_a", "scene_b"):
        try:
            scenes[key] = scene.from_dict(data[key])
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    objects = [{item.id: item for item in part.objects} for part in scenes.values()]
    changes = []
    for number, entry in enumerate(data["changes"]):
        before, after = (
            scene.object_from_dict(entry[key]) if entry[key] else None for key in ("before", "after")
        )
        change = Change(entry["kind"], before, after, entry["description"])
        if [part.get(change.object_id) for part in objects] != [change.before, change.after]:
            raise ValueError(f"changes[{number}] does not say what differs between scene_a and scene_b")
        changes.append(change)
    return PairPlan(**{**data, **scenes, "changes": tuple(changes)})


def pair_id(preset: Preset, seed: int, split: str, index: int) -> str:
    return f"{preset.name}-{seed}-{split}-{index:06d}"


def plan_targets(preset: Preset, seed: int, split: str, index: int) -> list[Target]:
    """What the differences of this pair shall be; empty for an identical pair."""
    if not preset.balanced:
        rng = random.Random(f"kinds/{pair_id(preset, seed, split, index)}")
        count = rng.choices(range(len(preset.weights)), preset.weights)[0]
        return [Target(rng.choice(preset.kinds)) for _ in range(count)]
    stream = f"{preset.name}/{seed}/{split}"
    return [
        Target(
            kind=deal(f"{stream}/kind/{slot}", number, preset.kinds),
            size=deal(f"{stream}/size/{slot}", number, list(preset.sizes)),
            region=deal(f"{stream}/region/{slot}", number, range(REGIONS)),
        )
        for slot, number in enumerate(number_differences(stream, preset.weights, index))
    ]


def number_differences(stream: str, weights: Sequence[float], index: int) -> list[int]:
    """One number per difference of pair `index`: how many pairs before it have one in that place too.

    Every 100 pairs have the same numbers of differences in another order.
    """
    borders = [sum(weights[: m + 1]) / sum(weights) * 100 for m in range(len(weights))]
    hand = [next(m for m, border in enumerate(borders) if card + 0.5 < border + 1e-9) for card in range(100)]
    turn, place = divmod(index, 100)
    hands = shuffled(f"{stream}/count/{turn}", hand)
    return [
        turn * sum(count > slot for count in hand) + sum(count > slot for count in hands[:place])
        for slot in range(hands[place])
    ]


def deal(stream: str, index: int, cards: Sequence[Choice]) -> Choice:
    """Card number `index` of a deck that is shuffled anew whenever it is used up.

    Every len(cards) consecutive indices get every card once, so even a small set is balanced.
    """
    turn, place = divmod(index, len(cards))
    return shuffled(f"{stream}/{turn}", cards)[place]


def shuffled(stream: str, cards: Sequence[Choice]) -> list[Choice]:
    """The cards in an order that depends on the name of the stream alone."""
    deck = list(cards)
    random.Random(stream).shuffle(deck)
    return deck


def plan_pair(preset: Preset, seed: int, split: str, index: int, attempt: int) -> PairPlan:
    """Attempt `attempt` at pair `index`. Raises Rejected when no layout fits or two objects share a name."""
    targets = plan_targets(preset, seed, split, index)
    name = pair_id(preset, seed, split, index)
    rng = random.Random(f"scene/{name}/{attempt}")
    camera, lighting = rig.sample_camera(rng, preset), rig.sample_lighting(rng, preset)
    # At least one object stays as it is.
    fewest = max(preset.objects[0], len(targets) + 1)
    count = rng.randint(fewest, max(preset.objects[1], fewest))
    objects = [sample_object(rng, preset, number + 1) for number in range(count)]
    # Shuffled, so that changed objects cannot be told by their ids.
    rng.shuffle(objects)
    changes = [apply(rng, preset, target, item) for target, item in zip(targets, objects, strict=False)]
    changes += [unchanged(item) for item in objects[len(targets) :]]
    if preset.unique_names:
        require_unique_names(changes)
    try:
        regions = [target.region for target in targets]
        changes = place(rng, preset, camera, changes, regions)
    except NoRoom:
        raise Rejected("objects do not fit") from None
    noise_seed = rng.randrange(2**31)
    base = Scene(
        width=preset.width,
        height=preset.height,
        samples=preset.samples,
        denoise=preset.denoise,
        seed=noise_seed,
        camera=camera,
        lighting=lighting,
        ground=rig.pick(rng, preset.grounds),
        objects=(),
    )
    plan = finish(base, changes, len(targets))
    plan = dataclasses.replace(
        plan, id=name, preset=preset.name, seed=seed, split=split, index=index, attempt=attempt
    )
    return distract(rng, preset, plan)


def finish(base: Scene, everything: Sequence[Change], count: int) -> PairPlan:
    """The plan of placed objects, the first `count` of which are the differences. It has no name yet.

    `base` is the scene around the objects.
    """

    def fill(items: list[Object | None]) -> Scene:
        present = sorted((item for item in items if item), key=lambda item: item.id)
        return dataclasses.replace(base, objects=tuple(present))

    scene_a = fill([change.before for change in everything])
    scene_b = fill([change.after for change in everything])
    described = tuple(describe(change, scene_a, scene_b) for change in everything[:count])
    return PairPlan("", "", 0, "", 0, 0, scene_a, scene_b, described)


def describe(change: Change, scene_a: Scene, scene_b: Scene) -> Change:
    """The change with its sentence."""
    if change.before:
        where, name = scene_a, subject(change.before, scene_a)
    else:
        where, name = scene_b, subject(change.versions[0], scene_b, new=True)
    sentence = CHANGES[change.kind].sentence(name, change.before, change.after, where)
    return dataclasses.replace(change, description=sentence)


def distract(rng: random.Random, preset: Preset, plan: PairPlan) -> PairPlan:
    """The plan with B's camera and light moved, as far as the preset wants that."""
    camera = rig.jitter_camera(rng, plan.scene_b.camera, preset.camera_jitter)
    lighting = rig.jitter_lighting(rng, plan.scene_b.lighting, preset.light_jitter)
    return dataclasses.replace(
        plan, scene_b=dataclasses.replace(plan.scene_b, camera=camera, lighting=lighting)
    )


def sample_object(rng: random.Random, preset: Preset, number: int) -> Object:
    """An object without a place yet."""
    color, size = rng.choice(list(preset.colors)), rng.choice(list(preset.sizes))
    item = Object(
        id=number,
        shape=rng.choice(preset.shapes),
        material=rng.choice(preset.materials),
        color=color,
        rgb=preset.colors[color],
        size=size,
        radius=preset.sizes[size],
        rotation=rng.uniform(0.0, 90.0),
    )
    # Glass shows no texture.
    if preset.textures and item.material != "glass" and rng.random() >= preset.plain:
        item = dataclasses.replace(item, texture=rng.choice(preset.textures))
    return item


def apply(rng: random.Random, preset: Preset, target: Target, item: Object) -> Change:
    """The change of the wanted kind to an object like `item`, which is redrawn until that kind suits it."""
    kind = CHANGES[target.kind]
    for _ in range(SUITABLE_TRIES):
        if target.size is not None:
            item = dataclasses.replace(item, size=target.size, radius=preset.sizes[target.size])
        if kind.suits(item, preset):
            return Change(target.kind, *kind.apply(rng, item, preset))
        item = sample_object(rng, preset, item.id)
    raise ValueError(f"preset {preset.name} has no object that suits a change of kind {target.kind!r}")


def require_unique_names(changes: Sequence[Change]) -> None:
    """Raises Rejected when a name would mean two objects of the pair, before or after the changes."""
    owners: dict[str, int] = {}
    for change in changes:
        for item in change.versions:
            if owners.setdefault(item.name, item.id) != item.id:
                raise Rejected("same name")
