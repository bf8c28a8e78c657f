"""From a folder and a config to what a run works with: parameters, tasks, and loaders of their examples."""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dig_jax.benchmarks import registry as benchmarks
from dig_jax.benchmarks.measured import MeasuredBenchmark
from dig_jax.data.encode import ExampleEncoder
from dig_jax.data.example import Source
from dig_jax.data.images import ImageConfig, patch_grid
from dig_jax.data.loader import ExampleDataset, ExampleLoader, MismatchedDataset, PartData
from dig_jax.data.settings import DataConfig
from dig_jax.data.tokenizer import Tokenizer, load_tokenizer
from dig_jax.machines import parallel
from dig_jax.models import families
from dig_jax.models.architecture import Architecture
from dig_jax.models.hf import checkpoint
from dig_jax.models.nn import freeze, kernels, lora
from dig_jax.models.nn.settings import ModelConfig
from dig_jax.run import cli, curriculum, mixture, model_folder
from dig_jax.run.checkpoint import Checkpoints
from dig_jax.run.distillation import shown_to_teacher
from dig_jax.run.evaluations import Entry, EvalConfig
from dig_jax.tasks import rewards
from dig_jax.tasks.boxes.text import BoxFormat
from dig_jax.tasks.mixture import Mixture, PartSource
from dig_jax.tasks.supervision import SupervisionConfig
from dig_jax.tasks.task import Answerer, Asked, Task

logger = logging.getLogger("dig_jax")

MAX_LOST = 0.1  # share of what adapters change that rounding may take without a warning
CACHE_BYTES = 4 << 30  # decoded images kept in memory, per loader: 4 GiB hold 40,000 pairs of 128x128 pixels


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model, all but its weights: what can be refused before those are read.

    Attributes:
        folder: Hugging Face folder or workdir.
        files: where its settings and its tokenizer are.
        architecture: of the model.
        run: settings of the run it is of, see `model_folder.run_settings`; None where others published it.
    """

    folder: epath.Path
    files: epath.Path
    architecture: Architecture
    run: dict[str, Any] | None

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Its own."""
        return load_tokenizer(self.files)

    @property
    def config(self) -> ConfigDict:
        """The settings to ask it with, as `cli.config_of` gives them."""
        return cli.with_base(self.run, self.folder)

    def with_weights_of(self, folder: epath.Path) -> "Opened":
        """The same model, with the weights of another folder or workdir."""
        if folder == self.folder:
            return self
        return dataclasses.replace(self, folder=folder, run=model_folder.run_settings(folder))


def open_model(folder: epath.Path) -> Opened:
    """Reads the settings and the tokenizer of a Hugging Face folder or workdir.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: one is damaged, or asks for something that is not implemented.
    """
    opened = open_weights(folder)
    _ = opened.tokenizer
    return opened


def open_weights(folder: epath.Path) -> Opened:
    """As `open_model`, for those who need no tokenizer: it is read when it is asked for."""
    files = model_folder.hf_files(folder)
    return Opened(folder, files, families.load_config(files), model_folder.run_settings(folder))


def abstract_model(
    config: ConfigDict, architecture: Architecture, mesh: Mesh
) -> tuple[nnx.GraphDef, nnx.State]:
    """The policy's structure, and its parameters as shapes with shardings: nothing is made.

    Args:
        config: dtypes, rematerialisation and attention (`config.model`).
        architecture: of the model.
        mesh: where the parameters will go, as `parallel.RULES` say.
    """
    settings = ModelConfig.from_config(config)
    dtype, param_dtype = jnp.dtype(settings.dtype), jnp.dtype(settings.param_dtype)
    options = kernels.options(
        *(architecture, mesh, dtype, settings.attention, settings.experts, settings.expert_room),
        decode_attention=settings.decode_attention,
    )
    model = families.abstract_model(
        architecture, dtype=dtype, param_dtype=param_dtype, remat=settings.remat, **options
    )
    graphdef, shapes = nnx.split(model, nnx.Param)
    return graphdef, parallel.abstract(shapes, mesh)


def with_adapters(
    config: ConfigDict,
    graphdef: nnx.GraphDef,
    params: nnx.State,
    mesh: Mesh,
    untrained: frozenset[str] | None = None,
) -> tuple[nnx.GraphDef, nnx.State]:
    """A plain model as `config.model.lora` wants it trained: with new adapters, or as it is.

    Args:
        config: of the run: which layers get adapters (`config.model`), and the seed they are drawn with.
        graphdef: of the model.
        params: arrays on the mesh, or shapes with shardings, from `abstract_model`.
        mesh: of the parameters.
        untrained: parts that no stage trains, which get none; None where `config` has all stages.
    """
    adapters = lora.from_config(config)
    if adapters is None:
        return graphdef, params
    untrained = curriculum.untrained(config) if untrained is None else untrained
    return lora.add_to_params(graphdef, params, adapters, untrained, mesh, config.seed)


