"""Answers a prompt about images: `python -m dig_jax.generate --model=DIR --image=A --image=B --prompt=TEXT`.

The model is a Hugging Face folder or a training workdir. Any number of images are shown in the order given,
before the text; none is fine too. Photos are shown upright and shrunk to what the model looks at; to what,
and what a transparent, 16-bit or CMYK image loses on its way to RGB, is told on stderr. On a terminal the
answer appears while it is decoded. `--json` prints one line `{"tokens": [...], "logprobs": [...], "text":
"..."}` with the log-probs of the untempered model, the end token included.

A workdir's model, or one that was exported from it, is asked as it was trained, where no flag says otherwise:
the run's own question, length of answers, sampling and limits of image sizes; which these are is told on
stderr. Another Hugging Face folder is asked greedily: the tokens of `transformers.generate(do_sample=False)`,
except that image, padding and other special tokens are never drawn. `--sampling=model` samples as the
model's makers recommend. A Thinking model's prompt ends in an open `<think>`, so its answer has only the
closing `</think>`; greedily, which its makers advise against, it can think without end.
`--thinking_budget=N` closes a thought that is still open after N tokens; the JSON line then has
`"thinking_closed_at"`: N, or null where it was closed before.

Prompts, images and answers are padded to a few sizes: with JAX_COMPILATION_CACHE_DIR set, a second run of
about the same size compiles nothing.
"""

import argparse
import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from dig_jax.data.images import ImageConfig
from dig_jax.data.shown import Shown, show
from dig_jax.models.hf.published_sampling import model_sampling
from dig_jax.rollout.asking import DEFAULT_NEW_TOKENS, Reply, Request
from dig_jax.run import cli, model_folder
from dig_jax.session import Session, Stream

SAMPLING = ("temperature", "top_p", "top_k")
GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0}
FLAGS = (*SAMPLING, "max_new_tokens", "thinking_budget", "devices")  # a session names them without --


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ends the program with code 2 where one is wrong."""
    parser = argparse.ArgumentParser(
        prog="dig_jax.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, help="Hugging Face folder or workdir")
    add("--image", action="append", default=[], help="image file; repeat for several, in order")
    add("--prompt", help="the text after the images (default, for two: the run's question, else DiG's)")
    add("--max_new_tokens", type=int, help=f"at most so many (default: the run's, else {DEFAULT_NEW_TOKENS})")
    add(
        "--sampling",
        choices=("greedy", "model"),
        help="greedy is the default of models that others published. model: as generation_config.json says"
        " where it samples, else as published for Instruct (temperature 0.7, top_p 0.8, top_k 20) or Thinking"
        " models (0.6, 0.95, 20); no presence penalty",
    )
    cli.add_sampling_flags(parser, temperature="0 is greedy (default: as --sampling or the run says)")
    add(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="compute (default: the run's, for a model that others published that of configs/base.py)",
    )
    add(
        "--devices",
        type=int,
        help="devices to spread a large model over (default: 1; in several processes all of them)",
    )
    add("--stop", action="append", default=[], metavar="TEXT", help="end the answer before this; may repeat")
    add("--json", action="store_true", help="print tokens, log-probs and text as one JSON line")
    cli.add_process_flags(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    args = parse_arguments(argv)
    with cli.user_errors():
        folder = model_folder.find_model(args.model)
        silence_seconds = cli.config_of(folder).distributed.silence_seconds
    with cli.processes(args, silence_seconds):
        _answer_and_print(args, folder)


def _answer_and_print(args: argparse.Namespace, folder: epath.Path) -> None:
    speaks = jax.process_index() == 0
    with cli.user_errors():
        try:
            session = Session(folder, dtype=args.dtype, devices=args.devices)
            request = _request(args, session, speaks)
        except ValueError as error:  # "devices=9: ...": here that is a flag
            raise ValueError(f"{'--' * str(error).startswith(FLAGS)}{error}") from error
        session.load()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an answer may have characters that the terminal has not
    streamed = jax.process_count() == 1 and sys.stdout.isatty() and not args.json
    stream = session.run(request, streamed)
    try:
        for piece in stream:
            if speaks and not args.json:
                print(piece, end="", flush=True)
    except KeyboardInterrupt:  # enough was read
        print()
        sys.exit(130)
    if speaks:
        _print_end(args, stream)


def _request(args: argparse.Namespace, session: Session, speaks: bool) -> Request:
    """The question of the flags, read; what is to be known of it is told on stderr."""
    chosen: dict[str, Any] = {}
    if args.sampling:
        files, thinks = session.opened.files, session.opened.tokenizer.opens_thinking
        chosen = GREEDY if args.sampling == "greedy" else model_sampling(files, thinks)
    names = (*SAMPLING, "max_new_tokens", "thinking_budget", "seed")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    notes = _notes(args, session, chosen | given)
    shown = _read_images(args.image, session.desk.image_config)
    if args.prompt is None and len(shown) != 2:
        raise ValueError(f"--prompt is missing: the default question is about two images, not {len(shown)}")
    for note in [*notes, *(note for image in shown for note in image.notes)] if speaks else ():
        print(f"note: {note}", file=sys.stderr)
    return session.request(shown, args.prompt, **chosen | given, stop=tuple(args.stop))


def _notes(args: argparse.Namespace, session: Session, chosen: dict[str, Any]) -> list[str]:
    """What holds without a flag that says so."""
    if session.of_run:
        own = [] if args.prompt else ["the question"]
        defaults = dataclasses.asdict(session.defaults) | {"max_new_tokens": session.desk.longest}
        names = ("max_new_tokens", *SAMPLING)
        own += [f"{name} {defaults[name]:g}" for name in names if name not in chosen]
        own.append(f"images of at most {session.desk.image_config.max_pixels} pixels")
        return [f"as in the run of this model, where no flag says otherwise: {', '.join(own)}"]
    if session.opened.tokenizer.opens_thinking and "temperature" not in chosen:
        return [
            "greedy decoding, the default, can make a Thinking model think without end; its makers ask for"
            " sampling: --sampling=model (--sampling=greedy drops this note)"
        ]
    return []


def _read_images(paths: Sequence[str], config: ImageConfig) -> list[Shown]:
    """The images, shrunk as the model will see them; an error says which --image it is about."""
    images = []
    for number, path in enumerate(paths, start=1):
        try:
            images.append(show(path, config))
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"--image={path} (number {number} of {len(paths)}): {error}") from error
    return images


def _print_end(args: argparse.Namespace, stream: Stream) -> None:
    """The JSON line, or what is to be said of an answer whose text was printed."""
    reply = stream.reply
    assert isinstance(reply, Reply)
    if args.json:
        line: dict[str, Any] = {"tokens": reply.tokens, "logprobs": reply.logprobs, "text": reply.text}
        if args.thinking_budget:
            line["thinking_closed_at"] = reply.closed_at
        print(json.dumps(line))
        return
    print()
    if reply.closed_at is not None:
        print(f"(thought closed after {reply.closed_at} tokens; see --thinking_budget)", file=sys.stderr)
    if not reply.finished:
        print(f"(cut after {len(reply.tokens)} tokens; see --max_new_tokens)", file=sys.stderr)


if __name__ == "__main__":
    main()
