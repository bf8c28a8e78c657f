"""The training command, in a process forked from one that has imported it: a refusal takes no seconds."""

import multiprocessing
import os
import pathlib
import sys

from dig_jax import main


def run_command(arguments: list[str], errors: pathlib.Path) -> int:
    """Runs `python -m dig_jax.main` with these arguments. Returns its exit code; stderr goes to a file."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_command, args=(arguments, errors))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _command(arguments: list[str], errors: pathlib.Path) -> None:
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    sys.argv = ["dig_jax.main", *arguments]
    main.run()
