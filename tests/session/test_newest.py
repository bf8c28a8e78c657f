"""A run goes on: its newer checkpoints answer, what was begun with an older one is completed with that."""

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from etils import epath

import dig_jax
from dig_jax.machines.repeated import Repeated
from dig_jax.models import families
from dig_jax.models.hf.checkpoint import load_params
from dig_jax.rollout.batcher import Batcher
from dig_jax.rollout.tickets import Failure, Piece, Ticket
from dig_jax.run import checkpoint
from dig_jax.session import Session
from tests.commands.test_export import State, make_workdir
from tests.serve.conftest import Gate

Came = queue.SimpleQueue[Piece | Failure]
ASKED: dict[str, object] = {"text": "Describe.", "temperature": 1.0, "max_new_tokens": 12}


@pytest.fixture
def workdir(tiny_qwen3vl: Path, tmp_path: Path) -> Path:
    """A run that has doubled its parameters in step 1."""
    return make_workdir(tiny_qwen3vl, tmp_path / "run", steps=(1,))


def go_on(workdir: Path, model: Path, step: int) -> None:
    """The run writes another checkpoint, with the parameters of `model`, and removes the one before it."""
    params = load_params(model, families.load_config(model))
    checkpoints = checkpoint.Checkpoints(epath.Path(workdir), keep=1)
    checkpoints.save(step, State(params, jnp.int32(0)), {})
    checkpoints.close()


@pytest.fixture
def session(workdir: Path) -> Session:
    return dig_jax.load_model(workdir, dtype="float32")


@pytest.fixture
def batcher(session: Session) -> Iterator[Batcher]:
    batcher = session.batcher(rows=2, max_prompt_tokens=128, max_answer_tokens=16)
    yield batcher
    batcher.close(0)


def tokens(came: Came) -> list[int]:
    while isinstance(event := came.get(timeout=300), Piece):
        if event.reply is not None:
            return event.reply.tokens
    raise event.error


def ask(batcher: Batcher, session: Session) -> tuple[Ticket, Came]:
    came = queue.SimpleQueue[Piece | Failure]()
    return batcher.submit(session.request(**ASKED), came.put), came  # type: ignore[arg-type]


def test_a_newer_checkpoint_answers_what_begins_later_and_an_older_one_completes_what_it_began(
    session: Session, batcher: Batcher, workdir: Path, tiny_qwen3vl: Path
) -> None:
    before = tokens(ask(batcher, session)[1])
    assert (session.step, batcher.step, session.renew()) == (1, 1, False)
    gate = Gate(batcher.programs)
    behind = Batcher(gate.programs, session.policy[1], session.desk, 8, session.step)
    begun, first = ask(behind, session)
    assert gate.asked.wait(300)  # one of two rows is in use

    go_on(workdir, tiny_qwen3vl, 7)
    structure = session.policy[0]
    assert session.renew() and session.step == 7 and session.policy[0] == structure
    behind.take(session.policy[1], session.step)
    waits, later = ask(behind, session)
    gate.opened.set()
    told = tokens(first), tokens(later)
    behind.close()

    batcher.take(session.policy[1], session.step)
    after = tokens(ask(batcher, session)[1])
    assert told == (before, after) and before != after
    assert (begun.step, waits.step, behind.step) == (1, 7, 7)


def test_following_a_run_hands_its_newest_checkpoint_over_though_the_first_look_fails(
    session: Session, batcher: Batcher, workdir: Path, tiny_qwen3vl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, take, renew = threading.Event(), batcher.take, session.renew
    looks: list[Callable[[], bool]] = [renew]

    def flaky() -> bool:
        if looks:
            looks.pop()
            raise FileNotFoundError("the run has just removed it")
        return renew()

    def told(weights: jax.Array, step: int) -> None:
        take(weights, step)  # type: ignore[arg-type]
        taken.set()

    monkeypatch.setattr(session, "renew", flaky)
    monkeypatch.setattr(batcher, "take", told)
    go_on(workdir, tiny_qwen3vl, 7)
    follower = session.follow(batcher, seconds=0.01)
    assert taken.wait(300) and session.step == 7
    follower.stop()


def test_what_is_done_from_time_to_time_ends_when_it_is_stopped() -> None:
    called = threading.Event()
    repeated = Repeated(called.set, 0.001, name="a test")
    assert called.wait(300)
    repeated.stop()
    assert "a test" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(ValueError, match="a test: every 0 seconds"):
        Repeated(called.set, 0, name="a test")


def test_a_folder_without_a_run_can_not_be_followed(tiny_qwen3vl: Path) -> None:
    session = Session(epath.Path(tiny_qwen3vl))
    with pytest.raises(ValueError, match="is not the workdir of a run, so no newer checkpoints come"):
        session.follow(None, 1)  # type: ignore[arg-type]
