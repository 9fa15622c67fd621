"""Who decides in a Pass: a policy, given actions, wished exposures, or a user's orders."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxppo.agent.policy import Agent, Distribution, Params
from jaxppo.config.schema import EnvConfig
from jaxppo.env.account import AccountState, Levels, units_for_exposure
from jaxppo.env.actions import action_mask, asked_exposures
from jaxppo.env.trading import EXPOSURE, EnvSpec, mean_order_units, observe_account, order_units
from jaxppo.market.tape import Costs, MarketStep, Tape
from jaxppo.play.passes import Decider, Moment, Order, Pass, decision_bars, play, symbol_rows

Choose = Callable[[Any, jax.Array, jax.Array], jax.Array]
"""A row of inputs, account vectors (S, L, A) and action masks (S, L, K) to actions (S, L) int32."""
Wish = Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
"""A row of inputs and the units held (L, S) to target exposures (nan for no order), and where to sell at the close."""


class Choice(NamedTuple):
    """The note of a decider that chooses actions."""

    action: jax.Array  # (L, S) int32; (N, L, S) in a Pass
    observation: jax.Array | None  # (L, S, A): the account vector that it was taken on, where it was asked for


def choosing(choose: Choose, inputs: Any, spec: EnvSpec, tape: Tape, *, observed: bool = False) -> Decider:
    """Actions of the environment's table, each a bar of the environment's own step.

    Args:
      choose: see `Choose`.
      inputs: pytree of (N, ...) arrays that `choose` sees a row of at each decision.
      spec, tape: the environment.
      observed: note the account vectors too.
    """
    allow_short = jnp.expand_dims(tape.allow_short, 0)

    def decide(m: Moment) -> Order:
        vector, by_symbol, mask = _look(m, spec, allow_short)
        action = choose(m.row, by_symbol, mask).T
        units = order_units(m.account, action, m.market, m.costs, allow_short, spec)
        return Order(units, note=Choice(action, vector if observed else None))

    return Decider(inputs, decide, spec.config)


def _look(m: Moment, spec: EnvSpec, allow_short: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Account vectors (L, S, A), the same (S, L, A), and action masks (S, L, K); `allow_short` is (1, S)."""
    vector = observe_account(m.account, m.quote, spec.config)
    mask = action_mask(spec.actions, vector[..., EXPOSURE], allow_short)
    return vector, jnp.swapaxes(vector, 0, 1), jnp.swapaxes(mask, 0, 1)


def policy_units(
    account: AccountState,
    policy: Distribution,
    market: MarketStep,
    costs: Costs,
    allow_short: jax.Array,
    spec: EnvSpec,
) -> jax.Array:
    """Signed units that a policy wants after its order at the open, by `act_by`.

    Args:
      account: state at the decision's close, any shape.
      policy: over the actions, shape of the account + (K,).
      market: the bar to come, broadcastable; nothing but its open and the decision's size is looked at.
      costs, allow_short: of the symbol, broadcastable.
      spec: the environment.
    """
    if spec.config.act_by == "mean":
        return mean_order_units(account, jnp.exp(policy.log_probs), market, costs, allow_short, spec)
    return order_units(account, policy.mode(), market, costs, allow_short, spec)


def acting_policy(
    agent: Agent,
    spec: EnvSpec,
    params: Params,
    tape: Tape,
    n_bars: int,
    receptive_field: int,
    *,
    observed: bool = False,
) -> Decider:
    """A policy, or an ensemble by its mean probabilities, as it is judged and used: see `act_by`.

    Its inputs are the encoded market (N, S, H), or (N, S, M, H) of an ensemble of M; the Tape is encoded once. Its note
    has the most probable action, whatever it acts by.
    """
    allow_short, network = jnp.expand_dims(tape.allow_short, 0), agent.network(params)

    def decide(m: Moment) -> Order:
        vector, by_symbol, mask = _look(m, spec, allow_short)
        found, _ = agent.act(network, m.row, by_symbol, mask)
        policy = Distribution(jnp.swapaxes(found.log_probs, 0, 1))  # (L, S, K)
        units = policy_units(m.account, policy, m.market, m.costs, allow_short, spec)
        return Order(units, note=Choice(policy.mode(), vector if observed else None))

    return Decider(_encoded(agent, params, tape, n_bars, receptive_field), decide, spec.config)


