"""Versions, the card, and its ceilings as measured here: bandwidth, matmul rates, what a launch costs."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.gpu.part import parser, seconds_each, write
from jaxppo.version import __version__

PACKAGES = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax", "optax", "chex", "orbax-checkpoint",
            "numpy", "polars")  # fmt: skip
MATMULS = {"tf32": ("float32", "default"), "float32": ("float32", "highest"), "bfloat16": ("bfloat16", "default")}
"""Name: dtype and precision. `default` of float32 is TF32 where the card has it."""
CHAIN = 4_096  # dependent kernels of a program that measures one


def versions() -> dict[str, str]:
    """Of the packages that are installed; jaxppo need not be."""
    found = {"jaxppo": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def repeated(one: Callable[[Any], Any], first: Any) -> Callable[[int], None]:
    """k calls, each of what the last gave, and one wait at the end."""

    def run(k: int) -> None:
        x = first
        for _ in range(k):
            x = one(x)
        jax.block_until_ready(x)

    return run


def measure(tiny: bool) -> dict[str, Any]:
    """All ceilings: TB/s, TFLOP/s and microseconds."""
    device = jax.devices()[0]
    seconds = 0.005 if tiny else 0.2
    found: dict[str, Any] = {
        "versions": versions(),
        "device": device.device_kind,
        "platform": device.platform,
        "memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
    }
    n_bytes = 1 << (20 if tiny else 30)
    add_one = jax.jit(lambda x: x + 1.0)
    big = jax.random.normal(jax.random.key(0), (n_bytes // 4,))
    found["copy_tb_s"] = 2 * n_bytes / seconds_each(repeated(add_one, big), seconds) / 1e12
    size, rows, width = (128, 512, 64) if tiny else (8_192, 65_536, 64)
    for name, (dtype, precision) in MATMULS.items():
        product = jax.jit(lambda a, b, p=precision: jnp.matmul(a, b, precision=p))
        square = jax.random.normal(jax.random.key(1), (size, size), jnp.dtype(dtype))
        each = seconds_each(repeated(lambda _, x=square, f=product: f(x, x), square), seconds)
        found[f"{name}_tflops"] = 2 * size**3 / each / 1e12
        # The trunk's shape: as many rows as a minibatch of production has, 64 wide.
        thin = jnp.full((rows, width), 0.3, jnp.dtype(dtype))
        weights = jax.random.normal(jax.random.key(2), (width, width), jnp.dtype(dtype))
        each = seconds_each(repeated(lambda x, w=weights, f=product: f(x, w), thin), seconds)
        found[f"{name}_thin_us"] = 1e6 * each
    eight = jnp.zeros(8)
    found["dispatch_us"] = 1e6 * seconds_each(repeated(add_one, eight), seconds)  # of a jitted call from Python
    for name, unroll in (("loop_turn_us", 1), ("chained_kernel_us", 64)):
        each = seconds_each(repeated(chain(unroll), eight), seconds, 2)
        found[name] = 1e6 * each / CHAIN
    return found


def chain(unroll: int) -> Callable[[Any], Any]:
    """A program of `CHAIN` small kernels that wait for each other, in a loop of which a turn has `unroll` of them."""

    def one(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jax.lax.optimization_barrier(jnp.sin(x) + 1.0), None

    return jax.jit(lambda x: jax.lax.scan(one, x, None, length=CHAIN, unroll=unroll)[0])


def main() -> None:
    args = parser(__doc__).parse_args()
    write(args.out, measure(args.tiny))


if __name__ == "__main__":
    main()
