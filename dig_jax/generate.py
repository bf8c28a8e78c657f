"""Answers a prompt about images: `python -m dig_jax.generate --model=DIR --image=A --image=B --prompt=TEXT`.

The model is a Hugging Face folder or a training workdir. Any number of images are shown in the order given,
before the text; none is fine too. Photos are shown upright and shrunk to what the model looks at; what a
transparent, 16-bit or CMYK image loses on its way to RGB is told on stderr. On a terminal the answer appears
while it is decoded. `--json` prints one line `{"tokens": [...], "logprobs": [...], "text": "..."}` with the
log-probs of the untempered model, the end token included.

The default is greedy: the tokens of `transformers.generate(do_sample=False)`, except that image, padding and
other special tokens are never drawn. `--sampling=model` samples as the model's makers recommend. A Thinking
model's prompt ends in an open `<think>`, so its answer has only the closing `</think>`; greedily, which its
makers advise against, it can think without end. `--thinking_budget=N` closes a thought that is still open
after N tokens; the JSON line then has `"thinking_closed_at"`: N, or null where it was closed before.

Prompts, images and answers are padded to a few sizes: with JAX_COMPILATION_CACHE_DIR set, a second run of
about the same size compiles nothing.
"""

import argparse
import dataclasses
import functools
import io
import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dig_jax.data.buckets import round_up_coarsely
from dig_jax.data.images import ImageConfig, load_image, preprocess
from dig_jax.data.prompts import QUESTION, prompt_ids
from dig_jax.data.tokenizer import TextStream, Tokenizer
from dig_jax.machines import parallel
from dig_jax.models.api import Model
from dig_jax.models.architecture import Architecture
from dig_jax.models.hf.published_sampling import model_sampling
from dig_jax.models.inputs import Prompts, make_prompts
from dig_jax.rollout.engine import advance, sample_keys, start
from dig_jax.rollout.sampling import Sampling
from dig_jax.rollout.thinking import Budget, make_budget
from dig_jax.run import cli, loading, model_folder

DEFAULT_NEW_TOKENS = 2048
STREAMED_TOKENS = 4  # decoded between two looks at the terminal: a call costs little, but not nothing


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
      tokens: its token ids, the end token included.
      logprobs: of the tokens, under the model itself: no temperature, filter or mask.
      finished: whether the end token came; False means cut at the most tokens allowed.
      closed_at: the token at which the thinking budget closed the thought; None where it did not.
    """

    tokens: list[int]
    logprobs: list[float]
    finished: bool
    closed_at: int | None


@functools.cache  # a process that asks again does not trace again
def _programs(mesh: Mesh) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`start` and `advance` of the rollout engine, compiled on `mesh`."""

    def begin(model: Model, prompts: Prompts, keys: jax.Array, sampling: Sampling, length: int) -> Any:
        return start(model, prompts, keys, sampling=sampling, max_new_tokens=length)

    def go_on(
        model: Model,
        decoding: Any,
        keys: jax.Array,
        until: Any,
        sampling: Sampling,
        budget: Budget | None,
    ) -> Any:
        return advance(model, decoding, keys, until, sampling=sampling, budget=budget)

    return (
        parallel.jit(begin, mesh, static_argnums=(3, 4)),
        parallel.jit(go_on, mesh, static_argnums=4, donate_argnums=1),
    )


def answer(
    model: Model,
    prompts: Prompts,
    mesh: Mesh,
    *,
    sampling: Sampling,
    max_new_tokens: int,
    seed: int,
    budget: Budget | None = None,
    show: Callable[[list[int]], None] | None = None,
) -> Answer:
    """Answers one prompt.

    Args:
      model: with its parameters on `mesh`.
      prompts: one row, the same on every process.
      mesh: of the model.
      sampling: the distribution to draw from.
      max_new_tokens: the most tokens of the answer.
      seed: of the sampling noise.
      budget: of thought, [1, 1]; None for as much as there is.
      show: called with the new tokens each time a few are there. It does not change what is drawn. Several
        processes must agree on whether there is one.
    """
    begin, go_on = _programs(mesh)
    keys = sample_keys(jax.random.key(seed), 0, np.zeros((1, 1), int))
    prompts, key_data, placed_budget = parallel.put_whole((prompts, jax.random.key_data(keys), budget), mesh)
    keys = jax.random.wrap_key_data(key_data)
    decoding = begin(model, prompts, keys, sampling, round_up_coarsely(max_new_tokens))
    shown = 0
    while True:
        drawn = parallel.on_every_host(decoding.rollout, mesh)
        count = int(drawn.mask.sum())
        tokens = drawn.tokens[0, 0, :count].tolist()
        if show is not None:
            show(tokens[shown:])
            shown = count
        if drawn.finished.all() or count >= max_new_tokens:
            logprobs, finished = drawn.model_logprobs[0, 0, :count].tolist(), bool(drawn.finished.all())
            forced = budget is not None and bool(budget.was_forced(drawn.tokens, np.full((1, 1), count)))
            return Answer(tokens, logprobs, finished, int(budget.tokens[0, 0]) if budget and forced else None)
        until = min(count + STREAMED_TOKENS, max_new_tokens) if show else max_new_tokens
        decoding = go_on(model, decoding, keys, np.int32(until), sampling, placed_budget)


