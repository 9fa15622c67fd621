"""Numbers gone bad: what an update is when its numbers are not finite, and the way back.

Three nets, each for what passes the one before. An env step whose reward, lane or features are not finite teaches
nothing (`rollout.collect`). A gradient that is not finite moves nothing (`update.gradient_step`). And a run of updates
in which nothing moved, or parameters that are not finite, go back to the last good state, here.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxppo.ppo.state import Guard, Learned

LEAST_SCALE = 2.0**-10
"""Ten halvings. A learning rate below a thousandth of the configured one only looks like training."""


def first_guard(learned: Learned) -> Guard:
    """The guard of a run that begins with `learned`; buffers of its own, so a state can be donated."""
    return Guard(jax.tree.map(jnp.copy, learned), jnp.zeros((), jnp.int32), jnp.ones(()))


def is_sound(tree: Any) -> jax.Array:
    """() bool: the squares of all floats in `tree` have a finite sum. A weight beyond 1e19, too, counts as broken."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.isfinite(sum((jnp.square(x).sum() for x in floats), start=jnp.zeros(())))


def where(condition: jax.Array, new: Any, old: Any) -> Any:
    """`jnp.where` of a () bool over two trees."""
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)


@jax.named_scope("guard")
def guard_update(
    guard: Guard, before: Learned, after: Learned, bad: jax.Array, rollback_after: int, factor: float
) -> tuple[Learned, Guard, jax.Array]:
    """Look at an update that has ended, and undo the last ones where they led nowhere.

    What an update began with is good once that update has computed finite gradients with it; what it ended with has yet
    to show that. The way back is taken after `rollback_after` bad updates in a row, and at once where the parameters or
    moments are not finite: no gradient can mend those.

    Args:
      guard: before the update.
      before, after: what the update began and ended with.
      bad: () bool, most of its gradients were not finite.
      rollback_after: bad updates in a row that it takes; 0 for never.
      factor: of the learning rate at each rollback.

    Returns:
      What to go on with, the guard after the update, and a () bool: rolled back.
    """
    streak = jnp.where(bad, guard.streak + 1, 0)
    sound = is_sound(after)
    back = ~sound
    if rollback_after > 0:
        back |= streak >= rollback_after
    good = where(sound & ~bad, before, guard.good)
    lowered = jnp.maximum(guard.scale * factor, LEAST_SCALE)
    kept = Guard(good, jnp.where(back, 0, streak), jnp.where(back, lowered, guard.scale))
    return where(back, good, after), kept, back


def stand_ins(clean: jax.Array) -> jax.Array:
    """The path to learn from for each, (P,) int32: itself where `clean`, (P,) bool, else a clean one in turn."""
    index = jnp.arange(clean.shape[0], dtype=jnp.int32)
    first = jnp.argsort(~clean, stable=True).astype(jnp.int32)  # the clean ones, in order
    return jnp.where(clean, index, first[index % jnp.maximum(clean.sum(dtype=jnp.int32), 1)])
