"""From bars to Tapes: features, splits by time, padding. The one place where a market is put together."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32

from jaxppo.config.schema import Config, DataConfig, EnvConfig
from jaxppo.errors import DataError
from jaxppo.market.asset_classes import may_short
from jaxppo.market.bars import Bars, data_hash
from jaxppo.market.calendar import DAY, bars_per_year, joint_bars_per_year
from jaxppo.market.costs import MarketCosts, market_costs
from jaxppo.market.doubts import in_brief, inspect_all
from jaxppo.market.features import FeatureTable, feature_hash
from jaxppo.market.inputs import total_return
from jaxppo.market.names import some_symbols
from jaxppo.market.quality import format_time
from jaxppo.market.recipe import feature_recipe
from jaxppo.market.splits import SPLITS, SplitRange, cutoff_times, split_ranges, whole_range
from jaxppo.market.tape import REWARD_HORIZON, Costs, Tape, forward_returns, trailing_volatility
from jaxppo.market.volatility import sizing_warm_up, volatility_sizes

# Decisions below which a symbol's split says nothing worth a row in a table.
MIN_DECISIONS = 30


@dataclass(frozen=True)
class Split:
    """One split of the market: its Tape and what its rows mean."""

    tape: Tape
    symbols: tuple[str, ...]
    times: tuple[np.ndarray, ...]  # per symbol (length,) int64 bar starts, UTC seconds


@dataclass(frozen=True)
class Market:
    """A whole market, split by time."""

    splits: Mapping[str, Split]
    bars: tuple[Bars, ...]
    decisions: Mapping[str, Mapping[str, int]]  # symbol -> split -> decisions
    cutoffs: tuple[int, int] | None  # UTC seconds; None where each symbol has its own
    purge_bars: int
    feature_names: tuple[str, ...]
    feature_hash: str
    min_bars: int
    data_hash: str
    costs: MarketCosts
    feature_lines: tuple[str, ...]  # what was made of files of features
    split_warnings: tuple[str, ...]  # and of such files
    check_arguments: str | None  # of `jaxppo.data`, to look at the same bars; None where they are of no file

    @property
    def lines(self) -> tuple[str, ...]:
        """What was made of the files beside the bars, a line each."""
        return (*self.costs.lines, *self.feature_lines)

    def n_decided(self, split: str) -> int:
        """Bars of all symbols that are decided on in a split."""
        return sum(of[split] for of in self.decisions.values())


def market_warnings(market: Market) -> tuple[str, ...]:
    """What to know before training: doubts about the bars, in brief, then about the costs and the splits.

    It inspects every bar (.8 s for 20 symbols of 33,000 bars), so ask once and keep the answer.
    """
    doubts = in_brief(inspect_all(market.bars), market.check_arguments)
    return (*doubts, *market.costs.warnings, *market.split_warnings)


class _Features(NamedTuple):
    """The features of all symbols, and what is said of them."""

    tables: Sequence[FeatureTable]
    min_bars: int
    hash: str
    data_hash: str  # of the bars, and of what is known from elsewhere
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Symbol:
    """One symbol with its feature warm-up cut off."""

    bars: Bars
    values: np.ndarray  # (T, F) float32
    time: np.ndarray  # (T,) int64
    prices: dict[str, np.ndarray]  # open, high, low, close: (T,) float64
    earned: dict[str, np.ndarray]  # open and close with dividends put back
    volatility: np.ndarray  # (T,)
    bars_per_year: float
    size: np.ndarray | None  # (T,), where positions are sized by volatility
    dividend: np.ndarray | None  # (T,) cash a unit at the open


def build_market(
    bars: Sequence[Bars],
    config: Config,
    receptive_field: int,
    tables: Sequence[FeatureTable] | None = None,
    cutoffs: tuple[int, int] | None = None,
) -> Market:
    """Compute features, split by time and lay everything out as one Tape a split.

    Args:
      bars: one entry a symbol.
      config: data, feature, env and budget settings.
      receptive_field: bars that a decision sees.
      tables: features of one's own, one table a symbol, in place of the configured groups.
      cutoffs: UTC seconds at which validation and test begin, in place of those that the configured fractions give.

    Raises:
      DataError: a symbol too short for the features, a feature that is not finite, no symbol long enough for the
        training or validation split, or a file of costs that cannot be used.
    """
    costs = market_costs(bars, config.env)
    features = _features(bars, config, tables)
    cut = _cut(bars, features.tables, config.env)
    purge = purge_gap(config, receptive_field)
    ranges, cutoffs, warnings = _ranges(cut, config, receptive_field, purge, cutoffs)
    needed = {
        "train": config.budget.n_steps + REWARD_HORIZON,
        "validation": MIN_DECISIONS,
        "test": MIN_DECISIONS,
    }
    splits: dict[str, Split] = {}
    for split in SPLITS:
        have = [(s, r[split]) for s, r in zip(cut, ranges, strict=True) if r[split].decisions >= needed[split]]
        absent = [s.bars.symbol for s, r in zip(cut, ranges, strict=True) if r[split].decisions < needed[split]]
        if not have and split != "test":
            raise DataError(_too_short(split, cut, ranges, needed[split], purge))
        if absent and have:
            warnings.append(
                f"{split} split: no or too few bars (under {needed[split]} decisions) of {', '.join(absent)}"
            )
        if have:
            splits[split] = _split(have, config, costs)
    decisions = {s.bars.symbol: {k: r[k].decisions for k in SPLITS} for s, r in zip(cut, ranges, strict=True)}
    return _market(bars, features, config, splits, decisions, cutoffs, purge, costs, warnings)


def build_evaluation(
    bars: Sequence[Bars],
    config: Config,
    receptive_field: int,
    split: str,
    cutoffs: tuple[int, int] | None,
    tables: Sequence[FeatureTable] | None = None,
) -> Market:
    """One split of a market, cut at given dates: what a trained policy is played over.

    Args:
      bars, config, receptive_field, tables: as of `build_market`.
      split: "validation", "test", or "all" for every bar that can be decided on.
      cutoffs: UTC seconds at which validation and test begin; None to cut each symbol by the configured fractions.

    Returns:
      A `Market` whose only split is `split`; `decisions` counts those of every symbol.

    Raises:
      DataError: no symbol has MIN_DECISIONS bars to decide on there; the message has the dates. Or a file of costs
        that cannot be used.
    """
    costs = market_costs(bars, config.env)
    features = _features(bars, config, tables)
    cut = _cut(bars, features.tables, config.env)
    purge = purge_gap(config, receptive_field)
    ranges = []
    for s in cut:
        own = cutoffs or cutoff_times([s.time], config.data)
        by_date = split_ranges(s.time, own, receptive_field, purge)
        ranges.append(whole_range(s.time, receptive_field) if split == "all" else by_date[split])
    have = [(s, r) for s, r in zip(cut, ranges, strict=True) if r.decisions >= MIN_DECISIONS]
    if not have:
        raise DataError(_nothing_there(split, bars, cutoffs, purge, max(r.decisions for r in ranges)))
    absent = [s.bars.symbol for s, r in zip(cut, ranges, strict=True) if r.decisions < MIN_DECISIONS]
    warnings = [f"no or too few bars (under {MIN_DECISIONS} decisions) of {', '.join(absent)}"] if absent else []
    decisions = {s.bars.symbol: {split: r.decisions} for s, r in zip(cut, ranges, strict=True)}
    splits = {split: _split(have, config, costs)}
    return _market(bars, features, config, splits, decisions, cutoffs, purge, costs, warnings)


def decision_times(split: Split) -> list[np.ndarray]:
    """Starts of the bars at whose close each symbol decides, UTC seconds: a (decisions,) int64 array a symbol."""
    first, length = np.asarray(split.tape.first), np.asarray(split.tape.length)
    return [t[f : n - 1] for t, f, n in zip(split.times, first, length, strict=True)]


def _market(
    bars: Sequence[Bars],
    features: _Features,
    config: Config,
    splits: Mapping[str, Split],
    decisions: Mapping[str, Mapping[str, int]],
    cutoffs: tuple[int, int] | None,
    purge: int,
    costs: MarketCosts,
    warnings: Sequence[str],
) -> Market:
    return Market(
        splits=splits,
        bars=tuple(bars),
        decisions=decisions,
        cutoffs=cutoffs,
        purge_bars=purge,
        feature_names=features.tables[0].names,
        feature_hash=features.hash,
        min_bars=warm_up_bars(features.min_bars, config.env),
        data_hash=features.data_hash,
        costs=costs,
        feature_lines=features.lines,
        split_warnings=(*features.warnings, *warnings, *_level_warnings(bars, config.env)),
        check_arguments=_check_arguments(config.data),
    )


def _level_warnings(bars: Sequence[Bars], env: EnvConfig) -> list[str]:
    """That levels cannot do their work on closes alone."""
    closes = [b.symbol for b in bars if b.closes_alone]
    levels = [f"{name} {level:g}" for name in ("stop_loss", "take_profit") if (level := getattr(env, name)) > 0]
    if not closes or not levels:
        return []
    return [
        f"{' and '.join(levels)} on closes alone ({some_symbols(closes)}): a level is only seen to be passed at a"
        " close, and filled there, however far beyond it; 0 leaves it out"
    ]


def _check_arguments(data: DataConfig) -> str | None:
    """What `python -m jaxppo.data check` takes to look at the same bars; None for the embedded market."""
    if data.data is None:
        return None
    given = {"--interval": data.interval, "--timezone": data.timezone}
    return shlex.join([data.data, *(word for flag, value in given.items() if value for word in (flag, value))])


def _features(bars: Sequence[Bars], config: Config, tables: Sequence[FeatureTable] | None) -> _Features:
    """The configured features, or those of `tables`."""
    own = data_hash(bars)
    if tables:
        found = feature_hash(tables[0].names, config.features.scale_window)
        return _Features(tables, tables[0].min_bars, found, own)
    recipe = feature_recipe(config)
    return _Features(
        [recipe(b) for b in bars],
        recipe.min_bars,
        recipe.hash,
        recipe.data_hash(bars, own),
        recipe.lines(bars),
        recipe.warnings(bars),
    )


def _cut(bars: Sequence[Bars], tables: Sequence[FeatureTable], env: EnvConfig) -> list[_Symbol]:
    """Every symbol without the bars that warm its features and sizes up."""
    return [_trim(b, t, warm_up_bars(t.min_bars, env), env) for b, t in zip(bars, tables, strict=True)]


def purge_gap(config: Config, receptive_field: int) -> int:
    """Bars between two splits that no decision uses."""
    return max(config.data.purge_bars, receptive_field + REWARD_HORIZON)


def _nothing_there(
    split: str, bars: Sequence[Bars], cutoffs: tuple[int, int] | None, purge: int, decisions: int
) -> str:
    begin, end = min(int(b.time[0]) for b in bars), max(int(b.time[-1]) for b in bars)
    where = f"{bars[0].source}: the data goes from {format_time(begin)} to {format_time(end)}"
    if split == "all" or cutoffs is None:
        return f"{where} and has {decisions} bars to decide on; a backtest needs at least {MIN_DECISIONS}"
    one, two = (format_time(c) for c in cutoffs)
    span = f"from {one} to {two}" if split == "validation" else f"from {two} on"
    return (
        f"{where}; the run's {split} split is {span}, of which {purge} bars are purged and {decisions} can be decided"
        f" on; a backtest needs at least {MIN_DECISIONS}"
    )


def warm_up_bars(min_bars: int, env: EnvConfig) -> int:
    """Bars needed for the first decision: those of the features, and those of the size of a position."""
    return max(min_bars, sizing_warm_up(env))


def _trim(bars: Bars, table: FeatureTable, min_bars: int, env: EnvConfig) -> _Symbol:
    keep = slice(min_bars - 1, None)
    values = table.values[keep]
    good = np.isfinite(values)
    if not good.all():
        row, column = np.argwhere(~good)[0]
        raise DataError(
            f"{bars.symbol}: feature {table.names[column]!r} is {values[row, column]} at bar {row + min_bars - 1}"
            f" (0-based) of {bars.source}; features must be finite from bar {min_bars - 1} on"
        )
    prices = {k: getattr(bars, k)[keep] for k in ("open", "high", "low", "close")}
    per_year = bars_per_year(bars.time, bars.interval, bars.asset_class, bars.timezone)
    earned = total_return(bars)
    size = volatility_sizes(earned.close, per_year, env)
    return _Symbol(
        bars,
        values,
        bars.time[keep],
        prices,
        {"open": earned.open[keep], "close": earned.close[keep]},
        trailing_volatility(earned.close)[keep],
        per_year,
        None if size is None else size[keep],
        None if bars.dividend is None else bars.dividend[keep],
    )


def _ranges(
    cut: Sequence[_Symbol], config: Config, receptive_field: int, purge: int, cutoffs: tuple[int, int] | None
) -> tuple[list[dict[str, SplitRange]], tuple[int, int] | None, list[str]]:
    times = [s.time for s in cut]
    if config.data.split_by == "symbol" and cutoffs is None:
        ranges = [split_ranges(t, cutoff_times([t], config.data), receptive_field, purge) for t in times]
        warning = (
            "split_by symbol: every symbol has cut-off dates of its own, so the policy trains on times that other"
            " symbols are validated on; its validation figures may flatter it"
        )
        return ranges, None, [warning]
    cutoffs = cutoffs or cutoff_times(times, config.data)
    return [split_ranges(t, cutoffs, receptive_field, purge) for t in times], cutoffs, []


def _too_short(
    split: str, cut: Sequence[_Symbol], ranges: Sequence[dict[str, SplitRange]], needed: int, purge: int
) -> str:
    best = max(range(len(cut)), key=lambda i: ranges[i][split].decisions)
    symbol = cut[best].bars
    warm_up, left = len(symbol.time) - len(cut[best].time), ranges[best][split].decisions
    return (
        f"{symbol.source}: too few bars for a {split} split: {symbol.symbol}, the longest there, has"
        f" {len(symbol.time)} bars, of which {warm_up} warm the features up, {purge} are purged at each cut-off"
        f" and {left} are left to decide on in this split; at least {needed} are needed"
    )


def _pad(rows: Sequence[np.ndarray], length: int, dtype: type = np.float32) -> np.ndarray:
    """Stack (T_s, ...) rows to (S, length, ...), repeating each last entry: padding is finite and never decided on."""
    return np.stack([np.concatenate([r, np.repeat(r[-1:], length - len(r), axis=0)]) for r in rows]).astype(dtype)


def _split(have: Sequence[tuple[_Symbol, SplitRange]], config: Config, costs: MarketCosts) -> Split:
    length = max(r.end - r.begin for _, r in have)
    env = config.env
    own = [costs.by_symbol[s.bars.symbol] for s, _ in have]

    def rows(take: str) -> np.ndarray:
        return _pad([s.prices[take][r.begin : r.end] for s, r in have], length)

    forward = [forward_returns(s.earned["open"][r.begin : r.end], s.earned["close"][r.begin : r.end]) for s, r in have]
    years = [s.bars_per_year for s, _ in have]
    sizes = [s.size[r.begin : r.end] for s, r in have if s.size is not None]
    tape = Tape(
        features=jnp.asarray(_pad([s.values[r.begin : r.end] for s, r in have], length)),
        open=jnp.asarray(rows("open")),
        high=jnp.asarray(rows("high")),
        low=jnp.asarray(rows("low")),
        close=jnp.asarray(rows("close")),
        forward_return=jnp.asarray(_pad(forward, length)),
        volatility=jnp.asarray(_pad([s.volatility[r.begin : r.end] for s, r in have], length)),
        first=jnp.asarray([r.first - r.begin for _, r in have], jnp.int32),
        length=jnp.asarray([r.end - r.begin for _, r in have], jnp.int32),
        costs=Costs(
            fee=jnp.asarray([c.fee for c in own], jnp.float32),
            impact=jnp.asarray([c.half_spread + env.slippage for c in own], jnp.float32),
            borrow=jnp.asarray([c.borrow / y for c, y in zip(own, years, strict=True)], jnp.float32),
        ),
        allow_short=jnp.asarray([may_short(s.bars.asset_class, env) for s, _ in have]),
        bars_per_year=jnp.asarray(years, jnp.float32),
        size=jnp.asarray(_pad(sizes, length)) if sizes else None,
        dividend=_dividends(have, length),
    )
    return Split(
        tape=tape.check(),
        symbols=tuple(s.bars.symbol for s, _ in have),
        times=tuple(s.time[r.begin : r.end] for s, r in have),
    )


def _dividends(have: Sequence[tuple[_Symbol, SplitRange]], length: int) -> jax.Array | None:
    """Cash a unit at each open (S, length), 0 in the padding; None where nothing is ever paid."""
    out = np.zeros((len(have), length), np.float32)
    for row, (s, r) in zip(out, have, strict=True):
        if s.dividend is not None:
            row[: r.end - r.begin] = s.dividend[r.begin : r.end]
    return jnp.asarray(out) if out.any() else None


class Days(NamedTuple):
    """The UTC dates on which some symbol fills a decision, to rebalance a portfolio daily; padded to D dates."""

    behind: Int32[jax.Array, "S D"]  # decisions a symbol has behind it at a date's end
    valid: Bool[jax.Array, " D"]
    per_year: Float[jax.Array, ""]  # such dates a year


class Calendar(NamedTuple):
    """The calendar that symbols share, to pool their accounts in real time; padded to U times."""

    behind: Int32[jax.Array, "S U"]  # decisions a symbol has behind it once the bars of a time have closed
    valid: Bool[jax.Array, " U"]
    bars_per_year: Float[jax.Array, ""]  # of the pool
    days: Days


class EvaluationSet(NamedTuple):
    """A split to evaluate on, and the calendar that joins its symbols' bars."""

    tape: Tape
    calendar: Calendar


