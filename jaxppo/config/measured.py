"""What was measured on devices, in one place: `auto` chooses by it, and the planner's model of a GPU is set by it.

GPU: one H100 80GB on 2026-11-26, jax 0.11.2 and CUDA 13, the program of commit 5b19398, which is before the work that
reduces kernels (`benchmarks/RESULTS.md`, "One H100 80GB"). What the program of a run does is counted by `jaxppo.plan`,
from that commit compiled for an H100: of two updates and a validation it counts 143,948 kernels, and a profile on the
card saw 144,026. CPU: 2 cores of an AMD EPYC (`benchmarks/RESULTS.md`, "Throughput" and "Where an update's time goes").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

CARD = "h100-80gb"  # as the planner calls it
CARD_TITLE = "an H100"
WHEN = "2026-11-26"
PEAK_MIB = 298  # of memory, with 131,072 envs x 8 steps in float32
BARS = 3_346  # of every validation below

# Each measured alone.
COPY_BANDWIDTH = 3.0e12  # bytes a second, read and written
# FLOP/s of a matmul of 8,192 x 8,192, by type of its inputs; float32 is TF32 unless "f32_highest".
MATMUL_FLOPS: Mapping[str, float] = MappingProxyType(
    {"bf16": 754e12, "f16": 754e12, "f32": 378e12, "f32_highest": 52e12}
)
DISPATCH_SECONDS = 37e-6  # a call of a compiled program from Python
TURN_SECONDS = 7.1e-6  # a turn of a loop, whose body is a CUDA graph, with next to nothing in it
KERNEL_SECONDS = 0.75e-6  # one more kernel in a CUDA graph, with next to no work

# Set by the runs below: what a kernel with a matmul or a reduction in it takes beside its work. By least squares of the
# relative errors; with any one of the runs left out it is 2.85 to 3.00 us.
COMBINING_SECONDS = 2.9e-6
# Not measured: what XLA's own performance model added a kernel before there were CUDA graphs.
LAUNCH_SECONDS = 5e-6


@dataclass(frozen=True)
class Part:
    """An update or a validation: what was measured, and what its program does."""

    seconds: float  # measured
    kernels: int
    combining: int  # of them, those with a matmul or a reduction
    gigabytes: float  # that all of them move
    short_turns: int = 0  # of loops whose kernels take 3.3 us: advantages, bar by bar


@dataclass(frozen=True)
class MeasuredRun:
    """A run on the card; `seconds` is what all its updates and validations took."""

    title: str
    sizes: Mapping[str, Any]  # with the defaults of all other fields
    n_updates: int
    n_validations: int
    seconds: float
    update: Part
    validation: Part
    graphs: bool = True  # CUDA graphs, as XLA makes them by default
    patched: bool = False  # a trial with another program


_PRODUCTION = {"n_envs": 131_072, "lanes": 32, "n_steps": 8, "epochs": 4, "minibatches": 16, "compute_dtype": "float32"}
_BF16 = {**_PRODUCTION, "compute_dtype": "bfloat16"}
FLOAT32 = MeasuredRun(
    "float32", _PRODUCTION, 477, 13, 17.0,
    Part(32.1e-3, 8_342, 5_449, 46.514, 8), Part(131e-3, 127_264, 16_792, 0.370),
)  # fmt: skip
BFLOAT16 = MeasuredRun(
    "bfloat16", _BF16, 477, 13, 14.6,
    Part(26.9e-3, 8_624, 5_513, 26.613, 8), Part(139e-3, 130_618, 16_792, 0.293),
)  # fmt: skip
FOUR_MINIBATCHES = MeasuredRun(
    "bfloat16, 4 minibatches", {**_BF16, "minibatches": 4}, 477, 13, 8.9,
    Part(14.8e-3, 2_527, 1_481, 24.320, 8), Part(140e-3, 130_618, 16_792, 0.293),
)  # fmt: skip
PACKED = MeasuredRun(
    "the same, outputs packed into rows, 8 bars a turn", FOUR_MINIBATCHES.sizes, 477, 13, 6.8,
    Part(12.6e-3, 2_309, 1_472, 24.298), Part(59e-3, 32_343, 16_790, 0.252), patched=True,
)  # fmt: skip
LONG_ROLLOUT = MeasuredRun(
    "float32, 32 steps", {**_PRODUCTION, "n_steps": 32}, 119, 4, 8.9,
    Part(70.0e-3, 9_446, 5_737, 139.714, 32), Part(132e-3, 127_264, 16_792, 0.370),
)  # fmt: skip
NO_GRAPHS = MeasuredRun(
    "float32, no CUDA graphs", _PRODUCTION, 477, 13, 26.8,
    Part(36.6e-3, 8_342, 5_449, 46.514, 8), Part(719e-3, 127_264, 16_792, 0.370), graphs=False,
)  # fmt: skip
# What they learn, on a CPU: the Sharpe ratio, rebalanced daily, of walk-forwards over 38 futures with 512 envs and 160
# updates, five seeds (`benchmarks/RESULTS.md`, "Minibatches and steps a rollout"). Of 131,072 envs it was not measured.
SHARPE_SIXTEEN, SHARPE_FOUR, SHARPE_FOUR_FASTER, SHARPE_LONG = 1.74, 1.66, 1.72, 1.63
RUNS = (FLOAT32, BFLOAT16, FOUR_MINIBATCHES, PACKED, LONG_ROLLOUT, NO_GRAPHS)


CPU_TITLE = "2 cores of an AMD EPYC"
# Env steps a second of updates on it. By envs, 32 steps, 4 minibatches, in turns in one process.
CPU_BY_ENVS: Mapping[int, int] = MappingProxyType({2_048: 263_076, 16_384: 307_924, 131_072: 264_550})
# The shape of `production` in float32 and in bfloat16, and by its minibatches.
CPU_BY_DTYPE: Mapping[str, int] = MappingProxyType({"float32": 310_000, "bfloat16": 225_000})
CPU_BY_MINIBATCHES: Mapping[int, int] = MappingProxyType({16: 261_000, 64: 258_000, 128: 279_000})
