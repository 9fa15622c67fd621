"""N accounts of the trading environment, stepped from the host: one compiled call a step for all of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Key

from jaxppo.agent.encoders import receptive_field
from jaxppo.api import make_config
from jaxppo.config.schema import Config
from jaxppo.env.protocol import choose_lanes
from jaxppo.env.rewards import REWARD_COMPONENTS
from jaxppo.env.trading import (
    ACCOUNT_FEATURES,
    EnvSpec,
    EnvState,
    Observation,
    env_spec,
    observe,
    reset,
    step,
    valid_actions,
)
from jaxppo.errors import ConfigError, nearest
from jaxppo.market.dataset import Market, build_market
from jaxppo.market.source import load_market_bars
from jaxppo.market.tape import Tape, take_windows

# Every observation is finite, but not all have a bound: near ruin a leveraged account's exposure has none. Bounds read
# from the data would make a policy of one split unfit for another in Stable-Baselines3, which compares spaces.
_MOST = float(np.finfo(np.float32).max)


class Accounts(NamedTuple):
    """Accounts between two bars, and the keys that their next episodes are drawn with; () or (N,)."""

    key: Key[jax.Array, "*accounts"]
    state: EnvState


class Seen(NamedTuple):
    """What the host sees of N accounts."""

    observation: Float[jax.Array, "N D"]
    mask: Bool[jax.Array, "N K"]
    state: EnvState  # (N,)


def flat_observation(tape: Tape, seen: Observation, window: int) -> jax.Array:
    """(N, window * F + A): the features of the last `window` bars, oldest first, then the account vector."""
    bars = take_windows(tape, seen.symbol, seen.t - (window - 1), window)
    return jnp.concatenate([bars.reshape(bars.shape[0], -1), seen.account], axis=-1)


class Programs:
    """The compiled functions of an environment and a window; the Tape is an argument.

    The step is compiled by itself, of one account as of N: XLA rounds sums of products otherwise in a program that also
    builds observations (fused multiply-add), and the bits of the ledger are to be those of `jaxppo.make_env`.
    """

    def __init__(self, spec: EnvSpec, window: int):
        def begin_one(tape: Tape, key: jax.Array) -> Accounts:
            """A fresh episode."""
            key, draw = jax.random.split(key)
            return Accounts(key, reset(tape, spec, draw)[0])

        def step_one(tape: Tape, state: EnvState, action: jax.Array) -> Any:
            """One bar: the pure environment's own step."""
            return step(tape, spec, state, action)

        def see(tape: Tape, state: EnvState) -> Seen:
            """Observation, mask and state of N accounts."""
            seen = jax.vmap(lambda s: observe(tape, spec, s))(state)
            return Seen(flat_observation(tape, seen, window), valid_actions(tape, spec, seen), state)

        def see_one(tape: Tape, state: EnvState) -> Seen:
            """The same of one account, N = 1."""
            return see(tape, jax.tree.map(lambda x: jnp.expand_dims(x, 0), state))

        def renew(
            tape: Tape, accounts: Accounts, terminated: jax.Array, truncated: jax.Array
        ) -> tuple[Accounts, Seen, Seen]:
            """Begin anew where an episode ended; with what is seen at its end, and of what goes on or begins."""
            last = see(tape, accounts.state)
            fresh = jax.vmap(lambda key: begin_one(tape, key))(accounts.key)
            accounts = choose_lanes(terminated | truncated, fresh, accounts)
            return accounts, last, see(tape, accounts.state)

        self.begin_one, self.step_one, self.see_one = jax.jit(begin_one), jax.jit(step_one), jax.jit(see_one)
        self.begin = jax.jit(jax.vmap(begin_one, in_axes=(None, 0)))
        self.step = jax.jit(jax.vmap(step_one, in_axes=(None, 0, 0)))
        self.see, self.renew = jax.jit(see), jax.jit(renew)


_programs: dict[Any, Programs] = {}
"""Programs of this process: N single environments of one kind compile once."""


