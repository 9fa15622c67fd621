"""The trunk and its heads as one GPU kernel forward and one backward, in Pallas on Triton.

Written out in XLA, every hidden layer of a minibatch goes to memory and back several times: (65,536, 64) of float32 are
17 MB. Here a program keeps a tile of lanes in registers from the observation to the logits, and the backward computes
the activations again instead of reading them.

Triton, because Pallas on Mosaic GPU cannot have this in float32 (jax 0.10): its matmul on Hopper, wgmma, takes no
transposed operand of 32 bits, and the gradient of a kernel, x^T dx, has two. It offers none before Hopper.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.flatten_util import ravel_pytree

from jaxppo.agent.tiles import Layer, dot, load, numbers, padded, place, table, work

# Lanes of a tile and warps of a program, by what ptxas says of the registers: so nothing is spilled of two layers of 64
# units, on an H100 and an A100. A backward over 64 lanes spills 656 bytes a thread.
_FORWARD, _BACKWARD = (64, 4), (32, 8)
# Programs of the backward, each with one sum of the weights' gradients. The 2,048 tiles of a production minibatch are
# 16 for the busiest of an H100's 132 cores and 24 for that of an A100's 108; with 128 programs, 16 and 32.
_PROGRAMS = 256


class Trunk(NamedTuple):
    """The float32 weights between an observation and the logits and value; inside a kernel, references to them."""

    account: Any  # (A, H)
    hidden: tuple[Layer, ...]  # (H, H) and (H,)
    policy_head: Layer  # (H, K) and (K,)
    value_head: Layer  # (H, 1) and (1,)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def fused_trunk(
    trunk: Trunk, market: jax.Array, observation: jax.Array, interpret: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Logits and value of lanes on encoded bars: two kernels for value and gradient.

    Matmuls take the type of `market`, add up in float32 and, as XLA's, round float32 to TF32 unless
    `jax.default_matmul_precision` says otherwise. The gradient is summed in a fixed order: the same bits every time.

    Args:
      trunk: float32 weights, H 16, 32 or 64.
      market: (G, H) float32 or bfloat16, of G paths or bars.
      observation: (G, L, A) float32. It is data: its gradient is 0.
      interpret: run the kernels on the CPU, slowly, to test them.

    Returns:
      logits (G, L, K) and values (G, L), float32.
    """
    return _outputs(trunk, market, observation, interpret)


_Inputs = tuple[Trunk, jax.Array, jax.Array]
_Outputs = tuple[jax.Array, jax.Array]


def _outputs(trunk: Trunk, market: jax.Array, observation: jax.Array, interpret: bool) -> _Outputs:
    rows, warps = _FORWARD
    sizes = _sizes(trunk, market, observation, rows)
    lanes = sizes.paths * sizes.lanes
    logits, value = pl.pallas_call(
        partial(_forward, sizes=sizes),
        grid=(sizes.tiles,),
        out_shape=(
            jax.ShapeDtypeStruct((lanes, sizes.actions), jnp.float32),
            jax.ShapeDtypeStruct((lanes,), jnp.float32),
        ),
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
        interpret=interpret,
        name="fused_trunk",
        metadata=work(market.dtype, lanes * sum(_products(trunk))),
    )(trunk, market, observation.reshape(lanes, -1))
    return logits.reshape(sizes.paths, sizes.lanes, -1), value.reshape(sizes.paths, sizes.lanes)


def _remember(trunk: Trunk, market: jax.Array, observation: jax.Array, interpret: bool) -> tuple[_Outputs, _Inputs]:
    return _outputs(trunk, market, observation, interpret), (trunk, market, observation)


def _gradients(interpret: bool, inputs: _Inputs, outputs: _Outputs) -> tuple[Trunk, jax.Array, None]:
    trunk, market, observation = inputs
    d_logits, d_value = outputs
    rows, warps = _BACKWARD
    sizes = _sizes(trunk, market, observation, rows)
    lanes, programs = sizes.paths * sizes.lanes, min(_PROGRAMS, sizes.tiles)
    weights, products = jax.eval_shape(lambda t: ravel_pytree(t)[0], trunk), _products(trunk)
    d_market, d_weights = pl.pallas_call(
        partial(_backward, sizes=sizes, tiles=pl.cdiv(sizes.tiles, programs)),
        grid=(programs,),
        out_shape=(
            jax.ShapeDtypeStruct((sizes.blocks, *market.shape), jnp.float32 if sizes.blocks > 1 else market.dtype),
            jax.ShapeDtypeStruct((programs, *weights.shape), jnp.float32),
        ),
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
        interpret=interpret,
        name="fused_trunk_gradients",
        # The forward again but for the heads; then each layer's kernel, and what went into it but for the observation.
        metadata=work(market.dtype, lanes * (3 * sum(products) - products[0] - products[-1])),
    )(trunk, market, observation.reshape(lanes, -1), d_logits.reshape(lanes, -1), d_value.reshape(lanes))
    back = ravel_pytree(trunk)[1]
    return back(d_weights.sum(0)), d_market.sum(0).astype(market.dtype), None


