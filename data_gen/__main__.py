"""Renders a `dig_pairs` dataset: `python -m data_gen --preset=tiny --num_pairs=4000 --seed=0 --out=DIR`."""

from __future__ import annotations

import contextlib
import errno
import signal
import sys
from types import FrameType

from data_gen.interpreter import NoBlender
from data_gen.options import parse_arguments, read_order
from data_gen.pipeline import Incomplete, run


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, 1 (pairs missing, disk full, stopped) or 2 (bad arguments, no Blender)."""
    args = parse_arguments(argv)
    # Batch systems end a job with SIGTERM: stop as tidily as after Ctrl-C. Only a main thread may say so.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, stop)
    try:
        order = read_order(args)
        if order.dry_run:
            from data_gen.estimate import print_estimate

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
            f"\nStopped. Finished pairs are in {order.staging_root}; the same command goes on.",
            file=sys.stderr,
        )
        return 1
    return 0


def stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
