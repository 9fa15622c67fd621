"""An exchange's sandbox through ccxt, against a local fake of Binance's HTTP interface; never the network.

They need ccxt, which is an extra of its own: with what it brings it takes 124 MB.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import sys
from importlib.util import find_spec

import pytest
from fake_alpaca import Time
from fake_binance import KEY, SECRET, FakeBinance
from paper_fakes import HOUR
from test_paper_command import replay
from test_paper_command import run as run  # a fixture
from test_session import bars as bars  # a fixture

import jaxppo.paper.run
from jaxppo.errors import ConfigError
from jaxppo.market.synthetic import synthetic_market
from jaxppo.paper.broker import BrokerError, Order, Rejected, Unreachable
from jaxppo.paper.ccxt import CcxtBars, CcxtBroker, open_exchange
from jaxppo.paper.options import PaperOptions
from jaxppo.paper.run import paper_run


def test_without_ccxt_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ccxt", None)
    with pytest.raises(ConfigError, match=r"--broker ccxt: ccxt is not installed; pip install 'jaxppo\[ccxt\]'"):
        open_exchange("binance")


@pytest.fixture
def keys(monkeypatch):
    pytest.importorskip("ccxt")
    monkeypatch.setenv("CCXT_API_KEY", KEY)
    monkeypatch.setenv("CCXT_SECRET", SECRET)
    return monkeypatch


MARKET = dataclasses.replace(synthetic_market(0, 1, 900)[0], symbol="COIN-USDT", asset_class="crypto", timezone="UTC")


def at_fake(fake: FakeBinance):
    """The sandbox of Binance, moved to the fake."""
    exchange = open_exchange("binance")
    assert all("test" in url for url in exchange.urls["api"].values())  # sandboxes alone
    exchange.urls["api"] = dict.fromkeys(exchange.urls["api"], f"{fake.url}/api/v3")
    exchange.enableRateLimit = False
    return exchange


@pytest.fixture
def fake(keys):
    time = Time(int(MARKET.time[800]) + HOUR + 5.0)
    with FakeBinance(MARKET, time.now) as server:
        server.time = time
        yield server


@pytest.fixture
def broker(fake):
    made = CcxtBroker(at_fake(fake))
    made.check(("COIN-USDT",))
    return made


def order(units: float = 2.5, time: int = 1) -> Order:
    return Order(f"jx01234567-X-{time}", "COIN-USDT", time, units)


def test_an_order_is_filled_found_and_never_sent_twice(fake, broker):
    state = broker.submit(order())
    assert (state.status, state.filled) == ("filled", 2.5)
    assert state.price == pytest.approx(fake.price)
    assert state.arrival == pytest.approx(fake.price)
    assert broker.submit(order(7.0)).filled == 2.5
    assert sum(method == "POST" for method, _ in fake.requests) == 1
    assert broker.find("COIN-USDT", "jx01234567-X-2") is None
    # The fee was taken in coins: less is held than was bought, and none of it is money.
    assert broker.positions() == {"COIN-USDT": pytest.approx(2.5 * 0.999)}
    assert broker.find("COIN-USDT", "jx01234567-X-1").fee == 0
    assert broker.rules("COIN-USDT").fee_in_units == 0.001
    assert broker.equity() == pytest.approx(50_000.0 - 0.0025 * fake.price)
    broker.cancel(state)


def test_a_fee_in_money_is_told(fake, broker):
    fake.fee_in_coins = False
    broker.submit(order())
    state = broker.find("COIN-USDT", "jx01234567-X-1")
    assert state.fee == pytest.approx(2.5 * fake.price * 0.001)


def test_partial_fills_and_cancelling(fake, broker):
    fake.share = 0.4
    state = broker.submit(order())
    assert (state.status, state.filled) == ("open", 1.0)
    assert [o.id for o in broker.open_orders()] == ["jx01234567-X-1"]
    broker.cancel(state)
    assert broker.find("COIN-USDT", "jx01234567-X-1").status == "cancelled"


def test_refusals_and_silence(fake, broker):
    with pytest.raises(Rejected, match=r"^binance: Account has insufficient balance for requested action\.$"):
        broker.submit(order(1e5))
    fake.fail = [(503, -1000, "Service unavailable"), (429, -1003, "Too many requests")]
    for _ in range(2):
        with pytest.raises(Unreachable, match="binance: no answer"):
            broker.positions()
    fake.fail = [(401, -2015, f"Invalid API-key {KEY} or {SECRET}")]
    with pytest.raises(BrokerError, match=r"the keys were refused .*\*\*\*") as caught:
        broker.positions()
    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_an_order_whose_answer_is_lost_is_known_by_its_id(fake, broker):
    fake.fail, fake.only = ["lose"], "POST"
    with pytest.raises(Unreachable):
        broker.submit(order())
    assert broker.find("COIN-USDT", "jx01234567-X-1").filled == 2.5
    assert broker.submit(order()).filled == 2.5
    assert len(fake.orders) == 1


def test_bars_come_in_pages_and_only_once_they_have_closed(fake, broker):
    fetch = CcxtBars(broker._exchange, HOUR, broker.market, fake.time.now)
    closed = [int(t) for t in MARKET.time if t + HOUR <= fake.time.now()]
    assert [r[0] for r in fetch("COIN-USDT", closed[0])] == closed
    with pytest.raises(ConfigError, match="binance has no bars of 90m; it has "):
        CcxtBars(broker._exchange, 5400, broker.market, fake.time.now)


def test_exchanges_symbols_and_keys_that_are_not_there(fake, broker, keys):
    with pytest.raises(BrokerError, match="binance: no spot market NONE"):
        broker.check(("NONE",))
    with pytest.raises(ConfigError, match="--exchange: ccxt knows no 'binence'; did you mean 'binance'"):
        open_exchange("binence")
    with pytest.raises(ConfigError, match="--exchange: kraken has no sandbox in ccxt"):
        open_exchange("kraken")
    keys.delenv("CCXT_SECRET")
    with pytest.raises(ConfigError, match="--broker ccxt --exchange binance: the environment has no CCXT_SECRET"):
        open_exchange("binance")


@pytest.mark.skipif(find_spec("ccxt") is None, reason="or the run would be trained for nothing")
def test_a_session_is_journaled_and_itemised(run, bars, keys, tmp_path):
    alfa = next(b for b in jaxppo.load_bars(bars, interval="1h") if b.symbol == "ALFA")
    market, out = dataclasses.replace(alfa, asset_class="crypto", timezone="UTC"), tmp_path / "session"
    time = Time(int(market.time[780]) + HOUR + 5.0)
    end, sleep = time.now() + 40 * HOUR, time.sleep

    def waiting(seconds: float) -> None:
        sleep(seconds)
        if time.now() > end:
            (out / "KILL").touch()

    time.sleep = waiting
    fake = FakeBinance(market, time.now, base="ALFA")
    with fake, contextlib.redirect_stdout(io.StringIO()) as told:
        keys.setattr(jaxppo.paper.run, "open_exchange", lambda name: at_fake(fake))
        given = {"symbols": ("ALFA-USDT",), "broker": "ccxt", "exchange": "binance", "submit": True, "out": out}
        assert paper_run(PaperOptions(run_dir=run, **given), time.clock) == 1
    lines = [json.loads(line) for line in (out / "journal.jsonl").open()]
    decisions = [x for x in lines if x["kind"] == "decision"]
    assert len(decisions) >= 39
    assert fake.orders
    assert {x["adjusted"]["why"] for x in decisions if x["adjusted"]} == {"fee in kind"}
    found = replay(out, tmp_path / "replayed")
    assert found["difference"] == pytest.approx(sum(found["causes"].values()), abs=1e-6)
    assert abs(found["causes"]["rounding"]) < 0.5
    assert not [p for p in out.rglob("*") if SECRET.encode() in p.read_bytes() or KEY.encode() in p.read_bytes()]
    assert SECRET not in told.getvalue()