def leaning_policy(
    agent: Agent, spec: EnvSpec, params: Params, tape: Tape, n_bars: int, receptive_field: int
) -> Decider:
    """The exposure that a policy asks for on average over its action probabilities, whatever it acts by.

    It shows what a policy leans to that takes one action everywhere. Orders within the rebalancing band are not sent.
    """
    mean = dataclasses.replace(spec, config=dataclasses.replace(spec.config, act_by="mean"))
    return acting_policy(agent, mean, params, tape, n_bars, receptive_field)


def _encoded(agent: Agent, params: Params, tape: Tape, n_bars: int, receptive_field: int) -> jax.Array:
    """The encoded market at each decision, (N, S, H), or (N, S, M, H) of an ensemble."""
    t, _ = decision_bars(tape, n_bars)
    encoded = agent.encode(params, tape.features)  # (S, T - R + 1, H), or (S, T - R + 1, M, H)
    row = jnp.clip(t - (receptive_field - 1), 0, encoded.shape[1] - 1)
    return encoded[symbol_rows(t), row]


def play_policy(
    agent: Agent, spec: EnvSpec, params: Params, tape: Tape, n_bars: int, receptive_field: int, *, keep: bool = True
) -> Pass:
    """`play` a policy as it acts, one account a symbol."""
    return play(acting_policy(agent, spec, params, tape, n_bars, receptive_field), tape, n_bars, keep=keep)


class Stirred(NamedTuple):
    """What L lanes of `stirred_policy` see in place of what there is."""

    market: jax.Array  # (N, S, L, H), or (N, S, L, M, H) of an ensemble: the encoded market
    account: jax.Array  # (N, S, L, A): account vectors of other times


class Moved(NamedTuple):
    """The note of `stirred_policy`: which decisions are not those of its first lane."""

    changed: jax.Array  # (L, S) bool


def stirred_policy(
    agent: Agent, spec: EnvSpec, params: Params, tape: Tape, seen: Stirred, other_account: jax.Array
) -> Decider:
    """A policy on inputs that were tampered with, a lane each; the account it acts on and the action mask stay real.

    A decision counts as changed where another action is the most probable, or, where the policy acts by its mean
    exposure, where that differs by more than the rebalancing band.

    Args:
      agent, spec, params, tape: as of `acting_policy`.
      seen: what is seen instead; its first lane is what there is.
      other_account: (L,) bool, which lanes see the account vectors of `seen` and not their own.
    """
    allow_short, band = jnp.expand_dims(tape.allow_short, 0), spec.config.rebalance_band
    network = agent.network(params)

    def decide(m: Moment) -> Order:
        vector, by_symbol, mask = _look(m, spec, allow_short)
        shown = jnp.where(other_account.reshape(1, -1, 1), m.row.account, by_symbol)
        found, _ = agent.act(network, m.row.market, jnp.expand_dims(shown, -2), jnp.expand_dims(mask, -2))
        policy = Distribution(jnp.swapaxes(found.log_probs[..., 0, :], 0, 1))  # (L, S, K)
        units = policy_units(m.account, policy, m.market, m.costs, allow_short, spec)
        if spec.config.act_by == "mean":
            asked = mean_exposure(policy, spec, vector[..., EXPOSURE], allow_short, m.quote.size)
            changed = jnp.abs(asked - asked[:1]) > band
        else:
            changed = policy.mode() != policy.mode()[:1]
        return Order(units, note=Moved(changed))

    return Decider(seen, decide, spec.config)


def mean_exposure(
    policy: Distribution,
    spec: EnvSpec,
    exposure: jax.Array,
    allow_short: jax.Array,
    size: jax.Array | None = None,
) -> jax.Array:
    """The exposure that the actions ask for on average, in sizes where positions are sized.

    Args:
      policy: over the actions, shape of the exposure + (K,).
      spec: the environment.
      exposure: as observed, so in sizes too.
      allow_short, size: of the symbol and the bar, broadcastable.
    """
    unit = 1.0 if size is None else size
    asked = asked_exposures(spec.actions, exposure * unit, allow_short, spec.config.max_exposure, size)
    return (asked * jnp.exp(jnp.moveaxis(policy.log_probs, -1, 0))).sum(0) / unit


def given_actions(actions: jax.Array, spec: EnvSpec, tape: Tape) -> Decider:
    """Given actions (N, S) int32, whatever the mask says of them."""
    return choosing(lambda action, vector, mask: action, jnp.expand_dims(actions, -1), spec, tape)


