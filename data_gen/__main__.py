"""Renders a `dig_pairs` dataset: `python -m data_gen --preset=tiny --num_pairs=4000 --seed=0 --out=DIR`."""

from __future__ import annotations

import argparse
import errno
import sys

from data_gen.files.stopping import sigterm_as_interrupt
from data_gen.files.userfiles import require_disk
from data_gen.order.options import parse_arguments, read_order
from data_gen.order.pipeline import Incomplete, run
from data_gen.render.interpreter import NoBlender


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, 1 (pairs missing, disk full, stopped) or 2 (bad arguments, no Blender)."""
    args = parse_arguments(argv)
    with sigterm_as_interrupt():
        return run_command(args)


def run_command(args: argparse.Namespace) -> int:
    """Runs the order and tells what went wrong."""
    try:
        require_disk(
            args.out,
            "--out",
            "pairs are rendered to a disk of this machine: copy the folder to the bucket when it is done,"
            " or take `python -m data_gen.beam`",
        )
        order = read_order(args)
        if order.dry_run:
            from data_gen.order.estimate import print_estimate

            return print_estimate(order)
        run(order)
    except (ValueError, NoBlender) as error:
        print(f"data_gen: {error}", file=sys.stderr)
        return 2
    except Incomplete as error:
        print(f"\ndata_gen: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        advice = "free some of it" if error.errno == errno.ENOSPC else "mend that, or name another --out"
        print(
            f"\ndata_gen: {error}\nPlease {advice}. Finished pairs are kept, and the same command goes on.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            f"\nStopped. Finished pairs are in {args.out}.staging; the same command goes on.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
