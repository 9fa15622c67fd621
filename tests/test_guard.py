"""Numbers gone bad: what is skipped, what is restarted, and the way back to the last good state."""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config, tiny_program

from jaxppo.env.account import broken_accounts, open_account
from jaxppo.errors import DataError
from jaxppo.market.dataset import build_market
from jaxppo.market.features import compute_features
from jaxppo.market.synthetic import synthetic_market
from jaxppo.ppo.guard import LEAST_SCALE, first_guard, guard_update, is_sound, stand_ins
from jaxppo.ppo.state import Guard, Learned, Moments, hyper_from
from jaxppo.ppo.update import update

NAN, INF = jnp.nan, jnp.inf


def learned(x: float) -> Learned:
    return Learned(jnp.full((2,), x), Moments(jnp.full((2,), 10 * x), jnp.full((2,), x * x), jnp.int32(3)))


def follow(updates: list[tuple[float, float, bool]], rollback_after: int = 3, factor: float = 0.5) -> list[tuple]:
    """(before, after, bad) of one update after another; a rolled back one hands on what the guard says.

    Returns what to go on with, the last good, the scale and whether it went back, after each.
    """
    guard, rows = first_guard(learned(0.0)), []
    for before, after, bad in updates:
        kept, guard, back = guard_update(
            guard, learned(before), learned(after), jnp.asarray(bad), rollback_after, factor
        )
        rows.append((float(kept.params[0]), float(guard.good.params[0]), float(guard.scale), bool(back)))
    return rows


def test_an_update_is_good_once_finite_gradients_were_computed_with_it():
    # 0 -> 1 -> 2: while 2 is being trained with, 1 is the last that is known to be good.
    assert follow([(0, 1, False), (1, 2, False)]) == [(1, 0, 1, False), (2, 1, 1, False)]


def test_three_bad_updates_in_a_row_go_back_and_halve_the_learning_rate():
    bad = (2, 2, True)
    rows = follow([(0, 1, False), (1, 2, False), bad, bad, bad, (1, 1.5, False)])
    assert rows[2:] == [(2, 1, 1, False), (2, 1, 1, False), (1, 1, 0.5, True), (1.5, 1, 0.5, False)]


def test_a_good_update_between_two_bad_ones_starts_the_count_again():
    bad = (1, 1, True)
    rows = follow([(0, 1, False), bad, bad, (1, 2, False), (2, 2, True), (2, 2, True)])
    assert not any(back for *_, back in rows)


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_parameters_that_are_not_finite_go_back_at_once(broken):
    rows = follow([(0, 1, False), (1, float(broken), False)])
    assert rows[1] == (0, 0, 0.5, True)
    # Never by streak; this way back is not a matter of taste.
    assert follow([(0, 1, False), (1, float(broken), True)], rollback_after=0)[1] == (0, 0, 0.5, True)


def test_without_a_streak_bad_updates_are_only_skipped():
    assert not any(back for *_, back in follow([(1, 1, True)] * 9, rollback_after=0))


def test_the_learning_rate_has_a_floor_and_is_never_raised():
    scales = [scale for _, _, scale, _ in follow([(0, float(NAN), True)] * 30)]
    assert scales[:3] == [0.5, 0.25, 0.125]
    assert scales[-1] == LEAST_SCALE == 1 / 1024
    assert scales == sorted(scales, reverse=True)


def test_sound_is_what_has_a_finite_sum_of_squares():
    tree = {"a": jnp.full(3, 1e18), "n": jnp.int32(2**31 - 1)}
    assert bool(is_sound(tree))
    for bad in (NAN, INF, -INF, 1e20):
        assert not bool(is_sound({**tree, "b": jnp.asarray([0.0, bad])}))


@pytest.mark.parametrize("field", open_account(jnp.ones(2))._fields)
def test_an_account_with_one_bad_number_is_broken(field):
    account = open_account(jnp.ones(2))
    value = getattr(account, field)
    assert not broken_accounts(account).any()
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return
    broken = account._replace(units=jnp.ones(2), **({field: value.at[1].set(NAN)} if field != "units" else {}))
    if field == "units":
        broken = account._replace(units=value.at[1].set(NAN))
    assert broken_accounts(broken).tolist() == [False, True]


def test_levels_that_are_infinite_are_none_and_not_broken():
    account = open_account(jnp.ones(2))._replace(stop=jnp.full(2, INF), take_profit=jnp.full(2, -INF))
    assert not broken_accounts(account).any()


