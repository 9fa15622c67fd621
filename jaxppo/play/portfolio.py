"""The portfolio that is rebalanced daily, next to those of the rules: does it beat the best? Folds are joined first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.market.dataset import JointCalendar, joint_days
from jaxppo.play.curve import TradeSums
from jaxppo.play.formulas import max_drawdown, moments, sharpe
from jaxppo.play.joined import joined_metrics, joined_sums
from jaxppo.play.metrics import Metrics, figures
from jaxppo.play.score import Pooled
from jaxppo.play.sides import Yardsticks
from jaxppo.play.significance import Intervals, bootstrap, curve_returns, sharpe_differences

POLICY = "policy"

Verdict = Literal["beats", "cannot be told", "does not beat"]


class FoldPortfolios(NamedTuple):
    """What the policy and the baselines did in one fold's test, rebalanced daily; host arrays."""

    day: np.ndarray  # (D,) int64: starts of the UTC dates, UTC seconds
    per_year: float  # such dates a year
    names: tuple[str, ...]  # P: POLICY, then buy-and-hold and the rules; or the members of an ensemble
    returns: np.ndarray  # (P, D) float64, a date
    sums: TradeSums  # (P,)
    metrics: Metrics  # (P,)

    def of(self, names: Sequence[str]) -> FoldPortfolios:
        """Some of them, in that order."""
        at = np.asarray([self.names.index(name) for name in names])
        sums, metrics = jax.tree.map(lambda x: x[at], (self.sums, self.metrics))
        return FoldPortfolios(self.day, self.per_year, tuple(names), self.returns[at], sums, metrics)


class Joined(NamedTuple):
    """All folds one after another, one row a UTC date; host arrays."""

    names: tuple[str, ...]  # P
    missing: tuple[str, ...]  # rules that some fold has too few bars to fit
    day: np.ndarray  # (D,) int64, ascending
    fold: np.ndarray  # (D,) int64, from 1; of a date that two folds share, the later
    per_year: float
    returns: np.ndarray  # (P, D) float64
    metrics: Metrics  # (P,)
    per_fold: tuple[Metrics, ...]  # K of (P,)


class Lanes(NamedTuple):
    """Portfolios that are rebalanced daily as a Pass leaves them, any common shape; curves may be padded."""

    equity: Any  # (..., D)
    sums: TradeSums  # (...), a date
    metrics: Metrics  # (...)


def lanes_of(pooled: Pooled) -> Lanes:
    """The portfolios of pools."""
    return Lanes(pooled.portfolio_equity, pooled.portfolio_sums, pooled.portfolio)


def fold_portfolios(joint: JointCalendar, policy: Lanes, yardsticks: Yardsticks) -> FoldPortfolios:
    """The portfolios of one fold's test, host arrays.

    Args:
      joint: calendar of the fold's test part, without padding.
      policy: ().
      yardsticks: of the same test part.
    """
    both = jax.tree.map(lambda one, more: np.concatenate([one[None], more]), policy, lanes_of(yardsticks.lanes))
    return _portfolios(joint, (POLICY, *yardsticks.names), both)


def member_portfolios(joint: JointCalendar, members: Lanes) -> FoldPortfolios:
    """The same of each member of an ensemble alone; `members` are (M,)."""
    return _portfolios(joint, tuple(f"member_{i}" for i in range(len(members.equity))), members)


def _portfolios(joint: JointCalendar, names: tuple[str, ...], lanes: Lanes) -> FoldPortfolios:
    returns = curve_returns(np.asarray(lanes.equity)[:, : len(joint.day)])
    return FoldPortfolios(joint.day, joint.days_per_year, names, returns, lanes.sums, lanes.metrics)


