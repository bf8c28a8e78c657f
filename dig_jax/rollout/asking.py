"""Questions and answers, as a drawer takes the ones and gives the others.

A question becomes a `Request`: read, refused where it can not be answered, its prompt in tokens. Requests
become padded prompts, keys and budgets; completions become `Reply`s, with the boxes that are read from them.

Shapes: B requests, n answers to each, R tokens of the longest.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypedDict

import jax
import numpy as np

from dig_jax.data.buckets import round_up_coarsely
from dig_jax.data.example import Object, Shape, Size, Turn, marked_parts
from dig_jax.data.images import ImageConfig, patch_grid, preprocess
from dig_jax.data.prompts import conversation_ids
from dig_jax.data.shown import Picture, Shown, show
from dig_jax.data.tokenizer import TextStream, Tokenizer
from dig_jax.models.architecture import Architecture
from dig_jax.models.inputs import Prompts, make_prompts
from dig_jax.rollout.continuous import Row
from dig_jax.rollout.engine import Rollout, sample_keys
from dig_jax.rollout.sampling import Sampling, SamplingOfEach
from dig_jax.rollout.thinking import NO_BUDGET, Budget, make_budget
from dig_jax.tasks.boxes.text import BoxFormat

DEFAULT_NEW_TOKENS = 2048
ROLES = ("system", "user", "assistant")  # of the turns of a conversation


@dataclasses.dataclass(frozen=True)
class AnswerSettings:
    """How questions are answered.

    Attributes:
      max_new_tokens: the most tokens of an answer; None: as many as the run drew, for a published model
        2048, or what the model's context leaves.
      temperature: 0 is greedy.
      top_p: 1 is off.
      top_k: 0 is off.
      thinking_budget: tokens of thought after which it is closed; 0 lets the model think.
      seed: of the sampling noise.
      stop: an answer ends before the first of these texts in it.
    """

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    thinking_budget: int = 0
    seed: int = 0
    stop: Sequence[str] = ()


class SettingChanges(TypedDict, total=False):
    """Those of `AnswerSettings` that are other than the session's."""

    max_new_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    thinking_budget: int
    seed: int
    stop: Sequence[str]


@dataclasses.dataclass(frozen=True, eq=False)
class Reply:
    """One answer.

    Attributes:
      text: the answer, thoughts included.
      tokens: its token ids, the end token included.
      logprobs: of the tokens, under the model itself: no temperature, filter or mask.
      finished: whether it came to its end; False means cut at the most tokens allowed.
      boxes: float32 [N, 4], x0, y0, x1, y1 in 0..1 of width and height, those read from the answer.
      form: "valid", or why it is no list of boxes (`tasks.boxes.text.REASONS`).
      closed_at: the token at which the thinking budget closed the thought; None where it did not.
      notes: what the model did not see of the images, in words.
    """

    text: str
    tokens: list[int]
    logprobs: list[float]
    finished: bool
    boxes: np.ndarray
    form: str
    closed_at: int | None
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """Images, and what is asked about them.

    Attributes:
      images: paths, bytes of files, uint8 arrays [H, W, 3] or PIL images, in the order they are shown.
      text: after the images; None: the session's question about two images.
    """

    images: Sequence[Picture] = ()
    text: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """A question that was read and found right, from `Session.request`.

    Attributes:
      ids: int32 [length], tokens of the prompt.
      shown: its images.
      order: their numbers as the prompt shows them.
      settings: of the answer.
      most: tokens of the answer, resolved from `settings.max_new_tokens`.
      sampling: the distribution to draw from.
      budget: of thought, of no dimension; None for as much as there is.
    """

    ids: np.ndarray
    shown: list[Shown]
    order: tuple[int, ...]
    settings: AnswerSettings
    most: int
    sampling: Sampling
    budget: Budget | None


