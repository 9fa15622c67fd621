"""The sandbox of an exchange, through ccxt: spot markets, against whatever they are quoted in.

Secrets are CCXT_API_KEY, CCXT_SECRET and, where an exchange asks for one, CCXT_PASSWORD, all of the environment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jaxppo.errors import ConfigError, nearest
from jaxppo.market.calendar import format_interval
from jaxppo.paper.broker import BrokerError, Order, OrderState, Rejected, Rules, Status, Unreachable
from jaxppo.paper.feed import Row
from jaxppo.paper.http import TIMEOUT, hidden, secret, setting

SECRETS = ("CCXT_API_KEY", "CCXT_SECRET", "CCXT_PASSWORD")
_STATUS: Mapping[str, Status] = {
    "closed": "filled",
    "canceled": "cancelled",
    "expired": "cancelled",
    "rejected": "rejected",
}  # of ccxt's unified orders; all else can still fill
PAGE = 500  # bars asked for at once, which all exchanges give


def open_exchange(name: str) -> Any:
    """A client of an exchange's sandbox.

    Raises:
      ConfigError: ccxt is not installed, no such exchange, one without a sandbox, or keys that are missing.
    """
    try:
        import ccxt
    except ImportError as error:
        raise ConfigError("--broker ccxt: ccxt is not installed; pip install 'jaxppo[ccxt]'") from error
    if name not in ccxt.exchanges:
        raise ConfigError(f"--exchange: ccxt knows no {name!r}; {nearest(name, ccxt.exchanges)}")
    where = f"--broker ccxt --exchange {name}"
    keys = {"apiKey": secret(SECRETS[0], where), "secret": secret(SECRETS[1], where)}
    if setting(SECRETS[2]):
        keys["password"] = secret(SECRETS[2], where)
    options = {"defaultType": "spot", "fetchCurrencies": False, "warnOnFetchOpenOrdersWithoutSymbol": False}
    exchange = getattr(ccxt, name)(
        {**keys, "timeout": int(1000 * TIMEOUT), "enableRateLimit": True, "options": options}
    )
    if not exchange.urls.get("test"):
        raise ConfigError(f"--exchange: {name} has no sandbox in ccxt; choose one that has, such as binance")
    exchange.set_sandbox_mode(True)
    if isinstance(markets := exchange.options.get("fetchMarkets"), dict) and "types" in markets:
        markets["types"] = ["spot"]  # or the futures' sandboxes would have to be up too
    return exchange


class CcxtBroker:
    """A `Broker` over ccxt's unified interface."""

    sizes_at_open = False

    def __init__(self, exchange: Any):
        self._exchange = exchange
        self.name = str(exchange.id)
        self._markets: dict[str, str] = {}  # the exchange's symbol of each of ours

    def check(self, symbols: Sequence[str]) -> None:
        """Load the markets; our symbols may leave out the slash."""
        with self._errors():
            self._exchange.load_markets()
        names = {_bare(s): s for s, market in self._exchange.markets.items() if market.get("spot")}
        for symbol in symbols:
            if _bare(symbol) not in names:
                raise BrokerError(f"{self.name}: no spot market {symbol}; {nearest(symbol, names.values())}")
            self._markets[symbol] = names[_bare(symbol)]

    def market(self, symbol: str) -> str:
        """The exchange's name of one of our symbols."""
        return self._markets[symbol]

    def rules(self, symbol: str) -> Rules:
        """By the market's limits; what is held in coins is never below nothing, so nothing is turned over."""
        market = self._exchange.market(self._markets[symbol])
        limits = market.get("limits") or {}
        least = {k: float((limits.get(k) or {}).get("min") or 0.0) for k in ("amount", "cost")}
        precision = (market.get("precision") or {}).get("amount")
        step = 0.0
        if precision:
            step = float(precision) if self._exchange.precisionMode == TICK_SIZE else 10.0 ** -float(precision)
        fee = float(market.get("taker") or 0.0)
        return Rules(step, step, least["amount"], least["cost"], flips=False, fee_in_units=max(fee, 0.001))

    def equity(self) -> float:
        """What is free and used of the quote currencies, and the coins of our markets at their last price."""
        with self._errors():
            total = self._exchange.fetch_balance()["total"]
            money = 0.0
            markets = [self._exchange.market(m) for m in self._markets.values()]
            for quote in {m["quote"] for m in markets}:
                money += float(total.get(quote) or 0.0)
            for market in markets:
                if held := float(total.get(market["base"]) or 0.0):
                    money += held * float(self._exchange.fetch_ticker(market["symbol"])["last"])
        return money

    def positions(self) -> dict[str, float]:
        """Coins held, those in orders included."""
        with self._errors():
            total = self._exchange.fetch_balance()["total"]
        bases = {s: self._exchange.market(m)["base"] for s, m in self._markets.items()}
        return {s: float(total.get(base) or 0.0) for s, base in bases.items()}

    def open_orders(self) -> list[OrderState]:
        """Of our markets."""
        found = []
        for symbol, market in self._markets.items():
            with self._errors():
                found += [self._state(symbol, o) for o in self._exchange.fetch_open_orders(market)]
        return found

    def submit(self, order: Order) -> OrderState:
        """A market order. An id of an earlier order is looked up first: exchanges only refuse those of open ones."""
        known = self.find(order.symbol, order.id)
        if known is not None:
            return known
        market, side = self._markets[order.symbol], "buy" if order.units > 0 else "sell"
        given = {"clientOrderId": order.id}
        try:
            with self._errors(refuses=True):
                arrival = self._exchange.fetch_ticker(market).get("last")
                amount = float(self._exchange.amount_to_precision(market, abs(order.units)))
                answer = self._exchange.create_order(market, "market", side, amount, None, given)
        except Rejected:
            known = self.find(order.symbol, order.id)  # refused, since it is there already
            if known is None:
                raise
            return known
        return self._state(order.symbol, answer, order.id, None if arrival is None else float(arrival))

    def find(self, symbol: str, id: str) -> OrderState | None:
        """By the client's id."""
        import ccxt

        market = self._markets[symbol]
        try:
            with self._errors():
                order = self._exchange.fetch_order(None, market, {"clientOrderId": id, "origClientOrderId": id})
                if not _fees(order) and float(order.get("filled") or 0.0) > 0:
                    order["trades"] = self._exchange.fetch_order_trades(order["id"], market)
        except _Missing:
            return None
        except ccxt.NotSupported:  # no order by a client's id there, so it is looked for among the latest
            with self._errors():
                orders = [*self._exchange.fetch_open_orders(market), *self._exchange.fetch_closed_orders(market)]
            order = next((o for o in orders if o.get("clientOrderId") == id), None)
            if order is None:
                return None
        return self._state(symbol, order, id)

    def cancel(self, order: OrderState) -> None:
        """Of an order that is done already nothing happens."""
        with contextlib.suppress(_Missing), self._errors():
            self._exchange.cancel_order(order.broker_id, self._markets[order.symbol])

    def kept(self, symbol: str) -> None:
        """An exchange knows nothing of the training account."""
        return

    def _state(
        self, symbol: str, order: Mapping[str, Any], id: str | None = None, arrival: float | None = None
    ) -> OrderState:
        try:
            side = -1.0 if order["side"] == "sell" else 1.0
            status: Status = _STATUS.get(order.get("status") or "open", "open")
            # A fee in coins is missing from the position, and is taken over with it; in money it is paid.
            base = str(order["symbol"]).split("/")[0]
            fee = sum(float(f.get("cost") or 0.0) for f in _fees(order) if f.get("currency") != base)
            return OrderState(
                id=str(order.get("clientOrderId") or id),
                symbol=symbol,
                status=status,
                filled=side * float(order.get("filled") or 0.0),
                price=float(order.get("average") or 0.0),
                fee=fee,
                broker_id=str(order["id"]),
                reason="rejected" if status == "rejected" else "",
                arrival=arrival,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BrokerError(f"{self.name}: an order that is none was answered ({error!r})") from error

    def _errors(self, refuses: bool = False) -> contextlib.AbstractContextManager[None]:
        return exchange_errors(self.name, refuses)


def _fees(order: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What an order, or else its trades, tell of fees."""
    told = [f for f in order.get("fees") or [order.get("fee")] if f and f.get("cost") is not None]
    return told or [f for t in order.get("trades") or () for f in (t.get("fees") or [t.get("fee")]) if f]


TICK_SIZE = 4  # ccxt.TICK_SIZE, by which nearly all exchanges count: a step, and no number of digits


class _Missing(Exception):
    """The exchange has no such order."""


@contextlib.contextmanager
def exchange_errors(name: str, refuses: bool = False) -> Iterator[None]:
    """ccxt's errors as the loop's, without secrets; `refuses`: of an order, which can be wrong in itself."""
    import ccxt

    def said(error: Exception) -> str:
        text = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        return hidden(text, map(setting, SECRETS)).removeprefix(f"{name} ")

    try:
        yield
    except ccxt.NotSupported:
        raise
    except ccxt.OrderNotFound as error:
        raise _Missing from error
    except ccxt.AuthenticationError as error:
        raise BrokerError(f"{name}: the keys were refused ({said(error)}); check them") from None
    except (ccxt.InvalidOrder, ccxt.InsufficientFunds, ccxt.BadRequest) as error:
        raise (Rejected if refuses else BrokerError)(f"{name}: {said(error)}") from None
    except ccxt.BaseError as error:  # timeouts, limits of rate, maintenance, and errors that say nothing of the order
        raise Unreachable(f"{name}: no answer ({said(error)})") from None


class CcxtBars:
    """Closed bars of an exchange."""

    def __init__(self, exchange: Any, interval: int, market: Callable[[str], str], now: Callable[[], float]):
        self._exchange, self._interval, self._market, self._now = exchange, interval, market, now
        self._width = format_interval(interval)
        if exchange.timeframes and self._width not in exchange.timeframes:
            has = ", ".join(exchange.timeframes)
            raise ConfigError(f"--exchange: {exchange.id} has no bars of {self._width}; it has {has}")

    def __call__(self, symbol: str, since: int) -> list[Row]:
        """Bars that began at or after `since`, UTC seconds, and have closed."""
        rows: list[Row] = []
        start = since
        while True:
            with exchange_errors(self._exchange.id):
                found = self._exchange.fetch_ohlcv(self._market(symbol), self._width, 1000 * start, PAGE)
            page: list[Row] = [(int(r[0]) // 1000, *map(float, r[1:6])) for r in found]  # type: ignore[misc]
            page = [r for r in page if r[0] >= start and r[0] + self._interval <= self._now()]
            rows += page
            if not page:
                return rows
            start = page[-1][0] + 1


def _bare(symbol: str) -> str:
    return symbol.replace("/", "").replace("-", "").upper()
