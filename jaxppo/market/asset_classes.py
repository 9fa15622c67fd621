"""Asset classes: a record each. What is traded when, at what default fee, and how its symbols are spelled.

To add one, register a record here, or from a file of your own with `--plugin`; nothing else asks for a class by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxppo.config.schema import EnvConfig
from jaxppo.errors import ConfigError, nearest
from jaxppo.registry import Registry

DAYS_PER_YEAR = 365.25

Hours = Literal["always", "week", "exchange"]
"""always: round the clock, every day. week: Sunday to Friday 17:00 New York, as FX. exchange: the days of the New York
Stock Exchange, or of the bars themselves where they trade on its holidays, in the hours that the bars keep to."""


@dataclass(frozen=True)
class AssetClass:
    """What the symbols of a class have in common."""

    name: str
    help: str
    fee: float  # default per side, on the notional
    short: bool  # may be sold short unless `allow_short` says otherwise
    trading_days: float  # a year
    timezone: str  # IANA zone of the market's day
    hours: Hours
    has_volume: bool = True  # bars without volume are doubtful where others have some
    recognise: Callable[[str], bool] | None = None  # whether a symbol is of this class, by its spelling; None: never


def _is(name: str) -> Callable[[str], bool]:
    return lambda symbol: _spelled_like(symbol)[0] == name


ASSET_CLASSES = Registry(
    "asset class",
    [
        AssetClass("equity", "US stocks and funds, and what is not recognised", 0.001, True, 252.0, "America/New_York",
                   "exchange"),
        AssetClass("crypto", "BTCUSDT, BTC-USD, ETH/BTC", 0.001, False, DAYS_PER_YEAR, "UTC", "always",
                   recognise=_is("crypto")),
        # The FX day ends at 17:00 New York in summer and winter alike.
        AssetClass("fx", "EURUSD, EUR/USD, EURUSD=X, XAUUSD", 0.0001, True, 260.0, "America/New_York", "week",
                   has_volume=False, recognise=_is("fx")),
    ],
)  # fmt: skip
OTHERWISE = "equity"


def asset_class_of(name: str) -> AssetClass:
    """The record of a class; `ConfigError` with the nearest names where there is none."""
    if name not in ASSET_CLASSES:
        raise ConfigError(f"unknown asset class {name!r}; {nearest(name, ASSET_CLASSES)}")
    return ASSET_CLASSES[name]


def guess_asset_class(symbol: str) -> str:
    """Name of the class that recognises `symbol`, those registered last asked first; else equity."""
    return _recognised_as(symbol) or OTHERWISE


def is_recognised(symbol: str) -> bool:
    """Whether a class recognises `symbol`, so that it is not an equity for want of anything better."""
    return _recognised_as(symbol) is not None


def class_reason(symbol: str, asset_class: str) -> str:
    """Why `symbol` is of its class, in a few words: how it is spelled, or that somebody said so."""
    guessed, why = _spelled_like(symbol)
    if asset_class != guess_asset_class(symbol):
        return "as given"
    return why if asset_class == guessed else "by the spelling that its class recognises"


def _recognised_as(symbol: str) -> str | None:
    records = reversed(list(ASSET_CLASSES.values()))
    return next((r.name for r in records if r.recognise is not None and r.recognise(symbol)), None)


def may_short(name: str, env: EnvConfig) -> bool:
    """Whether symbols of a class may be sold short: as `allow_short` says, or by default the class itself."""
    return ASSET_CLASSES[name].short if env.allow_short is None else name in env.allow_short


def class_fees(env: EnvConfig) -> dict[str, float]:
    """Fee per side by asset class: the defaults, overridden by `env.fee`.

    Raises:
      ConfigError: an unknown class in `fee` or `allow_short`, or costs that would take all equity to enter.
    """
    for field, names in (("fee", env.fee), ("allow_short", env.allow_short or ())):
        for name in names:
            ASSET_CLASSES.find(name, field)
    for name, fee in env.fee.items():
        if not 0 <= fee < 0.5:
            raise ConfigError(f"fee: {name} has {fee}; a fee is a fraction of the notional from 0 to 0.5")
    fees = {name: record.fee for name, record in ASSET_CLASSES.items()} | env.fee
    highest = max(fees.values()) + env.spread / 2 + env.slippage
    if env.max_exposure * highest >= 1:
        raise ConfigError(
            f"max_exposure {env.max_exposure:g} at costs of {highest:g} a side would cost all equity to enter;"
            f" lower it below {1 / highest:.3g}, or lower fee, spread or slippage"
        )
    return fees


_CURRENCIES = (
    "AED ARS AUD BHD BRL CAD CHF CLP CNH CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY KES KRW KWD MXN MYR "
    "NGN NOK NZD OMR PEN PHP PKR PLN QAR RON RUB SAR SEK SGD THB TRY TWD UAH USD VND ZAR XAG XAU XPD XPT"
)
CURRENCIES = frozenset(_CURRENCIES.split())
"""ISO 4217 codes that are quoted as pairs, precious metals included."""

STABLECOINS = frozenset(("USDT", "USDC", "BUSD", "FDUSD", "TUSD", "USDP"))
_COINS = (
    "BTC XBT ETH SOL XRP ADA DOGE LTC BNB LINK DOT AVAX MATIC POL TRX SHIB BCH XLM ATOM UNI ETC XMR NEAR APT ARB OP "
    "FIL ICP HBAR VET ALGO AAVE MKR SAND MANA EOS XTZ DASH ZEC NEO SUI TON PEPE INJ STX GRT LDO CRV SNX COMP YFI SUSHI "
    "FTM EGLD THETA AXS CHZ ENJ BAT ZRX KAVA RUNE IOTA QTUM WAVES ONT XEM BSV LUNA SEI TIA WIF BONK FLOKI JUP WLD TAO "
    "ONDO ENA JTO PYTH HYPE FET RENDER RNDR KAS CRO PAXG GMX DYDX BLUR ORDI STRK MINA FLOW GALA ROSE KSM CAKE LRC ZIL "
    "DCR DGB ANKR BAL UMA CELO SKL STORJ GNO XDG IMX MANTA PENDLE JASMY ENS"
)
COINS = STABLECOINS | frozenset(_COINS.split())
_QUOTE_COINS = frozenset(("BTC", "XBT", "ETH", "BNB"))
_SUFFIXES = "a b c e i k m p q r s u v x z cent cmc ecn fx micro mini plus prime pro raw spot std stp vip zero"
BROKER_SUFFIXES = frozenset(_SUFFIXES.split())
"""What brokers of FX add to their symbols, with a separator (EURUSD.r) or without (EURUSDm)."""
_PERPETUAL = re.compile(r"[-_./ ]?(PERP|PERPETUAL|SWAP)$|\.P$|[-_](\d{6}|\d{1,2}[A-Z]{3}\d{2})$|(?<=USD)T?M$")
"""How exchanges mark contracts of coins: BTC-PERP, BTCUSDT.P, BTCUSD_240628, BTC-28JUN24, XBTUSDTM."""


def _spelled_like(symbol: str) -> tuple[str, str]:
    """fx, crypto or else equity, by the spelling of `symbol`, and why.

    fx is two currency codes (EURUSD, EUR/USD, EURUSD=X) with or without what a broker adds (EURUSD.pro, EURUSDm).
    crypto ends in a stablecoin (SOLUSDT), is a known coin against a currency or coin (BTCUSD, BTC-USD, ETH/BTC), or a
    contract on these or on a known coin (BTC-PERP). A bare coin such as BTC is taken for an equity, because
    exchange-traded funds trade under those tickers.
    """
    name = symbol.upper()
    head, _, tail = name.partition(":")  # ccxt writes BTC/USDT:USDT, TradingView BINANCE:BTCUSDT
    name = tail if tail and not re.search(r"[-_/]", head) and _pair(head) is None else head
    if name.endswith("=X"):
        return "fx", "Yahoo's =X"
    plain = _PERPETUAL.sub("", re.sub(r"^P[FI]_", "", name))  # Kraken's futures: PF_XBTUSD
    if plain != name and (plain.strip("0123456789") in COINS or (_pair(plain) or ("",))[0] == "crypto"):
        return "crypto", "a contract on a coin"
    return _pair(name) or _pair(_without_suffix(name)) or (OTHERWISE, "no pair of known currencies or coins")


def _without_suffix(name: str) -> str:
    """`name` without what a broker adds to a pair of currencies."""
    found = re.fullmatch(r"([A-Z]{6}|[A-Z]{3}[-_/][A-Z]{3})([.#+!_\-]*)([A-Z0-9]{0,8})", name)
    return found[1] if found and (found[2] or found[3].lower() in BROKER_SUFFIXES) else name


def _pair(name: str) -> tuple[str, str] | None:
    """Class and reason of a pair, with a separator or without; None where it is none."""
    parts = re.split(r"[-_/]", name)
    if len(parts) == 3 and parts[1] == parts[2]:  # freqtrade's BTC_USDT_USDT: the last is what it settles in
        parts = parts[:2]
    if len(parts) > 1:
        if len(parts) == 2 and parts[0] and parts[1] in _QUOTE_COINS:  # whatever is quoted in a coin is one
            return "crypto", "quoted in a coin"
        return _pair_class(*parts) if len(parts) == 2 and all(parts) else None
    splits = [_pair_class(name[:cut], name[cut:]) for cut in range(2, len(name) - 2)]
    found = {pair[0]: pair for pair in splits if pair is not None}
    return found.get("fx") or found.get("crypto")


def _pair_class(base: str, quote: str) -> tuple[str, str] | None:
    if base in CURRENCIES and quote in CURRENCIES:
        return "fx", "two currencies"
    if quote in STABLECOINS:
        return "crypto", "quoted in a stablecoin"
    if base in COINS and quote in CURRENCIES | _QUOTE_COINS:
        return "crypto", "a coin and what it is quoted in"
    return None
