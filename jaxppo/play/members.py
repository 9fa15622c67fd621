"""The members of an ensemble, each played alone: how far policies differ of which only the random numbers do."""

from __future__ import annotations

import jax

from jaxppo.agent.policy import Agent, Params
from jaxppo.env.trading import EnvSpec
from jaxppo.market.dataset import EvaluationSet
from jaxppo.play.deciders import play_policy
from jaxppo.play.score import Pooled, pool_lanes


def play_members(
    agent: Agent, spec: EnvSpec, params: Params, data: EvaluationSet, n_bars: int, receptive_field: int
) -> Pooled:
    """Play each member as a policy of its own over an evaluation set, one account a symbol; `params` is (M, N).

    One after another, so that it needs the memory of one policy.

    Returns:
      The pools (M,) of the members.
    """

    def one(member: Params) -> Pooled:
        played = play_policy(agent, spec, member, data.tape, n_bars, receptive_field, keep=False)
        alone: Pooled = jax.tree.map(lambda x: x[0], pool_lanes(played, data))
        return alone

    members: Pooled = jax.lax.map(one, params)
    return members
