"""Tables of the page: plain cells in, HTML out. Every text goes through `esc` here and nowhere is it trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import polars as pl

from jaxppo.config.schema import GROUPS, Config, to_dict
from jaxppo.page.text import FORMS, MISSING, moment, number, percent, plain_value
from jaxppo.play.metrics import BUY_AND_HOLD, METRICS, Column
from jaxppo.store.columns import COMPONENT, POOLED, PORTFOLIO, TRAINING
from jaxppo.store.read import Evaluation, Provenance, RunData, lookup, pooled_metrics, portfolio_metrics, values

HASH_DIGITS = 12
SIDES = {"long": "Long", "short": "Short"}
REASONS = {
    "order": "Closed by an order",
    "stop": "Stop-loss",
    "take_profit": "Take-profit",
    "liquidation": "Liquidation",
    "end": "Open at the end",
}


def esc(text: Any) -> str:
    """`text` as HTML text or attribute value."""
    return escape(str(text), quote=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1, total: int | None = None) -> str:
    """HTML table of plain text cells. The columns after the first `text_columns` are right-aligned numbers; row
    `total` is set apart.
    """

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = ["" if i < text_columns else ' class="num"' for i in range(len(cells))]
        return "".join(f"<{tag}{kind}>{esc(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

    kind = ' class="dense"' if len(head) > 12 else ""
    marks = [' class="total"' if i == total else "" for i in range(len(rows))]
    body = "".join(f"<tr{mark}>{line(row, 'td')}</tr>" for mark, row in zip(marks, rows, strict=True))
    top = f"<thead><tr>{line(head, 'th')}</tr></thead>"
    return f'<div class="scroll"><table{kind}>{top}<tbody>{body}</tbody></table></div>'


def definitions(pairs: Sequence[tuple[str, str]], kind: str = "facts") -> str:
    """HTML definition list of plain text."""
    items = "".join(f"<dt>{esc(name)}</dt><dd>{esc(value)}</dd>" for name, value in pairs)
    return f'<dl class="{esc(kind)}">{items}</dl>'


def symbol_table(evaluation: Evaluation) -> str:
    """Metrics of each symbol, the highest net return first, under those of all symbols together."""
    frame = evaluation.symbols
    pooled = frame.filter(pl.col("symbol") == POOLED)
    portfolio = frame.filter(pl.col("symbol") == PORTFOLIO)
    single = frame.filter(~pl.col("symbol").is_in([POOLED, PORTFOLIO]))
    if "return" in frame.columns:
        single = single.sort("return", descending=True)
    named = [("All together", row) for row in pooled.to_dicts()]
    named += [("Rebalanced daily", row) for row in portfolio.to_dicts()]
    named += [(row["symbol"], row) for row in single.to_dicts()]
    return metric_tables("Symbol", named, total=0 if pooled.height else None)


def comparison_table(run: RunData) -> str:
    """The pooled metrics of the best and the final policy; empty where they are the same or one is missing."""
    best, final = pooled_metrics(run.best), pooled_metrics(run.final)
    if not best or not final or run.best_is_final:
        return ""
    named = [("Best", best), ("Best, rebalanced daily", portfolio_metrics(run.best))]
    named += [("Final", final), ("Final, rebalanced daily", portfolio_metrics(run.final))]
    shown = [(name, row) for name, row in named if row]
    return "<h3>The best policy and the final one</h3>" + metric_tables("Policy", shown)


def page_columns() -> dict[str, tuple[Column, bool]]:
    """What a table of metrics may show, by the column of files, and whether at first; in the order shown."""
    found: dict[str, tuple[Column, bool]] = {}
    for metric in METRICS.values():
        found[metric.column] = (metric, metric.page == "first")
        if metric.name == "net_return":
            found[BUY_AND_HOLD.name] = (BUY_AND_HOLD, True)
    return found


def metric_tables(corner: str, named: Sequence[tuple[str, dict[str, Any]]], total: int | None = None) -> str:
    """A line of metrics for each name, the less common ones in a second, folded table."""
    names = list(dict.fromkeys(name for _, row in named for name in row if name != "symbol"))
    columns = page_columns()
    first = [name for name, (_, at_first) in columns.items() if at_first and name in names]
    rest = [name for name, (_, at_first) in columns.items() if not at_first and name in names]
    rest += [name for name in names if name not in columns]

    def part(shown: list[str]) -> str:
        found = [columns[name][0] if name in columns else Column(name, "", name.replace("_", " ")) for name in shown]
        rows = [
            [name, *(FORMS[c.form](row.get(key, math.nan)) for key, c in zip(shown, found, strict=True))]
            for name, row in named
        ]
        return table([corner, *(c.title for c in found)], rows, total=total)

    return part(first) + (f"<details><summary>More metrics</summary>{part(rest)}</details>" if rest else "")


def trade_table(evaluation: Evaluation) -> str:
    """Closed trades by side and by why they were closed."""
    trades = evaluation.trades
    rows = [_trade_row("All trades", trades)]
    for column, names in (("side", SIDES), ("reason", REASONS)):
        there = trades[column].unique().sort().to_list()
        for value in sorted(there, key=lambda name: list(names).index(name) if name in names else len(names)):
            rows.append(_trade_row(names.get(value, value), trades.filter(pl.col(column) == value)))
    head = ["Trades", "Number", "Gains", "Mean return", "Best", "Worst", "Mean bars held", "Net profit", "Fees"]
    return table(head, rows, total=0)


def _trade_row(name: str, trades: pl.DataFrame) -> list[str]:
    returns, pnl = values(trades, "return"), values(trades, "pnl")
    if trades.height == 0:
        return [name, "0", *[MISSING] * 7]
    return [
        name,
        number(trades.height, 0),
        percent(float((pnl > 0).mean()), 0),
        percent(float(returns.mean()), 2, sign=True),
        percent(float(returns.max()), 2, sign=True),
        percent(float(returns.min()), 2, sign=True),
        number(float(values(trades, "bars").mean()), 1),
        number(float(pnl.sum()), 4),
        number(float(values(trades, "fees").sum()), 4),
    ]


def data_table(manifest: dict[str, Any]) -> str:
    """The symbols of the run: how many bars, from when to when, and the decisions of each split."""
    rows = [
        [
            *(str(lookup(symbol, key, default=MISSING)) for key in ("symbol", "asset_class")),
            *(str(lookup(symbol, key, default=MISSING))[:10] for key in ("start", "end")),
            _count(lookup(symbol, "bars")),
            *(_count(lookup(symbol, "splits", split)) for split in ("train", "validation", "test")),
        ]
        for symbol in lookup(manifest, "data", "symbols", default=[])
    ]
    head = ["Symbol", "Class", "From", "To", "Bars", "Train", "Validation", "Test"]
    return table(head, rows, text_columns=4)


def _count(value: Any) -> str:
    return number(value, 0) if isinstance(value, (int, float)) else MISSING


def facts(run: Provenance) -> list[tuple[str, str]]:
    """What ran where, how fast, and on what."""
    m = run.manifest

    def at(*keys: str) -> str:
        value = lookup(m, *keys)
        return MISSING if value is None else plain_value(value)

    speed = lookup(m, "finished", "steps_per_second")
    cutoffs = [moment(t) for t in lookup(m, "data", "cutoffs", default=[]) or []]
    pairs = [
        ("Run", run.name),
        ("Created", moment(lookup(m, "created", default=MISSING))),
        ("Device", f"{at('device', 'count')} x {at('device', 'kind')} ({at('device', 'platform')})"),
        ("Speed", MISSING if speed is None else f"{number(speed, 0)} env steps/s, validations included"),
        ("Run time", _seconds(lookup(m, "finished", "run_seconds"))),
        ("Compilation", _seconds(lookup(m, "compile_seconds"))),
        ("Env steps", _count(lookup(m, "finished", "env_steps"))),
        ("Best update", _count(lookup(m, "finished", "best_update"))),
        ("Updates", _count(lookup(m, "finished", "updates"))),
        ("Data", at("data", "source")),
        ("Data hash", at("data", "hash")[:HASH_DIGITS]),
        ("Splits cut at", ", ".join(cutoffs) or MISSING),
        ("Purged bars", at("data", "purge_bars")),
        ("Actions", f"{at('actions', 'name')}: {at('actions', 'labels')}"),
        ("Features", f"{len(lookup(m, 'features', 'names', default=[]))}, hash {at('features', 'hash')[:HASH_DIGITS]}"),
        ("History needed", f"{at('features', 'min_bars')} bars"),
        *(_program_fact(key, value) for key, value in lookup(m, "program", default={}).items()),
        *(_changed_environment(entry) for entry in lookup(m, "environments", default=[])),
        ("Versions", f"jaxppo {at('jaxppo')}, Python {at('python')}, {at('versions')}"),
    ]
    return [(name, value) for name, value in pairs if value != MISSING]


def _changed_environment(entry: dict[str, Any]) -> tuple[str, str]:
    """What a run went on with after it was stopped, where that differed from before."""
    changed = lookup(entry, "changed", default={})
    told = [f"{name} {lookup(of, 'now')} (before {lookup(of, 'before')})" for name, of in changed.items()]
    return f"Since update {lookup(entry, 'at', default='?')}", ", ".join(told)


def _program_fact(key: str, value: Any) -> tuple[str, str]:
    """A fact about the compiled program; bytes as MiB."""
    if key.endswith("_bytes") and isinstance(value, (int, float)):
        return "Program: " + key.removesuffix("_bytes").replace("_", " "), f"{number(value / 2**20, 1)} MiB"
    if key == "deterministic":  # only asks a GPU for slower kernels: without it a CPU gives the same bits all the same
        return "Program: --deterministic", plain_value(value)
    return "Program: " + key.replace("_", " "), plain_value(value)


def _seconds(value: Any) -> str:
    if not isinstance(value, (int, float)):
        return MISSING
    minutes, seconds = divmod(float(value), 60)
    return f"{minutes:.0f} min {seconds:.0f} s" if minutes else f"{seconds:.1f} s"


def changed_table(run: Provenance) -> str:
    """The configuration values that differ from the defaults of the run or of today, and where each came from."""
    default = dict(_flat(to_dict(Config())))
    rows = [[*row[:2], plain_value(default.get(row[0])), row[2]] for row in _config_rows(run, changed=default)]
    return table(["Field", "Value", "Default", "Set by"], rows, text_columns=4)


def config_table(run: Provenance) -> str:
    """All configuration values, and where each came from."""
    return table(["Field", "Value", "Set by"], _config_rows(run), text_columns=3)


def _config_rows(run: Provenance, changed: dict[str, Any] | None = None) -> list[list[str]]:
    sources = lookup(run.manifest, "sources", default={})
    return [
        [name, plain_value(value), str(sources.get(name, MISSING))]
        for name, value in _flat(run.config)
        if changed is None or name in sources or name not in changed or changed[name] != value
    ]


def _flat(config: dict[str, Any]) -> list[tuple[str, Any]]:
    """Fields and values of a nested configuration; field names are unique over the groups."""
    pairs: list[tuple[str, Any]] = []
    for name, value in config.items():
        pairs += list(value.items()) if name in GROUPS and isinstance(value, dict) else [(name, value)]
    return pairs


def glossary() -> str:
    """What each number on the page means."""
    named: list[Column] = [column for column, _ in page_columns().values()]
    named += [column for column in (*TRAINING, *COMPONENT) if column.title]
    pairs = [(column.title, column.meaning) for column in named]
    return definitions(
        [
            *pairs,
            (
                "Pooled",
                "All symbols together: equal money in the account of each at the start, never rebalanced.",
            ),
            (
                "Rebalanced daily",
                "The mean of the symbols\u2019 returns day by day, over those that are traded on that day (UTC): equal"
                " money in each anew every day, which the field measures by. Moving money between them is free here.",
            ),
        ],
        "glossary",
    )
