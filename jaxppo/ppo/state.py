"""What a run is: its static half, which is traced, and its state between two updates, which is saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxppo.agent.policy import Agent, Params
from jaxppo.config.schema import Config
from jaxppo.env.protocol import Env, State

E_co = TypeVar("E_co", bound=Env, covariant=True)


@dataclass(frozen=True)
class TrainSpec(Generic[E_co]):
    """Static half of a run: what is traced, not what is computed with."""

    config: Config
    agent: Agent
    env: E_co
    receptive_field: int  # bars


class Hyper(NamedTuple):
    """Hyperparameters that one might sweep: float32 scalars, so that a population is one `jax.vmap`."""

    learning_rate: jax.Array
    gamma: jax.Array
    gae_lambda: jax.Array
    clip: jax.Array
    clip_value: jax.Array  # 0 for none
    value_weight: jax.Array
    entropy_start: jax.Array
    entropy_end: jax.Array
    entropy_anneal: jax.Array
    max_grad_norm: jax.Array
    target_kl: jax.Array  # 0 for none


def hyper_from(config: Config) -> Hyper:
    """The configured hyperparameters as float32 scalars."""
    return Hyper(**{name: jnp.float32(getattr(config.ppo, name)) for name in Hyper._fields})


class PathState(NamedTuple):
    """Where P paths are on the Tape."""

    symbol: jax.Array  # (P,) int32
    t: jax.Array  # (P,) int32: next decision bar
    age: jax.Array  # (P,) int32: bars since the episode began


class Moments(NamedTuple):
    """Adam's memory of the gradients (Kingma and Ba 2015)."""

    mean: jax.Array  # (N,) float32
    square: jax.Array  # (N,) float32
    gradients: jax.Array  # () int32: how many are in it, which the bias is corrected for


class Learned(NamedTuple):
    """What gradients move."""

    params: Params  # (N,) float32
    moments: Moments


class Guard(NamedTuple):
    """The last good state of a run and the way back to it. One more `Learned` is all the memory that it takes."""

    good: Learned  # that an update without bad gradients began with
    streak: jax.Array  # () int32: bad updates in a row
    scale: jax.Array  # () float32: of the learning rate; 1 until the first rollback, and never raised again


class TrainState(NamedTuple):
    """Everything that a run is, between two updates."""

    params: Params  # (N,) float32
    moments: Moments
    steps: jax.Array  # () int32: gradient steps tried, which the step size's schedule reads; it never goes back
    paths: PathState  # (P,)
    lanes: State  # (P, L), the environment's own
    key: jax.Array  # key data; draws are functions of (key, update, env), so it never changes
    update: jax.Array  # () int32: updates done; env steps would overflow int32 at 2.1e9
    guard: Guard
