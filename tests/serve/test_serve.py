"""The server, asked by OpenAI's own client: the session's answers, whoever else asks and however they end."""

import concurrent.futures
import dataclasses
import json
import pathlib
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest

from dig_jax.data.example import Turn
from dig_jax.rollout.asking import Question
from dig_jax.rollout.batcher import Batcher
from dig_jax.rollout.continuous import ContinuousPrograms
from dig_jax.rollout.thought import Thought
from dig_jax.serve import protocol
from dig_jax.serve.settings import ServeSettings
from dig_jax.session import Session
from tests.helpers.paths import ROOT
from tests.serve.conftest import ROWS, WAITING, Gate, Served, Serving, data_url, picture, png

PAIR = [data_url(png(picture(1))), data_url(png(picture(2)))]
SAMPLED: dict[str, Any] = {"temperature": 1.0, "max_tokens": 24, "n": 2, "seed": 7}


def until(happened: Callable[[], bool]) -> None:
    """Waits for something that other threads do."""
    for _ in range(60_000):
        if happened():
            return
        time.sleep(0.005)
    raise AssertionError("it never happened")


def said(choice: Any) -> tuple[str, str]:
    return choice.message.reasoning_content, choice.message.content


# What is answered


def test_a_greedy_answer_is_the_sessions(served: Served, session: Session) -> None:
    asked = served.ask("What has changed?", *PAIR, temperature=0, max_tokens=40)
    reply = session.answer([picture(1), picture(2)], "What has changed?", temperature=0, max_new_tokens=40)
    (choice,) = asked.choices
    assert choice.finish_reason == ("stop" if reply.finished else "length")
    thought, mark, content = reply.text.partition("</think>")
    assert said(choice) == (thought.strip("\n") if mark else thought, content.lstrip("\n"))
    request = session.request([picture(1), picture(2)], "What has changed?")
    usage = (asked.usage.prompt_tokens, asked.usage.completion_tokens)
    assert usage == (len(request.ids), len(reply.tokens))
    assert asked.model_extra["seed"] >= 0 and choice.model_extra["form"] == reply.form


def test_an_answer_says_of_which_step_its_weights_are(serving: Serving, session: Session) -> None:
    with serving() as served:
        assert served.ask(max_tokens=2).system_fingerprint is None  # of a published model
        served.house.batcher.take(session.policy[1], 7)
        stream = list(served.ask(max_tokens=2, stream=True))
        assert served.ask(max_tokens=2).system_fingerprint == stream[-1].system_fingerprint == "step-7"


def test_an_answer_is_the_same_streamed_or_not_and_whoever_else_asks(served: Served) -> None:
    """Beside more answers than there are rows, of other lengths, distributions and prompts."""
    alone = served.ask(**SAMPLED, logprobs=True, top_logprobs=3)
    assert said(alone.choices[0]) != said(alone.choices[1])
    others = [
        {"temperature": 0.7, "top_p": 0.5, "max_tokens": 60},
        {"temperature": 1.3, "extra_body": {"top_k": 5, "thinking_budget": 9}, "max_tokens": 50},
        {"max_tokens": 1},
        {"temperature": 1.0, "max_tokens": 33, "stop": ["e", "a"]},
    ]
    with concurrent.futures.ThreadPoolExecutor(5) as clients:
        beside = [clients.submit(served.ask, "At some length: what?", **how, seed=1) for how in others]
        stream = served.ask(
            **SAMPLED, logprobs=True, top_logprobs=3, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert all(len(other.result().choices) == 1 for other in beside)
    told = {0: ["", ""], 1: ["", ""]}
    tokens: dict[int, list[Any]] = {0: [], 1: []}
    ends = {}
    for chunk in chunks:
        for choice in chunk.choices:
            told[choice.index][0] += getattr(choice.delta, "reasoning_content", None) or ""
            told[choice.index][1] += choice.delta.content or ""
            tokens[choice.index] += choice.logprobs.content if choice.logprobs else []
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    for choice in alone.choices:
        assert tuple(told[choice.index]) == said(choice) and ends[choice.index] == choice.finish_reason
        assert tokens[choice.index] == choice.logprobs.content and len(tokens[choice.index]) > 2
    assert chunks[-1].usage == alone.usage and len(chunks) > 6


@pytest.mark.slow
def test_several_answers_are_those_of_the_session(served: Served, session: Session) -> None:
    asked = served.ask(**SAMPLED, logprobs=True)
    question = [Question(text="Describe.")]
    (replies,) = session.answer_all(question, n=2, temperature=1.0, max_new_tokens=24, seed=7)
    for choice, reply in zip(asked.choices, replies, strict=True):
        drawn = [token.logprob for token in choice.logprobs.content]
        assert "".join(said(choice)).replace("\n", "") == reply.text.replace("</think>", "").replace("\n", "")
        assert drawn == pytest.approx(reply.logprobs[: len(drawn)], abs=1e-4)


def test_an_answer_ends_before_a_text_that_stops_it(served: Served) -> None:
    how: Any = {"temperature": 1.0, "max_tokens": 40, "seed": 5}
    free = said(served.ask(**how).choices[0])[0]
    word = free[len(free) // 2 :][:2]
    stopped = served.ask(**how, stop=word).choices[0]
    assert said(stopped)[0] == free[: free.index(word)].rstrip("\n") and stopped.finish_reason == "stop"


def test_a_conversation_shows_its_pictures_where_they_stand(served: Served, session: Session) -> None:
    first = {"type": "image_url", "image_url": {"url": PAIR[0], "detail": "high"}}
    messages: Any = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Here:"}, first]},
        {"role": "assistant", "content": "I see.", "reasoning_content": "Hm.", "tool_calls": None},
        {"role": "user", "content": "What is it?"},
    ]
    turns = [Turn("system", ("Be short.",)), Turn("user", ("Here:", 0)), Turn("assistant", ("I see.",))]
    request = session.request_turns([*turns, Turn("user", ("What is it?",))], [picture(1)])
    asked = served.client.chat.completions.create(model="tiny", messages=messages, max_tokens=1)
    assert asked.usage.prompt_tokens == len(request.ids)
    assert request.ids.tolist() != session.request([picture(1)], "Here:What is it?").ids.tolist()
    with pytest.raises(ValueError, match="the last turn is of assistant"):
        session.request_turns(turns, [picture(1)])
    with pytest.raises(ValueError, match="expected each of the 2 given"):
        session.request_turns(turns[:2], [picture(1)] * 2)


def test_two_pictures_and_no_text_ask_the_models_own_question(session: Session) -> None:
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in PAIR]
    body = {"model": "tiny", "messages": [{"role": "user", "content": shown}]}
    asked = protocol.read(json.dumps(body).encode(), session, ServeSettings("tiny"))
    assert asked.request.ids.tolist() == session.request([picture(1), picture(2)]).ids.tolist()
    pixels = [image.pixels.tolist() for image in asked.request.shown]
    assert pixels == [picture(1).tolist(), picture(2).tolist()]  # PNG is lossless, to the model too


