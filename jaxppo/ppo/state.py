"""What a run is: its static half, which is traced, and its state between two updates, which is saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Float, Int32

from jaxppo.agent.policy import Agent, Params
from jaxppo.config.schema import Config
from jaxppo.env.protocol import Env, State
from jaxppo.ppo.shard import Shard

E_co = TypeVar("E_co", bound=Env, covariant=True)


@dataclass(frozen=True)
class TrainSpec(Generic[E_co]):
    """Static half of a run: what is traced, not what is computed with."""

    config: Config
    agent: Agent
    env: E_co
    receptive_field: int  # bars
    mesh: Mesh | None = None  # of the devices that the run is divided over; None for one
    shard: Shard = Shard()  # inside the divided program: the paths of a device


class Hyper(NamedTuple):
    """Hyperparameters that one might sweep: float32 scalars, so that a population is one `jax.vmap`."""

    learning_rate: Float[jax.Array, ""]
    gamma: Float[jax.Array, ""]
    gae_lambda: Float[jax.Array, ""]
    clip: Float[jax.Array, ""]
    clip_value: Float[jax.Array, ""]  # 0 for none
    value_weight: Float[jax.Array, ""]
    entropy_start: Float[jax.Array, ""]
    entropy_end: Float[jax.Array, ""]
    entropy_anneal: Float[jax.Array, ""]
    cost_anneal: Float[jax.Array, ""]  # share of the updates; 0 for full costs from the first
    weight_decay: Float[jax.Array, ""]  # of the learning rate; 0 for none
    max_grad_norm: Float[jax.Array, ""]
    target_kl: Float[jax.Array, ""]  # 0 for none


def hyper_from(config: Config) -> Hyper:
    """The configured hyperparameters as float32 scalars."""
    return Hyper(**{name: jnp.float32(getattr(config.ppo, name)) for name in Hyper._fields})


class PathState(NamedTuple):
    """Where P paths are on the Tape."""

    symbol: Int32[jax.Array, " P"]
    t: Int32[jax.Array, " P"]  # next decision bar
    age: Int32[jax.Array, " P"]  # bars since the episode began


class Moments(NamedTuple):
    """Adam's memory of the gradients (Kingma and Ba 2015)."""

    mean: Float[jax.Array, " N"]
    square: Float[jax.Array, " N"]
    gradients: Int32[jax.Array, ""]  # how many are in it, which the bias is corrected for


class Learned(NamedTuple):
    """What gradients move."""

    params: Params
    moments: Moments


class Guard(NamedTuple):
    """The last good state of a run and the way back to it. One more `Learned` is all the memory that it takes."""

    good: Learned  # that an update without bad gradients began with
    streak: Int32[jax.Array, ""]  # bad updates in a row
    scale: Float[jax.Array, ""]  # of the learning rate; 1 until the first rollback, and never raised again


class TrainState(NamedTuple):
    """Everything that a run is, between two updates. Of an ensemble every array has an axis of members first."""

    params: Params
    moments: Moments
    steps: Int32[jax.Array, ""]  # gradient steps tried, which the step size's schedule reads; it never goes back
    paths: PathState  # (P,)
    lanes: State  # (P, L), the environment's own
    key: jax.Array  # key data; draws are functions of (key, update, env), so it never changes
    update: Int32[jax.Array, ""]  # updates done; env steps would overflow int32 at 2.1e9
    guard: Guard
