"""Rules from whole bars to a Pass: signals and weights of a training range on the host, accounts on the device."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.config.schema import EnvConfig
from jaxppo.env.account import exposure_at, units_for_exposure
from jaxppo.errors import ConfigError
from jaxppo.market.bars import Bars
from jaxppo.market.dataset import EvaluationSet, Market, Split
from jaxppo.market.inputs import Inputs, bar_inputs
from jaxppo.market.tape import Costs, Tape
from jaxppo.play.baselines import buy_and_hold, hold_sums
from jaxppo.play.passes import (
    Decider,
    Moment,
    Order,
    Pass,
    as_lanes,
    decision_bars,
    fills,
    paid_since,
    play,
    symbol_rows,
)
from jaxppo.play.rules import RULES, Rule
from jaxppo.play.score import Pooled, pool_lanes

FIT_DATES = 10
"""Least number of times in the training range for each weight that is fitted."""
MEAN_SIDE = 0.5
"""Mean size of a fitted rule's side on the training range, before it is clipped to 1."""

HOLD = "buy_and_hold"

Signals = dict[str, np.ndarray]
"""Of each rule (S, T, J) float64, on the rows of a Tape; 0 in padding."""


class Fitted(NamedTuple):
    """What the training range says of a rule."""

    weights: tuple[float, ...]  # (J,)
    scale: float

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Fitted:
        """Fitted weights of the mapping that they were kept as."""
        return cls(tuple(float(w) for w in raw["weights"]), float(raw["scale"]))


def rule_signals(bars: Sequence[Bars], split: Split, rules: Iterable[Rule] | None = None) -> Signals:
    """Signals of rules, computed from each symbol's whole bars and laid out as the rows of a split's Tape.

    Args:
      bars: of all symbols, whole; those of the split are found by name.
      split: whose Tape and times say which rows.
      rules: by default all that are registered.

    Raises:
      ConfigError: a rule gives something else than finite signals of one row a bar.
    """
    whole, rules = {b.symbol: b for b in bars}, list(RULES.values() if rules is None else rules)
    distinct = {_key(rule): rule for rule in rules}  # some rules share their signals, which are large
    done: dict[Any, np.ndarray] = {}
    for i, (symbol, times) in enumerate(zip(split.symbols, split.times, strict=True)):
        inputs = bar_inputs(whole[symbol])
        rows = np.searchsorted(whole[symbol].time, times)
        for key, rule in distinct.items():
            own = _checked(rule, inputs)[rows]
            if key not in done:
                done[key] = np.zeros((len(split.symbols), split.tape.n_bars, own.shape[1]))
            done[key][i, : len(rows)] = own
    return {rule.name: done[_key(rule)] for rule in rules}


def _key(rule: Rule) -> tuple[Callable[[Inputs], np.ndarray], bool]:
    """The same for rules whose signals are the same and must be of the same shape."""
    return rule.signals, rule.fit is None


def _checked(rule: Rule, inputs: Inputs) -> np.ndarray:
    """A rule's signals; `ConfigError` where they are not what a rule must give."""
    own = np.asarray(rule.signals(inputs), np.float64)
    wanted = (len(inputs.close), own.shape[-1] if rule.fit is not None and own.ndim == 2 else 1)
    if own.shape != wanted:
        raise ConfigError(f"rule {rule.name!r}: signals of {wanted[0]} bars must be of shape {wanted}, got {own.shape}")
    if not np.isfinite(own).all():
        raise ConfigError(f"rule {rule.name!r}: signals of {inputs.bars.symbol} must be finite at every bar")
    return own


def sized_returns(tape: Tape) -> np.ndarray:
    """Return of the bar on which an order decided at t is held, open[t + 1] to open[t + 2], times its size: (S, T).

    0 in the last two rows, where that bar is not there.
    """
    open_ = np.asarray(tape.open, np.float64)
    out = np.zeros_like(open_)
    paid = 0.0 if tape.dividend is None else np.asarray(tape.dividend, np.float64)[:, 2:]
    out[:, :-2] = (open_[:, 2:] + paid) / open_[:, 1:-1] - 1.0
    return out if tape.size is None else out * np.asarray(tape.size, np.float64)