def evaluation_set(split: Split) -> EvaluationSet:
    """A split with its joint calendar, on the device."""
    return EvaluationSet(split.tape, device_calendar(joint_calendar(split)))


def device_calendar(joint: JointCalendar) -> Calendar:
    """A joint calendar on the device, without padding."""
    days = Days(jnp.asarray(joint.day_behind), jnp.ones(len(joint.day), bool), jnp.float32(joint.days_per_year))
    valid = jnp.ones(len(joint.time), bool)
    return Calendar(jnp.asarray(joint.behind), valid, jnp.float32(joint.bars_per_year), days)


class JointCalendar(NamedTuple):
    """The calendar that a split's symbols share, to pool their accounts in real time; on the host."""

    time: np.ndarray  # (U,) int64: starts of all bars that some symbol fills a decision on, UTC seconds
    behind: np.ndarray  # (S, U) int32: decisions a symbol has behind it once the bars that start then have closed
    bars_per_year: float  # of the pool
    day: np.ndarray  # (D,) int64: starts of the UTC dates of these times, UTC seconds
    day_behind: np.ndarray  # (S, D) int32: decisions a symbol has behind it at a date's end
    days_per_year: float


def joint_calendar(split: Split) -> JointCalendar:
    """The calendar that a split's symbols share."""
    first = np.asarray(split.tape.first)
    fills = [t[f + 1 :] for t, f in zip(split.times, first, strict=True)]
    joint = np.unique(np.concatenate(fills))
    behind = np.stack([np.searchsorted(f, joint, side="right") for f in fills]).astype(np.int32)
    own, bars = np.asarray(split.tape.bars_per_year, np.float64), np.asarray([len(f) for f in fills])
    return JointCalendar(joint, behind, joint_bars_per_year(joint, own, bars), *joint_days(joint, behind))


def joint_days(time: np.ndarray, behind: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The UTC dates of a joint calendar.

    Args:
      time: (U,) int64 UTC seconds, ascending.
      behind: (S, U) int32, as of `JointCalendar`.

    Returns:
      The dates (D,) int64 as UTC seconds, the decisions behind at the end of each (S, D) int32, and such dates a year:
      their number over the span from the first to the last, both included, in years of 365.25 days.

    Example:
      >>> joint_days(np.array([0, 3600, 172800]), np.array([[1, 2, 3]]))
      (array([     0, 172800]), array([[2, 3]]), 243.5)
    """
    date = time // DAY
    last = np.append(np.flatnonzero(np.diff(date)), len(date) - 1)
    per_year = len(last) * 365.25 / float(date[-1] - date[0] + 1)
    return date[last] * DAY, behind[:, last], per_year
