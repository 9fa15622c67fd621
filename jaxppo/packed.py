"""Small arrays side by side in one: what a loop then writes in one kernel, where each would take one of its own.

A kernel of a GPU takes most of a microsecond however little it does. A bar of a validation wrote 17 outputs and copied
9 arrays of 20 numbers each that way, 26 of its 44 kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

Body = Callable[[Any, Any], tuple[Any, Any]]


@dataclass(frozen=True)
class Packing:
    """Which arrays of a tree lie together: those of one shape, in one array with an axis more.

    What has 32 bits travels as int32, bit for bit, and so do bools; other dtypes lie apart, each by itself.

    Example:
      >>> tree = {"price": jnp.ones(3), "open": jnp.zeros(3, bool), "units": jnp.zeros(3), "trades": jnp.zeros(3, int)}
      >>> packing = packing_of(tree)
      >>> [(str(x.dtype), x.shape) for x in packing.pack(tree)]
      [('int32', (4, 3))]
      >>> packing.unpack(packing.pack(tree))["open"]
      Array([False, False, False], dtype=bool)
    """

    treedef: Any
    kinds: tuple[tuple[Any, tuple[int, ...]], ...]  # dtype and shape of each leaf

    @property
    def _groups(self) -> dict[tuple[Any, tuple[int, ...]], list[int]]:
        """The leaves of each array that is packed."""
        groups: dict[tuple[Any, tuple[int, ...]], list[int]] = {}
        for place, (dtype, shape) in enumerate(self.kinds):
            groups.setdefault((_carrier(dtype), shape), []).append(place)
        return groups

    def pack(self, tree: Any) -> tuple[jax.Array, ...]:
        """The leaves as arrays (G, *shape)."""
        leaves = jax.tree.leaves(tree)
        return tuple(jnp.stack([_travels(leaves[i]) for i in places]) for places in self._groups.values())

    def unpack(self, packed: tuple[jax.Array, ...], axis: int = 0) -> Any:
        """The tree again; `axis` is that of the leaves, behind axes that a loop has added."""
        leaves: list[Any] = [None] * len(self.kinds)
        for array, places in zip(packed, self._groups.values(), strict=True):
            for row, place in enumerate(places):
                leaves[place] = _arrives(jax.lax.index_in_dim(array, row, axis, keepdims=False), self.kinds[place][0])
        return jax.tree.unflatten(self.treedef, leaves)


def packing_of(tree: Any) -> Packing:
    """How a tree of arrays, or of their shapes, is packed."""
    leaves, treedef = jax.tree.flatten(tree)
    return Packing(treedef, tuple((jnp.dtype(x.dtype), tuple(x.shape)) for x in leaves))


def packed_scan(body: Body, start: Any, rows: Any) -> tuple[Any, Any]:
    """`jax.lax.scan(body, start, rows)`, to the bit, whose carry and outputs travel packed."""
    outer = packing_of(start)
    inner: list[Packing] = []  # of the outputs, which are known once the body is traced

    def turn(carry: tuple[jax.Array, ...], row: Any) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        after, out = body(outer.unpack(carry), row)
        inner[:] = [packing_of(out)]
        return outer.pack(after), inner[0].pack(out)

    end, outs = jax.lax.scan(turn, outer.pack(start), rows)
    return outer.unpack(end), inner[0].unpack(outs, axis=1)


def sums(arrays: Sequence[jax.Array], n_axes: int) -> jax.Array:
    """Sums of G arrays of one shape over their last `n_axes` axes: (G, ...), on an accelerator by one reduction.

    A sum to scalars takes a GPU two kernels, and a third to write it. A CPU has no such price, and there one reduction
    of all takes longer to compile.
    """

    def apart(*arrays: jax.Array) -> jax.Array:
        return jnp.stack([x.sum(axes) for x in arrays])

    def together(*arrays: jax.Array) -> jax.Array:
        return jnp.stack(arrays).sum(axes)

    axes = tuple(range(-n_axes, 0))
    added: jax.Array = jax.lax.platform_dependent(*arrays, cpu=apart, default=together)
    return added


_WORDS = (jnp.dtype(jnp.float32), jnp.dtype(jnp.uint32))


def _carrier(dtype: Any) -> Any:
    return jnp.dtype(jnp.int32) if dtype in _WORDS or dtype == jnp.bool_ else dtype


def _travels(x: jax.Array) -> jax.Array:
    word: jax.Array = jax.lax.bitcast_convert_type(x, jnp.int32) if x.dtype in _WORDS else x
    return word.astype(jnp.int32) if x.dtype == jnp.bool_ else word


def _arrives(x: jax.Array, dtype: Any) -> jax.Array:
    word: jax.Array = jax.lax.bitcast_convert_type(x, dtype) if dtype in _WORDS else x
    return word != 0 if dtype == jnp.bool_ else word
