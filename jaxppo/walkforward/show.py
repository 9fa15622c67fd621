"""What is said of a walk-forward on the terminal."""

from __future__ import annotations

from rich.console import Console

from jaxppo.page.terminal import cell, difference_cell, figure_table, gate_line, percent, plain_table
from jaxppo.play.joined import Gap
from jaxppo.play.metrics import METRICS
from jaxppo.play.portfolio import POLICY
from jaxppo.walkforward.files import Result


def show(console: Console, result: Result) -> None:
    """What a trader asks first."""
    s = result.summary
    console.print(
        plain_table(
            f"Folds: the {'kept' if s['early_stop'] else 'last'} policy of each, in sample and out of sample",
            ("fold", "test from", "Sharpe in", "out", "return", "hold", "maxDD", "PF", "trades"),
            [
                (
                    str(r["fold"]),
                    r["test_begin"][:10],
                    cell("number", r["in_sharpe"]),
                    cell("number", r["out_sharpe"]),
                    percent(r["out_return"]),
                    percent(r["out_buy_and_hold_return"]),
                    f"{100 * r['out_max_drawdown']:.1f}%",
                    cell("number", r["out_profit_factor"]),
                    f"{r['out_trades']:,.0f}",
                )
                for r in result.folds.to_dicts()
            ],
        )
    )
    console.print(figure_table("Out of sample, joined, at the same costs", "", list(s["joined"].items())))
    daily = {POLICY: s["portfolio"], **s["baselines"]}
    console.print(figure_table("Rebalanced daily, joined: policy and rules at the same costs", "", list(daily.items())))
    console.print(
        plain_table(
            "Gap, mean of the folds",
            ("figure", "in sample", "out of sample", "gap"),
            [
                (m.column, *(difference_cell(m.form, s["gaps"][m.column][c]) for c in Gap._fields[:3]))
                for m in METRICS.values()
                if m.gap == "first"
            ],
        )
    )
    if s["early_stop"]:
        kept = ", ".join(map(str, s["kept_updates"]))
        console.print(
            f"early stop on the newest {100 * s['early_stop']:g}% of each training part: kept update {kept} of"
            f" {s['updates']}"
        )
    low, high = s["intervals_90"]["sharpe"]
    trials = f"{s['trials']} trial{'' if s['trials'] == 1 else 's'}"
    made, beaten = (round(s[name] * s["folds"]) for name in ("positive_folds", "folds_above_buy_and_hold"))
    console.print(
        f"{made} of {s['folds']} folds made money, {beaten} more than buy-and-hold; Sharpe"
        f" {s['joined']['policy']['sharpe']:.2f}, 90% interval {low:.2f} to {high:.2f}; P(Sharpe > 0)"
        f" {cell('number', s['probabilistic_sharpe'])}, deflated by {trials} {cell('number', s['deflated_sharpe'])}"
    )
    if s["rules_left_out"]:
        console.print(f"rules left out, as some fold has too few bars to fit them: {', '.join(s['rules_left_out'])}")
    console.print(s["handed_over"]["sentence"])
    console.print(s["excess_over_best_rule"]["sentence"])
    console.print(gate_line(result.gate))
