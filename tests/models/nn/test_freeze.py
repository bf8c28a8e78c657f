"""Frozen parts stay as they are and cost nothing; the others train as ever."""

import dataclasses
import functools
import json
import pathlib

import jax
import numpy as np
import optax
import pytest
from etils import epath
from flax import nnx

from bench import learning
from configs import base
from dig_jax import export, settings
from dig_jax.machines import parallel
from dig_jax.models.hf import checkpoint
from dig_jax.models.nn import freeze
from dig_jax.run.fingerprint import fingerprint
from dig_jax.update import sft
from dig_jax.update.learner import Learner, TrainState
from dig_jax.update.microbatches import Cut
from dig_jax.update.policy import Experience
from tests.commands.test_train import final_params, inputs, run, small_config  # noqa: F401  `inputs` is a fixture
from tests.models.conftest import PromptMaker

pytestmark = pytest.mark.usefixtures("quick_compiling")

GROUP, LENGTH = 2, 4
CLIP = 1e-3  # far below the norm of any gradient here
QUICK = {"xla_backend_optimization_level": 0}  # these programs run once: compiling is what takes the time
ALL = frozenset(freeze.PARTS)
ONE_FROZEN = [frozenset({part}) for part in freeze.PARTS]
ONE_TRAINED = [ALL - {part} for part in freeze.PARTS]


@pytest.fixture(scope="module")
def model(tiny_qwen3vl):
    return checkpoint.load_model(tiny_qwen3vl)


@pytest.fixture(scope="module")
def batches(model):
    """Two prompts with images, and made-up answers: for GRPO and for supervised training."""
    make = PromptMaker(model.config)
    prompts = make.pad(make.example([(4, 6), (6, 2)], seed=1), make.example([(2, 8)], text=3, seed=2))
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 300, (2, GROUP, LENGTH)).astype(np.int32)
    ones = np.ones(tokens.shape, np.float32)
    advantages = np.array([[1, -1], [-0.5, 2]], np.float32)
    no_cells = np.zeros(prompts.tokens.shape, np.float32)
    return {
        "grpo": Experience(prompts, tokens, ones, -6 * ones, advantages, ref_logprobs=-5 * ones),
        "sft": sft.Supervised(prompts, tokens[:, 0], ones[:, 0], no_cells, no_cells),
    }


def make_learner(model, frozen: frozenset[str]) -> tuple[Learner, TrainState]:
    """A learner that clips every gradient it meets to norm `CLIP`, and the state before its first update."""
    config = base.get_config()
    config.optimizer.learning_rate, config.optimizer.weight_decay = 1e-2, 0.1
    config.optimizer.clip_norm = CLIP
    graphdef, params = nnx.split(model, nnx.Param)
    learner = learning.make_learner(graphdef, model.config.text.vocab_size, config, cut=Cut(2), frozen=frozen)
    return learner, learner.init(params)


@dataclasses.dataclass
class Update:
    """An update: the states around it, its metrics, and what the compiler says it costs."""

    before: TrainState
    after: TrainState
    metrics: dict
    flops: float
    bytes: int

    def clipped_gradient(self) -> dict[tuple, np.ndarray]:
        """What AdamW was given: after one update its first moments are that times 1 - b1."""
        mu = optax.tree_utils.tree_get(self.after.opt_state, "mu")
        factor = 1 - base.get_config().optimizer.b1
        return {path: np.asarray(leaf.get_value()) / factor for path, leaf in nnx.to_flat_state(mu)}


@pytest.fixture(scope="module")
def update(model, batches):
    """The function (algorithm, frozen) -> one update; each is computed once."""

    @functools.cache
    def run_update(algorithm: str, frozen: frozenset[str]) -> Update:
        learner, before = make_learner(model, frozen)
        step = {"grpo": learner.update_grpo, "sft": learner.update_sft}[algorithm]
        compiled = jax.jit(step, compiler_options=QUICK).lower(before, batches[algorithm]).compile()
        memory = compiled.memory_analysis()
        return Update(
            before,
            *compiled(before, batches[algorithm]),
            compiled.cost_analysis()["flops"],
            memory.argument_size_in_bytes + memory.temp_size_in_bytes,
        )

    return run_update


def moved(before: nnx.State, after: nnx.State) -> dict[tuple, bool]:
    """For the path of each parameter, whether any of its elements changed."""
    pairs = zip(nnx.to_flat_state(before), nnx.to_flat_state(after), strict=True)
    return {path: bool((old.get_value() != new.get_value()).any()) for (path, old), (_, new) in pairs}


@pytest.mark.parametrize(
    ("algorithm", "frozen"),
    [("grpo", frozenset({"vision"})), *(("sft", frozen) for frozen in ONE_TRAINED)],
    ids=lambda value: value if isinstance(value, str) else "+".join(sorted(value)),
)
def test_a_parameter_moves_exactly_when_its_part_is_trained(update, algorithm, frozen):
    done = update(algorithm, frozen)
    changes = moved(done.before.params, done.after.params)
    assert changes == {path: freeze.part_of(path) not in frozen for path in changes}
    assert {freeze.part_of(path) for path in changes} == ALL


