"""Where Cycles renders: the CPU, or an NVIDIA GPU by CUDA or OptiX."""

from __future__ import annotations

from typing import Any

import bpy

from data_gen.render.blender import Refused


def use_device(scene: Any, device: str) -> None:
    """Sets the device of the scene: cpu, cuda or optix. Raises Refused."""
    if device == "cpu":
        scene.cycles.device = "CPU"
        return
    preferences = bpy.context.preferences.addons["cycles"].preferences
    wanted = device.upper()
    try:
        preferences.compute_device_type = wanted
        preferences.refresh_devices()
    except TypeError:  # this build of Blender does not know the type
        raise Refused(
            f"--device={device}: this Blender was built without {wanted}; use --device=cpu"
        ) from None
    found = [entry for entry in preferences.devices if entry.type == wanted]
    if not found:
        others = ", ".join(entry.name for entry in preferences.devices) or "none"
        raise Refused(
            f"--device={device}: Cycles finds no {wanted} device here (devices: {others}). "
            "It needs an NVIDIA GPU and its driver; use --device=cpu"
        )
    for entry in preferences.devices:
        entry.use = entry.type == wanted
    scene.cycles.device = "GPU"
