"""The groups of devices that take part in a collective, and how much of it crosses between hosts."""

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np


def groups(text: str) -> list[list[int]]:
    """The groups of a collective by the numbers of their devices; none where its text names no groups.

    Args:
        text: of the operation. Groups are written out (`{{0,1},{2,3}}`), counted (`[2,4]<=[4,2]T(1,0)`: the
            numbers from 0 on as an array, its axes permuted, cut into groups) or given by axes of a mesh
            (`mesh['a'=2,'b'=4] {'b'}`).
    """
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", text):
        sizes = {axis: int(size) for axis, size in re.findall(r"'([^']+)'=(\d+)", named[1])}
        axes = [list(sizes).index(axis) for axis in re.findall(r"'([^']+)'", named[2]) if axis in sizes]
        numbers = np.moveaxis(_count(sizes.values()), axes, range(-len(axes), 0))
        return numbers.reshape(-1, math.prod(numbers.shape[numbers.ndim - len(axes) :])).tolist()
    if counted := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        numbers = _count(_integers(counted[3]))
        if counted[4]:
            numbers = numbers.transpose(_integers(counted[4]))
        return numbers.reshape(int(counted[1]), int(counted[2])).tolist()
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}", text)
    return [_integers(group) for group in re.findall(r"\{([\d,]+)\}", listed[1])] if listed else []


def group_size(text: str) -> int:
    """Devices of one group."""
    return len(next(iter(groups(text)), [0]))


def share_across(text: str, hosts: Sequence[int]) -> float:
    """Share of what the devices of a collective send that leaves their host.

    On a ring through a group in the order of its hosts, one device of each host sends to the next host and
    the others to their neighbours; several rings let every device of the host take that part in turn. So for
    a group of 16 devices on 2 hosts it is 2/16, and 1 where all are on different hosts.

    Args:
        text: of the operation.
        hosts: the host of each device by its number; empty where there is but one.
    """
    if not hosts:
        return 0.0
    shares = [
        len(found) / len(group) for group in groups(text) if len(found := {hosts[i] for i in group}) > 1
    ]
    return sum(shares) / max(1, len(groups(text)))


def _count(sizes: Iterable[int]) -> np.ndarray:
    shape = tuple(sizes)
    return np.arange(math.prod(shape)).reshape(shape)


def _integers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
