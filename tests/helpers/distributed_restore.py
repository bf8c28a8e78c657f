"""Two processes whose checkpoints are damaged where one of them reads, for test_checkpoint.py; prints JSON.

python tests/helpers/distributed_restore.py WORKDIR PORT INDEX
"""

import json
import os
import pathlib
import sys
from typing import Any

from dig_jax.machines import distributed

workdir, port, index = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])


def main() -> None:
    import flax.struct
    import jax
    import numpy as np
    from etils import epath
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from dig_jax.machines import gathering
    from dig_jax.run.checkpoint import Checkpoints, Damaged

    @flax.struct.dataclass
    class State:
        params: Any
        step: Any

    mesh = Mesh(np.array(jax.devices()), ("fsdp",))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("fsdp",), ()))

    def state(step: int) -> State:
        rows = np.arange(8 * 300, dtype=np.float32).reshape(8, 300) * step
        place = jax.make_array_from_callback
        kernel = place(rows.shape, split, lambda part: rows[part])
        return State({"kernel": kernel}, place((), whole, lambda _: np.float32(step)))

    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(1))

    def cut(step: int) -> None:
        """What the second process wrote, and alone reads again."""
        files = [
            path
            for path in (workdir / f"checkpoints/{step}/params/ocdbt.process_1/d").iterdir()
            if index == 0
        ]
        for path in files:
            os.truncate(path, path.stat().st_size // 2)
        gathering.gather_rows(np.zeros(1))

    def restored() -> Any:
        checkpoints = Checkpoints(epath.Path(workdir), 5)
        try:
            found = checkpoints.restore_newest(like)
            rows = found[0].params["kernel"].addressable_data(0)
            return [found[1]["step"], float(rows[0, 1]), checkpoints.steps]
        except Damaged as error:
            return str(error)
        finally:
            checkpoints.close()

    def saved(*steps: int) -> None:
        checkpoints = Checkpoints(epath.Path(workdir), 5)
        for step in steps:
            checkpoints.save(step, state(step), {"step": step})
        checkpoints.close()

    saved(1, 2)
    cut(2)
    said: dict[str, Any] = {"one cut": restored()}
    saved(3)  # the same steps are known to both
    said["then"] = restored()
    cut(1)
    cut(3)
    said["all cut"] = restored()
    checkpoints = Checkpoints(epath.Path(workdir), read_only=True)
    try:
        checkpoints.restore_params(3, like.params)
    except Damaged as error:
        said["parameters"] = str(error)
    checkpoints.close()
    print(json.dumps(said))


with distributed.joined(True, f"127.0.0.1:{port}", 2, index, 60.0):
    main()
