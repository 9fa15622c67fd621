"""What does a reward pay? Policies without skill against the best in hindsight, under every reward, in the real env."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.policy import distribution
from jaxppo.check.verdict import Check
from jaxppo.config.rewards import REWARD_PRESETS
from jaxppo.config.schema import Config, RewardConfig
from jaxppo.env.protocol import choose_lanes
from jaxppo.env.rewards import Outcome, begin_memory, move_memory, reward_components, total_reward
from jaxppo.env.trading import EXPOSURE, EnvSpec, env_spec
from jaxppo.market.tape import Tape, consecutive_bars
from jaxppo.play.deciders import choosing
from jaxppo.play.oracle import hindsight_positions, reachable, table_positions, toward_exposure
from jaxppo.play.passes import Bar, Decider, Watcher, as_lanes, play

HOLD, LONG, SHORT, FLIP, RANDOM, ORACLE = "hold", "long", "short", "flip", "random", "oracle"
LANES = (HOLD, LONG, SHORT, FLIP, RANDOM, ORACLE)
CONSTANT = (HOLD, LONG, SHORT)
CONFIGURED = "configured"
MAX_EPISODES = 2_000
"""Episodes played at most, spread evenly: 512,000 bars of the default length leave an error below 1 % of a reward."""


class Paid(NamedTuple):
    """Means a step of every episode and lane, (P, L) float64."""

    rewards: Mapping[str, np.ndarray]  # by reward
    growth: np.ndarray  # net log return, in basis points
    orders: np.ndarray


class Episodes(NamedTuple):
    """P paths of N decisions each, as training has them."""

    symbol: np.ndarray  # (P,)
    start: np.ndarray  # (P,) first decision bar
    n_bars: int


def cut_episodes(tape: Tape, length: int) -> Episodes:
    """Consecutive episodes over every symbol; a symbol's remainder that fills none is left out."""
    first, last = np.asarray(tape.first), np.asarray(tape.length) - 1
    n = min(length, int((last - first).max()))
    starts = [(s, t) for s in range(tape.n_symbols) for t in range(int(first[s]), int(last[s]) - n + 1, n)]
    chosen = np.asarray(starts)[np.linspace(0, len(starts) - 1, min(MAX_EPISODES, len(starts))).astype(int)]
    return Episodes(chosen[:, 0], chosen[:, 1], n)


def episode_tape(tape: Tape, episodes: Episodes) -> Tape:
    """The episodes as P symbols of a Tape of their own, (P, N + 1), without features."""
    symbol = jnp.asarray(episodes.symbol, jnp.int32)
    bars = consecutive_bars(jnp.asarray(episodes.start, jnp.int32), episodes.n_bars + 1).T
    own, column = tape._replace(features=tape.features[:, :, :0]), jnp.expand_dims(symbol, -1)
    cut: Tape = jax.tree.map(lambda x: jnp.asarray(x)[symbol] if x.ndim == 1 else x[column, bars], own)
    return cut._replace(first=jnp.zeros_like(symbol), length=jnp.full_like(symbol, episodes.n_bars + 1))


def _oracle(episodes: Tape, spec: EnvSpec) -> np.ndarray:
    """(N, P) exposures of the best policy in hindsight."""
    open_, close = (np.asarray(x[:, 1:], np.float64) for x in (episodes.open, episodes.close))
    cost = np.asarray(episodes.costs.fee + episodes.costs.impact, np.float64)
    borrow, allowed = np.asarray(episodes.costs.borrow, np.float64), np.asarray(episodes.allow_short)
    wanted = np.zeros(open_.shape)
    for short in np.unique(allowed):
        of = allowed == short
        positions = table_positions(spec.actions, spec.config.max_exposure, bool(short))
        reach = reachable(spec.actions, positions, spec.config.max_exposure, bool(short))
        wanted[of] = hindsight_positions(open_[of], close[of], cost[of], borrow[of], positions, reach)
    return wanted.T