@dataclasses.dataclass(frozen=True)
class Desk:
    """What it takes to read questions and answers: all of a model but its weights.

    Attributes:
      architecture: of the model.
      tokenizer: its own.
      image_config: how images are looked at.
      question: sizes of images -> what is asked about them where nothing else is.
      boxes: how the model writes them.
      max_boxes: the most that are read from an answer.
      longest: the most tokens of an answer where nothing else is asked for and the context reaches.
    """

    architecture: Architecture
    tokenizer: Tokenizer
    image_config: ImageConfig
    question: Callable[[Sequence[Size]], str]
    boxes: BoxFormat
    max_boxes: int
    longest: int

    def read(self, images: Sequence[Picture], text: str | None, settings: AnswerSettings) -> Request:
        """Reads a question; raises as `Session.request` says."""
        shown = self._shown(images, settings)
        text = self.question([image.size for image in shown]) if text is None else text
        return self._request([Turn("user", self._parts(text, len(images)))], shown, settings)

    def read_turns(
        self, turns: Sequence[Turn], images: Sequence[Picture], settings: AnswerSettings
    ) -> Request:
        """Reads a conversation; raises as `Session.request_turns` says."""
        if not turns or turns[-1].role != "user":
            raise ValueError(
                f"the last turn is of {turns[-1].role if turns else 'nobody'}; expected the user's"
            )
        if unknown := {turn.role for turn in turns} - set(ROLES):
            raise ValueError(f"a turn is of {sorted(unknown)}; expected {', '.join(ROLES)}")
        order = Shape(tuple(turns), ()).shown()
        if sorted(order) != list(range(len(images))):
            raise ValueError(
                f"the turns show the images {list(order)}; expected each of the {len(images)} given, once"
            )
        return self._request(turns, self._shown(images, settings), settings)

    def _shown(self, images: Sequence[Picture], settings: AnswerSettings) -> list[Shown]:
        if isinstance(settings.stop, str) or not all(settings.stop):
            raise ValueError(f"stop={settings.stop!r}: expected a tuple of texts that are not empty")
        return [
            show(picture, self.image_config, f"image {number} of {len(images)}")
            for number, picture in enumerate(images, start=1)
        ]

    def _request(self, turns: Sequence[Turn], shown: list[Shown], settings: AnswerSettings) -> Request:
        grids = [patch_grid(*image.size, self.image_config) for image in shown]
        placeholders = self.architecture.placeholders
        order = Shape(tuple(turns), ()).shown()
        ids = conversation_ids(self.tokenizer, turns, [grids[k] for k in order], placeholders)
        of_images = int(np.isin(ids, list(placeholders)).sum())
        most = self._most_tokens(settings.max_new_tokens, len(ids), of_images)
        thinking = settings.thinking_budget
        budget = make_budget(self.tokenizer, thinking, most) if thinking else None
        return Request(ids, shown, order, settings, most, sampling_of(settings, self.tokenizer), budget)

    def _parts(self, text: str, images: int) -> tuple[str | int | Object, ...]:
        """The images and then the text; of a model with objects, where `<image>` and `<object>` say."""
        marks = [text.count("<image>"), text.count("<object>")]
        if self.architecture.object_token_id is None or not any(marks):
            return (*range(images), text)
        if sum(marks) != images:
            raise ValueError(
                f"the text marks {marks[0]} images and {marks[1]} objects, but {images} pictures are given:"
                " expected one for each mark, whole images first"
            )
        return marked_parts(text, objects=marks[0])

    def _most_tokens(self, asked: int | None, length: int, of_images: int) -> int:
        """The most tokens of an answer to a prompt of `length`, `of_images` of them for images."""
        context = self.architecture.text.max_position_embeddings
        if length >= context:
            raise ValueError(
                f"the prompt has {length} tokens, {of_images} of them for images; the model's context is"
                f" {context} tokens: shorten the text, or show fewer or smaller images"
            )
        room = context - length
        if asked is None:
            return min(self.longest, room)
        if not 1 <= asked <= room:
            raise ValueError(
                f"max_new_tokens={asked}: expected 1 to {room}, what a prompt of {length} tokens leaves of"
                f" the model's context of {context}"
            )
        return asked

    def prompts(self, requests: Sequence[Request]) -> Prompts:
        """The requests' prompts [B, ...], padded to one of a few sizes."""
        images = [[preprocess(of.shown[k].pixels, self.image_config) for k in of.order] for of in requests]
        patches = [sum(len(patches) for patches, _ in of_one) for of_one in images]
        return make_prompts(
            [request.ids for request in requests],
            images,
            self.architecture,
            prompt_length=round_up_coarsely(max(len(request.ids) for request in requests)),
            num_patches=round_up_coarsely(max(patches)),
        )

    def reply(self, drawn: Rollout, place: tuple[int, int], request: Request) -> Reply:
        """The completion at a place of a rollout [B, n, R], as the answer to its request."""
        length = int(drawn.mask[place].sum())
        return self.reply_of(
            np.asarray(drawn.tokens[place][:length]),
            np.asarray(drawn.model_logprobs[place][:length]),
            bool(drawn.finished[place]),
            request,
        )

    def reply_of(self, tokens: np.ndarray, logprobs: np.ndarray, finished: bool, request: Request) -> Reply:
        """A completion as the answer to its request.

        Args:
          tokens: int [length], the end token included; more than the request allows are cut off.
          logprobs: float [length], under the model itself.
          finished: whether the last of them is the end token.
          request: what was asked.
        """
        count, finished = min(len(tokens), request.most), finished and len(tokens) <= request.most
        ids = tokens[:count].tolist()
        text, stop = self.tokenizer.decode(ids), request.settings.stop
        if (end := _end_of(text, stop)) is not None:
            text, count, finished = text[:end], _tokens_up_to(ids, stop, self.tokenizer), True
        budget = request.budget
        forced = budget is not None and bool(budget.was_forced(tokens, np.asarray(count)))
        # Boxes of several images are shares of their size, which is that of the first.
        size = request.shown[0].size if request.shown else (1, 1)
        thinking, most = self.tokenizer.opens_thinking, self.max_boxes
        read = self.boxes.read(text, size, thinking=thinking, max_boxes=most)
        return Reply(
            text=text,
            tokens=ids[:count],
            logprobs=logprobs[:count].tolist(),
            finished=finished,
            boxes=read.boxes,
            form=read.reason,
            closed_at=request.settings.thinking_budget if forced else None,
            notes=tuple(note for image in request.shown for note in image.notes),
        )