def managed_portfolios(
    signals: np.ndarray, returns: np.ndarray, times: Sequence[np.ndarray], first: np.ndarray, length: np.ndarray
) -> np.ndarray:
    """What each signal earns as a position: r_j(t), the mean over symbols of signal j times the sized return, (D, J).

    Args:
      signals: (S, T, J).
      returns: (S, T), `sized_returns`.
      times: (T_s,) of each symbol, by which rows of several are the same date; bar starts, UTC seconds.
      first, length: (S,) of the training range. Of its decisions the last is left out, whose bar ends behind it.

    Returns:
      A row for each time at which a symbol decides, in order.
    """
    spans = [slice(int(f), max(int(n) - 2, int(f))) for f, n in zip(first, length, strict=True)]
    rows = [signals[s, span] * returns[s, span, None] for s, span in enumerate(spans)]
    at = np.concatenate([t[span] for t, span in zip(times, spans, strict=True)])
    dates, place = np.unique(at, return_inverse=True)
    flat = np.concatenate(rows)
    total = np.stack([np.bincount(place, x, len(dates)) for x in flat.T], axis=1) if len(dates) else flat
    return total / np.bincount(place, minlength=len(dates))[:, None]


def fitted_rules() -> list[Rule]:
    """The registered rules that are fitted."""
    return [rule for rule in RULES.values() if rule.fit is not None]


def fit_rules(
    signals: Signals,
    split: Split,
    first: np.ndarray | None = None,
    length: np.ndarray | None = None,
    rules: Iterable[Rule] | None = None,
) -> dict[str, Fitted]:
    """Weights of the rules that are fitted, from a training range alone. Pure NumPy, float64.

    Args:
      signals: of `rule_signals`, on the same split.
      split: prices, sizes and times.
      first, length: (S,) of the training range, as of a Tape; by default the split's own.
      rules: by default all that are registered and fitted.

    Returns:
      By name; a rule that there is too little data for, under `FIT_DATES` times a weight, or that earns nothing at all
      is not among them.
    """
    tape = split.tape
    first, length = (np.asarray(x if x is not None else own) for x, own in ((first, tape.first), (length, tape.length)))
    returns, found = sized_returns(tape), {}
    for rule in fitted_rules() if rules is None else rules:
        if rule.fit is None:
            continue
        own = signals[rule.name]
        portfolios = managed_portfolios(own, returns, split.times, first, length)
        if len(portfolios) < FIT_DATES * own.shape[2]:
            continue
        try:
            weights = np.asarray(rule.fit(portfolios), np.float64)
        except np.linalg.LinAlgError:
            continue
        sides = np.concatenate([own[s, f : max(n - 1, f)] for s, (f, n) in enumerate(zip(first, length, strict=True))])
        scale = float(np.abs(sides @ weights).mean()) / MEAN_SIDE
        if np.isfinite(scale) and scale > 0:
            found[rule.name] = Fitted(tuple(weights.tolist()), scale)
    return found


class Sides(NamedTuple):
    """Which side each of R rules is on at every bar."""

    names: tuple[str, ...]  # R
    values: np.ndarray  # (S, T, R) float32 in [-1, 1], on the rows of a Tape
    missing: tuple[str, ...]  # rules that are fitted, and were not


class Yardsticks(NamedTuple):
    """What a policy is measured by: buy-and-hold and the rules. Host arrays, a lane a name."""

    names: tuple[str, ...]  # L, HOLD first
    lanes: Pooled  # (L, ...)
    missing: tuple[str, ...]  # rules that are fitted, and were not

    def of(self, name: str) -> Pooled:
        """The figures () and curves of one."""
        at = self.names.index(name)
        one: Pooled = jax.tree.map(lambda x: x[at], self.lanes)
        return one

    @property
    def best(self) -> tuple[str, float]:
        """The name and the Sharpe ratio of the best, by the portfolio that is rebalanced daily."""
        sharpe = np.asarray(self.lanes.portfolio.sharpe, np.float64)
        at = int(np.argmax(np.where(np.isnan(sharpe), -np.inf, sharpe)))
        return self.names[at], float(sharpe[at])


def rule_sides(signals: Signals, fitted: Mapping[str, Fitted], rules: Iterable[Rule] | None = None) -> Sides:
    """Sides of rules; one that is fitted but has no weights, or of another number of signals, is left out and named."""
    names, values, missing = [], [], []
    for rule in RULES.values() if rules is None else rules:
        own = signals[rule.name]
        if rule.fit is None:
            side = own[:, :, 0]
        elif rule.name in fitted and len(fitted[rule.name].weights) == own.shape[2]:
            side = own @ np.asarray(fitted[rule.name].weights) / fitted[rule.name].scale
        else:
            missing.append(rule.name)
            continue
        names.append(rule.name)
        values.append(np.clip(side, -1.0, 1.0))
    return Sides(tuple(names), np.stack(values, axis=-1).astype(np.float32), tuple(missing))


