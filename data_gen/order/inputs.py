"""What a user brings: scenes, a folder of meshes and textures, kinds of change."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from data_gen.changes import load_file
from data_gen.files.staging import Job
from data_gen.order import assets, userscenes
from data_gen.plan.pair import PairPlan, plan_pair
from data_gen.plan.stage import PairFailed, PlanAttempt
from data_gen.render.controller import Worker
from data_gen.scenes.presets import Preset

_loaded_kinds: set[Path] = set()  # files run in this process: a kind can be registered once


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The user's files, each None where there is none."""

    scenes: Path | None = None
    assets: Path | None = None
    kind_file: Path | None = None

    def load_kinds(self) -> None:
        """Registers the kinds of change of `kind_file` in this process. Raises ValueError."""
        if self.kind_file and self.kind_file.resolve() not in _loaded_kinds:
            load_file(self.kind_file)
            _loaded_kinds.add(self.kind_file.resolve())

    def extend(self, preset: Preset) -> Preset:
        """The preset with the user's shapes, textures and skies beside its own. Raises ValueError."""
        return assets.extend(preset, assets.scan(self.assets)) if self.assets else preset

    def worker_flags(self) -> list[str]:
        """Flags of worker.py."""
        return [f"--assets={self.assets.resolve()}"] if self.assets else []

    def measure_assets(self, worker: Worker) -> None:
        """Has Blender measure every mesh, which planning needs. Raises ValueError naming a mesh."""
        if self.assets:
            assets.register(worker, assets.scan(self.assets))

    def planner(self, preset: Preset, seed: int) -> PlanAttempt:
        """The function that plans attempt n at a pair: of the user's scenes, else of the preset.

        Train pairs take the scenes from the first on, test pairs from the last back. Raises ValueError for
        scenes that are none.
        """
        if self.scenes is None:
            return lambda job, attempt: plan_pair(preset, seed, *job, attempt)
        scenes = userscenes.read(self.scenes, preset)
        for item in scenes:
            if (item.scene.width, item.scene.height) != (preset.width, preset.height):
                raise ValueError(
                    f"{item.where}: the scene is {item.scene.width}x{item.scene.height}, the dataset "
                    f"{preset.width}x{preset.height}; leave its size out, or name it with --resolution"
                )

        def plan(job: Job, attempt: int) -> PairPlan:
            split, index = job
            scene = scenes[index % len(scenes) if split == "train" else -1 - index % len(scenes)]
            if attempt and scene.fixed:
                raise PairFailed(f"{scene.where} says what changes, so nothing can be drawn again")
            return userscenes.plan_user_pair(preset, scene, seed, split, index, attempt)

        return plan

    def digests(self) -> dict[str, str]:
        """A hash of every file, to tell whether pairs were made from the same ones."""
        files = [path for path in (self.scenes, self.kind_file) if path]
        found = {path.name: path for path in files}
        if self.assets:
            known = assets.scan(self.assets)
            names = [*known.shapes, *known.textures, *known.environments]
            found |= {name: self.assets / name.removeprefix("asset:") for name in names}
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}