def _wanted(oracle: np.ndarray, largest: float) -> np.ndarray:
    """(N, P, L) exposures; nan keeps what is held."""
    shape = oracle.shape
    flip = np.where(np.arange(shape[0]) % 2 == 0, largest, -largest)[:, None]
    rows: dict[str, Any] = {HOLD: np.nan, LONG: largest, SHORT: -largest, FLIP: flip, RANDOM: 0.0, ORACLE: oracle}
    return np.stack([np.broadcast_to(rows[lane], shape) for lane in LANES], axis=-1).astype(np.float32)


class _Paid(NamedTuple):
    """Sums over bars, (L, P)."""

    memory: dict[str, dict[str, Any]]  # by reward: what it remembers of the accounts
    rewards: dict[str, jax.Array]
    growth: jax.Array
    orders: jax.Array


def _lanes(wanted: jax.Array, spec: EnvSpec, episodes: Tape, key: jax.Array) -> Decider:
    """The actions of `LANES`: those that lead nearest to what is wanted, and random ones."""
    random = jnp.asarray([lane == RANDOM for lane in LANES])
    allowed = jnp.expand_dims(episodes.allow_short, -1)

    def choose(row: tuple[jax.Array, jax.Array], vector: jax.Array, mask: jax.Array) -> jax.Array:
        want, index = row
        exposure = vector[..., EXPOSURE]
        want = jnp.where(jnp.isnan(want), exposure, want)
        toward = toward_exposure(spec.actions, want, exposure, allowed, spec.config.max_exposure)
        draw = jax.random.uniform(jax.random.fold_in(key, index), exposure.shape)
        any_ = distribution(jnp.zeros(mask.shape), mask).sample(draw)
        return jnp.where(jnp.expand_dims(random, 0), any_, toward)

    return choosing(choose, (wanted, jnp.arange(wanted.shape[0])), spec, episodes)


def _payer(specs: Mapping[str, EnvSpec], shape: tuple[int, ...]) -> Watcher:
    """Adds up what every reward pays accounts (L, P); the money is the same under each."""
    zero = jnp.zeros(shape)
    fresh = {name: begin_memory(own.reward, jnp.ones(shape)) for name, own in specs.items()}
    entropy = jnp.expand_dims(jnp.asarray([float(lane == RANDOM) for lane in LANES]), -1) * jnp.ones(shape)

    def add(paid: _Paid, bar: Bar) -> _Paid:
        outcome = Outcome(bar.before, bar.after, bar.record, bar.market, entropy)
        rewards, memory = {}, {}
        for name, own in specs.items():
            components = reward_components(outcome, own.reward, paid.memory[name])
            rewards[name] = paid.rewards[name] + total_reward(components, own.reward)
            memory[name] = move_memory(paid.memory[name], outcome)
        growth = paid.growth + jnp.log(jnp.maximum(1.0 + bar.record.net_return, 1e-6))
        orders = paid.orders + (bar.record.order_units != 0).astype(jnp.float32)
        return _Paid(choose_lanes(bar.record.ruined, fresh, memory), rewards, growth, orders)

    return Watcher(_Paid(fresh, dict.fromkeys(specs, zero), zero, zero), add)


def reward_specs(config: Config) -> dict[str, EnvSpec]:
    """The environment under the configured reward and under each preset."""
    presets = {name: env_spec(config.env, RewardConfig(reward=name)) for name in REWARD_PRESETS}
    return {CONFIGURED: env_spec(config.env, config.reward), **presets}


def play_episodes(tape: Tape, config: Config, seed: int = 0) -> Paid:
    """What every reward pays each of `LANES` on a tape, in episodes of the configured length.

    A ruined account restarts, and what is open at the end of an episode stays open, as in training.
    """
    specs = reward_specs(config)
    spec = specs[CONFIGURED]
    episodes = episode_tape(tape, cut_episodes(tape, config.env.episode_steps))
    wanted = jnp.asarray(_wanted(_oracle(episodes, spec), config.env.max_exposure))
    n = wanted.shape[0]

    def played(wanted: jax.Array, episodes: Tape, key: jax.Array) -> _Paid:
        costs = as_lanes(episodes.costs, (1.0,) * len(LANES))
        decider, payer = _lanes(wanted, spec, episodes, key), _payer(specs, costs.fee.shape)
        done = play(decider, episodes, n, costs, keep=False, close_at_end=False, restart=True, watcher=payer)
        paid: _Paid = done.watched
        return paid._replace(memory={})

    done = jax.device_get(jax.jit(played)(wanted, episodes, jax.random.key(seed)))
    rewards, growth, orders = jax.tree.map(lambda x: np.asarray(x, np.float64).T / n, done[1:])
    short = np.asarray(episodes.allow_short)
    for x in (*rewards.values(), growth, orders):
        x[~short, LANES.index(SHORT)] = np.nan  # where short selling is not allowed there is no always-short
    return Paid(rewards, 1e4 * growth, orders)


