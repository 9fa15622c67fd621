"""What the numbers say: key figures, a verdict, the luck in choosing the best of many looks, and warnings."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from jaxppo.config.schema import EnvConfig
from jaxppo.market.asset_classes import ASSET_CLASSES, may_short
from jaxppo.market.calendar import YEAR
from jaxppo.page.document import Card, Remark
from jaxppo.page.members import members_sentence
from jaxppo.page.scoreboard import Answer
from jaxppo.page.sections import drawdown_card, profit_card, return_card, tone
from jaxppo.page.selection import DRAWDOWN_LIMIT, MIN_TRADES
from jaxppo.page.text import action_name, number, percent, plural
from jaxppo.page.yardsticks import against_rules
from jaxppo.play.alarms import Alarm, Alarms
from jaxppo.play.edge import Edge, edge_text
from jaxppo.play.significance import expected_max_sharpe
from jaxppo.store.columns import POOLED
from jaxppo.store.read import RunData, lookup, of_symbol, pooled_metrics, times, values
from jaxppo.store.tables import drawdown

MIN_BARS = 500
ONE_ACTION_SHARE = 0.70
FINAL_FITNESS_SHARE = 0.5  # a final policy below this share of the best one's fitness has lost what it had learnt


def expected_best_sharpe(looks: int, years: float) -> float:
    """Annualised Sharpe ratio that the best of `looks` independent policies without any skill is expected to show.

    Bailey and Lopez de Prado (2014), "The Deflated Sharpe Ratio", eq. 1, with the standard error 1 / sqrt(years) of
    an annualised Sharpe ratio whose true value is 0. It is 0 for a single look and NaN for no time.
    """
    if years <= 0:
        return math.nan
    return float(expected_max_sharpe(looks, 1 / math.sqrt(years)))


def looks(run: RunData) -> int:
    """Number of validations that the best was chosen from."""
    return int(np.isfinite(values(run.metrics, "val_fitness")).sum())


def years(run: RunData) -> float:
    """Length of the validation period."""
    if run.shown is None or run.shown.equity.height == 0:
        return 0.0
    time = times(run.shown.equity)
    return float((time.max() - time.min()).astype(np.float64)) / YEAR


def luck(run: RunData) -> float:
    """Sharpe ratio that choosing the best of the run's validations would show without any skill."""
    return expected_best_sharpe(looks(run), years(run))


def hold_drawdown(run: RunData) -> float:
    """Largest drawdown of buy-and-hold, all symbols together; NaN where it is not known."""
    rows = of_symbol(run.shown.equity, POOLED) if run.shown else pl.DataFrame()
    return float(np.fmax.accumulate(drawdown(values(rows, "benchmark")))[-1]) if rows.height else math.nan


def cards(run: RunData) -> list[Card]:
    """The six key figures of the policy shown; empty where there is none."""
    m = _Figures(pooled_metrics(run.shown))
    if run.shown is None:
        return []
    best, by_luck = run.best_row, luck(run)
    chosen = f"highest of {looks(run)} validations" if run.best is not None and best is not None else "final policy"
    return [
        return_card(m["return"], m["buy_and_hold_return"]),
        Card(
            "Sharpe ratio",
            number(m["sharpe"]),
            f"no skill, best of {looks(run)}: {number(by_luck)}",
            tone(m["sharpe"] > by_luck, m["sharpe"], by_luck),
        ),
        drawdown_card(m["max_drawdown"], hold_drawdown(run), DRAWDOWN_LIMIT),
        profit_card(m["profit_factor"], f"win rate {percent(m['win_rate'], 0)}"),
        Card(
            "Closed trades",
            number(m["trades"], 0),
            f"exposure {percent(m['exposure'], 0)}",
            "caution" if m["trades"] < MIN_TRADES else "",
        ),
        Card("Fitness", number(m["fitness"]), chosen, ""),
    ]


def verdict(run: RunData) -> Remark:
    """One sentence on what the key figures add up to."""
    m = _Figures(pooled_metrics(run.shown))
    if run.shown is None:
        return Remark("caution", "No validated policy yet", "The run directory holds no complete validation.")
    against = against_rules(run.portfolios, "best" if run.best is not None else "final")
    text = _in_money(run, m) + (f" {against.sentence}" if against else "") + members_sentence(run.members)
    if m["trades"] == 0:
        return Remark("bad", "The policy closed no trade", text)
    if not m["return"] > 0:
        return Remark("bad", "Loses money on the validation bars", text)
    if not m["return"] > m["buy_and_hold_return"]:
        return Remark("caution", "Makes money, but less than buying and holding", text)
    if against is not None and against.beaten:
        return Remark("caution", f"Makes money, but no better than the best simple rule: {against.rule}", text)
    if not m["sharpe"] > luck(run):
        return Remark("caution", f"Beats buy-and-hold, but not the luck of the best of {looks(run)}", text)
    if looks(run) <= 1:
        return Remark("good", "Beats buy-and-hold at the only look taken", text)
    return Remark("good", f"Beats buy-and-hold, and the luck expected of the best of {looks(run)}", text)


