"""The trading environment, one account a symbol: the trainer's lanes, and a pure `reset` and `step` over a Tape."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int32

from jaxppo.config.rewards import RewardPreset
from jaxppo.config.schema import EnvConfig, RewardConfig
from jaxppo.env.account import (
    AccountState,
    StepRecord,
    broken_accounts,
    ex_dividend,
    exposure_at,
    open_account,
    settle,
    units_for_exposure,
)
from jaxppo.env.actions import ActionTable, action_mask, action_table, asked_exposures, target_exposure
from jaxppo.env.protocol import Ratio, StepResult, choose_lanes, finite_lanes
from jaxppo.env.rewards import (
    REWARD_COMPONENTS,
    Outcome,
    begin_memory,
    move_memory,
    reward_components,
    reward_preset,
    total_reward,
)
from jaxppo.market.tape import Costs, MarketStep, Quote, Tape, Terms, draw_starts, take_quotes, take_steps, take_terms

ACCOUNT_FEATURES = (
    "total_return",
    "win_rate",
    "drawdown",
    "exposure",
    "unrealised_return",
    "bars_held",
    "stop_distance",
    "take_profit_distance",
)
EXPOSURE = ACCOUNT_FEATURES.index("exposure")
_BARS_HELD_SCALE = math.log1p(256)  # one day in a position is 0.58 on hourly bars, ten days 1


class Lanes(NamedTuple):
    """What a lane is between two bars: an account, and what its reward remembers of it."""

    account: AccountState
    memory: dict[str, Any]  # by reward component; empty where none has a memory


@dataclass(frozen=True)
class EnvSpec:
    """The trading environment but for its market: an `Env` (see `jaxppo.env.protocol`). Build with `env_spec`."""

    config: EnvConfig
    actions: ActionTable
    reward: RewardPreset

    @property
    def n_observation(self) -> int:
        return len(ACCOUNT_FEATURES)

    @property
    def action_labels(self) -> tuple[str, ...]:
        return self.actions.labels

    def begin(self, shape: tuple[int, ...], dtype: Any = float) -> Lanes:
        """Fresh accounts of 1.0."""
        start = jnp.ones(shape, dtype)
        return Lanes(open_account(start), begin_memory(self.reward, start))

    def observe(self, state: Lanes, quote: Quote) -> jax.Array:
        """The account vectors, `ACCOUNT_FEATURES` last."""
        return observe_account(state.account, quote, self.config)

    def mask(self, observation: jax.Array, terms: Terms) -> jax.Array:
        """Valid actions, from the exposure in the observation."""
        exposure, allowed = observation[..., EXPOSURE], terms.allow_short
        return action_mask(self.actions, exposure, jnp.expand_dims(allowed, tuple(range(exposure.ndim - allowed.ndim))))

    @jax.named_scope("account")
    def step(
        self,
        state: Lanes,
        action: jax.Array,
        market: MarketStep,
        terms: Terms,
        entropy: jax.Array | float = 0.0,
    ) -> tuple[Lanes, StepResult]:
        """`trade_bar`, and what it is rewarded with. Only the `exploration` component looks at the entropy.

        The result's record is a `StepRecord`; an episode terminates by ruin only.
        """
        chex.assert_type(action, int)
        chex.assert_equal_shape([action, state.account.equity])
        account, record = trade_bar(state.account, action, market, terms.costs, terms.allow_short, self)
        outcome = Outcome(state.account, account, record, market, jnp.asarray(entropy))
        components = reward_components(outcome, self.reward, state.memory)
        after = Lanes(account, move_memory(state.memory, outcome))
        return after, StepResult(total_reward(components, self.reward), record.ruined, components, record)

    def restart(self, state: Lanes, where: jax.Array) -> Lanes:
        """Fresh accounts of 1.0 where `where`; with the account, its memory begins anew."""
        equity = state.account.equity
        return choose_lanes(where, self.begin(equity.shape, equity.dtype), state)

    def sound(self, state: Lanes) -> jax.Array:
        """Every number of the account and of its rewards' memory is finite."""
        return ~broken_accounts(state.account) & finite_lanes(state.memory, state.account.equity)

    def metrics(self, result: StepResult) -> dict[str, jax.Array | Ratio]:
        """Rates of orders and ruins; mean, share and saturation of every reward component."""
        rates: dict[str, jax.Array | Ratio] = {
            "train_trade_rate": result.record.order_units != 0,
            "train_ruin_rate": result.record.ruined,
        }
        weighted = {n: jnp.abs(self.reward.weights[n] * c) for n, c in result.components.items()}
        total = sum(weighted.values(), start=jnp.zeros(()))
        for name, component in result.components.items():
            bound = REWARD_COMPONENTS[name].bound(self.reward)
            rates[f"reward_{name}_mean"] = component
            rates[f"reward_{name}_share"] = Ratio(weighted[name], total)
            full = jnp.abs(component) >= 0.99 * bound
            rates[f"reward_{name}_saturation"] = full if math.isfinite(bound) else jnp.zeros(())
        return rates


