"""How a run lies over devices: members of an ensemble and paths are divided among them, all else is on each.

The updates are one `jax.shard_map` over a mesh of two axes. Members never speak to each other. Devices that divide the
paths of a policy agree on its gradients, once a minibatch, and on a few scalars once an update; paths, lanes and
samples never leave their device. What is drawn for a path is drawn by its number in the whole run, so that random
numbers do not depend on how many devices there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxppo.config.schema import Config
from jaxppo.errors import ConfigError
from jaxppo.ppo.shard import PATH
from jaxppo.ppo.state import TrainState

MEMBER = "member"
"""Axis of the mesh that divides the members of an ensemble or a population."""
EVERYWHERE = PartitionSpec()
BLOCKS = 8
"""Blocks of paths that a minibatch is drawn from where several devices divide them and nothing else was asked for: runs
on 2, 4 and 8 devices then draw the same minibatches."""
T = TypeVar("T")


def check_devices(config: Config, devices: int, available: int, members: bool = False) -> None:
    """`ConfigError` where a run cannot be divided over so many devices.

    Args:
      config: checked.
      devices: how many are asked for.
      available: how many there are.
      members: they divide members of a population, of which there may be any number.
    """
    if devices < 1:
        raise ConfigError(f"devices: must be at least 1, or all, got {devices}")
    if devices > available:
        raise ConfigError(f"devices: {devices} are asked for and there are {available}; give at most that, or all")
    if not members and not _fits(config, devices):
        fit = [str(n) for n in range(1, available + 1) if _fits(config, n)]
        raise ConfigError(
            f"devices: {devices} do not divide the {config.n_paths:,} paths (n_envs {config.budget.n_envs:,} / lanes"
            f" {config.budget.lanes}) into {config.ppo.minibatches} minibatches each{_blocks_text(config)}:"
            f" {' or '.join(fit)} would"
        )


def _blocks_text(config: Config) -> str:
    return f", in {config.ppo.blocks} blocks" if config.ppo.blocks > 1 else ""


def _fits(config: Config, devices: int) -> bool:
    over = devices // math.gcd(config.budget.seeds, devices)
    if config.ppo.blocks > 1:
        return config.ppo.blocks % over == 0
    return config.n_paths % (over * config.ppo.minibatches) == 0


def default_blocks(config: Config, devices: int) -> int:
    """Blocks of paths where none are asked for: `BLOCKS`, or as many as fit and the devices divide."""
    over = devices // math.gcd(config.budget.seeds, devices)
    if over == 1:
        return 1
    fit = math.gcd(BLOCKS, config.n_paths // config.ppo.minibatches)
    return fit if fit % over == 0 else over


def make_mesh(devices: Sequence[jax.Device], seeds: int) -> Mesh | None:
    """The mesh of a run: as many devices as possible divide its members, the rest their paths; None for one device."""
    if len(devices) == 1:
        return None
    members = math.gcd(seeds, len(devices))
    shape = (members, len(devices) // members)
    return jax.make_mesh(shape, (MEMBER, PATH), axis_types=(AxisType.Auto, AxisType.Auto), devices=devices)


def state_specs(state: TrainState) -> TrainState:
    """How the arrays of a train state are divided, a `PartitionSpec` each."""
    of_member = of_members(state)
    of_path = PartitionSpec(*of_member, PATH)
    specs: TrainState = jax.tree.map(lambda _: of_member, state)
    return specs._replace(
        paths=jax.tree.map(lambda _: of_path, state.paths), lanes=jax.tree.map(lambda _: of_path, state.lanes)
    )


def of_members(state: TrainState) -> PartitionSpec:
    """How a figure of each member is divided, or of the one policy there is."""
    return PartitionSpec(MEMBER) if state.params.ndim == 2 else EVERYWHERE


def shardings(mesh: Mesh, specs: Any) -> Any:
    """The `PartitionSpec`s of a tree as shardings on the mesh."""
    return jax.tree.map(lambda s: NamedSharding(mesh, s), specs, is_leaf=lambda x: isinstance(x, PartitionSpec))


def pin(mesh: Mesh, tree: T, specs: Any) -> T:
    """Arrays of a program, to lie as `specs` say."""
    pinned: T = jax.lax.with_sharding_constraint(tree, shardings(mesh, specs))
    return pinned


def place(mesh: Mesh | None, tree: T, specs: Any = EVERYWHERE) -> T:
    """Arrays that every process has as a whole, on the devices as `specs` say; as they are where there is no mesh.

    Args:
      mesh: of all processes.
      tree: arrays, or numpy's.
      specs: of each, or one for all.
    """
    if mesh is None:
        return tree
    if isinstance(specs, PartitionSpec):
        specs = jax.tree.map(lambda _, s=specs: s, tree)

    def one(x: Any, sharding: NamedSharding) -> Any:
        if sharding.is_fully_addressable:
            return jax.device_put(x, sharding)
        local = np.asarray(x)
        return jax.make_array_from_callback(local.shape, sharding, lambda index: local[index])

    placed: T = jax.tree.map(one, tree, shardings(mesh, specs))
    return placed


def shapes_at(tree: T, places: Any) -> T:
    """Shapes of arrays that lie as the shardings `places` say."""
    shapes: T = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, places)
    return shapes


def fetch(tree: T) -> T:
    """Copies of arrays on the host, as a whole, on every process; all processes must ask for the same."""

    def one(x: Any) -> np.ndarray:
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            x = multihost_utils.process_allgather(x, tiled=True)
        return np.array(x)

    fetched: T = jax.tree.map(one, tree)
    return fetched
