"""Against overfitting: noise on the features of a path and units that the network does without, while it trains.

Both are drawn anew for every path of every rollout, from the key of the update and the number of the path. The loss
sees the same draw as the rollout, so the ratio of the policies is 1 before the first gradient step.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
from jaxtyping import Float, UInt32

from jaxppo.agent.policy import Agent, Kept, Params
from jaxppo.config.schema import Config
from jaxppo.ppo.shard import Shard


class PathNoise(NamedTuple):
    """What was drawn for P paths; None for what the configuration leaves out."""

    keys: UInt32[jax.Array, "P W"] | None = None  # key data of the noise on features, which is drawn again when needed
    kept: Kept | None = None


def draw_noise(agent: Agent, params: Params, key: jax.Array, config: Config, shard: Shard = Shard()) -> PathNoise:
    """The noise of the paths of one rollout that are `shard`'s; `key` is of the update."""
    ppo, paths = config.ppo, shard.own(config.n_paths)
    for_features, for_units = jax.random.split(key)
    keys = jax.random.key_data(_path_keys(for_features, paths)) if ppo.feature_noise > 0 else None
    kept = agent.draw_kept(params, _path_keys(for_units, paths), ppo.dropout) if ppo.dropout > 0 else None
    return PathNoise(keys, kept)


def _path_keys(key: jax.Array, paths: jax.Array) -> jax.Array:
    return jax.vmap(lambda path: jax.random.fold_in(key, path))(paths)


def noisy(features: Float[jax.Array, "P B F"], noise: PathNoise, n_bars: int, deviation: float) -> jax.Array:
    """Features of paths with the noise of their first B bars, of the `n_bars` that a rollout looks at."""
    if noise.keys is None:
        return features

    def one(key_data: jax.Array) -> jax.Array:  # all bars are drawn, whichever are needed: a shorter draw is another
        return jax.random.normal(jax.random.wrap_key_data(key_data), (n_bars, features.shape[2]), features.dtype)

    return features + deviation * jax.vmap(one)(noise.keys)[:, : features.shape[1]]
