"""What tells runs apart: fields of their configurations, and Sharpe ratios with intervals on the days in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from jaxppo.config.schema import GROUPS
from jaxppo.page.text import MISSING, plain_value
from jaxppo.play.formulas import moments, sharpe
from jaxppo.play.significance import bootstrap, curve_returns, sharpe_differences
from jaxppo.runs.found import Entry, Judged, daily_curve, days_per_year

PARTS = ("validation", "test")
_LEAST = 20
"""Days in common below which no interval is given: resampled blocks of fewer say nothing."""


@dataclass(frozen=True)
class Line:
    """One policy on one part of the bars, rebalanced daily."""

    name: str
    figures: Mapping[str, float]
    interval: tuple[float, float] | None  # 90 % of its Sharpe ratio
    excess: tuple[float, float, float] | None  # of the first's Sharpe ratio over its own: difference, low, high


@dataclass(frozen=True)
class Part:
    """All that are known on the validation or the test bars."""

    lines: tuple[Line, ...]
    curves: Mapping[str, pl.DataFrame]  # `date` and `equity` by name
    days: int  # that all curves have in common
    differ: bool  # the curves do not begin and end on the same dates


@dataclass(frozen=True)
class Comparison:
    """What is said of several folders."""

    entries: Mapping[str, Entry]  # by a short name
    differences: tuple[tuple[str, tuple[str, ...]], ...]  # a field and its value in each
    parts: Mapping[str, Part]


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names of folders, each with as many of the folders above as tell all apart.

    Example:
      >>> short_names([Path("/a/x"), Path("/b/x"), Path("/b/y")])
      ['a/x', 'b/x', 'b/y']
    """
    parts = [path.resolve().parts for path in paths]
    deepest = max(map(len, parts))
    depth = next(d for d in range(1, deepest + 1) if len({own[-d:] for own in parts}) == len(parts))
    return ["/".join(own[-depth:]) for own in parts]


def flat_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A nested configuration as fields; a backtest has none."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= value if name in GROUPS and isinstance(value, dict) else {name: value}
    return found


def config_differences(configs: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Fields that not all have the same value of, in the order of the configuration, and the values as text."""
    flat = [flat_config(config) for config in configs]
    known = [f for f in flat if f]
    names = dict.fromkeys(name for f in flat for name in f)
    rows = []
    for name in names:
        values = [plain_value(f[name]) if name in f else MISSING for f in flat]
        if any(f.get(name) != known[0].get(name) or (name in f) != (name in known[0]) for f in known):
            rows.append((name, tuple(values)))
    return tuple(rows)


def compare(entries: Sequence[Entry]) -> Comparison:
    """Everything that a page of several folders shows.

    Raises:
      RunDirectoryError: a file of a curve is damaged.
    """
    named = dict(zip(short_names([e.path for e in entries]), entries, strict=True))
    parts = {}
    for part in PARTS:
        judged = {name: found for name, e in named.items() if (found := getattr(e, part)) is not None}
        if judged:
            parts[part] = _part(judged)
    return Comparison(named, config_differences([e.config for e in entries]), parts)


def _part(judged: Mapping[str, Judged]) -> Part:
    curves = {name: curve for name, j in judged.items() if (curve := daily_curve(j)).height > 1}
    first = next(iter(judged))
    excess = _excesses(first, curves) if first in curves else {}
    lines = tuple(
        Line(name, j.figures, j.interval or _interval(curves.get(name)), excess.get(name)) for name, j in judged.items()
    )
    ends = {(c["date"][0], c["date"][-1]) for c in curves.values()}
    return Part(lines, curves, len(_common(curves)), len(ends) > 1)


def _interval(curve: pl.DataFrame | None) -> tuple[float, float] | None:
    """90 % interval of the Sharpe ratio of a stored curve, by resampled blocks of days."""
    if curve is None or curve.height < _LEAST:
        return None
    equity = jnp.asarray(curve["equity"].to_numpy(), jnp.float32)
    per_year = jnp.float32(days_per_year(curve["date"].to_numpy()))
    found = _bootstrap(equity, jnp.ones(()), jnp.ones(equity.shape, bool), per_year, jax.random.key(0))
    return float(found.sharpe.low), float(found.sharpe.high)


_bootstrap = jax.jit(partial(bootstrap, draws=1000))


def _returns(curve: pl.DataFrame) -> pl.DataFrame:
    return curve.select("date", pl.Series("return", curve_returns(curve["equity"].to_numpy())))


def _common(curves: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Returns on the days that all curves have, a column each, named by their place."""
    joined: pl.DataFrame | None = None
    for i, curve in enumerate(curves.values()):
        own = _returns(curve).rename({"return": str(i)})
        joined = own if joined is None else joined.join(own, on="date", how="inner")
    return pl.DataFrame({"date": []}) if joined is None else joined.sort("date")


def _excesses(first: str, curves: Mapping[str, pl.DataFrame]) -> dict[str, tuple[float, float, float]]:
    """How far the Sharpe ratio of the first is above that of each other, on the days that the two have in common."""
    found = {}
    for name, curve in curves.items():
        both = _common({first: curves[first], name: curve})
        if name == first or both.height < _LEAST:
            continue
        returns = jnp.asarray(both.drop("date").to_numpy().T, jnp.float32)
        per_year = jnp.float32(days_per_year(both["date"].to_numpy()))
        ratio = np.asarray(sharpe(moments(returns, jnp.ones(returns.shape, bool)), per_year))
        ends = sharpe_differences(returns, per_year, jax.random.key(0))
        found[name] = float(ratio[0] - ratio[1]), float(ends.low[0]), float(ends.high[0])
    return found


def excess_sentence(first: str, line: Line) -> str:
    """Whether the first is better than another, in a sentence; empty where that was not computed."""
    if line.excess is None or math.isnan(line.excess[0]):
        return ""
    difference, low, high = line.excess
    if low > 0:
        says = f"{first} is better than {line.name}"
    elif high < 0:
        says = f"{line.name} is better than {first}"
    else:
        says = f"whether {first} or {line.name} is better cannot be told"
    return f"{says}: a Sharpe ratio {difference:+.2f} apart (90 % interval {low:+.2f} to {high:+.2f})"