def untested(run: RunData, policy: str) -> Answer:
    """That nothing decides yet: what the validation bars say, and what to do."""
    found, sharpe = verdict(run), run.portfolios[policy]["sharpe"]
    judged = "" if run.gate is None else f" The gate says {run.gate.verdict} of it."
    sentence = (
        f"On the bars that it was chosen by: {found.title[:1].lower()}{found.title[1:]}.{judged} What decides is a test"
        " on bars that the run has not seen: python -m jaxppo.backtest with this run\u2019s folder."
    )
    meaning = f"of the {policy} policy, rebalanced daily, on the validation bars, after costs"
    tone = "bad" if found.tone == "bad" else "caution"
    return Answer(tone, "Not yet tested", sentence, f"Sharpe ratio {number(sharpe)} a year", meaning, looked_at=True)


def caveat(run: RunData) -> str:
    """How far the headline can be trusted, given how often the validation bars were looked at."""
    n = looks(run)
    if n <= 1:
        return (
            "The validation bars were looked at once, so nothing was chosen by them. They are one stretch of one "
            "market's past all the same; bars that the run has not seen decide."
        )
    decide = "" if run.tested else " The test split has not been used here; let it, or paper trading, decide."
    return (
        f"The best of {n} looks at the same validation bars is shown, and choosing it makes every figure on this page "
        f"too good. Among {n} independent policies with no skill at all, the best would be expected to show a Sharpe "
        f"ratio of about {number(luck(run))} over a period this long. Validations of one run resemble each other, so "
        f"that is an upper bound for luck, but never zero.{decide}"
    )


def warnings(run: RunData) -> list[Remark]:
    """What a trader should see before believing the headline, the gravest first."""
    found = [
        *_progress_warnings(run),
        *_edge(run),
        *_trade_warnings(run),
        *_sample_warnings(run),
        *_training_warnings(run),
    ]
    none = "Enough trades and bars, no action that is nearly always taken, no deep drawdown."
    return sorted(found, key=lambda remark: remark.tone != "bad") or [Remark("good", "None of the usual ones", none)]


class _Figures(dict[str, float]):
    """Metrics by name, NaN where one is missing."""

    def __missing__(self, name: str) -> float:
        return math.nan


def _in_money(run: RunData, m: _Figures) -> str:
    assert run.shown is not None
    time = times(run.shown.equity)
    period = (
        f"From {time.min().astype('datetime64[D]')} to {time.max().astype('datetime64[D]')}" if len(time) else "Here"
    )
    which = "best" if run.best is not None else "final"
    return (
        f"{period}, after fees, spread, slippage and borrow cost, 1.00 in the {which} policy became "
        f"{number(1 + m['return'])}; bought and held at the same costs it became "
        f"{number(1 + m['buy_and_hold_return'])}. On the way the policy was at worst {percent(m['max_drawdown'])} "
        f"below its highest point, buy-and-hold {percent(hold_drawdown(run))}."
    )


def _progress_warnings(run: RunData) -> list[Remark]:
    found = []
    if lookup(run.manifest, "finished") is None:
        done = values(run.metrics, "update")
        last = f"its last validation was at update {number(done[-1], 0)}" if len(done) else "it has no validation yet"
        total = lookup(run.config, "budget", "n_updates", default="?")
        found.append(Remark("caution", "The run has not finished", f"Of {total} updates planned, {last}."))
    for which, evaluation in (("best", run.best), ("final", run.final)):
        if evaluation is None:
            found.append(
                Remark(
                    "caution",
                    f"No {which} policy",
                    f"The validation/{which}_* files are not all there; what needs them is left out of this page.",
                )
            )
    return found


