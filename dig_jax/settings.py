"""Checks a config before any work is done with it: its keys, its types, and the rules between its values."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from configs import base
from dig_jax.benchmarks.measured import identity
from dig_jax.data.identity import fingerprint_of_data
from dig_jax.data.settings import DataConfig
from dig_jax.machines import checks, textfile
from dig_jax.machines.folder import write_json
from dig_jax.models.nn import freeze, lora
from dig_jax.models.nn.settings import ModelConfig
from dig_jax.rollout.sampling import RolloutConfig
from dig_jax.run import curriculum, evaluations, keys, mixture, model_folder
from dig_jax.run.batch import BatchConfig
from dig_jax.run.distillation import DistillConfig
from dig_jax.run.evaluations import EvalConfig
from dig_jax.run.outputs import CheckpointConfig, LogConfig
from dig_jax.tasks.boxes.text import CONVENTIONS
from dig_jax.tasks.registry import task_class
from dig_jax.tasks.rewards import RewardMix
from dig_jax.tasks.supervision import SupervisionConfig
from dig_jax.update.experts import MoEConfig
from dig_jax.update.grpo import GRPOConfig, check_overlong
from dig_jax.update.optimizer import OptimizerConfig
from dig_jax.update.replay import ReplayConfig

ALGORITHMS = ("grpo", "distill", "sft")
OPEN = ("config.curriculum.stages", "config.evals", "config.mixture")  # names in them are the user's


def check(config: ConfigDict) -> None:
    """Refuses a config that does not have exactly the keys of `configs/base.py`, or whose values contradict.

    Raises:
        ValueError: names the setting, its value, and what is expected.
    """
    _same_keys(config, base.get_config(), prefix="config")
    entries = evaluations.entries(config)
    for entry in entries:
        _check_entry(config, entry)
    # Evaluations draw as long answers as the run does, whatever its stages do.
    if not 0 <= config.eval.thinking_budget < config.rollout.max_new_tokens:
        raise ValueError(
            f"config.eval.thinking_budget={config.eval.thinking_budget}: expected 0 (off) or less than"
            f" config.rollout.max_new_tokens={config.rollout.max_new_tokens}, which thought and answer share"
        )
    for stage in curriculum.stages(config):
        try:
            _advance(stage.config, entries)
            _check_stage(stage.config)
        except ValueError as error:
            if not stage.name:
                raise
            raise ValueError(f"stage {stage.name}: {error}") from error


def _check_stage(config: ConfigDict) -> None:
    """Each part's own settings, then the rules between parts, under the settings of one stage."""
    checks.one_of("algorithm", config.algorithm, ALGORITHMS)
    checks.at_least("num_steps", config.num_steps, 1)
    checks.at_least("num_epochs", config.num_epochs, 0, "num_steps says it")
    checks.at_least("seed", config.seed, 0)
    checks.at_least("compile_cache_gb", config.compile_cache_gb, 0, "no bound")
    checks.at_least("distributed.silence_seconds", config.distributed.silence_seconds, 1)
    checks.mesh_sizes("mesh", config.mesh)
    checks.mesh_sizes("rollout.mesh", config.rollout.mesh)
    batch, rollout = BatchConfig.from_config(config), RolloutConfig.from_config(config)
    for part in (
        ModelConfig,
        SupervisionConfig,
        OptimizerConfig,
        GRPOConfig,
        MoEConfig,
        ReplayConfig,
        CheckpointConfig,
        LogConfig,
    ):
        part.from_config(config)
    data = DataConfig.from_config(config)
    _check_parts(config, data)
    DistillConfig.from_config(config).check(config)
    freeze.frozen_parts(config)
    lora.from_config(config)
    checks.within("rollout.rows", rollout.rows, 0, batch.rollout_prompts, "batch.rollout_prompts", "all")
    for name, size in (
        ("batch.rollout_prompts", batch.rollout_prompts),
        ("eval.batch_prompts", EvalConfig.from_config(config).batch_prompts),
    ):
        if rollout.rows and size % min(rollout.rows, size):
            raise ValueError(
                f"config.{name}={size} is not a multiple of config.rollout.rows={rollout.rows}:"
                " prompts are read as many at a time as there are rows"
            )
    if config.algorithm == "sft" and batch.update_epochs > 1:
        raise ValueError(
            f"config.batch.update_epochs={batch.update_epochs}: supervised training takes new pairs for every"
            " update; set it to 1"
        )
    if config.algorithm != "sft":
        _check_grpo(config, batch, rollout)


