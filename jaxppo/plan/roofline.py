"""Seconds that a counted program takes at a GPU's peak rates (Williams et al. 2009), kernel by kernel.

A kernel takes at least the longest of: its bytes at the memory's bandwidth, its matmuls at the peak of their type, its
other operations at the peak outside the tensor cores. Kernels run one after another. Nothing reaches its peak, small
kernels least of all, so this is a bound from below; what launching costs is counted apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from jaxppo.plan.counts import Kernel, Region
from jaxppo.plan.gpus import LAUNCH_SECONDS, Gpu


@dataclass(frozen=True)
class Work:
    """Sums over launches."""

    launches: float = 0
    copies: float = 0  # of them
    small: float = 0  # of them, those whose work takes less than the cheapest launch
    matmul_flops: Mapping[str, float] = field(default_factory=dict)
    vector_ops: float = 0
    bytes: float = 0
    seconds: float = 0  # roofline
    # Each kernel takes as long as its work or a launch, whichever is longer: at the lowest and highest launch cost.
    with_launches: tuple[float, float] = (0, 0)

    def __add__(self, other: Work) -> Work:
        types = {*self.matmul_flops, *other.matmul_flops}
        return Work(
            self.launches + other.launches,
            self.copies + other.copies,
            self.small + other.small,
            {t: self.matmul_flops.get(t, 0) + other.matmul_flops.get(t, 0) for t in sorted(types)},
            self.vector_ops + other.vector_ops,
            self.bytes + other.bytes,
            self.seconds + other.seconds,
            (self.with_launches[0] + other.with_launches[0], self.with_launches[1] + other.with_launches[1]),
        )

    def __mul__(self, n: float) -> Work:
        return Work(
            self.launches * n,
            self.copies * n,
            self.small * n,
            {t: f * n for t, f in self.matmul_flops.items()},
            self.vector_ops * n,
            self.bytes * n,
            self.seconds * n,
            (self.with_launches[0] * n, self.with_launches[1] * n),
        )

    @property
    def flops(self) -> float:
        """Of all matmuls."""
        return sum(self.matmul_flops.values())

    def launch_seconds(self) -> tuple[float, float]:
        """What launching costs if nothing hides it."""
        return self.launches * LAUNCH_SECONDS[0], self.launches * LAUNCH_SECONDS[1]


@dataclass(frozen=True)
class Row:
    """A region of the program over a whole run."""

    label: str
    depth: int
    turns: int  # over the run
    turn: Work  # of its own kernels, without the loops in it
    total: Work  # over the run


def kernel_seconds(kernel: Kernel, gpu: Gpu) -> float:
    """The least time of one launch."""
    full = gpu.matmul_peak["f32_highest"]
    matmul = sum(flops / gpu.matmul_peak.get(dtype, full) for dtype, flops in kernel.matmul_flops.items())
    return max(kernel.bytes / gpu.bandwidth, matmul, kernel.vector_ops / gpu.vector_peak)


def kernel_work(kernel: Kernel, gpu: Gpu) -> Work:
    """One launch."""
    seconds = kernel_seconds(kernel, gpu)
    return Work(
        1,
        kernel.opcode == "copy",
        seconds < LAUNCH_SECONDS[0],
        kernel.matmul_flops,
        kernel.vector_ops,
        kernel.bytes,
        seconds,
        (max(seconds, LAUNCH_SECONDS[0]), max(seconds, LAUNCH_SECONDS[1])),
    )


def sum_work(works: Iterable[Work]) -> Work:
    """Their sum."""
    total = Work()
    for work in works:
        total = total + work
    return total


def run_rows(program: Region, measure: Callable[[Kernel], Work], n_segments: int, n_updates: int) -> list[Row]:
    """Every region of a training program over a whole run, in the order of `program.walk()`.

    Args:
      program: a segment: its one loop without a known trip count is the loop over updates.
      measure: the work of a kernel, such as `kernel_work` of a GPU.
      n_segments: runs of the program: one a validation.
      n_updates: turns of the loop over updates in all of them.

    Raises:
      ValueError: more than one loop has no known trip count.
    """
    unknown = [r for r in program.walk() if r.trips is None]
    if len(unknown) > 1:
        raise ValueError(f"loops without a known trip count: {', '.join(r.label for r in unknown)}; expected one")
    return list(_rows(program, measure, n_segments, n_updates, 0))


def _rows(region: Region, measure: Callable[[Kernel], Work], turns: int, n_updates: int, depth: int) -> Iterator[Row]:
    own = sum_work(measure(k) for k in region.kernels)
    yield Row(region.label, depth, turns, own, own * turns)
    for loop in region.loops:
        inner = n_updates if loop.trips is None else turns * loop.trips
        yield from _rows(loop, measure, inner, n_updates, depth + 1)
