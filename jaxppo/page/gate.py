"""The gate's verdict on a page: what it decided, on which thresholds, and which habits it flagged."""

from __future__ import annotations

from collections.abc import Callable

from jaxppo.page import document, tables
from jaxppo.page.document import Remark
from jaxppo.page.text import FORMS, MISSING, number, percent
from jaxppo.play.gate import AT_MOST, Flag, Gate, Threshold, judged_column

TITLES = {
    "APPROVED": ("good", "APPROVED: every threshold holds"),
    "REVIEW": ("caution", "REVIEW: promising, but not yet worth money"),
    "DROP": ("bad", "DROP: not worth money as it is"),
}


def _flag_text(flag: Flag) -> tuple[str, str]:
    name, value, threshold = flag.name, flag.value, flag.threshold
    if name == "overfit":
        text = f"the run's last validation has fitness {number(value)}; its best allows {number(threshold)} at least"
        return "Overfit", f"Training went on past its peak: {text}."
    if name == "always_hold":
        return "Always holds", f"{percent(value, 0)} of all decisions keep the position; over {percent(threshold, 0)}."
    if name == "always_trade":
        return "Always trades", f"Orders fill on {percent(value, 0)} of all bars; over {percent(threshold, 0)}."
    if name == "one_sided":
        side, share = ("long", value) if value >= 0.5 else ("short", 1 - value)
        text = f"{percent(share, 0)} of the bars in the market were {side}; over {percent(threshold, 0)}"
        return "One-sided", f"{text}. The result may be the market's direction and no skill."
    return name.replace("_", " "), f"{number(value)}, threshold {number(threshold)}."


def section(gate: Gate | None) -> str:
    """The body of a page's section on the gate."""
    if gate is None:
        return '<p class="muted">The gate judges a run when it has finished.</p>'
    found = verdict(gate)
    return (
        f"<p><b>{tables.esc(found.title)}.</b> {tables.esc(found.text)}</p>"
        + table(gate)
        + (document.remark_list(flags(gate)) if gate.flags else "")
        + '<p class="muted">Thresholds are those of the run\u2019s configuration (gate_*). A flag keeps a policy from '
        "APPROVED. The same, for machines: gate.json.</p>"
    )


def flags(gate: Gate) -> list[Remark]:
    """Flagged habits as remarks."""
    return [Remark("caution", *_flag_text(f)) for f in gate.flags]


def verdict(gate: Gate) -> Remark:
    """The verdict, with what stands between the policy and APPROVED."""
    tone, title = TITLES.get(gate.verdict, ("caution", str(gate.verdict)))
    failed = {level: _failed(gate, level) for level in ("REVIEW", "APPROVED")}
    if gate.verdict == "DROP":
        text = f"Below the least for a review: {failed['REVIEW']}."
    elif failed["APPROVED"]:
        text = f"Short of approval: {failed['APPROVED']}."
    else:
        text = "Every threshold holds."
    flagged = [_flag_text(f)[0].lower() for f in gate.flags]
    return Remark(tone, title, text + (f" Flagged: {', '.join(flagged)}." if flagged else ""))


def _named(metric: str) -> tuple[str, Callable[[float], str]]:
    column = judged_column(metric)
    return column.title, FORMS[column.form]


def _failed(gate: Gate, level: str) -> str:
    parts = []
    for reason in gate.reasons:
        if reason.level == level and not reason.passed:
            name, show = _named(reason.metric)
            bound = "at most" if reason.metric in AT_MOST else "at least"
            inside = name if name.startswith("Sharpe") else name[:1].lower() + name[1:]  # Sharpe is a person
            parts.append(f"{inside} {show(reason.value)} ({bound} {show(reason.threshold)})")
    return ", ".join(parts)


def table(gate: Gate) -> str:
    """Every threshold next to the figure that it is held against, a row a metric."""
    rows = []
    for metric in dict.fromkeys(reason.metric for reason in gate.reasons):
        of = {r.level: r for r in gate.reasons if r.metric == metric}
        name, show = _named(metric)
        value = next(iter(of.values())).value
        rows.append([name, show(value), *(_threshold(of.get(level), show) for level in ("REVIEW", "APPROVED"))])
    return tables.table(["", "Here", "For REVIEW", "For APPROVED"], rows)


def _threshold(reason: Threshold | None, show: Callable[[float], str]) -> str:
    if reason is None:
        return MISSING
    sign = "\u2264" if reason.metric in AT_MOST else "\u2265"
    return f"{sign} {show(reason.threshold)}, {'holds' if reason.passed else 'fails'}"