def _trade_warnings(run: RunData) -> list[Remark]:
    if run.shown is None:
        return []
    m, found = _Figures(pooled_metrics(run.shown)), []
    count = run.shown.trades.height
    if count < MIN_TRADES:
        text = (
            f"Only {plural(count, 'trade')} closed; under {MIN_TRADES}, win rate and profit factor are mostly chance."
            if count
            else "Not one was closed, so there is nothing that the policy could be judged by."
        )
        found.append(Remark("bad", "Too few trades", text))
    share, label = _commonest_action(run)
    if share > ONE_ACTION_SHARE:
        text = f"{percent(share, 0)} of all decisions were \u201c{label}\u201d; at 100 % a policy reacts to nothing."
        found.append(Remark("bad", "Nearly always the same action", text))
    sides = run.shown.trades["side"].unique().to_list()
    if len(sides) == 1 and (sides[0] == "short" or _may_short(run)):
        text = f"Every trade was {sides[0]}; the result may be nothing but the direction of the market."
        found.append(Remark("caution", "One side only", text))
    if m["max_drawdown"] > DRAWDOWN_LIMIT:
        text = (
            f"Equity fell {percent(m['max_drawdown'])} from its highest point; more than {percent(DRAWDOWN_LIMIT, 0)}."
        )
        found.append(Remark("bad", "Deep drawdown", text))
    if math.isinf(m["profit_factor"]):
        text = "Not one trade lost money, so the profit factor is infinite: too small a sample, or too good to be true."
        found.append(Remark("caution", "No losing trade", text))
    ruined = run.shown.trades.filter(pl.col("reason") == "liquidation")["symbol"].unique().sort().to_list()
    if ruined:
        found.append(Remark("bad", "Liquidated", f"The account was ruined on {', '.join(ruined)}."))
    return found


def _edge(run: RunData) -> list[Remark]:
    """What a policy without trades leans to, or one that loses earns before costs, beside what trading costs."""
    found = lookup(run.manifest, "finished", "edge")
    edge = Edge.of(found) if isinstance(found, dict) else None
    if edge is None or not edge.explains:
        return []
    title = "Why it does not trade" if edge.trades == 0 else "Costs take more than it earns"
    return [Remark("caution", title, edge_text(edge))]


def _sample_warnings(run: RunData) -> list[Remark]:
    found = [Remark("caution", "Data", text) for text in lookup(run.manifest, "data", "warnings", default=[])]
    if run.shown is None:
        return found
    bars = of_symbol(run.shown.equity, POOLED).height or run.shown.equity.height
    if bars < MIN_BARS:
        error = number(1 / math.sqrt(years(run))) if years(run) > 0 else "unknown"
        text = (
            f"{plural(bars, 'bar')} ({number(365.25 * years(run), 0)} days), fewer than {MIN_BARS}; over so short a "
            f"time the standard error of the Sharpe ratio is about {error}."
        )
        found.append(Remark("caution", "Short validation", text))
    best, final = (_Figures(pooled_metrics(e))["fitness"] for e in (run.best, run.final))
    if best > 0 and final < FINAL_FITNESS_SHARE * best:
        text = (
            f"Fitness {number(final)} at the end, {number(best)} at its best; training went on past what generalises."
        )
        found.append(Remark("caution", "The final policy is well under the best", text))
    return found


def _training_warnings(run: RunData) -> list[Remark]:
    found = []
    if run.metrics.height > 1 and run.best_row == 0:
        text = (
            "No later validation was better than the one before the first update; nothing that generalises was learnt."
        )
        found.append(Remark("bad", "The untrained policy is the best", text))
    return found + _alarms(run)


def _alarms(run: RunData) -> list[Remark]:
    """One remark an alarm, with every stretch of updates over which it lasted."""
    labels = lookup(run.manifest, "actions", "labels", default=[])
    by_name: dict[str, list[Alarm]] = {}
    for alarm in Alarms(labels, run.metrics.to_dicts() if "update" in run.metrics.columns else ()).found:
        by_name.setdefault(alarm.name, []).append(alarm)
    found = []
    for alarms in by_name.values():
        lasts = alarms[-1].until is None
        spans = [f"from update {a.since} {f'to {a.until}' if a.until is not None else 'to the end'}" for a in alarms]
        worst = alarms[-1].text
        text = f"{worst[0].upper()}{worst[1:]}. Alarm {', '.join(spans)}."
        found.append(Remark("bad" if lasts else "caution", alarms[-1].title, text))
    return found


def _commonest_action(run: RunData) -> tuple[float, str]:
    """Share of decisions of the action taken most, and its name; (0, "") without decisions."""
    assert run.shown is not None
    actions = run.shown.equity.filter(pl.col("symbol") != POOLED)["action"].drop_nulls()
    if actions.len() == 0:
        return 0.0, ""
    counts = actions.value_counts(sort=True)
    index = int(counts["action"][0])
    labels = lookup(run.manifest, "actions", "labels", default=[])
    return counts["count"][0] / actions.len(), action_name(str(labels[index])) if index < len(labels) else f"{index}"


def _may_short(run: RunData) -> bool:
    """Whether any symbol of the run may be sold short."""
    env = EnvConfig(allow_short=lookup(run.config, "env", "allow_short"))
    classes = {lookup(symbol, "asset_class") for symbol in lookup(run.manifest, "data", "symbols", default=[])}
    return any(may_short(name, env) for name in classes if name in ASSET_CLASSES)
