"""jaxppo itself: one PPO update, or the env alone, on the market and the sizes of a setting."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peers import settings
from benchmarks.peers.settings import Market, Peer, Setting, random_market
from jaxppo.agent.encoders import receptive_field
from jaxppo.config.layers import replace_fields, resolve
from jaxppo.config.schema import Config
from jaxppo.env.trading import (
    ACCOUNT_FEATURES,
    BoundEnv,
    EnvState,
    Lanes,
    Observation,
    env_spec,
    make_env,
)
from jaxppo.market.tape import Costs, Quote, Tape, consecutive_bars, take_steps, take_windows
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.rollout import advance_paths, path_terms, start_paths
from jaxppo.ppo.state import PathState, hyper_from
from jaxppo.ppo.update import update

ENV_STEPS = 64

# What each row changes. `equal` has the peers' widths and the preset's lanes.
VARIANTS: dict[str, dict[str, Any]] = {
    "equal": {},
    "one_lane": {"lanes": 1},
    "window_mlp": {"encoder": "window_mlp", "trunk_layers": 1},
    "best": {"lanes": 32, "channels": 32, "trunk_layers": 1},
}


def config_for(setting: Setting, **changes: Any) -> Config:
    """jaxppo at the sizes and hyperparameters of a setting."""
    base = {
        "n_envs": setting.n_envs,
        "lanes": 16,
        "n_steps": setting.n_steps,
        "epochs": setting.epochs,
        "minibatches": setting.minibatches,
        "episode_steps": setting.episode_steps,
        "window": setting.window,
        "channels": setting.width,
        "trunk_width": setting.width,
        "learning_rate": settings.LEARNING_RATE,
        "entropy_start": settings.ENTROPY,
        "entropy_end": settings.ENTROPY,
        "actions": "hold_buy_sell",
        "fee": {"equity": settings.FEE},
        "stop_loss": settings.STOP_LOSS,
        "take_profit": settings.TAKE_PROFIT,
    }
    return replace_fields(resolve("quick_test").config, {**base, **changes})


def tape_of(market: Market, first: int) -> Tape:
    """One symbol as a Tape whose first decision is at bar `first`."""

    def row(x: Any) -> jax.Array:
        return jnp.expand_dims(jnp.asarray(x, jnp.float32), 0)

    n_bars = len(market.close)
    zero = jnp.zeros(1)
    return Tape(
        features=row(market.features),
        open=row(market.open),
        high=row(market.high),
        low=row(market.low),
        close=row(market.close),
        forward_return=jnp.zeros((1, n_bars)),
        volatility=jnp.ones((1, n_bars)),
        first=jnp.full(1, first, jnp.int32),
        length=jnp.full(1, n_bars, jnp.int32),
        costs=Costs(jnp.full(1, settings.FEE), zero, zero),
        allow_short=jnp.ones(1, bool),
        bars_per_year=jnp.full(1, 8766.0),
    )


def make_peer(setting: Setting, variant: str = "equal") -> Peer:
    """Whole PPO updates of jaxppo, as `jaxppo.train` runs them."""
    config = config_for(setting, **VARIANTS[variant])
    tape = tape_of(random_market(setting.n_bars, setting.n_features), receptive_field(config.agent) - 1)
    program = make_train(config, TapeSpec(tape.n_features, 1))
    hyper = hyper_from(config)
    state = jax.jit(program.init)(jax.random.key(0), hyper, tape)
    run = jax.jit(lambda s, t: update(s, t, program.spec, hyper)[0], donate_argnums=0).lower(state, tape).compile()

    def unit() -> int:
        nonlocal state
        state = jax.block_until_ready(run(state, tape))
        return setting.batch_steps

    agent, budget = config.agent, config.budget
    held = f"{agent.encoder} {agent.channels} wide, trunk {agent.trunk_layers} x {agent.trunk_width}, "
    return Peer(unit, held + f"{config.n_paths} x {budget.lanes} lanes")


def make_lanes_peer(setting: Setting, n_envs: int, lanes_a_path: int) -> Peer:
    """The env alone as the trainer lays it out: lanes on paths, random actions, ruined lanes restart."""
    config = config_for(setting, n_envs=n_envs, lanes=lanes_a_path, n_steps=ENV_STEPS)
    tape = tape_of(random_market(setting.n_bars, setting.n_features), setting.window - 1)
    spec = env_spec(config.env, config.reward)
    episode = config.env.episode_steps

    @jax.jit
    def run(paths: PathState, lanes: Lanes, key: jax.Array) -> tuple[PathState, Lanes, jax.Array]:
        draw, restart = jax.random.split(key)
        shape = (n_envs // lanes_a_path, lanes_a_path)
        actions = jax.random.randint(draw, (ENV_STEPS, *shape), 0, settings.N_ACTIONS)
        terms = path_terms(tape, paths)
        bars = consecutive_bars(paths.t, ENV_STEPS)
        market = take_steps(tape, jnp.broadcast_to(paths.symbol, bars.shape), bars)

        def step(carry: tuple[Lanes, jax.Array, jax.Array], x: tuple) -> tuple[tuple, None]:
            lanes, _, used = carry
            now, action = x
            now = jax.tree.map(lambda v: jnp.expand_dims(v, -1), now)
            lanes, result = spec.step(lanes, action, now, terms)
            lanes = spec.restart(lanes, result.terminated)
            return (lanes, spec.observe(lanes, Quote(now.close)), used + result.reward), None

        carry = (lanes, jnp.zeros((*shape, len(ACCOUNT_FEATURES))), jnp.zeros(shape))
        (lanes, seen, used), _ = jax.lax.scan(step, carry, (market, actions))
        paths, ended = advance_paths(tape, paths, restart, ENV_STEPS, episode)
        return paths, spec.restart(lanes, jnp.expand_dims(ended, -1)), used + seen.sum(axis=-1)

    paths = start_paths(tape, jax.random.key(0), n_envs // lanes_a_path, ENV_STEPS, episode)
    state, key = spec.begin((n_envs // lanes_a_path, lanes_a_path)), jax.random.key(1)

    def unit() -> int:
        nonlocal paths, state, key
        key = jax.random.fold_in(key, 1)
        paths, state, used = run(paths, state, key)
        jax.block_until_ready(used)
        return n_envs * ENV_STEPS

    return Peer(unit, f"{n_envs // lanes_a_path} paths x {lanes_a_path} lanes, 8 account features, no windows")


def make_env_peer(setting: Setting, n_envs: int, windows: bool) -> Peer:
    """The env alone under random actions, with auto-reset; with `windows`, every step also looks its window up."""
    config = config_for(setting)
    tape = tape_of(random_market(setting.n_bars, setting.n_features), setting.window - 1)
    env = make_env(tape, config.env, config.reward)

    def look(seen: Observation) -> jax.Array:
        # Carried from step to step, so that no window can be left out.
        return take_windows(tape, seen.symbol, seen.t - (setting.window - 1), setting.window) if windows else seen.t

    def step(carry: tuple[EnvState, jax.Array, jax.Array], key: jax.Array) -> tuple[tuple, None]:
        states, used, _ = carry
        for_action, for_reset = jax.random.split(key)
        actions = jax.random.randint(for_action, (n_envs,), 0, settings.N_ACTIONS)
        states, seen, result, _ = auto_reset(env, states, actions, for_reset)
        return (states, used + result.reward + seen.account.sum(axis=-1), look(seen)), None

    @jax.jit
    def run(carry: tuple, key: jax.Array) -> tuple:
        return jax.lax.scan(step, carry, jax.random.split(key, ENV_STEPS))[0]

    states, seen = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), n_envs))
    carry, key = (states, jnp.zeros(n_envs), look(seen)), jax.random.key(1)

    def unit() -> int:
        nonlocal carry, key
        key = jax.random.fold_in(key, 1)
        carry = jax.block_until_ready(run(carry, key))
        return n_envs * ENV_STEPS

    return Peer(unit, f"{n_envs:,} envs, 8 account features" + (", windows looked up" if windows else ", no windows"))


def auto_reset(env: BoundEnv, states: EnvState, actions: jax.Array, key: jax.Array) -> tuple:
    """One step of N envs; those that end begin anew.

    Returns:
      states and observations (N,) of the episodes that go on or begin, the steps' results, and which ended.
    """
    states, seen, result, terminated, truncated = jax.vmap(env.step)(states, actions)
    ended = terminated | truncated
    fresh = jax.vmap(env.reset)(jax.random.split(key, actions.shape[0]))

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(jnp.expand_dims(ended, tuple(range(1, old.ndim))), new, old)

    states, seen = jax.tree.map(choose, fresh, (states, seen))
    return states, seen, result, ended
