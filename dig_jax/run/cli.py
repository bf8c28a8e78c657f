"""What the commands share: how they report a mistake of the user, and how they read a config."""

import argparse
import contextlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from absl import logging as absl_logging
from etils import epath
from ml_collections import ConfigDict

from configs import base
from dig_jax.machines import distributed
from dig_jax.run import model_folder


@contextlib.contextmanager
def user_errors(show_traceback: bool = False) -> Iterator[None]:
    """Ends the program with the message alone: code 2 for a wrong setting or file, 1 for a full disk."""
    try:
        yield
    except (ValueError, OSError) as error:
        if show_traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        wrong = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError)
        sys.exit(2 if isinstance(error, wrong) else 1)


TASK_FILE_HELP = "Python file that registers tasks of your own (config.task_file): docs/add_a_task.md"
REWARD_FILE_HELP = "Python file with a reward of your own (config.rewards.file): docs/add_a_reward.md"


def take_user_files(config: ConfigDict, task_file: str | None, reward_file: str | None) -> None:
    """Puts files of the user that flags name into the config, where there are any."""
    if task_file:
        config.task_file = task_file
    if reward_file:
        config.rewards.file = reward_file


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a command that runs in several processes, for `processes`."""
    for name, text in distributed.FLAGS.items():
        if name == "distributed":
            parser.add_argument(f"--{name}", action="store_true", help=text)
        else:
            parser.add_argument(f"--{name}", type=str if name == "coordinator_address" else int, help=text)


def add_sampling_flags(parser: argparse.ArgumentParser, temperature: str) -> None:
    """The flags of a command that draws answers; None where one is not given.

    Args:
        parser: of the command.
        temperature: help of --temperature, whose default is the command's own.
    """
    add = parser.add_argument
    add("--temperature", type=float, help=temperature)
    add("--top_p", type=float, help="1 is off")
    add("--top_k", type=int, help="0 is off")
    add(
        "--thinking_budget",
        type=int,
        metavar="TOKENS",
        help="close a thought that is still open after so many tokens and go on with the answer; 0 is off",
    )
    add("--seed", type=int, help="of the sampling noise")


@contextlib.contextmanager
def processes(args: argparse.Namespace, silence_seconds: float) -> Iterator[None]:
    """Joins the others of a run if `add_process_flags` says so: see `distributed.joined`."""
    place = (args.distributed, args.coordinator_address, args.num_processes, args.process_id)
    with contextlib.ExitStack() as stack:
        with user_errors():
            stack.enter_context(distributed.joined(*place, silence_seconds))
        yield


def expand_home(argv: Sequence[str], flag: str) -> list[str]:
    """The arguments with the `~` of --FLAG=~/file expanded, for flags that a library reads."""
    starts = (f"--{flag}=~", f"-{flag}=~")
    return [
        "=".join((name, os.path.expanduser(value))) if argument.startswith(starts) else argument
        for argument in argv
        for name, _, value in [argument.partition("=")]
    ]


def log_to_terminal() -> None:
    """Shows this package's progress lines, each once; those of the libraries stay at warnings."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("dig_jax")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def config_of(model: epath.Path, config_file: str | None = None) -> ConfigDict:
    """The settings to run a model with: a config file, else those of its run, else configs/base.py.

    A workdir has the settings of its run, and a folder that was exported from one those that it is asked by.
    Text after a colon is the argument of the file's `get_config`, as in configs/stage1_long.py:8k.
    """
    if config_file:
        file = os.path.expanduser(config_file)
        argument: list[str] = []
        if ".py:" in file and not os.path.exists(file):
            file, _, text = file.rpartition(":")
            argument = [text]
        spec = importlib.util.spec_from_file_location("dig_jax_config", file)
        if spec is None or spec.loader is None or not os.path.isfile(file):
            raise FileNotFoundError(f"--config={config_file}: no such Python file")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except SyntaxError as error:  # also a file that is not UTF-8
            raise ValueError(f"--config={config_file}: {error}") from error
        if not hasattr(module, "get_config"):
            raise ValueError(f"--config={config_file}: it defines no get_config()")
        return module.get_config(*argument)
    return with_base(model_folder.run_settings(model), model)


def with_base(settings: dict[str, Any] | None, model: epath.Path) -> ConfigDict:
    """Settings of a model's run, with those of configs/base.py that they do not have.

    Raises:
        ValueError: one is of another type than in configs/base.py.
    """
    config = base.get_config()
    try:
        config.update(settings or {})
    except (TypeError, ValueError) as error:
        raise ValueError(f"the settings of the run of {model}: {' '.join(map(str, error.args))}") from error
    return config


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; ends the program with code 2 where a flag, setting or config file is wrong."""
    try:
        rest = flags.FLAGS(expand_home(argv, "config"))[1:]
        flags.FLAGS.config.keys()  # a config file that could not be loaded complains on use only
    except (flags.Error, AttributeError, KeyError, OSError, SyntaxError, ValueError) as error:
        unknown = isinstance(error, (KeyError, AttributeError))
        what = "no such setting, or none that this stage changes in the config file: " if unknown else ""
        print(f"error: {what}{error}", file=sys.stderr)
        sys.exit(2)
    if rest:
        print(
            f"error: unexpected arguments: {' '.join(rest)}; settings look like --config.seed=1",
            file=sys.stderr,
        )
        sys.exit(2)
    return argv