def test_paths_that_are_not_clean_give_their_places_to_the_others_in_turn():
    # Clean are 1, 3 and 4. Path 0 takes the 0th of them, path 2 the 2nd, path 5 (5 % 3 = 2) the 2nd again.
    clean = jnp.array([False, True, False, True, True, False])
    assert stand_ins(clean).tolist() == [1, 1, 4, 3, 4, 4]
    assert stand_ins(jnp.ones(4, bool)).tolist() == [0, 1, 2, 3]
    assert stand_ins(jnp.zeros(2, bool)).tolist() == [0, 0]  # there is none; nothing will be kept of such an update


# In the program


@pytest.fixture(scope="module")
def tiny():
    """The tiny program, an update of it, and three states: before the first update, and after one and two."""
    config = tiny_config()
    program, tape, _ = tiny_program(config)
    hyper = hyper_from(config)
    step = jax.jit(lambda state, hyper, tape: update(state, tape, program.spec, hyper))
    states = [jax.jit(program.init)(jax.random.key(0), hyper, tape)]
    for _ in range(2):
        states.append(step(states[-1], hyper, tape)[0])
    return config, step, hyper, tape, states


def bits(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def poison(tree, value=NAN):
    """The first number of the first float array is `value`."""
    leaves, structure = jax.tree.flatten(tree)
    at = next(i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating))
    leaves[at] = leaves[at].at[(0,) * leaves[at].ndim].set(value)
    return jax.tree.unflatten(structure, leaves)


def test_a_healthy_run_is_not_touched(tiny):
    _, step, hyper, tape, states = tiny
    after, metrics = step(states[2], hyper, tape)
    assert {k: float(metrics[k]) for k in ("skipped_steps", "bad_samples", "broken_accounts", "rollbacks")} == {
        "skipped_steps": 0.0,
        "bad_samples": 0.0,
        "broken_accounts": 0.0,
        "rollbacks": 0.0,
    }
    assert float(metrics["learning_rate_scale"]) == 1.0
    assert bits(after.guard.good.params) == bits(states[2].params)
    assert bits(after.params) != bits(states[2].params)


def test_bad_gradients_are_skipped_then_rolled_back_with_half_the_learning_rate(tiny):
    """Every gradient is NaN for three updates; the parameters go back to those that the last good update began with."""
    config, step, hyper, tape, states = tiny
    broken = hyper._replace(value_weight=jnp.float32(NAN))
    state, told = states[2], []
    for _ in range(3):
        state, metrics = step(state, broken, tape)
        told.append({k: float(metrics[k]) for k in ("skipped_steps", "rollbacks", "learning_rate_scale")})
        told[-1]["moved"] = bits(state.params) != bits(states[2].params)
    skipped = {"skipped_steps": float(config.gradient_steps)}
    assert told[:2] == [{**skipped, "rollbacks": 0.0, "learning_rate_scale": 1.0, "moved": False}] * 2
    assert told[2] == {**skipped, "rollbacks": 1.0, "learning_rate_scale": 0.5, "moved": True}
    assert bits(state.params) == bits(states[1].params)
    assert bits(state.moments) == bits(states[1].moments)
    # The schedule goes on: 5 updates of 4 steps are behind. Only its result is halved; entropy is as it was.
    assert int(state.steps) == 5 * config.gradient_steps
    _, metrics = step(state, hyper, tape)
    _, plain = step(states[2]._replace(update=state.update), hyper, tape)
    assert float(metrics["learning_rate"]) == pytest.approx(float(plain["learning_rate"]) / 2)
    assert float(metrics["entropy_coefficient"]) == float(plain["entropy_coefficient"])
    assert float(metrics["skipped_steps"]) == 0


def test_metrics_are_those_of_the_steps_that_counted(tiny):
    _, step, hyper, tape, states = tiny
    _, metrics = step(states[2], hyper._replace(value_weight=jnp.float32(NAN)), tape)
    assert math.isnan(metrics["grad_norm"])  # there was none
    assert math.isfinite(metrics["reward_mean"])


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("part", ["params", "moments"])
def test_a_state_that_is_poisoned_between_two_updates_goes_back_at_once(tiny, part, value):
    _, step, hyper, tape, states = tiny
    good = states[2]
    if part == "params":
        broken = good._replace(params=poison(good.params, value))
    else:
        broken = good._replace(moments=good.moments._replace(mean=poison(good.moments.mean, value)))
    after, metrics = step(broken, hyper, tape)
    assert float(metrics["rollbacks"]) == 1
    assert float(metrics["skipped_steps"]) > 0
    assert bits(after.params) == bits(good.guard.good.params)
    assert bool(is_sound((after.params, after.moments, after.lanes)))
    again, metrics = step(after, hyper, tape)
    assert (float(metrics["rollbacks"]), float(metrics["skipped_steps"])) == (0, 0)
    assert bits(again.params) != bits(after.params)