@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_thought_is_told_from_the_answer_however_the_text_comes(step: int) -> None:
    def parts(text: str, opened: bool) -> tuple[str, str]:
        thought = Thought(opened)
        came = [thought.add(text[at : at + step]) for at in range(0, len(text), step)] + [thought.end()]
        return "".join(part[0] for part in came), "".join(part[1] for part in came)

    assert parts("a </thi b\n\n</think>\n\n[[1]]\n</think>", True) == ("a </thi b", "[[1]]\n</think>")
    assert parts("cut </thin\n", True) == ("cut </thin\n", "")
    assert parts("\na</think>b", False) == ("", "\na</think>b")


def test_the_page_on_python_says_how_requests_are_answered_as_they_come(
    session: Session,
    programs: ContinuousPrograms,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    for number, name in enumerate(("a.png", "b.png"), start=1):
        (tmp_path / name).write_bytes(png(picture(number)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        session, "batcher", lambda **_: Batcher(programs, session.policy[1], session.desk, 4), raising=True
    )
    exec(compile(code, "docs/python.md", "exec"), {"session": session})
    reply = session.answer(["a.png", "b.png"], "What has changed?", max_new_tokens=20)
    assert capsys.readouterr().out == f"{reply.text} {reply.boxes}\n"


# Who asks badly, leaves, or comes too late


def test_what_can_not_be_asked_is_refused_with_what_to_change(served: Served) -> None:
    for options, kind, words in [
        ({"temperature": -1}, openai.BadRequestError, "temperature: Input should be greater"),
        ({"max_tokens": 61}, openai.BadRequestError, "max_tokens=61: there is room for 60"),
        ({"n": 17}, openai.BadRequestError, "n=17: expected 1 to 16"),
        ({"presence_penalty": 0.5}, openai.BadRequestError, "presence_penalty is not supported"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "response_format is not"),
        ({"top_logprobs": 2}, openai.BadRequestError, "top_logprobs is told where logprobs is true"),
        ({"stop": [""]}, openai.BadRequestError, "stop"),
        ({"extra_body": {"model": "gpt"}}, openai.NotFoundError, "there is no model 'gpt' here"),
        ({"extra_body": {"thinking_budget": 99}}, openai.BadRequestError, "thinking_budget=99: expected 1"),
    ]:
        with pytest.raises(kind, match=words):
            served.ask(**options)
    with pytest.raises(openai.BadRequestError, match="the prompt has .* there is room for 256") as refused:
        served.ask("word " * 300)
    assert refused.value.code == "context_length_exceeded"
    assert served.ask(max_tokens=1, extra_body={"user": "me", "logit_bias": None, "tools": []}).choices
    with pytest.raises(openai.BadRequestError, match=r"messages\[0\].content\[0\].image_url: no readable"):
        served.ask("?", data_url(b"nothing"))


def test_a_client_that_leaves_frees_its_row_and_holds_nobody(serving: Serving, gate: Gate) -> None:
    with serving(gate.programs) as served:
        stream = served.ask(stream=True, max_tokens=60)
        next(iter(stream))
        body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "?"}]}).encode()
        whole = post(served.port, body)
        until(lambda: served.house.inside == 2)
        assert gate.asked.wait(300)  # the gate is shut: no answer can come to its end
        stream.close()
        whole.close()
        until(lambda: served.house.inside == 0 and served.house.held.bytes == 0)
        gate.opened.set()
        assert served.ask(max_tokens=5).choices
        until(lambda: served.house.batcher.stats().running == 0)
        assert 'status="499"} 1.0' in served.house.metrics.text().decode()


