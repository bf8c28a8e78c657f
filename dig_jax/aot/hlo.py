"""Reads a compiled program: what moves between chips, and what moves between a chip and its memory.

The text of a compiled program (`compiled.as_text()`) lists its computations. Starting at the entry, loops are
followed with their trip count: a loop of JAX (`scan`, `map`) or of the partitioner (a product overlapped with
a gather) counts up to a constant in its condition. A loop whose end depends on data, such as decoding, has no
such constant; its figures are those of one turn. Rounds of split experts after the first do not count, as
with even use there are none. Of the branches of a conditional the costliest counts.

Traffic with the memory (HBM) is what the operations of the scheduled program read and write, operands and
results that the compiler placed in on-chip memory (memory space `S(n)`) left out. An operand that is only
sliced counts with its slices, and an update in place with the part that is updated. Traffic inside
hand-written kernels is not visible: their operands and results count once, and of a stack of layers that one
is read of, that one. What decoding's kernel reads depends on data: it counts with what it states itself.

XLA:GPU cuts fusions and collectives into `-start` and `-done`: the start counts, with what it calls.

A collective may be spread over operations that compute meanwhile: one fusion begins it, others carry it on,
each with the whole collective in its text. It counts where it begins.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

from dig_jax.aot.groups import group_size, share_across
from dig_jax.models.nn import ragged_decode
from dig_jax.models.nn.expert_parallel import FURTHER
from dig_jax.models.nn.megablox import ONE_LAYER_OF

COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")

_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "token": 0, "opaque": 0}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\](?:\{[^{}]*?(S\(\d+\))?\})?")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|async_execution_thread)=%([\w.\-]+)")
_BRANCHES = re.compile(
    r"branch_computations=\{([^}]*)\}|true_computation=%([\w.\-]+), false_computation=%([\w.\-]+)"
)
_STATED = re.compile(r'"cost_estimate":\{[^}]*"bytes_accessed":"(\d+)"')
# Operations that move nothing: they name, group or wait for what others moved.
_FREE = frozenset(
    [
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "while",
        "conditional",
        "call",
        "after-all",
        "iota",
        "partition-id",
        "replica-id",
        "domain",
        "opt-barrier",
        "async-start",
    ]
)
_WAITS = ("-done", "-update")  # how the opcodes end that wait for what a `-start` of the same kind began
_SLICES = frozenset(["dynamic-slice", "slice", "gather"])


@dataclasses.dataclass(frozen=True)
class Array:
    """An operand or result: its size in bytes, and whether it lies in the memory (HBM)."""

    size: float
    in_hbm: bool


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One operation of a computation."""

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str
    is_root: bool

    @property
    def size(self) -> float:
        return sum(array.size for array in self.results)

    @property
    def hbm_size(self) -> float:
        return sum(array.size for array in self.results if array.in_hbm)


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What a run of a program moves, per chip.

    Attributes:
        collectives: bytes each chip sends inside its slice (a GPU: inside its host), by kind of collective,
            on a ring of the chips that take part.
        across_slices: bytes each chip sends to other slices (a GPU: to other hosts).
        hbm: bytes read from and written to the memory.
    """

    collectives: dict[str, float]
    across_slices: float
    hbm: float

    def plus(self, other: "Traffic", times: float = 1.0) -> "Traffic":
        """This and `times` the other."""
        kinds = self.collectives.keys() | other.collectives.keys()
        return Traffic(
            {k: self.collectives.get(k, 0) + times * other.collectives.get(k, 0) for k in sorted(kinds)},
            self.across_slices + times * other.across_slices,
            self.hbm + times * other.hbm,
        )


NOTHING = Traffic({}, 0.0, 0.0)


def read_traffic(text: str, *, one_turn: bool = False, hosts: Sequence[int] = ()) -> Traffic:
    """Reads `compiled.as_text()`.

    Args:
        text: of the compiled program.
        one_turn: only one turn of the costliest open-ended loop that has no other inside.
        hosts: of GPUs, the host of each by its number in the program; what leaves them is `across_slices`.
    """
    entry, computations = parse(text)
    reader = _Reader(computations, hosts)
    if not one_turn:
        return reader.traffic(entry, fused=False)
    turns = [reader.traffic(body, fused=False) for body in reader.innermost(entry)]
    return max(turns, key=lambda traffic: traffic.hbm, default=NOTHING)


class _Reader:
    """Adds up the traffic of computations and of those they call."""

    def __init__(self, computations: dict[str, Computation], hosts: Sequence[int]):
        self._computations = computations
        self._hosts = hosts
        self._known: dict[tuple[str, bool], Traffic] = {}

    def traffic(self, name: str, fused: bool) -> Traffic:
        """Of one run of a computation; inside a fusion only collectives count, its operands did outside."""
        if (name, fused) not in self._known:
            total = NOTHING
            for instruction in self._computations[name].values():
                total = total.plus(self._own(instruction, self._computations[name], fused))
                total = total.plus(self._called(instruction, fused))
            self._known[name, fused] = total
        return self._known[name, fused]

    def innermost(self, name: str) -> list[str]:
        """Bodies of the open-ended loops below a computation that have no such loop inside."""
        found: list[str] = []
        for instruction in self._computations[name].values():
            inner = [body for callee in self._callees(instruction) for body in self.innermost(callee)]
            is_loop = instruction.opcode == "while" and not _never_turns(instruction)
            if is_loop and not inner and not _trip_count(instruction, self._computations):
                inner = [_named(instruction, "body")]
            found += inner
        return found

    def _called(self, instruction: Instruction, fused: bool) -> Traffic:
        callees = self._callees(instruction)
        if instruction.opcode == "conditional":
            branches = [self.traffic(callee, fused) for callee in callees]
            return max(branches, key=lambda traffic: traffic.hbm, default=NOTHING)
        times = 1
        if instruction.opcode == "while":
            times = _trip_count(instruction, self._computations) or 1
        inside = fused or instruction.opcode not in ("while", "call")
        total = NOTHING
        for callee in callees:
            total = total.plus(self.traffic(callee, inside), times)
        return total

    def _callees(self, instruction: Instruction) -> list[str]:
        if _never_turns(instruction):
            return []
        return [callee for callee in _callees(instruction) if callee in self._computations]

    def _own(self, instruction: Instruction, computation: Computation, fused: bool) -> Traffic:
        kind = instruction.opcode.removesuffix("-start")
        sent, across = {}, 0.0
        if kind in COLLECTIVES and not _carries_on(computation):
            size = _sent(kind, instruction, computation)
            across = size * share_across(instruction.text, self._hosts)
            sent = {kind: size - across}
        if kind == "send":
            across = max((array.size for array in instruction.results), default=0.0)
        return Traffic(sent, across, 0 if fused else _moved(instruction, computation, self._computations))


def parse(text: str) -> tuple[str, dict[str, Computation]]:
    """The name of the entry computation, and all computations by name."""
    computations: dict[str, Computation] = {}
    entry = ""
    current: Computation = {}
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif (found := _INSTRUCTION.match(line)) and (read := _instruction(found)):
            current[read.name] = read
    return entry, computations


def _instruction(found: re.Match[str]) -> Instruction | None:
    is_root, name, rest = found[1] is not None, found[2], found[3]
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    shape, call = rest[:end], rest[end:].lstrip()
    opcode, bracket, arguments = call.partition("(")
    if not bracket:
        return None
    inner = arguments[: _closing("(" + arguments) - 1]
    results = tuple(
        Array(
            _BYTES.get(kind, _width(kind)) * math.prod(map(int, dims.split(",") if dims else [])), not space
        )
        for kind, dims, space in _ARRAY.findall(shape)
    )
    operands = tuple(re.findall(r"%([\w.\-]+)", inner))
    return Instruction(name, opcode, results, operands, call, is_root)


def _width(kind: str) -> float:
    """Bytes of an integer or 8-bit floating-point type."""
    digits = re.search(r"\d+", kind)
    return int(digits[0]) / 8 if digits else 0


def _closing(text: str) -> int:
    """Position of the bracket that closes the one `text` starts with."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position
    return len(text)


