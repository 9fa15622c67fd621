"""Everything that was measured, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.run import FAILED, NOT_RUN, STOPPED, Took, line
from benchmarks.gpu.steps import BASE, VARIANTS

Results = Mapping[str, Any]
STAGES = {"env": "env only", "policy": "+ policy", "update": "+ update"}
HEAVIEST = 6


def wrong(results: Results) -> list[str]:
    """A sentence for each check that ran and did not hold."""
    found = []
    for mode, of in results.get("agree", {}).get("modes", {}).items():
        off = [f"{k} {of[k]:.1e} (at most {limit:.0e})" for k, limit in of["limits"].items() if not of[k] <= limit]
        if off:
            found.append(f"agree: in {mode} the GPU is off the CPU by {', '.join(off)}")
    if differ := bits_that_differ(results):
        found.append(f"bits: {len(differ)} arrays differ, the first is {differ[0]}")
    tests = results.get("tests", {})
    if tests.get("missing"):
        found.append(f"tests: {' and '.join(tests['missing'])} missing, so none was run")
    elif tests and (tests["status"] or not tests["passed"]):
        found.append(f"tests: {len(tests['failed'])} failed: {', '.join(tests['failed'][:12]) or 'see tests.log'}")
    for name in (BASE, *VARIANTS):
        if not results.get(name, {}).get("finite", True):
            found.append(f"{name}: gradient or parameters are not finite")
    return found


def bits_that_differ(results: Results) -> list[str]:
    """Arrays whose hash the second run has not, or only it has."""
    if not {"bits_1", "bits_2"} <= set(results):
        return []
    one, two = results["bits_1"], results["bits_2"]
    return sorted(name for name in {**one, **two} if one.get(name) != two.get(name))


def table(results: Results, took: Mapping[str, Took]) -> list[str]:
    """Lines for the terminal: what ran, then what was wrong, then what did not run."""
    lines = [*_card(results), *_checks(results), *_programs(results), *_profile(results), *_envs(results)]
    lines += _commands(results)
    lines += [f"WRONG  {sentence}" for sentence in wrong(results)]
    lines += [f"FAILED {line(name, of)}" for name, of in took.items() if of.status == FAILED]
    if cut := [name for name, of in took.items() if of.status == STOPPED]:
        lines.append(f"stopped before the end: {', '.join(cut)}")
    if left_out := [name for name, of in took.items() if of.status == NOT_RUN]:
        lines.append(f"not run for want of time: {', '.join(left_out)}")
    return lines


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned: the first to the left, figures to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _card(results: Results) -> list[str]:
    card = results.get("card")
    if not card:
        return []
    versions = ", ".join(f"{k} {v}" for k, v in card["versions"].items())
    return [
        f"{card['device']}; {versions}",
        f"copy {card['copy_tb_s']:.3g} TB/s; matmul TFLOP/s: TF32 {card['tf32_tflops']:.3g}, float32"
        f" {card['float32_tflops']:.3g}, bfloat16 {card['bfloat16_tflops']:.3g}; of a minibatch's rows, 64 wide: TF32"
        f" {card['tf32_thin_us']:.3g} us, float32 {card['float32_thin_us']:.3g} us, bfloat16"
        f" {card['bfloat16_thin_us']:.3g} us",
        f"dispatch {card['dispatch_us']:.3g} us, turn of a loop {card['loop_turn_us']:.3g} us, chained kernel"
        f" {card['chained_kernel_us']:.3g} us",
    ]


def _checks(results: Results) -> list[str]:
    lines = []
    modes = results.get("agree", {}).get("modes", {})
    if modes:
        rows = [["GPU against CPU", "gradient", "update's weights", "accounts", ""]]
        rows += [
            [
                mode,
                f"{of['gradient']:.1e}",
                f"{of['weights']:.1e}",
                f"{of['lanes']:.2%}",
                "ok" if of["passed"] else "WRONG",
            ]
            for mode, of in modes.items()
        ]
        lines += ["", *columns(rows)]
    if {"bits_1", "bits_2"} <= set(results):
        same = "differ" if bits_that_differ(results) else f"the same bits in {len(results['bits_1'])} arrays"
        lines.append(f"deterministic twice: {same}")
    tests = results.get("tests", {})
    if "passed" in tests:
        lines.append(f"tests: {tests['passed']} passed, {len(tests['failed'])} failed")
    return lines


def _programs(results: Results) -> list[str]:
    found = {name: results[name] for name in (BASE, *VARIANTS) if "update_ms" in results.get(name, {})}
    if not found:
        return []
    peak = results.get("card", {}).get("copy_tb_s")
    head = "production's program,update ms,validation ms,steps/s,whole run s,compile s,peak MiB,kernels,GB,TB/s,of copy"
    rows = [head.split(",")]
    for name, of in found.items():
        moved = of.get("counts", {}).get("update_gb")
        rate = moved / of["update_ms"] if moved else None
        rows.append(
            [
                "as it is" if name == BASE else name,
                f"{of['update_ms']:.2f}",
                f"{of['validation_ms']:.1f}",
                f"{of['steps_s']:,.0f}",
                f"{of['run_s']:.1f}",
                f"{of['compile_s']:.1f}",
                f"{of['peak_mib'] or of['program_mib']:,.0f}",
                f"{of['counts']['update_kernels']:,.0f}" if moved else "",
                f"{moved:.3g}" if moved else "",
                f"{rate:.3g}" if rate else "",
                f"{rate / peak:.0%}" if rate and peak else "",
            ]
        )
    note = "kernels, GB and TB/s are those of an update: counted in the compiled program, over the seconds measured"
    return ["", *columns(rows), f"({note}; whole run: updates and validations alone)"]


def _profile(results: Results) -> list[str]:
    profile = results.get(BASE, {}).get("profile")
    if not profile:
        return []
    n, updates, alone = profile["n_updates"], profile["updates"], profile["validation"]
    lines = [""]
    for words, of in ((f"{n} updates", updates), ("a validation", alone)):
        short = of["short"] / max(of["launches"], 1)
        lines.append(
            f"profile of {words}: {of['launches']:,} kernels, {of['busy_ms']:,.1f} ms busy, {short:.0%} under 3 us"
        )
    rows = [["scope", "update ms", "kernels", "validation ms", "kernels"]]
    none = {"ms": 0.0, "launches": 0}
    for name in {**updates["stages"], **alone["stages"]}:
        one, other = updates["stages"].get(name, none), alone["stages"].get(name, none)
        rows.append(
            [
                name,
                f"{one['ms'] / n:,.2f}",
                f"{one['launches'] / n:,.0f}",
                f"{other['ms']:,.2f}",
                f"{other['launches']:,}",
            ]
        )
    lines += columns(rows)
    rows = [["heaviest", "ms", "launches", "us each", "scope"]]
    for words, of in (("update", updates), ("validation", alone)):
        for k in of["heaviest"][:HEAVIEST]:
            scope = k["stage"] if words == "update" else f"{words}: {k['stage']}"
            rows.append([k["kernel"][:48], f"{k['ms']:,.2f}", f"{k['launches']:,}", f"{k['us']:.1f}", scope])
    return lines + columns(rows)


def _envs(results: Results) -> list[str]:
    measured = results.get("envs", {}).get("rows", [])
    if not measured:
        return []
    rows = [["envs", *(f"{name}, steps/s" for name in STAGES.values()), "update ms", "program MiB"]]
    for n in dict.fromkeys(row["envs"] for row in measured):
        of = {row["stage"]: row for row in measured if row["envs"] == n}
        speeds = [f"{of[s]['steps_s']:,.0f}" if "steps_s" in of.get(s, {}) else "failed" for s in STAGES]
        update = of.get("update", {})
        ms = f"{update['ms']:.2f}" if "ms" in update else ""
        rows.append([f"{n:,}", *speeds, ms, f"{update['program_mib']:,.0f}" if update else ""])
    errors = [f"{row['envs']:,} envs, {row['stage']}: {row['error']}" for row in measured if "error" in row]
    return ["", *columns(rows), *errors]


def _commands(results: Results) -> list[str]:
    rows = [
        ["by the command line", "steps", "training s", "steps/s", "compile s", "whole command s", "card while busy"]
    ]
    for name in ("quick_test", "production"):
        of = results.get(name)
        if not of:
            continue
        card = of["card"]
        busy = (
            f"{card['utilisation_percent']:.0f} %, {card['watts']:.0f} W, {card['clock_mhz']:.0f} MHz" if card else ""
        )
        rows.append(
            [name, f"{of['steps']:,}", f"{of['run_s']:.1f}", f"{of['steps_s']:,.0f}", f"{of['compile_s']:.1f}",
             f"{of['wall_s']:.1f}", busy]
        )  # fmt: skip
    return ["", *columns(rows)] if len(rows) > 1 else []
