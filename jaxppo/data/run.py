"""The quality of bars from the command line: a table of symbols, every finding and its remedy, a file for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxppo.config.schema import BarsFilter
from jaxppo.market.bars import Refusal, describe_symbols, survey_bars
from jaxppo.market.calendar import format_interval
from jaxppo.market.doubts import CLOSES_ALONE, BarsReport, Finding, inspect_all
from jaxppo.market.files import passed_over
from jaxppo.page.terminal import plain_console
from jaxppo.store.directory import iso, require_new_file
from jaxppo.store.json import write_json

REFUSED, DOUBTFUL = 2, 1
_STYLES = {"ok": "green", "doubtful": "yellow", "refused": "red"}
_WIDTH = 110  # which holds the table of symbols of usual length; a narrower terminal wraps its lines


@dataclass(frozen=True, kw_only=True)
class DataOptions(BarsFilter):
    """What to check."""

    command: Annotated[Literal["check"], tyro.conf.Positional]
    """check: look at bars; nothing is changed."""
    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """File or folder of Parquet or CSV bars."""
    strict: bool = False
    """End with status 1 where a symbol is doubtful."""
    out: Path | None = None
    """JSON file to write, which must not exist yet."""


def check_data(options: DataOptions) -> int:
    """Survey, print and write; the exit status: 2 where something is refused, 1 where `strict` finds doubts, else 0."""
    if options.out is not None:
        require_new_file(options.out)
    bars, refused = survey_bars(
        options.path,
        interval=options.interval,
        symbols=options.symbols,
        timezone=options.timezone,
        asset_classes=options.asset_classes,
        symbol_from=options.symbol_from,
    )
    reports = inspect_all(bars)
    unread = passed_over(Path(options.path))
    console = plain_console()
    console.width = max(console.width, _WIDTH)
    show(console, reports, refused, unread, describe_symbols(bars))
    if options.out is not None:
        write_json(options.out, as_json(reports, refused, unread))
        console.print(Text(f"written: {options.out}"))
    if refused:
        return REFUSED
    return DOUBTFUL if options.strict and any(r.verdict == "doubtful" for r in reports) else 0


def as_json(reports: Sequence[BarsReport], refused: Sequence[Refusal], unread: Sequence[str]) -> dict[str, object]:
    """All that `show` prints, for machines; times as ISO 8601."""

    def finding(f: Finding) -> dict[str, object]:
        return {k: v for k, v in asdict(f).items() if k != "symbol"} | {"time": iso(f.time)}

    symbols = []
    for r in reports:
        plain = asdict(r) | {"interval": format_interval(r.interval), "start": iso(r.start), "end": iso(r.end)}
        symbols.append(plain | {"verdict": r.verdict, "findings": [finding(f) for f in r.findings]})
    return {"symbols": symbols, "refused": [asdict(r) for r in refused], "not_read": list(unread)}


def show(
    console: Console,
    reports: Sequence[BarsReport],
    refused: Sequence[Refusal],
    unread: Sequence[str],
    symbols: Sequence[str],
) -> None:
    """The table, what was made of file names, what was refused, then findings by kind, the doubtful ones first."""
    # Symbols and file names are not ours: as Text they cannot be taken for the console's own markup.
    console.print(_table(reports, refused))
    console.print(Text("\n".join(["", *symbols])) if symbols else Text(""))
    for refusal in refused:
        console.print(Text(f"refused: {refusal.reason}", style=_STYLES["refused"]))
    groups: dict[tuple[str, str, str], list[str]] = {}
    for level in ("doubtful", "note"):
        for report in reports:
            for f in report.findings:
                if f.level == level and f.kind != CLOSES_ALONE:  # told in one line beside the classes
                    line = f"  {f.symbol} {format_interval(report.interval)}: {f.text}"
                    groups.setdefault((level, f.kind, f.remedy), []).append(line)
    for (level, kind, remedy), lines in groups.items():
        console.print(Text(f"\n{level}: {kind}", style=_STYLES["doubtful"] if level == "doubtful" else "bold"))
        console.print(Text("\n".join(lines)))
        console.print(Text(f"  What to do: {remedy}."))
    if unread:
        console.print(Text(f"\nnot read, no bars as they are: {', '.join(unread)}"))
    verdicts = [r.verdict for r in reports]
    counts = {"ok": verdicts.count("ok"), "doubtful": verdicts.count("doubtful"), "refused": len(refused)}
    console.print(Text("\n" + ", ".join(f"{n} {name}" for name, n in counts.items()), style="bold"))


def _table(reports: Sequence[BarsReport], refused: Sequence[Refusal]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("symbol", "class", "bar"):
        table.add_column(heading, no_wrap=True)
    for heading in ("bars", "from", "to", "missing", "gaps", "no volume", "stale", "outliers"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for r in reports:
        cells = (
            r.symbol,
            r.asset_class,
            format_interval(r.interval),
            f"{r.bars:,}",
            iso(r.start)[:10],
            iso(r.end)[:10],
            f"{r.missing:,}",
            f"{r.gaps:,}",
            f"{r.zero_volume:.2%}" if r.zero_volume else "0",
            f"{r.stale:,}",
            f"{r.outliers:,}",
        )
        table.add_row(*map(Text, cells), Text(r.verdict, style=_STYLES[r.verdict]))
    for refusal in refused:
        row = (Text(refusal.symbol), Text(""), Text(""), *(Text("") for _ in range(8)))
        table.add_row(*row, Text("refused", style=_STYLES["refused"]))
    return table
