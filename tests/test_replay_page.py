"""The pages of replays: what became of every decision, when, and that they follow from their folders alone."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from paper_fakes import PLAIN, FakeBroker, Session, bars_of, market

from jaxppo.replay.__main__ import main
from jaxppo.replay.journal_page import load_journal_replay, write_journal_report
from jaxppo.replay.page import changed_words, load_replay, write_replay_report

NAME = "A&<b>"
FLAT, LONG = 1, 2  # actions of PLAIN
SAME = (100, 100, 100, 100)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def played(*arguments: str) -> str:
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        assert main([*arguments]) == 0
    return told.getvalue()


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> tuple[Path, str]:
    """A replay in which the account does everything that it may do to a decision, and what it printed."""
    folder = tmp_path_factory.mktemp("replay")
    # A long of 10 is stopped at 95 on its first bar, which costs 50; 9,950 hold 99.5 units of 100.
    prices = [SAME, (100, 100, 94, 100), *[SAME] * 5, (110, 110, 110, 110), (110, 110, 110, 110)]
    rows = [f"2024-01-{i + 1:02}T00:00:00Z,{','.join(map(str, p))},{NAME}" for i, p in enumerate(prices)]
    (folder / "bars.csv").write_text("\n".join(["timestamp,open,high,low,close,symbol", *rows]) + "\n")
    orders = ["0,10,95", "1,1000,", "2,1000,", "3,,90", "4,99.5,", "5,50,", "6,0,", "7,,50", "8,1,"]
    (folder / "orders.csv").write_text("\n".join(["bar,units,stop", *orders]) + "\n")
    out = folder / "out"
    given = ("--out", str(out), "--max-exposure", "1", "--x64")
    return out, played(str(folder / "bars.csv"), str(folder / "orders.csv"), *given)


def test_what_became_of_every_decision(told):
    found = [(int(e["bar"]), e["event"], e["decided_bar"], float(e["units"])) for e in table(told[0] / "events.csv")]
    assert found == [
        (1, "filled", "0", 10.0),
        (1, "stop", "", -10.0),
        (2, "cut", "1", 99.5),
        (3, "refused", "2", 0.0),
        (4, "levels", "3", 0.0),
        (5, "unchanged", "4", 0.0),
        (6, "filled", "5", -49.5),
        (7, "filled", "6", -50.0),
        (8, "refused", "7", 0.0),
        (8, "unfilled", "8", 0.0),
    ]
    rows = table(told[0] / "events.csv")
    assert {r["symbol"] for r in rows} == {NAME}
    assert [r["time"] for r in rows[:3]] == [f"2024-01-0{d}T00:00:00+00:00" for d in (2, 2, 3)]
    assert rows[3]["note"] == "nothing was sent: the largest exposure is reached"
    assert rows[8]["note"] == "stop and take-profit were dropped: no position to guard"


def test_the_tables_have_times_and_prices(told):
    equity, trades = table(told[0] / "equity.csv"), table(told[0] / "trades.csv")
    assert equity[7]["time"] == "2024-01-08T00:00:00+00:00"
    assert float(equity[-1]["equity"]) == 10_450.0  # 9,950, and 10 on the last 50 units
    # All 10,000 hold 100 units, from the first fill at 100.
    assert [float(r["buy_and_hold"]) for r in equity[-2:]] == [11_000.0, 11_000.0]
    assert [t["entry_time"] for t in trades] == ["2024-01-02T00:00:00+00:00", "2024-01-03T00:00:00+00:00"]
    # 5 of 100 a unit lost on the first; the high of its only bar, 100, is what it was bought at.
    assert [(float(t["mfe"]), float(t["mae"])) for t in trades[:1]] == [(0.0, -0.05)]


def test_the_page_says_what_was_made_and_what_was_changed(told):
    folder, out = told
    assert f"page: {folder / 'report.html'}" in out
    page = (folder / "report.html").read_text()
    text = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "Made +4.5\u00a0%, holding +10.0\u00a0% at the same costs" in text
    assert (
        "cut 1 (2024-01-03 00:00 UTC, A&amp;&lt;b&gt;); refused 2 (first 2024-01-04 00:00 UTC, A&amp;&lt;b&gt;);"
        " never filled 1 (2024-01-09 00:00 UTC, A&amp;&lt;b&gt;); stop-loss 1 (2024-01-02 00:00 UTC"
    ) in text
    assert "<b>" not in re.sub(r"<b>[^<]*</b>", "", text)
    assert 'data-table="events"' in text
    assert {p.name for p in (folder / "plots").iterdir()} == {"equity.png", "drawdown.png", "trades.png"}


def test_the_page_follows_from_its_folder_alone(told, tmp_path):
    before = (told[0] / "report.html").read_text()
    (told[0] / "report.html").unlink()
    assert write_replay_report(told[0]).read_text() == before


def test_decisions_that_were_done_as_given(told, tmp_path):
    data = load_replay(told[0])
    for name in ("equity.csv", "trades.csv", "summary.json"):
        (tmp_path / name).write_bytes((told[0] / name).read_bytes())
    lines = (told[0] / "events.csv").read_text().splitlines()
    (tmp_path / "events.csv").write_text("\n".join(lines[:2]) + "\n")
    assert changed_words(load_replay(tmp_path)) == "The account did every decision as it was given."
    assert data.changed.height == 5


# A session's


def session(folder: Path, *given: Any) -> Path:
    folder.mkdir()
    Session(folder, *given).run()
    return folder


def test_a_session_that_differs_shows_which_decisions_when_and_why(tmp_path):
    # A broker that fills all at 100: long from bar 3 to 5, and again from 7, on prices that rise by 1 a bar.
    rising = bars_of([100.0 + i for i in range(10)])
    told = {2: LONG, 3: LONG, 4: LONG, 5: FLAT, 6: LONG, 7: LONG, 8: LONG}
    folder = session(tmp_path / "session", [rising], FakeBroker(), told, PLAIN)
    played("--journal", str(folder), "--out", str(tmp_path / "out"))
    rows, summary = (
        table(tmp_path / "out" / "decisions.csv"),
        json.loads((tmp_path / "out" / "summary.json").read_text()),
    )
    first = rows[0]
    assert (first["time"], first["symbol"]) == ("2024-01-01T03:00:00+00:00", "AAA")
    assert first["decided"] == "2024-01-01T02:00:00+00:00"
    # The account buys at the open of bar 3, 102, and half a spread above it.
    assert float(first["live_price"]) == 100.0
    assert float(first["account_price"]) == pytest.approx(102 * 1.0005, rel=1e-6)
    assert all(not math.isclose(float(r["live_units"]), float(r["account_units"]), rel_tol=1e-6) for r in rows)
    page = re.sub(r"<script.*?</script>", "", (tmp_path / "out" / "report.html").read_text(), flags=re.DOTALL)
    assert f"{len(rows)} decisions traded otherwise, first 2024-01-01 03:00 UTC in AAA." in page
    assert "prices of fills beyond spread and slippage of the account" in page
    data = load_journal_replay(tmp_path / "out")
    assert data.equity["live"][-1] == pytest.approx(summary["live_equity"], rel=1e-12)
    assert data.equity["account"][-1] == pytest.approx(summary["account_equity"], rel=1e-12)
    before = (tmp_path / "out" / "report.html").read_text()
    assert write_journal_report(tmp_path / "out").read_text() == before


def test_a_session_that_is_the_account_to_the_bit_has_no_decision_that_differs(tmp_path):
    folder = session(tmp_path / "session", market(40))  # its second symbol lacks bars now and then
    played("--journal", str(folder), "--out", str(tmp_path / "out"))
    assert table(tmp_path / "out" / "decisions.csv") == []
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Live equals backtest to the bit" in page
    assert "on every bar the session traded what the account did" in page
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    data = load_journal_replay(tmp_path / "out")
    assert data.equity["live"][-1] == pytest.approx(summary["live_equity"], rel=1e-12)
