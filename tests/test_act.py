"""`python -m jaxppo.act`: one JSON line, or one sentence why not."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

import numpy as np
import pytest
from helpers import tiny_config
from test_live import policy_of

from jaxppo.act import run as act_room
from jaxppo.act.__main__ import main
from jaxppo.errors import DataError
from jaxppo.live.account import Account
from jaxppo.live.fresh import bar_end, bars_behind, missing_lately, require_fresh
from jaxppo.market.bars import Bars, load_bars, slice_bars
from jaxppo.market.calendar import DAY, HOUR
from jaxppo.market.synthetic import synthetic_market
from jaxppo.store.checkpoint import RestoredPolicy

BARS = 200
END = 1_733_097_600 + BARS * HOUR  # 2024-12-02, a Monday


def write(path, bars, symbol="BTCUSDT", interval=HOUR):
    """Hourly bars of a made-up market as a CSV file that ends at END."""
    time = END - interval * np.arange(len(bars.time), 0, -1)
    lines = [
        f"{symbol},{datetime.fromtimestamp(t, UTC).isoformat()},{o!r},{h!r},{low!r},{c!r},{v!r}"
        for t, o, h, low, c, v in zip(
            time.tolist(), *(getattr(bars, k).tolist() for k in ("open", "high", "low", "close", "volume")), strict=True
        )
    ]
    path.write_text("symbol,timestamp,open,high,low,close,volume\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def policy() -> RestoredPolicy:
    return policy_of(tiny_config(encoder="none"), synthetic_market(0, 1, 400)[0])[0]


@pytest.fixture
def act(policy, tmp_path, monkeypatch, capsys):
    """The command on a folder with a run's manifest, the policy in place of its checkpoints."""
    monkeypatch.setattr(act_room, "restore_policy", lambda run_dir, which: policy)
    facts = {"data": {"interval": "1h", "symbols": [{"symbol": "BTCUSDT"}, {"symbol": "ETHUSDT"}]}}
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    bars = slice_bars(synthetic_market(4, 1, 700)[0], slice(BARS))
    files = [write(tmp_path / "btc.csv", bars)]

    def go(*flags, file=files[0], late=30.0, account=None):
        if account is not None:
            (tmp_path / "account.json").write_text(account if isinstance(account, str) else json.dumps(account))
            flags = (*flags, "--account", str(tmp_path / "account.json"))
        now = datetime.fromtimestamp(END + late, UTC).isoformat()
        status = main([str(tmp_path), "--bars", str(file), "--now", now, *map(str, flags)])
        out, err = capsys.readouterr()
        return (status, json.loads(out, parse_constant=pytest.fail)) if status == 0 else (status, out + err)

    go.bars, go.folder = bars, tmp_path
    return go


def test_it_prints_the_decision_of_the_policy_as_one_line(act, policy):
    status, line = act(account={"equity": 2_000.0, "units": 0.5, "average_price": 99.0, "start": 1_900.0})
    assert status == 0
    assert list(line) == ["run", "update", "features", "decided", "decisions"]
    assert line["features"] == policy.info.feature_hash
    assert line["decided"].endswith("00:30+00:00")
    bars = load_bars(act.folder / "btc.csv")[0]
    told = Account(equity=2_000.0, units=0.5, average_price=99.0, start=1_900.0)
    expected = policy.decide(bars, told)
    found = line["decisions"][0]
    assert found == {
        **expected._asdict(),
        "time": datetime.fromtimestamp(END - HOUR, UTC).isoformat(),
        "probabilities": dict(expected.probabilities),
    }
    assert found["symbol"] == "BTCUSDT"
    assert found["probabilities"]["sell"] > 0  # there is a long to sell, of a coin that may not be shorted
    assert act(account={"cash": 2_000.0})[1]["decisions"][0]["probabilities"]["sell"] == 0


def test_features_that_differ_are_a_reason(act, policy, monkeypatch):
    info = dataclasses.replace(policy.info, feature_hash="0" * 64)
    monkeypatch.setattr(act_room, "restore_policy", lambda run_dir, which: dataclasses.replace(policy, info=info))
    status, said = act()
    assert status == 2
    assert "the policy's features have the hash 000000000000 and those computed here" in said


