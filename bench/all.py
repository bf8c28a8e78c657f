"""The set of benchmarks, one after another, and one table with the ratio against each peer.

    make bench
    python -m bench.all --trl-python=.venv-trl/bin/python [--only=reward] [--threads=2] [--json=FILE]

Each runs in a process of its own and prints what it prints alone; the table comes at the end. One that fails
does not keep the others from running, and is named after the table; the exit code is then 1.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import results
from bench.results import Result
from data_gen.files.userfiles import home_expanded

# What each is given in the set, where that is not its default.
SET: dict[str, tuple[str, ...]] = {
    "grpo_step": (),
    "inference": ("--size=small",),
    "reward": (),
    "rollout": (),
    "update_lengths": (),
    "growth": ("--points=3",),
    "accelerator": (),
}


def main(argv: list[str] | None = None) -> None:
    """The command."""
    args = _parse(sys.argv[1:] if argv is None else argv)
    found: list[Result] = []
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only or SET:
            file = Path(folder) / f"{name}.json"
            command = [sys.executable, "-m", f"bench.{name}", *SET[name]]
            command += [f"--threads={args.threads}", f"--json={file}"]
            if name == "grpo_step":
                command.append(f"--trl-python={args.trl_python}")
            if args.profile:
                command.append(f"--profile={args.profile}/{name}")
            print(f"\n== {name}: {' '.join(command[1:])}", flush=True)
            if subprocess.run(command).returncode:
                failed.append(name)
            found += results.load(file)
    print(f"\n{results.table(found)}")
    results.save(found, args.json)
    if failed:
        sys.exit(f"error: {', '.join(failed)} failed; what they said is above")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = results.make_parser("all", __doc__)
    parser.add_argument(
        "--only", action="append", choices=tuple(SET), help="repeat for several (default: all)"
    )
    parser.add_argument(
        "--trl-python", type=home_expanded, default="", help="interpreter of the environment that has TRL"
    )
    args = parser.parse_args(argv)
    if "grpo_step" in (args.only or SET) and not args.trl_python:
        parser.error("grpo_step needs --trl-python; `make bench` makes .venv-trl and passes it")
    return args


if __name__ == "__main__":
    main()