def load_policy(
    config: ConfigDict, opened: Opened, mesh: Mesh, step: int | None = None
) -> tuple[nnx.GraphDef, nnx.State]:
    """A model's structure, and its parameters placed on the mesh.

    A workdir's model has the adapters of its run beside its kernels, as the run itself has them.

    Args:
        config: dtypes, rematerialisation and attention (`config.model`).
        opened: the model, from `open_model`.
        mesh: where the parameters go, as `parallel.RULES` say.
        step: which checkpoint of a workdir; None takes the newest.
    """
    folder, architecture = opened.folder, opened.architecture
    graphdef, like = abstract_model(config, architecture, mesh)
    if model_folder.is_workdir(folder):
        graphdef, like = with_adapters(opened.config, graphdef, like, mesh)
        return graphdef, restore_params(folder, like, step)
    shardings = jax.tree.map(lambda x: x.sharding, like)
    param_dtype = jnp.dtype(config.model.param_dtype)
    return graphdef, checkpoint.load_params(
        folder, architecture, param_dtype=param_dtype, shardings=shardings
    )


def load_params(
    config: ConfigDict,
    opened: Opened,
    mesh: Mesh,
    step: int | None = None,
    merged_dtype: str | None = None,
) -> tuple[nnx.GraphDef, nnx.State]:
    """A plain model: as `load_policy`, with the adapters merged into their kernels.

    Merging is done in float32 and rounded once. A warning says so where that loses much of the adapters.

    Args:
        config, opened, mesh, step: see `load_policy`.
        merged_dtype: of the kernels that adapters were merged into; None keeps theirs.
    """
    graphdef, params = load_policy(config, opened, mesh, step)
    if not freeze.split_adapters(params)[0]:
        return graphdef, params
    graphdef, params, rounding = lora.merged_params(graphdef, params, mesh, merged_dtype)
    if rounding.share > MAX_LOST:
        dtype, (layer, most) = merged_dtype or config.model.param_dtype, rounding.worst
        logger.warning(
            "the adapters of %s were merged into %s kernels, and rounding took %.0f%% of their change"
            " (at most %.0f%%, in %s): the model is nearer to the one without them. These keep all:"
            " exporting with --adapters or --dtype=float32; model.param_dtype=float32 for a run that starts"
            " from this one; further stages of the same run (config.curriculum)",
            *(opened.folder, dtype, 100 * rounding.share, 100 * most, layer),
        )
    return graphdef, params


def restore_params(workdir: epath.Path, like: nnx.State, step: int | None) -> nnx.State:
    """Parameters of a workdir's checkpoint, the newest unless `step` says which."""
    checkpoints = Checkpoints(workdir, read_only=True)  # its run may be writing there
    try:
        steps = checkpoints.common_steps()
        if not steps:
            raise FileNotFoundError(f"{workdir} has no complete checkpoint")
        if step is not None and step not in steps:
            raise FileNotFoundError(
                f"{workdir} has no checkpoint of step {step}; it has {', '.join(map(str, steps))}"
            )
        return checkpoints.restore_params(steps[-1] if step is None else step, like)
    finally:
        checkpoints.close()


def make_task(config: ConfigDict, model: epath.Path, tokenizer: Tokenizer) -> Task:
    """The task that `config.task` names, for a model.

    Args:
        config: of a stage, or of an evaluation (`evaluations.Entry.config`).
        model: Hugging Face folder or workdir: how it resizes images, and writes boxes.
        tokenizer: its own.
    """
    boxes = box_format(config, model_folder.hf_files(model))
    answerer = Answerer(tokenizer.opens_thinking, boxes.convention, boxes.resized)
    return rewards.make_task(config, answerer)


def make_eval_task(config: ConfigDict, entry: Entry, model: epath.Path, tokenizer: Tokenizer) -> Task:
    """What an evaluation asks: a task, or a benchmark.

    Args:
        config: of the run.
        entry: the evaluation.
        model, tokenizer: as of `make_task`.
    """
    task = make_task(entry.config(config), model, tokenizer)
    if not entry.benchmark:
        return task
    return MeasuredBenchmark(benchmarks.benchmark(entry.benchmark), task.config, task.answerer)


def make_asked(config: ConfigDict, model: epath.Path, tokenizer: Tokenizer) -> Asked:
    """What a stage asks: the task of its config, or a mixture of those of its parts.

    Args:
        config, model, tokenizer: as of `make_task`.
    """
    if not config.mixture:
        return make_task(config, model, tokenizer)
    return Mixture({part.name: make_task(part.config, model, tokenizer) for part in mixture.parts(config)})


def box_format(config: ConfigDict, files: epath.Path) -> BoxFormat:
    """How a model writes boxes: as its family does, unless the config overrules that.

    Args:
        config: of the run.
        files: the model's Hugging Face folder, which says how it resizes images.
    """
    images = image_config(config, files)

    def resized(size: tuple[int, int]) -> tuple[int, int]:
        rows, columns = patch_grid(*size, images)
        return rows * images.patch_size, columns * images.patch_size

    convention = config.data.box_convention or families.of_folder(files).box_convention
    return BoxFormat(convention, SupervisionConfig.from_config(config).answer_step, resized)