def build_prompt(
    config: Architecture,
    tokenizer: Tokenizer,
    images: Sequence[np.ndarray],
    text: str,
    image_config: ImageConfig,
) -> Prompts:
    """One prompt [1, ...] of images (uint8 [H, W, 3]) and text, padded to one of a few sizes.

    Raises:
      ValueError: an image has a shape that the model does not take, the text contains an image placeholder,
        or the prompt is longer than the model's context.
    """
    patches = [preprocess(image, image_config) for image in images]
    ids = prompt_ids(tokenizer, text, [grid for _, grid in patches], config.vision.spatial_merge_size)
    context = config.text.max_position_embeddings
    if len(ids) >= context:
        of_images = int(np.sum(ids == config.image_token_id))
        raise ValueError(
            f"the prompt has {len(ids)} tokens, {of_images} of them for {len(images)} images; the model's"
            f" context is {context} tokens: shorten --prompt, or show fewer or smaller images"
        )
    return make_prompts(
        [ids],
        [patches],
        config,
        prompt_length=round_up_coarsely(len(ids)),
        num_patches=round_up_coarsely(sum(len(image) for image, _ in patches)),
    )


def _sampling(args: argparse.Namespace, files: epath.Path, tokenizer: Tokenizer) -> Sampling:
    chosen = {"temperature": 0.0, "top_p": 1.0, "top_k": 0}
    if args.sampling == "model":
        chosen = model_sampling(files, tokenizer.opens_thinking)
    elif (
        (args.sampling, args.temperature) == (None, None)
        and tokenizer.opens_thinking
        and jax.process_index() == 0
    ):
        print(
            "note: greedy decoding, the default, can make a Thinking model think without end; its makers ask"
            " for sampling: --sampling=model (--sampling=greedy drops this note)",
            file=sys.stderr,
        )
    given = {key: getattr(args, key) for key in chosen if getattr(args, key) is not None}
    try:
        return Sampling(
            **(chosen | given),
            eos_ids=tokenizer.eos_ids,
            suppressed=tokenizer.suppressed,
            vocab_size=tokenizer.vocab_size,
            pad_id=tokenizer.pad_id,
        )
    except ValueError as error:  # "sampling.top_p is 3": here that is a flag
        raise ValueError(str(error).replace("sampling.", "--", 1)) from error


def _read_images(paths: Sequence[str], config: ImageConfig) -> list[np.ndarray]:
    """The images, shrunk as the model will see them; an error says which --image it is about."""
    images = []
    for number, path in enumerate(paths, start=1):
        try:
            images.append(load_image(path, fit=config))
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"--image={path} (number {number} of {len(paths)}): {error}") from error
    return images


def _budget(args: argparse.Namespace, tokenizer: Tokenizer, max_new_tokens: int) -> Budget | None:
    if not args.thinking_budget:
        return None
    try:
        return make_budget(tokenizer, args.thinking_budget, max_new_tokens, shape=(1, 1))
    except ValueError as error:
        raise ValueError(f"--{error}") from error


def _settings(model: epath.Path, dtype: str | None) -> ConfigDict:
    """Settings of the workdir or of configs/base.py, at the precision asked for."""
    config = cli.config_of(model)
    if dtype:
        config.model.dtype = dtype
    if not model_folder.is_workdir(model):
        config.model.param_dtype = config.model.dtype  # nothing is trained: no master copy is needed
    return config


def _mesh(wanted: int | None, config: Architecture) -> Mesh:
    """The devices to spread the model over: in one process so many of its own, in several all there are.

    `tensor` takes as many as can share the key/value heads, and `fsdp` the rest.
    """
    count = jax.device_count()
    several = jax.process_count() > 1
    fewest = count if several else 1
    devices = fewest if wanted is None else wanted
    if not fewest <= devices <= count:
        where = f"of {jax.process_count()} processes, all to be used" if several else "here"
        raise ValueError(f"--devices={wanted}: there are {count} devices {where}")
    sizes = {"data": 1, "fsdp": -1, "tensor": math.gcd(devices, config.text.num_key_value_heads)}
    return parallel.make_mesh(ConfigDict(sizes), jax.devices()[:devices])


