"""Why a policy does not earn: edge and costs by hand, of trades and of what a policy leans to."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_tape

from jaxppo.agent.policy import AgentSpec, init_params, make_agent
from jaxppo.config.schema import AgentConfig, EnvConfig, RewardConfig
from jaxppo.env.trading import ACCOUNT_FEATURES, env_spec
from jaxppo.market.tape import Costs
from jaxppo.play.deciders import given_actions
from jaxppo.play.edge import Edge, edge_text, policy_edge
from jaxppo.play.passes import play
from jaxppo.play.score import Score

ENV = env_spec(EnvConfig(targets=(0.0, 1.0)), RewardConfig())


def tape_of(close, fee):
    """One symbol that opens every bar at the close before; the last close is never traded at."""
    close = np.asarray(close, np.float64)
    tape = random_tape(0, 1, len(close), 2, first=0)
    open_ = np.concatenate([close[:1], close[:-1]])
    prices = {k: jnp.asarray(v[None], jnp.float32) for k, v in (("open", open_), ("close", close))}
    prices |= {"high": jnp.maximum(*prices.values()), "low": jnp.minimum(*prices.values())}
    one = jnp.ones(1)
    return tape._replace(**prices, costs=Costs(fee * one, 0 * one, 0 * one))


def played(decider, tape, n):
    """The parts of a Score that an edge is made of."""
    p = play(decider, tape, n)
    record, sums = p.record._replace(equity=p.record.equity[:, 0]), p.sums._replace(trades=p.sums.trades[0])
    return Score(record, None, p.valid, sums._replace(turnover=p.sums.turnover[0]), None, None)


def edge(close, fee, actions):
    spec = AgentSpec(AgentConfig(encoder="none"), 2, len(ACCOUNT_FEATURES), ENV.actions.n_actions)
    agent, tape = make_agent(spec), tape_of(close, fee)
    params = jnp.zeros_like(init_params(spec, jax.random.key(0)))  # every action is as probable as any other
    score = played(given_actions(jnp.asarray(actions, jnp.int32).reshape(-1, 1), ENV, tape), tape, len(actions))
    return policy_edge(score, ENV, agent, params, tape, receptive_field=1, passes=7.0, cost_anneal=0.5)


def test_edge_of_trades_by_hand():
    # Bought at 100 and sold at 121, two bars later, 1 % a side: 121 * .99 / (100 * 1.01) = 1.186040.
    # Traded: 1 / 1.01 of the equity, then 121 of 110: .990099 and 1.1, on average 1.045050, of which 1 % are costs.
    found = edge([100, 110, 121], 0.01, [1, 1])
    assert found.trades == 1
    assert found.turnover == pytest.approx(1.045050, rel=1e-5)
    assert found.cost == pytest.approx(0.01045050, rel=1e-5)
    assert found.gross == pytest.approx(np.log(1.186040) / 2 + 0.01045050, rel=1e-5)
    assert found.round_trip == pytest.approx(0.02)
    assert found.move == pytest.approx(np.log(1.1))
    assert not found.explains


def test_edge_of_what_a_policy_without_trades_leans_to():
    # Flat or long at even odds is half invested: 1 + .5 * 4 % = 1.02 at no costs, and exposure stays within the band.
    # At 1 % a side: .5 / 1.005 = .497512 bought, .517413 sold at 104: .497512 + .517413 * .99 = 1.009751.
    # Traded: .497512 of 1, 0, and .517413 of .497512 + .507463.
    found = edge([100, 100, 102, 104], 0.01, [0, 0, 0])
    assert found.trades == 0
    assert found.gross == pytest.approx(np.log(1.02) / 3, rel=1e-4)
    assert found.cost == pytest.approx((np.log(1.02) - np.log(1.009751)) / 3, rel=1e-4)
    assert found.turnover == pytest.approx((0.497512 + 0.517413 / 1.004975) / 3, rel=1e-4)
    assert found.explains


def test_words_of_an_edge():
    found = Edge(0, -0.00001, 0.000085, 0.035, 0.005, 0.0047, 4_800.0, 0.65, 0.02)
    assert edge_text(found) == (
        "It closes no trade; followed by its action probabilities, it would have lost 0.10 bp of the equity a bar"
        " before costs; costs take 0.85 bp, at a turnover of 3.5% a bar. A round trip costs 50.00 bp, where a bar"
        " usually moves by 47.00 bp. Training visited each of its bars 4,800 times. Its stop or take-profit is 4"
        " usual bars away; try --stop-loss 0 --take-profit 0: without them the same training on hourly crypto and daily"
        " shares closed trades in 4 runs of 4, with 2 % and 4 % in 2 of 8."
    )
    without = edge_text(found._replace(cost_anneal=0.0, level=0.0))
    assert "paid all costs from the first update; try --cost-anneal 0.65" in without
    assert "usual bars away" not in without
    assert edge_text(found._replace(level=0.0)).endswith("4,800 times.")
    assert Edge.of(found._asdict()) == found
    assert Edge.of({"gross": 1.0}) is None
