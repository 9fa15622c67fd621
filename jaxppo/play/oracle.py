"""The best positions in hindsight, and what positions an action table can reach: what skill is measured against."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.env.actions import ActionTable, asked_exposures


def toward_exposure(
    table: ActionTable, wanted: jax.Array, exposure: jax.Array, allow_short: jax.Array, max_exposure: float
) -> jax.Array:
    """The action that leads nearest to an exposure; of equals the first, which is `hold` where there is one.

    Args:
      table: the action table.
      wanted: target exposure, any shape; shorts become 0 where none are allowed.
      exposure: current exposure, same shape.
      allow_short: bool, broadcastable with `exposure`.
      max_exposure: of the environment.

    Returns:
      int32 actions, shape of `exposure`.
    """
    asked = asked_exposures(table, exposure, allow_short, max_exposure)
    wanted = jnp.expand_dims(jnp.where(allow_short, wanted, jnp.maximum(wanted, 0.0)), 0)
    return jnp.argmin(jnp.abs(asked - wanted), axis=0).astype(jnp.int32)


def table_positions(table: ActionTable, max_exposure: float, allow_short: bool) -> tuple[float, ...]:
    """Exposures that an action table trades between, ascending, 0 among them: all that it reaches from flat."""
    found, new = {0.0}, {0.0}
    while new:
        held = jnp.asarray(sorted(new), jnp.float32)
        asked = asked_exposures(table, held, jnp.asarray(allow_short), max_exposure)
        reached = {float(round(x, 6)) for x in np.asarray(asked).ravel().tolist()}
        new = reached - found
        found |= reached
    return tuple(sorted(found))


def reachable(table: ActionTable, positions: tuple[float, ...], max_exposure: float, allow_short: bool) -> np.ndarray:
    """Which of J positions an action leads to from each: (J held, J chosen) bool."""
    held = jnp.asarray(positions, jnp.float32)
    reached = np.asarray(asked_exposures(table, held, jnp.asarray(allow_short), max_exposure)).T  # (J, K)
    hit: np.ndarray = (np.abs(reached[:, :, None] - np.asarray(positions)) < 1e-5).any(axis=1)
    return hit


def hindsight_positions(
    open_: np.ndarray,
    close: np.ndarray,
    cost: np.ndarray,
    borrow: np.ndarray,
    positions: tuple[float, ...],
    reach: np.ndarray,
) -> np.ndarray:
    """Positions of greatest log growth, net of costs, when every price is known. By dynamic programming, from flat.

    The position of decision n is taken at the open of bar n + 1 and held to the next open, the last to its close.
    Stops are not looked at: a stop that fires only makes the played oracle poorer, and its next decision enters again.

    Args:
      open_, close: (P, N) float64 prices of the bar after each of N decisions on P paths.
      cost: (P,) of a unit of notional, per side.
      borrow: (P,) per bar, on short notional.
      positions: J exposures, 0 among them.
      reach: (J, J) bool, from `reachable`.

    Returns:
      (P, N) float64 exposures.
    """
    p, flat = np.asarray(positions), positions.index(0.0)
    until = np.concatenate([open_[:, 1:], close[:, -1:]], axis=1)
    gain = (until / open_ - 1.0)[:, :, None] * p - borrow[:, None, None] * np.maximum(-p, 0.0)  # (P, N, J)
    earned = np.log(np.maximum(1.0 + gain, 1e-9))
    paid = -np.log1p(-np.minimum(cost[:, None, None] * np.abs(p[:, None] - p), 0.999))  # (P, J held, J chosen)
    paid = np.where(reach, paid, np.inf)
    n_paths, n = open_.shape
    value = np.zeros((n_paths, len(p)))
    best = np.empty((n_paths, n, len(p)), np.int8)  # by position held
    for i in range(n - 1, -1, -1):
        options = (earned[:, i] + value)[:, None, :] - paid
        best[:, i] = options.argmax(axis=2)
        value = options.max(axis=2)
    held, path = np.full(n_paths, flat), np.arange(n_paths)
    chosen = np.empty((n_paths, n), int)
    for i in range(n):
        held = chosen[:, i] = best[path, i, held]
    return p[chosen]
