"""Interactive charts of a run."""

from __future__ import annotations

from jaxppo.page.charts import Chart, Line, growth
from jaxppo.page.text import percent
from jaxppo.store.columns import POOLED
from jaxppo.store.read import RunData, of_symbol, times, values


def equity(run: RunData) -> Chart | None:
    """Pooled equity of the best and the final policy against buy-and-hold; None where there is no pooled curve."""
    pooled = of_symbol(run.shown.equity, POOLED) if run.shown else None
    if pooled is None or pooled.height == 0:
        return None
    only = run.best_is_final or run.best is None
    lines = [Line("policy" if only else "best policy", values(pooled, "equity"), "policy", 2.2)]
    if run.best is not None and run.final is not None and not run.best_is_final:
        lines.append(Line("final policy", values(of_symbol(run.final.equity, POOLED), "equity"), "final", 1.4))
    lines.append(Line("buy-and-hold", values(pooled, "benchmark"), "benchmark"))
    ends = ", ".join(f"{line.name} {percent(line.values[-1] - 1, sign=True)}" for line in lines)
    alt = f"Growth of 1.00 on the validation bars and drawdown. At the end: {ends}."
    return growth("equity", "Equity and drawdown on the validation bars", times(pooled), lines, alt)
