"""A model as benchmarks ask it: where its weights are, how it is sampled, and how its answers are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from dig_jax.benchmarks import asking
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.pixels import row_bytes
from dig_jax.benchmarks.row import Reader, Row
from dig_jax.data.buckets import Bucket
from dig_jax.data.encode import ExampleEncoder
from dig_jax.data.example import Size, Turn
from dig_jax.data.images import ImageConfig
from dig_jax.data.tokenizer import Tokenizer
from dig_jax.machines import parallel
from dig_jax.measure.drawing import Desk, How, RowSource
from dig_jax.models import families
from dig_jax.models.architecture import Architecture
from dig_jax.models.hf.published_sampling import model_sampling
from dig_jax.rollout.drawer import Drawer, answering_form
from dig_jax.rollout.programs import rollout_programs
from dig_jax.rollout.sampler import sampling_of
from dig_jax.rollout.thinking import make_budget
from dig_jax.run import loading
from dig_jax.run.fingerprint import fingerprint
from dig_jax.tasks.boxes.text import BoxFormat


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that can be asked.

    Attributes:
      facts: what decides its answers, beside the weights, as values that JSON takes.
      images: how pictures become patches.
      boxes: how it writes boxes.
      reader: how its answers are read.
      desk: draws them.
      architecture: its sizes.
      question: about two pictures, as its run asks it; "" for the task's own.
    """

    facts: dict[str, Any]
    images: ImageConfig
    boxes: BoxFormat
    reader: Reader
    desk: Desk
    architecture: Architecture
    question: str = ""

    def row_bytes(self, bucket: Bucket) -> int:
        """Bytes that a row padded to `bucket` takes on its devices, at least."""
        width = np.dtype(self.facts["dtype"]).itemsize
        return sum(row_bytes(bucket, self.images, self.architecture, width).values())

    def source(self, benchmark: Benchmark, rows: Sequence[Row]) -> RowSource:
        """Rows as this model is asked them. Raises ValueError: pictures can not be read."""
        own = self.question and benchmark.ask is asking.differences

        def ask(row: Row, sizes: Sequence[Size]) -> Turn:
            if own:
                return Turn("user", (*range(len(sizes)), self.boxes.fill(self.question, sizes[0])))
            return benchmark.ask(row, sizes, self.boxes)

        return RowSource(benchmark.title, rows, ask)


def sampling_settings(config: ConfigDict, opened: loading.Opened, given: dict[str, Any]) -> dict[str, Any]:
    """How answers are drawn, as values that JSON takes.

    Args:
      config: of the run, else configs/base.py: how long an answer may be.
      opened: the model: what it was published with.
      given: what the user asks for: some of the keys returned, and "greedy".

    Returns:
      temperature, top_p, top_k, max_new_tokens, thinking_budget, seed, and the `source` of the first three.

    Raises:
      ValueError: a value is out of range.
    """
    greedy = given.get("greedy") or given.get("temperature") == 0
    names = ("temperature", "top_p", "top_k")
    settings: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "top_k": 0}
    source = "greedy, as asked for"
    if not greedy:
        source = "flags"
        if not given.keys() >= set(names):
            settings |= model_sampling(opened.files, opened.tokenizer.opens_thinking)
            source = "as published" + (" and flags" if given.keys() & set(names) else "")
        settings |= {name: given[name] for name in names if name in given}
    elif extra := given.keys() & set(names) - {"temperature"}:
        raise ValueError(f"--greedy and --{sorted(extra)[0]} contradict each other: leave one out")
    settings |= {
        "max_new_tokens": given.get("max_new_tokens", config.rollout.max_new_tokens),
        "thinking_budget": given.get("thinking_budget", 0),
        "seed": given.get("seed", 0),
        "source": source,
    }
    if not greedy and not settings["temperature"] > 0:
        raise ValueError(f"--temperature={settings['temperature']}: must be above 0; --greedy is 0")
    if settings["max_new_tokens"] < 1:
        raise ValueError(f"--max_new_tokens={settings['max_new_tokens']}: must be at least 1")
    return settings


def how_of(settings: dict[str, Any], tokenizer: Tokenizer, rows: int, patches: int) -> How:
    """The settings as drawing takes them.

    Args:
      settings: from `sampling_settings`.
      tokenizer: of the model.
      rows, patches: see `How`.

    Raises:
      ValueError: a value is out of range, or the model has no thoughts to limit.
    """
    budget, most = settings["thinking_budget"], settings["max_new_tokens"]
    if budget:
        make_budget(tokenizer, budget, most)
    sampling = sampling_of(tokenizer, *(settings[name] for name in ("temperature", "top_p", "top_k")))
    return How(sampling, most, budget, settings["seed"], rows, patches)


def asked_model(config: ConfigDict, opened: loading.Opened, drawer: Drawer, how: How) -> Model:
    """A model as benchmarks ask it, whatever its weights.

    Args:
      config: dtype, pixel limits and how boxes are written.
      opened: the model.
      drawer: of its completions.
      how: they are drawn.
    """
    images = loading.image_config(config, opened.files)
    boxes = loading.box_format(config, opened.files)
    tokenizer = opened.tokenizer
    encoder = ExampleEncoder(tokenizer, images, opened.architecture, max_answer_length=0)
    reader = Reader(tokenizer.opens_thinking, boxes.convention, boxes.resized)
    facts = {
        "family": families.of_folder(opened.files).model_type,
        "thinking": tokenizer.opens_thinking,
        "dtype": config.model.dtype,
        "min_pixels": images.min_pixels,
        "max_pixels": images.max_pixels,
        "boxes": boxes.convention,
    }
    question = config.data.question if config.task == "differences" else ""
    desk = Desk(drawer, tokenizer, encoder, how)
    return Model(facts, images, boxes, reader, desk, opened.architecture, question)


def load(config: ConfigDict, opened: loading.Opened, how: How) -> tuple[Model, nnx.State, str]:
    """A model with its weights.

    Args:
      config: mesh, dtype and pixel limits.
      opened: the model.
      how: its answers are drawn.

    Returns:
      The model, its weights as its desk takes them, and their fingerprint.

    Raises:
      ValueError, FileNotFoundError: a file of the model is missing or damaged, or a setting can not be.
    """
    mesh = parallel.make_mesh(config.mesh)
    if opened.run is None:
        config.model.param_dtype = config.model.dtype  # nothing is trained: no master copy
    graphdef, params = loading.load_policy(config, opened, mesh)
    sampling_mesh = parallel.rollout_mesh(config.rollout.mesh, mesh)
    drawer = rollout_programs(graphdef, params, sampling_mesh, answering_form(config, sampling_mesh))
    weights = jax.block_until_ready(drawer.weights(params))
    return asked_model(config, opened, drawer, how), weights, fingerprint(params)
