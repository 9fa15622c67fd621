"""The members of an ensemble, each played alone: how far policies differ of which only the random numbers do."""

from __future__ import annotations

from typing import NamedTuple

import jax

from jaxppo.agent.policy import Agent, Params
from jaxppo.env.trading import EnvSpec
from jaxppo.market.dataset import EvaluationSet
from jaxppo.play.deciders import play_policy
from jaxppo.play.metrics import Metrics
from jaxppo.play.score import pool_lanes


class Members(NamedTuple):
    """Figures of each of M members."""

    pooled: Metrics  # (M,)
    portfolio: Metrics  # (M,) of the symbols in equal shares, rebalanced daily


def play_members(
    agent: Agent, spec: EnvSpec, params: Params, data: EvaluationSet, n_bars: int, receptive_field: int
) -> Members:
    """Play the argmax of each member over an evaluation set, one account a symbol; `params` is (M, N).

    One after another, so that it needs the memory of one policy.
    """

    def one(member: Params) -> Members:
        played = play_policy(agent, spec, member, data.tape, n_bars, receptive_field, keep=False)
        done = pool_lanes(played, data)
        alone: Members = jax.tree.map(lambda x: x[0], Members(done.metrics, done.portfolio))
        return alone

    members: Members = jax.lax.map(one, params)
    return members
