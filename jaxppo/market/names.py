"""What the name of a bar file says: the instrument, the interval, and what else tells it from other files.

Vendors, tools and brokers put much beside the instrument into a name. Known words of that kind, intervals and dates are
set aside and what is left is the instrument. Nothing is guessed: a name that leaves two readings says so, and
`--symbol-from` settles it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxppo.errors import ConfigError, DataError
from jaxppo.market.asset_classes import BROKER_SUFFIXES, CURRENCIES, is_recognised
from jaxppo.market.calendar import DAY, MINUTE, WEEK, match_interval

SYMBOL = "{symbol}"

_VENDOR_WORDS = (
    "alpaca alphavantage amex arca barchart bats binance binanceus bitfinex bitflyer bitget bitmex bitstamp bittrex "
    "bloomberg bybit capitalcom cboe cbot cme coinapi coinbase coingecko comex cryptodatadownload databento deribit "
    "dukascopy eod eodhd eurex finnhub firstrate firstratedata forexcom ftx fxcm gateio gemini hitbtc histdata huobi "
    "ibkr icmarkets iex kibot kraken kucoin mexc mt4 mt5 nasdaq ninjatrader nse nyse nymex oanda okex okx pepperstone "
    "poloniex polygon quandl refinitiv saxo sierrachart stooq tickdata tiingo tradestation tradingview tvc twelvedata "
    "upbit xetra yahoo yfinance"
)
_VENDORS = frozenset(_VENDOR_WORDS.split())
_OTHER_WORDS = (
    "adj adjsplit adjusted ascii ask bar bars bid candles candlestick candlesticks chart clean "
    "cleaned continuous csv data export final full futures gmt hist historical history kline klines last linear mark "
    "mid midpoint new ohlc ohlcv ohlcvt old out perpetuals price prices quotes raw rates sample spot test tick "
    "timeseries train trades unadjusted usdm utc valid validation"
)
_WORDS = frozenset(_OTHER_WORDS.split())
"""Words that say how prices were made or where a file comes from, and name no instrument."""
_DATE = (
    r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:T?\d{4}|T?\d{6})?"  # 20240131, 202401310930
    r"|(?:0[1-9]|[12]\d|3[01])[.\-_](?:0[1-9]|1[0-2])[.\-_](?:19|20)\d\d"  # 31.01.2024
    r"|(?:19|20)\d\d[.\-_](?:0[1-9]|1[0-2])(?:[.\-_](?:0[1-9]|[12]\d|3[01]))?(?:T\d{4,6})?"  # 2024-01-31, 2024-01
    r"|(?:19|20)\d\d(?:0[1-9]|1[0-2])"  # 202401
    r"|(?:19|20)\d\d[.\-_]?[Qq][1-4]"
    r"|(?:19|20)\d\d"
    r"|[Pp]art[.\-_ ]?\d{1,4}"
)
_DATES = re.compile(rf"(?<![0-9A-Za-z])(?:{_DATE})Z?(?![0-9A-Za-z]|\.[A-Za-z])")
_MONTHS = re.compile(r"\d{1,2}(?:M|mo|mon|mth|months?)|monthly|MN1?", re.ASCII)
_UNIT = re.compile(r"s|secs?|seconds?|m|min|mins|minutes?|h|hr|hours?|d|days?|w|wk|weeks?", re.I)
_CHART = re.compile(r"(?P<name>[^,]+), ?(?P<count>\d{0,5})(?P<unit>[SDWM]?)(?P<copy>[ _(].*)?")
"""TradingView's exports: exchange, instrument and resolution, minutes where it has no letter: `BINANCE_BTCUSDT, 60`."""
_MINUTES = (1, 3, 5, 15, 30, 60, 120, 180, 240, 360, 720, 1_440, 10_080, 21_600, 43_200)
"""Periods that MetaTrader 4 and Kraken write as bare numbers of minutes: EURUSD60, XBTUSD_1440."""
_ATTACHED = tuple(map(re.compile, (r"[MHDWmhdw]\d{1,2}$", r"\d{1,3}[smhdwHDW]$", r"\d{1,5}$")))
"""Periods without a separator before them, as MetaTrader and its users write them: EURGBPh1, BTCUSDT5m, EURUSD60."""
_COPY = re.compile(r"\s*(?:\(\d+\)|- ?[Cc]opy)$")


