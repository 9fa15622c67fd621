"""What names of files say: instruments, intervals, what may be joined, and what is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from jaxppo.errors import ConfigError, DataError
from jaxppo.market.asset_classes import class_reason, guess_asset_class
from jaxppo.market.bars import describe_symbols, load_bars, survey_bars
from jaxppo.market.calendar import DAY, HOUR, MINUTE, WEEK
from jaxppo.market.doubts import inspect_bars
from jaxppo.market.names import read_name, symbol_pattern

T0 = 1_672_617_600  # Monday, 2 January 2023, 00:00 UTC


def write(folder: Path, name: str, n: int = 60, start: int = T0, price: float = 100.0, step: int = HOUR) -> Path:
    """A random walk of bars."""
    close = price * np.exp(np.cumsum(np.random.default_rng(len(name)).normal(0, 1e-3, n)))
    open_ = np.concatenate(([price], close[:-1]))
    prices = {"open": open_, "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close}
    pl.DataFrame({"timestamp": start + step * np.arange(n), **prices, "volume": np.ones(n)}).write_csv(folder / name)
    return folder


@pytest.mark.parametrize(
    ("stem", "symbol", "seconds", "asset_class"),
    [
        # HistData, TradingView, MetaTrader 4 and 5, Dukascopy, Kraken
        ("DAT_MT_USDCHF_M1_202301", "USDCHF", MINUTE, "fx"),
        ("DAT_ASCII_AUDNZD_M1_2020", "AUDNZD", MINUTE, "fx"),
        ("BINANCE_BTCUSDT, 60", "BTCUSDT", HOUR, "crypto"),
        ("CME_MINI_ES1!, 1D", "ES1!", DAY, "equity"),
        ("FX_IDC_EURUSD, 240_1a2b3", "EURUSD", 4 * HOUR, "fx"),
        ("NASDAQ_AAPL, 1W", "AAPL", WEEK, "equity"),
        ("EURUSD60", "EURUSD", HOUR, "fx"),
        ("EURUSD1440", "EURUSD", DAY, "fx"),
        ("EURGBPh1", "EURGBP", HOUR, "fx"),
        ("EURUSD.r_M1_202001020000_202312292300", "EURUSD", MINUTE, "fx"),
        ("EURUSD_Candlestick_1_Hour_BID_01.01.2020-31.12.2020", "EURUSD", HOUR, "fx"),
        ("EURUSD_Candlestick_1_M_BID_01.01.2020-31.12.2020", "EURUSD", MINUTE, "fx"),
        ("eurusd-m1-bid-2020-01-01-2021-01-01", "eurusd", MINUTE, "fx"),
        ("XBTUSD_1440", "XBTUSD", DAY, "crypto"),
        # Binance, freqtrade, CryptoDataDownload, Gemini, OKX, Deribit
        ("BTCUSDT-1h-2023-01-05", "BTCUSDT", HOUR, "crypto"),
        ("WLD_USDT-1h", "WLD_USDT", HOUR, "crypto"),
        ("WLD_BTC-1h", "WLD_BTC", HOUR, "crypto"),
        ("BTC_USDT_USDT-1h-futures", "BTC_USDT_USDT", HOUR, "crypto"),
        ("Bitstamp_BTCUSD_d", "BTCUSD", DAY, "crypto"),
        ("Gemini_BTCUSD_2021_1min", "BTCUSD", MINUTE, "crypto"),
        ("BTC-USDT-SWAP_1h", "BTC-USDT-SWAP", HOUR, "crypto"),
        ("BTC-PERP", "BTC-PERP", None, "crypto"),
        ("ETHUSD_PERP", "ETHUSD_PERP", None, "crypto"),
        ("BTCUSDT_240628_1h", "BTCUSDT_240628", HOUR, "crypto"),
        # Interactive Brokers, FirstRate, NinjaTrader, Alpha Vantage
        ("EURUSD_15 Mins_Bid_2023.01.01_2023.12.31", "EURUSD", 15 * MINUTE, "fx"),
        ("AAPL_full_1hour_adjsplit", "AAPL", HOUR, "equity"),
        ("ES 03-24.Last", "ES_03-24", None, "equity"),
        ("TSLA_5min_2024Q1", "TSLA", 5 * MINUTE, "equity"),
        # Words that belong to the instrument
        ("BRK_A_1d", "BRK_A", DAY, "equity"),
        ("BRK-B", "BRK-B", None, "equity"),
        ("AAPL_1d_mine", "AAPL", DAY, "equity"),
        ("COCOA_LDN", "COCOA_LDN", None, "equity"),
        ("2020.HK", "2020.HK", None, "equity"),
        ("600519_2020", "600519", None, "equity"),
        ("US30_H1", "US30", HOUR, "equity"),
        ("GC=F_1d", "GC=F", DAY, "equity"),
        ("SPOT_1d", "SPOT", DAY, "equity"),
        ("CME", "CME", None, "equity"),
        # Brokers' additions to pairs of currencies
        ("EURUSD.r", "EURUSD", None, "fx"),
        ("EURUSDm", "EURUSD", None, "fx"),
        ("EURUSD_i", "EURUSD", None, "fx"),
        ("EURUSD-ECN", "EURUSD", None, "fx"),
        ("EURUSD#", "EURUSD", None, "fx"),
    ],
)
def test_instrument_and_interval_of_vendors_names(stem, symbol, seconds, asset_class):
    name = read_name(stem)
    assert (name.symbol, name.interval or name.minutes, name.doubt) == (symbol, seconds, None)
    assert guess_asset_class(name.symbol) == asset_class


@pytest.mark.parametrize("names", [("WLD_USDT-1h", "WLD_USDC-1h"), ("BRK_A", "BRK_B"), ("COCOA", "COCOA_LDN")])
def test_different_instruments_are_never_spliced(tmp_path, names):
    write(tmp_path, f"{names[0]}.csv")
    write(tmp_path, f"{names[1]}.csv", start=T0 + 60 * HOUR)
    assert [b.symbol for b in load_bars(tmp_path)] == sorted(read_name(n).symbol for n in names)
    assert len({read_name(n).symbol for n in names}) == 2


@pytest.mark.parametrize(
    "names",
    [
        ("DAT_MT_USDCHF_M1_202301", "DAT_MT_USDCHF_M1_202302"),
        ("BTCUSDT-1h-2023-01", "BTCUSDT-1h-2023-02"),
        ("AAPL_part1", "AAPL_part2"),
        ("EURUSD_2019-2020", "EURUSD_2021-2022"),
    ],
)
def test_names_that_differ_in_dates_alone_are_joined_and_said(tmp_path, names):
    step = read_name(names[0]).interval or HOUR
    write(tmp_path, f"{names[0]}.csv", step=step)
    write(tmp_path, f"{names[1]}.csv", start=T0 + 60 * step, step=step)
    (bars,) = load_bars(tmp_path)
    assert bars.seams == (60,)
    said = describe_symbols([bars])[-1]
    assert said == f"2 files of {bars.symbol} joined: {names[0]}.csv, {names[1]}.csv"


@pytest.mark.parametrize(
    "names", [("EURUSD_bid", "EURUSD_ask"), ("BINANCE_BTCUSDT, 60", "COINBASE_BTCUSDT, 60"), ("SPY", "SPY (1)")]
)
def test_names_that_differ_in_more_are_not_joined_unless_a_pattern_says_so(tmp_path, names):
    write(tmp_path, f"{names[0]}.csv")
    write(tmp_path, f"{names[1]}.csv", start=T0 + 60 * HOUR)
    with pytest.raises(DataError, match=r"differ in more than dates.*keep one, or .*--symbol-from"):
        load_bars(tmp_path)
    bars, (refusal,) = survey_bars(tmp_path)
    assert bars == []
    assert "differ in more than dates" in refusal.reason


def test_what_remains_ambiguous_is_asked_for(tmp_path):
    write(tmp_path, "ACME_EURUSD_1h.csv")
    with pytest.raises(
        DataError,
        match=r"^ACME_EURUSD_1h.csv: the instrument may be EURUSD or ACME_EURUSD; say .* --symbol-from, such as"
        r" '\*_\{symbol\}_\*'",
    ):
        load_bars(tmp_path)
    (bars,) = load_bars(tmp_path, symbol_from="ACME_{symbol}_*")
    assert (bars.symbol, bars.asset_class, bars.interval) == ("EURUSD", "fx", HOUR)
    with pytest.raises(DataError, match=r"ACME_EURUSD_1h: the name does not fit --symbol-from 'X_\{symbol\}'"):
        load_bars(tmp_path, symbol_from="X_{symbol}")
    for wrong in ("ACME_*", "{symbol}_{symbol}"):
        with pytest.raises(ConfigError, match=r"symbol_from .*: must hold \{symbol\} once"):
            load_bars(tmp_path, symbol_from=wrong)


def test_pattern_joins_what_it_calls_by_one_name(tmp_path):
    assert symbol_pattern("a_{symbol}_*")("a_BRK_B_2024") == "BRK"
    assert symbol_pattern("a_{symbol}_20*")("a_BRK_B_2024") == "BRK_B"
    write(tmp_path, "first EURUSD.csv")
    write(tmp_path, "second EURUSD.csv", start=T0 + 60 * HOUR)
    (bars,) = load_bars(tmp_path, symbol_from="* {symbol}")
    assert (bars.symbol, bars.seams, len(bars.time)) == ("EURUSD", (60,), 120)


def test_bare_number_is_an_interval_only_where_the_bars_say_so(tmp_path):
    write(tmp_path, "EURUSD_5.csv")
    (bars,) = load_bars(tmp_path)
    assert (bars.symbol, bars.interval) == ("EURUSD", HOUR)


def test_seam_with_a_jump_is_doubtful(tmp_path):
    # An hour moves by 0.1 %: from 100 to 101 at the seam are ten deviations, to 103 thirty; 25 is the line.
    for jump, found in ((1.01, []), (1.03, ["seams"])):
        for old in tmp_path.iterdir():
            old.unlink()
        write(tmp_path, "SPX-1h-2023-01.csv", n=300)
        last = load_bars(tmp_path)[0].close[-1]
        write(tmp_path, "SPX-1h-2023-02.csv", n=300, start=T0 + 300 * HOUR, price=last * jump)
        (bars,) = load_bars(tmp_path, asset_classes={"SPX": "crypto"})
        report = inspect_bars(bars)
        assert [f.kind for f in report.findings if f.level == "doubtful"] == found
        assert report.verdict == ("doubtful" if found else "ok")


def test_class_is_said_with_its_reason():
    guessed = {s: class_reason(s, guess_asset_class(s)) for s in ("EURUSD", "SOLUSDT", "ETH/EUR", "BTC-PERP", "SPY")}
    assert guessed == {
        "EURUSD": "two currencies",
        "SOLUSDT": "quoted in a stablecoin",
        "ETH/EUR": "a coin and what it is quoted in",
        "BTC-PERP": "a contract on a coin",
        "SPY": "no pair of known currencies or coins",
    }
    assert class_reason("SPY", "crypto") == "as given"
