"""The TCN and the projection of its outputs as one GPU kernel forward and one backward, in Pallas on Triton.

Written out in XLA a minibatch takes 16 kernels forward and 40 backward, and the layers' rows go to memory and back
several times. Here a program takes whole paths through all layers, and back.

Triton cannot shift an array in time. So a layer stores what it puts out, a barrier waits for the program's threads, and
the next layer loads it twice, `dilation` rows apart: what is in the L2 cache then is what the gradient needs anyway.
Rows count as in `TCN`, from the first that the outputs need: a layer of dilation d has d rows fewer out than in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.flatten_util import ravel_pytree

from jaxppo.agent.tiles import Layer, Part, dot, load, numbers, padded, store, table, work

# Rows of a chunk and warps of a program, by what ptxas says of production's sizes. On an H100 4 bytes a thread of the
# backward are spilled, on an A100 48. With 64 channels it is 2 KiB on an H100 and 80 KiB on an A100.
_FORWARD, _BACKWARD = (64, 4), (64, 4)
# Without a gradient, a program takes one piece after another, so that what 512 of them store between layers stays in
# the cache: 9 MB of 72 bars. In the backward each has one sum of the weights' gradients; a production minibatch has 256
# paths, and two programs of 255 registers a thread fit on each of an H100's 132 cores and an A100's 108 (of 65,536).
_FORWARD_PROGRAMS, _BACKWARD_PROGRAMS = 512, 256
# Outputs of a piece at most. A longer path is cut, and each piece reads the bars before it again.
_OUTPUTS = 64
_HALVED = 0.5**0.5


class Encoding(NamedTuple):
    """The float32 weights between features and the trunk; inside a kernel, parts of a vector of them."""

    embed: Layer  # (F, C) and (C,)
    layers: tuple[Layer, ...]  # (2 C, C) and (C,), of dilations 1, 2, 4, ...
    market: Layer  # (C, H) and (H,)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def fused_encode(weights: Encoding, features: jax.Array, dtype: Any, interpret: bool = False) -> jax.Array:
    """Encoded and projected bars of paths: two kernels for value and gradient.

    Matmuls take `dtype`, add up in float32 and, as XLA's, round float32 to TF32 unless `jax.default_matmul_precision`
    says otherwise. The gradient is summed in a fixed order: the same bits every time.

    Args:
      weights: float32, of a window of R bars; C 16 or 32, H 16, 32 or 64.
      features: (P, R - 1 + n, F) float32. They are data: their gradient is 0.
      dtype: float32 or bfloat16.
      interpret: run the kernels on the CPU, slowly, to test them.

    Returns:
      (P, n, H), of `dtype`.
    """
    sizes = _sizes(weights, features, dtype, interpret)
    return _encode(weights, features, sizes._replace(programs=min(_FORWARD_PROGRAMS, sizes.pieces)))[0]


def _remember(
    weights: Encoding, features: jax.Array, dtype: Any, interpret: bool
) -> tuple[jax.Array, tuple[Encoding, jax.Array, jax.Array]]:
    sizes = _sizes(weights, features, dtype, interpret)
    out, stored = _encode(weights, features, sizes._replace(programs=sizes.pieces, remember=True))
    return out, (weights, features, stored)


def _encode(weights: Encoding, features: jax.Array, sizes: _Sizes) -> tuple[jax.Array, jax.Array]:
    rows, warps = _FORWARD
    out, stored = pl.pallas_call(
        partial(_forward, sizes=sizes._replace(chunk=rows)),
        grid=(sizes.programs,),
        out_shape=(
            jax.ShapeDtypeStruct((sizes.paths * sizes.outputs, sizes.width), sizes.dtype),
            jax.ShapeDtypeStruct((sizes.programs * sizes.stored, sizes.channels), sizes.dtype),
        ),
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
        interpret=sizes.interpret,
        name="fused_tcn",
        metadata=work(sizes.dtype, sizes.pieces * sum(_products(sizes))),
    )(ravel_pytree(weights)[0], features.reshape(-1, sizes.features))
    return out.reshape(sizes.paths, sizes.outputs, sizes.width), stored


def _gradients(
    dtype: Any, interpret: bool, inputs: tuple[Encoding, jax.Array, jax.Array], d_out: jax.Array
) -> tuple[Encoding, None]:
    weights, features, stored = inputs
    sizes = _sizes(weights, features, dtype, interpret)
    rows, warps = _BACKWARD
    sizes = sizes._replace(programs=min(_BACKWARD_PROGRAMS, sizes.pieces), remember=True, chunk=rows)
    flat, back = ravel_pytree(weights)
    slots = 2 * sizes.pieces * sizes.rows(1)
    d_weights, *_ = pl.pallas_call(
        partial(_backward, sizes=sizes),
        grid=(sizes.programs,),
        out_shape=(
            jax.ShapeDtypeStruct((sizes.programs, *flat.shape), jnp.float32),
            jax.ShapeDtypeStruct((slots, sizes.channels), jnp.float32),
            jax.ShapeDtypeStruct((slots, sizes.channels), dtype),
        ),
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
        interpret=interpret,
        name="fused_tcn_gradients",
        metadata=work(sizes.dtype, sizes.pieces * _gradient_products(sizes)),
    )(flat, features.reshape(-1, sizes.features), stored, d_out.reshape(-1, sizes.width))
    return back(d_weights.sum(0)), None


fused_encode.defvjp(_remember, _gradients)


class _Sizes(NamedTuple):
    """P paths cut into pieces, and how programs take them."""

    paths: int
    bars: int
    features: int
    channels: int
    width: int
    layers: int
    dtype: Any
    interpret: bool
    programs: int = 1
    remember: bool = False  # store the rows of all layers, for the gradient
    chunk: int = 16  # rows at once, a power of two

    @property
    def outputs(self) -> int:
        """n of a path."""
        return self.bars - (1 << self.layers) + 1

    @property
    def piece_outputs(self) -> int:
        return min(self.outputs, max(_OUTPUTS, 1 << self.layers))

    @property
    def cuts(self) -> int:
        """Pieces of a path."""
        return pl.cdiv(self.outputs, self.piece_outputs)

    @property
    def pieces(self) -> int:
        return self.paths * self.cuts

    @property
    def share(self) -> int:
        """Pieces of a program."""
        return pl.cdiv(self.pieces, self.programs)

    def rows(self, layer: int) -> int:
        """Rows of a piece that go into a layer; what goes into the one after the last are the outputs."""
        return self.piece_outputs + (1 << self.layers) - (1 << layer)

    def first(self, layer: int) -> int:
        """Where the rows that go into a layer are stored, in those of their piece."""
        return sum(self.rows(i) for i in range(layer)) if self.remember else layer % 2 * self.rows(0)

    @property
    def stored(self) -> int:
        """Rows stored of a piece: of every layer, or of two in turn."""
        return self.first(self.layers) if self.remember else 2 * self.rows(0)


def _sizes(weights: Encoding, features: jax.Array, dtype: Any, interpret: bool) -> _Sizes:
    (paths, bars, n), (channels, width) = features.shape, weights.market.kernel.shape
    return _Sizes(paths, bars, n, channels, width, len(weights.layers), jnp.dtype(dtype), interpret)


def _products(sizes: _Sizes) -> list[int]:
    """Multiplications of a piece in each layer: the embedding's, the convolutions', the projection's."""
    layers = [sizes.rows(i + 1) * 2 * sizes.channels**2 for i in range(sizes.layers)]
    embed, market = sizes.features * sizes.channels, sizes.channels * sizes.width
    return [sizes.rows(0) * embed, *layers, sizes.piece_outputs * market]


