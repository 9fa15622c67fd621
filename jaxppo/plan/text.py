"""A plan as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from jaxppo.plan.gpus import LAUNCH_SECONDS, MEMORY_SHARE
from jaxppo.plan.result import Counts, Fit, GpuPlan, LocalPlan, Point, Run, flops_by_type
from jaxppo.plan.roofline import Row
from jaxppo.plan.scale import scale_lines

MIB = 2**20
WIDTH = 110
_TYPES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32", "f32_highest": "float32, full precision"}


def run_line(run: Run) -> str:
    """What is planned, on a line."""
    ensemble = f"{run.seeds} policies x " if run.seeds > 1 else ""
    return (
        f"{run.preset}: {ensemble}{run.n_envs:,} envs x {run.n_steps} steps x {run.n_updates:,} updates ="
        f" {run.env_steps / 1e6:,.1f}M env steps, {run.n_validations} validations, {run.compute_dtype}"
    )


def gpu_lines(plan: GpuPlan) -> list[str]:
    """Everything that a plan for a GPU says."""
    points = plan.fit.points if plan.fit else (plan.point,)
    return [
        "",
        run_line(plan.run),
        *memory_lines(points),
        *_verdict(plan),
        "",
        *count_lines(plan.counts),
        "",
        *_region_lines(plan.rows),
        "",
        *_roofline_lines(plan),
        "",
        *_heavy_lines(plan),
        "",
        *([*scale_lines(plan.scale), ""] if plan.scale else []),
        "what stands out",
        *(line for f in plan.findings for line in wrap(f, WIDTH, initial_indent="  - ", subsequent_indent="    ")),
    ]


def local_lines(plan: LocalPlan) -> list[str]:
    """Everything that a measurement says."""
    timing, work = plan.timing, plan.counts.update
    reached = work.flops / timing.update_seconds
    return [
        "",
        run_line(plan.run),
        *memory_lines((plan.point,)),
        "",
        *count_lines(plan.counts),
        "",
        f"measured on {plan.device.kind}: {timing.update_seconds:.3g} s an update (median of {timing.n_updates}),"
        f" {timing.validation_seconds:.3g} s a validation",
        f"  {plan.steps_per_second:,.0f} env steps/s in updates; {reached / 1e9:,.1f} GFLOP/s of matmuls",
        f"  the whole run: {duration(plan.run_seconds)}, without compilation ({plan.point.compile_seconds:.1f} s),"
        " checkpoints and the report",
    ]


def memory_lines(points: Sequence[Point]) -> list[str]:
    """Memory by class, a column an env count."""
    rows = {
        "state (donated)": [p.memory.state for p in points],
        "tape": [p.memory.tape for p in points],
        "evaluation data": [p.memory.evaluation for p in points],
        "arguments, as laid out": [p.memory.arguments for p in points],
        "outputs": [p.memory.outputs for p in points],
        "  of them over the state": [-p.memory.aliased for p in points],
        "temporaries": [p.memory.temporaries for p in points],
        "the program": [p.memory.total for p in points],
        "beside it: test split, last outputs": [p.beside_bytes for p in points],
        "needed": [p.needed for p in points],
    }
    head = f"{'memory, MiB, at envs of':<37}" + "".join(f"{p.n_envs:>14,}" for p in points)
    return [head, *(f"  {name:<35}" + "".join(f"{b / MIB:>14,.1f}" for b in values) for name, values in rows.items())]


def _verdict(plan: GpuPlan) -> list[str]:
    limit, needed = plan.limit_bytes, plan.point.needed
    fits = "fits" if plan.fits else "DOES NOT FIT"
    out = [
        f"  {fits}: {needed / MIB:,.0f} of {limit / MIB:,.0f} MiB ({needed / limit:.1%}), the {MEMORY_SHARE:.0%} of"
        f" {plan.gpu.title} that JAX takes"
    ]
    return out + (_fit_lines(plan.fit) if plan.fit else [])


def _fit_lines(fit: Fit) -> list[str]:
    line = fit.line
    off = max((abs(p.needed / line.at(p.n_envs) - 1.0) for p in fit.points), default=0.0)
    return [
        f"  over envs: {line.base / MIB:,.1f} MiB + {line.slope:,.1f} bytes an env; compiled counts within {off:.2%}",
        f"  largest env count compiled that fits: {fit.largest:,}",
    ]


def count_lines(counts: Counts) -> list[str]:
    """Kernels, work and bytes of an update and a validation."""
    step = "its loop is unrolled" if counts.env_step_kernels is None else f"{counts.env_step_kernels:,}"
    out = [
        f"kernels: {step} a step of the rollout (all envs), {counts.update_kernels:,.0f} an update,"
        f" {counts.validation_kernels:,.0f} a validation; host transfers: {counts.host_transfers}"
    ]
    for name, work in (("an update", counts.update), ("a validation", counts.validation)):
        matmuls = ", ".join(f"{f / 1e9:,.2f} GFLOP in {_TYPES.get(t, t)}" for t, f in flops_by_type(work).items())
        out.append(
            f"  {name + ':':<14} {matmuls or 'no matmuls'}, {work.vector_ops / 1e9:,.2f} G other operations,"
            f" {work.bytes / 1e9:,.3f} GB moved"
        )
    return out


def _region_lines(rows: Sequence[Row]) -> list[str]:
    out = [f"{'where, over the run':<36}{'turns':>10} |{'a turn: kernels':>15}{'MB':>10}{'GFLOP':>8}{'us':>9} |"
           f"{'run: kernels':>13}{'s at peak':>10}"]  # fmt: skip
    for row in rows:
        turn = row.turn
        name = "  " * (row.depth + 1) + row.label
        out.append(
            f"{name:<36}{row.turns:>10,} |{turn.launches:>15,.0f}{turn.bytes / 1e6:>10,.2f}{turn.flops / 1e9:>8,.2f}"
            f"{turn.seconds * 1e6:>9,.1f} |{row.total.launches:>13,.0f}{row.total.seconds:>10,.2f}"
        )
    return out


def _roofline_lines(plan: GpuPlan) -> list[str]:
    gpu, work = plan.gpu, plan.run_work
    cheap, dear = (s * 1e6 for s in LAUNCH_SECONDS)
    low, high = work.launch_seconds()
    fast, slow = work.with_launches
    out = [f"seconds for the whole run on {gpu.title}, at its peaks ({gpu.source})"]
    for dtype, flops in flops_by_type(work).items():
        rate = gpu.matmul_peak.get(dtype, gpu.matmul_peak["f32_highest"])
        name = f"matmuls, {_TYPES.get(dtype, dtype)}{' as TF32' if dtype == 'f32' else ''}"
        out.append(f"  {name:<33}{flops / rate:>9,.2f}   {flops / 1e12:,.1f} TFLOP at {rate / 1e12:g} TFLOP/s")
    vector, peak = work.vector_ops, gpu.vector_peak
    out += [
        f"  {'other operations':<33}{vector / peak:>9,.2f}   {vector / 1e12:,.2f} T at {peak / 1e12:g} T/s",
        f"  {'memory':<33}{work.bytes / gpu.bandwidth:>9,.2f}   {work.bytes / 1e12:,.2f} TB at"
        f" {gpu.bandwidth / 1e12:g} TB/s",
        f"  {'roofline, kernel by kernel':<33}{work.seconds:>9,.2f}   the longest of the three for each kernel, summed",
        f"  {'launches':<33}{low:>9,.2f}   to {high:,.2f}: {work.launches / 1e6:,.2f}M at {cheap:.0f} to {dear:.0f} us",
        f"  {'both, the longer for each kernel':<33}{fast:>9,.2f}   to {slow:,.2f}:"
        f" {plan.run.env_steps / slow / 1e6:,.1f}M to {plan.run.env_steps / fast / 1e6:,.1f}M env steps/s",
        f"  bound by {bound_by(plan)}",
    ]
    return out


def bound_by(plan: GpuPlan) -> str:
    """What decides how long the run takes, in words."""
    work = plan.run_work
    low, high = work.launch_seconds()
    if high < work.seconds:
        share = work.bytes / plan.gpu.bandwidth / work.seconds
        return "memory bandwidth" if share > 0.5 else "arithmetic"
    return "launches" if low > work.seconds else "launches as much as by work: which of them, the launch cost decides"


def _heavy_lines(plan: GpuPlan) -> list[str]:
    out = ["the heaviest kernels, by their share of the roofline"]
    for heavy in plan.heaviest:
        where = f"{heavy.function} in {heavy.region}" if heavy.function else heavy.region
        out.append(f"  {heavy.share:>6.1%}{heavy.microseconds:>9,.1f} us, {heavy.bound}-bound  {heavy.name} ({where})")
    return out


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
