"""Adapters as PEFT keeps them: adapter_config.json and adapter_model.safetensors.

They go onto the model beside which they were trained: `PeftModel.from_pretrained(model, folder)`. Checked
against `peft` in tests/models/hf/test_peft.py.
"""

import collections
import math
import re
from collections.abc import Iterator, Set
from typing import Any

import numpy as np
from etils import epath
from flax import nnx

from dig_jax.machines.folder import write_json
from dig_jax.models import families
from dig_jax.models.architecture import Architecture
from dig_jax.models.families import layouts
from dig_jax.models.hf.checkpoint import find_entries, to_host
from dig_jax.models.hf.layout import Layout
from dig_jax.models.hf.safetensors_io import Spec, write_file

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


def write_adapters(
    folder: epath.Path | None,
    params: nnx.State,
    config: Architecture,
    *,
    rank: int,
    alpha: float,
    base: str,
    dtype: Any,
) -> None:
    """Writes the adapters among `params`, one tensor on the host at a time.

    Args:
      folder: that exists; None takes part in gathering tensors from several processes and writes nothing.
      params: of a model with adapters.
      config: its architecture.
      rank, alpha: of all its adapters.
      base: name or folder of the model that they were trained beside.
      dtype: of the written tensors.
    """
    pairs = list(_pairs(params, config))
    targets = {_module(name) for layout, _, _ in pairs for name in layout.names}
    specs = [
        Spec(name, np.dtype(dtype), shape)
        for layout, a, _ in pairs
        for name, shape in _named_shapes(layout, a.shape[-1])
    ]
    arrays = _arrays(pairs, dtype)
    if folder is None:
        collections.deque(arrays, maxlen=0)
        return
    write_file(folder / WEIGHTS_FILE, specs, arrays)
    settings = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "target_modules": suffixes(targets, _modules(params, config)),
    }
    write_json(folder / CONFIG_FILE, settings)


def check_base(folder: epath.Path, params: nnx.State, config: Architecture) -> None:
    """Compares what adapters of `params` were trained beside with a folder: the first layer of each kernel.

    Raises:
      ValueError: it is another model.
    """
    entries, kernels = find_entries(folder, config), dict(nnx.to_flat_state(params))
    plan = layouts(_without_adapters(params), config)
    for path in plan:
        if path[-1] != "kernel" or (*path[:-1], "adapter", "a") not in kernels:
            continue
        layout, kernel = plan[path], kernels[path].get_value()
        ours = layout.to_file(to_host(kernel, 0 if layout.stacked else None, None))
        name = layout.names[0]
        there = entries.get(name)
        theirs = there.read(0, math.prod(there.shape)).astype(ours.dtype) if there else np.zeros(0)
        if there is None or there.shape != ours.shape or not np.array_equal(theirs, ours.reshape(-1)):
            raise ValueError(
                f"{folder} is not the model that the adapters were trained beside: its {name} differs. Name"
                " that model with --base=DIR (a run that started from another run has that run's export,"
                " in its param_dtype, for a base), or export the merged model"
            )


def suffixes(targets: Set[str], modules: Set[str]) -> list[str]:
    """The shortest endings of module names that stand for `targets` and for no other of `modules`."""
    others = [f".{name}" for name in modules - targets]
    found = set()
    for name in targets:
        parts = name.split(".")
        endings = (".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1))
        found.add(next(end for end in endings if not any(other.endswith(f".{end}") for other in others)))
    return sorted(found)


def _plan(params: nnx.State, config: Architecture) -> dict[tuple[Any, ...], Layout]:
    """Layouts of all but the adapters, with the names that transformers' modules have in memory."""
    name = families.of(config).module_name
    plan = layouts(_without_adapters(params), config)
    return {path: layout._replace(names=tuple(map(name, layout.names))) for path, layout in plan.items()}


def _pairs(params: nnx.State, config: Architecture) -> Iterator[tuple[Layout, Any, Any]]:
    """The layout of each kernel with an adapter, and the adapter's a [*in, rank] and b [rank, *out]."""
    values = dict(nnx.to_flat_state(params))
    for path, layout in _plan(params, config).items():
        a, b = (values.get((*path[:-1], "adapter", name)) for name in "ab")
        if path[-1] == "kernel" and a is not None and b is not None:
            yield layout, a.get_value(), b.get_value()


def _named_shapes(layout: Layout, rank: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of an adapter's tensors. Beside a convolution they are convolutions, too."""
    outputs, inputs, *sides = layout.file_shape
    for name in layout.names:
        prefix = f"base_model.model.{_module(name)}"
        yield f"{prefix}.lora_A.weight", (rank, inputs, *sides)
        yield f"{prefix}.lora_B.weight", (outputs, rank, *(1 for _ in sides))


def _arrays(pairs: list[tuple[Layout, Any, Any]], dtype: Any) -> Iterator[np.ndarray]:
    """The tensors in the order of their names."""
    for layout, a, b in pairs:
        rank = a.shape[-1]
        shapes = _named_shapes(layout, rank)
        for layer in range(len(layout.names)):
            number = layer if layout.stacked else None
            (_, of_a), (_, of_b) = next(shapes), next(shapes)
            yield np.ascontiguousarray(to_host(a, number, dtype).reshape(-1, rank).T).reshape(of_a)
            yield np.ascontiguousarray(to_host(b, number, dtype).reshape(rank, -1).T).reshape(of_b)


def _modules(params: nnx.State, config: Architecture) -> set[str]:
    """All modules, those that hold others too: PEFT compares its endings with every one of them."""
    names = {_module(name) for layout in _plan(params, config).values() for name in layout.names}
    return {name[: dot.start()] for name in names for dot in re.finditer(r"\.|$", name)}


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _without_adapters(params: nnx.State) -> nnx.State:
    flat = nnx.to_flat_state(params)
    return nnx.from_flat_state([(path, variable) for path, variable in flat if "adapter" not in path])
