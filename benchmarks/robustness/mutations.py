"""Damage to bar files: what happens to bytes on the way, and what happens to the bars themselves.

A mutation of the bars changes what a trader would be paid, or when, so it must be refused or reported (`MUST_SHOW`).
However the same bars are written (`as_csv`, `as_parquet`), they must be read as the same. Damaged bytes may come to
anything but an error that is not ours, a crash or a hang.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl

Rng = np.random.Generator
PRICES = ("open", "high", "low", "close")
CRYPTO, FX, EQUITY, DAILY = "BTCUSDT_1h", "EURUSD_1h", "SPY_1h", "IBM_1d"
HOUR, DAY = 3_600, 86_400
_START = 1_672_617_600  # Monday 2 January 2023, 00:00 UTC


def generated(name: str, n: int, seed: int = 0) -> pl.DataFrame:
    """`n` bars as a vendor would have them: timestamp (UTC), open, high, low, close and volume.

    `name` is one of CRYPTO, FX, EQUITY and DAILY; its hours are those of the market, daylight saving included.
    """
    rng = np.random.default_rng(seed)
    time = _times(name, n)
    deviation = 0.012 if name == DAILY else 0.004
    close = np.round(100 * np.exp(np.cumsum(deviation * rng.standard_t(6, n))), 4)
    opening = np.round(np.concatenate(([100.0], close[:-1])) * np.exp(0.1 * deviation * rng.standard_normal(n)), 4)
    reach = np.exp(deviation * np.abs(rng.standard_normal((2, n))))
    return pl.DataFrame(
        {
            "timestamp": pl.Series(time * 1_000_000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            "open": opening,
            "high": np.round(np.maximum(opening, close) * reach[0], 4),
            "low": np.round(np.minimum(opening, close) / reach[1], 4),
            "close": close,
            "volume": np.round(rng.lognormal(8, 1, n), 3) + 1,
        }
    )


def _times(name: str, n: int) -> np.ndarray:
    """Starts (n,) of bars in the market's hours, UTC seconds."""
    hours = _START + HOUR * np.arange((36 if name == DAILY else 6) * n + 200)
    if name == CRYPTO:
        return hours[:n]
    local = pl.Series(hours * 1_000_000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    local = local.dt.convert_time_zone("America/New_York").dt
    day, hour = local.weekday().to_numpy(), local.hour().to_numpy()  # Monday is 1
    if name == FX:
        closed = (day == 6) | ((day == 5) & (hour >= 17)) | ((day == 7) & (hour < 17))
        return hours[~closed][:n]
    # The exchange's holidays of 2023 and 2024, by the calendar that it published.
    holidays = (
        "2023-01-02 2023-01-16 2023-02-20 2023-04-07 2023-05-29 2023-06-19 2023-07-04 2023-09-04 2023-11-23 2023-12-25 "
        "2024-01-01 2024-01-15 2024-02-19 2024-03-29 2024-05-27 2024-06-19 2024-07-04 2024-09-02 2024-11-28 2024-12-25"
    )
    dates = np.asarray(local.date().cast(pl.String).to_numpy(), str)
    trading = (day <= 5) & ~np.isin(dates, holidays.split())
    if name == EQUITY:
        return hours[trading & (hour >= 9) & (hour <= 15)][:n]
    days = np.unique(dates[trading & (hour == 12)])
    return days.astype("datetime64[s]").astype(np.int64)[:n]


# What must be refused or reported


def _somewhere(frame: pl.DataFrame, rng: Rng) -> int:
    """A row away from both ends, inside a session: the bars beside it are at the usual distance."""
    step = np.diff(frame["timestamp"].dt.epoch("s").to_numpy())
    usual = step == np.median(step)
    inner = np.flatnonzero(usual[:-2] & usual[1:-1] & usual[2:]) + 1
    inner = inner[(inner > 40) & (inner < frame.height - 40)]
    return int(rng.choice(inner))


def _with(frame: pl.DataFrame, row: int, values: Mapping[str, object]) -> pl.DataFrame:
    at = pl.int_range(pl.len()) == row
    return frame.with_columns(pl.when(at).then(pl.lit(v)).otherwise(pl.col(k)).alias(k) for k, v in values.items())


def _shifted(frame: pl.DataFrame, begin: int, end: int, seconds: int) -> pl.DataFrame:
    at = pl.int_range(pl.len()).is_between(begin, end - 1)
    later = pl.col("timestamp") + pl.duration(seconds=seconds)
    return frame.with_columns(timestamp=pl.when(at).then(later).otherwise(pl.col("timestamp")))


def drop_rows(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    """One to five bars are missing."""
    row, n = _somewhere(frame, rng), int(rng.integers(1, 6))
    return pl.concat([frame[:row], frame[row + n :]])


def repeat_row(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    row = _somewhere(frame, rng)
    return pl.concat([frame[: row + 1], frame[row:]])


def swap_rows(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    row = _somewhere(frame, rng)
    return pl.concat([frame[:row], frame[row + 1 : row + 2], frame[row : row + 1], frame[row + 2 :]])


def reverse_rows(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    return frame.reverse()


def no_value(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    """A price is empty, not a number, infinite, zero or negative."""
    value = (None, float("nan"), float("inf"), 0.0, -1.0)[int(rng.integers(5))]
    return _with(frame, _somewhere(frame, rng), {str(rng.choice(PRICES)): value})


def negative_volume(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    return _with(frame, _somewhere(frame, rng), {"volume": -1.0})


def swap_columns(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    """High is called low and low is called high."""
    return frame.rename({"high": "low", "low": "high"})


def decimal_point(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    """One price of a bar is ten times too high or too low."""
    row, field = _somewhere(frame, rng), str(rng.choice(PRICES))
    return _with(frame, row, {field: frame[field][row] * float(rng.choice((0.1, 10.0)))})


def decimal_point_of_a_bar(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    """All prices of a bar are ten times too high or too low."""
    row, by = _somewhere(frame, rng), float(rng.choice((0.1, 10.0)))
    return _with(frame, row, {field: frame[field][row] * by for field in PRICES})


def bad_tick(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    """A high half as high again, or a low of half."""
    row = _somewhere(frame, rng)
    field, by = (("high", 1.5), ("low", 0.5))[int(rng.integers(2))]
    return _with(frame, row, {field: frame[field][row] * by})


def unadjusted_split(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    """All prices before some morning are those of shares that were then split, or joined."""
    day = frame["timestamp"].dt.epoch("s").to_numpy() // DAY
    mornings = np.flatnonzero(np.diff(day) > 0) + 1
    row = int(rng.choice(mornings[(mornings > 40) & (mornings < frame.height - 40)]))
    by = float(rng.choice((2.0, 3.0, 1.5, 0.5, 0.1, 10.0, 20.0)))
    before = pl.int_range(pl.len()) < row
    return frame.with_columns(pl.when(before).then(pl.col(f) * by).otherwise(pl.col(f)).alias(f) for f in PRICES)


def other_instrument(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    """From some bar on, prices are those of something else: 1.7 to 60 times as high."""
    row, by = _somewhere(frame, rng), float(rng.uniform(1.7, 60))
    after = pl.int_range(pl.len()) >= row
    return frame.with_columns(pl.when(after).then(pl.col(f) * by).otherwise(pl.col(f)).alias(f) for f in PRICES)


def frozen_feed(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    """The feed stands still for 5 to 30 bars."""
    row, n = _somewhere(frame, rng), int(rng.integers(5, 31))
    within = pl.int_range(pl.len()).is_between(row, row + n - 1)
    values = {f: pl.when(within).then(pl.lit(frame[f][row])).otherwise(pl.col(f)).alias(f) for f in PRICES}
    return frame.with_columns(*values.values())


def record_twice(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    """A bar is written under the next bar's time too."""
    row = _somewhere(frame, rng)
    return _with(frame, row + 1, {f: frame[f][row] for f in (*PRICES, "volume")})


def no_volume(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    row = _somewhere(frame, rng)
    within = pl.int_range(pl.len()).is_between(row, row + int(rng.integers(1, 50)))
    return frame.with_columns(volume=pl.when(within).then(0.0).otherwise(pl.col("volume")))


def zone_changes(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    """From some bar on, or up to it, times are 1 to 8 hours off."""
    row, hours = _somewhere(frame, rng), int(rng.integers(1, 9)) * int(rng.choice((-1, 1)))
    return _shifted(frame, *((row, frame.height) if rng.random() < 0.5 else (0, row)), hours * HOUR)


def summer_time_ignored(frame: pl.DataFrame, rng: Rng) -> pl.DataFrame:
    """Local times of New York or Berlin, whose clocks change, are written as UTC."""
    zone = str(rng.choice(("America/New_York", "Europe/Berlin")))
    local = pl.col("timestamp").dt.convert_time_zone(zone).dt.replace_time_zone(None)
    return frame.with_columns(timestamp=local.dt.replace_time_zone("UTC"))


MUST_SHOW: Mapping[str, tuple[Callable[[pl.DataFrame, Rng], pl.DataFrame], tuple[str, ...]]] = {
    # Daily bars carry no hours to shift; splits are of shares; FX has no volume to miss.
    **{
        f.__name__: (f, (CRYPTO, FX, EQUITY, DAILY))
        for f in (
            drop_rows,
            repeat_row,
            swap_rows,
            reverse_rows,
            no_value,
            negative_volume,
            swap_columns,
            decimal_point,
            decimal_point_of_a_bar,
            bad_tick,
            other_instrument,
            frozen_feed,
            record_twice,
            no_volume,
        )
    },
    "unadjusted_split": (unadjusted_split, (EQUITY, DAILY)),
    "zone_changes": (zone_changes, (CRYPTO, FX, EQUITY)),
    "summer_time_ignored": (summer_time_ignored, (CRYPTO, FX, EQUITY)),
}
"""Mutations by name, and the bars that they are for."""


# How bars are written


def as_csv(frame: pl.DataFrame, rng: Rng) -> bytes:
    """The bars as some vendor's CSV: header, order of columns, separator, quotes, times and line ends vary."""
    times = pl.col("timestamp")
    spelt = {
        "timestamp": times.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Datetime": times.dt.convert_time_zone("America/New_York").dt.strftime("%Y-%m-%d %H:%M:%S%:z"),
        "open_time": times.dt.epoch("ms").cast(pl.String),
        "Date (UTC)": times.dt.strftime("%Y-%m-%d %H:%M:%S"),
    }
    name = str(rng.choice(list(spelt)))
    plain = frame.select(spelt[name].alias(name), pl.all().exclude("timestamp").cast(pl.String))
    if rng.random() < 0.5:
        plain = plain.rename({c: c.capitalize() if rng.random() < 0.5 else c.upper() for c in frame.columns[1:]})
    columns = list(plain.columns)
    if rng.random() < 0.5:
        rng.shuffle(columns)
    if rng.random() < 0.3:
        plain = plain.with_columns(trade_count=pl.lit("7"), note=pl.lit("x y"))
        columns = ["note", *columns, "trade_count"]
    text = plain.select(columns).write_csv(
        separator=str(rng.choice((",", ";", "\t", "|"))),
        line_terminator=str(rng.choice(("\n", "\r\n"))),
        quote_style="always" if rng.random() < 0.3 else "necessary",
    )
    if rng.random() < 0.3:
        text = text.rstrip()
    if rng.random() < 0.2:
        return text.encode("utf-16")
    return (b"\xef\xbb\xbf" if rng.random() < 0.3 else b"") + text.encode()


def as_parquet(frame: pl.DataFrame, rng: Rng, path: Path) -> bytes:
    """The bars as Parquet: compression, row groups and the type of the times vary. `path` is written and left."""
    unit = str(rng.choice(("ms", "us", "ns", "epoch")))
    time = pl.col("timestamp").dt.epoch("ms") if unit == "epoch" else pl.col("timestamp").dt.cast_time_unit(unit)  # type: ignore[arg-type]
    compression = str(rng.choice(("zstd", "snappy", "uncompressed", "gzip", "lz4")))
    size = int(rng.choice((100, 1_000, 10_000)))
    frame.with_columns(timestamp=time).write_parquet(path, compression=compression, row_group_size=size)  # type: ignore[arg-type]
    return path.read_bytes()


# Damaged bytes

_PIECES = tuple(b", \n \r \" \0 - . e9 nan \xff\xfe \xef\xbb\xbf ,,,, '".split(b" ")) + (b"9" * 400,)


def damage(data: bytes, rng: Rng) -> bytes:
    """One to four kinds of damage: flipped bits, lost, repeated, swapped, zeroed or inserted bytes, a wrong wrapper."""
    for _ in range(int(rng.integers(1, 5)) if rng.random() < 0.4 else 1):
        data = _DAMAGES[int(rng.integers(len(_DAMAGES)))](data, rng)
    return data


def _span(data: bytes, rng: Rng, most: int = 4_096) -> tuple[int, int]:
    begin = int(rng.integers(len(data) + 1))
    return begin, min(len(data), begin + int(rng.integers(1, most)))


def _flip(data: bytes, rng: Rng) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 9)) if out else 0):
        # Half of all flips hit the head or the foot, where a file says what it is.
        at = int(rng.integers(len(out)))
        if rng.random() < 0.5:
            near = at % min(len(out), 512)
            at = near if rng.random() < 0.3 else -1 - near
        out[at] ^= 1 << int(rng.integers(8))
    return bytes(out)


def _truncate(data: bytes, rng: Rng) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def _lose(data: bytes, rng: Rng) -> bytes:
    begin, end = _span(data, rng)
    return data[:begin] + data[end:]


def _repeat(data: bytes, rng: Rng) -> bytes:
    begin, end = _span(data, rng)
    return data[:end] + data[begin:]


def _zero(data: bytes, rng: Rng) -> bytes:
    begin, end = _span(data, rng)
    return data[:begin] + bytes(end - begin) + data[end:]


def _swap(data: bytes, rng: Rng) -> bytes:
    a, b, c = sorted(int(rng.integers(len(data) + 1)) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _insert(data: bytes, rng: Rng) -> bytes:
    at = int(rng.integers(len(data) + 1))
    return data[:at] + _PIECES[int(rng.integers(len(_PIECES)))] + data[at:]


def _wrap(data: bytes, rng: Rng) -> bytes:
    kind = int(rng.integers(4))
    if kind == 0:
        return gzip.compress(data, 1)
    if kind == 1:
        return data.decode("latin-1").encode("utf-16")
    return b"\xff\xfe" + data if kind == 2 else b"PAR1" + data + b"PAR1"


_DAMAGES = (_flip, _flip, _truncate, _lose, _repeat, _zero, _swap, _insert, _wrap)
