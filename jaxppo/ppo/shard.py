"""The share of a run's paths that a device has, as the program sees it from inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry2x32_p
from jax.flatten_util import ravel_pytree

PATH = "path"
"""Axis of the mesh that divides the paths."""

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """The paths that one of `count` devices has, seen from inside the program.

    Where `count` is 1 that is all of them, and nothing here computes anything.
    """

    count: int = 1

    def own(self, n: int) -> jax.Array:
        """Numbers of this device's n / count of n things, int32."""
        mine = n // self.count
        numbers = jnp.arange(mine, dtype=jnp.int32)
        return numbers if self.count == 1 else numbers + mine * jax.lax.axis_index(PATH)

    def take(self, tree: T, n: int) -> T:
        """This device's rows of arrays (n, ...) that are the same on all."""
        if self.count == 1:
            return tree
        mine = n // self.count
        begin = mine * jax.lax.axis_index(PATH)
        taken: T = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, begin, mine), tree)
        return taken

    def mean(self, tree: T) -> T:
        """Means over the devices of float32 arrays, by one all-reduce of one vector."""
        return tree if self.count == 1 else self._reduce(tree, 1.0 / self.count)

    def sum(self, tree: T) -> T:
        """Sums over the devices, likewise."""
        return tree if self.count == 1 else self._reduce(tree, 1.0)

    def _reduce(self, tree: T, factor: float) -> T:
        vector, back = ravel_pytree(tree)
        reduced: T = back(factor * jax.lax.psum(vector, PATH))
        return reduced

    def variance(self, x: jax.Array) -> jax.Array:
        """Variance () over everything of which `x`, any shape, is this device's equal share."""
        if self.count == 1:
            return x.var()
        return self.mean(jnp.square(x - self.mean(x.mean())).mean())

    def uniform(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """This device's rows (P, L) in [0, 1) of what `jax.random.uniform` draws for the paths of all devices.

        jax.random has no draw of a part. Its bits are Threefry-2x32 of the place of an element, so a part costs no more
        than its size (Salmon et al. 2011).
        """
        if self.count == 1:
            return jax.random.uniform(key, shape)
        rows, lanes = shape
        row = self.own(rows * self.count).astype(jnp.uint32)
        place = jnp.expand_dims(row, 1) * np.uint32(lanes) + jnp.arange(lanes, dtype=jnp.uint32).reshape(1, -1)
        words = jax.random.key_data(key)
        high, low = threefry2x32_p.bind(words[0], words[1], jnp.zeros_like(place), place)
        bits = jax.lax.shift_right_logical(high ^ low, np.uint32(9)) | np.uint32(0x3F800000)  # of a float in [1, 2)
        return jax.lax.bitcast_convert_type(bits, jnp.float32) - 1.0
