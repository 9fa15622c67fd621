"""What the trainer knows of an environment: six functions and its sizes. `jaxppo.env.trading` is the one that trades.

The trainer lays environments out as L lanes on each of P paths. A path is `(symbol, t)` on the Tape; lanes on it see
the same market and differ in their states alone. What a path reads of the Tape has an axis of 1 where the lanes are:
`MarketStep` and `Terms` are (P, 1), and (P, 1, M) where the Tape's prices are (S, T, M), so that one account may hold M
instruments. All functions are elementwise over lanes and know no time: the trainer scans and vmaps them.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxppo.market.tape import MarketStep, Quote, Terms

State = Any
"""Pytree of arrays whose leading axes are those of the lanes; an environment may add axes of its own behind them."""

OneState = TypeVar("OneState")


class StepResult(NamedTuple):
    """What a step tells about itself besides the next state. All of the lanes' shape."""

    reward: Float[jax.Array, "*lanes"]
    terminated: Bool[jax.Array, "*lanes"]  # the episode ended by what happened in it, so there is no future to value
    components: dict[str, jax.Array]  # unweighted parts of the reward
    record: Any  # what else the environment wants to say; `metrics` may look at it


class Ratio(NamedTuple):
    """A figure of one step that is the ratio of two means over all lanes; 0 where both are."""

    top: jax.Array  # (P, L)
    bottom: jax.Array  # (P, L), at least 0


class Env(Protocol):
    """An environment as the trainer sees it. Shapes are those of the trainer, P paths of L lanes.

    Example (an environment that pays for guessing the sign of the next bar and remembers nothing):
      >>> class Guess:
      ...     n_observation, action_labels = 1, ("down", "up")
      ...     def begin(self, shape):
      ...         return jnp.zeros(shape)
      ...     def observe(self, state, quote):
      ...         return jnp.expand_dims(state, -1)
      ...     def mask(self, observation, terms):
      ...         return jnp.ones((*observation.shape[:-1], 2), bool)
      ...     def step(self, state, action, market, terms, entropy):
      ...         up = jnp.where(market.close > market.open, 1.0, -1.0)
      ...         reward = jnp.where(action == 1, up, -up)
      ...         return state, StepResult(reward, jnp.zeros(reward.shape, bool), {}, None)
      ...     def restart(self, state, where):
      ...         return state
      ...     def sound(self, state):
      ...         return jnp.ones(state.shape, bool)
      ...     def metrics(self, result):
      ...         return {}
      >>> Guess().mask(jnp.zeros((3, 4, 1)), None).shape
      (3, 4, 2)
    """

    @property
    def n_observation(self) -> int:
        """A, the length of an observation."""

    @property
    def action_labels(self) -> tuple[str, ...]:
        """K names of actions."""

    def begin(self, shape: tuple[int, ...]) -> State:
        """The state of fresh lanes, `shape` = (P, L)."""

    def observe(self, state: State, quote: Quote) -> jax.Array:
        """What the policy sees of the lanes, (P, L, A) float, at the decision bar's quote (P, 1); the market apart."""

    def mask(self, observation: jax.Array, terms: Terms) -> jax.Array:
        """Actions that mean something, (..., P, L, K) bool, of observations (..., P, L, A); at least one a lane.

        A function of what was observed, so that the loss finds the same mask without the state.
        """

    def step(
        self, state: State, action: jax.Array, market: MarketStep, terms: Terms, entropy: jax.Array
    ) -> tuple[State, StepResult]:
        """One bar.

        Args:
          state: of the lanes at the decision.
          action: (P, L) int32.
          market: the bar to come, (P, 1).
          terms: what a path's symbol is traded at, (P, 1).
          entropy: (P, L) of the policy at the decision, over log K.

        Returns:
          The state at the next close, and the step's result. The trainer also steps (K, P, L) lanes at once, every
          action of each, against (1, P, 1).
        """

    def restart(self, state: State, where: jax.Array) -> State:
        """Fresh lanes where `where`, bool, broadcastable with (P, L)."""

    def sound(self, state: State) -> jax.Array:
        """(P, L) bool: every number of the lane is finite. A lane with one that is not is restarted."""

    def metrics(self, result: StepResult) -> dict[str, jax.Array | Ratio]:
        """Figures of one step, (P, L) or () of any dtype, whose means over lanes, devices and steps are logged.

        The trainer takes the means, of all figures by one reduction. What is no mean over lanes is a `Ratio` of two: it
        is taken once the lanes of all devices are in them.
        """


def choose_lanes(where: jax.Array, new: OneState, old: OneState) -> OneState:
    """`new` where `where`, bool with the lanes' number of axes, else `old`."""

    def choose(n: jax.Array, o: jax.Array) -> jax.Array:
        return jnp.where(jnp.expand_dims(where, tuple(range(where.ndim, o.ndim))), n, o)

    chosen: OneState = jax.tree.map(choose, new, old)
    return chosen


def finite_lanes(tree: Any, lanes: jax.Array) -> jax.Array:
    """Bool of the shape of `lanes`: every float of `tree` that belongs to a lane is finite."""
    fine = jnp.ones(lanes.shape, bool)
    for x in jax.tree.leaves(tree):
        if jnp.issubdtype(x.dtype, jnp.floating):
            fine &= jnp.isfinite(x).all(axis=tuple(range(lanes.ndim, x.ndim)))
    return fine