def _gradient_products(sizes: _Sizes) -> int:
    """The layers again and their kernels' gradients; that of what went into each, of all its rows; the other two's."""
    embed, *layers, market = _products(sizes)
    into = sum(sizes.rows(i) * 2 * sizes.channels**2 for i in range(sizes.layers))
    return embed + 2 * sum(layers) + into + 2 * market


# Inside the kernels.


class _Rows(NamedTuple):
    """What the rows of a chunk are, each (rows,)."""

    piece: jax.Array
    row: jax.Array  # of the piece
    real: jax.Array  # chunks reach past the last row


def _parts(vector: Any, sizes: _Sizes) -> Encoding:
    """The weights in the vector that `ravel_pytree` makes of them."""
    begin = 0

    def layer(n_in: int, n_out: int) -> Layer:
        nonlocal begin
        kernel = Part(vector, begin, (n_in, n_out))
        begin += n_in * n_out + n_out
        return Layer(kernel, Part(vector, begin - n_out, (n_out,)))

    n = sizes.channels
    embed, layers = layer(sizes.features, n), tuple(layer(2 * n, n) for _ in range(sizes.layers))
    return Encoding(embed, layers, layer(n, sizes.width))


def _each_chunk(
    sizes: _Sizes, first: jax.Array, pieces: int, layer: int, add: Callable[[_Rows, Any], Any], sums: Any
) -> Any:
    """`add` over all rows that go into `layer` of the pieces from `first` on, chunk by chunk."""
    rows = sizes.rows(layer)
    chunk = min(sizes.chunk, padded(pieces * rows))

    def body(i: jax.Array, sums: Any) -> Any:
        n = i * chunk + numbers(chunk)
        piece = first + lax.div(n, jnp.int32(rows))
        return add(_Rows(piece, lax.rem(n, jnp.int32(rows)), (n < pieces * rows) & (piece < sizes.pieces)), sums)

    return lax.fori_loop(0, pl.cdiv(pieces * rows, chunk), body, sums)


