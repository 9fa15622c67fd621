"""A plan as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from jaxppo.config.measured import (
    BARS,
    CARD,
    CARD_TITLE,
    COMBINING_SECONDS,
    DISPATCH_SECONDS,
    KERNEL_SECONDS,
    LAUNCH_SECONDS,
    TURN_SECONDS,
    WHEN,
)
from jaxppo.plan.gpus import MEMORY_SHARE, Gpu
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
        *_model_lines(plan),
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
           f"{'run: kernels':>13}{'s':>10}"]  # fmt: skip
    for row in rows:
        turn = row.turn
        name = "  " * (row.depth + 1) + row.label
        out.append(
            f"{name:<36}{row.turns:>10,} |{turn.launches:>15,.0f}{turn.bytes / 1e6:>10,.2f}{turn.flops / 1e9:>8,.2f}"
            f"{turn.model_seconds * 1e6:>9,.1f} |{row.total.launches:>13,.0f}{row.total.model_seconds:>10,.2f}"
        )
    return out


def _model_lines(plan: GpuPlan) -> list[str]:
    gpu, work, model = plan.gpu, plan.run_work, plan.model
    reached, steps = gpu.reached, plan.run.env_steps
    out = [f"seconds for the whole run on {gpu.title}, by the model", *_ceiling_lines(gpu)]
    for dtype, flops in flops_by_type(work).items():
        rate = reached.matmul.get(dtype, reached.matmul["f32_highest"])
        name = f"matmuls, {_TYPES.get(dtype, dtype)}{' as TF32' if dtype == 'f32' else ''}"
        out.append(f"    {name:<33}{flops / rate:>9,.2f}   {flops / 1e12:,.1f} TFLOP at {rate / 1e12:.3g} TFLOP/s")
    vector, rate = work.vector_ops, reached.vector
    terms = (
        ("kernels with matmul or reduction", work.combining, COMBINING_SECONDS),
        ("other kernels", work.launches - work.combining, KERNEL_SECONDS),
        ("calls of the program", plan.run.n_validations, DISPATCH_SECONDS),
    )
    out += [
        f"    {'other operations':<33}{vector / rate:>9,.2f}   {vector / 1e12:,.2f} T at {rate / 1e12:.3g} T/s",
        f"    {'memory':<33}{work.bytes / reached.bandwidth:>9,.2f}   {work.bytes / 1e12:,.2f} TB at"
        f" {reached.bandwidth / 1e12:.3g} TB/s",
        f"  {'work':<35}{work.seconds:>9,.2f}   the longest of these for each kernel, summed",
        *(f"  {name:<35}{n * s:>9,.2f}   {n:,.0f} at {s * 1e6:g} us" for name, n, s in terms),
        f"  {'waits for turns of loops':<35}{work.idle:>9,.2f}   those of less than {TURN_SECONDS * 1e6:g} us",
        f"  {'the run':<35}{model.run_seconds:>9,.2f}   {model.low:,.1f} to {model.high:,.1f} s;"
        f" {steps / model.high / 1e6:,.1f}M to {steps / model.low / 1e6:,.1f}M env steps/s",
        f"  {'without CUDA graphs':<35}{model.no_graphs_seconds:>9,.2f}   where {LAUNCH_SECONDS * 1e6:g} us a kernel of"
        " the host are longer",
        f"  most of it is {bound_by(plan)}",
        *_measured_lines(plan),
    ]
    return out


def _ceiling_lines(gpu: Gpu) -> list[str]:
    if gpu.name == CARD:
        return [f"  by what was measured on this card on {WHEN}"]
    return [
        f"  {gpu.title} was not measured: its peaks ({gpu.source}) times the share of them that {CARD_TITLE} reached on"
        f" {WHEN},",
        f"  {gpu.reached.bandwidth / gpu.bandwidth:.0%} of the memory's and"
        f" {gpu.reached.vector / gpu.vector_peak:.0%} of the arithmetic's, and what kernels and loops took there",
    ]


def _measured_lines(plan: GpuPlan) -> list[str]:
    """What the model says beside what was measured with these sizes; nothing where nothing was."""
    model, compared = plan.model, plan.model.compared
    if compared is None:
        return [f"  no run of these sizes was measured on {plan.gpu.title}; the range is how far the model was from"
                f" those that were on {CARD_TITLE}"]  # fmt: skip
    run, counts = compared.run, plan.counts
    then, judged = run.update, run.validation.kernels / BARS
    pairs = (
        ("an update, ms", 1e3 * model.update_seconds, 1e3 * compared.update_seconds),
        (
            f"a validation of {plan.run.bars:,} bars, ms",
            1e3 * model.validation_seconds,
            1e3 * compared.validation_seconds,
        ),
        ("the run, s", model.run_seconds, compared.run_seconds),
    )
    return [
        f"  measured on {WHEN}: {run.title}, with {then.kernels:,} kernels and {then.gigabytes:.1f} GB an update and"
        f" {judged:.1f} kernels a bar;",
        f"  the program that is planned has {counts.update_kernels:,.0f}, {counts.update.bytes / 1e9:.1f} GB and"
        f" {counts.validation_kernels / max(plan.run.bars, 1):.1f}",
        f"  {'':<35}{'model':>9}{'measured':>10}{'ratio':>7}",
        *(f"  {name:<35}{said:>9,.1f}{found:>10,.1f}{said / found:>7.2f}" for name, said, found in pairs),
    ]


def bound_by(plan: GpuPlan) -> str:
    """What takes more than half of the run, in words."""
    work, model = plan.run_work, plan.model
    if work.seconds < model.run_seconds / 2:
        return "what kernels take beside their work"
    return "memory traffic" if work.bytes / plan.gpu.reached.bandwidth > work.seconds / 2 else "arithmetic"


def _heavy_lines(plan: GpuPlan) -> list[str]:
    out = ["the heaviest kernels, by their share of the work"]
    for heavy in plan.heaviest:
        where = f"{heavy.function} in {heavy.region}" if heavy.function else heavy.region
        out.append(f"  {heavy.share:>6.1%}{heavy.microseconds:>9,.1f} us, {heavy.bound}-bound  {heavy.name} ({where})")
    return out


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
