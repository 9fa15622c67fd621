"""A local fake of Binance's spot HTTP interface (api/v3), in the shapes that its documentation shows."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jaxppo.market.bars import Bars

KEY, SECRET = "binance-test-key-000", "binance-test-secret-111"


@dataclass
class FakeBinance:
    """One market, COIN/USDT, whose market orders fill at once at the last close."""

    bars: Bars
    now: Callable[[], float]
    base: str = "COIN"
    cash: float = 50_000.0
    coins: float = 0.0
    share: float = 1.0
    fee: float = 0.001
    fee_in_coins: bool = True
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)  # by client id
    requests: list[tuple[str, str]] = field(default_factory=list)
    fail: list[Any] = field(default_factory=list)  # of the next requests: (status, code, message), "drop", "lose"
    only: str = ""

    def __enter__(self) -> FakeBinance:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length).decode()
                parts = urlsplit(self.path)
                query = {k: v[0] for k, v in parse_qs(parts.query or body).items()}
                query |= {k: v[0] for k, v in parse_qs(body).items()}
                fake.requests.append((self.command, parts.path))
                failing = fake.fail.pop(0) if fake.fail and fake.only in f"{self.command} {parts.path}" else None
                if failing == "drop":
                    self.connection.close()
                    return
                if isinstance(failing, tuple):
                    status, value = failing[0], {"code": failing[1], "msg": failing[2]}
                else:
                    status, value = fake.answer(self.command, parts.path, query)
                if failing == "lose":
                    self.connection.close()
                    return
                text = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
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

    @property
    def symbol(self) -> str:
        return f"{self.base}USDT"

    @property
    def price(self) -> float:
        closed = self.bars.time + self.bars.interval <= self.now()
        return float(self.bars.close[closed][-1])

    def answer(self, method: str, path: str, query: dict[str, str]) -> tuple[int, Any]:
        where = path.removeprefix("/api/v3/")
        if where == "exchangeInfo":
            return 200, {"timezone": "UTC", "serverTime": int(1000 * self.now()), "symbols": [self._market()]}
        if where == "time":
            return 200, {"serverTime": int(1000 * self.now())}
        if where == "klines":
            return 200, self._klines(query)
        if where in ("ticker/24hr", "ticker/price"):
            return 200, {"symbol": self.symbol, "lastPrice": str(self.price), "price": str(self.price)}
        if where == "account":
            held = {"USDT": self.cash, self.base: self.coins}
            return 200, {"balances": [{"asset": a, "free": f"{x:.8f}", "locked": "0.0"} for a, x in held.items()]}
        if where == "openOrders":
            return 200, [o for o in self.orders.values() if o["status"] in ("NEW", "PARTIALLY_FILLED")]
        if where == "myTrades":
            order = next(o for o in self.orders.values() if str(o["orderId"]) == query["orderId"])
            return 200, self._trades(order)
        if where == "order":
            return self._order(method, query)
        return 404, {"code": -1, "msg": f"no such path {path}"}

    def _market(self) -> dict[str, Any]:
        lot = {"filterType": "LOT_SIZE", "minQty": "0.00010000", "maxQty": "9000.00000000", "stepSize": "0.00010000"}
        least = {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True}
        price = {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.0", "tickSize": "0.01"}
        return {
            "symbol": self.symbol,
            "status": "TRADING",
            "baseAsset": self.base,
            "baseAssetPrecision": 8,
            "quoteAsset": "USDT",
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "orderTypes": ["LIMIT", "MARKET"],
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "permissions": ["SPOT"],
            "filters": [price, lot, least],
        }

    def _klines(self, query: dict[str, str]) -> list[list[Any]]:
        start, most = int(query.get("startTime", 0)) // 1000, int(query.get("limit", 500))
        b = self.bars
        rows = [i for i, t in enumerate(b.time) if start <= t <= self.now()][:most]  # the last may be open still
        return [
            [int(b.time[i]) * 1000, *(repr(float(x[i])) for x in (b.open, b.high, b.low, b.close, b.volume)), 0]
            for i in rows
        ]

    def _order(self, method: str, query: dict[str, str]) -> tuple[int, Any]:
        if method == "POST":
            return self._new(query)
        id = query.get("origClientOrderId")
        order = self.orders.get(id or "") or next(
            (o for o in self.orders.values() if str(o["orderId"]) == query.get("orderId")), None
        )
        if order is None:
            return 400, {"code": -2013, "msg": "Order does not exist."}
        if method == "DELETE":
            if order["status"] == "FILLED":
                return 400, {"code": -2011, "msg": "Unknown order sent."}
            order["status"] = "CANCELED"
        return 200, order

    def _new(self, query: dict[str, str]) -> tuple[int, Any]:
        units = float(query["quantity"]) * (1 if query["side"] == "BUY" else -1) * self.share
        price = self.price
        if units * price > self.cash * 1.0001 or self.coins + units < -1e-9:
            return 400, {"code": -2010, "msg": "Account has insufficient balance for requested action."}
        paid = abs(units) * self.fee
        self.cash -= units * price + (paid * price if units < 0 or not self.fee_in_coins else 0.0)
        self.coins += units - (paid if units > 0 and self.fee_in_coins else 0.0)
        order = {
            "symbol": self.symbol,
            "orderId": len(self.orders) + 1,
            "clientOrderId": query["newClientOrderId"],
            "transactTime": int(1000 * self.now()),
            "time": int(1000 * self.now()),
            "price": "0.00000000",
            "origQty": query["quantity"],
            "executedQty": f"{abs(units):.8f}",
            "cummulativeQuoteQty": f"{abs(units) * price:.8f}",
            "status": "FILLED" if self.share == 1.0 else "PARTIALLY_FILLED",
            "timeInForce": "GTC",
            "type": "MARKET",
            "side": query["side"],
        }
        self.orders[query["newClientOrderId"]] = order
        return 200, {**order, "fills": self._trades(order)}

    def _trades(self, order: dict[str, Any]) -> list[dict[str, Any]]:
        filled, bought = float(order["executedQty"]), order["side"] == "BUY"
        price = float(order["cummulativeQuoteQty"]) / filled
        coins = bought and self.fee_in_coins
        paid = filled * self.fee * (1.0 if coins else price)
        return [
            {
                "symbol": self.symbol,
                "id": 7,
                "tradeId": 7,
                "orderId": order["orderId"],
                "price": repr(price),
                "qty": order["executedQty"],
                "commission": repr(paid),
                "commissionAsset": self.base if coins else "USDT",
                "time": order["time"],
                "isBuyer": bought,
                "isMaker": False,
            }
        ]
