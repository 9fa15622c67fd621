"""Alpaca's paper account, and its bars. API: docs.alpaca.markets, Trading API v2 and Market Data API v2 / v1beta3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

from jaxppo.errors import ConfigError
from jaxppo.market.calendar import DAY
from jaxppo.paper.broker import BrokerError, Order, OrderState, Rejected, Rules, Status
from jaxppo.paper.feed import Row
from jaxppo.paper.http import Answer, Http, secret, setting

TRADING, DATA = "https://paper-api.alpaca.markets", "https://data.alpaca.markets"
LIVE_HOST = "api.alpaca.markets"
CRYPTO_FEE = 0.0025  # of what is bought, which is credited that much short; orders do not tell it
FRACTION = 1e-6  # shares; Alpaca takes nine digits, but a tenth of a cent is enough
_STATUS: Mapping[str, Status] = {
    "filled": "filled",
    "canceled": "cancelled",
    "expired": "cancelled",
    "replaced": "cancelled",
    "rejected": "rejected",
}  # all else can still fill


def connect() -> tuple[Http, Http]:
    """The trading and the data server, by the variables that Alpaca's own clients read.

    Raises:
      ConfigError: keys that are missing, or the address of live trading.
    """
    where = "--broker alpaca"
    keys = {
        "APCA-API-KEY-ID": secret("APCA_API_KEY_ID", where),
        "APCA-API-SECRET-KEY": secret("APCA_API_SECRET_KEY", where),
    }
    trading = setting("APCA_API_BASE_URL") or TRADING
    if urlsplit(trading).hostname == LIVE_HOST:
        raise ConfigError(f"{where}: APCA_API_BASE_URL names live trading; this is for paper, {TRADING}")
    return Http("alpaca", trading, keys), Http("alpaca", setting("APCA_API_DATA_URL") or DATA, keys)


class AlpacaBroker:
    """A `Broker` over Alpaca's HTTP interface."""

    name = "alpaca"
    sizes_at_open = False

    def __init__(self, trading: Http, data: Http):
        self._trading, self._data = trading, data
        self._assets: dict[str, dict[str, Any]] = {}

    def check(self, symbols: Sequence[str]) -> None:
        """An account that may trade, and symbols that can be traded there."""
        account = self._good(self._trading.ask("GET", "/v2/account"))
        if account.get("status") != "ACTIVE" or account.get("trading_blocked") or account.get("account_blocked"):
            raise BrokerError(f"alpaca: the account may not trade (status {account.get('status')})")
        for symbol in symbols:
            found = self._trading.ask("GET", f"/v2/assets/{quote(symbol, safe='')}")
            if found.status == 404 or not self._good(found).get("tradable"):
                raise BrokerError(f"alpaca: {symbol} cannot be traded there; leave it out with --symbols")
            self._assets[symbol] = found.value

    def rules(self, symbol: str) -> Rules:
        """Fractions where the asset has them; short positions are whole shares, and never reached through flat."""
        asset = self._assets[symbol]
        if asset.get("class") == "crypto":
            step, least = (float(asset.get(k) or 0.0) for k in ("min_trade_increment", "min_order_size"))
            return Rules(step=step, least_units=least, flips=False, fee_in_units=CRYPTO_FEE)
        step = FRACTION if asset.get("fractionable") else 1.0
        return Rules(step=step, short_step=1.0, least_notional=1.0, flips=False)

    def equity(self) -> float:
        """Of the whole account."""
        return float(self._good(self._trading.ask("GET", "/v2/account"))["equity"])

    def positions(self) -> dict[str, float]:
        """By the symbols that were checked: positions in coins come without the slash."""
        named = {_bare(symbol): symbol for symbol in self._assets}
        found = {}
        for position in self._good(self._trading.ask("GET", "/v2/positions")):
            units = abs(float(position["qty"])) * (-1.0 if position["side"] == "short" else 1.0)
            found[named.get(_bare(position["symbol"]), position["symbol"])] = units
        return found

    def open_orders(self) -> list[OrderState]:
        """At most 500."""
        found = self._good(self._trading.ask("GET", "/v2/orders", {"status": "open", "limit": 500}))
        return [self._state(order) for order in found]

    def submit(self, order: Order) -> OrderState:
        """A market order, good for the day (coins: until it is cancelled); outside of trading hours it waits."""
        arrival = self._quote(order.symbol)
        body = {
            "symbol": order.symbol,
            "qty": f"{abs(order.units):.9f}".rstrip("0").rstrip("."),
            "side": "buy" if order.units > 0 else "sell",
            "type": "market",
            "time_in_force": "gtc" if self._is_coin(order.symbol) else "day",
            "client_order_id": order.id,
        }
        answer = self._trading.ask("POST", "/v2/orders", body=body)
        if answer.status < 400:
            return self._state(answer.value, arrival)
        known = self.find(order.symbol, order.id) if "client_order_id" in answer.message else None
        if known is not None:
            return known
        raise Rejected(self._trading.hide(answer.message))

    def find(self, symbol: str, id: str) -> OrderState | None:
        """Of orders at any time."""
        answer = self._trading.ask("GET", "/v2/orders:by_client_order_id", {"client_order_id": id})
        return None if answer.status == 404 else self._state(self._good(answer))

    def cancel(self, order: OrderState) -> None:
        """422 says that it is done already, 404 that it is gone."""
        answer = self._trading.ask("DELETE", f"/v2/orders/{quote(order.broker_id, safe='')}")
        if answer.status not in (404, 422):
            self._good(answer)

    def kept(self, symbol: str) -> None:
        """Alpaca knows nothing of the training account."""
        return

    def _is_coin(self, symbol: str) -> bool:
        return self._assets.get(symbol, {}).get("class") == "crypto"

    def _quote(self, symbol: str) -> float | None:
        """Mid price as the order goes out; None where it is not to be had, for it is only told, not traded on."""
        path = "/v1beta3/crypto/us/latest/quotes" if self._is_coin(symbol) else "/v2/stocks/quotes/latest"
        try:
            quote_ = self._good(self._data.ask("GET", path, {"symbols": symbol}))["quotes"][symbol]
            bid, ask = float(quote_["bp"]), float(quote_["ap"])
        except (BrokerError, KeyError, TypeError, ValueError):
            return None
        return (bid + ask) / 2 if 0 < bid <= ask else None

    def _state(self, order: Mapping[str, Any], arrival: float | None = None) -> OrderState:
        try:
            side = -1.0 if order["side"] == "sell" else 1.0
            status: Status = _STATUS.get(order["status"], "open")
            return OrderState(
                id=str(order["client_order_id"]),
                symbol=str(order["symbol"]),
                status=status,
                filled=side * float(order.get("filled_qty") or 0.0),
                price=float(order.get("filled_avg_price") or 0.0),
                fee=float(order.get("commission") or 0.0),
                broker_id=str(order["id"]),
                reason=str(order["status"]) if status == "rejected" else "",
                arrival=arrival,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BrokerError(f"alpaca: an order that is none was answered ({error!r})") from error

    def _good(self, answer: Answer) -> Any:
        if answer.status >= 400 or (answer.value is None and answer.status != 204):
            raise BrokerError(f"alpaca: {self._trading.hide(answer.message)}")
        return answer.value


class AlpacaBars:
    """Closed bars of Alpaca: stocks of its IEX feed in raw prices, extended hours included, and coins."""

    def __init__(self, data: Http, interval: int, coins: Mapping[str, bool], now: Any):
        self._data, self._interval, self._coins, self._now = data, interval, coins, now
        self._width = timeframe(interval)

    def __call__(self, symbol: str, since: int) -> list[Row]:
        """Bars that began at or after `since`, UTC seconds, and have closed.

        Raises:
          Unreachable: no answer.
          BrokerError: an answer that holds no bars.
        """
        coin = self._coins[symbol]
        path = "/v1beta3/crypto/us/bars" if coin else "/v2/stocks/bars"
        query: dict[str, Any] = {"symbols": symbol, "timeframe": self._width, "limit": 10_000, "sort": "asc"}
        query["start"] = datetime.fromtimestamp(since - DAY, UTC).isoformat().replace("+00:00", "Z")
        query |= {} if coin else {"adjustment": "raw", "feed": "iex"}
        rows: list[Row] = []
        while True:
            answer = self._data.ask("GET", path, query)
            if answer.status >= 400:
                raise BrokerError(f"alpaca: no bars of {symbol}: {self._data.hide(answer.message)}")
            try:
                rows += [self._row(bar) for bar in (answer.value["bars"] or {}).get(symbol, [])]
                token = answer.value.get("next_page_token")
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise BrokerError(f"alpaca: bars of {symbol} that are none were answered ({error!r})") from error
            if not token:
                return [r for r in rows if r[0] >= since and r[0] + self._interval <= self._now()]
            query["page_token"] = token

    def _row(self, bar: Mapping[str, Any]) -> Row:
        start = int(datetime.fromisoformat(bar["t"]).timestamp())
        if self._interval % DAY == 0:
            start -= start % DAY  # a day begins at midnight of New York there, and at 00:00 UTC of its date here
        return (start, *(float(bar[k]) for k in "ohlcv"))  # type: ignore[return-value]


def timeframe(interval: int) -> str:
    """What Alpaca calls an interval; `ConfigError` for one that it has not."""
    for seconds, unit, most in ((7 * DAY, "Week", 1), (DAY, "Day", 1), (3600, "Hour", 23), (60, "Min", 59)):
        if interval % seconds == 0 and interval // seconds <= most:
            return f"{interval // seconds}{unit}"
    raise ConfigError(f"--broker alpaca: it has no bars of {interval} s; train on 1m to 59m, 1h to 23h, 1d or 1w")


def _bare(symbol: str) -> str:
    return symbol.replace("/", "").replace("-", "")
