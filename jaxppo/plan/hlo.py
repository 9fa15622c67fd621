"""The text of an optimized HLO module, read into computations and instructions. Text in, data out.

Only what the counts need is kept: names, shapes, operands, the computations an instruction runs, the trip count that
XLA found for a loop, and the Python functions that an instruction was traced in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3", "f8e4m3fn", "f8e5m2", "s4", "u4", "s2", "u2", "s1", "u1"), 1),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8),
    "c128": 16,
}

_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([0-9,]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"^\s*(ROOT\s+)?%?([^\s=]+) = ")
_OPCODE = re.compile(r"\s*([a-z][a-z0-9-]*)\(")
_COMPUTATION = re.compile(r"^(ENTRY\s+)?%?([^\s(]+)")
_CALLED = re.compile(
    r"\b(condition|body|calls|to_apply|true_computation|false_computation|branch_computations)="
    r"(?:\{([^}]*)\}|%?([\w.-]+))"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_NAME = re.compile(r"%([\w.-]+)")
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


@dataclass(frozen=True)
class Array:
    """One array of a shape."""

    dtype: str
    dims: tuple[int, ...]
    on_host: bool = False  # memory space 5 of XLA's GPU backend

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        return self.elements * BYTES.get(self.dtype, 0)  # tokens and opaques have no size


@dataclass(frozen=True)
class Instruction:
    """One instruction of a computation."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]  # of its result: one, or the flattened leaves of a tuple
    operands: tuple[str, ...]  # names in the same computation
    called: Mapping[str, tuple[str, ...]]  # attribute -> computations
    trips: int | None  # known trip count of a `while`
    frame: int | None  # of the stack frame table
    is_root: bool
    text: str = field(repr=False)  # everything after the opcode

    @property
    def bytes(self) -> int:
        return sum(a.bytes for a in self.arrays)

    @property
    def elements(self) -> int:
        return sum(a.elements for a in self.arrays)

    def attribute(self, name: str) -> str | None:
        """The value of `name="..."`, `name={...}` or `name=word`."""
        found = re.search(rf"\b{name}=(?:\"([^\"]*)\"|\{{([^}}]*)\}}|([\w.-]+))", self.text)
        return next((g for g in found.groups() if g is not None), None) if found else None


@dataclass(frozen=True)
class Computation:
    """A named list of instructions in schedule order."""

    name: str
    instructions: tuple[Instruction, ...]

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        return {i.name: i for i in self.instructions}

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        users: dict[str, list[Instruction]] = {}
        for instruction in self.instructions:
            for operand in dict.fromkeys(instruction.operands):
                users.setdefault(operand, []).append(instruction)
        return users

    @property
    def root(self) -> Instruction:
        return next((i for i in self.instructions if i.is_root), self.instructions[-1])


@dataclass(frozen=True)
class Module:
    """A whole module."""

    computations: Mapping[str, Computation]
    entry: str
    frames: Mapping[int, tuple[str, str, int]]  # id -> (file, function, parent id; 0 where there is none)

    def stack(self, frame: int | None) -> list[tuple[str, str]]:
        """(file, function) from the innermost frame outwards; empty where nothing is known."""
        out: list[tuple[str, str]] = []
        while frame is not None and frame in self.frames:
            file, function, frame = self.frames[frame]
            out.append((file, function))
        return out


def parse_module(text: str) -> Module:
    """Read the text of a module, as `jax.stages.Compiled.as_text()` gives it.

    Raises:
      ValueError: the text has no ENTRY computation.
    """
    computations: dict[str, Computation] = {}
    tables: dict[str, dict[int, str]] = {}
    table: str | None = None
    entry: str | None = None
    name: str | None = None
    body: list[Instruction] = []
    for line in text.splitlines():
        if name is not None:
            if line.startswith("}"):
                computations[name] = Computation(name, tuple(body))
                name, body = None, []
            elif (instruction := _instruction(line)) is not None:
                body.append(instruction)
        elif line in _TABLES:
            table = line
        elif table is not None and line[:1].isdigit():
            number, _, rest = line.partition(" ")
            tables.setdefault(table, {})[int(number)] = rest
        elif line.rstrip().endswith("{") and (found := _COMPUTATION.match(line)):
            name = found.group(2)
            entry = name if found.group(1) else entry
    if entry is None:
        raise ValueError("not the text of an HLO module: it has no ENTRY computation")
    return Module(computations, entry, _frames(tables))


def parse_arrays(text: str) -> tuple[Array, ...]:
    """The arrays in a shape such as `f32[8,64]{1,0}` or `(s32[], bf16[4]{0:S(5)})`."""
    return tuple(
        Array(dtype, tuple(int(d) for d in dims.split(",") if d), "S(5)" in layout)
        for dtype, dims, layout in _ARRAY.findall(text)
    )


def _closing(text: str, start: int) -> int:
    """Index of the parenthesis that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    return len(text)


def _instruction(line: str) -> Instruction | None:
    head = _HEAD.match(line)
    if head is None:
        return None
    rest = line[head.end() :]
    after_shape = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    found = _OPCODE.match(rest, after_shape)
    if found is None:
        return None
    opening = found.end() - 1
    closing = _closing(rest, opening)
    attributes = rest[closing + 1 :]
    trips, frame = _TRIPS.search(attributes), _FRAME.search(attributes)
    operands = () if found.group(1) in ("constant", "parameter") else tuple(_NAME.findall(rest[opening:closing]))
    return Instruction(
        name=head.group(2),
        opcode=found.group(1),
        arrays=parse_arrays(rest[:after_shape]),
        operands=operands,
        called={
            a: tuple(n.strip().lstrip("%") for n in (several or one).split(","))
            for a, several, one in _CALLED.findall(attributes)
        },
        trips=int(trips.group(1)) if trips else None,
        frame=int(frame.group(1)) if frame else None,
        is_root=head.group(1) is not None,
        text=rest[opening:],
    )


def _frames(tables: Mapping[str, Mapping[int, str]]) -> dict[int, tuple[str, str, int]]:
    def numbers(text: str) -> dict[str, int]:
        return {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", text)}

    files = {k: v.strip('"') for k, v in tables.get("FileNames", {}).items()}
    functions = {k: v.strip('"') for k, v in tables.get("FunctionNames", {}).items()}
    places = {k: numbers(v) for k, v in tables.get("FileLocations", {}).items()}
    stacks = {k: numbers(v) for k, v in tables.get("StackFrames", {}).items()}
    # XLA prints a parent's id plus one (seen with jax 0.10.2): then the first frame, which has none, says 1.
    shift = stacks.get(1, {}).get("parent_frame_id", 0)
    frames = {}
    for number, at in stacks.items():
        place = places.get(at.get("file_location_id", 0), {})
        file = files.get(place.get("file_name_id", 0), "")
        function = functions.get(place.get("function_name_id", 0), "")
        parent = at.get("parent_frame_id", 0) - shift
        frames[number] = (file, function, parent if parent < number else 0)  # parents come first: no cycles
    return frames