def _mean(x: np.ndarray) -> list[float]:
    """Means over episodes, nan where a lane has none."""
    with np.errstate(invalid="ignore"):
        count = np.isfinite(x).sum(axis=0)
        return [float(v) for v in np.where(count > 0, np.nansum(x, axis=0) / np.maximum(count, 1), np.nan)]


def best_skilless(means: Sequence[float]) -> str:
    """The lane other than the oracle that is paid the most."""
    return max(
        (lane for lane in LANES if lane != ORACLE),
        key=lambda lane: np.nan_to_num(means[LANES.index(lane)], nan=-np.inf),
    )


def check_reward(tape: Tape, config: Config, seed: int = 0) -> Check:
    """Does the configured reward pay the best positions in hindsight more than any policy without skill?

    Without skill are: hold (from flat, so it never trades), long, short where allowed, flip (long and short by turns)
    and random (uniform over the valid actions). They and the oracle are played through the environment's step at the
    symbols' costs, in episodes as training has them. `exploration` pays the entropy of a policy: 1 for random, 0 for
    the others, which always know what they do.

    Args:
      tape: the market.
      config: environment and reward.
      seed: of the random actions.
    """
    paid = play_episodes(tape, config, seed)
    table = {name: dict(zip(LANES, _mean(x), strict=True)) for name, x in paid.rewards.items()}
    verdicts: dict[str, dict[str, Any]] = {}
    for name, x in paid.rewards.items():
        best = best_skilless(_mean(x))
        gap = x[:, LANES.index(ORACLE)] - x[:, LANES.index(best)]
        gap = gap[np.isfinite(gap)]
        error = float(gap.std(ddof=1) / np.sqrt(len(gap))) if len(gap) > 1 else 0.0
        verdicts[name] = {
            "best": best,
            "constant": best in CONSTANT,
            "margin": float(gap.mean()),
            "error": error,
            "hackable": bool(gap.mean() <= 0),
            # Without an edge, the best that is left: what a policy that stops exploring early falls back on.
            "hold_first": bool(best == HOLD),
        }
    own = verdicts[CONFIGURED]
    oracle, unskilled = table[CONFIGURED][ORACLE], table[CONFIGURED][own["best"]]
    others = [n for n in verdicts if n != CONFIGURED and verdicts[n]["hackable"]]
    holders = [n for n in verdicts if n != CONFIGURED and verdicts[n]["hold_first"]]
    kind = "always-" + own["best"] if own["constant"] else own["best"]
    said = (
        f"The configured reward ({config.reward.reward}) pays {kind} {unskilled:+.4f} a step and the best positions in"
        f" hindsight {oracle:+.4f}"
    )
    said += ": it can be hacked." if own["hackable"] else "."
    said += f" Hackable presets here: {', '.join(others) or 'none'}; always-hold is the best without skill under: "
    said += (", ".join(holders) or "none") + "."
    return Check(
        "reward",
        not own["hackable"],
        f"oracle - {own['best']} {own['margin']:+.4f}",
        "> 0",
        said,
        {
            "mean_reward_a_step": table,
            "net_log_return_bp": dict(zip(LANES, _mean(paid.growth), strict=True)),
            "orders_a_step": dict(zip(LANES, _mean(paid.orders), strict=True)),
            "verdicts": verdicts,
            "episodes": len(paid.growth),
        },
    )
