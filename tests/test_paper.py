"""The loop of paper trading: nothing is sent twice or lost, whatever happens between two bars."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from paper_fakes import ENV, HOUR, PLAIN, POLICY, SHARE, FakeBroker, Session, bars_of, market

import jaxppo.store.journal
from jaxppo.errors import DataError
from jaxppo.paper.broker import BrokerError, OrderState, Rules, order_id
from jaxppo.paper.limits import Limits, Situation, only_reducing, within
from jaxppo.replay.journaled import replay_session
from jaxppo.store.journal import Journal, read_journal
from jaxppo.store.sessions import read_session

RISING = bars_of([100.0, 100.0, 100.0, 101.0, 102.0, 103.0, 104.0])
SELL, FLAT, LONG = 0, 1, 2  # actions of PLAIN


def told(**at: int) -> dict[int, int]:
    """Actions by bar, b2=LONG; flat elsewhere."""
    return {**dict.fromkeys(range(20), FLAT), **{int(k[1:]): v for k, v in at.items()}}


# The simulated broker is the environment


def test_a_session_on_the_simulated_broker_is_the_backtest_to_the_bit(tmp_path):
    session = Session(tmp_path, market(40)).run()
    compared = replay_session(read_session(tmp_path))
    assert [c.symbol for c in compared] == ["ONE", "TWO"]
    assert all(c.same for c in compared)
    assert [len(c.time) for c in compared] == [37, 35]
    reasons = {x["exit"]["reason"] for x in session.decisions if x["exit"]}
    assert "stop" in reasons  # or nothing was compared that is decided within a bar
    assert sum(f["units"] != 0 for x in session.decisions for f in x["fills"]) > 10
    assert sum(c.ends[0] for c in compared) == pytest.approx(session.loop.broker.equity(), rel=1e-12)


def test_dividends_are_paid_to_the_bit(tmp_path):
    bars = [dataclasses.replace(b, dividend=np.where(np.arange(len(b.time)) % 5 == 0, 0.2, 0.0)) for b in market(20)]
    session = Session(tmp_path, bars).run()
    found = replay_session(read_session(tmp_path))
    assert all(c.same for c in found)
    assert all(abs(c.items["dividends"]) < 1e-3 for c in found)
    assert {x["bar"]["dividend"] for x in session.decisions} == {0.0, 0.2}
    # A broker's are no part of the journal, so they are what its session has less.
    (tmp_path / "fake").mkdir()
    flat = dataclasses.replace(bars_of([100.0] * 8), dividend=np.asarray([0.0] * 5 + [1.0] + [0.0] * 2))
    Session(tmp_path / "fake", [flat], FakeBroker(), dict.fromkeys(range(8), LONG), PLAIN).run()
    (c,) = replay_session(read_session(tmp_path / "fake"))
    assert c.items["dividends"] == pytest.approx(-SHARE / 100, rel=0.01)
    assert c.difference == pytest.approx(sum(c.items.values()), abs=1e-9)
    assert abs(c.items["rounding"]) < 0.01


def test_the_money_of_one_trade_by_hand(tmp_path):
    # All of 10,000 at bar 3's open of 100: a fill at 100.05 with a fee of .1 %, so that units * 100 is the equity left:
    # units = 10,000 / (100 + 100 * (.0005 + .001 + .0005 * .001)) = 99.85017...; at 104 on the last bar.
    session = Session(tmp_path, [RISING], told=told(b2=LONG, b3=LONG, b4=LONG, b5=LONG), env=PLAIN).run()
    units = SHARE / (100 * (1 + 0.0005 + 0.001 + 0.0000005))
    assert session.loop.broker.positions()["AAA"] == pytest.approx(units, rel=1e-6)
    fill = next(f for x in session.decisions for f in x["fills"] if f["units"])
    assert fill["price"] == pytest.approx(100.05, rel=1e-6)
    assert fill["fee"] == pytest.approx(units * 100.05 * 0.001, rel=1e-6)
    assert session.decisions[-1]["equity"] == pytest.approx(units * 104, rel=1e-6)


def test_every_decision_is_journaled_with_what_it_was_taken_on(tmp_path):
    bars = market()
    decisions = Session(tmp_path, bars).run().decisions
    assert [(x["symbol"], x["time"]) for x in decisions if x["symbol"] == "ONE"] == [
        ("ONE", int(t)) for t in bars[0].time[2:]
    ]
    last = decisions[-1]
    assert last["bars"] == len(bars[1].time)
    assert last["bar"]["close"] == bars[1].close[-1]
    assert len(last["observation"]) == 8
    assert sum(last["probabilities"].values()) == pytest.approx(sum(np.exp(last["log_probs"])), rel=1e-6)
    # The hash is of all bars seen: another price long ago is another hash, the same bars again the same.
    again = Session(Path(tmp_path / "again").mkdir() or tmp_path / "again", market()).run().decisions
    assert [x["hash"] for x in again] == [x["hash"] for x in decisions]
    bars[1].open[0] += 0.01
    other = Session(Path(tmp_path / "other").mkdir() or tmp_path / "other", bars).run().decisions
    assert {x["hash"] for x in other if x["symbol"] == "TWO"}.isdisjoint(x["hash"] for x in decisions)


def test_a_dry_run_sends_nothing_and_says_so(tmp_path):
    session = Session(tmp_path, market(), submit=False).run()
    assert not (tmp_path / "broker.jsonl").exists() or not session.broker._orders
    assert any(x["order"] for x in session.decisions)
    assert all(x["dry"] for x in session.decisions)
    assert any("dry run: not sent" in line for line in session.said)
    assert session.loop.book.equity == 2 * SHARE
    compared = replay_session(read_session(tmp_path))
    for c in compared:
        assert c.difference == pytest.approx(sum(c.items.values()), abs=1e-9)
        assert abs(c.items["rounding"]) < 0.01
    assert any(c.items["unsent"] != 0 for c in compared)


# A process may be killed at any write


class Crash(BaseException):
    """The process is gone; not an Exception, so that nothing of ours can catch it."""


def crash_at(patch: pytest.MonkeyPatch, n: int, how: str) -> None:
    """The n-th write of any journal is not done, torn or done when the process is killed."""
    write, count = Journal.append, iter(range(10**6))

    def append(self, line, *, sync=False):
        if next(count) != n:
            write(self, line, sync=sync)
            return
        if how == "after":
            write(self, line, sync=sync)
        elif how == "torn":
            text = json.dumps(jaxppo.store.journal.plain(line)).encode()
            self._file.write(text[: len(text) // 2])
            self._file.flush()
        raise Crash

    patch.setattr(Journal, "append", append)


@pytest.mark.parametrize("how", ["torn", "after"])
def test_a_session_killed_at_any_write_ends_as_if_it_never_was(tmp_path, monkeypatch, how):
    bars = market(8)
    (tmp_path / "whole").mkdir()
    whole = Session(tmp_path / "whole", bars).run()
    orders = [json.loads(x) for x in (tmp_path / "whole" / "broker.jsonl").read_text().splitlines()]
    writes = len(whole.lines) + len(orders)
    assert writes > 30
    for n in range(1, writes):
        folder = tmp_path / str(n)
        folder.mkdir()
        with monkeypatch.context() as patch:
            crash_at(patch, n, how)
            with pytest.raises(Crash):
                Session(folder, bars).run()
        again = Session(folder, bars).run()
        assert again.decisions == whole.decisions, n
        accepted = [x for x in read_journal(folder / "broker.jsonl") if x["kind"] == "order"]
        assert accepted == [x for x in orders if x["kind"] == "order"], n
        assert again.broker.equity() == whole.broker.equity()


def test_two_crashes_in_a_row(tmp_path, monkeypatch):
    bars = market(9)
    (tmp_path / "whole").mkdir()
    whole = Session(tmp_path / "whole", bars).run()
    for n in (7, 3, 11, 2):
        with monkeypatch.context() as patch:
            crash_at(patch, n, "torn")
            with pytest.raises(Crash):
                Session(tmp_path, bars).run()
    assert Session(tmp_path, bars).run().decisions == whole.decisions


def test_an_order_whose_answer_was_lost_is_looked_up_and_not_sent_again(tmp_path):
    broker = FakeBroker()
    broker.lose = True
    session = Session(tmp_path, [RISING], broker, told(b2=LONG, b3=LONG, b4=LONG), PLAIN).run()
    assert broker.sent[0].id == order_id(POLICY, "AAA", int(RISING.time[2]))
    assert len({o.id for o in broker.sent}) == len(broker.sent) >= 2
    assert "whether order" in " ".join(session.said)
    fills = [f for x in session.decisions for f in x["fills"]]
    assert fills[0]["units"] == broker.sent[0].units


def test_after_a_stop_the_newest_order_is_found_or_sent_once(tmp_path, monkeypatch):
    for arrived in (False, True):
        folder, broker = tmp_path / str(arrived), FakeBroker()
        folder.mkdir()
        submit = broker.submit

        def gone(order, arrived=arrived, submit=submit):
            if arrived:
                submit(order)
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(broker, "submit", gone)
            with pytest.raises(Crash):
                Session(folder, [RISING], broker, told(b2=LONG), PLAIN).run()
        assert len(broker.sent) == arrived
        Session(folder, [RISING], broker, told(b2=LONG), PLAIN).run()
        assert [o.time for o in broker.sent[:1]] == [int(RISING.time[2])]
        assert len({o.id for o in broker.sent}) == len(broker.sent)


def test_a_journal_that_is_damaged_within_is_refused(tmp_path):
    Session(tmp_path, market()).run()
    path = tmp_path / "journal.jsonl"
    text = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*text[:4], text[4][:-20] + "\n", *text[5:]]))
    with pytest.raises(DataError, match=r"journal.jsonl, line 5: damaged, so what was sent cannot be known"):
        Session(tmp_path, market())
    path.write_text("".join([*text[:4], '{"kind":"decision"}\n', *text[5:]]))
    with pytest.raises(DataError, match=r"journal, line 5: not as a session writes it \(KeyError\('time'\)\)"):
        Session(tmp_path, market())
    with pytest.raises(DataError, match=r"journal.jsonl, line 5: not as a session writes it \(KeyError\('symbol'\)\)"):
        read_session(tmp_path)


def test_a_line_that_cannot_be_written_leaves_the_journal_whole(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j.jsonl")
    journal.append({"kind": "note", "text": "one"})

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            self.file.write(data[:5])
            self.file.flush()
            raise OSError(28, "No space left on device")

    journal._file = Full(journal._file)
    with pytest.raises(OSError, match="No space left"):
        journal.append({"kind": "note", "text": "two"})
    journal.append({"kind": "note", "text": "three", "x": float("inf")})
    assert [x["text"] for x in read_journal(tmp_path / "j.jsonl")] == ["one", "three"]


# What brokers do


def test_partial_fills_are_counted_once_and_the_rest_is_cancelled(tmp_path):
    broker = FakeBroker()
    broker.share = 0.4
    session = Session(tmp_path, [RISING], broker, told(b2=LONG), PLAIN).run()
    first = session.decisions[1]["fills"]
    assert [(f["units"], f["status"]) for f in first] == [(broker.sent[0].units * 0.4, "cancelled")]
    assert session.decisions[1]["units"] == broker.sent[0].units * 0.4
    counted = {f["id"]: f["units"] for x in session.decisions for f in x["fills"]}  # all but the last bar's order
    assert counted == {o.id: pytest.approx(o.units * 0.4) for o in broker.sent if o.time < RISING.time[-1]}


def test_an_order_that_cannot_be_cancelled_holds_the_next_one_back(tmp_path):
    broker = FakeBroker()
    broker.share, broker.deaf_to_cancel = 0.5, True
    session = Session(tmp_path, [RISING], broker, told(b2=LONG, b3=LONG, b4=SELL), PLAIN).run()
    assert len(broker.sent) == 1
    assert [b["limit"] for x in session.decisions for b in x["limits"]] == ["open_order"] * 4
    assert "the order before it is still open" in " ".join(session.said)
    assert sum(f["units"] for x in session.decisions for f in x["fills"]) == broker.held["AAA"]


def test_a_rejection_is_journaled_said_and_forgotten(tmp_path):
    broker = FakeBroker()
    broker.reject = "insufficient buying power"
    session = Session(tmp_path, [RISING], broker, told(b2=LONG), PLAIN).run()
    rejected = [x for x in session.lines if x["kind"] == "reject"]
    assert [x["reason"] for x in rejected] == ["insufficient buying power"]
    assert "AAA: fake refused order" in " ".join(session.said)
    assert session.loop.standing.day.orders == set()
    assert session.loop.book["AAA"].units == 0


def test_a_silent_broker_is_asked_again_and_then_the_bar_is_passed(tmp_path):
    def silent(broker, calls):
        return lambda bars: setattr(broker, "silent", calls if len(bars.time) == 3 else 0)

    script = told(b2=LONG, b3=LONG)
    for calls, skipped in ((2, []), (3, [int(RISING.time[2])])):  # it is asked three times
        folder, broker = tmp_path / str(calls), FakeBroker()
        folder.mkdir()
        session = Session(folder, [RISING], broker, script, PLAIN, before=silent(broker, calls)).run()
        assert [x["time"] for x in session.lines if x["kind"] == "skipped"] == skipped
        assert broker.sent[0].time == int(RISING.time[3 if skipped else 2])
    assert "fake: no answer within 10 s; AAA is not decided on at 2024-01-01 03:00:00 UTC" in session.said
    (c,) = replay_session(read_session(folder))
    assert c.difference == pytest.approx(sum(c.items.values()), abs=1e-9)
    assert abs(c.items["rounding"]) < 0.01


def test_positions_that_nobody_ordered_stop_the_session_or_are_taken_over(tmp_path):
    def steal(broker):
        def watch(bars):
            if len(bars.time) == 5:
                broker.held["AAA"] = broker.held.get("AAA", 0.0) + 7.0

        return watch

    broker = FakeBroker()
    (tmp_path / "stop").mkdir()
    session = Session(tmp_path / "stop", [RISING], broker, told(b2=LONG, b3=LONG), PLAIN, before=steal(broker))
    with pytest.raises(
        BrokerError, match=r"AAA: fake holds 106.901 and the journal 99.901, so .* --on-difference adjust"
    ):
        session.run()
    assert session.lines[-1]["kind"] == "note"
    assert all(o.time < RISING.time[4] for o in broker.sent)
    (tmp_path / "adjust").mkdir()
    broker = FakeBroker()
    args = (tmp_path / "adjust", [RISING], broker, told(b2=LONG, b3=LONG, b4=LONG), PLAIN)
    session = Session(*args, differing="adjust", before=steal(broker)).run()
    adjusted = [x for x in session.decisions if x["adjusted"]]
    assert [x["adjusted"]["to"] - x["adjusted"]["from"] for x in adjusted] == [pytest.approx(7.0)]
    assert [b["limit"] for b in adjusted[0]["limits"]] == ["difference"]
    assert session.loop.book["AAA"].units == broker.held["AAA"]


def test_a_position_that_is_there_before_the_first_bar_is_an_item(tmp_path):
    broker = FakeBroker()
    broker.held["AAA"] = 5.0
    script = dict.fromkeys(range(8), FLAT) | {2: LONG, 3: LONG, 4: LONG, 5: LONG}
    Session(tmp_path, [RISING], broker, script, PLAIN, differing="adjust").run()
    (c,) = replay_session(read_session(tmp_path))
    assert c.difference == pytest.approx(sum(c.items.values()), abs=1e-9)
    assert abs(c.items["rounding"]) < 0.01


def test_a_fee_in_kind_is_no_difference(tmp_path):
    broker = FakeBroker(Rules(fee_in_units=0.0025), fee=0.0)
    args = (tmp_path, [RISING], broker, told(b2=LONG, b3=LONG), PLAIN)
    session = Session(*args, before=lambda b: broker.held.update({k: v * 0.998 for k, v in broker.held.items()}))
    session.run()
    assert {x["adjusted"]["why"] for x in session.decisions if x["adjusted"]} == {"fee in kind"}


def test_a_broker_without_stops_is_told_to_close(tmp_path):
    # Bought at 100 with the stop of ENV at 99: bar 4 reaches down to 97.9, so the next order closes, whatever is said.
    bars = bars_of([100.0, 100.0, 100.0, 100.0, 98.0, 98.0, 98.0])
    broker = FakeBroker()
    session = Session(tmp_path, [bars], broker, {2: 1, 3: 0, 4: 1, 5: 0}, ENV).run()
    reasons = [x["order"]["reason"] for x in session.decisions if x["order"]]
    assert reasons == ["policy", "stop"]
    assert [o.units for o in broker.sent] == pytest.approx([100.0, -100.0], rel=1e-6)


def test_an_open_order_that_the_journal_does_not_know_is_not_traded_beside(tmp_path):
    broker = FakeBroker()
    lost = order_id(POLICY, "AAA", 1)
    broker.orders = {i: OrderState(i, "AAA", "open") for i in (lost, "somebody-elses")}
    session = Session(tmp_path, [RISING], broker, told(b2=LONG), PLAIN)
    with pytest.raises(BrokerError, match=f"AAA: fake has an open order {lost} of this policy that the journal"):
        session.run()
    assert broker.sent == []
    session = Session(tmp_path, [RISING], broker, told(b2=LONG), PLAIN, differing="adjust").run()
    assert f"AAA: order {lost}, which the journal does not know, was cancelled" in session.said
    assert broker.orders[lost].status == "cancelled"
    assert broker.orders["somebody-elses"].status == "open"
    assert broker.sent


def test_the_kill_switch_cancels_and_ends(tmp_path):
    broker = FakeBroker()
    broker.share = 0.5

    def watch(bars):
        if len(bars.time) == 4:
            (tmp_path / "KILL").touch()

    session = Session(tmp_path, [RISING], broker, told(b2=LONG, b3=LONG), PLAIN, before=watch)
    assert session.loop.run() is False
    assert [o.status for o in broker.orders.values()] == ["cancelled"]
    assert len(broker.sent) == 1
    assert "1 open orders were cancelled, nothing more is sent" in session.lines[-1]["text"]
    assert Session(tmp_path, [RISING], broker, told(b2=LONG, b3=LONG), PLAIN).loop.run() is False  # until it is gone
    (tmp_path / "KILL").unlink()
    assert Session(tmp_path, [RISING], broker, told(b2=LONG, b3=LONG), PLAIN).loop.run() is True


def test_another_broker_differs_by_items_that_add_up(tmp_path):
    # Filled at another price for another fee, one order by half; the account fills at the open with its costs.
    closes = [100.0, 100.0, 100.0, 101.0, 103.0, 102.0, 99.0, 98.0, 101.0, 104.0]
    broker = FakeBroker(fee=0.002)
    broker.arrival = 100.5

    def watch(bars):
        broker.price = float(bars.close[-1]) * 1.001
        broker.share = 0.5 if len(bars.time) == 5 else 1.0

    script = told(b2=LONG, b3=LONG, b4=SELL, b5=SELL, b6=FLAT, b7=LONG, b8=SELL)
    limits = Limits(max_order=15_000.0)
    session = Session(tmp_path, [bars_of(closes)], broker, script, PLAIN, limits=limits, before=watch).run()
    (c,) = replay_session(read_session(tmp_path))
    assert not c.same
    assert c.difference == pytest.approx(sum(c.items.values()), abs=1e-9)
    assert abs(c.items["rounding"]) < 0.01  # float32 of 10,000
    paid = sum(f["fee"] for x in session.decisions for f in x["fills"])
    assert paid > 50
    for cause in ("fees", "fills", "latency", "sizing", "limits", "unfilled"):
        assert abs(c.items[cause]) > 0.1, cause
    # The session's own money, from nothing but its fills and the last close.
    cash = SHARE - sum(f["units"] * f["price"] + f["fee"] for x in session.decisions for f in x["fills"])
    assert c.live[-1] == pytest.approx(cash + session.loop.book["AAA"].units * closes[-1], rel=1e-6)


def test_a_fee_alone_is_the_whole_difference(tmp_path):
    # 100 units bought and sold at what the account pays, for .3 % in place of .1 %: about 20 more for each fill.
    closes = [100.0] * 7
    broker = FakeBroker(fee=0.003)
    spread = 0.0005

    def watch(bars):
        broker.price = 100.0 * (1 + spread if len(bars.time) == 3 else 1 - spread)

    Session(tmp_path, [bars_of(closes)], broker, told(b2=LONG, b3=LONG), PLAIN, before=watch).run()
    (c,) = replay_session(read_session(tmp_path))
    assert c.items["fees"] == pytest.approx(-40.0, rel=0.02)
    assert abs(c.items["fills"]) < 1e-3
    assert abs(c.difference - c.items["fees"]) < 0.5  # a unit bought too many for the account's costs


# Limits


def at(held: float = 0.0, orders: int = 0, loss: float = 0.0, late: bool = False, rules: Rules | None = None):
    return Situation("AAA", held, 100.0, orders, loss, late, rules or Rules())


@pytest.mark.parametrize(
    ("units", "limits", "where", "left", "bites"),
    [
        (25.0, Limits(), at(), 25.0, []),
        (25.0, Limits(max_order=1_000.0), at(), 10.0, ["order"]),
        (-25.0, Limits(max_order=1_000.0), at(), -10.0, ["order"]),
        (-25.0, Limits(max_order=1_000.0), at(held=25.0), -25.0, []),  # what reduces is never cut
        (-40.0, Limits(max_order=1_000.0), at(held=25.0), -25.0, ["order"]),
        (25.0, Limits(max_position=1_000.0), at(held=4.0), 6.0, ["position"]),
        (25.0, Limits(max_position=1_000.0), at(held=14.0), 0.0, ["position"]),  # too large already: not larger
        (-30.0, Limits(max_position=1_000.0), at(held=14.0), -24.0, ["position"]),
        (25.0, Limits(max_orders_a_day=3), at(orders=3), 0.0, ["orders_a_day"]),
        (-25.0, Limits(max_orders_a_day=3), at(held=10.0, orders=3), -10.0, ["orders_a_day"]),
        (25.0, Limits(max_loss_a_day=50.0), at(loss=49.9), 25.0, []),
        (25.0, Limits(max_loss_a_day=50.0), at(loss=50.0), 0.0, ["loss_a_day"]),
        (25.0, Limits(), at(late=True), 0.0, ["late"]),
        (25.7, Limits(), at(rules=Rules(step=1.0)), 25.0, []),
        (0.3, Limits(), at(rules=Rules(step=0.1)), 0.30000000000000004, []),  # .3 / .1 is just below 3
        (-25.7, Limits(), at(held=25.7, rules=Rules(step=1.0)), -25.7, []),  # a whole position closes as it is
        (0.5, Limits(), at(rules=Rules(least_notional=100.0)), 0.0, ["too_small"]),
        (-40.0, Limits(), at(held=25.0, rules=Rules(flips=False)), -25.0, ["flip"]),
    ],
)
def test_limits_by_hand(units, limits, where, left, bites):
    found, said = within(units, limits, where)
    assert found == pytest.approx(left, abs=1e-12)
    assert [b.limit for b in said] == bites
    assert all(b.sentence.startswith("AAA: ") for b in said)


def test_limits_never_enlarge_an_order_nor_turn_it():
    rng = np.random.default_rng(0)
    for _ in range(500):
        units, held, order, position = rng.normal(size=4) * 50
        limits = Limits(max_order=abs(order) * 100, max_position=abs(position) * 100)
        found, _ = within(float(units), limits, at(held=float(held), orders=int(rng.integers(3))))
        assert abs(found) <= abs(units) + 1e-9
        assert found * units >= 0
        if abs(held + found) > abs(held) + 1e-9:
            assert abs(held + found) * 100 <= limits.max_position * (1 + 1e-9)


def test_limits_of_a_day_bite_are_journaled_and_end_with_the_day(tmp_path):
    bars = market(30)
    session = Session(tmp_path, bars, limits=Limits(max_orders_a_day=2)).run()
    found = [b for x in session.decisions for b in x["limits"]]
    assert {b["limit"] for b in found} == {"orders_a_day"}
    said = [x for x in session.said if "orders were sent today" in x]
    assert set(said) <= {b["sentence"] for b in found}
    times = {(x["symbol"], str(np.datetime64(x["time"] + HOUR, "s"))[:10]) for x in session.decisions if x["limits"]}
    assert len(said) == len(times) < len(found)  # once a day and symbol
    days: dict[str, int] = {}
    for x in session.decisions:
        if x["order"] and abs(x["units"] + x["order"]["units"]) > abs(x["units"]):
            day = str(np.datetime64(x["time"] + HOUR, "s"))[:10]
            days[day] = days.get(day, 0) + 1
    assert len(days) > 1
    again = Session(tmp_path, bars, limits=Limits(max_orders_a_day=2))
    assert again.loop.standing.day == session.loop.standing.day


def test_only_reducing_is_known_before_an_order():
    assert only_reducing(Limits(max_orders_a_day=2), at(orders=2))
    assert only_reducing(Limits(), at(late=True))
    assert not only_reducing(Limits(max_orders_a_day=2), at(held=-3.0, orders=1))


def test_order_ids_fit_brokers_and_differ():
    ids = {order_id(POLICY, s, 1_704_067_200) for s in ("BTC/USDT", "BTCUSDT", "BTC-USDT", "ABCDEFGHI", "ABCDEFGHJ")}
    assert len(ids) == 5
    assert all(re.fullmatch("[A-Za-z0-9-]{1,36}", i) for i in ids)
    assert order_id(POLICY, "AAA", 1) != order_id(POLICY, "AAA", 2)
