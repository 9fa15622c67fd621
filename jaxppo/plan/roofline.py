"""Seconds that a counted program takes: a model with few constants, measured or set by what was measured.

A kernel takes its work, which is the longest of its bytes, its matmuls and its other operations at the rates that the
card reaches (a roofline, Williams et al. 2009), and besides 0.75 us, or 2.9 us with a matmul or a reduction in it,
whose threads wait for each other. Kernels run one after another. A turn of a loop takes at least 7.1 us, as the host
starts it; a call of the program 37 us. The constants and what they are of are in `jaxppo.config.measured`;
`jaxppo.plan.model` sets the model against every run that was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from jaxppo.config.measured import COMBINING_SECONDS, KERNEL_SECONDS, LAUNCH_SECONDS, TURN_SECONDS
from jaxppo.plan.counts import Kernel, Region, unknown_loops, update_loops
from jaxppo.plan.gpus import Gpu


@dataclass(frozen=True)
class Work:
    """Sums over launches."""

    launches: float = 0
    copies: float = 0  # of them
    small: float = 0  # of them, those whose work takes less than a kernel without any
    matmul_flops: Mapping[str, float] = field(default_factory=dict)
    vector_ops: float = 0
    bytes: float = 0
    seconds: float = 0  # of the work alone
    combining: float = 0  # launches of kernels with a matmul or a reduction
    idle: float = 0  # seconds that the card waits for the turns of loops

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
            self.combining + other.combining,
            self.idle + other.idle,
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
            self.combining * n,
            self.idle * n,
        )

    @property
    def flops(self) -> float:
        """Of all matmuls."""
        return sum(self.matmul_flops.values())

    @property
    def model_seconds(self) -> float:
        """What all of it takes."""
        plain = self.launches - self.combining
        return self.seconds + plain * KERNEL_SECONDS + self.combining * COMBINING_SECONDS + self.idle

    @property
    def no_graphs_seconds(self) -> float:
        """What it takes without CUDA graphs: the host launches each kernel and runs ahead, so the longer of the two."""
        return max(self.model_seconds, self.launches * LAUNCH_SECONDS)


@dataclass(frozen=True)
class Row:
    """A region of the program over a whole run."""

    label: str
    depth: int
    turns: int  # over the run
    turn: Work  # of its own kernels, without the loops in it
    total: Work  # over the run


def kernel_seconds(kernel: Kernel, gpu: Gpu) -> float:
    """The work of one launch."""
    reached = gpu.reached
    full = reached.matmul["f32_highest"]
    matmul = sum(flops / reached.matmul.get(dtype, full) for dtype, flops in kernel.matmul_flops.items())
    return max(kernel.bytes / reached.bandwidth, matmul, kernel.vector_ops / reached.vector)


def kernel_work(kernel: Kernel, gpu: Gpu) -> Work:
    """One launch."""
    seconds = kernel_seconds(kernel, gpu)
    return Work(
        1,
        kernel.opcode == "copy",
        seconds < KERNEL_SECONDS,
        kernel.matmul_flops,
        kernel.vector_ops,
        kernel.bytes,
        seconds,
        # What a custom call does is not in the text: a library's matmul or sort, or a kernel of Pallas.
        bool(kernel.matmul_flops) or "reduce" in kernel.holds or kernel.opcode == "custom-call",
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
      program: a segment: it has one loop over updates.
      measure: the work of a kernel, such as `kernel_work` of a GPU.
      n_segments: runs of the program: one a validation.
      n_updates: turns of the loop over updates in all of them.

    Raises:
      ValueError: there is none, or more than one, or another loop has no known trip count.
    """
    found = update_loops(program)
    if len(found) != 1:
        raise ValueError(f"loops over updates: {', '.join(r.label for r in found) or 'none'}; expected one")
    unknown = [r.label for r in unknown_loops(program) if not r.over_updates]
    if unknown:
        raise ValueError(f"loops without a known trip count: {', '.join(unknown)}; expected none but that over updates")
    return list(_rows(program, measure, n_segments, n_updates, 0))


def _rows(region: Region, measure: Callable[[Kernel], Work], turns: int, n_updates: int, depth: int) -> Iterator[Row]:
    own = sum_work(measure(k) for k in region.kernels)
    if depth and not region.loops:
        own = own + Work(idle=max(0.0, TURN_SECONDS - own.model_seconds))
    yield Row(region.label, depth, turns, own, own * turns)
    for loop in region.loops:
        inner = n_updates if loop.over_updates else turns * (loop.trips or 1)
        yield from _rows(loop, measure, inner, n_updates, depth + 1)
