"""`python -m jaxppo.replay`: examples worked by hand, the files it writes, and what it refuses."""

import csv
import json
import math
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import jaxppo
import jaxppo.replay.page
from jaxppo.replay.__main__ import main

# Bars whose opens are all that most examples need.
FLAT = [(100, 100, 100, 100)]


def write_bars(path, bars):
    lines = [f"2024-01-{1 + i:02d},{','.join(repr(float(x)) for x in bar)}" for i, bar in enumerate(bars)]
    path.write_text("timestamp,open,high,low,close\n" + "\n".join(lines) + "\n")
    return path


def rows_of(path):
    def value(text):
        try:
            return float(text)
        except ValueError:
            return text

    with path.open(newline="") as file:
        return [{k: value(v) for k, v in row.items()} for row in csv.DictReader(file)]


class Played:
    def __init__(self, out):
        self.equity, self.trades, self.events = (rows_of(out / f"{n}.csv") for n in ("equity", "trades", "events"))
        self.summary = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)


@pytest.fixture(scope="module", autouse=True)
def no_page():
    """Drawing takes longer than all else; tests/test_replay_page.py looks at pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxppo.replay.page, "write_replay_report", lambda folder: folder / "report.html")
        yield


@pytest.fixture
def run(tmp_path):
    def go(bars, targets, *flags, x64=True):
        bars = write_bars(tmp_path / "X_1d.csv", bars)
        (tmp_path / "targets.csv").write_text(targets)
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        arguments = [str(bars), str(tmp_path / "targets.csv"), "--out", str(out), *map(str, flags)]
        assert main([*arguments, *(["--x64"] if x64 else [])]) == 0
        return Played(out)

    return go


def check(rows, expected, rel=1e-9):
    assert len(rows) == len(expected)
    for row, want in zip(rows, expected, strict=True):
        for name, value in want.items():
            assert row[name] == (value if isinstance(value, str) else pytest.approx(value, rel=rel, abs=1e-9)), name


@pytest.mark.parametrize("x64", [True, False])
def test_long_at_costs(run, x64):
    # Half of a 2 % spread and 1 % slippage: a buy at 100 fills at 102, a sale at 120 at 117.60.
    bars = FLAT + [(100, 110, 100, 110), (120, 125, 120, 125), (90, 90, 90, 90)]
    done = run(bars, "bar,units\n0,10\n1,0\n", "--fee", 0.01, "--spread", 0.02, "--slippage", 0.01, x64=x64)
    # Bought: 10 x 102 = 1020, fee 10.20. Cash 8969.80. Sold: 10 x 117.60 = 1176, fee 11.76. Cash 10134.04.
    equity = [
        {"bar": 0, "cash": 10000, "units": 0, "equity": 10000},
        {"bar": 1, "cash": 8969.8, "units": 10, "equity": 10069.8},
        {"bar": 2, "cash": 10134.04, "units": 0, "equity": 10134.04},
        {"bar": 3, "cash": 10134.04, "units": 0, "equity": 10134.04},
    ]
    trade = {"entry_bar": 1, "exit_bar": 2, "side": "long", "units": 10, "entry_price": 102, "exit_price": 117.6}
    # 1176 - 1020 - 21.96
    trade |= {"fees": 21.96, "pnl": 134.04, "reason": "order"}
    rel = 1e-9 if x64 else 1e-5
    check(done.equity, equity, rel)
    check(done.trades, [trade], rel)
    assert done.summary["metrics"]["net_return"] == pytest.approx(0.013404, rel=rel)
    assert done.summary["total_fees"] == pytest.approx(21.96, rel=rel)
    # Fees 21.96, and 10 x (2 + 2.40) of impact.
    assert done.summary["total_cost"] == pytest.approx(65.96, rel=rel)
    assert done.summary["open_position"] is None


def test_short_pays_borrow_at_each_close(run):
    bars = FLAT + [(100, 100, 90, 90), (90, 90, 80, 80), (80, 85, 80, 85)]
    # A daily equity has 252 bars a year: .001 a bar.
    done = run(bars, "bar,order_units\n0,-10\n2,10\n", "--borrow", 0.252)
    # Sold 10 at 100: cash 11000. Borrow 10 x 90 x .001 = .90, then 10 x 80 x .001 = .80. Bought back at 80.
    assert [r["cash"] for r in done.equity] == pytest.approx([10000, 10999.1, 10998.3, 10198.3], rel=1e-12)
    assert [r["equity"] for r in done.equity] == pytest.approx([10000, 10099.1, 10198.3, 10198.3], rel=1e-12)
    check(done.trades, [{"side": "short", "entry_price": 100, "exit_price": 80, "pnl": 198.3, "fees": 0, "units": 10}])
    assert done.summary["total_borrow"] == pytest.approx(1.7, rel=1e-12)
    # The same year's cost in more bars, where the class trades on more days.
    other = run(bars, "bar,order_units\n0,-10\n2,10\n", "--borrow", 0.252, "--asset-classes", "X", "crypto")
    assert other.summary["total_borrow"] == pytest.approx(1.7 * 252 / 365.25, rel=1e-12)


def test_flip_splits_the_fee_between_its_two_trades(run):
    bars = FLAT + [(100, 100, 100, 100), (110, 110, 110, 110), (100, 100, 100, 100)]
    done = run(bars, "bar,units\n0,10\n1,-5\n2,0\n", "--fee", 0.01)
    # Long 10 from 100 to 110: 100 - 10 - 11 = 79. Short 5 from 110 to 100: 50 - 5.50 - 5 = 39.50.
    check(
        done.trades,
        [
            {"entry_bar": 1, "exit_bar": 2, "side": "long", "units": 10, "fees": 21, "pnl": 79, "reason": "order"},
            {"entry_bar": 2, "exit_bar": 3, "side": "short", "units": 5, "fees": 10.5, "pnl": 39.5},
        ],
    )
    assert done.equity[-1]["equity"] == pytest.approx(10118.5, rel=1e-12)
    figures = done.summary["metrics"]
    assert figures["trades"] == 2
    assert figures["win_rate"] == 1
    assert figures["profit_factor"] == "inf"
    assert figures["expectancy"] == pytest.approx(118.5 / 2 / 10000, rel=1e-12)
    # SQN: sqrt(2) x 59.25 / deviation of (79, 39.5), which is 39.5 / sqrt(2): 2 x 59.25 / 39.5 = 3.
    assert figures["sqn"] == pytest.approx(3, rel=1e-12)


def test_scale_in_and_partial_exit_at_average_cost(run):
    bars = FLAT + [(100, 100, 100, 100), (130, 130, 130, 130), (120, 120, 120, 120), (90, 90, 90, 90)]
    done = run(bars, "bar,order_units\n0,10\n1,5\n2,-6\n3,-9\n")
    # 10 at 100 and 5 at 130: average cost 110. 6 sold at 120 and 9 at 90: 720 + 810 = 1530, 102 each.
    assert [r["cash"] for r in done.equity] == pytest.approx([10000, 9000, 8350, 9070, 9880], rel=1e-12)
    check(
        done.trades,
        [{"entry_bar": 1, "exit_bar": 4, "units": 15, "entry_price": 110, "exit_price": 102, "pnl": -120}],
    )


def test_fractions_that_add_up_to_nothing_close_the_trade(run):
    done = run(FLAT * 5, "bar,order_units\n0,0.1\n1,0.2\n2,-0.3\n")
    assert done.equity[3]["units"] == 0
    assert len(done.trades) == 1


def test_target_holds_after_costs(run):
    bars = FLAT + [(100, 100, 100, 100), (50, 50, 50, 50)]
    done = run(bars, "bar,target\n0,0.5\n1,-1\n", "--fee", 0.01)
    # x = 5000 / 1.005 = 100 u; after the fee of x / 100 the equity is 2 x.
    units = 5000 / 1.005 / 100
    assert done.equity[1]["units"] == pytest.approx(units, rel=1e-12)
    assert done.equity[1]["equity"] == pytest.approx(2 * units * 100, rel=1e-12)
    # At 50 the equity is 3 x / 2 = 150 u, and -1 of what is left after costs is 50 v = 150 u - .01 (50 u + 50 v).
    short = (150 * units - 0.5 * units) / 50.5
    assert done.equity[2]["units"] == pytest.approx(-short, rel=1e-12)
    assert done.equity[2]["equity"] == pytest.approx(50 * short, rel=1e-12)


@pytest.mark.parametrize(
    ("bar", "price"),
    [
        ((100, 101, 95, 98), 95),  # an exact touch
        ((93, 99, 92, 98), 93),  # a gap through it fills at the open
        ((96, 120, 94, 98), 95),  # both levels in one bar: the stop
    ],
)
def test_stop_of_a_long(run, bar, price):
    done = run(FLAT * 2 + [bar, bar], "bar,units,stop,take_profit\n0,10,95,105\n")
    check(done.trades, [{"exit_bar": 2, "exit_price": price, "pnl": 10 * (price - 100), "reason": "stop"}])
    assert done.summary["counts"]["stops"] == 1
    # The level went with the position: the second bar, which touches it too, finds nothing to sell.
    assert done.equity[-1]["units"] == 0


def test_stop_of_a_short_on_its_entry_bar(run):
    done = run(FLAT + [(100, 107, 99, 101)], "bar,units,stop\n0,-10,106\n")
    check(done.trades, [{"entry_bar": 1, "exit_bar": 1, "exit_price": 106, "pnl": -60, "reason": "stop"}])


@pytest.mark.parametrize(("gap", "price"), [("open", 108), ("limit", 105)])
@pytest.mark.parametrize("side", [1, -1])
def test_take_profit_gap(run, gap, price, side):
    jump = (108, 109, 107, 108) if side > 0 else (92, 93, 91, 92)
    level = 100 + 5 * side
    done = run(FLAT * 2 + [jump], f"bar,units,take_profit\n0,{10 * side},{level}\n", "--take-profit-gap", gap)
    check(done.trades, [{"exit_price": 100 + side * (price - 100), "pnl": 10 * (price - 100), "reason": "take_profit"}])


def test_levels_stay_until_replaced_and_drop_on_a_flip(run):
    bars = FLAT * 3 + [(100, 100, 96, 100), (100, 100, 93, 100), (100, 100, 90, 100)]
    # 95 survives the addition of bar 1; 97 alone, set at bar 2, is hit on bar 3.
    moved = run(bars, "bar,order_units,stop\n0,10,95\n1,5,\n2,,97\n")
    check(moved.trades, [{"exit_bar": 3, "exit_price": 97, "units": 15, "reason": "stop"}])
    kept = run(bars, "bar,order_units,stop\n0,10,95\n1,5,\n")
    check(kept.trades, [{"exit_bar": 4, "exit_price": 95, "units": 15, "reason": "stop"}])
    # Were the long's 95 alive after the flip, the short would be stopped out above it at once.
    flipped = run(bars, "bar,order_units,stop\n0,10,95\n1,-20,\n")
    assert len(flipped.trades) == 1
    assert flipped.summary["open_position"]["units"] == -10


def test_levels_without_a_position_are_dropped(run):
    bars = FLAT * 3 + [(100, 100, 90, 100)]
    done = run(bars, "bar,units,stop\n0,,95\n1,10,\n")
    assert done.trades == []
    assert done.equity[-1]["units"] == 10


def test_leverage_cuts_orders_down_and_lets_reductions_through(run):
    bars = FLAT + [(100, 100, 100, 100), (50, 50, 50, 50), (50, 50, 50, 50), (50, 50, 50, 50)]
    done = run(bars, "bar,units\n0,1000\n1,149\n2,148\n3,-1000\n", "--max-exposure", 1.5)
    # 1.5 x 10000 / 100 = 150 units, cash -5000. At 50 the equity is 2500 and the exposure 3: less is a reduction.
    # -1000 is cut down to -1.5 x 2500 / 50 = -75.
    assert [r["units"] for r in done.equity] == pytest.approx([0, 150, 149, 148, -75], rel=1e-12)
    assert done.summary["counts"]["cut_orders"] == 2
    # With a fee the cut holds after costs: x = 1.5 (10000 - .01 x) is 15000 / 1.015.
    costly = run(bars, "bar,units\n0,1000\n", "--max-exposure", 1.5, "--fee", 0.01)
    assert costly.equity[1]["units"] == pytest.approx(150 / 1.015, rel=1e-12)
    # A target of the leverage itself is not cut, nor an order where none is given.
    assert run(bars, "bar,target\n0,1.5\n", "--max-exposure", 1.5, x64=False).summary["counts"]["cut_orders"] == 0
    free = run(FLAT * 2, "bar,units\n0,1000\n")
    assert free.equity[1]["units"] == 1000
    # An addition to what has drifted beyond the leverage is not sent at all.
    assert run(bars, "bar,units\n0,150\n1,151\n", "--max-exposure", 1.5).equity[2]["units"] == 150


def test_liquidation_ends_the_account(run):
    bars = FLAT * 2 + [(90, 90, 60, 80), (80, 80, 80, 80), (80, 90, 80, 90)]
    done = run(bars, "bar,units\n0,200\n2,50\n3,50\n", "--ruin-level", 0.1)
    # Cash -10000, 200 units: worth 1000 at 55? 200 p - 10000 = 1000 at p = 55, under the low of 60. Not liquidated.
    assert not done.summary["ruined"]
    deeper = [*bars[:2], (90, 90, 50, 80), *bars[3:]]
    done = run(deeper, "bar,units\n0,200\n2,50\n3,50\n", "--ruin-level", 0.1)
    check(done.trades, [{"exit_bar": 2, "exit_price": 55, "pnl": -9000, "reason": "liquidation"}])
    assert [r["equity"] for r in done.equity] == pytest.approx([10000, 10000, 1000, 1000, 1000], rel=1e-12)
    assert done.summary["ruined"]
    assert done.summary["counts"]["dropped_after_ruin"] == 2
    assert [(e["bar"], e["event"], e["units"]) for e in done.events] == [
        (1, "filled", 200),
        (2, "liquidation", -200),
        (3, "refused", 0),
        (4, "refused", 0),
    ]
    assert done.events[1]["time"] == "2024-01-03T00:00:00+00:00"
    assert done.events[2]["note"] == "the account was gone"
    # A gap through it leaves less: sold at the open of 52, 200 x 52 - 10000 = 400.
    gapped = run([*bars[:2], (52, 60, 50, 55), *bars[3:]], "bar,units\n0,200\n", "--ruin-level", 0.1)
    assert gapped.equity[-1]["equity"] == pytest.approx(400, rel=1e-12)


def test_open_position_is_marked_unless_closed_at_the_end(run):
    bars = FLAT + [(100, 110, 100, 110), (110, 120, 110, 120)]
    held = run(bars, "bar,units\n0,10\n", "--fee", 0.01)
    # 10 x (120 - 100) - 10
    assert held.summary["open_position"]["pnl"] == pytest.approx(190, rel=1e-12)
    assert held.equity[-1]["equity"] == pytest.approx(10190, rel=1e-12)
    assert held.trades == []
    closed = run(bars, "bar,units\n0,10\n", "--fee", 0.01, "--close-at-end")
    check(closed.trades, [{"exit_bar": 2, "exit_price": 120, "fees": 22, "pnl": 178, "reason": "end"}])
    assert closed.equity[-1]["equity"] == pytest.approx(10178, rel=1e-12)


def test_figures_scale_with_the_cash(run):
    rng = np.random.default_rng(3)
    opens = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, 25)))
    bars = [(o, o * 1.02, o * 0.98, o * 1.01) for o in opens]
    targets = "bar,target\n" + "".join(f"{i},{rng.uniform(-1, 1)!r}\n" for i in range(24))
    small, large = (run(bars, targets, "--cash", cash, "--fee", 0.001) for cash in (1, 1e6))
    assert small.summary["metrics"] == pytest.approx(large.summary["metrics"], rel=1e-9, nan_ok=True)
    equity = np.array([r["equity"] for r in small.equity])
    returns = equity[1:] / equity[:-1] - 1
    figures = small.summary["metrics"]
    assert figures["net_return"] == pytest.approx(equity[-1] - 1, rel=1e-9)
    # X_1d.csv is read as an equity of 252 days a year.
    assert figures["sharpe"] == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(252), rel=1e-9)
    assert figures["max_drawdown"] == pytest.approx((1 - equity / np.maximum.accumulate(equity)).max(), rel=1e-9)
    pnl = np.array([t["pnl"] for t in small.trades])
    assert figures["profit_factor"] == pytest.approx(pnl[pnl > 0].sum() / -pnl[pnl <= 0].sum(), rel=1e-9)


def test_a_decision_on_the_last_bar_is_counted_and_warned_of(run, capsys):
    done = run(FLAT * 3, "bar,units\n2,10\n")
    assert done.summary["counts"]["unfilled"] == 1
    assert done.equity[-1]["units"] == 0
    assert "bar 2" in capsys.readouterr().err


def test_what_the_figures_are_read_next_to(run):
    # 10 from 100 to 110 with a fee of 1 %: 100 gained at no cost, 21 of fees, 42 at twice the cost. All the cash held
    # from 100 to 121, bought at 101 and sold at 119.79, gains 18.6 %.
    bars = FLAT + [(100, 100, 100, 100), (110, 110, 110, 110), (121, 121, 121, 121)]
    done = run(bars, "bar,units\n0,10\n1,0\n", "--fee", 0.01, "--trials", 5).summary
    assert [row["cost_multiple"] for row in done["costs"]] == [0, 1, 2]
    assert [row["net_return"] for row in done["costs"]] == pytest.approx([0.01, 0.0079, 0.0058], rel=1e-9)
    assert done["buy_and_hold_return"] == pytest.approx(121 * 0.99 / 101 - 1, rel=1e-9)
    # An order row later, 10 from 110 to 121 with 11 + 12.10 of fees; wrapped around, it is 0 units at the
    # first open and 10 at the last, 121, marked there.
    later, around = (110 - 23.1) / 10000, (0 - 12.1) / 10000
    moved = done["same_orders_at_random_times"]
    assert moved["draws"] == 20
    assert [moved["net_return"][k] for k in ("low", "high")] == pytest.approx([around, later], rel=1e-9)
    assert moved["beaten_share"] == pytest.approx((later - moved["net_return"]["mean"]) / (later - around), rel=1e-6)
    assert done["metrics"]["deflated_sharpe"] < done["metrics"]["probabilistic_sharpe"]


@pytest.mark.parametrize(("old", "near"), [("--leverage", "--help"), ("--ruin", "--ruin-level")])
def test_flags_of_before_are_refused(tmp_path, capsys, old, near):
    with pytest.raises(SystemExit) as left:
        main(["X_1d.csv", "t.csv", "--out", str(tmp_path / "out"), old, "1"])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert f"Unrecognized options: {old}" in " ".join(said.replace("│", " ").split())
    assert near in said


def test_no_decisions_leave_the_cash(run):
    done = run(FLAT * 3, "bar,target\n")
    assert [r["equity"] for r in done.equity] == [10000] * 3
    assert done.summary["metrics"]["profit_factor"] is None


def test_as_a_user_runs_it_on_parquet(tmp_path):
    frame = pl.DataFrame({"time": [1704067200, 1704070800, 1704074400], "close": [100.0, 101.0, 102.0]})
    price = frame["close"]
    frame.with_columns(open=price, high=price, low=price).write_parquet(tmp_path / "AAA_1h.parquet")
    (tmp_path / "t.csv").write_text("bar,units\n0,1\n")
    command = [sys.executable, "-m", "jaxppo.replay", "AAA_1h.parquet", "t.csv", "--out", "deep/out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Bought at 101, marked at 102.
    check(rows_of(tmp_path / "deep/out/equity.csv")[-1:], [{"bar": 2, "cash": 9899, "units": 1, "equity": 10001}])


def test_a_fee_is_one_number_or_one_a_class(tmp_path):
    bars = write_bars(tmp_path / "X_1d.csv", FLAT * 2)
    (tmp_path / "t.csv").write_text("bar,units\n0,1\n")

    def fees(number, fee):
        out = jaxppo.replay(bars, tmp_path / "t.csv", tmp_path / str(number), fee=fee)
        return json.loads((out / "summary.json").read_text())["total_fees"]

    assert fees(0, 0.01) == pytest.approx(1)
    assert fees(1, {"equity": 0.02}) == pytest.approx(2)
    assert fees(2, {"crypto": 0.02}) == 0


@pytest.mark.parametrize(
    ("targets", "flags", "message"),
    [
        ("bar,target\n0,1\n0,0\n", (), "line 3: bar 0 stands twice"),
        ("bar,target\n1,1\n0,0\n", (), "line 3: bar 0 comes after bar 1"),
        ("bar,target\n3,1\n", (), "line 2: bar 3 is not among the 3 bars, 0 to 2"),
        ("bar,target\n-1,1\n", (), "line 2: bar -1 is not among"),
        ("bar,target\n0.5,1\n", (), "line 2: bar must be a whole number"),
        ("bar,target\n,1\n", (), "line 2: bar must be a whole number"),
        ("bar,target,units\n0,1,1\n", (), "has target and units; give exactly one"),
        ("bar,stop\n0,1\n", (), "has no order column"),
        ("target\n1\n", (), "the column 'bar' is missing"),
        ("bar,target,stopp\n0,1,1\n", (), "unknown column 'stopp'; did you mean 'stop'"),
        ("bar,target,target\n0,1,1\n", (), "column 'target' stands twice"),
        ("bar,target\n0,inf\n", (), "line 2: target is inf"),
        ("bar,target\n0,nan\n", (), "line 2: target is nan"),
        ("bar,target\n0,long\n", (), "line 2: target is not a number: 'long'"),
        ("bar,target,stop\n0,1,-5\n", (), "line 2: stop is -5; give a price above 0"),
        ("bar,target\n0,1,2\n", (), "line 2: 3 cells where the header has 2"),
        ("bar,target\n0,1_0\n", (), "line 2: target is not a number: '1_0'"),
        ("bar,units\n0,1e39\n", (), "the equity at bar 1 is no number; an order, a target or a price is too large for"),
        ("bar,target\n", ("--trials", "0"), "--trials: 0 given"),
        ("", (), "has no order column"),
        ("bar,target\n0,2000\n", ("--fee", "0.001"), "a target of 2000 costs more than the account"),
        ("bar,target\n", ("--cash", "0"), "--cash: 0.0 given"),
        ("bar,target\n", ("--fee", "-0.1"), "--fee: -0.1 given"),
        ("bar,target\n", ("--fee", "equty", "0.1"), "fee: unknown asset class 'equty'; did you mean 'equity'"),
        ("bar,target\n", ("--ruin-level", "1"), "--ruin-level: 1.0 given"),
        ("bar,target\n", ("--max-exposure", "0"), "--max-exposure: 0.0 given"),
        ("bar,target\n", ("--borrow", "-0.1"), "--borrow: -0.1 given"),
        ("bar,target\n", ("--symbols", "Y"), "no symbol 'Y'"),
    ],
)
def test_refuses_in_one_sentence_and_writes_nothing(tmp_path, capsys, targets, flags, message):
    bars = write_bars(tmp_path / "X_1d.csv", FLAT * 3)
    (tmp_path / "t.csv").write_text(targets)
    before = sorted(tmp_path.iterdir())
    assert main([str(bars), str(tmp_path / "t.csv"), "--out", str(tmp_path / "out"), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_refuses_missing_files_several_symbols_and_a_folder_in_use(tmp_path, capsys):
    bars = write_bars(tmp_path / "X_1d.csv", FLAT * 3)
    (tmp_path / "t.csv").write_text("bar,target\n")
    assert main([str(bars), str(tmp_path / "no.csv"), "--out", str(tmp_path / "out")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main([str(bars), str(tmp_path / "t.csv"), "--out", str(tmp_path)]) == 2
    assert "never overwritten" in capsys.readouterr().err
    both = tmp_path / "both"
    both.mkdir()
    write_bars(both / "X_1d.csv", FLAT * 3)
    write_bars(both / "Y_1d.csv", FLAT * 3)
    assert main([str(both), str(tmp_path / "t.csv"), "--out", str(tmp_path / "out")]) == 2
    assert "bars of 2 symbols (X, Y); choose one with --symbols" in capsys.readouterr().err
    assert main([str(both), str(tmp_path / "t.csv"), "--out", str(tmp_path / "out"), "--symbol", "Y"]) == 0
    assert main([str(write_bars(tmp_path / "Z_1d.csv", FLAT)), str(tmp_path / "t.csv"), "--out", "o"]) == 2
    assert "give 2 or more" in capsys.readouterr().err
