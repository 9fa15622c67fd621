"""What a plan says, as data: for the text and for the JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxppo.config.layers import DeviceInfo
from jaxppo.config.schema import Config
from jaxppo.memory import Line
from jaxppo.plan.counts import Kernel, Region, host_transfers, unknown_loops, update_loops
from jaxppo.plan.gpus import Gpu
from jaxppo.plan.hotspots import find_hotspots
from jaxppo.plan.memory import Memory
from jaxppo.plan.model import Model, model_of
from jaxppo.plan.roofline import Row, Work, kernel_seconds, kernel_work, run_rows, sum_work
from jaxppo.plan.scale import Scale

# Kernels to name, by their share of the work.
HEAVIEST = 8
# The named scope in which the rollout's loop over bars is traced.
ROLLOUT = "rollout"


@dataclass(frozen=True)
class Run:
    """The run that is planned."""

    preset: str
    n_envs: int
    n_steps: int
    n_updates: int
    n_validations: int
    compute_dtype: str
    market: str
    bars: int  # of a validation: of the symbol that has most of them
    seeds: int = 1

    @property
    def env_steps(self) -> int:
        """Of all policies of an ensemble."""
        return self.seeds * self.n_envs * self.n_steps * self.n_updates


@dataclass(frozen=True)
class Point:
    """Memory at one env count, compiled."""

    n_envs: int
    memory: Memory
    beside_bytes: int  # the test split, and the outputs of the last segment
    compile_seconds: float

    @property
    def needed(self) -> int:
        return self.memory.total + self.beside_bytes


@dataclass(frozen=True)
class Fit:
    """Memory over envs and how far it goes."""

    line: Line
    largest: int  # compiled and found to fit; 0 where nothing does
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Counts:
    """What the program does, from its text."""

    env_step_kernels: int | None  # of one turn of the rollout's loop; None where XLA unrolled it
    update_kernels: float
    validation_kernels: float
    host_transfers: int
    host_reads_per_update: int  # predicates of loops whose trip count only the device knows
    update: Work
    validation: Work


@dataclass(frozen=True)
class Heavy:
    """A kernel with much of the work."""

    name: str
    function: str
    region: str
    microseconds: float
    share: float  # of the run's work
    bound: str  # "memory" or "compute"


@dataclass(frozen=True)
class GpuPlan:
    """A run on a GPU that need not be there."""

    run: Run
    gpu: Gpu
    limit_bytes: int
    point: Point
    counts: Counts
    rows: tuple[Row, ...]
    run_work: Work
    model: Model
    heaviest: tuple[Heavy, ...]
    findings: tuple[str, ...]
    fit: Fit | None
    scale: Scale | None  # where there are several devices; all else is of one of them

    @property
    def fits(self) -> bool:
        return self.point.needed <= self.limit_bytes


@dataclass(frozen=True)
class Timing:
    """Measured seconds."""

    update_seconds: float  # median
    validation_seconds: float
    n_updates: int  # timed


@dataclass(frozen=True)
class LocalPlan:
    """A run on the device at hand."""

    run: Run
    device: DeviceInfo
    point: Point
    counts: Counts
    timing: Timing
    run_seconds: float
    steps_per_second: float  # of updates alone, of all members of an ensemble


def planned_run(config: Config, market: str, bars: int) -> Run:
    """What is asked for."""
    budget = config.budget
    validations = 1 + len(config.segments)
    dtype = config.agent.compute_dtype
    return Run(
        config.preset, budget.n_envs, budget.n_steps, budget.n_updates, validations, dtype, market, bars, budget.seeds
    )


def gpu_plan(
    config: Config,
    gpu: Gpu,
    market: str,
    bars: int,
    limit: int,
    point: Point,
    program: Region,
    fit: Fit | None,
    scale: Scale | None = None,
) -> GpuPlan:
    """Everything that follows from a counted program and its memory."""
    run = planned_run(config, market, bars)
    counts = count_work(program, config.budget.n_steps, lambda k: kernel_work(k, gpu))
    rows = run_rows(program, lambda k: kernel_work(k, gpu), run.n_validations, run.n_updates)
    return GpuPlan(
        run,
        gpu,
        limit,
        point,
        counts,
        tuple(rows),
        sum_work(r.total for r in rows),
        model_of(config, gpu.name, counts.update, counts.validation, run.n_validations, bars),
        tuple(heaviest(program, rows, gpu)),
        tuple(find_hotspots(program, rows)),
        fit,
        scale,
    )


def local_plan(
    config: Config, device: DeviceInfo, market: str, bars: int, point: Point, program: Region, timing: Timing
) -> LocalPlan:
    """Everything that follows from a measured program."""
    run = planned_run(config, market, bars)
    seconds = run.n_updates * timing.update_seconds + run.n_validations * timing.validation_seconds
    counts = count_work(program, config.budget.n_steps, plain_work)
    speed = config.budget.seeds * config.batch_steps / timing.update_seconds
    return LocalPlan(run, device, point, counts, timing, seconds, speed)


def plain_work(kernel: Kernel) -> Work:
    """A launch on a device that nothing is known of."""
    return Work(1, kernel.opcode == "copy", 0, kernel.matmul_flops, kernel.vector_ops, kernel.bytes)


def count_work(program: Region, n_steps: int, measure: Any) -> Counts:
    """Kernels and work of one update and of one validation."""
    once = run_rows(program, measure, 1, 1)
    inside = {id(r) for loop in update_loops(program) for r in loop.walk()}
    pairs = list(zip(program.walk(), once, strict=True))
    update = sum_work(row.total for region, row in pairs if id(region) in inside)
    validation = sum_work(row.total for region, row in pairs if id(region) not in inside)
    bars = [r for r in program.walk() if id(r) in inside and r.trips == n_steps and ROLLOUT in r.scopes]
    return Counts(
        env_step_kernels=max((len(r.kernels) for r in bars), default=None),  # drawing keys are small loops there too
        update_kernels=update.launches,
        validation_kernels=validation.launches,
        host_transfers=len(host_transfers(program)),
        host_reads_per_update=len(unknown_loops(program)),
        update=update,
        validation=validation,
    )


def heaviest(program: Region, rows: Sequence[Row], gpu: Gpu) -> list[Heavy]:
    """The kernels with the largest part of the run's work."""
    total = sum(r.total.seconds for r in rows)
    found = []
    for region, row in zip(program.walk(), rows, strict=True):
        for kernel in region.kernels:
            seconds = kernel_seconds(kernel, gpu)
            bound = "memory" if kernel.bytes / gpu.reached.bandwidth >= seconds else "compute"
            function = kernel.functions[0] if kernel.functions else ""
            share = seconds * row.turns / total if total else 0.0
            found.append(Heavy(kernel.name, function, region.label, seconds * 1e6, share, bound))
    return sorted(found, key=lambda h: -h.share)[:HEAVIEST]


def flops_by_type(work: Work) -> Mapping[str, float]:
    """Matmul FLOPs by the type of the inputs, none left out for being 0."""
    return {t: f for t, f in work.matmul_flops.items() if f}
