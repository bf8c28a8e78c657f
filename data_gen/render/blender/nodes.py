"""Short ways to write shader node trees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Tree:
    """A node tree being built. A value is a number, a colour or another node's output."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree
        tree.nodes.clear()

    def add(self, kind: str, inputs: Mapping[Any, Any] | None = None, **settings: Any) -> Any:
        """A node of type "ShaderNode" + kind with these inputs and settings; returns the node."""
        node = self.tree.nodes.new(f"ShaderNode{kind}")
        for name, value in settings.items():
            setattr(node, name, value)
        for key, value in (inputs or {}).items():
            self.set(node.inputs[key], value)
        return node

    def set(self, socket: Any, value: Any) -> None:
        if hasattr(value, "is_output"):
            self.tree.links.new(value, socket)
        else:
            socket.default_value = value

    def math(self, operation: str, *values: Any) -> Any:
        """The output of a math node."""
        return self.add("Math", dict(enumerate(values)), operation=operation).outputs[0]

    def vector_math(self, operation: str, *values: Any) -> Any:
        return self.add("VectorMath", dict(enumerate(values)), operation=operation).outputs[0]

    def mix_color(self, factor: Any, a: Any, b: Any) -> Any:
        return self.add("MixRGB", {0: factor, 1: a, 2: b}).outputs[0]

    def mix_shader(self, factor: Any, a: Any, b: Any) -> Any:
        return self.add("MixShader", {0: factor, 1: a.outputs[0], 2: b.outputs[0]})

    def output(self, surface: Any, kind: str = "OutputMaterial") -> None:
        self.tree.links.new(surface.outputs[0], self.add(kind).inputs["Surface"])


def linear(rgb: Any) -> tuple[float, float, float, float]:
    """sRGB 0..255 -> what Cycles computes with."""
    red, green, blue = (srgb_to_linear(value / 255) for value in rgb)
    return red, green, blue, 1.0


def srgb_to_linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
