"""Reruns the learning study: `python -m study --out=runs/study [--arms=... --seeds=... --jobs=N]`.

Renders the pairs where they are absent, makes a random model per seed, warms it up, trains every arm, scores
the ends, and writes results.json, results.csv, tables.md and PNG plots to OUT. All of it is resumed: the same
command goes on after a stop, and does only what is missing when study/arms.py has new arms. `--quick` does
the same with two steps per stage, in minutes: it shows that everything works, and nothing else.
"""

import argparse
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from data_gen.files.userfiles import check_writable, user_path
from study import pictures, tables
from study.arms import ARMS
from study.jobs import Place, plan
from study.measure import Record, measure
from study.run import Failed, Runner


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 done, 1 a job failed, 2 wrong arguments, 130 stopped."""
    parser = argparse.ArgumentParser(prog="python -m study", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=user_path, required=True, help="folder of the study")
    parser.add_argument(
        "--data", type=user_path, default=Path("data/scratch"), help="rendered there where absent"
    )
    parser.add_argument("--arms", default=",".join(ARMS), help="default: %(default)s")
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count(),
        help="runs side by side (default: one per core; 1 on a GPU)",
    )
    parser.add_argument("--quick", action="store_true", help="two steps per stage, to see that it works")
    parser.add_argument("--only-report", action="store_true", help="of the runs that are done; run nothing")
    args = parser.parse_args(argv)
    arms, seeds = args.arms.split(","), [int(seed) for seed in args.seeds.split(",")]
    if unknown := [arm for arm in arms if arm not in ARMS]:
        parser.error(f"no arm {unknown[0]!r}; study/arms.py has {', '.join(ARMS)}")
    if args.jobs < 1:
        parser.error(f"--jobs={args.jobs}: at least 1")
    if importlib.util.find_spec("matplotlib") is None:
        parser.error("matplotlib is not installed: pip install 'dig_jax[study]'")
    place = Place(args.out.resolve(), args.data.resolve())
    try:
        check_writable(place.out / "results.json", "--out")  # before the hours that it takes
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not args.only_report:
            Runner(place.out, args.jobs).run(plan(place, arms, seeds, args.quick))
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    write(measure(place, arms, seeds, args.quick), place.out)
    print(f"answers of {arms[0]}, seed {seeds[0]}: {pictures.draw(place, arms[0], seeds[0])}")
    return 0


def write(records: Sequence[Record], out: Path) -> None:
    """Writes tables and plots, and says where."""
    from study import plots  # matplotlib: an extra, which `main` has looked for

    (out / "results.json").write_text(json.dumps(list(records), indent=1) + "\n")
    (out / "results.csv").write_text(tables.as_csv(records))
    (out / "tables.md").write_text(tables.markdown(records))
    drawn = plots.draw(records, out)
    print(f"tables: {out / 'tables.md'}   figures: {out / 'results.json'}, results.csv")
    print(f"plots: {', '.join(str(path) for path in drawn)}")


if __name__ == "__main__":
    sys.exit(main())