def test_several_symbols_are_one_line(act, policy):
    folder = act.folder / "bars"
    folder.mkdir()
    write(folder / "btc.csv", act.bars)
    write(folder / "eth.csv", dataclasses.replace(act.bars, close=act.bars.low), "ETHUSDT")
    status, line = act(file=folder, account={"ETHUSDT": {"cash": 10.0}, "BTCUSDT": {"equity": 500.0}})
    assert status == 0
    assert [(d["symbol"], d["equity"]) for d in line["decisions"]] == [("BTCUSDT", 500.0), ("ETHUSDT", 10.0)]
    assert act(file=folder)[0] == 0  # fresh ones
    for account, says in (
        ({"equity": 5.0}, "one account for 2 symbols; give an object of symbols to accounts"),
        ({"ETHUSDT": {"cash": 10.0}}, "no account of 'BTCUSDT'; give one for every symbol"),
        ({"ETHUSD": {"cash": 1.0}, "BTCUSDT": {"cash": 1.0}}, "an account of 'ETHUSD', of which there are no bars"),
        ({"ETHUSDT": {"cash": 10.0}, "BTCUSDT": {"cash": "x"}}, "BTCUSDT: cash must be a finite number, got 'x'"),
    ):
        status, said = act(file=folder, account=account)
        assert status == 2
        assert said.startswith("error: ")
        assert says in said
        assert said.count("\n") == 1
    assert "--price: of 2 symbols none" in act("--price", 3, file=folder)[1]


def test_why_it_does_not_decide_is_one_sentence(act, tmp_path):
    short = write(tmp_path / "short.csv", slice_bars(act.bars, slice(90)))
    daily = write(tmp_path / "daily.csv", act.bars, interval=DAY)
    other = write(tmp_path / "other.csv", act.bars, "BTCUSD")
    hole = tmp_path / "hole.csv"
    lines = (tmp_path / "btc.csv").read_text().splitlines()
    hole.write_text("\n".join([*lines[:150], *lines[153:]]) + "\n")
    for given, says in (
        ({"late": 3 * HOUR + 5}, "BTCUSDT: stale bars, the newest closed at 2024-12-10 08:00:00 UTC and 3 more should"),
        ({"late": -60}, "is open until 2024-12-10 08:00:00 UTC and it is 2024-12-10 07:59:00 UTC; leave it out, or"),
        ({"file": hole}, "BTCUSDT: 3 bars are missing among the newest 115, the last after 2024-12-08 04:00"),
        ({"file": short}, "BTCUSDT: 90 bars in short.csv, but a decision needs at least 115"),
        ({"file": daily}, "bars of 1d, and the policy was trained on bars of 1h"),
        ({"file": other}, "the policy was not trained on 'BTCUSD' (did you mean 'BTCUSDT'"),
        ({"file": tmp_path / "none.csv"}, "none.csv: no such file or folder"),
        ({"account": "{"}, "account.json, line 1: not JSON"),
        ({"account": {"equity": 1.0, "units": None, "wins": -1}}, "account.json: wins must be a whole number"),
        ({"account": {}}, "account.json: give one of equity and cash"),
    ):
        status, said = act(**given)
        assert (status, said.count("\n")) == (2, 1), said
        assert said.startswith("error: ")
        assert says in said
    assert act("--max-behind", 3, late=3 * HOUR + 5)[0] == 0
    assert act("--allow-open-bar", late=-60)[0] == 0
    assert act("--max-missing", 3, file=hole)[0] == 0
    assert act("--new-symbols", file=other)[0] == 0
    assert "x: no such file; give a JSON file of the account" in act("--account", "x")[1]
    for flags, says in (
        (("--max-behind", -1), "--max-behind: -1 given; it must be 0 or more"),
        (("--price", 0), "--price: 0.0 given; it must be above 0"),
        (("--now", "soon"), "--now: 'soon' is no time such as"),
        (("--which", "newest"), "which: unknown checkpoint 'newest'"),
    ):
        assert says in act(*flags)[1]


