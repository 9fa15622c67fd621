"""Play a policy over a whole split, every symbol at once, and measure it from the ledger. Runs inside the program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxppo.agent.policy import Agent, Params, distribution
from jaxppo.env.account import AccountState, StepRecord, close_out, open_account, settle, units_for_exposure
from jaxppo.env.actions import action_mask
from jaxppo.env.trading import EXPOSURE, EnvSpec, observe_account, trade_bar
from jaxppo.market.dataset import EvaluationSet
from jaxppo.market.tape import Costs, MarketStep, Tape, consecutive_bars, take_steps
from jaxppo.play.baselines import buy_and_hold
from jaxppo.play.metrics import Metrics, TradeSums, summarize


class Ledger(NamedTuple):
    """The recorded decisions of one pass: N decisions x S symbols, padded at the end."""

    record: StepRecord  # (N, S); after a symbol's last bar its record repeats a flat, unchanged account
    action: jax.Array  # (N, S) int32
    valid: jax.Array  # (N, S) bool
    benchmark: jax.Array  # (N, S) buy-and-hold equity
    pooled_equity: jax.Array  # (U,)
    pooled_benchmark: jax.Array  # (U,)


class Validation(NamedTuple):
    """Figures of one pass."""

    symbols: Metrics  # (S,)
    pooled: Metrics  # ()
    symbol_action_share: jax.Array  # (S, K)
    action_share: jax.Array  # (K,)
    symbol_buy_and_hold: jax.Array  # (S,) net return
    buy_and_hold: jax.Array  # () net return
    ruined: jax.Array  # () int32: symbols whose account was ruined


Chooser = Callable[[Any, jax.Array, jax.Array], jax.Array]
Wisher = Callable[[Any, jax.Array], "Wish"]


class _Carry(NamedTuple):
    # Lanes first: with the two lanes of a cost sweep last, no loop over accounts is vectorised and a bar of 100 symbols
    # takes three times as long on a CPU.
    account: AccountState  # (L, S)
    ruined: jax.Array  # (L, S) bool


def n_decisions(tape: Tape) -> int:
    """Static bound on the decisions of any symbol of an evaluation tape; needs concrete `first` and `length`."""
    return int(jnp.max(tape.length - 1 - tape.first))


def decision_bars(tape: Tape, n_bars: int) -> tuple[jax.Array, jax.Array]:
    """Decision bars of every symbol (N, S) int32, the last one repeated, and which are its own (N, S) bool."""
    last = jnp.expand_dims(tape.length - 2, 0)
    t = consecutive_bars(tape.first, n_bars)
    return jnp.minimum(t, last), t <= last


def _symbols(tape: Tape, t: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(tape.n_symbols, dtype=jnp.int32), t.shape)


class Wish(NamedTuple):
    """What an account does on a bar, whatever its policy."""

    target: jax.Array  # exposure ordered at the open; nan for no order
    close: jax.Array  # bool: sell what is held at the close


class _Decision(NamedTuple):
    action: jax.Array  # (L, S) int32
    vector: jax.Array  # (L, S, A): the account vector that it was taken on


# The last of each is a `_Decision`, or None where nothing was chosen.
_Act = Callable[[Any, _Carry, MarketStep, jax.Array, jax.Array], tuple[AccountState, StepRecord, Any]]
_Scan = tuple[Callable[[_Carry, tuple], tuple[_Carry, tuple[StepRecord, Any]]], _Carry, tuple]


def _choosing(choose: Chooser, spec: EnvSpec, tape: Tape, costs: Costs) -> _Act:
    """A policy's bar: the environment's own step."""
    allow_short = jnp.expand_dims(tape.allow_short, 0)

    def act(
        given: Any, carry: _Carry, step: MarketStep, close: jax.Array, last: jax.Array
    ) -> tuple[AccountState, StepRecord, _Decision]:
        vector = observe_account(carry.account, close, spec.config)
        mask = action_mask(spec.actions, vector[..., EXPOSURE], allow_short)
        action = choose(given, jnp.swapaxes(vector, 0, 1), jnp.swapaxes(mask, 0, 1)).T
        account, record = trade_bar(carry.account, action, step, costs, allow_short, spec, carry.ruined)
        return *close_out(account, record, step.close, costs, last), _Decision(action, vector)

    return act


def _wishing(wish: Wisher, spec: EnvSpec, costs: Costs) -> _Act:
    """The bar of an account that is told its exposure; neither stops nor take-profit act on it, liquidation does."""
    env = dataclasses.replace(spec.config, stop_loss=0.0, take_profit=0.0)
    ruin = jnp.asarray(env.ruin_level, costs.fee.dtype)

    def act(
        given: Any, carry: _Carry, step: MarketStep, close: jax.Array, last: jax.Array
    ) -> tuple[AccountState, StepRecord, None]:
        account = carry.account
        wanted = wish(given, account.units)
        units = jnp.where(
            jnp.isnan(wanted.target), account.units, units_for_exposure(account, wanted.target, step.open, costs)
        )
        after, record = settle(account, units, step, costs, ruin, env, carry.ruined)
        after, record = close_out(after, record, step.close, costs, wanted.close | last)
        return after, record, None

    return act


def _player(act: _Act, inputs: Any, tape: Tape, n_bars: int, costs: Costs) -> _Scan:
    """One decision and its bar as the body of a scan, the carry to begin with, and the rows to scan over.

    `costs` are (L, S): L accounts a symbol.
    """
    t, valid = decision_bars(tape, n_bars)
    symbol = _symbols(tape, t)
    steps = jax.tree.map(lambda x: jnp.expand_dims(x, 1), take_steps(tape, symbol, t))
    closes = jnp.expand_dims(tape.close[symbol, t], 1)
    at_end = jnp.expand_dims(t == jnp.expand_dims(tape.length - 2, 0), 1)

    def decide(carry: _Carry, x: tuple) -> tuple[_Carry, tuple[StepRecord, Any]]:
        given, step, close, ok, last = x
        account, record, decision = act(given, carry, step, close, last)
        idle = jax.tree.map(jnp.zeros_like, record)._replace(equity=carry.account.equity)
        record = jax.tree.map(lambda new, old: jnp.where(ok, new, old), record, idle)
        account = jax.tree.map(lambda new, old: jnp.where(ok, new, old), account, carry.account)
        return _Carry(account, carry.ruined | record.ruined), (record, decision)

    start = open_account(jnp.ones(costs.fee.shape, tape.close.dtype))
    xs = (inputs, steps, closes, jnp.expand_dims(valid, 1), at_end)
    return decide, _Carry(start, jnp.zeros(costs.fee.shape, bool)), xs


def play(
    choose: Chooser, inputs: Any, spec: EnvSpec, tape: Tape, n_bars: int
) -> tuple[StepRecord, jax.Array, jax.Array]:
    """Decide from the first to the last bar of every symbol, one account of 1.0 each.

    What is open at a symbol's last close is sold there, at cost. A ruined account is closed out and stays ruined.

    Args:
      choose: (slice of `inputs`, account vectors (S, 1, A), action mask (S, 1, K)) to actions (S, 1) int32.
      inputs: pytree of (N, ...) arrays that `choose` sees a row of at each decision.
      spec, tape: the environment.
      n_bars: N, at least the decisions of any symbol.

    Returns:
      record (N, S), action (N, S) int32, valid (N, S) bool.
    """
    record, action, valid, _ = play_observed(choose, inputs, spec, tape, n_bars)
    return record, action, valid


def play_observed(
    choose: Chooser, inputs: Any, spec: EnvSpec, tape: Tape, n_bars: int
) -> tuple[StepRecord, jax.Array, jax.Array, jax.Array]:
    """`play`, and the account vectors (N, S, A) that the decisions were taken on; XLA drops them where unused."""
    costs = jax.tree.map(lambda c: jnp.expand_dims(c, 0), tape.costs)
    decide, start, xs = _player(_choosing(choose, spec, tape, costs), inputs, tape, n_bars, costs)
    _, (record, decision) = jax.lax.scan(decide, start, xs)
    _, valid = decision_bars(tape, n_bars)
    return jax.tree.map(lambda x: x[:, 0], record), decision.action[:, 0], valid, decision.vector[:, 0]


def play_lanes(
    choose: Chooser, inputs: Any, spec: EnvSpec, tape: Tape, n_bars: int, costs: Costs
) -> tuple[jax.Array, TradeSums]:
    """`play` L accounts a symbol side by side, and keep of them what figures need.

    Recording whole bars of 21 accounts of 100 symbols over 20,000 bars would take 3 GB; their equity takes 170 MB.

    Args:
      choose: as of `play`, with L in place of 1.
      inputs, spec, tape, n_bars: as of `play`.
      costs: (L, S).

    Returns:
      equity (N, L, S), and the sums of the trades (L, S).
    """
    return _sum_lanes(_player(_choosing(choose, spec, tape, costs), inputs, tape, n_bars, costs), tape, costs)


def play_wishes(
    wish: Wisher, inputs: Any, spec: EnvSpec, tape: Tape, n_bars: int, costs: Costs
) -> tuple[jax.Array, TradeSums]:
    """`play_lanes` of accounts that are told their exposure, without stops: `wish` sees its inputs and units (L, S)."""
    return _sum_lanes(_player(_wishing(wish, spec, costs), inputs, tape, n_bars, costs), tape, costs)


def _sum_lanes(scan: _Scan, tape: Tape, costs: Costs) -> tuple[jax.Array, TradeSums]:
    decide, start, xs = scan

    def step(carry: tuple[_Carry, TradeSums], x: tuple) -> tuple[tuple[_Carry, TradeSums], jax.Array]:
        (before, sums), (_, market, _, ok, _) = carry, x
        after, (record, _) = decide(before, x)
        bar = bar_sums(record, before.account.equity, market.close, ok)
        return (after, jax.tree.map(jnp.add, sums, bar)), record.equity

    zero, none = jnp.zeros_like(start.account.equity), jnp.zeros(costs.fee.shape, jnp.int32)
    (_, sums), equity = jax.lax.scan(step, (start, TradeSums(zero, zero, none, none, zero, zero)), xs)
    bars = jnp.maximum(tape.length - 1 - tape.first, 1).astype(zero.dtype).reshape(1, -1)
    return equity, sums._replace(turnover=sums.turnover / bars, exposure=sums.exposure / bars)


def policy_chooser(
    agent: Agent, params: Params, tape: Tape, n_bars: int, receptive_field: int
) -> tuple[Chooser, jax.Array]:
    """The argmax policy and the encoded market (N, S, H) that it reads. The whole tape is encoded once."""
    t, _ = decision_bars(tape, n_bars)
    encoded = agent.encode(params, tape.features)  # (S, T - R + 1, H)
    row = jnp.clip(t - (receptive_field - 1), 0, encoded.shape[1] - 1)

    def choose(encoded: jax.Array, vector: jax.Array, mask: jax.Array) -> jax.Array:
        logits, _ = agent.decide(params, encoded, vector)
        return distribution(logits, mask).mode()

    return choose, encoded[_symbols(tape, t), row]


def play_policy(
    agent: Agent, spec: EnvSpec, params: Params, tape: Tape, n_bars: int, receptive_field: int
) -> tuple[StepRecord, jax.Array, jax.Array]:
    """`play` the argmax policy."""
    choose, market = policy_chooser(agent, params, tape, n_bars, receptive_field)
    return play(choose, market, spec, tape, n_bars)


def play_actions(actions: jax.Array, spec: EnvSpec, tape: Tape, n_bars: int) -> tuple[StepRecord, jax.Array, jax.Array]:
    """`play` given actions (N, S) int32, whatever the mask says of them."""
    return play(lambda action, vector, mask: action, jnp.expand_dims(actions, -1), spec, tape, n_bars)


def bar_sums(record: StepRecord, before: jax.Array, close: jax.Array, valid: jax.Array) -> TradeSums:
    """What each bar adds to the sums of its account; `before` is the equity at the last close."""
    # At the close: the exposure right after the order would count bars that a stop cut short.
    held = jnp.abs(record.units) * close / jnp.maximum(record.equity, 1e-6)
    return TradeSums(
        gains=record.gain,
        losses=record.loss,
        trades=record.closed,
        wins=record.wins,
        turnover=jnp.where(valid, record.traded / jnp.maximum(before, 1e-6), 0.0),
        exposure=jnp.where(valid, held, 0.0),
    )


def trade_sums(record: StepRecord, close: jax.Array, valid: jax.Array) -> TradeSums:
    """Sums over bars: (N, S) to (S,)."""
    before = jnp.concatenate([jnp.ones_like(record.equity[:1]), record.equity[:-1]])
    sums = jax.tree.map(lambda x: x.sum(0), bar_sums(record, before, close, valid))
    bars = jnp.maximum(valid.astype(record.equity.dtype).sum(0), 1.0)
    return sums._replace(turnover=sums.turnover / bars, exposure=sums.exposure / bars)


def pool_equity(data: EvaluationSet, equity: jax.Array) -> jax.Array:
    """Mean equity of accounts that start at 1 each and are never rebalanced: (N, S) to (U,) on the joint calendar."""
    with_start = jnp.concatenate([jnp.ones_like(equity[:1]), equity]).T  # (S, N + 1)
    return jnp.take_along_axis(with_start, data.pool_index, axis=1).mean(0)


def decision_weight(tape: Tape) -> jax.Array:
    """Share of each symbol in all decisions, (S,) float."""
    decisions = (tape.length - 1 - tape.first).astype(tape.close.dtype)
    return decisions / decisions.sum()


def pooled_sums(tape: Tape, sums: TradeSums, bars_per_year: jax.Array) -> TradeSums:
    """Sums () of a pool: the trades of all accounts, (S,); turnover and exposure are weighted by decisions."""
    weight = decision_weight(tape)
    return TradeSums(
        sums.gains.sum(),
        sums.losses.sum(),
        sums.trades.sum(),
        sums.wins.sum(),
        (sums.turnover * tape.bars_per_year * weight).sum() / bars_per_year,
        (sums.exposure * weight).sum(),
    )


def pooled_metrics(data: EvaluationSet, equity: jax.Array, sums: TradeSums) -> Metrics:
    """Figures of a pooled curve (U,), with the trades of all symbols' accounts, whose sums are (S,)."""
    per_year = data.pool_bars_per_year
    total, always = pooled_sums(data.tape, sums, per_year), jnp.ones_like(equity, bool)
    return summarize(equity, jnp.ones((), equity.dtype), always, per_year, total)


