"""Who decides in a Pass: the argmax of a policy, given actions, or wished exposures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxppo.agent.policy import Agent, Params, distribution
from jaxppo.env.account import units_for_exposure
from jaxppo.env.actions import action_mask
from jaxppo.env.trading import EXPOSURE, EnvSpec, observe_account, order_units
from jaxppo.market.tape import Tape
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
        vector = observe_account(m.account, m.close, spec.config)
        mask = action_mask(spec.actions, vector[..., EXPOSURE], allow_short)
        action = choose(m.row, jnp.swapaxes(vector, 0, 1), jnp.swapaxes(mask, 0, 1)).T
        units = order_units(m.account, action, m.market.open, m.costs, allow_short, spec)
        return Order(units, note=Choice(action, vector if observed else None))

    return Decider(inputs, decide, spec.config)


def argmax_policy(
    agent: Agent,
    spec: EnvSpec,
    params: Params,
    tape: Tape,
    n_bars: int,
    receptive_field: int,
    *,
    observed: bool = False,
) -> Decider:
    """The most probable action of a policy. Its inputs are the encoded market (N, S, H); the Tape is encoded once."""
    t, _ = decision_bars(tape, n_bars)
    encoded = agent.encode(params, tape.features)  # (S, T - R + 1, H)
    row = jnp.clip(t - (receptive_field - 1), 0, encoded.shape[1] - 1)

    def choose(encoded: jax.Array, vector: jax.Array, mask: jax.Array) -> jax.Array:
        logits, _ = agent.decide(params, encoded, vector)
        return distribution(logits, mask).mode()

    return choosing(choose, encoded[symbol_rows(t), row], spec, tape, observed=observed)


def play_policy(
    agent: Agent, spec: EnvSpec, params: Params, tape: Tape, n_bars: int, receptive_field: int, *, keep: bool = True
) -> Pass:
    """`play` the argmax policy, one account a symbol."""
    return play(argmax_policy(agent, spec, params, tape, n_bars, receptive_field), tape, n_bars, keep=keep)


def given_actions(actions: jax.Array, spec: EnvSpec, tape: Tape) -> Decider:
    """Given actions (N, S) int32, whatever the mask says of them."""
    return choosing(lambda action, vector, mask: action, jnp.expand_dims(actions, -1), spec, tape)


def wishing(wish: Wish, inputs: Any, spec: EnvSpec) -> Decider:
    """Exposures that are told, without stops or take-profit; liquidation acts on them. `inputs` as of `choosing`."""

    def decide(m: Moment) -> Order:
        target, close = wish(m.row, m.account.units)
        wanted = units_for_exposure(m.account, target, m.market.open, m.costs)
        return Order(jnp.where(jnp.isnan(target), m.account.units, wanted), close)

    return Decider(inputs, decide, dataclasses.replace(spec.config, stop_loss=0.0, take_profit=0.0))