def days(*dates: str, asset_class: str = "equity") -> Bars:
    """Daily bars that name their dates."""
    time = np.array([int(datetime.fromisoformat(f"{d}T00:00+00:00").timestamp()) for d in dates])
    price = np.full(len(time), 10.0)
    return Bars("X", asset_class, DAY, "UTC", time, price, price + 1, price - 1, price, price, "x.csv")


def at(text: str) -> float:
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


def test_the_market_s_calendar_says_what_is_stale():
    """2024-11-28 is Thanksgiving, a Thursday; New York closes at 21:00 UTC in winter and 20:00 in summer."""
    week = days(*(f"2024-11-{d:02}" for d in (*range(11, 16), *range(18, 23), 25, 26, 27)))
    assert bar_end(week, int(week.time[-1])) == at("2024-11-27T21:00")
    for now, behind in (
        ("2024-11-27T21:00", 0),
        ("2024-11-28T23:00", 0),
        ("2024-11-29T20:59", 0),
        ("2024-11-29T21:00", 1),
        ("2024-12-02T14:00", 1),
        ("2024-12-02T21:00", 2),
    ):
        assert bars_behind(week, at(now)) == behind, now
    coins = dataclasses.replace(week, asset_class="crypto")
    assert bar_end(coins, int(week.time[-1])) == at("2024-11-28T00:00")
    assert bars_behind(coins, at("2024-11-29T23:00")) == 1
    pairs = days(*(f"2024-07-{d:02}" for d in (*range(1, 6), *range(8, 13))), asset_class="fx")
    assert bar_end(pairs, int(pairs.time[-1])) == at("2024-07-12T21:00")
    assert bars_behind(pairs, at("2024-07-15T20:00")) == 0
    assert bars_behind(pairs, at("2024-07-15T21:00")) == 1


def test_hours_of_an_exchange_and_of_fx_are_expected_when_it_is_open():
    """Hours from 9:30 to 16:00 New York on weekdays, and FX from Sunday 17:00, of which brokers may miss two hours, to
    Friday 17:00; July 2024 is summer time."""
    monday = int(at("2024-07-01T00:00"))
    starts = [monday + d * DAY + 13 * HOUR + 1800 + h * HOUR for d in range(19) if d % 7 < 5 for h in range(7)]
    starts = [t for t in starts if not at("2024-07-04T00:00") <= t < at("2024-07-05T00:00")]  # Independence Day
    starts = [t for t in starts if not at("2024-07-03T17:00") <= t < at("2024-07-04T00:00")]  # closed at 13:00
    price = np.full(len(starts), 10.0)
    stock = Bars("X", "equity", HOUR, "America/New_York", np.array(starts), price, price, price, price, price, "x.csv")
    assert stock.time[-1] == at("2024-07-19T19:30")
    for now, behind in (
        ("2024-07-20T12:00", 0),
        ("2024-07-22T14:29", 0),
        ("2024-07-22T14:30", 1),
        ("2024-07-22T16:40", 3),
    ):
        assert bars_behind(stock, at(now)) == behind, now
    assert missing_lately(stock, len(starts)) == (0, None)
    sunday = int(at("2024-06-30T21:00"))
    starts = [sunday + w * 7 * DAY + h * HOUR for w in range(4) for h in range(120)]
    price = np.full(len(starts), 1.1)
    pair = Bars("EURUSD", "fx", HOUR, "America/New_York", np.array(starts), price, price, price, price, price, "x.csv")
    for now, behind in (("2024-07-27T12:00", 0), ("2024-07-28T23:59", 0), ("2024-07-29T00:00", 1)):
        assert bars_behind(pair, at(now)) == behind, now


def test_holes_count_by_the_market_s_calendar_and_only_lately():
    week = days(*(f"2024-11-{d:02}" for d in (*range(11, 16), 18, 19, 21, 22, 25, 26, 27)), "2024-11-29")
    assert missing_lately(week, 100) == (1, at("2024-11-19T00:00"))
    assert missing_lately(week, 6) == (0, None)
    require_fresh(week, at("2024-11-30T12:00"), newest=6)
    with pytest.raises(DataError, match=r"1 bars are missing among the newest 7, the last after 2024-11-19"):
        require_fresh(week, at("2024-11-30T12:00"), newest=7)
