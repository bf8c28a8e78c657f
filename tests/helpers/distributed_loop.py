"""Processes of a run that do nothing but wait for each other, for test_distributed.py."""

import sys
import time

from dig_jax.machines import distributed

port, count, index, silence, script = sys.argv[1:]


def main() -> None:
    import numpy as np

    from dig_jax.machines import gathering

    for step in range(1000):
        gathering.gather_rows(np.array([step]))
        print(step, flush=True)
        time.sleep(0.02)
        if step == 20:
            exec(script)  # what this process does in the middle of the run


with distributed.joined(True, f"127.0.0.1:{port}", int(count), int(index), float(silence)):
    main()