def at_volatility(returns: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Returns (D,) scaled to the deviation of others (D,); as they are where they do not move.

    Example:
      >>> at_volatility(np.array([0.04, 0.0]), np.array([0.01, 0.03]))
      array([0.02, 0.  ])
    """
    deviation = returns.std()
    scaled: np.ndarray = returns * (of.std() / deviation if deviation > 0 else 1.0)
    return scaled


def join_portfolios(folds: Sequence[FoldPortfolios]) -> Joined:
    """One portfolio after another, in time; of a date on which one test ends and the next begins the returns compound.

    Turnover, exposure and costs are means over the dates of all folds. A rule that was not played in some fold is left
    out and named.
    """
    everywhere = [name for name in folds[0].names if all(name in fold.names for fold in folds)]
    missing = sorted({name for fold in folds for name in fold.names} - set(everywhere))
    own = [fold.of(everywhere) for fold in folds]
    time = np.concatenate([fold.day for fold in own])
    starts = np.flatnonzero(np.diff(time, prepend=time[0] - 1))
    growth = np.multiply.reduceat(1.0 + np.concatenate([fold.returns for fold in own], axis=1), starts, axis=1)
    number = np.concatenate([np.full(len(fold.day), k) for k, fold in enumerate(own, start=1)])
    day, dates = time[starts], np.asarray([len(fold.day) for fold in own])
    per_year = joint_days(day, np.zeros((1, len(day)), np.int32))[2]
    yearly = np.asarray([fold.per_year for fold in own])
    parts = [jax.tree.map(lambda *x: np.stack(x), *(fold.of([name]).sums for fold in own)) for name in everywhere]
    sums = [joined_sums(jax.tree.map(lambda x: x[:, 0], part), dates, yearly, per_year) for part in parts]
    total = jax.tree.map(lambda *x: np.stack(x), *sums)
    equity = np.cumprod(growth, axis=1)
    valid = np.ones(equity.shape, bool)
    found = joined_metrics(equity.astype(np.float32), valid, np.full(len(everywhere), per_year, np.float32), total)
    last = np.append(starts[1:], len(time)) - 1
    return Joined(
        tuple(everywhere),
        tuple(missing),
        day,
        number[last],
        per_year,
        growth - 1.0,
        jax.device_get(found),
        tuple(fold.metrics for fold in own),
    )


class Parts(NamedTuple):
    """Figures of P curves on each of C parts of their days, (C, P)."""

    sharpe: jax.Array
    cagr: jax.Array
    volatility: jax.Array
    max_drawdown: jax.Array


@jax.jit
def part_figures(returns: jax.Array, part: jax.Array, per_year: jax.Array) -> Parts:
    """Figures of daily returns (P, D) on parts (C, D) bool of the days, of which there are `per_year` () a year."""

    def one(days: jax.Array) -> Parts:
        valid = jnp.broadcast_to(days, returns.shape)
        m = moments(returns, valid)
        curve = jnp.cumprod(jnp.where(valid, 1.0 + returns, 1.0), axis=1)
        growth = jnp.maximum(curve[:, -1], 0.0) ** (per_year / jnp.maximum(m.n, 1.0))
        spread = jnp.sqrt(m.m2 * m.n / jnp.maximum(m.n - 1.0, 1.0) * per_year)
        return Parts(sharpe(m, per_year), growth - 1.0, spread, max_drawdown(curve, jnp.ones_like(m.n)))

    parts: Parts = jax.lax.map(one, part)
    return parts


def decade_masks(day: np.ndarray) -> dict[str, np.ndarray]:
    """Which of the days (D,), UTC seconds, lie in each calendar decade: by its name, such as 1990s, (D,) bool.

    Example:
      >>> {name: mask.tolist() for name, mask in decade_masks(np.array([-86400, 0])).items()}
      {'1960s': [True, False], '1970s': [False, True]}
    """
    decade = (day.astype("datetime64[s]").astype("datetime64[Y]").astype(np.int64) + 1970) // 10 * 10
    return {f"{d}s": decade == d for d in np.unique(decade).tolist()}


@jax.jit
def _intervals(curves: jax.Array, per_year: jax.Array, key: jax.Array) -> Intervals:
    """Of every curve (P, D), each from the same draws."""
    one, valid = jnp.ones((), curves.dtype), jnp.ones(curves.shape[1], bool)
    found: Intervals = jax.lax.map(lambda curve: bootstrap(curve, one, valid, per_year, key), curves)
    return found


def verdict_of(difference: float, low: float) -> Verdict:
    """Whether a policy beats a rule, by how far its Sharpe ratio is above and the lower end of the 90 % interval."""
    if not difference > 0:
        return "does not beat"
    return "beats" if low > 0 else "cannot be told"


def excess_sentence(excess: Mapping[str, Any], rule: str, policy: float) -> str:
    """A policy against the best rule in plain words.

    Args:
      excess: the entry of summary.json.
      rule: what to call the rule.
      policy: the policy's Sharpe ratio, rebalanced daily.
    """
    difference, (low, high) = excess["sharpe_difference"], excess["interval_90"]
    said = {
        "beats": f"The policy beats the best rule, {rule}",
        "cannot be told": f"Whether the policy beats the best rule, {rule}, cannot be told",
        "does not beat": f"The policy does not beat the best rule, {rule}",
    }
    return (
        f"{said[excess['verdict']]}: rebalanced daily its Sharpe ratio is {policy:.2f} against"
        f" {policy - difference:.2f}, a difference of {difference:+.2f} (90 % interval {low:+.2f} to {high:+.2f})."
    )


def summarize_portfolio(joined: Joined, members: Joined | None, seed: int) -> dict[str, Any]:
    """The entries of summary.json that say how the portfolio fared, and whether it beats the best rule.

    The best rule is the one of the highest Sharpe ratio on the tested days themselves: it is chosen in hindsight, which
    makes it the harder to beat.

    Args:
      joined: of `join_portfolios`.
      members: the same of each member of an ensemble alone; None of one policy, which is its own only member.
      seed: of the bootstrap.
    """
    names, ratio = joined.names, np.asarray(joined.metrics.sharpe, np.float64)
    returns, key = jnp.asarray(joined.returns, jnp.float32), jax.random.key(seed)
    per_year = jnp.float32(joined.per_year)
    curves = jnp.asarray(np.cumprod(1.0 + joined.returns, axis=1), jnp.float32)
    ends = jax.device_get(_intervals(curves, per_year, key))
    paired = jax.device_get(sharpe_differences(returns, per_year, key))
    decades = decade_masks(joined.day)
    masks = jnp.asarray(np.stack([np.ones(len(joined.day), bool), *decades.values()]))
    parts = jax.device_get(part_figures(returns, masks, per_year))
    alone = returns[:1] if members is None else jnp.asarray(members.returns, jnp.float32)
    by_member = jax.device_get(part_figures(alone, masks, per_year)).sharpe  # (1 + decades, M)

    def entry(i: int) -> dict[str, Any]:
        own = jax.tree.map(lambda x: x[i], ends).ends()
        return {
            **figures(jax.tree.map(lambda x: x[i], joined.metrics)),
            "volatility": float(parts.volatility[0, i]),
            "interval_90": own["sharpe"],
            "intervals_90": own,
            "per_fold": [
                {"fold": k, **figures(jax.tree.map(lambda x: x[i], of))} for k, of in enumerate(joined.per_fold, 1)
            ],
        }

    baselines = {}
    for i, name in enumerate(names[1:]):
        baselines[name] = entry(i + 1) | {
            "sharpe_difference": float(ratio[0] - ratio[i + 1]),
            "difference_90": [float(paired.low[i]), float(paired.high[i])],
        }
    each = ratio[:1] if members is None else np.asarray(members.metrics.sharpe, np.float64)
    return {
        "portfolio": entry(0) | {"members": each.tolist(), "members_spread": float(each.max() - each.min())},
        "baselines": baselines,
        "excess_over_best_rule": _excess(float(ratio[0]), baselines),
        "per_decade": {
            decade: {
                "days": int(mask.sum()),
                POLICY: _part(parts, c, 0) | {"members": by_member[c].tolist()},
                "baselines": {name: _part(parts, c, i) for i, name in enumerate(names) if i},
            }
            for c, (decade, mask) in enumerate(decades.items(), start=1)
        },
        "rules_left_out": list(joined.missing),
    }


def _part(parts: Parts, c: int, i: int) -> dict[str, float]:
    return {name: float(x[c, i]) for name, x in parts._asdict().items()}


def _excess(policy: float, baselines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The policy against the baseline of the highest Sharpe ratio."""
    by_sharpe = {name: -math.inf if math.isnan(row["sharpe"]) else row["sharpe"] for name, row in baselines.items()}
    rule = max(by_sharpe, key=lambda name: by_sharpe[name])
    difference, ends = baselines[rule]["sharpe_difference"], baselines[rule]["difference_90"]
    verdict = verdict_of(difference, ends[0])
    found = {"rule": rule, "sharpe_difference": difference, "interval_90": ends, "verdict": verdict}
    return found | {"sentence": excess_sentence(found, rule, policy)}
