"""What a compiled program does, counted from its text: kernels, floating-point work, bytes, loops, the host's part.

Rules, so that every figure can be worked out by hand:

- A kernel is an instruction that is scheduled in the entry, in a loop body or in a branch: a fusion, a custom call, a
  copy, a sort. Parameters, constants, tuples and bitcasts are none.
- Bytes are what a kernel must move between memory and chip: its operands and its results, once. Of an operand that is
  only sliced or gathered from, and of a result that is only updated in place, the part that is touched. What one kernel
  leaves in the cache for the next is not taken off.
- A matmul of (m, k) and (k, n) is 2 m k n floating-point operations, by the type of its inputs. Every element of every
  other operation's result is one vector operation (of a reduction: every element that goes in; of a sort, times log2 of
  its length), a division or an exponential as much as an addition. Of what a Pallas kernel computes the text has
  nothing but the `matmul_flops` of its metadata, a type and a number.
- A loop runs its body as often as XLA's own `known_trip_count` says. Where XLA knows none, the host reads one predicate
  a turn.
- The loop over updates is the one that `jaxppo.ppo.program` traces in the scope `UPDATES`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jaxppo.plan.hlo import Computation, Instruction, Module
from jaxppo.ppo.program import UPDATES

_NAMES = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id", "replica-id", "domain")
_FREE = frozenset((*_NAMES, "after-all", "opt-barrier", "optimization-barrier", "add-dependency"))
# Inside a fusion these move elements; they compute none.
_RESHAPES = ("bitcast-convert", "reshape", "broadcast", "iota", "copy", "transpose", "concatenate", "pad", "reverse")
_MOVES = frozenset((*_RESHAPES, "slice", "dynamic-slice", "dynamic-update-slice", "gather", "fusion", "call"))
_PARTS = ("dynamic-slice", "slice", "gather")
_HOST_OPCODES = ("infeed", "outfeed", "send", "recv")
_TRAITS = ("copy", "transpose", "gather", "scatter", "sort", "dot", "reduce", "dynamic-update-slice", "concatenate")


@dataclass(frozen=True)
class Kernel:
    """One launch."""

    name: str
    opcode: str
    matmul_flops: Mapping[str, float]  # by type of the inputs; "f32_highest" where full precision was asked for
    vector_ops: float
    bytes_read: float
    bytes_written: float
    holds: frozenset[str]  # opcodes of note in it
    functions: tuple[str, ...]  # `file.py:function` from the innermost outwards
    to_host: bool

    @property
    def bytes(self) -> float:
        return self.bytes_read + self.bytes_written


@dataclass(frozen=True)
class Region:
    """The entry or a loop's body: its own kernels, and the loops in it."""

    label: str
    trips: int | None  # turns each time it is reached; None where only the host will know
    kernels: tuple[Kernel, ...]
    loops: tuple[Region, ...]
    scopes: frozenset[str] = frozenset()  # `jax.named_scope`s that the loop was traced in, and JAX's own
    over_updates: bool = False  # the loop over updates itself

    def walk(self) -> Iterator[Region]:
        """This region and all in it, outermost first."""
        yield self
        for loop in self.loops:
            yield from loop.walk()


def count_module(module: Module) -> Region:
    """The entry of a module as a region that is run once."""
    kernels, loops = _scheduled(module, module.computations[module.entry])
    return Region("program", 1, kernels, loops)


def join_regions(*programs: Region) -> Region:
    """Programs that are run after each other, as one."""
    kernels, loops = ([x for of in programs for x in getattr(of, part)] for part in ("kernels", "loops"))
    return Region("program", 1, tuple(kernels), tuple(loops))


def update_loops(region: Region) -> list[Region]:
    """The loops over updates: one in a program that trains, which takes more than one update."""
    return [r for r in region.walk() if r.over_updates]


def unknown_loops(region: Region) -> list[Region]:
    """Loops whose trip count XLA does not know: the host reads a predicate on each of their turns."""
    return [r for r in region.walk() if r.trips is None]


def host_transfers(region: Region) -> list[Kernel]:
    """Instructions that move data between host and device, each listed once however often it runs."""
    return [k for r in region.walk() for k in r.kernels if k.to_host]


