"""A loaded model that answers questions about images, from Python, for a command or for a server.

    import dig_jax

    session = dig_jax.load_model("runs/quickstart")
    reply = session.answer(["a.png", "b.png"])
    print(reply.text, reply.boxes)
    for piece in session.stream(["a.png", "b.png"], "What has changed?"):
        print(piece, end="", flush=True)

The model is a Hugging Face folder or the workdir of a run. A run's model, in its workdir or in a folder that
`export` wrote, is asked as it was trained: its own question, length of answers, sampling and limits of image
sizes hold where nothing else is asked for. A published model answers greedily, as transformers does, except
that image, padding and other special tokens are never drawn.

Questions, images and answers are padded to a few sizes: another question of about the same size compiles
nothing. What is drawn depends on the question, the settings and the seed, not on what is asked beside it or
on whether it is streamed. docs/python.md shows more.
"""

import dataclasses
import functools
import logging
import math
from collections.abc import Sequence
from typing import Any, Unpack

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dig_jax.data.buckets import round_up_coarsely
from dig_jax.data.example import Turn
from dig_jax.data.shown import Picture
from dig_jax.machines import parallel
from dig_jax.machines.repeated import Repeated
from dig_jax.models.nn.sampling_copy import sampling_copy
from dig_jax.rollout.asking import (
    DEFAULT_NEW_TOKENS,
    AnswerSettings,
    Desk,
    Question,
    Reply,
    Request,
    SettingChanges,
    budgets_of,
    keys_of,
    sampling_of,
)
from dig_jax.rollout.batcher import Batcher
from dig_jax.rollout.continuous import Room, continuous_programs
from dig_jax.rollout.drawer import Limits, answering_form
from dig_jax.rollout.engine import Rollout
from dig_jax.rollout.lockstep import LockstepPrograms, lockstep_programs
from dig_jax.rollout.programs import RolloutPrograms, rollout_programs
from dig_jax.rollout.sampling import RolloutConfig
from dig_jax.rollout.stream import Stream
from dig_jax.rollout.thinking import endless_budget
from dig_jax.run import loading, model_folder
from dig_jax.run.loading import Opened
from dig_jax.run.newest import check_followed, newest_step

logger = logging.getLogger("dig_jax")

STREAMED_TOKENS = 4  # decoded between two pieces of text: a call costs little, but not nothing
ROWS = 8  # questions decoded at a time, per group of devices that shares the model
MOST_PROMPT_TOKENS = 8192  # of a batcher's row, unless asked for: 10 GB of caches for 8 rows of an 8B model
WAITING = 4  # times as many are read together; the next begins when one is done


