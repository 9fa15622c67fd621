"""What a check of self-deception says, and the comparison of bits that two of them rest on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import Agent, Params
from jaxppo.config.schema import Config
from jaxppo.env.trading import EnvSpec
from jaxppo.market.bars import Bars
from jaxppo.market.features import FeatureTable

Compute = Callable[[Bars], FeatureTable | np.ndarray]
"""Features of one symbol: a table, or an array (T,) or (T, F), one row a bar."""

Later = Callable[[Sequence[Bars], Sequence[int], np.random.Generator], Compute]
"""The same features where all that becomes known elsewhere after each symbol's bar (a row of each) is another."""


@dataclass(frozen=True)
class Check:
    """One check: a figure, what it is held against, and a verdict."""

    name: str
    passed: bool
    figure: str
    threshold: str
    explanation: str  # one or two sentences
    details: Mapping[str, Any] = field(default_factory=dict)  # plain values, for JSON


class Player(NamedTuple):
    """A policy and the environment that it plays in."""

    config: Config
    agent: Agent
    params: Params
    spec: EnvSpec

    @property
    def receptive_field(self) -> int:
        return receptive_field(self.config.agent)


def as_table(features: FeatureTable | np.ndarray) -> FeatureTable:
    """A table of what a `Compute` returned; columns of an array are called feature_0, feature_1 and so on."""
    if isinstance(features, FeatureTable):
        return features
    values = np.asarray(features)
    values = values[:, None] if values.ndim == 1 else values
    return FeatureTable(values, tuple(f"feature_{i}" for i in range(values.shape[1])), 1)


def differing_bits(a: Any, b: Any) -> np.ndarray:
    """Where two arrays of one shape and dtype differ in any bit: -0 differs from 0, a NaN equals the same NaN."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"cannot compare {a.dtype}{a.shape} with {b.dtype}{b.shape}")
    if a.dtype == bool:
        return a != b
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    return a.view(unsigned) != b.view(unsigned)


def differing_fields(a: Any, b: Any) -> dict[str, np.ndarray]:
    """`differing_bits` of every field of two named tuples, nested ones as outer.inner; what is None is left out."""
    found: dict[str, np.ndarray] = {}
    for name, x in a._asdict().items():
        y = getattr(b, name)
        if x is None:
            continue
        if hasattr(x, "_asdict"):
            found |= {f"{name}.{inner}": d for inner, d in differing_fields(x, y).items()}
        else:
            found[name] = differing_bits(jax.device_get(x), jax.device_get(y))
    return found
