"""A GRPO step: which updates it makes, on what, in which order."""

import itertools
import json
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import base
from dig_jax.machines import parallel
from dig_jax.models.inputs import Prompts
from dig_jax.rollout.routing import KeptRouting
from dig_jax.run import keys
from dig_jax.update import sft
from dig_jax.update.experience import Collected, Collector
from dig_jax.update.grpo import GRPOConfig
from dig_jax.update.learner import Learner, TrainState
from dig_jax.update.optimizer import OptimizerConfig
from dig_jax.update.policy import Experience
from dig_jax.update.steps import NOT_COMPILED, grpo_step, programs_key


def experts_of(numbers: np.ndarray) -> KeptRouting:
    """Of prompts of one token and two completions of three: everywhere the prompt's number."""
    numbers = jnp.asarray(numbers, jnp.uint8)
    return KeptRouting(
        jnp.broadcast_to(numbers[:, None, None, None], (len(numbers), 1, 1, 1)),
        jnp.broadcast_to(numbers[:, None, None, None, None], (len(numbers), 2, 3, 1, 1)),
    )


def first_experts(batch: Experience) -> list[int] | None:
    return None if batch.routing is None else batch.routing.responses[:, 0, 0, 0, 0].tolist()


class FixedCollector:
    """Hands out one experience of four prompts; the first token of each is its number."""

    routing: KeptRouting | None = None

    def collect(self, params: object, step: int) -> Collected:
        numbers = np.arange(4, dtype=np.int32)
        tokens = np.broadcast_to(numbers[:, None, None], (4, 2, 3))
        values = tokens.astype(np.float32)
        empty = numbers[:, None]
        prompts = Prompts(*[empty] * 8)
        experience = Experience(prompts, tokens, values, values, values[..., 0], routing=self.routing)
        return Collected(experience, numbers, np.array(list("abcd")), {}, {"rollout": 1.0}, 1)


class Programs:
    """Notes what is asked of it; every update moves the log-probs that come next."""

    def __init__(self) -> None:
        self.made = self.scored = 0
        self.updates: list[tuple[list[int], float | None, float]] = []
        self.experts: list[list[int] | None] = []  # that each update is given
        self.scored_with: list[list[int] | None] = []
        self.measured: list[list[int] | None] = []

    def logprobs(self, params: object, batch: Experience) -> jnp.ndarray:
        self.scored += 1
        self.scored_with.append(first_experts(batch))
        return jnp.full(batch.tokens.shape, -1.0 - self.made)

    def logprobs_and_routing(self, params: object, batch: Experience) -> tuple[jnp.ndarray, KeptRouting]:
        assert batch.routing is None  # the model chooses
        logprobs = self.logprobs(params, batch)
        return logprobs, experts_of(10 + batch.tokens[:, 0, 0])

    def replay_figures(self, params: object, batch: Experience) -> dict:
        self.measured.append(first_experts(batch))
        return {"gap_live_mean": np.float32(0.5)}

    def update_grpo(self, state: TrainState, batch: Experience) -> tuple[TrainState, dict]:
        old = None if batch.old_logprobs is None else float(batch.old_logprobs[0, 0, 0])
        rate = float(state.opt_state[1].hyperparams["learning_rate"])
        self.updates.append((batch.tokens[:, 0, 0].tolist(), old, rate))
        self.experts.append(first_experts(batch))
        self.made += 1
        skipped = float(self.made == 3)
        figures = {"loss": np.float32(self.made), "grad_norm": 1.0, "skipped_updates": skipped}
        return state, figures | {"sampler_trainer_gap_mean": 0.1 * self.made}


@pytest.fixture
def step():
    """The function epochs -> the programs after the second step of a run, and the step's result."""

    def run(epochs: int = 1, update_prompts: int = 2, importance_cap: float = 0.0, **moe: object):
        config = base.get_config()
        config.batch.prompts, config.batch.update_prompts = 4, update_prompts
        config.batch.micro_prompts, config.batch.update_epochs = update_prompts, epochs
        config.grpo.importance_cap = importance_cap
        config.moe.update(moe)
        programs, mesh = Programs(), parallel.make_mesh(config.mesh)
        optimizer = OptimizerConfig.from_config(config).make()
        params = nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Param)
        state = TrainState(params, optimizer.init(params), jnp.int32(0))
        rates = lambda number: 0.1 * number  # noqa: E731
        collector = FixedCollector()
        collector.routing = jax.device_get(experts_of(np.arange(4))) if moe else None
        result = grpo_step(config, programs, collector, None, mesh, rates)(state, 1)
        return programs, result

    return run


def test_one_update_per_step_needs_no_old_logprobs(step):
    programs, _ = step(update_prompts=4, importance_cap=2.0)
    assert programs.updates == [([0, 1, 2, 3], None, pytest.approx(0.1))]
    assert programs.scored == 0


def test_several_updates_have_the_logprobs_from_before_the_first_where_the_loss_asks_for_them(step):
    programs, _ = step(importance_cap=2.0)
    assert programs.updates == [([0, 1], -1.0, pytest.approx(0.2)), ([2, 3], -1.0, pytest.approx(0.3))]


def test_without_importance_weights_no_logprobs_are_computed_and_nothing_is_moved_for_them(step, monkeypatch):
    moved = []
    put = parallel.put_batch
    monkeypatch.setattr(parallel, "put_batch", lambda *given: moved.append(given) or put(*given))
    programs, _ = step(epochs=2)
    assert programs.scored == 0 and {update[1] for update in programs.updates} == {None}
    assert len(moved) == len(programs.updates) == 4


