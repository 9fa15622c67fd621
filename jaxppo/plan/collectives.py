"""What devices tell each other in a compiled program: every collective, how large it is and how often it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from jaxppo.plan.counts import Kernel, Region

_OPCODES = frozenset(
    (
        "all-reduce",
        "all-gather",
        "reduce-scatter",
        "all-to-all",
        "ragged-all-to-all",
        "collective-permute",
        "collective-broadcast",
    )
)


class Collective(NamedTuple):
    """One collective operation of a program."""

    opcode: str
    bytes: int  # of its result on one device
    loops: tuple[int | None, ...]  # trips of the loops that it runs in, outermost first; None is the loop over updates

    @property
    def per_update(self) -> int:
        """Times that it runs in an update; 0 where it runs once a segment."""
        if None not in self.loops:
            return 0
        times = 1
        for trips in self.loops[self.loops.index(None) + 1 :]:
            times *= trips or 1
        return times


def collectives(program: Region) -> list[Collective]:
    """Every collective operation of a counted segment."""
    return list(_found(program, ()))


def is_collective(kernel: Kernel) -> bool:
    """Whether a kernel waits for other devices."""
    return kernel.opcode.removesuffix("-start") in _OPCODES


def _found(region: Region, loops: tuple[int | None, ...]) -> Iterator[Collective]:
    for kernel in region.kernels:
        if is_collective(kernel):
            yield Collective(kernel.opcode.removesuffix("-start"), int(kernel.bytes_written), loops)
    for loop in region.loops:
        yield from _found(loop, (*loops, None if loop.over_updates else loop.trips))