@pytest.mark.parametrize("rate", [1e38, INF])
def test_a_learning_rate_that_breaks_everything_never_leaves_nan_weights(tiny, rate):
    _, step, hyper, tape, states = tiny
    state = states[0]
    for i in range(4):
        state, metrics = step(state, hyper._replace(learning_rate=jnp.float32(rate)), tape)
        assert bool(is_sound((state.params, state.moments)))
        assert float(metrics["rollbacks"]) == 1
        assert float(metrics["learning_rate_scale"]) == 0.5 ** (i + 1)


@pytest.mark.parametrize("value", [NAN, INF, -INF, 0.0])
def test_a_bad_price_costs_the_samples_that_saw_it(tiny, value):
    """The first symbol's bars from the middle on: their samples teach nothing, and nothing else is lost to them."""
    _, step, hyper, tape, states = tiny
    half = tape.close.shape[1] // 2
    broken = tape._replace(close=tape.close.at[0, half:].set(value))
    state, bad = states[0], 0.0
    for _ in range(4):
        before = state
        state, metrics = step(state, hyper, broken)
        bad += float(metrics["bad_samples"])
        assert bool(is_sound((state.params, state.moments)))
        assert not broken_accounts(state.lanes.account).any()
        assert bool(jnp.isfinite(metrics["reward_mean"]))
        if float(metrics["bad_samples"]) < 32:  # of 64
            assert float(metrics["skipped_steps"]) == 0
            assert bits(state.params) != bits(before.params)
    assert bad > 0 or value == 0.0  # at a price of 0 an account is ruined, which is a number


def test_bad_features_cost_the_paths_that_see_them(tiny):
    _, step, hyper, tape, states = tiny
    state = states[0]
    paths = np.stack([state.paths.symbol, state.paths.t], axis=1)  # (P, 2)
    # A path sees 7 bars before its first decision, the bars of 4 decisions and the one after.
    sees = [(paths[:, 0] == s) & (paths[:, 1] - 7 <= t) & (t <= paths[:, 1] + 4) for s, t in paths]
    i = next(i for i, who in enumerate(sees) if who.sum() == 1)
    broken = tape._replace(features=tape.features.at[*map(int, paths[i]), 0].set(NAN))
    after, metrics = step(state, hyper, broken)
    assert float(metrics["bad_samples"]) == 16  # 4 lanes x 4 steps of one path
    assert float(metrics["broken_accounts"]) == 0
    assert float(metrics["skipped_steps"]) == 0
    assert bool(is_sound((after.params, after.moments, after.lanes)))
    assert bits(after.params) != bits(state.params)


def test_broken_accounts_are_restarted_before_they_act(tiny):
    _, step, hyper, tape, states = tiny
    accounts = states[2].lanes.account
    broken = accounts._replace(equity=accounts.equity.at[0, 1].set(NAN), peak=accounts.peak.at[2].set(INF))
    after, metrics = step(states[2]._replace(lanes=states[2].lanes._replace(account=broken)), hyper, tape)
    assert not broken_accounts(after.lanes.account).any()
    assert {k: float(metrics[k]) for k in ("skipped_steps", "bad_samples", "broken_accounts")} == {
        "skipped_steps": 0.0,
        "bad_samples": 0.0,
        "broken_accounts": 5.0,
    }


def test_where_most_samples_are_bad_nothing_is_learnt_from_the_entropy_bonus_alone(tiny):
    config, step, hyper, tape, states = tiny
    broken = tape._replace(close=jnp.full_like(tape.close, NAN))
    after, metrics = step(states[2], hyper, broken)
    assert float(metrics["bad_samples"]) == config.batch_steps
    assert float(metrics["skipped_steps"]) == config.gradient_steps
    assert bits(after.params) == bits(states[2].params)
    assert int(after.guard.streak) == 1


def test_the_guard_is_no_more_than_another_copy(tiny):
    *_, states = tiny

    def size(tree):
        return sum(x.nbytes for x in jax.tree.leaves(tree))

    state = states[2]
    assert isinstance(state.guard, Guard)
    assert size(state.guard) <= size((state.params, state.moments)) + 8


def test_a_market_with_a_feature_that_is_not_finite_is_refused():
    """The program would survive it, at the price of the paths that see it; a user wants to know instead."""
    config = tiny_config()
    bars = synthetic_market(0, 2, 900)
    tables = [compute_features(b, ("base",), 32) for b in bars]
    values = tables[1].values.copy()
    values[500, 2] = np.nan
    values[3, 0] = np.inf  # before min_bars nothing is looked at
    tables[1] = replace(tables[1], values=values)
    with pytest.raises(DataError) as error:
        build_market(bars, config, 8, tables)
    name = tables[1].names[2]
    assert str(error.value).startswith(f"{bars[1].symbol}: feature {name!r} is nan at bar 500 (0-based) of ")
