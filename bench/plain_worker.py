"""The plain way to render a pair, for bench/generator.py: a render worker that does as a simple script would.

It speaks the protocol of data_gen/render/worker.py and shows the same scenes, but builds every picture's
scene from nothing and leaves Blender's render settings at their defaults: denoiser with its most careful
prefilter, light tree, adaptive sampling, bounces. Run under the interpreter that has bpy.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_gen.render import worker  # noqa: E402 - imports bpy, with as many threads as the renderer's

# What data_gen sets otherwise than Blender does.
SETTINGS = (
    *("use_adaptive_sampling", "use_light_tree", "caustics_reflective", "caustics_refractive"),
    *("max_bounces", "diffuse_bounces", "glossy_bounces", "transmission_bounces", "volume_bounces"),
    *("transparent_max_bounces", "sample_clamp_indirect", "pixel_filter_type", "filter_width"),
    *("denoising_prefilter", "denoising_quality", "denoising_input_passes"),
)


class PlainStudio(worker.Studio):
    """Makes everything anew for every request."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        super().__init__(*arguments)

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "picture":
            super().__init__(*self.arguments)
        return super().handle(request)

    def render_picture(self, scene: dict[str, Any], path: str) -> None:
        self.scene.world = self.world
        self.scene.view_settings.view_transform = "Standard"
        self.scene.render.image_settings.color_mode = "RGB"
        cycles = self.scene.cycles
        for name in SETTINGS:
            setattr(cycles, name, cycles.bl_rna.properties[name].default)
        cycles.use_denoising = scene["denoise"]
        cycles.use_adaptive_sampling = scene["denoise"]  # not for the reference
        self._render(path, samples=scene["samples"], seed=scene["seed"])


worker.Studio = PlainStudio  # type: ignore[assignment,misc]

if __name__ == "__main__":
    worker.main()