def _in_path(sizes: _Sizes, at: _Rows, n: int) -> tuple[jax.Array, jax.Array]:
    """Rows of (P n, .) that are rows of pieces, and whether they are real: the last piece reaches past its path."""
    cuts = jnp.int32(sizes.cuts)
    row = lax.rem(at.piece, cuts) * sizes.piece_outputs + at.row
    return lax.div(at.piece, cuts) * n + row, at.real & (row < n)


def _shifted(ref: Any, first: jax.Array, at: _Rows, by: int, n: int, sizes: _Sizes) -> jax.Array:
    """Of the n rows of each piece that are stored from `first` on, those `by` later than the chunk's; 0 outside."""
    row = at.row + by
    return load(ref, first + row, at.real & (row >= 0) & (row < n), sizes.channels, sizes.channels)


def _embedded(weights: Encoding, features: Any, at: _Rows, sizes: _Sizes) -> tuple[jax.Array, jax.Array]:
    """The features of rows that go into the first layer, (rows, padded F), and what they are embedded as, float32."""
    n = sizes.features
    x = load(features, *_in_path(sizes, at, sizes.bars), n, padded(n)).astype(sizes.dtype)
    return x, dot(x, weights.embed.kernel.rows(0, n).astype(sizes.dtype)) + weights.embed.bias.row()


def _kernels(layer: Layer, sizes: _Sizes) -> tuple[jax.Array, jax.Array]:
    """A layer's kernel for what is past, and that for what is now, (C, C) each."""
    n = sizes.channels
    return layer.kernel.rows(0, n).astype(sizes.dtype), layer.kernel.rows(n, n).astype(sizes.dtype)


class _Seen(NamedTuple):
    """What a layer computes of a chunk, (rows, C)."""

    past: jax.Array
    now: jax.Array
    inner: jax.Array  # float32, before its relu
    out: jax.Array


def _layer(layer: Layer, i: int, stored: Any, piece: jax.Array, at: _Rows, sizes: _Sizes) -> _Seen:
    """Layer i for rows that come out of it; `piece` counts through those stored."""
    first = piece * sizes.stored + sizes.first(i)
    past, now = (_shifted(stored, first, at, by, sizes.rows(i), sizes) for by in (0, 1 << i))
    of_past, of_now = _kernels(layer, sizes)
    inner = dot(past, of_past) + dot(now, of_now) + layer.bias.row()
    out = (now.astype(jnp.float32) + jnp.maximum(inner, 0.0)) * _HALVED
    return _Seen(past, now, inner, out.astype(sizes.dtype))


def _wait(sizes: _Sizes) -> None:
    """Until all threads of the program have stored."""
    if not sizes.interpret:
        triton.debug_barrier()


def _projected(weights: Encoding, x: jax.Array, sizes: _Sizes) -> jax.Array:
    kernel = weights.market.kernel.rows(0, sizes.channels).astype(sizes.dtype)
    projected: jax.Array = dot(x, kernel) + weights.market.bias.row()
    return projected


def _forward(vector: Any, features: Any, out: Any, stored: Any, *, sizes: _Sizes) -> None:
    program, weights = pl.program_id(0), _parts(vector, sizes)

    def encode(piece: jax.Array, nothing: int) -> int:
        def keep(x: jax.Array, layer: int, at: _Rows) -> None:
            store(stored, program * sizes.stored + sizes.first(layer) + at.row, at.real, x)

        def embed(at: _Rows, nothing: int) -> int:
            keep(_embedded(weights, features, at, sizes)[1], 0, at)
            return nothing

        def through(i: int, at: _Rows, nothing: int) -> int:
            x = _layer(weights.layers[i], i, stored, program, at, sizes).out
            if i + 1 < sizes.layers:
                keep(x, i + 1, at)
            else:
                store(out, *_in_path(sizes, at, sizes.outputs), _projected(weights, x, sizes))
            return nothing

        _each_chunk(sizes, piece, 1, 0, embed, 0)
        for i in range(sizes.layers):
            _wait(sizes)
            _each_chunk(sizes, piece, 1, i + 1, partial(through, i), 0)
        _wait(sizes)  # the next piece is stored over this one
        return nothing

    lax.fori_loop(program * sizes.share, (program + 1) * sizes.share, encode, 0)


class _Refs(NamedTuple):
    """What a backward reads, and what it stores between layers: two layers' rows in turn."""

    weights: Encoding
    features: Any
    stored: Any
    d_out: Any
    d_after: Any  # gradients of what comes out of a layer, float32
    d_inner: Any  # and of what its relu takes