def _scheduled(module: Module, computation: Computation) -> tuple[tuple[Kernel, ...], tuple[Region, ...]]:
    """Kernels and loops that a scheduled computation runs, calls inlined."""
    kernels: list[Kernel] = []
    loops: list[Region] = []
    for instruction in computation.instructions:
        if instruction.opcode in _FREE or instruction.opcode.endswith(("-done", "-update")):
            continue  # what was started asynchronously is counted where it starts
        if instruction.opcode == "while":
            loops.append(_loop(module, instruction))
        elif instruction.opcode == "conditional":
            branches = [_scheduled(module, c) for c in _called(module, instruction)]
            most = max(branches, key=lambda b: sum(k.bytes for k in b[0]), default=((), ()))
            kernels += most[0]
            loops += most[1]
        elif instruction.opcode in ("call", "async-start"):
            for inner in _called(module, instruction):
                more = _scheduled(module, inner)
                kernels += more[0]
                loops += more[1]
        else:
            kernels.append(_kernel(module, computation, instruction))
    return tuple(kernels), tuple(loops)


def _called(module: Module, instruction: Instruction) -> list[Computation]:
    return [module.computations[name] for names in instruction.called.values() for name in names]


def _loop(module: Module, instruction: Instruction) -> Region:
    kernels, loops = _scheduled(module, module.computations[instruction.called["body"][0]])
    if instruction.trips is None:  # with a known count the condition is never evaluated
        condition, _ = _scheduled(module, module.computations[instruction.called["condition"][0]])
        kernels += condition
    path = (instruction.attribute("op_name") or "").split("/")
    # JAX writes a scope under `vmap` as `vmap(updates)`.
    inmost = path[-2].removeprefix("vmap(").removesuffix(")") if len(path) > 1 else ""
    label, over_updates = _label(module, instruction), inmost == UPDATES and path[-1] == "while"
    return Region(label, instruction.trips, kernels, loops, frozenset(path), over_updates)


def _functions(module: Module, instruction: Instruction) -> tuple[str, ...]:
    """`file.py:function` of the stack, innermost first, without the nesting of local functions."""
    stack = module.stack(instruction.frame)
    return tuple(f"{file.rsplit('/', 1)[-1]}:{function.rsplit('.<locals>.', 1)[-1]}" for file, function in stack)


def _label(module: Module, instruction: Instruction) -> str:
    """What a loop is called: by the function that it is written in, not by `packed_scan`, which many call."""
    functions = [f for f in _functions(module, instruction) if not f.startswith("packed.py:")]
    return functions[0] if functions else instruction.name


def _kernel(module: Module, computation: Computation, instruction: Instruction) -> Kernel:
    flops: dict[str, float] = {}
    if instruction.opcode in ("fusion", "fusion-start"):
        fused = module.computations[instruction.called["calls"][0]]
        inside = list(_inside(module, fused))
        read = sum(_parameter_bytes(fused, i) for i in fused.instructions if i.opcode == "parameter")
        written = _written(fused, fused.root)
    else:
        inside = [(computation, instruction)]
        read = sum(_operand_bytes(computation, instruction, n) for n in dict.fromkeys(instruction.operands))
        written = _written(computation, instruction)
    vector = 0.0
    for where, i in inside:
        for dtype, n in _matmul(where, i).items():
            flops[dtype] = flops.get(dtype, 0.0) + n
        vector += _vector_ops(where, i)
    opcodes = {i.opcode for _, i in inside}
    return Kernel(
        name=instruction.name,
        opcode=instruction.opcode,
        matmul_flops=flops,
        vector_ops=vector,
        bytes_read=read,
        bytes_written=written,
        holds=frozenset(o for o in opcodes if o in _TRAITS),
        functions=_functions(module, instruction),
        to_host=_to_host(instruction),
    )


def _inside(module: Module, fused: Computation) -> Iterator[tuple[Computation, Instruction]]:
    for instruction in fused.instructions:
        yield fused, instruction
        if instruction.opcode in ("fusion", "call"):
            for inner in _called(module, instruction):
                yield from _inside(module, inner)