class Session:
    """A loaded model that answers.

    Args:
      folder: Hugging Face folder or workdir.
      dtype: of computation, "bfloat16" or "float32"; None: the run's, else that of configs/base.py.
      devices: how many to spread the model over; None: one, in several processes all of them.

    Attributes:
      opened: settings and tokenizer of the model.
      config: of the model's run, else configs/base.py.
      of_run: whether the model is that of a run: a workdir's, or exported from one.
      mesh: the devices of the model.
      desk: what reads questions and answers.
      defaults: settings of answers where nothing else is asked for.
      step: of a workdir's weights, once they were read; None of a Hugging Face folder's.

    Raises:
      FileNotFoundError: a file of the model is missing.
      ValueError: one is damaged, or there are not so many devices.
    """

    def __init__(self, folder: epath.Path, *, dtype: str | None = None, devices: int | None = None):
        self.opened: Opened = loading.open_model(folder)
        self.config = self.opened.config
        self.of_run = self.opened.run is not None
        if dtype:
            self.config.model.dtype = dtype
        if not model_folder.is_workdir(folder):
            self.config.model.param_dtype = self.config.model.dtype  # nothing is trained: no master copy
        own = RolloutConfig.from_config(self.config) if self.of_run else None
        task = loading.make_task(self.config, folder, self.opened.tokenizer)
        self.desk = Desk(
            self.opened.architecture,
            self.opened.tokenizer,
            loading.image_config(self.config, self.opened.files),
            task.question,
            loading.box_format(self.config, self.opened.files),
            self.config.reward.max_boxes,
            longest=own.max_new_tokens if own else DEFAULT_NEW_TOKENS,
        )
        self.defaults = AnswerSettings()
        if own:
            self.defaults = AnswerSettings(temperature=own.temperature, top_p=own.top_p, top_k=own.top_k)
        self.mesh = _mesh(devices, self.opened.architecture.text.num_key_value_heads)
        self.step: int | None = None

    def load(self) -> "Session":
        """Reads the weights now; else that is done for the first answer."""
        _ = self.policy
        return self

    @functools.cached_property
    def policy(self) -> tuple[nnx.GraphDef, nnx.State]:
        """Structure and weights of the model, as it computes; they are read for the first use."""
        return self._read(self.newest_step())

    def newest_step(self) -> int | None:
        """Of a workdir, the step of its newest whole checkpoint; None of a Hugging Face folder."""
        folder = self.opened.folder
        return newest_step(folder) if model_folder.is_workdir(folder) else None

    def _read(self, step: int | None) -> tuple[nnx.GraphDef, nnx.State]:
        model = nnx.merge(*loading.load_policy(self.config, self.opened, self.mesh, step))
        form = answering_form(self.config, self.mesh)
        read = nnx.split(sampling_copy(model, form, consume=True), nnx.Param)
        self.step = step
        return read

    def renew(self) -> bool:
        """Reads a checkpoint that the run wrote since the last one was read; whether there was any.

        What is answered from then on is answered with it, by a batcher once it is handed over
        (`Batcher.take`); nothing is compiled. While it is read the older weights are kept.

        Raises:
          FileNotFoundError, ValueError: the checkpoint can not be read. The run may have removed it
            meanwhile: the next call looks for the newest again.
        """
        step = self.newest_step()
        if step is None or step == self.step:
            return False
        self.policy = self._read(step)
        return True

    def follow(self, batcher: Batcher, seconds: float) -> Repeated:
        """Looks for newer checkpoints of the run from time to time, in a thread, and hands them over.

        Args:
          batcher: of this session.
          seconds: between two looks.

        Returns:
          The thread, to be stopped.

        Raises:
          ValueError: the model is not the workdir of a run, or `seconds` is not more than 0.
        """
        check_followed(self.opened.folder, seconds)

        def look() -> None:
            if self.renew():
                batcher.take(self.policy[1], self.step)
                logger.info("answers with the checkpoint of step %d from now on", self.step)

        return Repeated(look, seconds, name="newest checkpoint")

    @functools.cached_property
    def _lockstep(self) -> LockstepPrograms:
        return lockstep_programs(*self.policy, self.mesh)

    @functools.cached_property
    def _pool(self) -> RolloutPrograms:
        return rollout_programs(*self.policy, self.mesh)

    def answer(
        self, images: Sequence[Picture] = (), text: str | None = None, **changes: Unpack[SettingChanges]
    ) -> Reply:
        """Answers a question; arguments and errors as for `request`."""
        stream = self.run(self.request(images, text, **changes))
        for _ in stream:
            pass
        assert stream.reply is not None
        return stream.reply

    def stream(
        self, images: Sequence[Picture] = (), text: str | None = None, **changes: Unpack[SettingChanges]
    ) -> Stream:
        """The same answer, piece by piece while it is decoded; arguments and errors as for `request`."""
        return self.run(self.request(images, text, **changes), streamed=True)

    def answer_all(
        self, questions: Sequence[Question], n: int = 1, **changes: Unpack[SettingChanges]
    ) -> list[list[Reply]]:
        """Answers several questions together: of each `n` answers, the first of them that of `answer`.

        A few are decoded at a time; when all answers to one are done, the next question takes its place.

        Args:
          questions: any number, of any sizes.
          n: answers per question; they differ in their noise alone.
          changes: see `request`.

        Raises:
          ValueError, FileNotFoundError: as `request`, with the number of the question.
        """
        if n < 1:
            raise ValueError(f"n={n}: expected 1 answer per question or more")
        requests = []
        for number, question in enumerate(questions, start=1):
            try:
                requests.append(self.request(question.images, question.text, **changes))
            except (ValueError, FileNotFoundError) as error:
                raise type(error)(f"question {number} of {len(questions)}: {error}") from error
        replies: dict[int, list[Reply]] = {}
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].ids))  # alike ones are padded less
        together = WAITING * ROWS * parallel.data_shards(self.mesh)
        for first in range(0, len(order), together):
            chosen = order[first : first + together]
            drawn = self._draw_together([requests[i] for i in chosen], n)
            for row, i in enumerate(chosen):
                replies[i] = [self.desk.reply(drawn, (row, column), requests[i]) for column in range(n)]
        return [replies[i] for i in range(len(requests))]

    def request(
        self, images: Sequence[Picture] = (), text: str | None = None, **changes: Unpack[SettingChanges]
    ) -> Request:
        """Reads a question, and refuses before anything is loaded or compiled what can not be answered.

        Args:
          images: paths, bytes of files, uint8 arrays [H, W, 3], PIL images, or what `data.shown.show` made of
            them, in the order they are shown.
          text: what is asked; None: the model's own question, about two images.
          changes: settings that are other than `defaults`.

        Raises:
          FileNotFoundError: there is no such image.
          ValueError: an image can not be read, the prompt is longer than the model's context, or a setting is
            out of range.
          TypeError: there is no such setting.
        """
        return self.desk.read(images, text, dataclasses.replace(self.defaults, **changes))

    def request_turns(
        self, turns: Sequence[Turn], images: Sequence[Picture] = (), **changes: Unpack[SettingChanges]
    ) -> Request:
        """Reads a conversation whose last turn is the user's; other arguments and errors as for `request`.

        Args:
          turns: of text and numbers of images, in the order the model is shown them. A model is trained on
            one turn of the user, images first, which is what `request` makes.
          images: each is shown once.
          changes: settings that are other than `defaults`.
        """
        return self.desk.read_turns(turns, images, dataclasses.replace(self.defaults, **changes))

    def batcher(
        self,
        *,
        rows: int = ROWS,
        max_prompt_tokens: int | None = None,
        max_answer_tokens: int | None = None,
        waiting: int = 128,
    ) -> Batcher:
        """Begins to answer requests as they come, in a thread: continuous batching (`rollout.batcher`).

        Memory for all rows is taken at once, and nothing is compiled anew for another length or setting of
        answers; prompts are padded to a few sizes, as elsewhere.

        Args:
          rows: answers decoded at a time, rounded up to a multiple of the groups of devices.
          max_prompt_tokens: of the longest prompt; None: four images as large as the model looks at and 1,024
            tokens of text, but at most 8,192, and what the model's context leaves.
          max_answer_tokens: of the longest answer; None: as many as the model's own (`desk.longest`), at
            least 2,048, or half the model's context.
          waiting: requests that may wait for a row.

        Raises:
          ValueError: there is no room for anything, more than the model's context is asked for, or the model
            is shared by several processes.
        """
        if jax.process_count() > 1:
            raise ValueError("requests are answered as they come by one process alone")
        context = self.opened.architecture.text.max_position_embeddings
        longest = max(self.desk.longest, DEFAULT_NEW_TOKENS)
        answer = min(longest, context // 2) if max_answer_tokens is None else max_answer_tokens
        if max_prompt_tokens is None:
            image = self.desk.image_config.max_pixels // self.desk.image_config.factor**2
            max_prompt_tokens = min(4 * image + 1024, MOST_PROMPT_TOKENS, context - answer)
        for name, value, most in (
            ("rows", rows, 4096),
            ("max_prompt_tokens", max_prompt_tokens, context - 1),
            ("max_answer_tokens", answer, context - 1),
            ("waiting", waiting, 1_000_000),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"{name}={value}: expected 1 to {most}")
        shards = parallel.data_shards(self.mesh)
        room = Room(
            rows=-(-rows // shards) * shards,
            prompt=round_up_coarsely(max_prompt_tokens),
            answer=answer,
            every=STREAMED_TOKENS,
        )
        common = sampling_of(AnswerSettings(), self.opened.tokenizer)
        closing = endless_budget(self.opened.tokenizer)
        programs = continuous_programs(*self.policy, self.mesh, room, common, closing)
        return Batcher(programs, self.policy[1], self.desk, waiting, self.step)

    def warm_batcher(self, *, newest_seconds: float = 0.0, **room: Any) -> Batcher:
        """A `batcher` whose programs are compiled before it is asked; `room` is what that takes.

        Args:
          newest_seconds: look for newer checkpoints of the run so often, see `follow`; 0: never.
        """
        batcher = self.batcher(**room)
        batcher.warm_up(self.request(text="Hello.", max_new_tokens=2))
        if newest_seconds:
            self.follow(batcher, newest_seconds)
        return batcher

    def run(self, request: Request, streamed: bool = False) -> Stream:
        """Begins to answer; one piece holds all where the answer is not streamed."""
        often = streamed or request.settings.stop
        parts = self._lockstep.parts(
            self.policy[1],
            self.desk.prompts([request]),
            np.arange(1),
            keys_of(request, rows=1, n=1),
            Limits(request.sampling, request.most),
            budgets_of(request, (1, 1)),
            every=STREAMED_TOKENS if often else 0,
        )
        return Stream(parts, self.desk, request)

    def _draw_together(self, requests: list[Request], n: int) -> Rollout:
        """`n` completions of each request; they have their settings in common."""
        shards = parallel.data_shards(self.mesh)
        count = shards * 2 ** math.ceil(math.log2(max(1, len(requests) / shards)))
        # To one of a few numbers of rows, by answering the last one again: it takes no longer than it does.
        rows = requests + requests[-1:] * (count - len(requests))
        most = max(request.most for request in rows)
        return self._pool.draw(
            self.policy[1],
            self.desk.prompts(rows),
            np.arange(count),
            keys_of(rows[0], count, n),
            Limits(rows[0].sampling, round_up_coarsely(most), rows=min(count, ROWS * shards)),
            budgets_of(rows[0], (count, n)),
        )


def load_model(folder: epath.PathLike, *, dtype: str | None = None, devices: int | None = None) -> Session:
    """Loads a model to ask; arguments and errors as for `Session`, whose weights are read at once.

    Args:
      folder: Hugging Face folder, hub id, or the workdir of a run.
      dtype: see `Session`.
      devices: see `Session`.
    """
    return Session(model_folder.find_model(str(folder)), dtype=dtype, devices=devices).load()


def _mesh(wanted: int | None, num_heads: int) -> Mesh:
    """The devices to spread the model over: in one process so many of its own, in several all there are.

    `tensor` takes as many as can share the key/value heads, and `fsdp` the rest.
    """
    count = jax.device_count()
    several = jax.process_count() > 1
    fewest = count if several else 1
    devices = fewest if wanted is None else wanted
    if not fewest <= devices <= count:
        where = f"of {jax.process_count()} processes, all to be used" if several else "here"
        raise ValueError(f"devices={wanted}: there are {count} devices {where}")
    sizes = {"data": 1, "fsdp": -1, "tensor": math.gcd(devices, num_heads)}
    return parallel.make_mesh(ConfigDict(sizes), jax.devices()[:devices])