def programs_of(spec: EnvSpec, window: int) -> Programs:
    """The programs of an environment; those of an equal one, whose rewards are the same functions, are shared."""
    key = repr(spec), tuple(REWARD_COMPONENTS[name] for name in spec.reward.weights), window
    if key not in _programs:
        _programs[key] = Programs(spec, window)
    return _programs[key]


class Host:
    """What `TradingEnv` and `TradingVectorEnv` share: a market's split, its programs, its spaces, and N accounts."""

    def __init__(
        self, market: Market | None, config: Config | None, split: str, window: int,
        render_mode: str | None, fields: dict[str, Any],
    ):  # fmt: skip
        if render_mode is not None:  # Stable-Baselines3 asks for one, and does without where that is a TypeError
            raise TypeError(f"render_mode: there is nothing to render, got {render_mode!r}; leave it out")
        if config is not None and fields:
            raise ConfigError(f"jaxppo.gym: give a config or its fields, not both; got {', '.join(sorted(fields))} too")
        config = make_config(**fields) if config is None else config
        if window < 1:
            raise ConfigError(f"window: must be at least 1 bar, got {window}")
        if market is None:
            bars, _ = load_market_bars(config.data)
            market = build_market(bars, config, max(receptive_field(config.agent), window))
        if split not in market.splits:
            raise ConfigError(f"split: unknown split {split!r}; {nearest(split, market.splits)}")
        chosen = market.splits[split]
        behind = int(np.min(chosen.tape.first)) + 1
        if window > behind:
            raise ConfigError(
                f"window: {window} bars, but the market was built with {behind} before its first decision; leave market"
                " out, or build it with a receptive field of the window"
            )
        self.config, self.market, self.window = config, market, window
        self.symbols = np.array(chosen.symbols, dtype=object)  # (S,)
        self.spec = env_spec(config.env, config.reward)
        self.tape = chosen.tape
        self._times = np.zeros(self.tape.close.shape, np.int64)
        for row, times in zip(self._times, chosen.times, strict=True):
            row[: len(times)] = times
        self.programs = programs_of(self.spec, window)
        size = window * self.tape.n_features + len(ACCOUNT_FEATURES)
        self.observation_space = gymnasium.spaces.Box(-_MOST, _MOST, (size,), np.float32)
        self.action_space: gymnasium.spaces.Discrete = gymnasium.spaces.Discrete(self.spec.actions.n_actions)

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Name of every number of an observation: of a bar that is k bars back `FEATURE[-k]`, then the account's."""
        back = range(self.window - 1, -1, -1)
        return (*(f"{name}[-{k}]" for k in back for name in self.market.feature_names), *ACCOUNT_FEATURES)

    def info(self, seen: Seen) -> dict[str, np.ndarray]:
        """What is told beside an observation, (N,) each, of host arrays; money in units of the starting equity."""
        state, account = seen.state, seen.state.account
        return {
            "action_mask": seen.mask.astype(np.int8),  # as `Discrete.sample` takes it
            "symbol": self.symbols[state.symbol],
            "time": self._times[state.symbol, state.t],  # start of the bar, UTC seconds
            "equity": account.equity,
            "cash": account.cash,
            "units": account.units,
        }


def wrapped(*seeds: int) -> np.ndarray:
    """Seeds of any size as `jax.random.key` takes them: (N,) uint32."""
    return np.array([int(s) % 2**32 for s in seeds], np.uint32)


def require_actions(space: gymnasium.spaces.Discrete, actions: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The actions as int32 of `shape`; an index beyond the table would otherwise be taken for its last."""
    given = np.asarray(actions)
    if given.shape != shape or given.dtype.kind not in "iu" or not ((given >= 0) & (given < space.n)).all():
        raise gymnasium.error.InvalidAction(
            f"actions must be integers from 0 to {space.n - 1} of shape {shape}, got {actions!r}"
        )
    return given.astype(np.int32)
