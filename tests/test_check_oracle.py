"""Positions that actions reach, and the best of them in hindsight, by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BRACKETED

from jaxppo.config.schema import EnvConfig
from jaxppo.env.actions import action_table
from jaxppo.play.oracle import hindsight_positions, reachable, table_positions, toward_exposure


def test_positions_of_each_table():
    def of(short=True, **env):
        config = EnvConfig(**env)
        return table_positions(action_table(config), config.max_exposure, short)

    assert of() == (-1.0, 0.0, 1.0)
    assert of(short=False) == (0.0, 1.0)
    assert of(actions="hold_buy_sell", max_exposure=2.0) == (-2.0, 0.0, 2.0)
    assert of(actions="targets", targets=(-0.5, 0.3, 1.0)) == (-0.5, 0.0, 0.3, 1.0)
    assert of(actions="sized_close") == tuple(i / 4 for i in range(-4, 5))


def test_what_leads_where():
    # hold_buy_sell: from anywhere to long or short; flat is kept, not reached.
    table = action_table(BRACKETED)
    assert reachable(table, (-1.0, 0.0, 1.0), 1.0, True).tolist() == [
        [True, False, True],
        [True, True, True],
        [True, False, True],
    ]
    # Without short selling a sale ends flat.
    assert reachable(table, (0.0, 1.0), 1.0, False).all()
    # sized: at most .75 a step.
    sized = action_table(EnvConfig(actions="sized"))
    positions = tuple(i / 4 for i in range(-4, 5))
    assert reachable(sized, positions, 1.0, True)[4].tolist() == [False, *[True] * 7, False]


@pytest.mark.parametrize(
    ("wanted", "exposure", "action"), [(1.0, 0.0, 1), (-1.0, 0.0, 2), (0.0, 0.1, 0), (1.0, 0.9, 1)]
)
def test_the_nearest_action(wanted, exposure, action):
    table = action_table(BRACKETED)
    assert int(toward_exposure(table, jnp.float32(wanted), jnp.float32(exposure), jnp.asarray(True), 1.0)) == action


POSITIONS = (-1.0, 0.0, 1.0)
ANY = np.ones((3, 3), bool)


def best(open_, close, cost=0.0, borrow=0.0, reach=ANY, positions=POSITIONS):
    return hindsight_positions(
        np.asarray([open_]), np.asarray([close]), np.asarray([cost]), np.asarray([borrow]), positions, reach
    )[0].tolist()


def test_free_trading_follows_every_move():
    # Opens 100, 110, 99, then the last close 105: up, down, up.
    assert best([100.0, 110.0, 99.0], [0.0, 0.0, 105.0]) == [1, -1, 1]


def test_a_move_below_its_costs_is_not_traded():
    # 1 % up, .1 % down, 1 % up at .2 % a side: held through; alone, .3 % does not pay for .4 %.
    assert best([100.0, 101.0, 100.9], [0.0, 0.0, 102.0], cost=0.002) == [1, 1, 1]
    assert best([100.0, 100.1, 100.1], [0.0, 0.0, 100.1], cost=0.002) == [0, 0, 0]
    # A rise pays its entry alone, since nothing is sold at the end: .3 % against .2 %.
    assert best([100.0], [100.3], cost=0.002) == [1]


def test_borrow_is_paid_by_shorts_alone():
    assert best([100.0], [99.9], borrow=0.002) == [0]
    assert best([100.0], [99.9], borrow=0.0005) == [-1]
    assert best([100.0], [100.1], borrow=0.002) == [1]


def test_only_what_actions_reach_is_chosen():
    no_way_back = np.asarray([[1, 0, 1], [1, 1, 1], [1, 0, 1]], bool)
    # Up 5 %, then down .1 % at .2 % a side: flat would be best, and long is the better of what is left.
    assert best([100.0, 105.0], [0.0, 104.9], cost=0.002, reach=no_way_back) == [1, 1]


def test_paths_do_not_know_of_each_other():
    got = hindsight_positions(
        np.asarray([[100.0], [100.0]]), np.asarray([[101.0], [99.0]]), np.zeros(2), np.zeros(2), POSITIONS, ANY
    )
    assert got.tolist() == [[1], [-1]]
