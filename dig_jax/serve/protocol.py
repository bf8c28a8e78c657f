"""The body of a request for a chat completion, and what of it the model is asked.

A field that would change the answer in a way that is not built in is refused, not ignored. Beyond OpenAI's
fields there are `top_k` and `thinking_budget`.
"""

import secrets
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dig_jax.data.example import Turn
from dig_jax.rollout.asking import Request, SettingChanges
from dig_jax.rollout.continuous import ALTERNATIVES
from dig_jax.serve import pictures
from dig_jax.serve.errors import Refused
from dig_jax.serve.settings import ServeSettings
from dig_jax.session import Session

# Fields that change nothing about the answer, or not with these values.
_HARMLESS = ("user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier")
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none",),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
_MOST_SEED = 2**31 - 1

StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ImageUrl(_Strict):
    """Where a picture is."""

    url: str
    # What is shown to the model follows from its own limit of pixels, which none of these changes.
    detail: Literal["auto", "high"] | None = None


class TextPart(_Strict):
    """Text in a message."""

    type: Literal["text"]
    text: str


class ImagePart(_Strict):
    """A picture in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl | str


class Message(_Strict):
    """A turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]
    name: str | None = None
    reasoning_content: str | None = None  # of an earlier answer; thoughts are not shown again

    @pydantic.model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, fields: Any) -> Any:
        """Leaves out what an earlier answer had nothing of: `tool_calls`, `audio`, ..."""
        if not isinstance(fields, dict):
            return fields
        return {key: value for key, value in fields.items() if value not in (None, []) or key == "content"}


class StreamOptions(_Strict):
    """What is told in a stream."""

    include_usage: bool = False


class ChatBody(BaseModel):
    """The body; None where the session's own default holds."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: int | None = None
    thinking_budget: Annotated[int, Field(ge=0)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=ALTERNATIVES)] | None = None


class Asked(pydantic.BaseModel):
    """A request that was read.

    Attributes:
      request: for the batcher.
      count: answers to it.
      seed: of their noise.
      streamed, usage, logprobs: whether the answer is streamed, with the usage at its end, with log-probs.
      top: alternatives to each token.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    request: Request
    count: int
    seed: int
    streamed: bool
    usage: bool
    logprobs: bool
    top: int


def read(data: bytes, session: Session, settings: ServeSettings) -> Asked:
    """Reads a body, its pictures too.

    Raises:
      Refused: it is wrong, with what to change.
    """
    try:
        body = ChatBody.model_validate_json(data)
    except pydantic.ValidationError as error:
        raise _first(error) from None
    _check_extras(body)
    if body.model != settings.name:
        raise Refused(
            404, f"there is no model {body.model!r} here; it is {settings.name!r}", "model_not_found", "model"
        )
    count = body.n or 1
    if count > settings.max_choices:
        raise _wrong(f"n={count}: expected 1 to {settings.max_choices} (--max_choices)", "n")
    if body.top_logprobs and not body.logprobs:
        raise _wrong("top_logprobs is told where logprobs is true", "top_logprobs")
    seed = secrets.randbelow(_MOST_SEED) if body.seed is None else body.seed
    return Asked(
        request=_request(body, seed, session, settings),
        count=count,
        seed=seed,
        streamed=bool(body.stream),
        usage=bool(body.stream_options and body.stream_options.include_usage),
        logprobs=bool(body.logprobs),
        top=body.top_logprobs or 0,
    )


def _wrong(message: str, param: str | None, code: str = "invalid_value") -> Refused:
    return Refused(400, message, code, param)


def _first(error: pydantic.ValidationError) -> Refused:
    """The first thing that is wrong with a body."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return _wrong(f"the body is no JSON: {first['msg']}", None, "invalid_json")
    where = ""
    for part in first["loc"]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}"
    return _wrong(f"{where[1:] or 'the body'}: {first['msg']}", where[1:] or None)


def _check_extras(body: ChatBody) -> None:
    for name, value in (body.model_extra or {}).items():
        if value is None or name in _HARMLESS or value in _NEUTRAL.get(name, ()):
            continue
        message = f"{name} is not supported"
        if name in _NEUTRAL:
            message += f" but as {_NEUTRAL[name][0]!r}, which changes nothing"
        raise _wrong(message, name, "unsupported_parameter")


def _request(body: ChatBody, seed: int, session: Session, settings: ServeSettings) -> Request:
    if None not in (body.max_tokens, body.max_completion_tokens) and (
        body.max_tokens != body.max_completion_tokens
    ):
        raise _wrong("max_tokens and max_completion_tokens differ: give one", "max_tokens")
    most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    changes: SettingChanges = {"max_new_tokens": most, "seed": seed, "stop": stop}
    if body.temperature is not None:
        changes["temperature"] = body.temperature
    if body.top_p is not None:
        changes["top_p"] = body.top_p
    if body.top_k is not None:
        changes["top_k"] = max(0, body.top_k)  # -1 is off in other servers
    if body.thinking_budget is not None:
        changes["thinking_budget"] = body.thinking_budget
    turns, urls = _turns(body.messages)
    if len(urls) > settings.max_images:
        raise _wrong(f"{len(urls)} images: expected at most {settings.max_images} (--max_images)", "messages")
    images = [pictures.load(url, param, settings) for url, param in urls]
    try:
        if (question := _one_question(turns, len(images))) is not None:
            return session.request(images, question or None, **changes)
        return session.request_turns(turns, images, **changes)
    except (ValueError, OverflowError) as error:
        raise as_asked(error) from None


# What the session calls a setting, and how a client did.
_NAMES = {"max_new_tokens": "max_tokens", "image ": "messages", "the prompt has": "messages", "stop": "stop"}


def as_asked(error: Exception) -> Refused:
    """An error of the session, in the words of the client."""
    message = str(error)
    code = "context_length_exceeded" if message.startswith(("the prompt has", "max_new")) else "invalid_value"
    for ours, theirs in _NAMES.items():
        if message.startswith(ours):
            return _wrong(message.replace("max_new_tokens", "max_tokens"), theirs, code)
    first = message.replace("=", " ").partition(" ")[0]
    return _wrong(message, first if first in ChatBody.model_fields else None, code)


def _turns(messages: list[Message]) -> tuple[list[Turn], list[tuple[str, str]]]:
    """The conversation, and of each picture its URL and where it stands."""
    turns: list[Turn] = []
    urls: list[tuple[str, str]] = []
    for number, message in enumerate(messages):
        role = "system" if message.role == "developer" else message.role
        if isinstance(message.content, str):
            turns.append(Turn(role, (message.content,)))
            continue
        parts: list[str | int] = []
        for at, part in enumerate(message.content):
            if isinstance(part, TextPart):
                parts.append(part.text)
                continue
            where = f"messages[{number}].content[{at}].image_url"
            if role != "user":
                raise _wrong(f"{where}: pictures are shown by the user", where)
            parts.append(len(urls))
            urls.append((part.image_url if isinstance(part.image_url, str) else part.image_url.url, where))
        turns.append(Turn(role, tuple(parts)))
    return turns, urls


def _one_question(turns: list[Turn], images: int) -> str | None:
    """The text of one turn of the user with all images before it, as a model is trained; None if it is more.

    No text at all asks the model's own question.
    """
    if len(turns) != 1 or turns[0].role != "user":
        return None
    texts = [part for part in turns[0].parts if isinstance(part, str)]
    first = turns[0].parts[:images]
    return "".join(texts) if first == tuple(range(images)) and len(texts) <= 1 else None