def _check_parts(config: ConfigDict, data: DataConfig) -> None:
    """What is trained on, part by part where it is a mixture."""
    for part in mixture.parts(config):
        try:
            DataConfig.from_config(part.config).check_training()
            check_task(part.config)
        except ValueError as error:
            if not part.name:
                raise
            raise ValueError(f"config.mixture.{part.name}: {error}") from error
    if config.mixture and data.group_sizes and config.algorithm != "sft":
        raise ValueError(
            "config.data.group_sizes=True makes batches of one part of config.mixture, and GRPO may put"
            " prompts of the same part in the place of others: set one of them back"
        )


def _check_grpo(config: ConfigDict, batch: BatchConfig, rollout: RolloutConfig) -> None:
    batch.check_multiple("prompts", "rollout_prompts")
    checks.at_least("grpo.dynamic_sampling", config.grpo.dynamic_sampling, 0, "off")
    if rollout.group_size < 2 and config.algorithm == "grpo":
        raise ValueError(f"config.rollout.group_size={rollout.group_size}: GRPO compares at least 2")
    if batch.micro_completions and rollout.group_size % batch.micro_completions:
        raise ValueError(
            f"config.batch.micro_completions={batch.micro_completions} does not divide"
            f" config.rollout.group_size={rollout.group_size}; 0 is all of them"
        )
    ReplayConfig.from_config(config).check(batch)
    if rollout.temperature <= 0:
        raise ValueError(f"config.rollout.temperature={rollout.temperature}: must be above 0 to sample")
    check_overlong(config)
    if config.algorithm == "grpo":
        rollout.check_weighed(config.grpo.importance_cap)


# A resumed run may change these: they decide what is written and where it runs, not what is computed.
FREE_ON_RESUME = (
    *("rollout.slots", "rollout.rows", "rollout.mesh", "rollout.layers"),
    *("distributed", "compile_cache", "compile_cache_gb"),
    *("mesh", "model.remat", "model.attention", "model.decode_attention"),
    *("model.experts", "model.expert_room"),
    *("optimizer.offload", "eval", "checkpoint", "log"),
    *("data.prefetch", "data.images", "data.max_bad_records"),
    *("evals", "data.eval_split", "moe.measure_every"),
    *("batch.micro_prompts", "batch.micro_completions", "batch.response_buckets", "batch.rollout_prompts"),
    "batch.sum_gradients",
)
# But not these, where evaluations decide how long a stage is.
DECIDED_BY_EVALUATION = ("eval", "evals", "data.eval_split")


DATA_FILE = "data.json"  # in a workdir: what `data_fingerprints` and `model_identities` gave
MODELS = ("model_path", "init_from")


def data_fingerprints(config: ConfigDict) -> dict[str, Any]:
    """What the folders of pairs hold: settings that name them, with fingerprints in place of folders.

    Raises:
        FileNotFoundError, ValueError: a folder holds no dataset, or several.
    """
    set_here = keys.flat(json.loads(config.to_json()))
    found: dict[str, Any] = {}
    for stage in curriculum.stages(config):
        for part in mixture.parts(stage.config):
            data, file = part.config.data, part.config.rewards.file
            folders = [fingerprint_of_data(folder, data.train_split) for folder in data.train]
            found[_place("data.train", stage.name, part.name, set_here)] = folders
            if part.name and file:
                found[_place("rewards.file", stage.name, part.name, set_here)] = fingerprint_of_data(file, "")
    for entry in evaluations.entries(config):
        if entry.benchmark:
            found[f"evals.{entry.name}.data"] = identity(entry.benchmark, entry.data, entry.split)
        else:
            found[f"evals.{entry.name}.data"] = fingerprint_of_data(entry.data, entry.split)
    for key, file in (("task_file", config.task_file), ("rewards.file", config.rewards.file)):
        if file:
            found[key] = fingerprint_of_data(file, "")
    return found