def test_the_gap_between_sampler_and_trainer_is_that_of_the_update_that_the_sampling_policy_gets(step):
    """Later updates are made on another policy; with old log-probs all of them compare the same one."""
    _, (_, metrics, _) = step()
    assert metrics["grpo/sampler_trainer_gap_mean"] == pytest.approx(0.1)
    _, (_, metrics, _) = step(importance_cap=2.0)
    assert metrics["grpo/sampler_trainer_gap_mean"] == pytest.approx((0.1 + 0.2) / 2)


def test_epochs_go_through_the_same_experience_again(step):
    programs, (_, metrics, notes) = step(epochs=2, importance_cap=2.0)
    assert [update[0] for update in programs.updates] == [[0, 1], [2, 3]] * 2
    assert {update[1] for update in programs.updates} == {-1.0}
    assert [update[2] for update in programs.updates] == pytest.approx([0.4, 0.5, 0.6, 0.7])
    assert metrics["grpo/loss"] == 2.5  # the mean of 1, 2, 3, 4
    assert [(update.number, update.ids) for update in notes.skipped] == [(2, ["a", "b"])]


def test_a_single_update_that_is_repeated_has_old_logprobs_too(step):
    programs, _ = step(epochs=2, update_prompts=4, importance_cap=2.0)
    assert [update[1] for update in programs.updates] == [-1.0, -1.0]


@pytest.mark.parametrize("dynamic_sampling", [0, 1, 2, 5])
def test_the_batch_that_is_wanted_next_is_always_read_ahead(dynamic_sampling):
    """Whether a step goes on to a next attempt or not; two batches are read ahead by default."""
    config = base.get_config()
    config.grpo.dynamic_sampling = dynamic_sampling
    sampler = types.SimpleNamespace(sampling=lambda *_: None)
    collector = Collector(config, sampler, None, GRPOConfig.from_config(config))
    attempts = dynamic_sampling + 1
    for step, attempt in itertools.product(range(3), range(attempts)):
        ahead = list(itertools.islice(collector._following(step, attempt), config.data.prefetch))
        assert (step + 1) * attempts in ahead  # the next step's first
        assert attempt + 1 == attempts or step * attempts + attempt + 1 in ahead


def test_tokens_per_second_count_all_the_time_that_a_step_takes(step, monkeypatch):
    """Waiting for data and what no phase accounts for included."""
    collect = FixedCollector.collect

    def slow(self: FixedCollector, params: object, step: int) -> Collected:
        time.sleep(0.5)
        return collect(self, params, step)

    monkeypatch.setattr(FixedCollector, "collect", slow)
    _, (_, metrics, _) = step()
    assert metrics["tokens_per_second/step"] < 2  # one token, in more than half a second


@pytest.mark.parametrize(
    ("replay", "given"),
    [("off", [None] * 4), ("old", [[10, 11], [12, 13]] * 2), ("rollout", [[0, 1], [2, 3]] * 2)],
)
def test_updates_are_given_the_experts_that_are_replayed(step, replay, given):
    """The sampler's, those before the first update, or none, in all epochs the same."""
    programs, (_, metrics, _) = step(epochs=2, replay=replay, measure_every=1)
    assert programs.experts == given
    assert {update[1] for update in programs.updates} == {-1.0 if replay == "old" else None}
    # Measured is what the sampler took, whatever is replayed, on the first update's prompts.
    assert programs.measured == [[0, 1]]
    assert metrics["moe/gap_live_mean"] == 0.5 and metrics["time/measure_replay"] >= 0


def test_replay_is_measured_at_the_steps_that_are_due_alone(step):
    """This is the second step."""
    programs, (_, metrics, _) = step(replay="rollout", measure_every=2)
    assert programs.measured == [] and not any(name.startswith("moe/") for name in metrics)


def test_old_logprobs_are_those_of_the_replayed_experts(step):
    programs, _ = step(replay="rollout", importance_cap=2.0)
    assert programs.scored_with == [[0, 1], [2, 3]]


OPEN = ("curriculum", "mixture")  # what is in them is the user's


def test_every_setting_makes_other_programs_but_for_a_few_that_are_named():
    defaults = keys.flat(json.loads(base.get_config().to_json()))
    assert all(any(keys.is_in(key, [name]) for key in defaults) for name in NOT_COMPILED if name not in OPEN)
    key = programs_key(base.get_config())
    for name, value in defaults.items():
        config = base.get_config()
        with config.ignore_type():
            config.update_from_flattened_dict({name: f"not {value}"})
        assert (programs_key(config) == key) == keys.is_in(name, NOT_COMPILED), name


def test_programs_are_made_without_the_settings_that_do_not_tell_them_apart():
    config = base.get_config()
    # Those of GRPO and the optimizer are read, checked and dropped.
    for name in NOT_COMPILED:
        if not name.startswith(("grpo.", "optimizer.")):
            *group, key = name.split(".")
            del (config[group[0]] if group else config)[key]
    Learner.from_config(config, None, sft=sft.SFTConfig(0.0, 1, 0), allowed=np.ones(4, bool))
    settings = OptimizerConfig.from_config(config)
    for name in NOT_COMPILED:
        # A learning rate is where the state starts, and set before every update.
        if name.startswith("optimizer.") and name != "optimizer.learning_rate":
            object.__delattr__(settings, name.removeprefix("optimizer."))
    settings.make()
