"""What stands out in a counted program: launches that do next to nothing, serial loops, copies, serial operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from jaxppo.config.measured import KERNEL_SECONDS
from jaxppo.plan.counts import Kernel, Region, host_transfers, unknown_loops
from jaxppo.plan.roofline import Row

# Turns of one loop beyond which its launches are a matter of seconds.
LONG_LOOP = 1_000
# Share of the run's launches above which it is worth knowing what they are.
MANY = 0.05
# What a kernel is called: by the first of these operations that it holds.
_KINDS = {
    "dot": "matmul",
    "sort": "sort",
    "scatter": "scatter",
    "dynamic-update-slice": "update in place",
    "reduce": "reduction",
    "gather": "gather",
    "concatenate": "concatenation",
    "transpose": "transpose",
}


def find_hotspots(program: Region, rows: Sequence[Row]) -> list[str]:
    """A sentence each; `rows` are those of `run_rows`, in the order of `program.walk()`."""
    launches = sum(r.total.launches for r in rows)
    small = sum(r.total.small for r in rows)
    out = [
        f"{small / launches:.0%} of the launches of the run do work of less than {KERNEL_SECONDS * 1e6:g} us, which a"
        " kernel takes without any: fewer, larger kernels would help them, and a faster GPU would not"
    ]
    for region, row in zip(program.walk(), rows, strict=True):
        if row.total.launches > MANY * launches:
            kinds = ", ".join(
                f"{n} {kind}" for kind, n in Counter(kernel_kind(k) for k in region.kernels).most_common()
            )
            out.append(
                f"{region.label} is {row.total.launches / launches:.0%} of them; its {row.turn.launches:.0f} kernels a"
                f" turn, {row.turn.small:.0f} of them that small, by what they hold: {kinds}"
            )
        if region.trips is not None and region.trips >= LONG_LOOP:
            out.append(
                f"{region.label} takes {region.trips:,} turns one after another, {row.turns // region.trips} times:"
                f" {row.total.model_seconds:.1f} s of the run"
            )
    out += _moved(program, rows)
    out += _serial(program)
    unknown = unknown_loops(program)
    if unknown:
        out.append(
            f"the host reads one predicate each turn of {unknown[0].label}, whose trip count is an argument: 1 byte an"
            " update, and a wait for the device"
        )
    moved = host_transfers(program)
    if moved:
        out.append(f"{len(moved)} instructions move data to or from the host: {', '.join(k.name for k in moved[:5])}")
    return out


def kernel_kind(kernel: Kernel) -> str:
    """What a kernel is for, in a word or two."""
    if kernel.opcode in ("copy", "copy-start"):
        return "copy"
    return next((word for opcode, word in _KINDS.items() if opcode in kernel.holds), "elementwise")


def _moved(program: Region, rows: Sequence[Row]) -> list[str]:
    """Bytes that copies and transposes move, of all."""
    where: Counter[str] = Counter()
    for region, row in zip(program.walk(), rows, strict=True):
        for kernel in region.kernels:
            if kernel.opcode == "copy" or "transpose" in kernel.holds:
                where[kernel.functions[0] if kernel.functions else kernel.name] += int(kernel.bytes) * row.turns
    total, moving = sum(r.total.bytes for r in rows), where.total()
    if not moving:
        return []
    most = ", ".join(name for name, _ in where.most_common(3))
    return [f"copies and transposes move {moving / total:.1%} of the bytes, most of them in {most}"]


def _serial(program: Region) -> list[str]:
    found: Counter[str] = Counter()
    for region in program.walk():
        for kernel in region.kernels:
            for opcode in ("scatter", "sort"):
                if opcode in kernel.holds:
                    found[f"{opcode} in {kernel.functions[0] if kernel.functions else region.label}"] += 1
    if not found:
        return []
    return ["operations that a GPU does slowly: " + ", ".join(f"{n} x {what}" for what, n in found.most_common())]