def model_identities(config: ConfigDict, model: epath.Path, init: epath.Path) -> dict[str, str]:
    """What the models are that a run starts from, as `data_fingerprints` says it of data.

    Args:
        config: of the run.
        model: the folder of `config.model_path`.
        init: that of `config.init_from`.
    """
    found = {"model_path": model_folder.identity(model)}
    return found | ({"init_from": model_folder.identity(init)} if config.init_from else {})


def note(workdir: epath.Path, found: Mapping[str, Any], resumed: bool) -> None:
    """Keeps in a workdir what `data_fingerprints` and `model_identities` gave.

    Of a run that goes on, the models stay those that it began with: a workdir that it began from may have
    trained on.
    """
    file = workdir / DATA_FILE
    then = textfile.read_json(file) if resumed and file.exists() else {}
    write_json(file, {**found, **{key: then[key] for key in MODELS if key in then}})


def _place(setting: str, stage: str, part: str, set_here: Mapping[str, Any]) -> str:
    """The whole name under which a part of a stage has a setting: the narrowest of those that are set.

    Data of the run that all of its stages and parts have others for are so named nowhere: nothing reads them.
    """
    stages = (f"curriculum.stages.{stage}.", "") if stage else ("",)
    parts = (f"mixture.{part}.", "") if part else ("",)
    names = [f"{of_stage}{of_part}{setting}" for of_part in parts for of_stage in stages]
    return next(name for name in names if name in set_here)