def measure(
    data: EvaluationSet, record: StepRecord, action: jax.Array, valid: jax.Array, n_actions: int
) -> tuple[Validation, Ledger]:
    """All figures of a recorded pass, per symbol and pooled.

    The pooled curve is the mean of one account a symbol, each started with the same money and never rebalanced; its
    trades are those of all accounts.
    """
    tape = data.tape
    t, _ = decision_bars(tape, valid.shape[0])
    symbol = _symbols(tape, t)
    close = tape.close[symbol, t + 1]
    sums = trade_sums(record, close, valid)
    ones = jnp.ones(tape.n_symbols, record.equity.dtype)
    symbols = summarize(record.equity.T, ones, valid.T, tape.bars_per_year, sums)

    benchmark = buy_and_hold(tape.open[symbol, t + 1], close, valid, tape.costs)
    equity = pool_equity(data, record.equity)
    pooled_benchmark = pool_equity(data, benchmark)

    weight = decision_weight(tape)
    pooled = pooled_metrics(data, equity, sums)
    taken = jax.nn.one_hot(action, n_actions, dtype=equity.dtype) * jnp.expand_dims(valid.astype(equity.dtype), -1)
    share = taken.sum(0) / jnp.maximum(valid.sum(0).astype(equity.dtype), 1.0).reshape(-1, 1)
    validation = Validation(
        symbols=symbols,
        pooled=pooled,
        symbol_action_share=share,
        action_share=(share * weight.reshape(-1, 1)).sum(0),
        symbol_buy_and_hold=benchmark[-1] - 1.0,
        buy_and_hold=pooled_benchmark[-1] - 1.0,
        ruined=record.ruined.any(0).astype(jnp.int32).sum(),
    )
    return validation, Ledger(record, action, valid, benchmark, equity, pooled_benchmark)


def validate(
    agent: Agent, spec: EnvSpec, params: Params, data: EvaluationSet, n_bars: int, receptive_field: int
) -> tuple[Validation, Ledger]:
    """Play the argmax policy over an evaluation set and measure it."""
    record, action, valid = play_policy(agent, spec, params, data.tape, n_bars, receptive_field)
    return measure(data, record, action, valid, spec.actions.n_actions)
