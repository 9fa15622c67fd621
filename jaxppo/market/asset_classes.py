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
    return lambda symbol: _spelled_like(symbol) == name


ASSET_CLASSES = Registry(
    "asset class",
    [
        AssetClass("equity", "US stocks and funds, and what is not recognised", 0.001, True, 252.0, "America/New_York",
                   "exchange"),
        AssetClass("crypto", "BTCUSDT, BTC-USD, ETH/BTC", 0.0025, False, DAYS_PER_YEAR, "UTC", "always",
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
    for record in reversed(list(ASSET_CLASSES.values())):
        if record.recognise is not None and record.recognise(symbol):
            return record.name
    return OTHERWISE


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
    "FTM EGLD THETA AXS CHZ ENJ BAT ZRX KAVA RUNE IOTA QTUM WAVES ONT XEM BSV LUNA SEI TIA WIF BONK FLOKI JUP"
)
COINS = STABLECOINS | frozenset(_COINS.split())
_QUOTE_COINS = frozenset(("BTC", "XBT", "ETH", "BNB"))


def _spelled_like(symbol: str) -> str:
    """fx, crypto or else equity, by the spelling of `symbol`.

    fx is two currency codes (EURUSD, EUR/USD, EURUSD=X, EURUSD.pro); crypto ends in a stablecoin (SOLUSDT) or is a
    known coin against a currency or coin (BTCUSD, BTC-USD, ETH/BTC). A bare coin such as BTC is taken for an equity,
    because exchange-traded funds trade under those tickers.
    """
    name = symbol.upper().split(":")[0]
    if name.endswith("=X"):
        return "fx"
    plain = re.sub(r"[-_./ ]?PERP$|\.P$", "", name)
    if plain != name and plain in COINS:
        return "crypto"
    pair = re.split(r"[-_/]", plain)
    if len(pair) == 2 and pair[0] and pair[1]:
        return _pair_class(pair[0], pair[1])
    if len(pair) > 2:
        return "equity"
    letters = plain.split(".")[0]
    splits = [_pair_class(letters[:cut], letters[cut:]) for cut in range(2, len(letters) - 2)]
    return next((found for found in ("fx", "crypto") if found in splits), "equity")


def _pair_class(base: str, quote: str) -> str:
    if base in CURRENCIES and quote in CURRENCIES:
        return "fx"
    if quote in STABLECOINS or (base in COINS and quote in CURRENCIES | _QUOTE_COINS):
        return "crypto"
    return "equity"