class TextUntil:
    """The text of an answer while its tokens come in, up to a text that stops it.

    What was given out never changes: an end that may begin a text that stops is held back.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]):
        self.stopped = False
        self._stream = TextStream(tokenizer)
        self._stop = stop
        self._held = max((len(text) - 1 for text in stop), default=0)
        self._text = ""
        self._told = 0

    def add(self, ids: Sequence[int]) -> str:
        """The text that is certain after `ids`, beyond what was given out before."""
        self._text += self._stream.add(ids)
        self.stopped = _end_of(self._text[self._told :], self._stop) is not None
        certain = 0 if self.stopped else max(0, len(self._text) - self._held)
        return self._give(self._text[:certain])

    def end(self, text: str) -> str:
        """What is left of the whole answer `text`."""
        return self._give(text)

    def _give(self, text: str) -> str:
        fresh, self._told = text[self._told :], max(self._told, len(text))
        return fresh


def sampling_of(settings: AnswerSettings, tokenizer: Tokenizer) -> Sampling:
    """The distribution to draw answers from; raises ValueError where a setting is out of range."""
    try:
        return Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            eos_ids=tokenizer.eos_ids,
            suppressed=tokenizer.suppressed,
            vocab_size=tokenizer.vocab_size,
            pad_id=tokenizer.pad_id,
        )
    except ValueError as error:  # "sampling.top_p is 3": here they have no such home
        raise ValueError(str(error).removeprefix("sampling.")) from error


def row_of(request: Request, choice: int) -> Row:
    """What answer number `choice` to a request is drawn from: that of `answer_all`, decoded in rows."""
    return Row(
        key=np.asarray(jax.random.key_data(keys_of(request, rows=1, n=choice + 1)[0, choice])),
        sampling=SamplingOfEach.of(request.sampling),
        most=np.int32(request.most),
        thought=np.int32(NO_BUDGET if request.budget is None else request.budget.tokens),
    )


def keys_of(request: Request, rows: int, n: int) -> jax.Array:
    """Keys [rows, n] of completions: functions of the request's seed and of their place in `n` alone."""
    return sample_keys(jax.random.key(request.settings.seed), 0, np.broadcast_to(np.arange(n), (rows, n)))


def budgets_of(request: Request, shape: tuple[int, int]) -> Budget | None:
    """The request's budget of thought for `shape` completions."""
    return jax.tree.map(lambda tokens: np.full(shape, tokens), request.budget)


def _end_of(text: str, stop: Sequence[str]) -> int | None:
    """Where the first text that stops begins; None where there is none."""
    return min((at for word in stop if (at := text.find(word)) >= 0), default=None)


def _tokens_up_to(tokens: list[int], stop: Sequence[str], tokenizer: Tokenizer) -> int:
    """How many tokens it takes until the text has one that stops in it."""
    stream, text = TextStream(tokenizer), ""
    for count, token in enumerate(tokens, start=1):
        text += stream.add([token])
        if _end_of(text, stop) is not None:
            return count
    return len(tokens)