def env_spec(env: EnvConfig, reward: RewardConfig) -> EnvSpec:
    """Check the configuration and resolve its action table and reward preset."""
    return EnvSpec(env, action_table(env), reward_preset(reward))


class Observation(NamedTuple):
    """A pointer into the Tape plus the account vector; the market features are the encoder's to look up."""

    symbol: Int32[jax.Array, "*lanes"]
    t: Int32[jax.Array, "*lanes"]
    account: Float[jax.Array, "*lanes A"]  # one of ACCOUNT_FEATURES each


class EnvState(NamedTuple):
    """One environment: where it is on the Tape and what it owns."""

    symbol: Int32[jax.Array, "*lanes"]
    t: Int32[jax.Array, "*lanes"]  # decision bar
    age: Int32[jax.Array, "*lanes"]  # bars since reset
    account: AccountState
    memory: dict[str, Any]  # of the reward components that have one


@jax.named_scope("account")
def observe_account(account: AccountState, quote: Quote, config: EnvConfig) -> jax.Array:
    """The account vector, the same function in training, backtest and live use. Free of price units.

    Args:
      account: state at the close, any shape.
      quote: the close, at which the account is marked, and the size of a position, broadcastable.
      config: the environment settings.

    Returns:
      Shape of the account + (8,): tanh(10 total return), win rate (0.5 before the first closed trade), drawdown in
      [0, 1], exposure, tanh(10 unrealised return), log-scaled bars in position, and the distances from the close to the
      stop and the take-profit as multiples of the configured distances (1 and 1 at entry, 0 when touched or flat).
      Where positions are sized, the exposure is in sizes and the unrealised return times the size, so that both mean
      the same for a symbol of any volatility.
    """
    equity, (close, size) = account.equity, quote
    held = account.units != 0
    side = jnp.sign(account.units)
    trades = account.trades.astype(equity.dtype)
    win_rate = jnp.where(trades > 0, account.wins.astype(equity.dtype) / jnp.maximum(trades, 1.0), 0.5)
    entry = jnp.where(held, account.average_cost, 1.0)
    unrealised = jnp.where(held, side * (close / entry - 1.0), 0.0)
    exposure = exposure_at(account, close)
    if size is not None:
        exposure, unrealised = exposure / size, unrealised * size

    def distance(level: jax.Array, width: float) -> jax.Array:
        if width == 0:
            return jnp.zeros_like(equity)
        return jnp.where(held, jnp.clip(jnp.abs(close - level) / (entry * width), 0.0, 4.0), 0.0)

    return jnp.stack(
        [
            jnp.tanh(10.0 * (equity - 1.0)),
            win_rate,
            jnp.clip(1.0 - equity / account.peak, 0.0, 1.0),
            exposure,
            jnp.tanh(10.0 * unrealised),
            jnp.log1p(account.bars_held.astype(equity.dtype)) / _BARS_HELD_SCALE,
            distance(account.stop, config.stop_loss),
            distance(account.take_profit, config.take_profit),
        ],
        axis=-1,
    )


def rebalance_band(config: EnvConfig, size: jax.Array | None) -> jax.Array | float:
    """How far the exposure may be from what is wanted before it is worth an order: of the equity, or of the size."""
    return config.rebalance_band if size is None else config.rebalance_band * size


def order_units(
    account: AccountState,
    action: jax.Array,
    market: MarketStep,
    costs: Costs,
    allow_short: jax.Array,
    spec: EnvSpec,
) -> jax.Array:
    """Signed units wanted after the order of `action` at the open; those held where it orders nothing.

    Arguments as of `trade_bar`.
    """
    config, price, size = spec.config, market.open, market.size
    account = ex_dividend(account, market)
    exposure = exposure_at(account, price)
    target, keep = target_exposure(spec.actions, action, exposure, allow_short, config.max_exposure, size)
    # Same-side orders within the band are not worth their fee; exits and flips always go out.
    within = (target * exposure > 0) & (jnp.abs(target - exposure) < rebalance_band(config, size))
    return jnp.where(keep | within, account.units, units_for_exposure(account, target, price, costs))