def _to_host(instruction: Instruction) -> bool:
    if instruction.opcode in _HOST_OPCODES:
        return True
    if instruction.opcode == "custom-call":
        return "callback" in (instruction.attribute("custom_call_target") or "")
    return any(a.on_host for a in instruction.arrays)


# Bytes.


def _parameter_bytes(fused: Computation, parameter: Instruction) -> float:
    return min(parameter.bytes, _touched(fused, parameter.name, parameter.bytes))


def _touched(fused: Computation, name: str, full: float) -> float:
    """Bytes of the value `name` that its users in a fusion look at; `full` as soon as one looks at all of it."""
    total = 0.0
    for user in fused.users.get(name, []):
        if user.opcode in ("bitcast", "reshape"):
            total += _touched(fused, user.name, full)
        else:
            total += _operand_bytes(fused, user, name)
    return total


def _operand_bytes(computation: Computation, user: Instruction, name: str) -> float:
    """Bytes of its operand `name` that an instruction reads."""
    source = computation.by_name.get(name)
    full = source.bytes if source else 0
    buffer = bool(user.operands) and user.operands[0] == name
    if buffer and user.opcode in _PARTS:
        return min(full, user.bytes)
    if buffer and user.opcode in ("dynamic-update-slice", "scatter"):
        return 0.0  # updated in place
    return full


def _written(computation: Computation, root: Instruction) -> float:
    if root.opcode in ("tuple", "bitcast"):
        return sum(_written(computation, computation.by_name[n]) for n in root.operands if n in computation.by_name)
    if root.opcode == "parameter":
        return 0.0  # handed through
    if root.opcode.endswith("-start"):  # its result, its operands again, and a handle
        return root.arrays[0].bytes if root.arrays else 0.0
    updates = {"dynamic-update-slice": 1, "scatter": 2}.get(root.opcode)
    if updates is not None and len(root.operands) > updates:
        update = computation.by_name.get(root.operands[updates])
        return update.bytes if update else root.bytes
    return root.bytes


# Work.


def _matmul(computation: Computation, instruction: Instruction) -> dict[str, float]:
    target = instruction.attribute("custom_call_target") or "" if instruction.opcode == "custom-call" else ""
    stated = re.search(r"matmul_flops\\22: \\22(\w+) (\d+)", instruction.text) if "triton" in target else None
    if stated:
        return {stated[1]: float(stated[2])}
    if instruction.opcode == "dot":
        contracted = instruction.attribute("lhs_contracting_dims") or ""
    elif target.startswith("__cublas"):
        found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.text)
        contracted = found.group(1).replace('"', "") if found else ""
    else:
        return {}
    left = computation.by_name.get(instruction.operands[0])
    if left is None or not left.arrays:
        return {}
    array = left.arrays[0]
    k = math.prod(array.dims[int(d)] for d in contracted.split(",") if d.strip())
    highest = "highest" in (instruction.attribute("operand_precision") or "")
    dtype = f"{array.dtype}_highest" if highest and array.dtype == "f32" else array.dtype
    return {dtype: 2.0 * instruction.arrays[0].elements * k}


def _vector_ops(computation: Computation, instruction: Instruction) -> float:
    opcode = instruction.opcode
    if opcode in _MOVES or opcode in _FREE or opcode in ("dot", "custom-call", "fusion-start", "copy-start"):
        return 0.0
    operands = [computation.by_name[n] for n in instruction.operands if n in computation.by_name]
    if opcode == "reduce" and operands:
        return float(operands[0].elements)
    if opcode == "scatter" and len(operands) > 2:
        return float(operands[2].elements)
    if opcode == "sort" and operands and operands[0].arrays[0].dims:
        axis = int(instruction.attribute("dimensions") or 0)
        return operands[0].elements * math.log2(max(operands[0].arrays[0].dims[axis], 2))
    if opcode == "reduce-window" and (window := re.search(r"size=([0-9x]+)", instruction.text)):
        return float(instruction.elements * math.prod(int(d) for d in window.group(1).split("x")))
    return float(instruction.arrays[0].elements if instruction.arrays else 0)
