"""The page of one run, or of several side by side: `python -m dig_jax.report RUN [RUN ...] [--out=FILE]`.

A run writes its own page, `report.html` in its workdir, at every evaluation; of one RUN that is written anew,
from the files of the workdir alone. Of several it is one page with their curves in the same charts, what they
reached with intervals, and the settings in which they differ:

    python -m dig_jax.report runs/quickstart
    python -m dig_jax.report runs/kl0 runs/kl1 --out=comparison.html
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dig_jax.machines.folder import to_path, writable_file
from dig_jax.report.comparison import write_comparison
from dig_jax.report.page import write_report
from dig_jax.report.writer import METRICS_FILE
from dig_jax.run import cli


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="dig_jax.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="workdir of a run, while it trains or after")
    parser.add_argument("--out", help="file to write (default: RUN/report.html of one, else comparison.html)")
    args = parser.parse_args(argv)
    with cli.user_errors():
        runs = [to_path(name) for name in args.runs]
        if missing := [run for run in runs if not (run / METRICS_FILE).exists()]:
            raise ValueError(f"{missing[0]} is no workdir of a run: it has no {METRICS_FILE}")
        default = runs[0] / "report.html" if len(runs) == 1 else "comparison.html"
        out = writable_file(args.out or default, "--out")
        print(write_report(runs[0], out) if len(runs) == 1 else write_comparison(runs, out))


if __name__ == "__main__":
    main()
