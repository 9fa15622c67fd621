"""Alpaca's paper account against recorded sessions and a local fake of its HTTP interface; never the network."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fake_alpaca import KEY, SECRET, FakeAlpaca, Time

import jaxppo.paper.http
from jaxppo.errors import ConfigError, DataError
from jaxppo.market.synthetic import synthetic_market
from jaxppo.paper.alpaca import AlpacaBars, AlpacaBroker, connect, timeframe
from jaxppo.paper.broker import BrokerError, Order, Rejected, Unreachable
from jaxppo.paper.feed import PolledFeed, checked

HOUR = 3600


@pytest.fixture
def keys(monkeypatch):
    monkeypatch.setenv("APCA_API_KEY_ID", KEY)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
    monkeypatch.setattr(jaxppo.paper.http, "TIMEOUT", 0.3)
    return monkeypatch


MARKET = [
    dataclasses.replace(b, symbol=s, asset_class=c, timezone="UTC")
    for b, s, c in zip(synthetic_market(0, 2, 900), ("ALFA", "COIN/USD"), ("equity", "crypto"), strict=True)
]


@pytest.fixture
def fake(keys):
    at = Time(int(MARKET[0].time[800]) + HOUR + 5.0)
    with FakeAlpaca({b.symbol: b for b in MARKET}, at.now) as server:
        server.time = at
        keys.setenv("APCA_API_BASE_URL", server.url)
        keys.setenv("APCA_API_DATA_URL", server.url)
        yield server


@pytest.fixture
def broker(fake):
    made = AlpacaBroker(*(fast(h) for h in connect()))
    made.check(("ALFA", "COIN/USD"))
    return made


def fast(http):
    http._timeout = 0.3
    return http


def order(units: float = 2.5, symbol: str = "ALFA", time: int = 1) -> Order:
    return Order(f"jx01234567-X-{time}", symbol, time, units)


# Recorded sessions: what the documentation shows of an order's life

RECORDED = {
    "id": "61e69015-8549-4bfd-b9c3-01e75843f47d",
    "client_order_id": "jx01234567-AAPL1234-1704067200",
    "created_at": "2021-03-16T18:38:01.942282Z",
    "filled_at": None,
    "canceled_at": None,
    "asset_class": "us_equity",
    "symbol": "AAPL",
    "notional": None,
    "qty": "15",
    "filled_qty": "0",
    "filled_avg_price": None,
    "order_class": "",
    "type": "market",
    "side": "sell",
    "time_in_force": "day",
    "limit_price": None,
    "status": "accepted",
    "legs": None,
}


@pytest.mark.parametrize(
    ("session", "status", "filled", "price"),
    [
        ({"status": "pending_new"}, "open", 0.0, 0.0),
        ({"status": "accepted"}, "open", 0.0, 0.0),
        ({"status": "partially_filled", "filled_qty": "4", "filled_avg_price": "101.5"}, "open", -4.0, 101.5),
        ({"status": "pending_cancel", "filled_qty": "4", "filled_avg_price": "101.5"}, "open", -4.0, 101.5),
        ({"status": "canceled", "filled_qty": "4", "filled_avg_price": "101.5"}, "cancelled", -4.0, 101.5),
        ({"status": "expired"}, "cancelled", 0.0, 0.0),
        ({"status": "filled", "filled_qty": "15", "filled_avg_price": "101.25"}, "filled", -15.0, 101.25),
        ({"status": "rejected"}, "rejected", 0.0, 0.0),
        ({"status": "something_new_one_day"}, "open", 0.0, 0.0),
    ],
)
def test_recorded_orders(broker, session, status, filled, price):
    state = broker._state(RECORDED | session)
    assert (state.status, state.filled, state.price) == (status, filled, price)
    assert (state.id, state.broker_id) == (RECORDED["client_order_id"], RECORDED["id"])


def test_an_order_that_is_none_is_said_so(broker):
    with pytest.raises(BrokerError, match="alpaca: an order that is none was answered"):
        broker._state({"status": "new"})


# One order


def test_an_order_is_sent_filled_and_found(fake, broker):
    state = broker.submit(order())
    assert state.status == "open"
    price = float(MARKET[0].close[800])
    assert state.arrival == pytest.approx(price)
    (sent,) = [body for method, path, body in fake.requests if (method, path) == ("POST", "/v2/orders")]
    assert sent == {
        "symbol": "ALFA",
        "qty": "2.5",
        "side": "buy",
        "type": "market",
        "time_in_force": "day",
        "client_order_id": "jx01234567-X-1",
    }
    assert [o.id for o in broker.open_orders()] == ["jx01234567-X-1"]
    fake.time.sleep(HOUR)
    state = broker.find("ALFA", "jx01234567-X-1")
    assert (state.status, state.filled) == ("filled", 2.5)
    assert state.price == pytest.approx(float(MARKET[0].open[801]) * 1.0002)
    assert broker.positions() == {"ALFA": 2.5}
    assert broker.open_orders() == []
    assert broker.find("ALFA", "jx01234567-X-2") is None
    broker.cancel(state)  # it is done: nothing happens


def test_the_same_id_is_the_same_order(fake, broker):
    broker.submit(order())
    again = broker.submit(order(units=7.0))
    assert (again.id, len(fake.orders)) == ("jx01234567-X-1", 1)
    assert next(iter(fake.orders.values()))["qty"] == "2.5"


def test_coins_are_traded_until_cancelled_and_found_without_their_slash(fake, broker):
    broker.submit(order(0.1234, "COIN/USD"))
    assert fake.orders["jx01234567-X-1"]["time_in_force"] == "gtc"
    fake.time.sleep(HOUR)
    assert broker.positions() == {"COIN/USD": 0.1234}
    assert broker.rules("COIN/USD").fee_in_units == 0.0025
    assert broker.rules("COIN/USD").step == 0.0001
    assert broker.rules("ALFA").short_step == 1.0


def test_short_positions_are_negative(fake, broker):
    broker.submit(order(-3.0))
    fake.time.sleep(HOUR)
    assert broker.positions() == {"ALFA": -3.0}


def test_partial_fills_and_cancelling(fake, broker):
    fake.share = 0.4
    state = broker.submit(order())
    fake.time.sleep(HOUR)
    state = broker.find("ALFA", state.id)
    assert (state.status, state.filled) == ("open", 1.0)
    broker.cancel(state)
    assert broker.find("ALFA", state.id).status == "cancelled"


def test_refusals_are_rejections_with_the_reason(fake, broker):
    with pytest.raises(Rejected, match=r"^insufficient buying power$"):
        broker.submit(order(1e6))
    assert broker.find("ALFA", "jx01234567-X-1") is None


# What goes wrong on the way


@pytest.mark.parametrize("failing", [500, 503, 504, 429, "drop", "hang", "html", 302])
def test_no_answer_is_unreachable(fake, broker, failing):
    fake.fail = [failing]
    with pytest.raises(Unreachable, match=r"^alpaca: ") as caught:
        broker.equity()
    assert SECRET not in str(caught.value)
    assert broker.equity() == pytest.approx(50_000.0)


def test_an_order_whose_answer_is_lost_has_arrived_once(fake, broker):
    fake.fail, fake.only = ["lose"], "POST"
    with pytest.raises(Unreachable):
        broker.submit(order())
    assert broker.find("ALFA", "jx01234567-X-1").status == "open"
    assert broker.submit(order()).id == "jx01234567-X-1"
    assert len(fake.orders) == 1


def test_no_secret_is_in_any_message(fake, broker, keys):
    keys.setenv("APCA_API_SECRET_KEY", "another-secret-of-mine")
    with pytest.raises(
        BrokerError, match=r"alpaca: the keys were refused \(forbidden: \*\*\* \*\*\*\); check"
    ) as caught:
        AlpacaBroker(*connect()).check(())
    assert not {KEY, SECRET, "another-secret-of-mine"} & set(str(caught.value).split())
    assert caught.value.__cause__ is None
    assert "another-secret" not in repr(caught.value.__context__)


def test_keys_and_addresses(keys):
    keys.delenv("APCA_API_SECRET_KEY")
    with pytest.raises(ConfigError, match="--broker alpaca: the environment has no APCA_API_SECRET_KEY; set it"):
        connect()
    keys.setenv("APCA_API_SECRET_KEY", "x")
    keys.setenv("APCA_API_BASE_URL", "https://api.alpaca.markets/")
    with pytest.raises(ConfigError, match="names live trading; this is for paper, https://paper-api"):
        connect()


def test_symbols_and_accounts_that_cannot_trade(fake, broker):
    with pytest.raises(BrokerError, match="alpaca: NONE cannot be traded there; leave it out with --symbols"):
        broker.check(("NONE",))


# Bars


def test_bars_come_in_pages_and_only_once_they_have_closed(fake):
    fetch = AlpacaBars(connect()[1], HOUR, {"ALFA": False, "COIN/USD": True}, fake.time.now)
    rows = fetch("ALFA", int(MARKET[0].time[0]))
    assert [r[0] for r in rows] == MARKET[0].time[:801].tolist()
    assert rows[-1][1:] == tuple(float(getattr(MARKET[0], k)[800]) for k in ("open", "high", "low", "close", "volume"))
    assert sum("/v2/stocks/bars" in path for _, path, _ in fake.requests) == 3
    closed = [int(t) for t in MARKET[1].time[700:] if t + HOUR <= fake.time.now()]
    assert [r[0] for r in fetch("COIN/USD", int(MARKET[1].time[700]))] == closed


def test_days_are_named_as_everywhere_here(fake):
    fetch = AlpacaBars(connect()[1], 86_400, {"ALFA": False}, fake.time.now)
    row = fetch._row({"t": "2024-07-01T04:00:00Z", "o": 1, "h": 2, "l": 1, "c": 2, "v": 3})
    assert row == (1719792000, 1.0, 2.0, 1.0, 2.0, 3.0)  # 2024-07-01 00:00 UTC


def test_timeframes():
    assert [timeframe(s) for s in (60, 900, 3600, 4 * 3600, 86_400, 7 * 86_400)] == (
        ["1Min", "15Min", "1Hour", "4Hour", "1Day", "1Week"]
    )
    with pytest.raises(ConfigError, match="it has no bars of 90000 s"):
        timeframe(90_000)


def test_prices_that_no_market_has_are_refused():
    with pytest.raises(DataError, match=r"ALFA: the bar of .* has open 5, high 4, .* nothing was sent on it"):
        checked(MARKET[0], [(int(MARKET[0].time[-1]) + HOUR, 5.0, 4.0, 3.0, 4.0, 1.0)])
    with pytest.raises(DataError, match="no market can have"):
        checked(MARKET[0], [(int(MARKET[0].time[-1]) + HOUR, 5.0, 6.0, 3.0, float("nan"), 1.0)])


def test_a_polled_feed_gives_each_bar_once_and_tells_those_that_are_late(fake):
    coin = MARKET[1]
    at, said = fake.time, []
    fetch = AlpacaBars(connect()[1], HOUR, {"COIN/USD": True}, at.now)
    start = dataclasses.replace(coin, **{k: getattr(coin, k)[:801] for k in ("time", *FIELDS)})
    feed = PolledFeed({"COIN/USD": start}, fetch, said.append, clock=at.clock).bars()
    first = next(feed)
    assert (first.time, first.late) == (int(coin.time[800]), False)
    two = next(feed)
    assert (two.time, two.late) == (int(coin.time[801]), False)
    assert at.now() == int(coin.time[801]) + HOUR + 5  # asked once, five seconds after its end
    at.sleep(3 * HOUR)  # a laptop that slept
    assert max(at.waits[:-1]) <= 5  # between two looks for a kill switch
    late = [next(feed) for _ in range(3)]
    assert [c.time for c in late] == coin.time[802:805].tolist()
    assert [c.late for c in late] == [True, True, False]
    fake.fail = [503, 503]
    five = next(feed)
    assert five.time == int(coin.time[805])
    assert len(said) == 1
    assert "alpaca: GET /v1beta3/crypto/us/bars failed with status 503" in said[0]
    assert np.array_equal(five.bars["COIN/USD"].close, coin.close[:806])


FIELDS = ("open", "high", "low", "close", "volume")
