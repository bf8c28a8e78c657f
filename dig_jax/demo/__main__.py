"""A page to try a model in: `python -m dig_jax.demo --model=DIR`, then http://127.0.0.1:7860.

    python -m dig_jax.demo --model=runs/quickstart                      # while it trains, too
    python -m dig_jax.demo --model=models/Qwen3-VL-4B-Instruct --data=data/stage1 \\
        --puzzles=puzzles/pairs.jsonl

Two pictures in, by upload, paste or from samples; the answer comes as it is written, and its boxes show up on
both pictures, side by side, blinking, or one behind a slider, with the true ones and the reward where the
truth is known. Boxes can be corrected, and the pair saved as a record to train on. A run's model is asked as
it was trained where nothing else is chosen, and its newest checkpoint answers as soon as it is there.

It listens at the loopback address alone, unless --host says otherwise, and asks for no key. It needs
`pip install 'dig_jax[demo]'`, and no network while it runs. docs/demo.md has the rest.
"""

import argparse
import contextlib
import importlib.util
import logging
import os
import pathlib
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence

from dig_jax.demo.records import Records
from dig_jax.demo.samples import differences_task, open_samples
from dig_jax.run import cli, model_folder
from dig_jax.run.newest import check_followed
from dig_jax.session import Session


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ends the program with code 2 where one is wrong."""
    parser = argparse.ArgumentParser(
        prog="dig_jax.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, help="Hugging Face folder or workdir")
    add("--data", help="data set of pairs to choose samples from (default: what the run is evaluated on)")
    add("--split", default="test", help="of it (default: %(default)s)")
    add("--puzzles", type=pathlib.Path, help="pairs of your own to choose from, as in docs/own_pairs.md")
    add(
        "--records",
        type=pathlib.Path,
        default=pathlib.Path("data/demo_records"),
        help="folder for pairs that are saved as records (default: %(default)s)",
    )
    add("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    add("--port", type=int, default=7860, help="0 takes a free one (default: %(default)s)")
    add("--rows", type=int, default=4, help="answers decoded at a time (default: %(default)s)")
    add("--max_prompt_tokens", type=int, help="of the longest prompt (default: as of serve)")
    add("--max_answer_tokens", type=int, help="of the longest answer (default: the run's, at least 2048)")
    add(
        "--newest_seconds",
        type=float,
        help="look for a newer checkpoint of the workdir so often; 0: at the start alone (default: 10)",
    )
    add("--dtype", choices=("bfloat16", "float32"), help="of computation (default: as of generate)")
    add("--devices", type=int, help="to spread a large model over (default: 1)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    args = parse_arguments(argv)
    with cli.user_errors():
        if importlib.util.find_spec("gradio") is None:
            raise ValueError("gradio: not installed; pip install 'dig_jax[demo]'")
        folder = model_folder.find_model(args.model)
        often = 10.0 if model_folder.is_workdir(folder) else 0.0
        seconds = often if args.newest_seconds is None else args.newest_seconds
        check_followed(folder, seconds)
        session = Session(folder, dtype=args.dtype, devices=args.devices)
        task = differences_task(session)
        own = session.config.data.eval if session.of_run else ""
        samples, notes = open_samples(task, own, args.data, args.split, args.puzzles)
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        batcher = session.warm_batcher(
            newest_seconds=seconds,
            rows=args.rows,
            max_prompt_tokens=args.max_prompt_tokens,
            max_answer_tokens=args.max_answer_tokens,
        )
    cli.log_to_terminal()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="dig_jax_demo_") as uploads, cli.user_errors():
        # Both are looked at when gradio is imported.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads}
        from dig_jax.demo.page import House, launch, make_page  # it takes seconds: not for --help

        name = os.path.basename(os.path.normpath(str(folder)))
        house = House(session, batcher, task, samples, Records(args.records), name, tuple(notes))
        url = launch(make_page(house), args.host, args.port)
        logging.getLogger("dig_jax").info("%s is at %s (Ctrl-C stops it)", name, url)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    batcher.close(0)


if __name__ == "__main__":
    main()