def wishing(wish: Wish, inputs: Any, spec: EnvSpec) -> Decider:
    """Exposures that are told, without stops or take-profit; liquidation acts on them. `inputs` as of `choosing`."""

    def decide(m: Moment) -> Order:
        target, close = wish(m.row, m.account.units)
        wanted = units_for_exposure(m.opening, target, m.market.open, m.costs)
        return Order(jnp.where(jnp.isnan(target), m.account.units, wanted), close)

    return Decider(inputs, decide, dataclasses.replace(spec.config, stop_loss=0.0, take_profit=0.0))


class Told(NamedTuple):
    """What a policy said before each of N bars of S symbols, as a journal has it."""

    log_probs: jax.Array  # (N, S, K)
    asked: jax.Array  # (N, S) bool: whether it decided there at all


def told_policy(told: Told, spec: EnvSpec, tape: Tape) -> Decider:
    """What a policy said, acted upon as `acting_policy` does; where nothing was asked the position stays as it is."""
    allow_short = jnp.expand_dims(tape.allow_short, 0)

    def decide(m: Moment) -> Order:
        policy = Distribution(jnp.expand_dims(m.row.log_probs, 0))  # (1, S, K)
        units = policy_units(m.account, policy, m.market, m.costs, allow_short, spec)
        return Order(jnp.where(jnp.expand_dims(m.row.asked, 0), units, m.account.units))

    return Decider(told, decide, spec.config)


class Orders(NamedTuple):
    """What L accounts of S symbols are told before each of N bars; nan where nothing is said."""

    value: jax.Array  # (N, L, S), as `kind` of `ordering` says
    levels: Levels  # (N, L, S), in force from the open at which the order fills


class Sent(NamedTuple):
    """The note of `ordering`: which orders were not sent as given."""

    cut: jax.Array  # (L, S) bool; (N, L, S) in a Pass: cut down to the largest exposure
    dropped: jax.Array  # (L, S) bool: given for an account that was gone


def _ordered_units(m: Moment, value: jax.Array, kind: str) -> jax.Array:
    if kind == "target":
        wanted = units_for_exposure(m.opening, value, m.market.open, m.costs)
    elif kind == "units":
        wanted = value
    else:
        wanted = m.account.units + value
        # Fractions that add up to 0 leave a rounding error: 0.1 + 0.2 - 0.3 is 6e-17, and the trade would stay open.
        rounding = 64 * jnp.finfo(value.dtype).eps * jnp.abs(m.account.units)
        wanted = jnp.where(jnp.abs(wanted) <= rounding, 0.0, wanted)
    return jnp.where(jnp.isnan(value), m.account.units, wanted)


def _within_exposure(m: Moment, wanted: jax.Array, most: float) -> tuple[jax.Array, jax.Array]:
    """`wanted`, or as much of it as the largest exposure allows, and whether that is less. Reductions are never cut."""
    if math.isinf(most):
        return wanted, jnp.zeros(wanted.shape, bool)
    limit = jnp.full_like(wanted, most)
    long = jnp.maximum(units_for_exposure(m.opening, limit, m.market.open, m.costs), m.account.units)
    short = jnp.minimum(units_for_exposure(m.opening, -limit, m.market.open, m.costs), m.account.units)
    allowed = jnp.clip(wanted, short, long)
    # A target that is the limit itself may differ from it by rounding.
    return allowed, jnp.abs(wanted - allowed) > 64 * jnp.finfo(wanted.dtype).eps * jnp.abs(wanted)


def ordering(orders: Orders, kind: str, env: EnvConfig) -> Decider:
    """A user's orders, with stop and take-profit prices of their own.

    Args:
      orders: row i fills at the open of bar `first + i + 1`.
      kind: what a value means: "target" exposure after costs, signed "units" to hold, or signed "order_units" to trade.
      env: ruin level, take-profit gap and `max_exposure`, to which orders are cut down; inf for any. Its stop-loss and
        take-profit distances are not used.
    """

    def decide(m: Moment) -> Order:
        wanted, cut = _within_exposure(m, _ordered_units(m, m.row.value, kind), env.max_exposure)
        sent = Sent(cut & ~m.gone, m.gone & ~jnp.isnan(m.row.value))
        return Order(wanted, levels=m.row.levels, note=sent)

    return Decider(orders, decide, dataclasses.replace(env, stop_loss=0.0, take_profit=0.0))