def mean_order_units(
    account: AccountState,
    chances: jax.Array,
    market: MarketStep,
    costs: Costs,
    allow_short: jax.Array,
    spec: EnvSpec,
) -> jax.Array:
    """Signed units wanted for the exposure that the actions ask for on average; those held within the band of it.

    Args:
      account: state at the decision's close, any shape.
      chances: shape of the account + (K,), the probability of each action.
      market, costs, allow_short, spec: as of `trade_bar`.
    """
    config, price, size = spec.config, market.open, market.size
    account = ex_dividend(account, market)
    exposure = exposure_at(account, price)
    asked = asked_exposures(spec.actions, exposure, allow_short, config.max_exposure, size)
    wanted = (asked * jnp.moveaxis(chances, -1, 0)).sum(0)
    within = jnp.abs(wanted - exposure) < rebalance_band(config, size)
    return jnp.where(within, account.units, units_for_exposure(account, wanted, price, costs))


@jax.named_scope("account")
def trade_bar(
    account: AccountState,
    action: jax.Array,
    market: MarketStep,
    costs: Costs,
    allow_short: jax.Array,
    spec: EnvSpec,
    ruined: jax.Array | bool = False,
) -> tuple[AccountState, StepRecord]:
    """One bar of one account, or of any batch of them: order, fill, exits, mark.

    Args:
      account: state at the decision's close.
      action: int32, same shape.
      market: the step's market, broadcastable with the account.
      costs, allow_short: of the symbol, broadcastable.
      spec: static description.
      ruined: bool, of an account that was ruined before and stays so: it is closed out and trades no more.

    Returns:
      The account at the next close, and the record of the bar.
    """
    units = order_units(account, action, market, costs, allow_short, spec)
    ruin = jnp.asarray(spec.config.ruin_level, account.equity.dtype)
    return settle(account, units, market, costs, ruin, spec.config, ruined)


def reset(tape: Tape, spec: EnvSpec, key: jax.Array) -> tuple[EnvState, Observation]:
    """A fresh account at a bar drawn uniformly over all that can start a step."""
    symbol, t = draw_starts(tape, key, 1, 1)
    state = EnvState(symbol[0], t[0], jnp.zeros((), jnp.int32), *spec.begin((), tape.close.dtype))
    return state, observe(tape, spec, state)


def observe(tape: Tape, spec: EnvSpec, state: EnvState) -> Observation:
    """What the agent sees at the close of bar `state.t`."""
    account = observe_account(state.account, take_quotes(tape, state.symbol, state.t), spec.config)
    return Observation(state.symbol, state.t, account)


def valid_actions(tape: Tape, spec: EnvSpec, observation: Observation) -> jax.Array:
    """(K,) bool action mask of an observation."""
    return spec.mask(observation.account, take_terms(tape, observation.symbol))


def step(
    tape: Tape, spec: EnvSpec, state: EnvState, action: jax.Array
) -> tuple[EnvState, Observation, StepResult, jax.Array, jax.Array]:
    """One step of one environment; vmap it over states and actions.

    There is no policy here, so the entropy is 0 and with it the `exploration` component of the reward.

    Returns:
      state, observation, result, terminated (ruin only) and truncated (episode length reached, or the next bar has no
      bar after it). There is no auto-reset: the returned observation is always that of this episode.
    """
    symbol, t = state.symbol, state.t
    lane = Lanes(state.account, state.memory)
    lane, result = spec.step(lane, action, take_steps(tape, symbol, t), take_terms(tape, symbol))
    after = EnvState(symbol, t + 1, state.age + 1, *lane)
    terminated = result.terminated
    at_end = (after.age >= spec.config.episode_steps) | (after.t >= tape.length[symbol] - 1)
    return after, observe(tape, spec, after), result, terminated, at_end & ~terminated


class BoundEnv(NamedTuple):
    """An environment bound to its market, for use outside the trainer; `vmap` and `jit` its functions."""

    reset: Callable[[jax.Array], tuple[EnvState, Observation]]  # of a key
    step: Callable[[EnvState, jax.Array], tuple[EnvState, Observation, StepResult, jax.Array, jax.Array]]
    valid_actions: Callable[[Observation], jax.Array]


def make_env(tape: Tape, env: EnvConfig, reward: RewardConfig) -> BoundEnv:
    """`reset`, `step` and `valid_actions` with their market and settings bound."""
    spec = env_spec(env, reward)
    return BoundEnv(partial(reset, tape, spec), partial(step, tape, spec), partial(valid_actions, tape, spec))
