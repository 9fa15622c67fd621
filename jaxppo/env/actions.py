"""Action tables: what an action index asks for, as data that a checkpoint can keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.config.schema import EnvConfig
from jaxppo.errors import ConfigError
from jaxppo.registry import Registry


@dataclass(frozen=True)
class ActionTable:
    """K actions. An action keeps the position, or asks for exposure `scale * exposure + offset`.

    `scale` is 0 for an absolute target and 1 for an order of `offset` times equity on top of the position.
    """

    name: str
    labels: tuple[str, ...]
    keep: tuple[bool, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @property
    def n_actions(self) -> int:
        return len(self.labels)


# .5 - .5 of exposure can be 6e-8 in float32; a target below this is flat.
DUST = 1e-6
_SIZES = (0.25, 0.50, 0.75)


def _sized(close: bool) -> ActionTable:
    percent = [f"{round(100 * s)}" for s in _SIZES]
    labels = ("hold", *(f"buy_{p}" for p in percent), *(f"sell_{p}" for p in percent))
    n = 2 * len(_SIZES)
    table = ActionTable(
        "sized", labels, (True,) + (False,) * n, (1.0,) * (n + 1), (0.0, *_SIZES, *(-s for s in _SIZES))
    )
    if not close:
        return table
    return ActionTable(
        "sized_close", (*labels, "close"), (*table.keep, False), (*table.scale, 0.0), (*table.offset, 0.0)
    )


def _hold_buy_sell(env: EnvConfig) -> ActionTable:
    most = env.max_exposure if env.size_by == "equity" else 1.0  # of a size, which is capped at max_exposure itself
    keep = (True, False, False)
    return ActionTable("hold_buy_sell", ("hold", "buy", "sell"), keep, (0.0,) * 3, (0.0, most, -most))


def _targets(env: EnvConfig) -> ActionTable:
    if len(env.targets) < 2 or len(set(env.targets)) < len(env.targets):
        raise ConfigError(f"targets: need at least two different target exposures, got {list(env.targets)}")
    beyond = [t for t in env.targets if not np.isfinite(t) or abs(t) > env.max_exposure]
    if beyond:
        raise ConfigError(
            f"targets: {beyond[0]} is beyond max_exposure {env.max_exposure}; raise it or drop the target"
        )
    if max(env.targets) < 0:
        raise ConfigError(
            f"targets: all of {list(env.targets)} are short, which some symbols forbid; add 0 or a long one"
        )
    n = len(env.targets)
    labels = tuple(f"target_{t:+g}" for t in env.targets)
    return ActionTable("targets", labels, (False,) * n, (0.0,) * n, tuple(float(t) for t in env.targets))


@dataclass(frozen=True)
class ActionKind:
    """An action table that a configuration may name: an entry of `ACTION_TABLES`."""

    name: str
    help: str
    make: Callable[[EnvConfig], ActionTable]  # `ConfigError` for exposures that cannot be traded


ACTION_TABLES = Registry(
    "choice",
    [
        ActionKind("hold_buy_sell", "keep, or all long, or all short", _hold_buy_sell),
        ActionKind("sized", "keep, or buy or sell 25, 50 or 75 % of equity", lambda env: _sized(False)),
        ActionKind("sized_close", "the same, and close", lambda env: _sized(True)),
        ActionKind("targets", "the exposures of `targets`", _targets),
    ],
)


def action_table(env: EnvConfig) -> ActionTable:
    """The action table that `env` names; `ConfigError` for an unknown one, or exposures that cannot be traded."""
    return ACTION_TABLES.find(env.actions, "actions").make(env)


def flat_action(table: ActionTable) -> int | None:
    """Index of the action that holds nothing: a target of 0, else one that keeps a flat account flat; None for none.

    Example:
      >>> flat_action(action_table(EnvConfig(actions="targets", targets=(-1.0, 0.0, 1.0))))
      1
    """
    rows = list(zip(table.keep, table.scale, table.offset, strict=True))
    zero = [i for i, (keep, scale, offset) in enumerate(rows) if not keep and scale == 0 and offset == 0]
    return next(iter([*zero, *(i for i, (keep, _, _) in enumerate(rows) if keep)]), None)


def target_exposure(
    table: ActionTable,
    action: jax.Array,
    exposure: jax.Array,
    allow_short: jax.Array,
    max_exposure: float,
    size: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """What `action` asks for.

    Args:
      table: the action table.
      action: int32 indices, any shape.
      exposure: current exposure at the open, same shape.
      allow_short: bool, broadcastable; where false, targets below 0 become 0.
      max_exposure: targets are clipped to +-this.
      size: exposure that an action's 1 stands for, broadcastable; by default 1, the equity itself.

    Returns:
      The target exposure, and a bool that is true where the action keeps the position as it is.
    """
    dtype = exposure.dtype
    keep = jnp.asarray(table.keep)[action]
    scale = jnp.asarray(table.scale, dtype)[action]
    offset = jnp.asarray(table.offset, dtype)[action]
    offset = offset if size is None else offset * size
    lowest = jnp.where(allow_short, -max_exposure, 0.0).astype(dtype)
    target = jnp.clip(scale * exposure + offset, lowest, max_exposure)
    return jnp.where(jnp.abs(target) < DUST, 0.0, target), keep


def asked_exposures(
    table: ActionTable,
    exposure: jax.Array,
    allow_short: jax.Array,
    max_exposure: float,
    size: jax.Array | None = None,
) -> jax.Array:
    """The exposure after each of K actions, that of one that keeps the position being the current one.

    Arguments as of `target_exposure`.

    Returns:
      (K,) + the shape of `exposure`.
    """

    def leading(x: jax.Array) -> jax.Array:
        """With an axis of actions in front."""
        return jnp.expand_dims(jnp.broadcast_to(x, exposure.shape), 0)

    now, unit = leading(exposure), None if size is None else leading(size)
    each = jnp.arange(table.n_actions, dtype=jnp.int32).reshape(-1, *(1 for _ in exposure.shape))
    asked, keep = target_exposure(table, each, now, leading(allow_short), max_exposure, unit)
    return jnp.where(keep, now, asked)


def action_mask(table: ActionTable, exposure: jax.Array, allow_short: jax.Array) -> jax.Array:
    """Which actions mean something: one that asks for a short where none is allowed needs a long to sell.

    Args:
      table: the action table.
      exposure: exposure at the close, any shape.
      allow_short: bool, broadcastable with `exposure`.

    Returns:
      bool, shape of `exposure` + (K,). At least one action is always valid.
    """
    selling = jnp.asarray([not k and o < 0 for k, o in zip(table.keep, table.offset, strict=True)])
    no_sell = ~allow_short & (exposure <= 0)
    return ~(jnp.expand_dims(no_sell, -1) & jnp.expand_dims(selling, tuple(range(no_sell.ndim))))