@dataclass(frozen=True)
class FileName:
    """The parts of a file's name."""

    symbol: str
    interval: int | None = None  # seconds, where a word says so
    minutes: int | None = None  # seconds, where a bare number may say so: the bars decide
    rest: str = ""  # the name without dates and numbers of parts; files of one series share it
    doubt: str | None = None  # why the instrument cannot be told


def spelling(symbol: str) -> str:
    """A symbol as the name of a file of bars is read, in lower case: two of one spelling are one instrument."""
    return read_name(symbol).symbol.casefold()


def read_name(stem: str) -> FileName:
    """The parts of a file's name without its suffix.

    Files of one instrument are parts of one series where their `rest` is the same: the names differ in dates alone.

    Example:
      >>> read_name("DAT_MT_USDCHF_M1_202301").symbol
      'USDCHF'
      >>> read_name("BINANCE_BTCUSDT, 60").interval
      3600
      >>> read_name("ACME_EURUSD").doubt
      'the instrument may be EURUSD or ACME_EURUSD'
    """
    bare = _DATES.sub("\0", stem)
    rest = re.sub(r"[\s\0_,.\-]+", "_", bare.casefold()).strip("_")
    chart = _CHART.fullmatch(stem)
    if chart and (chart["count"] or chart["unit"]):
        interval = _resolution(chart["count"], chart["unit"])
        symbol = _after_exchange(chart["name"])
        return FileName(symbol, interval, None, rest)
    kept, aside, interval, minutes = _set_aside(_tokens(_COPY.sub("", bare)))
    if not kept and not aside:
        return FileName(stem.strip(), interval, minutes, rest)
    if len(kept) == 1:
        pair, said, number = _detach(kept[0].text)
        kept, interval, minutes = [_Token(pair, "")], interval or said, minutes or number
    symbol, doubt = _instrument(kept, aside)
    return FileName(symbol, interval, minutes, rest, doubt)


def symbol_pattern(pattern: str) -> Callable[[str], str]:
    """From a file's name without its suffix to its symbol: `*` stands for anything, as little as possible.

    Raises:
      ConfigError: a pattern without exactly one {symbol}.

    Example:
      >>> symbol_pattern("acme_{symbol}_*")("acme_BRK_B_2024")
      'BRK'
      >>> symbol_pattern("acme_{symbol}_20*")("acme_BRK_B_2024")
      'BRK_B'
    """
    if pattern.count(SYMBOL) != 1:
        raise ConfigError(
            f"symbol_from {pattern!r}: must hold {SYMBOL} once, where the symbol stands in the names of the files, and"
            f" * for anything else, such as acme_{SYMBOL}_*"
        )
    parts = [".*?".join(map(re.escape, part.split("*"))) for part in pattern.split(SYMBOL)]
    compiled = re.compile("(.+?)".join(parts))

    def symbol(stem: str) -> str:
        found = compiled.fullmatch(stem)
        if found is None:
            raise DataError(
                f"{stem}: the name does not fit --symbol-from {pattern!r}; rename the file or mend the pattern"
            )
        return found[1]

    return symbol


def some_symbols(symbols: Sequence[str], n: int = 3) -> str:
    """The first `n` of some symbols, and how many more there are.

    Example:
      >>> some_symbols(["AUD", "EUR", "GBP", "JPY"])
      'AUD, EUR, GBP and 1 more'
    """
    more = f" and {len(symbols) - n:,} more" if len(symbols) > n else ""
    return ", ".join(symbols[:n]) + more


@dataclass(frozen=True)
class _Token:
    text: str
    before: str  # the separators before it


def _tokens(text: str) -> list[_Token]:
    """Words of a name; a dot belongs to its word (BRK.B), but for what says which price it is (EURUSD.Last)."""
    found = []
    for match in re.finditer(r"([\s_,\-\0]*)([^\s_,\-\0]+)", text):
        word, _, last = match[2].rpartition(".")
        plain = match[2] if not word or last.casefold() not in _WORDS else word
        if plain.strip("."):
            found.append(_Token(plain.strip("."), match[1]))
    return found