fused_trunk.defvjp(_remember, _gradients)


def _products(trunk: Trunk) -> list[int]:
    """Multiplications of a lane in each layer: the account's, the hidden ones', the heads'."""
    hidden = (layer.kernel.size for layer in trunk.hidden)
    return [trunk.account.size, *hidden, trunk.policy_head.kernel.size + trunk.value_head.kernel.size]


class _Sizes(NamedTuple):
    """G paths of L lanes with A observed, and how tiles cover them."""

    paths: int
    lanes: int
    observed: int
    width: int
    actions: int
    tile_paths: int
    tile_lanes: int  # of one path, a power of two

    @property
    def blocks(self) -> int:
        """Tiles side by side over the lanes of a path."""
        return pl.cdiv(self.lanes, self.tile_lanes)

    @property
    def tiles(self) -> int:
        return self.blocks * pl.cdiv(self.paths, self.tile_paths)


def _sizes(trunk: Trunk, market: jax.Array, observation: jax.Array, rows: int) -> _Sizes:
    paths, lanes, observed = observation.shape
    width, actions = market.shape[-1], trunk.policy_head.bias.shape[0]
    tile_lanes = min(rows, pl.next_power_of_2(lanes))
    return _Sizes(paths, lanes, observed, width, actions, rows // tile_lanes, tile_lanes)


# Inside the kernels.


class _Rows(NamedTuple):
    """What the rows of a tile are, each (rows,)."""

    path: jax.Array
    lane: jax.Array  # counted through all paths
    real: jax.Array  # tiles reach past the last path, and past the last lane of each


def _rows(sizes: _Sizes, tile: jax.Array) -> _Rows:
    blocks, tile_lanes = jnp.int32(sizes.blocks), jnp.int32(sizes.tile_lanes)
    n = numbers(sizes.tile_paths * sizes.tile_lanes)
    path = lax.div(tile, blocks) * sizes.tile_paths + lax.div(n, tile_lanes)
    lane = lax.rem(tile, blocks) * sizes.tile_lanes + lax.rem(n, tile_lanes)
    real = (path < sizes.paths) & (lane < sizes.lanes)
    return _Rows(path, place(path * sizes.lanes + lane, real, sizes.paths * sizes.lanes), real)


def _heads(trunk: Trunk, sizes: _Sizes) -> Layer:
    """Both heads in one: the policy's columns, then the value's, then zeros."""
    n, rows, columns = sizes.actions, numbers(sizes.width), numbers(padded(sizes.actions + 1))
    policy = load(trunk.policy_head.kernel, rows, rows < sizes.width, n, columns.shape[0])
    kernel = jnp.where(jnp.expand_dims(columns, 0) == n, trunk.value_head.kernel[...], policy)
    bias = triton.load(trunk.policy_head.bias.at[columns], mask=columns < n, other=0.0)
    return Layer(kernel, jnp.where(columns == n, trunk.value_head.bias[...], bias))


def _activations(
    trunk: Trunk, market: Any, observation: Any, rows: _Rows, sizes: _Sizes
) -> tuple[jax.Array, list[jax.Array]]:
    """What is observed (rows, padded A), and the hidden layers (rows, H)."""
    dtype, n, of = market.dtype, sizes.observed, numbers(padded(sizes.observed))
    observed = load(observation, rows.lane, rows.real, n, of.shape[0]).astype(dtype)
    account = load(trunk.account, of, of < n, sizes.width, sizes.width).astype(dtype)
    encoded = load(market, rows.path, rows.real, sizes.width, sizes.width)
    hidden = [jnp.maximum(encoded + dot(observed, account).astype(dtype), 0)]
    for layer in trunk.hidden:
        x = dot(hidden[-1], layer.kernel[...].astype(dtype)) + jnp.expand_dims(layer.bias[...], 0)
        hidden.append(jnp.maximum(x, 0).astype(dtype))
    return observed, hidden


def _forward(trunk: Trunk, market: Any, observation: Any, logits: Any, value: Any, *, sizes: _Sizes) -> None:
    rows = _rows(sizes, pl.program_id(0))
    _, hidden = _activations(trunk, market, observation, rows, sizes)
    heads = _heads(trunk, sizes)
    out = dot(hidden[-1], heads.kernel.astype(market.dtype)) + jnp.expand_dims(heads.bias, 0)
    row, column = table(rows.lane, numbers(out.shape[1]))
    triton.store(logits.at[row, column], out, mask=jnp.expand_dims(rows.real, 1) & (column < sizes.actions))
    triton.store(value.at[rows.lane], jnp.where(column == sizes.actions, out, 0.0).sum(1), mask=rows.real)


class _Sums(NamedTuple):
    """Gradients of the weights, padded as they are loaded."""

    account: jax.Array
    hidden: tuple[Layer, ...]
    heads: Layer


def _backward(
    trunk: Trunk,
    market: Any,
    observation: Any,
    d_logits: Any,
    d_value: Any,
    d_market: Any,
    d_weights: Any,
    *,
    sizes: _Sizes,
    tiles: int,
) -> None:
    program = pl.program_id(0)

    def add(tile: jax.Array, sums: _Sums) -> _Sums:
        rows = _rows(sizes, tile)
        seen = _activations(trunk, market, observation, rows, sizes)
        d = load(d_logits, rows.lane, rows.real, sizes.actions, padded(sizes.actions + 1))
        of_value = triton.load(d_value.at[rows.lane], mask=rows.real, other=0.0)
        column = jnp.expand_dims(numbers(d.shape[1]), 0)
        d = jnp.where(column == sizes.actions, jnp.expand_dims(of_value, 1), d)
        d, sums = _through_layers(trunk, seen, d, sums, market.dtype, sizes)
        _store_market(d_market, d, tile, sizes)
        return sums

    width, heads = sizes.width, padded(sizes.actions + 1)

    def zeros(*shape: int) -> jax.Array:
        return jnp.zeros(shape, jnp.float32)

    none = _Sums(
        account=zeros(padded(sizes.observed), width),
        hidden=tuple(Layer(zeros(width, width), zeros(width)) for _ in trunk.hidden),
        heads=Layer(zeros(width, heads), zeros(heads)),
    )
    sums = lax.fori_loop(program * tiles, (program + 1) * tiles, add, none)
    _store_sums(d_weights, program, sums, sizes)


def _through_layers(
    trunk: Trunk, seen: tuple[jax.Array, list[jax.Array]], d: jax.Array, sums: _Sums, dtype: Any, sizes: _Sizes
) -> tuple[jax.Array, _Sums]:
    """From the gradient of the heads' outputs to that of each lane's encoded market, and the weights' on the way."""
    observed, hidden = seen
    kernels = [*(layer.kernel for layer in trunk.hidden), _heads(trunk, sizes).kernel]
    before = [*sums.hidden, sums.heads]
    after: list[Layer] = []
    for kernel, x, layer in zip(reversed(kernels), reversed(hidden), reversed(before), strict=True):
        rounded = d.astype(dtype)
        after.append(Layer(layer.kernel + dot(x, rounded, (0, 0)), layer.bias + d.sum(0)))
        d = jnp.where(x > 0, dot(rounded, kernel[...].astype(dtype), (1, 1)), 0.0)
    account = sums.account + dot(observed, d.astype(dtype), (0, 0))
    return d, _Sums(account, tuple(reversed(after[1:])), after[0])


def _store_market(d_market: Any, d: jax.Array, tile: jax.Array, sizes: _Sizes) -> None:
    """The sums of each path over the lanes of a tile."""
    blocks = jnp.int32(sizes.blocks)
    path, column = table(lax.div(tile, blocks) * sizes.tile_paths + numbers(sizes.tile_paths), numbers(sizes.width))
    summed = d.reshape(sizes.tile_paths, sizes.tile_lanes, sizes.width).sum(1).astype(d_market.dtype)
    real = jnp.broadcast_to(path < sizes.paths, summed.shape)
    triton.store(d_market.at[lax.rem(tile, blocks), path, column], summed, mask=real)


def _store_sums(d_weights: Any, program: jax.Array, sums: _Sums, sizes: _Sizes) -> None:
    """A program's row of `d_weights` (programs, N): the leaves of a `Trunk`, one after another as in `ravel_pytree`."""
    begin = 0

    def put(x: jax.Array, first: int, n: int) -> None:
        """Rows of `x` up to the width or A, and n columns from `first` on."""
        nonlocal begin
        n_rows = min(x.shape[0], sizes.observed if x is sums.account else x.shape[0])
        row, column = table(numbers(x.shape[0]), numbers(x.shape[1]))
        real = (row < n_rows) & (column >= first) & (column < first + n)
        index = place(begin + row * n + column - first, real, d_weights.shape[1])
        triton.store(d_weights.at[program, index], x, mask=real)
        begin += n_rows * n

    put(sums.account, 0, sizes.width)
    for layer in sums.hidden:
        put(layer.kernel, 0, sizes.width)
        put(jnp.expand_dims(layer.bias, 0), 0, sizes.width)
    for first, n in ((0, sizes.actions), (sizes.actions, 1)):
        put(sums.heads.kernel, first, n)
        put(jnp.expand_dims(sums.heads.bias, 0), first, n)
