"""A population: M separate runs in one program, each with its own seed, hyperparameters, metrics and validation.

A member is exactly the run that it would be alone: the same functions of the same key and the same numbers. It may
itself be an ensemble.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Float

from jaxppo.market.dataset import EvaluationSet
from jaxppo.market.tape import Tape
from jaxppo.play.score import Figures
from jaxppo.ppo.program import Program
from jaxppo.ppo.state import Hyper, TrainState


class MemberOutput(NamedTuple):
    """What a segment of one member leaves; with an axis of members first, what those of a population do."""

    updates: dict[str, jax.Array]  # (validate_every,) each; rows from the segment's length on are 0
    figures: Figures  # of the validation
    pooled: Float[jax.Array, "*M U"]  # equity on the joint calendar, from a start of 1
    portfolio: Float[jax.Array, "*M D"]  # equity day by day, rebalanced daily


MembersSegment = Callable[
    [TrainState, Hyper, Tape, EvaluationSet, jax.Array, jax.Array], tuple[TrainState, MemberOutput]
]
"""(state, hyper, tape, data, n_updates, n_members) to (state, output): see `members_segment`."""


def members_segment(program: Program) -> MembersSegment:
    """A segment of a whole population: that of `program` for every member, without any communication.

    One after another on a CPU, where a member's arrays stay in the cache: 256 members of 64 envs ran at 1.47 times the
    steps/s of one run of 16,384 envs, and in groups of 16 side by side at 1.00 times (2 cores). Side by side elsewhere,
    as a small member leaves most of an accelerator idle.

    Args:
      program: of one member.

    Returns:
      A pure function (state, hyper, tape, data, n_updates, n_members). State, hyper and what it gives back have an axis
      of M members first; `n_updates` and `n_members` are () int32. Members from `n_members` on only fill up: they need
      not be computed, and what is given back of them means nothing. All members make the same number of updates.

    Example: `jax.jit(members_segment(program), donate_argnums=0)`.
    """

    def segment(
        state: TrainState, hyper: Hyper, tape: Tape, data: EvaluationSet, n_updates: jax.Array, n_members: jax.Array
    ) -> tuple[TrainState, MemberOutput]:
        def one(state: TrainState, hyper: Hyper) -> tuple[TrainState, MemberOutput]:
            state, out = program.segment(state, hyper, tape, data, n_updates)
            curves = out.score.curves
            return state, MemberOutput(out.updates, out.score.figures, curves.pooled, curves.portfolio)

        def in_turn(state: TrainState, hyper: Hyper, n: jax.Array) -> tuple[TrainState, MemberOutput]:
            _, shapes = jax.eval_shape(jax.vmap(one), state, hyper)
            blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

            def turn(i: jax.Array, done: tuple[TrainState, MemberOutput]) -> tuple[TrainState, MemberOutput]:
                put: tuple[TrainState, MemberOutput] = _put(done, one(_take(done[0], i), _take(hyper, i)), i)
                return put

            finished: tuple[TrainState, MemberOutput] = jax.lax.fori_loop(0, n, turn, (state, blank))
            return finished

        def side_by_side(state: TrainState, hyper: Hyper, n: jax.Array) -> tuple[TrainState, MemberOutput]:
            return jax.vmap(one)(state, hyper)

        done: tuple[TrainState, MemberOutput] = jax.lax.platform_dependent(
            state, hyper, n_members, cpu=in_turn, default=side_by_side
        )
        return done

    return segment


def divide_members(segment: MembersSegment, mesh: Mesh) -> MembersSegment:
    """A population's segment with its members divided over the devices of a mesh, which say nothing to each other.

    Args:
      segment: as of `members_segment`.
      mesh: of any axes; M must be a multiple of its devices.
    """
    members, everywhere = PartitionSpec(tuple(mesh.axis_names)), PartitionSpec()

    def mine(
        state: TrainState, hyper: Hyper, tape: Tape, data: EvaluationSet, n_updates: jax.Array, n_members: jax.Array
    ) -> tuple[TrainState, MemberOutput]:
        share = state.update.shape[0]
        before = share * jax.lax.axis_index(tuple(mesh.axis_names)).astype(jnp.int32)
        return segment(state, hyper, tape, data, n_updates, jnp.clip(n_members - before, 0, share))

    divided: MembersSegment = jax.shard_map(
        mine,
        mesh=mesh,
        in_specs=(members, members, *(everywhere,) * 4),
        out_specs=(members, members),
        check_vma=False,
    )
    return divided


def _take(tree: Any, i: jax.Array) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, keepdims=False), tree)


def _put(tree: Any, row: Any, i: jax.Array) -> Any:
    return jax.tree.map(lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, i, 0), tree, row)