def _set_aside(tokens: Sequence[_Token]) -> tuple[list[_Token], list[_Token], int | None, int | None]:
    """Words that may name an instrument, words that do not, and seconds, said or as a bare number of minutes.

    What follows an instrument and its interval or date describes the file and names nothing: EURUSD_H1_mine is EURUSD.
    """
    kept: list[_Token] = []
    aside: list[_Token] = []
    interval = minutes = None
    skip = ended = False
    for i, token in enumerate(tokens):
        if skip:
            skip = False
            continue
        ended = bool(kept) and (interval is not None or "\0" in token.before or ended)
        word, after = token.text, tokens[i + 1].text if i + 1 < len(tokens) else ""
        if len(tokens) > 1 and word.isdigit() and len(word) < 4 and _UNIT.fullmatch(after):  # Dukascopy: 1_Hour, 1_M
            interval = interval or match_interval(f"{word}{after[0].lower()}")
            skip = True
        elif len(tokens) > 1 and (seconds := match_interval(word)):
            interval = interval or seconds
        elif kept and (_MONTHS.fullmatch(word) or word in ("d", "w")):  # CryptoDataDownload: Bitstamp_BTCUSD_d
            interval = interval or {"d": DAY, "w": WEEK}.get(word)
        elif kept and after == "" and word.isdigit() and int(word) in _MINUTES and is_recognised(_text(kept)):
            minutes = int(word) * MINUTE
        elif word.casefold() == "dat" and after.casefold() in ("mt", "ms", "nt", "ascii", "xlsx"):  # HistData
            skip = True
        elif ended or word.casefold() in _VENDORS | _WORDS:
            aside.append(token)
        else:
            kept.append(token)
    return kept, aside, interval, minutes


def _detach(word: str) -> tuple[str, int | None, int | None]:
    """A pair without the period that is written onto it, and its seconds, said or as a bare number of minutes."""
    for period in _ATTACHED:
        found = period.search(word)
        if found and is_recognised(pair := word[: found.start()]):
            if not found[0].isdigit():
                return pair, match_interval(found[0]), None
            if int(found[0]) in _MINUTES:
                return pair, None, int(found[0]) * MINUTE
    return word, None, None


def _text(words: Sequence[_Token]) -> str:
    """Words with the `-` or `_` that stood between them; where there was something else, `_`."""
    separated = [
        w.text if i == 0 else (w.before if w.before in ("-", "_") else "_") + w.text for i, w in enumerate(words)
    ]
    return "".join(separated)


def _instrument(kept: Sequence[_Token], aside: Sequence[_Token]) -> tuple[str, str | None]:
    """The symbol that the words make, and why it is doubtful: no word is left, or one alone is a pair of its own."""
    if not kept:
        symbol = aside[0].text
        return symbol, None if len(aside) == 1 else f"the instrument may be {' or '.join(t.text for t in aside)}"
    whole = _text(kept)
    pairs = [] if is_recognised(whole) else [t.text for t in kept if is_recognised(t.text)]
    if len(kept) > 1 and pairs:
        return whole, f"the instrument may be {' or '.join([*dict.fromkeys(pairs), whole])}"
    return _without_broker(whole), None


def _without_broker(symbol: str) -> str:
    """An FX pair without what its broker adds to it: EURUSD.r, EURUSDm, EURUSD_i and EURUSD# are EURUSD."""
    pair, suffix = symbol[:6], symbol[6:]
    if not (pair[:3].upper() in CURRENCIES and pair[3:].upper() in CURRENCIES):
        return symbol
    return pair if suffix.lstrip("._-#+!").casefold() in BROKER_SUFFIXES | {""} else symbol


def _after_exchange(name: str) -> str:
    """The instrument of a chart's name, which begins with its exchange: CME_MINI_ES1! is ES1!, FX_IDC_EURUSD EURUSD."""
    words = name.strip().split("_")
    if len(words) == 1 or is_recognised(name.strip()):
        return name.strip()
    words = words[1:]
    while len(words) > 1 and words[0].casefold() in ("mini", "dl", "idc"):
        words = words[1:]
    return "_".join(words)


def _resolution(count: str, unit: str) -> int | None:
    """Seconds of a chart's resolution, None for months: 60 is an hour, 1D and D a day."""
    return int(count or 1) * {"S": 1, "": MINUTE, "D": DAY, "W": WEEK, "M": 0}[unit] or None
