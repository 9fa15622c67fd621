"""A session's journal through the account of the environment, to a folder of tables, summary.json and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxppo.market.quality import format_time
from jaxppo.replay.journaled import CAUSES, Compared, Parted, replay_session
from jaxppo.store.directory import iso, whole_folder
from jaxppo.store.files import write_csv
from jaxppo.store.json import write_json
from jaxppo.store.sessions import Session, read_session

EQUITY, DIFFERENCES, DECISIONS, SUMMARY = "equity.csv", "differences.csv", "decisions.csv", "summary.json"


def replay_journal(journal: Path, out: Path) -> Path:
    """Replay a session's decisions and write how its money differs from the account's; returns the folder.

    Raises:
      DataError: no journal there, or one that cannot be used.
      RunDirectoryError: `out` holds something; nothing is written.
    """
    from jaxppo.replay.journal_page import write_journal_report  # matplotlib takes a second to import

    session = read_session(journal)
    compared = replay_session(session)
    with whole_folder(out) as folder:
        rows = [row for c in compared for row in zip([c.symbol] * len(c.time), c.time, c.live, c.account, strict=True)]
        write_csv(folder / EQUITY, ("symbol", "time", "live", "account"), rows)
        causes = (*CAUSES, "rounding")
        table = [[c.symbol, c.difference, *(c.items[cause] for cause in causes)] for c in compared]
        write_csv(folder / DIFFERENCES, ("symbol", "difference", *causes), table)
        parted = sorted((p for c in compared for p in c.parted), key=lambda p: (p.time, p.symbol))
        rows_of = [(iso(p.time), p.symbol, iso(p.decided), *p[3:]) for p in parted]
        write_csv(folder / DECISIONS, Parted._fields, rows_of)
        write_json(folder / SUMMARY, _summary(session, compared))
        write_journal_report(folder)
    for line in told(compared):
        print(line)
    print(f"page: {out / 'report.html'}")
    return out


def total(compared: Sequence[Compared]) -> dict[str, float]:
    """Money by cause over all symbols."""
    return {cause: sum(c.items[cause] for c in compared) for cause in (*CAUSES, "rounding")}


def _summary(session: Session, compared: Sequence[Compared]) -> dict[str, Any]:
    return {
        "run": session.head["run"],
        "broker": session.head["broker"],
        "same_bits": all(c.same for c in compared),
        "bars": sum(len(c.time) for c in compared),
        "live_equity": sum(c.ends[0] for c in compared),
        "account_equity": sum(c.ends[1] for c in compared),
        "difference": sum(c.difference for c in compared),
        "causes": total(compared),
        "symbols": {c.symbol: {"same_bits": c.same, "difference": c.difference, **c.items} for c in compared},
    }


def told(compared: Sequence[Compared]) -> list[str]:
    """In sentences: the same to the bit, or by how much money not, and why."""
    bars, (live, account) = sum(len(c.time) for c in compared), map(sum, zip(*(c.ends for c in compared), strict=True))
    if all(c.same for c in compared):
        return [f"live equals backtest to the bit: {bars} bars of {len(compared)} symbols, equity {live:,.2f}"]
    odd = min((c for c in compared if c.first is not None), key=lambda c: c.time[c.first or 0])
    first = f"first at {format_time(odd.time[odd.first or 0])} in {odd.symbol}"
    lines = [f"live {live:,.2f}, backtest {account:,.2f}: a difference of {live - account:+,.2f}, {first}"]
    causes = {cause: money for cause, money in total(compared).items() if abs(money) >= 0.005}
    lines += [f"  {money:+14,.2f}  {cause}: {CAUSES.get(cause, 'float32')}" for cause, money in causes.items()]
    return lines
