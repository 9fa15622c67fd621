"""What the Pallas kernels share: loads of what is no power of two, stores, and matmuls that add up in float32."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton


class Layer(NamedTuple):
    """A linear layer."""

    kernel: Any  # (n_in, n_out)
    bias: Any  # (n_out,)


def work(dtype: Any, products: int) -> dict[str, str]:
    """What the compiled program's text says of a kernel, for `jaxppo.plan` to count."""
    return {"matmul_flops": f"{'bf16' if dtype == jnp.bfloat16 else 'f32'} {2 * products}"}


def padded(n: int) -> int:
    """Triton's arrays are powers of two; at least what a matmul of bfloat16 contracts at once."""
    return max(16, pl.next_power_of_2(n))


def numbers(n: int) -> jax.Array:
    """0 .. n - 1, int32."""
    return lax.iota(jnp.int32, n)


def table(rows: jax.Array, columns: jax.Array) -> tuple[jax.Array, jax.Array]:
    """As (n, 1) and (1, m)."""
    return jnp.expand_dims(rows, 1), jnp.expand_dims(columns, 0)


def load(ref: Any, rows: jax.Array, real: jax.Array, n: int, width: int) -> jax.Array:
    """Rows of `ref` (., n), as (rows, width); 0 where they are not real, and from column n on."""
    row, column = table(rows, numbers(width))
    loaded: jax.Array = triton.load(ref.at[row, column], mask=jnp.expand_dims(real, 1) & (column < n), other=0.0)
    return loaded


def place(index: jax.Array, real: jax.Array, end: int) -> jax.Array:
    """`index`, and the end of the array for what is masked: an interpreted store writes there what it found."""
    return jnp.where(real, index, end)


class Part(NamedTuple):
    """One array of those that lie one after another in a vector.

    Weights come to a kernel so: it cannot read a slice of the vector of all parameters as XLA's kernels do, and copying
    one array after another out of it took 16 of the 63 kernels of a gradient step; copied together they take one.
    """

    vector: Any  # reference to (N,)
    begin: int
    shape: tuple[int, ...]

    def row(self) -> jax.Array:
        """The whole of (n,), as (1, n)."""
        loaded: jax.Array = self.vector[pl.ds(self.begin, self.shape[0])]
        return jnp.expand_dims(loaded, 0)

    def rows(self, first: int, n: int) -> jax.Array:
        """n rows of (., m) from `first` on, as (padded n, m)."""
        row, column = table(numbers(padded(n)), numbers(self.shape[1]))
        at = self.begin + (first + row) * self.shape[1] + column
        mask = jnp.broadcast_to(row < n, at.shape)
        loaded: jax.Array = triton.load(self.vector.at[at], mask=mask, other=0.0)
        return loaded


def store(ref: Any, rows: jax.Array, real: jax.Array, x: jax.Array) -> None:
    """`x` (rows, n), in the type of `ref` (., n), into its rows that are real."""
    row, column = table(place(rows, real, ref.shape[0]), numbers(x.shape[1]))
    mask = jnp.broadcast_to(jnp.expand_dims(real, 1), x.shape)
    triton.store(ref.at[row, column], x.astype(ref.dtype), mask=mask)


def dot(a: jax.Array, b: jax.Array, over: tuple[int, int] = (1, 0)) -> jax.Array:
    """Matmul over one axis of each, accumulated in float32."""
    return lax.dot_general(a, b, (((over[0],), (over[1],)), ((), ())), preferred_element_type=jnp.float32)