def _named(instruction: Instruction, role: str) -> str:
    found = re.search(rf"{role}=%([\w.\-]+)", instruction.text)
    return found[1] if found else ""


def _callees(instruction: Instruction) -> list[str]:
    if instruction.opcode.endswith(_WAITS):  # they name what their start calls
        return []
    called = _CALLED.findall(instruction.text)
    for several, first, second in _BRANCHES.findall(instruction.text):
        called += re.findall(r"%([\w.\-]+)", several) or [first, second]
    return called


def _never_turns(instruction: Instruction) -> bool:
    """Whether it is a loop over rounds of split experts after the first one."""
    return instruction.opcode == "while" and f"/{FURTHER}/" in instruction.text


def _trip_count(loop: Instruction, computations: dict[str, Computation]) -> int | None:
    """Turns of a loop that counts from 0 to a constant; None when its end depends on something else."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.text):
        return int(known[1])
    instructions = list(computations.get(_named(loop, "condition"), {}).values())
    comparisons = [i for i in instructions if i.opcode == "compare"]
    limits = [
        int(value[1])
        for i in instructions
        if i.opcode == "constant" and (value := re.match(r"constant\((\d+)\)", i.text))
    ]
    others = {i.opcode for i in instructions} - {"compare", "constant", "parameter", "get-tuple-element"}
    if len(comparisons) != 1 or len(limits) != 1 or others or "direction=LT" not in comparisons[0].text:
        return None
    return limits[0]


def _sent(kind: str, instruction: Instruction, computation: Computation) -> float:
    """Bytes a chip sends in one collective on a ring."""
    chips = max(1, group_size(instruction.text))
    operand = sum(computation[name].size for name in instruction.operands if name in computation)
    share = (chips - 1) / chips
    if kind == "collective-permute":
        return operand
    if kind == "all-gather":
        return operand * (chips - 1)
    return {"all-reduce": 2, "reduce-scatter": 1, "all-to-all": 1}[kind] * operand * share


def _carries_on(computation: Computation) -> bool:
    """Whether the collective in a fused computation is one that another began."""
    text = "".join(instruction.text for instruction in computation.values())
    return "chain_id=" in text and "AsyncCollectiveStart" not in text


def _moved(instruction: Instruction, computation: Computation, computations: dict[str, Computation]) -> float:
    """Bytes one run of an operation reads from and writes to the memory."""
    if instruction.opcode in _FREE or instruction.opcode.endswith(_WAITS):
        return 0
    operands = [computation[name] for name in instruction.operands if name in computation]
    if instruction.opcode in ("fusion", "fusion-start"):
        return _fusion_moved(instruction, operands, computations)
    written = instruction.hbm_size
    if instruction.opcode == "all-reduce-start":
        return 2 * sum(operand.hbm_size for operand in operands)
    if instruction.opcode.removesuffix("-start") in COLLECTIVES and instruction.opcode.endswith("-start"):
        return written  # its results are the operands again and where they go
    if instruction.opcode.endswith("-start"):  # its results are the destination, the source again, and flags
        written = instruction.results[0].size if instruction.results[0].in_hbm else 0
        moved = min((a.size for a in instruction.results[:2]), default=0)
        return written + (moved if operands and operands[0].hbm_size else 0)
    if instruction.opcode in _SLICES:
        return written + (instruction.size if operands and operands[0].hbm_size else 0)
    if instruction.opcode == "dynamic-update-slice":
        return 2 * operands[1].size if operands[0].hbm_size else 0
    if f"/{ragged_decode.NAME}/" in instruction.text and (stated := _STATED.search(instruction.text)):
        return float(stated[1])
    read = [operand.hbm_size for operand in operands]
    if one_of := re.search(rf"/{ONE_LAYER_OF}(\d+)/", instruction.text):
        read.append(max(read) / int(one_of[1]) - max(read))
    return written + sum(read)


def _fusion_moved(
    fusion: Instruction, operands: list[Instruction], computations: dict[str, Computation]
) -> float:
    called = _callees(fusion)[0]
    if any("AsyncCollectiveDone" in i.text for i in computations[called].values()):
        return 0
    read = sum(
        min(operand.hbm_size, _read_of(_parameter(computations[called], number), called, computations))
        for number, operand in enumerate(operands)
    )
    return read + min(fusion.hbm_size, _written(called, computations))


def _read_of(name: str, called: str, computations: dict[str, Computation]) -> float:
    """Bytes of the value `name` that a fused computation reads: all, or the slices that it takes of it."""
    body = computations[called]
    read = 0.0
    for user in body.values():
        if name not in user.operands or _passes(user, body):
            continue
        position = user.operands.index(name)
        if user.opcode in _SLICES and position == 0:
            read += user.size
        elif user.opcode == "bitcast":
            read += _read_of(user.name, called, computations)
        elif user.opcode == "fusion":
            inner = _callees(user)[0]
            read += _read_of(_parameter(computations[inner], position), inner, computations)
        elif user.opcode != "dynamic-update-slice" or position != 0:
            return body[name].size
    return read


def _written(called: str, computations: dict[str, Computation]) -> float:
    """Bytes that a fused computation writes: its result, or only the part of it that is updated in place."""
    body = computations[called]

    def written(instruction: Instruction) -> float:
        if _passes(instruction, body):
            return sum(written(body[name]) for name in instruction.operands if instruction.opcode == "tuple")
        if instruction.opcode == "dynamic-update-slice":
            return body[instruction.operands[1]].size
        if instruction.opcode == "bitcast":
            return written(body[instruction.operands[0]])
        if instruction.opcode == "fusion":
            return _written(_callees(instruction)[0], computations)
        return instruction.size

    return sum(written(instruction) for instruction in body.values() if instruction.is_root)


def _passes(instruction: Instruction, body: Computation) -> bool:
    """Whether a part of a fused computation only hands values on."""
    if instruction.opcode in COLLECTIVES:
        return _carries_on(body)
    return instruction.opcode in ("tuple", "parameter")


def _parameter(body: Computation, number: int) -> str:
    """The name of parameter `number` of a computation."""
    text = f"parameter({number})"
    return next(i.name for i in body.values() if i.opcode == "parameter" and i.text.startswith(text))