def _max_new_tokens(args: argparse.Namespace, prompts: Prompts, config: Architecture) -> int:
    """The most tokens of the answer: what is asked for, else the default as far as the context reaches."""
    room = config.text.max_position_embeddings - int(prompts.length[0])
    if args.max_new_tokens is None:
        return min(DEFAULT_NEW_TOKENS, room)
    if not 1 <= args.max_new_tokens <= room:
        raise ValueError(
            f"--max_new_tokens={args.max_new_tokens}: expected 1 to {room}, what a prompt of"
            f" {prompts.length[0]} tokens leaves of the model's context of"
            f" {config.text.max_position_embeddings}"
        )
    return args.max_new_tokens


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ends the program with code 2 where one is wrong."""
    parser = argparse.ArgumentParser(
        prog="dig_jax.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, help="Hugging Face folder or workdir")
    add("--image", action="append", default=[], help="image file; repeat for several, in order")
    add("--prompt", help="the text after the images (default, for two images: the DiG question)")
    add("--max_new_tokens", type=int, help=f"at most this long (default {DEFAULT_NEW_TOKENS})")
    add(
        "--sampling",
        choices=("greedy", "model"),
        help="greedy is the default. model: as generation_config.json says where it samples, else as"
        " published for Instruct (temperature 0.7, top_p 0.8, top_k 20) or Thinking models (0.6, 0.95, 20);"
        " no presence penalty",
    )
    cli.add_sampling_flags(parser, temperature="0 is greedy (default: as --sampling says)")
    add(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="compute (default: the workdir's, for a Hugging Face folder that of configs/base.py)",
    )
    add(
        "--devices",
        type=int,
        help="devices to spread a large model over (default: 1; in several processes all of them)",
    )
    add("--json", action="store_true", help="print tokens, log-probs and text as one JSON line")
    cli.add_process_flags(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    args = parse_arguments(argv)
    with cli.user_errors():
        folder = model_folder.find_model(args.model)
        config = _settings(folder, args.dtype)
    with cli.processes(args, config.distributed.silence_seconds):
        _answer_and_print(args, folder, config)


def _answer_and_print(args: argparse.Namespace, folder: epath.Path, config: ConfigDict) -> None:
    with cli.user_errors():
        opened = loading.open_model(folder)
        files, architecture, tokenizer = opened.files, opened.architecture, opened.tokenizer
        sampling = _sampling(args, files, tokenizer)
        image_config = loading.image_config(config, files)
        images = _read_images(args.image, image_config)
        if args.prompt is None and len(images) != 2:
            raise ValueError(
                f"--prompt is missing: the default question is about two images, not {len(images)}"
            )
        text = QUESTION if args.prompt is None else args.prompt
        prompts = build_prompt(architecture, tokenizer, images, text, image_config)
        max_new_tokens = _max_new_tokens(args, prompts, architecture)
        budget = _budget(args, tokenizer, max_new_tokens)
        mesh = _mesh(args.devices, architecture)
        model = nnx.merge(*loading.load_policy(config, folder, folder, mesh)).in_compute_dtype()

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an answer may have characters that the terminal has not
    alone = jax.process_count() == 1
    stream = TextStream(tokenizer) if alone and sys.stdout.isatty() and not args.json else None

    def show(tokens: list[int]) -> None:
        assert stream is not None
        print(stream.add(tokens), end="", flush=True)

    try:
        given = answer(
            model,
            prompts,
            mesh,
            sampling=sampling,
            max_new_tokens=max_new_tokens,
            seed=args.seed or 0,
            budget=budget,
            show=show if stream else None,
        )
    except KeyboardInterrupt:  # enough was read
        print()
        sys.exit(130)
    if jax.process_index() > 0:
        return
    text = tokenizer.decode(given.tokens)
    if args.json:
        line: dict[str, Any] = {"tokens": given.tokens, "logprobs": given.logprobs, "text": text}
        if budget is not None:
            line["thinking_closed_at"] = given.closed_at
        print(json.dumps(line))
    else:
        print(stream.end() if stream else text)
        if given.closed_at is not None:
            print(f"(thought closed after {given.closed_at} tokens; see --thinking_budget)", file=sys.stderr)
        if not given.finished:
            print(f"(cut after {max_new_tokens} tokens; see --max_new_tokens)", file=sys.stderr)


if __name__ == "__main__":
    main()
