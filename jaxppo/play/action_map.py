"""What a policy does over its exposure and two features: partial dependence on a grid, all else as it really was.

For every cell, real decisions are taken as they were, but for the features on the axes and the account. A feature is
not set at the newest bar alone, which would leave a jump in the encoder's window: its whole window is that of another
real decision, one whose newest value is the nearest to the cell's, and which is then set to it. So is the account
vector, by its exposure. What is averaged over those decisions is the probability of each action (Friedman 2001,
section 8.2, with windows in place of values).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int32

from jaxppo.agent.policy import Agent, Params
from jaxppo.env.trading import EXPOSURE, EnvSpec
from jaxppo.market.tape import Tape, take_windows
from jaxppo.play.deciders import mean_exposure
from jaxppo.play.decisions import decide_on
from jaxppo.play.passes import decision_bars, symbol_rows

GRID = 9
SAMPLE = 64
SEEN = (1.0, 99.0)
"""Percentiles of a feature, among the decisions, that its axis begins and ends with."""


class Axes(NamedTuple):
    """The grid, and the real decisions behind it, as rows of all (N, S) laid flat. Build with `make_axes`."""

    features: Int32[np.ndarray, " A"]  # columns, one or two
    exposure: Float[np.ndarray, " E"]
    values: Float[np.ndarray, "A G"]  # of each feature
    base: Int32[np.ndarray, " B"]  # decisions
    accounts: Int32[np.ndarray, "E B"]  # those whose account vectors are shown
    donors: Int32[np.ndarray, "A G B"]  # those whose windows of a feature are shown


class ActionMap(NamedTuple):
    """Over exposure E and cells C, the product of the features' grids in order, the last one fastest."""

    probabilities: jax.Array  # (E, C, K), means over the B decisions
    exposure: jax.Array  # (E, C) that the actions ask for on average, in sizes where positions are sized


def _nearest(values: np.ndarray, wanted: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """The `n` rows whose values are nearest to each wanted one, (G, n), in random order and of ties random ones."""
    shuffled = rng.permutation(len(values))
    rows = [shuffled[np.argsort(np.abs(values[shuffled] - w), kind="stable")[:n]] for w in wanted]
    return np.stack([rng.permutation(row) for row in rows])


def _exposures(seen: np.ndarray) -> np.ndarray:
    """Five exposures over what was held, flat among them."""
    low, high = min(float(np.percentile(seen, SEEN[0])), 0.0), max(float(np.percentile(seen, SEEN[1])), 0.0)
    if low < 0 < high:
        return np.array([low, low / 2, 0.0, high / 2, high])
    return np.unique(np.linspace(low, high, 5))


def make_axes(
    decided: np.ndarray,
    exposure: np.ndarray,
    features: Sequence[int],
    rows: np.ndarray,
    seed: int,
    grid: int = GRID,
    sample: int = SAMPLE,
) -> Axes:
    """The grid over a split.

    Args:
      decided: (D, A) values of the features at all D decisions.
      exposure: (D,) as observed there.
      features: (A,) their columns.
      rows: (D,) where the decisions are among (N, S) laid flat.
      seed: of the decisions that are drawn.
      grid: G.
      sample: B, or D where that is less.
    """
    rng = np.random.default_rng(seed)
    n = min(sample, len(exposure))
    low, high = np.percentile(decided, SEEN, axis=0)
    values = np.linspace(low, high, grid, axis=1)
    exposures = _exposures(exposure)
    base = rng.choice(len(exposure), n, replace=False)
    accounts = _nearest(exposure, exposures, n, rng)
    donors = np.stack([_nearest(x, v, n, rng) for x, v in zip(decided.T, values, strict=True)])
    of = rows.astype(np.int32)
    return Axes(
        features=np.asarray(features, np.int32),
        exposure=exposures.astype(np.float32),
        values=values.astype(np.float32),
        base=of[base],
        accounts=of[accounts],
        donors=of[donors],
    )


def draw_map(
    agent: Agent,
    spec: EnvSpec,
    params: Params,
    tape: Tape,
    observation: jax.Array,
    axes: Axes,
    n_bars: int,
    receptive_field: int,
) -> ActionMap:
    """The action map of a policy. Jit it with what is static bound.

    Args:
      agent, spec, params: the policy, or an ensemble.
      tape: the split.
      observation: (N, S, A) account vectors of the policy's own play.
      axes: the grid, on the device.
      n_bars: N.
      receptive_field: R.
    """
    t, _ = decision_bars(tape, n_bars)
    bars, symbols = t.reshape(-1), symbol_rows(t).reshape(-1)
    symbol, bar = symbols[axes.base], bars[axes.base]
    base = take_windows(tape, symbol, bar - (receptive_field - 1), receptive_field)  # (B, R, F)
    allow_short = tape.allow_short[symbol]
    size = None if tape.size is None else tape.size[symbol, bar]
    n_axes, grid, _ = axes.donors.shape
    behind = jnp.arange(receptive_field, dtype=jnp.int32) - (receptive_field - 1)
    there = jnp.expand_dims(bars[axes.donors], -1) + behind.reshape(1, 1, 1, -1)  # (A, G, B, R)
    shown = tape.features[jnp.expand_dims(symbols[axes.donors], -1), there, axes.features.reshape(-1, 1, 1, 1)]
    shown = shown.at[..., -1].set(jnp.expand_dims(axes.values, -1))
    accounts = observation.reshape(-1, observation.shape[-1])[axes.accounts]  # (E, B, A)
    accounts = accounts.at[..., EXPOSURE].set(jnp.expand_dims(axes.exposure, -1))

    def cell(at: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = base
        for i in range(n_axes):
            seen = seen.at[:, :, axes.features[i]].set(shown[i, at[i]])

        def at_exposure(observed: jax.Array) -> tuple[jax.Array, jax.Array]:
            policy = decide_on(agent, spec, params, seen, observed, allow_short)
            asked = mean_exposure(policy, spec, observed[:, EXPOSURE], allow_short, size)
            return jnp.exp(policy.log_probs).mean(0), asked.mean()

        return jax.vmap(at_exposure)(accounts)

    cells = jnp.asarray(list(itertools.product(range(grid), repeat=n_axes)), jnp.int32)  # (C, A)
    probabilities, asked = jax.lax.map(cell, cells)  # (C, E, K), (C, E)
    return ActionMap(jnp.swapaxes(probabilities, 0, 1), asked.T)