def check_resume(config: ConfigDict, saved: epath.Path, data: Mapping[str, Any] | None = None) -> list[str]:
    """Refuses to continue a run under settings that would make it another run.

    Folders of pairs and of models may have moved: they are compared by what they hold, where the run noted
    that when it began.

    Args:
        config: the settings now.
        saved: the run's config.json.
        data: `data_fingerprints` and `model_identities` now; None compares the folders' names.

    Returns:
        The harmless changes since `saved`, the run's config.json, as "key: before -> now".

    Raises:
        ValueError: lists the settings that make it another run.
    """
    if not saved.exists():
        return []
    # A run that began before a setting existed did what the setting's default does.
    written = keys.flat(textfile.read_json(saved))
    before = keys.flat(json.loads(base.get_config().to_json())) | written
    # Older than that setting is the optimizer that kept sums and moments in bfloat16, too.
    older = "checkpoint.resumable" not in written
    if older and before["model.param_dtype"] == "bfloat16" and not before["model.lora.rank"]:
        raise ValueError(
            f"{saved.parent} holds a run with model.param_dtype=bfloat16 of an older version, which lost most"
            " of what it learned to rounding, and its optimizer's state is bfloat16: use a new --workdir,"
            f" with --config.init_from={saved.parent} to go on from its parameters"
        )
    now = evaluations.as_entries(keys.flat(json.loads(config.to_json())))
    main = before.get("eval.main", evaluations.UNNAMED)
    before = evaluations.with_main_called(now["eval.main"], evaluations.as_entries(before), now)
    free, stages = set(FREE_ON_RESUME), curriculum.stages(config)
    # A run may be lengthened, unless its learning rate is a function of its length.
    if not any(OptimizerConfig.from_config(stage.config).depends_on_length for stage in stages):
        free |= {"num_steps", "num_epochs"}
    if any(stage.config.advance.at for stage in stages):
        # Greedy answers may be drawn or not: `_advance` has seen that those are drawn which decide. Runs from
        # before there was a choice drew them always.
        free = free - set(DECIDED_BY_EVALUATION) | {"eval.greedy", "eval.blind"}
    changes = {
        key: f"{key}: {before.get(key)!r} -> {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    }
    same = _same_data(saved.parent / DATA_FILE, main, data or {}, now, changes)
    refused = [
        change
        for key, change in changes.items()
        if key not in same and not keys.is_in(keys.of_stage(key), free)
    ]
    if refused:
        raise ValueError(
            f"{saved.parent} holds a run with other settings; use a new --workdir, or set them back:\n  "
            + "\n  ".join(refused)
        )
    return list(changes.values())


def _same_data(
    noted: epath.Path, main: str, data: Mapping[str, Any], now: Mapping[str, Any], changes: dict[str, str]
) -> list[str]:
    """Settings whose folders hold what they held; adds those that hold something else to `changes`.

    `main` is what the main evaluation was called when that was noted.
    """
    if not noted.exists():
        return []
    then = evaluations.as_entries({"eval.main": main} | textfile.read_json(noted))
    then, same = evaluations.with_main_called(now["eval.main"], then, now), []
    for key in data.keys() & then.keys():
        if data[key] == then[key]:
            same.append(key)
        elif key not in changes and not (key in MODELS and _trained_on(key, data[key], then[key])):
            changes[key] = (
                f"{key}: {now[key]!r} does not hold what it held when the run began; restore that, or remove"
                f" {noted} to go on with what is there"
            )
    return same


def _trained_on(key: str, now: str, then: str) -> bool:
    """Whether a model under its old name differs in nothing but weights, which the run has read long ago.

    Where it reads them again, as a KL reference, it compares them bit for bit. Of `init_from` it takes
    nothing else.
    """
    return key == "init_from" or now.partition("/")[0] == then.partition("/")[0]


def check_batches(config: ConfigDict, data_shards: int, rollout_shards: int) -> None:
    """Refuses batch sizes that do not divide over the parts a batch is split into: updates and rollouts."""
    _divides(config, "batch.micro_prompts", "mesh", data_shards)
    for name in ("batch.rollout_prompts", "eval.batch_prompts", "rollout.rows"):
        _divides(config, name, "rollout.mesh", rollout_shards)


def _divides(config: ConfigDict, name: str, mesh: str, shards: int) -> None:
    group, key = name.split(".")
    if config[group][key] % shards:
        raise ValueError(
            f"config.{name}={config[group][key]} does not divide over {mesh}.data * {mesh}.fsdp *"
            f" {mesh}.expert = {shards} groups of devices"
        )


def _same_keys(config: ConfigDict, expected: ConfigDict, prefix: str) -> None:
    unknown = sorted(set(config.keys()) - set(expected.keys()))
    missing = sorted(set(expected.keys()) - set(config.keys()))
    if unknown:
        raise ValueError(f"unknown setting {prefix}.{unknown[0]}; configs/base.py lists every setting")
    if missing:
        raise ValueError(f"missing setting {prefix}.{missing[0]}; start from configs.base.get_config()")
    for key, value in expected.items():
        if isinstance(value, ConfigDict) and f"{prefix}.{key}" not in OPEN:
            _same_keys(config[key], value, f"{prefix}.{key}")


def _advance(config: ConfigDict, entries: Sequence[evaluations.Entry]) -> None:
    """Refuses to wait for a metric of answers that no evaluation draws, or one draws too seldom."""
    metric, held_out = config.advance.metric, config.eval
    if not config.advance.at:
        return
    if not entries:
        raise ValueError(
            f"config.advance.at={config.advance.at}, but nothing is evaluated: set config.data.eval"
        )
    name = evaluations.metric_name(metric, held_out.main).partition("/")[0]
    entry = next((entry for entry in entries if entry.name == name), None)
    if entry is None:
        raise ValueError(
            f"config.advance.metric={metric!r} is of no evaluation; there are"
            f" {', '.join(entry.name for entry in entries)}"
        )
    if entry.every != held_out.every:
        raise ValueError(
            f"config.advance.metric={metric!r} is waited for at every evaluation, but"
            f" config.evals.{name}.every={entry.every} is not config.eval.every={held_out.every}"
        )
    if metric.endswith("_sampled") and not held_out.group_size:
        raise ValueError(
            f"config.advance.metric={metric!r} is of sampled answers, but config.eval.group_size=0 draws none"
        )
    if not metric.endswith("_sampled") and held_out.group_size and not held_out.greedy:
        raise ValueError(
            f"config.advance.metric={metric!r} is of greedy answers, but config.eval.greedy=False: set it to"
            " True, or wait for a figure that ends in _sampled"
        )


def check_task(config: ConfigDict) -> None:
    """Refuses a task that is not there, and settings that contradict it."""
    checks.one_of("data.box_convention", config.data.box_convention, ("", *CONVENTIONS))
    task_class(config.task, config.task_file).check(config)
    RewardMix.from_config(config)


def _check_entry(config: ConfigDict, entry: evaluations.Entry) -> None:
    """Refuses an evaluation that its task can not do."""
    try:
        check_task(entry.config(config))
    except ValueError as error:
        raise ValueError(f"evaluation {entry.name}: {error}") from error