def test_what_is_trained_is_said_in_one_line(model):
    params = nnx.state(model, nnx.Param)
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert freeze.describe(params, frozenset()) == f"training {total:,} of {total:,} parameters; frozen: none"
    line = freeze.describe(params, frozenset({"vision", "projector"}))
    trained = sum(leaf.size for leaf in jax.tree.leaves([params["text"], params["head"]]))
    assert line == f"training {trained:,} of {total:,} parameters; frozen: projector, vision"


@pytest.mark.parametrize("frozen", ONE_FROZEN, ids=lambda parts: "+".join(sorted(parts)))
def test_the_optimizer_state_holds_two_moments_of_each_trained_parameter_and_nothing_else(
    model, batches, frozen
):
    _, state = make_learner(model, frozen)
    trained = {
        path: leaf.shape
        for path, leaf in nnx.to_flat_state(state.params)
        if freeze.part_of(path) not in frozen
    }
    moments = [leaf.shape for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert sorted(moments) == sorted([*trained.values(), *trained.values()])


def test_the_gradient_norm_counts_trained_parameters_only(update):
    """The squares of the norms of the three parts, each trained alone, add up to that of the whole."""
    parts = [update("sft", frozen).metrics["grad_norm"] for frozen in ONE_TRAINED]
    whole = update("sft", frozenset()).metrics["grad_norm"]
    np.testing.assert_allclose(np.sqrt(sum(norm**2 for norm in parts)), whole, rtol=1e-5)


@pytest.mark.parametrize("frozen", ONE_TRAINED, ids=lambda parts: "+".join(sorted(parts)))
def test_clipping_gives_the_whole_norm_to_trained_parameters(update, frozen):
    gradient = update("sft", frozen).clipped_gradient()
    np.testing.assert_allclose(optax.global_norm(list(gradient.values())), CLIP, rtol=1e-4)


@pytest.mark.parametrize("frozen", ONE_TRAINED, ids=lambda parts: "+".join(sorted(parts)))
def test_what_is_trained_gets_the_gradient_it_gets_when_nothing_is_frozen(update, frozen):
    some, every = update("sft", frozen), update("sft", frozenset())
    unclip = float(every.metrics["grad_norm"] / some.metrics["grad_norm"])
    expected = every.clipped_gradient()
    for path, gradient in some.clipped_gradient().items():
        difference = np.linalg.norm(gradient - unclip * expected[path])
        assert difference <= 1e-4 * np.linalg.norm(gradient), path


@pytest.mark.parametrize("frozen", ONE_TRAINED, ids=lambda parts: "+".join(sorted(parts)))
def test_freezing_saves_work_and_memory(update, frozen):
    some, every = update("sft", frozen), update("sft", frozenset())
    assert some.flops < every.flops
    assert some.bytes < every.bytes


def test_a_run_with_frozen_parts_resumes_and_exports_the_whole_model(
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
) -> None:
    freezing = {"model.freeze_vision": True, "model.freeze_projector": True}
    config = small_config(inputs, "sft", **freezing)
    run(small_config(inputs, "sft", num_steps=1, **freezing), tmp_path / "run")
    workdir = run(config, tmp_path / "run")
    moments = saved_moments(tmp_path / "run")
    assert moments and not [name for name in moments if "'vision'" in name]

    start, end = (final_params(config, epath.Path(path)) for path in (inputs / "model", workdir))
    changes = moved(start, end)
    assert changes == {path: freeze.part_of(path) == "text" for path in changes}

    out = epath.Path(tmp_path / "exported")
    export.export(workdir, out, parallel.make_mesh(config.mesh))
    assert fingerprint(final_params(config, out)) == fingerprint(end)

    thawed = small_config(inputs, "sft", **freezing | {"model.freeze_vision": False})
    with pytest.raises(ValueError, match="model.freeze_vision: True -> False"):
        run(thawed, tmp_path / "run")


def saved_moments(workdir: pathlib.Path) -> set[str]:
    """Names of the optimizer moments in the newest checkpoint."""
    (metadata,) = (workdir / "checkpoints").glob("2/training/**/_METADATA")
    saved = json.loads(metadata.read_text())["tree_metadata"]
    return {name for name in saved if "'mu'" in name or "'nu'" in name}


def test_a_model_with_nothing_left_to_train_is_an_error(inputs: pathlib.Path):  # noqa: F811
    frozen = {f"model.freeze_{part}": True for part in freeze.PARTS}
    with pytest.raises(ValueError, match=r"model.freeze_vision, .*freeze_text are all True"):
        settings.check(small_config(inputs, "sft", **frozen))
