"""In which order the devices of a run fill its mesh.

Two wishes pull: neighbours on a mesh axis should be neighbours in the torus, and the devices of a tensor
group (one part of a batch) should be on as few hosts as possible, because each of these has to load the part.
JAX's own order serves the first. Where it lays tensor groups across more hosts than need be, a walk over the
hosts, and over the chips of each, serves both: it goes from neighbour to neighbour.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils

Point = tuple[int, ...]  # where a chip is in its slice
Thing = TypeVar("Thing", int, jax.Device)


def num_slices(devices: Sequence[jax.Device]) -> int:
    """How many TPU slices the devices are of; 1 for other devices."""
    if devices[0].platform != "tpu":
        return 1
    return len({_slice(device) for device in devices})


def arrange(devices: Sequence[jax.Device], shape: Sequence[int]) -> np.ndarray:
    """The devices as an array of `shape`, (data, fsdp, tensor).

    Devices that are no TPUs keep their order, in which those of a process lie together. `data` is the axis
    that crosses the slow network between TPU slices; their number must divide it.
    """
    if devices[0].platform != "tpu":
        return np.array(devices).reshape(shape)
    slices: dict[int, list[jax.Device]] = {}
    for device in devices:
        slices.setdefault(_slice(device), []).append(device)
    data, fsdp, tensor = shape
    within = (data // len(slices), fsdp, tensor)
    return np.concatenate([_arrange_slice(slices[number], within) for number in sorted(slices)])


def _slice(device: jax.Device) -> int:
    return getattr(device, "slice_index", 0)


def _arrange_slice(devices: list[jax.Device], shape: tuple[int, int, int]) -> np.ndarray:
    order = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    by_host = _host_by_host(devices, shape)
    return order if by_host is None or _spread(order) <= _spread(by_host) else by_host


def _spread(order: np.ndarray) -> int:
    """Hosts of each tensor group, summed over the groups."""
    groups = order.reshape(-1, order.shape[-1])
    return sum(len({device.process_index for device in group}) for group in groups)


def _host_by_host(devices: list[jax.Device], shape: tuple[int, int, int]) -> np.ndarray | None:
    """An order in which a host's chips fill a box of the mesh, as long on the last axes as can be.

    Returns:
        None where no such box has as many devices as each host.
    """
    hosts: dict[int, list[jax.Device]] = {}
    for device in devices:
        hosts.setdefault(device.process_index, []).append(device)
    left = len(devices) // len(hosts)
    if any(len(own) != left for own in hosts.values()):
        return None
    box = [0, 0, 0]
    for axis in (2, 1, 0):
        box[axis] = math.gcd(shape[axis], left)
        left //= box[axis]
    if left > 1:
        return None
    corners = {process: _corner(own) for process, own in hosts.items()}
    chips = [_walk(hosts[process], _place) for process in _walk(list(hosts), lambda host: corners[host])]
    outer = [size // inner for size, inner in zip(shape, box, strict=True)]
    order = np.array(chips).reshape(*outer, *box)
    return order.transpose(0, 3, 1, 4, 2, 5).reshape(shape)


def _place(device: jax.Device) -> Point:
    """Of a chip: core, x, y, z; old TPUs have two cores on a chip."""
    return (device.core_on_chip, *device.coords)


def _corner(devices: list[jax.Device]) -> Point:
    """Of a host: the least of its chips' coordinates."""
    return tuple(min(axis) for axis in zip(*map(_place, devices), strict=True))


def _walk(things: list[Thing], place_of: Callable[[Thing], Point]) -> list[Thing]:
    """The things in an order in which successive ones are neighbours: to and fro along the first axis."""
    places = [place_of(thing) for thing in things]
    axes = [sorted(set(axis)) for axis in zip(*places, strict=True)]
    key_of: dict[Thing, list[int]] = {}
    for thing, place in zip(things, places, strict=True):
        line = 0
        key: list[int] = []
        for values, value in zip(reversed(axes), reversed(place), strict=True):
            step = values.index(value)
            step = len(values) - 1 - step if line % 2 else step
            key.append(step)
            line = line * len(values) + step
        key_of[thing] = key
    return sorted(things, key=key_of.__getitem__)