_Sums = tuple[jax.Array, ...]


def _slot(i: int, at: _Rows, sizes: _Sizes) -> jax.Array:
    """Where gradients of layer i are stored."""
    return (i % 2 * sizes.pieces + at.piece) * sizes.rows(1)


def _into(refs: _Refs, i: int, at: _Rows, sizes: _Sizes) -> jax.Array:
    """Gradient of rows that go into layer i, by those that come out: a row is now for one and past for another."""
    of_past, of_now = _kernels(refs.weights.layers[i], sizes)
    first, n, later = _slot(i, at, sizes), sizes.rows(i + 1), -(1 << i)
    d = _shifted(refs.d_after, first, at, later, n, sizes) * _HALVED
    d = d + dot(_shifted(refs.d_inner, first, at, later, n, sizes), of_now, (1, 1))
    return d + dot(_shifted(refs.d_inner, first, at, 0, n, sizes), of_past, (1, 1))


def _through(refs: _Refs, i: int, sizes: _Sizes, at: _Rows, sums: _Sums) -> _Sums:
    """Stores the gradients of layer i for the one before; adds those of its weights to `sums`, and the projection's."""
    bias, past, now, *projected = sums
    seen = _layer(refs.weights.layers[i], i, refs.stored, at.piece, at, sizes)
    if projected:
        d_out = load(refs.d_out, *_in_path(sizes, at, sizes.outputs), sizes.width, sizes.width)
        projected = [projected[0] + d_out.astype(jnp.float32).sum(0), projected[1] + dot(seen.out, d_out, (0, 0))]
        d = dot(d_out, refs.weights.market.kernel.rows(0, sizes.channels).astype(sizes.dtype), (1, 1))
    else:
        d = _into(refs, i + 1, at, sizes)
    inner = jnp.where(seen.inner > 0, d * _HALVED, 0.0)
    rounded = inner.astype(sizes.dtype)
    place = _slot(i, at, sizes) + at.row
    store(refs.d_after, place, at.real, d)
    store(refs.d_inner, place, at.real, rounded)
    past, now = past + dot(seen.past, rounded, (0, 0)), now + dot(seen.now, rounded, (0, 0))
    return bias + inner.sum(0), past, now, *projected


def _embed(refs: _Refs, sizes: _Sizes, at: _Rows, sums: _Sums) -> _Sums:
    d, x = _into(refs, 0, at, sizes), _embedded(refs.weights, refs.features, at, sizes)[0]
    return sums[0] + d.sum(0), sums[1] + dot(x, d.astype(sizes.dtype), (0, 0))


def _backward(
    vector: Any,
    features: Any,
    stored: Any,
    d_out: Any,
    d_weights: Any,
    d_after: Any,
    d_inner: Any,
    *,
    sizes: _Sizes,
) -> None:
    """Layer by layer from the last, each for all pieces of the program."""
    weights = _parts(vector, sizes)
    refs = _Refs(weights, features, stored, d_out, d_after, d_inner)
    channels, width, program = sizes.channels, sizes.width, pl.program_id(0)

    def each_chunk(layer: int, add: Callable[[_Rows, _Sums], _Sums], *shapes: tuple[int, ...]) -> _Sums:
        none = tuple(jnp.zeros(shape, jnp.float32) for shape in shapes)
        sums: _Sums = _each_chunk(sizes, program * sizes.share, sizes.share, layer, add, none)
        return sums

    def put(part: Part, x: jax.Array, first: int, n: int) -> None:
        """The first n rows of `x` from row `first` on of the same part of the program's row of `d_weights`."""
        row, column = table(numbers(x.shape[0]), numbers(x.shape[1]))
        at = part.begin + (first + row) * x.shape[1] + column
        triton.store(d_weights.at[program, at], x, mask=jnp.broadcast_to(row < n, x.shape))

    def put_layer(layer: Layer, bias: jax.Array, *kernel: jax.Array, n: int) -> None:
        put(layer.bias, jnp.expand_dims(bias, 0), 0, 1)
        for i, part in enumerate(kernel):
            put(layer.kernel, part, i * n, n)

    square = (channels, channels)
    for i in reversed(range(sizes.layers)):
        projection = ((width,), (channels, width)) if i + 1 == sizes.layers else ()
        sums = each_chunk(i + 1, partial(_through, refs, i, sizes), (channels,), square, square, *projection)
        put_layer(weights.layers[i], *sums[:3], n=channels)
        if projection:
            put_layer(weights.market, *sums[3:], n=channels)
        _wait(sizes)
    sums = each_chunk(0, partial(_embed, refs, sizes), (channels,), (padded(sizes.features), channels))
    put_layer(weights.embed, *sums, n=sizes.features)