def decision_sides(sides: np.ndarray | jax.Array, tape: Tape, n_bars: int) -> jax.Array:
    """Sides (S, T, R) at the decision bars of a Tape, the last one repeated: (N, R, S)."""
    t, _ = decision_bars(tape, n_bars)
    return jnp.swapaxes(jnp.asarray(sides)[symbol_rows(t), t], 1, 2)


def play_rules(sides: jax.Array, env: EnvConfig, tape: Tape, n_bars: int, costs: Costs | None = None) -> Pass:
    """Play R rules as the lanes of one Pass, sized and charged as the policy is, without stops or take-profit.

    The exposure wished for is side x size, and x `max_exposure` where the Tape has no sizes. An order goes out at the
    open where that is on another side than the position, or at least `rebalance_band` x that size away from it. A short
    becomes flat where short selling is not allowed.

    Args:
      sides: (N, R, S) in [-1, 1], at each decision.
      env: the account's settings, of which largest exposure, rebalancing band and ruin level count.
      tape: the market.
      n_bars: N.
      costs: (R, S); by default the Tape's own.
    """
    t, _ = decision_bars(tape, n_bars)
    most = jnp.full(t.shape, env.max_exposure, sides.dtype)
    size = jnp.expand_dims(most if tape.size is None else tape.size[symbol_rows(t), t], 1)  # (N, 1, S)
    allowed = jnp.where(jnp.expand_dims(tape.allow_short, (0, 1)), sides, jnp.maximum(sides, 0.0))

    def decide(m: Moment) -> Order:
        target, size = m.row
        exposure = exposure_at(m.opening, m.market.open)
        turned = jnp.sign(target) != jnp.sign(m.account.units)
        moved = jnp.abs(target - exposure) >= env.rebalance_band * size
        wanted = units_for_exposure(m.opening, target, m.market.open, m.costs)
        return Order(jnp.where(turned | moved, wanted, m.account.units))

    plain = dataclasses.replace(env, stop_loss=0.0, take_profit=0.0)
    lanes = as_lanes(tape.costs, (1.0,) * sides.shape[1]) if costs is None else costs
    return play(Decider((allowed * size, size), decide, plain), tape, n_bars, lanes, keep=False)


def score_yardsticks(sides: Sides, env: EnvConfig, data: EvaluationSet, n_bars: int) -> Yardsticks:
    """Figures and curves of buy-and-hold and of the rules over an evaluation set, at the same costs.

    Compiled once for all environments and Tapes of the same sizes.

    Args:
      sides: of `rule_sides`, on the rows of the set's Tape.
      env: as of `play_rules`.
      data: the bars, with their calendar.
      n_bars: N, the decisions of the longest symbol.
    """
    bare = data._replace(tape=data.tape._replace(features=data.tape.features[:, :, :0]))
    scored = _score(jnp.asarray(sides.values), bare, n_bars, env.max_exposure, env.rebalance_band, env.ruin_level)
    return Yardsticks((HOLD, *sides.names), jax.device_get(scored), sides.missing)


@functools.partial(jax.jit, static_argnames=("n_bars", "max_exposure", "rebalance_band", "ruin_level"))
def _score(
    sides: jax.Array, data: EvaluationSet, n_bars: int, max_exposure: float, rebalance_band: float, ruin_level: float
) -> Pooled:
    tape = data.tape
    env = EnvConfig(max_exposure=max_exposure, rebalance_band=rebalance_band, ruin_level=ruin_level)
    played = play_rules(decision_sides(sides, tape, n_bars), env, tape, n_bars)
    held = buy_and_hold(*fills(tape, n_bars), played.valid, tape.costs, paid_since(tape, n_bars))
    sums = hold_sums(held[-1] - 1.0, tape.length - 1 - tape.first, tape.costs.fee + tape.costs.impact)
    with_hold = played._replace(
        equity=jnp.concatenate([jnp.expand_dims(held, 1), played.equity], axis=1),
        sums=jax.tree.map(lambda one, more: jnp.concatenate([jnp.expand_dims(one, 0), more]), sums, played.sums),
    )
    return pool_lanes(with_hold, data)


def rules_of(market: Market) -> tuple[Sides, dict[str, Any]]:
    """The rules to beat, fitted on the training bars: their sides on the validation split, and facts for a manifest.

    Called before anything is compiled, so that a rule of a plugin that fails does so then and not at the end of a run.
    """
    train = market.splits["train"]
    fitted = fit_rules(rule_signals(market.bars, train, fitted_rules()), train)
    sides = rule_sides(rule_signals(market.bars, market.splits["validation"]), fitted)
    return sides, {name: of._asdict() for name, of in fitted.items()}