def train_loader(
    config: ConfigDict,
    asked: Asked,
    model: epath.Path,
    tokenizer: Tokenizer,
    rows: np.ndarray | None = None,
    kept: epath.Path | None = None,
) -> ExampleLoader:
    """Shuffled, augmented training examples, with answers to learn where training is supervised.

    Args:
        config, asked: of the stage, and what it asks, `make_asked`.
        model, tokenizer: whose preprocessing and whose words examples get.
        rows: of a batch that this process loads, `batch.train_rows`; None: all.
        kept: folder where lengths of prompts are kept from one start to the next; None: nowhere.
    """
    supervised, data = config.algorithm == "sft", DataConfig.from_config(config)
    parts = mixture.parts(config)
    opened = [open_sources(part, asked.parts[part.name]) for part in parts]
    dataset = _dataset(ExampleDataset, data, list(itertools.chain(*opened)))
    sizes = [sum(map(len, sources)) for sources in opened]
    for part, size in zip(parts, sizes, strict=True):
        own = part.config.data
        _check_some(size, asked.parts[part.name], own.train, own.train_split, part.name)
    return ExampleLoader(
        dataset,
        _encoder(config, model, tokenizer, supervised),
        bucket_pixels=data.buckets,
        prompt_lengths=data.prompt_lengths,
        global_batch_size=config.batch.prompts,
        seed=config.seed,
        augment=asked.augment,
        demonstrate=asked.demonstrate if supervised else None,
        privilege=shown_to_teacher(config, asked),
        parts=[PartData(size, part.share) for part, size in zip(parts, sizes, strict=True) if part.name],
        shuffle=True,
        group_sizes=data.group_sizes,
        readahead=data.prefetch,
        rows=rows,
        kept=kept,
    )


def eval_loader(
    config: ConfigDict,
    task: Task,
    folder: epath.PathLike,
    split: str,
    model: epath.Path,
    tokenizer: Tokenizer,
    sampling_mesh: Mesh,
    mismatched: bool = False,
) -> ExampleLoader:
    """Held-out examples of a folder in the order of the split; mismatched: see `MismatchedDataset`.

    Each process loads the rows that its devices need on `sampling_mesh`.
    """
    kind = MismatchedDataset if mismatched else ExampleDataset
    data, batch_prompts = DataConfig.from_config(config), EvalConfig.from_config(config).batch_prompts
    dataset = _dataset(kind, data, [task.open(folder, split)])
    _check_some(len(dataset), task, [folder], split)
    return ExampleLoader(
        dataset,
        _encoder(config, model, tokenizer, supervised=False),
        bucket_pixels=data.buckets,
        prompt_lengths=data.prompt_lengths,
        global_batch_size=batch_prompts,
        seed=config.seed,
        shuffle=False,
        group_sizes=False,
        rows=parallel.row_layout(sampling_mesh, batch_prompts).of(jax.process_index()),
    )


def open_sources(part: mixture.Part, task: Task) -> list[Source]:
    """The data sets of a part, with its name on all of their examples."""
    sources = [task.open(folder, part.config.data.train_split) for folder in part.config.data.train]
    return [PartSource(source, part.name) for source in sources] if part.name else sources


def _dataset(kind: type[ExampleDataset], data: DataConfig, sources: Sequence[Source]) -> ExampleDataset:
    return kind(sources, max_bad_records=data.max_bad_records, cache_bytes=CACHE_BYTES)


def _check_some(count: int, task: Task, folders: Sequence[Any], split: str, part: str = "") -> None:
    if not count:
        names = ", ".join(map(str, folders)) or "no folder"
        where = f" (config.mixture.{part})" if part else ""
        raise ValueError(f"no {task.unit} in split {split!r} of {names}{where}.")


def _encoder(config: ConfigDict, model: epath.Path, tokenizer: Tokenizer, supervised: bool) -> ExampleEncoder:
    files = model_folder.hf_files(model)
    answers = SupervisionConfig.from_config(config)
    return ExampleEncoder(
        tokenizer,
        image_config(config, files),
        families.load_config(files),
        max_answer_length=answers.max_answer_tokens if supervised else 0,
        max_earlier_length=answers.max_earlier_tokens if supervised else 0,
        cut_answers=answers.cut_answers,
    )


def image_config(config: ConfigDict, files: epath.Path) -> ImageConfig:
    """The model folder's image preprocessing, with the config's pixel limits where it sets any.

    Raises:
        ValueError: naming the settings, when the limits contradict each other.
    """
    settings, data = ImageConfig.from_folder(files), DataConfig.from_config(config)
    least, most = data.min_pixels or settings.min_pixels, data.max_pixels or settings.max_pixels
    try:
        return dataclasses.replace(settings, min_pixels=least, max_pixels=most)
    except ValueError as error:
        raise ValueError(
            f"config.data.min_pixels={data.min_pixels} and config.data.max_pixels={data.max_pixels}"
            f" (0 is that of {files}: {settings.min_pixels} and {settings.max_pixels}): {error}"
        ) from error
