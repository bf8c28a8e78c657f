"""Answers standard clients: `python -m dig_jax.serve --model=DIR`, then http://127.0.0.1:8000/v1.

    from openai import OpenAI
    client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="-")

The interface is OpenAI's: chat completions with several images, streamed or at once, and a list of the one
model. Images are data URLs; `file://` below --image_root and public addresses (--remote_images) where that is
allowed. Requests join those that are being answered as soon as one of --rows is free; what an answer is does
not depend on what is answered beside it. Where a request says nothing, the model is asked as by
`dig_jax.generate`: a run's as it was trained, a published one greedily.

It listens at the loopback address alone, unless --host says otherwise. SIGTERM or Ctrl-C stop it in good
order: no new requests, those under way are answered. It needs `pip install 'dig_jax[serve]'`. docs/serve.md
has the rest.
"""

import argparse
import importlib.util
import logging
import os
import pathlib
import signal
import sys
from collections.abc import Sequence
from typing import Any

from dig_jax.rollout.batcher import Batcher
from dig_jax.run import cli, model_folder
from dig_jax.run.newest import check_followed
from dig_jax.serve.settings import LOOPBACK, ServeSettings
from dig_jax.session import Session

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")
KEY_VARIABLE = "DIG_JAX_API_KEY"


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ends the program with code 2 where one is wrong."""
    parser = argparse.ArgumentParser(
        prog="dig_jax.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, of = parser.add_argument, ServeSettings("")
    add("--model", required=True, help="Hugging Face folder or workdir")
    add("--name", help="what clients call the model (default: the name of its folder)")
    add("--host", default=of.host, help="address to listen at (default: %(default)s)")
    add("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    add("--rows", type=int, default=8, help="answers decoded at a time (default: %(default)s)")
    add(
        "--max_prompt_tokens",
        type=int,
        help="of the longest prompt (default: four images and some text, at most 8192)",
    )
    add("--max_answer_tokens", type=int, help="of the longest answer (default: the run's, at least 2048)")
    add("--waiting", type=int, default=of.waiting, help="requests that may wait (default: %(default)s)")
    add("--timeout_seconds", type=float, default=of.timeout_seconds, help="of an answer (%(default)g)")
    add("--body_seconds", type=float, default=of.body_seconds, help="for a request to come in (%(default)g)")
    add("--max_body_mb", type=float, default=of.max_body_mb, help="of a request (default: %(default)g)")
    add("--max_held_mb", type=float, default=of.max_held_mb, help="of all together (default: %(default)g)")
    add("--max_image_pixels", type=int, default=of.max_image_pixels, help="default: %(default)s")
    add("--max_images", type=int, default=of.max_images, help="of a request (default: %(default)s)")
    add("--max_choices", type=int, default=of.max_choices, help="the largest n (default: %(default)s)")
    add("--image_root", type=pathlib.Path, help="folder below which file:// images are read")
    add("--remote_images", action="store_true", help="fetch images from public http(s) addresses")
    add(
        "--api_key_file",
        type=pathlib.Path,
        help=f"file with a key that clients must send (default: the variable {KEY_VARIABLE})",
    )
    add("--grace_seconds", type=float, default=60, help="for answers under way when stopped (%(default)g)")
    add(
        "--newest_seconds",
        type=float,
        default=0,
        help="look for a newer checkpoint of the workdir so often (default: 0, at the start alone)",
    )
    add("--dtype", choices=("bfloat16", "float32"), help="of computation (default: as of generate)")
    add("--devices", type=int, help="to spread a large model over (default: 1)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    args = parse_arguments(argv)
    with cli.user_errors():
        if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
            raise ValueError(f"{', '.join(missing)}: not installed; pip install 'dig_jax[serve]'")
        folder = model_folder.find_model(args.model)
        check_followed(folder, args.newest_seconds)
        settings = _settings(args, os.path.basename(os.path.normpath(str(folder))))
        session = Session(folder, dtype=args.dtype, devices=args.devices).load()
        batcher = session.warm_batcher(
            newest_seconds=args.newest_seconds,
            rows=args.rows,
            max_prompt_tokens=args.max_prompt_tokens,
            max_answer_tokens=args.max_answer_tokens,
            waiting=args.waiting,
        )
    cli.log_to_terminal()
    _serve(args, session, batcher, settings)


def _settings(args: argparse.Namespace, name: str) -> ServeSettings:
    key = os.environ.get(KEY_VARIABLE, "")
    if args.api_key_file is not None:
        key = args.api_key_file.read_text().strip()
        if not key:
            raise ValueError(f"--api_key_file={args.api_key_file}: the file is empty")
    if not key and args.host not in LOOPBACK:
        print(
            f"note: --host={args.host} can be reached from other machines, and no key is asked for"
            " (--api_key_file)",
            file=sys.stderr,
        )
    fields = ServeSettings.__dataclass_fields__
    given: dict[str, Any] = {key: value for key, value in vars(args).items() if key in fields}
    return ServeSettings(**given | {"name": args.name or name, "api_key": key})


def _serve(args: argparse.Namespace, session: Session, batcher: Batcher, settings: ServeSettings) -> None:
    import uvicorn  # after the flags were found right: they are explained without it

    from dig_jax.serve.app import make_app

    logger = logging.getLogger("dig_jax")

    class Server(uvicorn.Server):
        """Says where it is, as soon as it can be asked."""

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                host, port = self.servers[0].sockets[0].getsockname()[:2]
                host = f"[{host}]" if ":" in host else host
                logger.info("%s answers at http://%s:%d/v1", settings.name, host, port)

    config = uvicorn.Config(
        make_app(session, batcher, settings),
        host=args.host,
        port=args.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(args.grace_seconds)),
    )
    server = Server(config)
    # uvicorn stops in good order, and then raises the signal again for the handler that was there before.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    server.run()
    if not server.started:
        batcher.close(0)
        sys.exit(1)


if __name__ == "__main__":
    main()