def post(port: int, body: bytes, **headers: str) -> socket.socket:
    """Sends a request, and reads nothing."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=300)
    fields = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"{name}: {value}" for name, value in (fields | headers).items() if value]
    head = "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *lines, "", ""])
    connection.sendall(head.encode() + body)
    return connection


def test_who_comes_when_all_places_are_taken_is_told_to_come_again(serving: Serving, gate: Gate) -> None:
    places = ROWS + WAITING
    with serving(gate.programs) as served, concurrent.futures.ThreadPoolExecutor(places) as clients:
        inside = [clients.submit(served.ask, max_tokens=5, seed=seed) for seed in range(places)]
        until(lambda: served.house.inside == places)
        with pytest.raises(openai.RateLimitError, match="5 requests are under way") as refused:
            served.ask(max_tokens=5)
        assert refused.value.response.headers["retry-after"] == "1"
        gate.opened.set()
        assert all(answer.result().choices for answer in inside)


def test_an_answer_that_takes_too_long_is_given_up(serving: Serving, gate: Gate) -> None:
    with serving(gate.programs, timeout_seconds=0.5) as served:
        with pytest.raises(openai.InternalServerError, match="no whole answer within 0.5 s") as late:
            served.ask(max_tokens=30)
        assert late.value.status_code == 504
        with pytest.raises(openai.APIError, match="no whole answer within 0.5 s"):
            list(served.ask(max_tokens=30, stream=True))
        until(lambda: served.house.inside == 0)
        gate.opened.set()


def test_a_failure_of_the_device_ends_what_it_was_decoding_and_no_more(
    serving: Serving, programs: ContinuousPrograms
) -> None:
    failures = iter([RuntimeError("out of memory")])

    def advance(*args: Any) -> Any:
        for error in failures:
            raise error
        return programs.advance(*args)

    with serving(dataclasses.replace(programs, advance=advance)) as served:
        with pytest.raises(openai.InternalServerError, match="the answer failed"):
            served.ask(max_tokens=9, seed=1, temperature=1)
        again = served.ask(max_tokens=9, seed=1, temperature=1)
    with serving() as served:
        assert said(served.ask(max_tokens=9, seed=1, temperature=1).choices[0]) == said(again.choices[0])


def test_a_server_that_is_stopped_answers_what_it_took_and_takes_no_more(
    serving: Serving, gate: Gate
) -> None:
    with serving(gate.programs) as served:
        stream = iter(served.ask(stream=True, max_tokens=20))
        next(stream)
        waiting = threading.Thread(target=served.server.handle_exit, args=(15, None))  # SIGTERM
        waiting.start()

        def refuses() -> bool:
            try:
                socket.create_connection(("127.0.0.1", served.port), timeout=300).close()
            except ConnectionRefusedError:
                return True
            except ConnectionResetError:  # it was about to be taken as the door was shut
                pass
            return False

        until(refuses)
        gate.opened.set()
        assert list(stream)[-1].choices[0].finish_reason == "length"
        served.thread.join()
        assert not served.house.batcher.stats().alive


def test_models_health_and_metrics_are_told(serving: Serving) -> None:
    with serving(api_key="secret") as served:
        assert [model.id for model in served.client.models.list()] == ["tiny"]
        assert served.client.models.retrieve("tiny").id == "tiny"
        served.ask(max_tokens=3)
        text = served.house.metrics.text().decode()
        assert 'dig_jax_requests_total{path="/v1/chat/completions",status="200"} 1.0' in text
        assert 'dig_jax_tokens_total{kind="answer"} 3.0' in text and "dig_jax_rows 3.0" in text
        wrong = openai.OpenAI(base_url=served.client.base_url, api_key="guess", max_retries=0)
        with pytest.raises(openai.AuthenticationError, match="the API key is wrong or missing"):
            wrong.models.list()
