"""A local fake of Alpaca's HTTP interface, in the shapes that its documentation shows, and the market behind it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from jaxppo.market.bars import Bars
from jaxppo.paper.feed import Clock

KEY, SECRET = "PKTESTKEY0000000", "s3cr3t/with+odd=chars"


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class FakeAlpaca:
    """Fills a market order at the first open after it came in, moved by `slip` against it."""

    market: dict[str, Bars]
    now: Callable[[], float]
    slip: float = 0.0002
    cash: float = 50_000.0
    share: float = 1.0  # of an order that fills
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)  # by client id
    held: dict[str, float] = field(default_factory=dict)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    fail: list[Any] = field(default_factory=list)  # of the next requests: a status, "drop", "hang", "lose"; None: fine
    only: str = ""  # part of the path of the requests that fail
    fractionable: bool = True

    def __enter__(self) -> FakeAlpaca:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                fake.requests.append((self.command, self.path, body))
                failing = fake.fail.pop(0) if fake.fail and fake.only in f"{self.command} {self.path}" else None
                if failing == "drop":
                    self.connection.close()
                    return
                if failing == "hang":
                    time.sleep(1.0)
                    return
                keys = (self.headers.get("APCA-API-KEY-ID"), self.headers.get("APCA-API-SECRET-KEY"))
                if keys != (KEY, SECRET):
                    # A careless server repeats what it was sent.
                    status, value = 401, {"message": f"forbidden: {keys[0]} {keys[1]}"}
                elif isinstance(failing, int):
                    status, value = failing, {"code": 50010000, "message": f"internal server error for {SECRET}"}
                else:
                    status, value = fake.answer(self.command, self.path, body)
                if failing == "lose":
                    self.connection.close()
                    return
                text = b"" if value is None else json.dumps(value).encode()
                text = b"<html>gateway</html>" if failing == "html" else text
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://example.invalid/")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_DELETE = _serve

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    # What the server knows

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        parts = urlsplit(path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        self._trade()
        where = unquote(parts.path)
        if where == "/v2/account":
            return 200, {
                "status": "ACTIVE",
                "trading_blocked": False,
                "account_blocked": False,
                "equity": str(self.equity),
            }
        if where.startswith("/v2/assets/"):
            return self._asset(where.removeprefix("/v2/assets/"))
        if where == "/v2/positions":
            return 200, [self._position(s, n) for s, n in self.held.items() if n]
        if where == "/v2/orders" and method == "POST":
            return self._order(body)
        if where == "/v2/orders":
            return 200, [o for o in self.orders.values() if o["status"] in ("accepted", "partially_filled")]
        if where == "/v2/orders:by_client_order_id":
            order = self.orders.get(query["client_order_id"])
            return (200, order) if order else (404, {"code": 40410000, "message": "order not found"})
        if where.startswith("/v2/orders/") and method == "DELETE":
            return self._cancel(where.removeprefix("/v2/orders/"))
        if where.endswith("/bars"):
            return 200, self._bars(query)
        if "quotes" in where:
            price = self._last(query["symbols"])
            return 200, {
                "quotes": {query["symbols"]: {"bp": price * 0.9999, "ap": price * 1.0001, "t": stamp(self.now())}}
            }
        return 404, {"message": "not found"}

    @property
    def equity(self) -> float:
        return self.cash + sum(n * self._last(s) for s, n in self.held.items())

    def _last(self, symbol: str) -> float:
        bars = self.market[symbol]
        known = [c for t, c in zip(bars.time, bars.close, strict=True) if t + bars.interval <= self.now()]
        return float(known[-1])

    def _asset(self, symbol: str) -> tuple[int, Any]:
        if symbol not in self.market:
            return 404, {"code": 40410000, "message": f"asset not found for {symbol}"}
        coin = self.market[symbol].asset_class == "crypto"
        asset = {"symbol": symbol, "class": "crypto" if coin else "us_equity", "tradable": True, "shortable": True}
        more = {"min_order_size": "0.0001", "min_trade_increment": "0.0001"} if coin else {}
        return 200, asset | {"fractionable": self.fractionable} | more

    def _position(self, symbol: str, units: float) -> dict[str, Any]:
        side = "long" if units > 0 else "short"
        return {"symbol": symbol.replace("/", ""), "qty": str(units), "side": side, "avg_entry_price": "100.0"}

    def _order(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body["client_order_id"] in self.orders:
            return 422, {"code": 40010001, "message": "client_order_id must be unique"}
        units = float(body["qty"]) * (1 if body["side"] == "buy" else -1)
        held = self.held.get(body["symbol"], 0.0)
        if held * (held + units) < 0:
            return 403, {"code": 40310000, "message": "insufficient qty available for order"}
        if units > 0 and units * self._last(body["symbol"]) > 1.001 * self.cash and held >= 0:
            return 403, {"code": 40310000, "message": "insufficient buying power"}
        order = {"id": f"id-{len(self.orders)}", "status": "accepted", "filled_qty": "0", "filled_avg_price": None}
        order |= {**body, "submitted_at": stamp(self.now()), "came": self.now()}
        self.orders[body["client_order_id"]] = order
        return 200, order

    def _cancel(self, id: str) -> tuple[int, Any]:
        order = next((o for o in self.orders.values() if o["id"] == id), None)
        if order is None:
            return 404, {"message": "order not found"}
        if order["status"] in ("filled", "canceled"):
            return 422, {"code": 42210000, "message": 'order is already in "filled" state'}
        order["status"] = "canceled"
        return 204, None

    def _trade(self) -> None:
        for order in self.orders.values():
            bars = self.market[order["symbol"]]
            row = next((i for i, t in enumerate(bars.time) if t + bars.interval > order["came"]), None)
            if order["status"] != "accepted" or row is None or self.now() < order["came"] + 2:
                continue
            side = 1 if order["side"] == "buy" else -1
            price = float(bars.open[row]) * (1 + side * self.slip)
            units = round(side * float(order["qty"]) * self.share, 9)
            self.cash -= units * price
            self.held[order["symbol"]] = round(self.held.get(order["symbol"], 0.0) + units, 9)
            order |= {"filled_qty": str(abs(units)), "filled_avg_price": str(price)}
            order["status"] = "filled" if self.share == 1.0 else "partially_filled"

    def _bars(self, query: dict[str, str]) -> dict[str, Any]:
        symbol, size = query["symbols"], 400  # a page, whatever is asked for
        bars, begin = self.market[symbol], datetime.fromisoformat(query["start"]).timestamp()
        rows = [i for i, t in enumerate(bars.time) if begin <= t <= self.now()]  # the last may be open still
        at = int(query.get("page_token") or 0)
        page = [self._bar(bars, i) for i in rows[at : at + size]]
        more = at + size < len(rows)
        return {"bars": {symbol: page} if page else {}, "next_page_token": str(at + size) if more else None}

    def _bar(self, bars: Bars, i: int) -> dict[str, Any]:
        prices = zip("ohlc", (bars.open, bars.high, bars.low, bars.close), strict=True)
        named = {k: float(x[i]) for k, x in prices}
        return {"t": stamp(int(bars.time[i])), **named, "v": float(bars.volume[i]), "n": 10, "vw": named["c"]}


class Time:
    """A clock that only moves when somebody waits."""

    def __init__(self, now: float):
        self.seconds, self.waits = now, []

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.seconds += seconds

    @property
    def clock(self) -> Clock:
        return Clock(self.now, self.sleep)
