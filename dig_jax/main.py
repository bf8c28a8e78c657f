"""Trains a model: `python -m dig_jax.main --config=configs/stage3.py --workdir=DIR [--config.a.b=c ...]`.

The config is a Python file with `get_config()`; any setting of configs/base.py can be changed on the command
line. The workdir receives config.json, checkpoints/, metrics.jsonl, evals.jsonl, samples/, report.html,
TensorBoard events, compile_cache/, where the next start finds its programs, and lengths/, where it finds how
long prompts are. Running the same command again continues the run. With --distributed the same command runs
on every host; docs/hosts.md says how the processes find each other.
Exit codes: 0 done, 1 failed, 2 a setting, a model or a dataset is missing or wrong, 75 saved and stopped by
SIGTERM or a notice of the cloud machine, 76 another process of the run was lost or failed, 130 saved and
stopped by Ctrl-C (twice stops at once).
"""

import sys

from absl import app, flags
from ml_collections import config_flags

from dig_jax import train
from dig_jax.machines import distributed
from dig_jax.machines.folder import to_path
from dig_jax.machines.stopping import Stopped
from dig_jax.run import cli


def main(argv: list[str]) -> None:
    """Entry point behind the flags."""
    del argv
    given = flags.FLAGS
    cli.log_to_terminal()
    place = (given.distributed, given.coordinator_address, given.num_processes, given.process_id)
    hosts = distributed.joined(*place, given.config.distributed.silence_seconds)
    try:
        # The outer errors are those of joining the others.
        with cli.user_errors(given.traceback), hosts, cli.user_errors(given.traceback):
            cli.take_user_files(given.config, given.task_file, given.reward_file)
            train.run(given.config, to_path(given.workdir))
    except Stopped as stopped:
        sys.exit(stopped.exit_code)


def run() -> None:
    """Defines the flags and trains."""
    config_flags.DEFINE_config_file("config", None, "Config file.", lock_config=True)
    flags.DEFINE_string(
        "workdir", None, "Folder of the run; created when missing, continued when it holds a run."
    )
    flags.DEFINE_string("task_file", "", cli.TASK_FILE_HELP)
    flags.DEFINE_string("reward_file", "", cli.REWARD_FILE_HELP)
    flags.DEFINE_bool("distributed", False, distributed.FLAGS["distributed"])
    flags.DEFINE_string("coordinator_address", None, distributed.FLAGS["coordinator_address"])
    flags.DEFINE_integer("num_processes", None, distributed.FLAGS["num_processes"], lower_bound=1)
    flags.DEFINE_integer("process_id", None, distributed.FLAGS["process_id"], lower_bound=0)
    flags.DEFINE_bool("traceback", False, "Show where a setting, model or dataset error was raised.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=cli.parse_flags)


if __name__ == "__main__":
    run()
