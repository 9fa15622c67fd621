"""A walk-forward: no fold sees its test, folds side by side are folds alone, and the joined figures add up."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from helpers import TINY
from rich.console import Console

from jaxppo.agent.policy import constant_params, init_params
from jaxppo.config.layers import replace_fields, resolve
from jaxppo.device import Executable
from jaxppo.errors import ConfigError
from jaxppo.market.bars import load_bars
from jaxppo.market.dataset import EvaluationSet, evaluation_set, joint_calendar
from jaxppo.market.synthetic import synthetic_market
from jaxppo.play.baselines import hold_sums
from jaxppo.play.curve import TradeSums
from jaxppo.play.deciders import given_actions, play_policy
from jaxppo.play.joined import join_curves, joined_sums, metric_gaps
from jaxppo.play.metrics import METRICS, Metrics
from jaxppo.play.passes import play
from jaxppo.play.portfolio import lanes_of, member_portfolios
from jaxppo.play.rules import RULES
from jaxppo.play.score import pool_lanes, score
from jaxppo.play.significance import curve_moments, deflated_sharpe
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.state import hyper_from
from jaxppo.store.checkpoint import restore_policy
from jaxppo.walkforward import run as command
from jaxppo.walkforward.__main__ import main
from jaxppo.walkforward.dates import fold_split
from jaxppo.walkforward.files import collect
from jaxppo.walkforward.handed import hand_over
from jaxppo.walkforward.program import Growth, Judged, make_folds, nothing_kept, part, side_by_side
from jaxppo.walkforward.rules import play_fold_rules
from jaxppo.walkforward.run import WalkforwardOptions, chunks, compile_folds, prepare, run_folds

# One gradient step an update and a short window: compilation is nearly all of the time.
SMALL = {**TINY, "epochs": 1, "minibatches": 1, "trunk_layers": 1, "window": 4, "n_updates": 6, "validate_every": 4}
SMALL |= {"n_envs": 32, "episode_steps": 4}  # 8 fresh starts an update
# Always in the market, close stops: many trades.
SMALL |= {"actions": "targets", "targets": (-1.0, 1.0), "stop_loss": 0.008, "take_profit": 0.012}
FOLDS = 3
SPANS = {"ALFA": (0, 900), "BRAVO": (0, 640), "CHARLIE": (560, 900)}  # one ends, one begins in the tested half


@pytest.fixture(scope="module")
def bars_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bars")
    for (name, (begin, end)), b in zip(SPANS.items(), synthetic_market(0, 3, 900), strict=True):
        columns = {k: getattr(b, k)[begin:end] for k in ("open", "high", "low", "close", "volume")}
        time = pl.Series(b.time[begin:end] * 1_000_000).cast(pl.Datetime("us", "UTC"))
        pl.DataFrame({"timestamp": time, **columns}).write_parquet(folder / f"{name}_1h.parquet")
    return folder


def walk(setup, compiled):
    return run_folds(compiled, setup, hyper_from(setup.config), Console(quiet=True))[:3]


@pytest.fixture(scope="module")
def done(bars_folder):
    config, options = resolve("quick_test", SMALL).config, WalkforwardOptions(folds=FOLDS)
    bars = load_bars(str(bars_folder))
    setup = prepare(options, config, bars)
    program = make_folds(config, setup.sizes)
    hyper, tape = hyper_from(config), setup.history.tape
    compiled = compile_folds(program, setup.folds, hyper, tape, None, limit=2.0**40)
    states, judged, outputs = walk(setup, compiled)
    facts = {"folds": FOLDS, "trials": 1}
    rules = play_fold_rules(bars, setup.history, setup.plans, setup.folds, setup.sizes, config.env)
    labels = program.spec.env.actions.labels
    kept = command.kept_updates(states)
    result = collect(setup.history, setup.plans, judged, outputs, kept, labels, facts, config, rules.yardsticks, bars)
    return SimpleNamespace(**locals())


def changed_after(bars, time):
    """Bars whose prices and volumes from `time` on are other ones."""
    late = bars.time >= time
    factor = np.where(late, 1.0 + 0.3 * np.sin(np.arange(len(late))), 1.0)
    prices = {k: getattr(bars, k) * factor for k in ("open", "high", "low", "close")}
    return dataclasses.replace(bars, **prices, volume=np.where(late, 7.0, bars.volume))


def test_a_fold_is_trained_without_its_test_period_to_the_last_bit(done):
    plan = done.setup.plans[0]
    rows = np.flatnonzero(plan.train_decisions > 0)
    # The gap is changed too: everything after the last training bar.
    after = max(int(done.setup.history.times[s][plan.train_length[s] - 1]) for s in rows) + 1
    assert after < plan.dates.test_begin
    other = prepare(done.options, done.config, [changed_after(b, after) for b in done.bars])
    states, _, outputs = walk(other, done.compiled)
    pairs = zip(jax.tree.leaves(done.states.params), jax.tree.leaves(states.params), strict=True)
    differ = []
    for mine, theirs in pairs:
        np.testing.assert_array_equal(mine[0], theirs[0])
        differ.append(not np.array_equal(mine[2], theirs[2]))
    assert any(differ)  # the last fold trains on some of these bars
    assert not np.array_equal(done.outputs.test.record.equity[0], outputs.test.record.equity[0])


def test_tear_sheet_is_that_of_all_folds_joined(done):
    sheet, table = done.result.sheet, done.result.portfolio
    np.testing.assert_array_equal(sheet.daily["return"], table["return"].to_numpy())
    np.testing.assert_array_equal(sheet.daily["buy_and_hold"], table["buy_and_hold"].to_numpy())
    assert sheet.figures["return"] == pytest.approx(table["equity"][-1] - 1.0, abs=1e-9)
    # The ledger adds the days up by itself, fold after fold.
    assert sheet.figures["costs"]["net_profit"] == pytest.approx(table["equity"][-1] - 1.0, abs=1e-5)
    assert sheet.figures["drawdowns"][0]["depth"] == pytest.approx(table["drawdown"].max(), rel=1e-9)


@pytest.mark.slow
def test_passes_are_counted_on_the_fold_with_most_bars(done):
    most = max(plan.train_decisions.sum() for plan in done.setup.plans)
    setup = prepare(done.options, replace_fields(done.config, {"passes": 0.5}), done.bars)
    assert setup.config.budget.n_updates == -(-int(most) // 64)  # an update visits 8 paths x 4 bars: .5 of 32
    assert done.setup.config == done.config


def test_a_fold_alone_is_the_fold_among_others(done):
    # A batched matmul may add up in another order than a single one: 3e-8 was seen.
    program, fold = done.program, jax.tree.map(lambda x: x[1], done.setup.folds)

    @jax.jit
    def alone(fold, hyper, tape):
        state, _ = program.advance(program.init(fold, hyper, tape), fold, hyper, tape, jnp.int32(6))
        return state.params, program.evaluate(state.params, fold, tape)

    params, output = jax.device_get(alone(fold, done.hyper, done.tape))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, atol=1e-6), done.states.params, params)
    np.testing.assert_array_equal(done.outputs.test.action[1], output.test.action)
    np.testing.assert_allclose(done.outputs.test.record.equity[1], output.test.record.equity, rtol=1e-6)


@pytest.fixture(scope="module")
def stopped(done):
    """Two folds, looked at after updates 1, 2 and 3, with what each look saw."""
    config = replace_fields(done.config, {"early_stop": 0.2, "n_updates": 3, "validate_every": 1})
    setup = prepare(WalkforwardOptions(folds=2), config, done.bars)
    hyper, tape, folds = hyper_from(config), setup.history.tape, setup.folds
    compiled = compile_folds(make_folds(config, setup.sizes), folds, hyper, tape, None, limit=2.0**40)
    states, judged, outputs = walk(setup, compiled)
    return SimpleNamespace(**locals())


def test_without_early_stopping_nothing_is_kept_from_training(done):
    assert done.setup.folds.stop is None
    assert done.compiled.keep is None
    assert done.kept == [6, 6, 6]
    for plan in done.setup.plans:
        np.testing.assert_array_equal(plan.train_first, plan.fit_first)
        np.testing.assert_array_equal(plan.train_length, plan.fit_length)
        assert not plan.stop_decisions.any()


@pytest.mark.slow
def test_early_stopping_keeps_the_best_by_hand(stopped):
    setup, folds, tape = stopped.setup, stopped.folds, stopped.tape
    state, seen, ratios = stopped.compiled.init(folds, stopped.hyper, tape), [], np.zeros((2, 3))
    for _ in range(3):
        state, _ = stopped.compiled.advance(state, folds, stopped.hyper, tape, jnp.int32(1))
        seen.append(np.array(state.params))
    program = make_train(stopped.config, TapeSpec(tape.n_features, setup.sizes.n_stop))
    for k, plan in enumerate(setup.plans):
        split, rows = fold_split(setup.history, plan.stop_first, plan.stop_length)
        split = dataclasses.replace(split, tape=jax.tree.map(lambda x, r=rows: jnp.asarray(x), split.tape))
        split = dataclasses.replace(split, tape=split.tape._replace(features=tape.features[rows]))
        check = jax.jit(program.segment)
        one = jax.tree.map(lambda x, k=k: x[k], state)
        for i in range(3):
            own = one._replace(params=jnp.asarray(seen[i][k]))
            _, out = check(own, stopped.hyper, tape, evaluation_set(split), jnp.int32(0))
            ratios[k, i] = out.score.figures.portfolio.sharpe
    best = ratios.argmax(1)
    assert command.kept_updates(stopped.states) == (best + 1).tolist()
    for k in range(2):
        np.testing.assert_array_equal(stopped.states.params[k], seen[best[k]][k])


@pytest.mark.slow
def test_bars_that_early_stopping_keeps_are_not_trained_on(stopped):
    plan = stopped.setup.plans[0]
    rows = np.flatnonzero(plan.train_decisions > 0)
    after = max(int(stopped.setup.history.times[s][plan.train_length[s] - 1]) for s in rows) + 1
    judged = np.flatnonzero(plan.stop_decisions > 0)
    for s in judged:  # a gap of 9 bars, as before the test
        assert plan.stop_first[s] - (plan.train_length[s] - 1) - 1 >= stopped.setup.gap == 9
        assert plan.stop_length[s] == plan.fit_length[s]
    other = prepare(WalkforwardOptions(folds=2), stopped.config, [changed_after(b, after) for b in stopped.done.bars])
    trained = []
    for setup in (stopped.setup, other):
        state = stopped.compiled.init(setup.folds, stopped.hyper, setup.history.tape)
        state, _ = stopped.compiled.advance(state, setup.folds, stopped.hyper, setup.history.tape, jnp.int32(1))
        trained.append(np.array(state.params))
    np.testing.assert_array_equal(trained[0][0], trained[1][0])
    assert not np.array_equal(trained[0][1], trained[1][1])  # the last fold trains on some of these bars


@pytest.mark.slow
def test_of_equals_the_later_is_kept(stopped):
    fold, params = jax.tree.map(lambda x: x[:1], stopped.folds), jnp.asarray(stopped.states.params[:1])
    keep = jax.jit(side_by_side(make_folds(stopped.config, stopped.setup.sizes)).keep)
    first = keep(nothing_kept(params, 1), params, jnp.int32(1), fold, stopped.tape)
    assert (int(first.update[0]), bool(jnp.isnan(first.sharpe[0]))) == (1, False)
    assert int(keep(first, params, jnp.int32(2), fold, stopped.tape).update[0]) == 2
    better = first._replace(sharpe=first.sharpe + 1.0)
    assert int(keep(better, params, jnp.int32(2), fold, stopped.tape).update[0]) == 1


@pytest.mark.slow
def test_fewer_folds_at_once_give_the_same(done):
    # Two and one of three; the second pass repeats the last fold. Tests are of the policies, so those alone compare.
    training = done.program._replace(evaluate=lambda params, fold, tape: jnp.zeros(()))
    two = compile_folds(training, done.setup.folds, done.hyper, done.tape, 2, limit=2.0**40)
    assert two.at_once == 2
    states, *_ = walk(done.setup, two)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), done.states.params, states.params)


def test_a_fold_whose_own_bars_do_not_speak_for_its_policy_stays_flat(done):
    sizes, tape, params = done.setup.sizes, done.tape, jnp.asarray(done.states.params)
    chances = done.judged.probability
    assert not done.judged.flat.any()  # flat_below is 0
    np.testing.assert_array_equal(done.states.params, params)
    between = float((np.sort(chances)[0] + np.sort(chances)[1]) / 2)  # one fold is below it
    targets = {"targets": (-1.0, 0.0, 1.0), "flat_below": between}
    with pytest.raises(ConfigError, match=r"flat_below: no action of target_-1, target_\+1 stays flat"):
        make_folds(replace_fields(done.config, {"flat_below": between}), sizes)
    program = side_by_side(make_folds(replace_fields(done.config, targets), sizes))
    own = jax.vmap(lambda key: init_params(program.spec.agent.spec, key))(jax.random.split(jax.random.key(3), FOLDS))
    handed, judged = jax.device_get(jax.jit(program.judge)(own, done.setup.folds, tape))
    np.testing.assert_array_equal(judged.flat, ~(judged.probability >= between))
    still = constant_params(program.spec.agent, 1)
    np.testing.assert_array_equal(handed, np.where(judged.flat[:, None], still, own))
    test = jax.device_get(jax.jit(program.evaluate)(jnp.stack([still] * FOLDS), done.setup.folds, tape)).test
    assert (test.action[test.valid] == 1).all()
    np.testing.assert_array_equal(test.record.equity, 1.0)
    # A policy that never trades shows nothing for itself, however little is asked.
    assert jax.device_get(jax.jit(program.judge)(jnp.stack([still] * FOLDS), done.setup.folds, tape))[1].flat.all()


def test_a_policy_is_judged_by_its_training_bars(done):
    train = jax.tree.map(lambda x: x[0], done.setup.folds.train)
    data, spec = EvaluationSet(part(done.tape, train), train.calendar), done.program.spec
    agent, params = spec.agent, jnp.asarray(done.states.params[0])
    played = play_policy(agent, spec.env, params, data.tape, done.setup.sizes.n_train, spec.receptive_field, keep=False)
    pool = jax.device_get(pool_lanes(played, data))
    curve = pool.portfolio_equity[0][: int(train.calendar.days.valid.sum())]
    assert done.judged.probability[0] == pytest.approx(float(deflated_sharpe(curve_moments(curve), 1)), abs=1e-4)
    assert done.judged.before.charged[0] == pytest.approx(np.log(curve[-1]), rel=1e-4)
    assert done.judged.before.free[0] > done.judged.before.charged[0]
    assert done.judged.train.sharpe[0] == pytest.approx(pool.metrics.sharpe[0], rel=1e-5)


def test_a_fold_that_stays_flat_is_left_out_of_the_gap(done):
    def gap(*flat):
        judged = done.judged._replace(flat=np.isin(np.arange(FOLDS), flat))
        found = collect(
            done.setup.history, done.setup.plans, judged, done.outputs, done.kept, done.labels, done.facts, done.config,
            done.rules.yardsticks, done.bars,
        )  # fmt: skip
        return found.summary["gaps"]["sharpe"]

    before = done.judged.train.sharpe
    assert gap()["in_sample"] == pytest.approx(before.mean(), rel=1e-6)
    assert gap(0) == pytest.approx({**gap(0), "in_sample": before[1:].mean(), "folds": 2}, rel=1e-6)
    assert np.isnan(gap(0, 1, 2)["gap"])


def test_break_even_costs_of_two_folds_by_hand():
    # .05 and .01 without costs, .02 and -.01 after them: .06 and .01, so costs take .05 and 1.2 times them take all.
    growth = Growth(np.array([0.02, -0.01]), np.array([0.05, 0.01]))
    nothing = Growth(np.zeros(2), np.zeros(2))
    judged = Judged(None, np.array([0.97, 0.6]), np.array([False, True]), nothing, growth)
    found = hand_over(judged, 0.9, 0.001)
    assert found["break_even_tested"] == pytest.approx(1.2)
    assert np.isnan(found["break_even_trained"])
    assert found["flat_folds"] == [2]
    assert found["sentence"] == (
        "Fold 2 stays flat: on the bars that judge the trained policy its Sharpe ratio is above 0 with a probability of"
        " 0.60, and flat_below asks for 0.9. The trained policies break even on the tested bars at 1.2 times the costs,"
        " 0.12 % a side in place of 0.1 %."
    )


def test_an_ensembles_members_are_tested_alone(done):
    # Folds 0 and 1 with their own policy and that of fold 2 as members.
    params, some = done.states.params, jax.tree.map(lambda x: x[:2], done.setup.folds)
    pairs = jnp.stack([jnp.asarray(params[:2]), jnp.broadcast_to(params[2], params[:2].shape)], axis=1)
    output = jax.device_get(jax.jit(side_by_side(done.program).evaluate)(pairs, some, done.tape))
    alone = done.outputs.test.curves.portfolio[:2]
    np.testing.assert_allclose(output.members.portfolio_equity[:, 0], alone, rtol=1e-5)
    assert np.abs(output.members.portfolio_equity[:, 1] - alone).max() > 1e-3
    assert output.members.portfolio.sharpe.shape == (2, 2)
    for member in (output.members.portfolio_equity[:, i] for i in range(2)):
        assert np.abs(output.test.curves.portfolio - member).max() > 1e-3
    plans = done.setup.plans
    joint = joint_calendar(fold_split(done.setup.history, plans[0].test_first, plans[0].test_length)[0])
    found = member_portfolios(joint, lanes_of(jax.tree.map(lambda x: x[0], output.members)))
    assert found.names == ("member_0", "member_1")
    np.testing.assert_allclose(np.cumprod(1 + found.returns[0]), alone[0][: len(joint.day)], rtol=1e-5)


def test_as_many_folds_at_once_as_memory_allows(done, monkeypatch):
    def fake(function, first, second, *_, donate=()):  # 100 bytes a fold
        some = second if hasattr(second, "key") else first
        return Executable(None, 0.0, 100 * some.key.shape[0])

    monkeypatch.setattr(command, "compile_program", fake)
    folds = jax.tree.map(lambda x: jnp.concatenate([x, x[:2]]), done.setup.folds)  # 5
    for limit, at_once in ((500, 5), (499, 3), (250, 2), (10, 1)):
        found = compile_folds(done.program, folds, done.hyper, done.tape, None, limit)
        assert found.at_once == at_once
    assert compile_folds(done.program, folds, done.hyper, done.tape, 4, 10).at_once == 3  # 3 and 2, not 4 and 1


def test_passes_are_of_one_size():
    assert chunks(5, 5) == [[0, 1, 2, 3, 4]]
    assert chunks(5, 3) == [[0, 1, 2], [3, 4, 4]]


def test_joined_curve_is_the_folds_compounded(done):
    returns = done.outputs.test.figures.pooled.net_return.astype(np.float64)
    summary, equity = done.result.summary, done.result.equity
    assert equity["equity"][-1] == pytest.approx(np.prod(1 + returns), rel=1e-6)
    assert summary["joined"]["policy"]["return"] == pytest.approx(np.prod(1 + returns) - 1, abs=1e-6)
    assert summary["positive_folds"] == pytest.approx((returns > 0).mean())
    time = equity["time"].dt.epoch("s").to_numpy()
    assert (np.diff(time) > 0).all()
    begin = done.setup.plans[0].dates.test_begin
    every = np.unique(np.concatenate([t[t >= begin] for t in done.setup.history.times]))
    np.testing.assert_array_equal(time, every)  # no bar of any symbol is lost between two folds


def test_trades_explain_the_returns(done):
    # Each fold starts every tested symbol with 1: what its trades earn on average is what the fold earns.
    for row in done.result.folds.to_dicts():
        own = done.result.trades.filter(pl.col("fold") == row["fold"])
        assert own.height == row["out_trades"] > 5
        assert own["pnl"].sum() / row["test_symbols"] == pytest.approx(row["out_return"], abs=2e-5)
    assert done.result.summary["joined"]["policy"]["trades"] == done.result.trades.height


def test_figures_of_a_fold_are_those_of_a_validation(done):
    k, plan = 1, done.setup.plans[1]  # CHARLIE begins within it
    split, rows = fold_split(done.setup.history, plan.test_first, plan.test_length)
    split = dataclasses.replace(split, tape=jax.tree.map(jnp.asarray, split.tape))
    actions = jnp.asarray(done.outputs.test.action[k][:, rows])
    env, data = done.program.spec.env, evaluation_set(split)

    @jax.jit
    def alone(actions, data):
        return score(play(given_actions(actions, env, data.tape), data.tape, len(actions)), data, 2)

    validation = alone(actions, data).figures
    for name in METRICS:
        mine = getattr(done.outputs.test.figures.pooled, name)[k]
        np.testing.assert_allclose(mine, getattr(validation.pooled, name), rtol=2e-4, atol=1e-6, err_msg=name)
    hold = done.result.folds["out_buy_and_hold_return"][k]
    assert hold == pytest.approx(float(validation.hold), abs=1e-6)
    assert data.calendar.behind.shape[1] == (done.result.equity["fold"] == k + 1).sum()


def test_holding_once_pays_once(done):
    history, plans = done.setup.history, done.setup.plans
    expected = []
    for s, time in enumerate(history.times):
        i = max(int(np.searchsorted(time, plans[0].dates.test_begin)), 4)  # the fill after the first decision
        fee = float(history.tape.costs.fee[s])
        close, open_ = (np.asarray(getattr(history.tape, k)[s], np.float64) for k in ("close", "open"))
        expected.append(close[len(time) - 1] / open_[i] * (1 - fee) / (1 + fee))
    assert done.result.equity["benchmark_once"][-1] == pytest.approx(np.mean(expected), rel=1e-5)


def test_missing_symbols_are_named(done):
    warnings = " ".join(command.fold_warnings(done.setup))
    assert "fold 3 has no bars to test of BRAVO" in warnings
    assert "fold 1 has no bars to test of CHARLIE" in warnings
    assert "trained" in done.result.symbols.columns


def test_costs_by_symbol_are_told(done):
    costs = dataclasses.replace(done.setup.market.costs, lines=("costs by symbol: costs.csv has 3 of 3 symbols",))
    setup = dataclasses.replace(done.setup, market=dataclasses.replace(done.setup.market, costs=costs))
    assert costs.lines[0] in command.describe_folds(setup, "bars")


def test_join_curves_by_hand():
    np.testing.assert_allclose(join_curves([np.array([1.1, 1.2]), np.array([0.5, 2.0])]), [1.1, 1.2, 0.6, 2.4])


def test_joined_sums_by_hand():
    sums = TradeSums(
        *(np.array(x) for x in ([2.0, 1.0], [-1.0, 0.0], [3, 1], [1, 1], [1, 0], [0.1, 0.4], [0.5, 1.0], [0.01, 0.04]))
    )
    total = joined_sums(sums, np.array([30, 10]), np.array([100.0, 200.0]), 50.0)
    assert (float(total.gains), float(total.losses)) == (3.0, -1.0)
    assert (int(total.trades), int(total.wins), int(total.losers)) == (4, 2, 1)  # and one that broke even
    # A year: .1 x 100 = 10 for three quarters of the bars, .4 x 200 = 80 for one: 27.5, over 50 bars a year.
    assert float(total.turnover) == pytest.approx(27.5 / 50)
    assert float(total.exposure) == pytest.approx(0.75 * 0.5 + 0.25)
    assert float(total.costs) == pytest.approx(2.75 / 50)  # a tenth of what is turned over


def test_held_sums_by_hand():
    sums = hold_sums(jnp.array([0.5, -0.25]), jnp.array([10, 20]), jnp.array([0.01, 0.02]))
    np.testing.assert_allclose(sums.gains, [0.5, 0.0])
    np.testing.assert_allclose(sums.losses, [0.0, -0.25])
    np.testing.assert_allclose(sums.wins, [1, 0])
    np.testing.assert_allclose(sums.losers, [0, 1])
    np.testing.assert_allclose(sums.turnover, [0.2, 0.1])
    np.testing.assert_allclose(sums.costs, [0.002, 0.002])  # both sides over the bars
    # A symbol that never decides is not bought.
    none = hold_sums(jnp.array([0.5]), jnp.array([0]), jnp.array([0.01]))
    assert all(float(x[0]) == 0 for x in none)


def test_gaps_are_means_over_folds_where_both_are_finite():
    zeros = Metrics(dict.fromkeys(METRICS, np.zeros(3)))
    train = zeros._replace(sharpe=np.array([1.0, 2.0, 3.0]), profit_factor=np.array([2.0, np.inf, np.nan]))
    test = zeros._replace(sharpe=np.array([0.0, 1.0, -1.0]), profit_factor=np.array([1.5, 1.0, 1.0]))
    gaps = metric_gaps(train, test)
    assert gaps["sharpe"] == (2.0, 0.0, -2.0, 3)
    assert gaps["profit_factor"] == (2.0, 1.5, -0.5, 1)
    none = metric_gaps(train._replace(payoff=np.full(3, np.nan)), test)["payoff"]
    assert none.folds == 0
    assert np.isnan(none.gap)


def flags(bars_folder, out):
    line = ["--data", str(bars_folder), "--folds", str(FOLDS), "--out", str(out)]
    for name, value in SMALL.items():
        line += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    return line


@pytest.fixture(scope="module")
def folder(done, bars_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "wf"
    assert main(flags(bars_folder, out)) == 0
    return out


def test_the_command_leaves_everything(done, folder):
    names = {
        "config.yaml",
        "manifest.json",
        "summary.json",
        "gate.json",
        "report.html",
        "accounts.parquet",
        "plots",
        "folds",
        "tearsheet.json",
        "tearsheet_daily.csv",
    }
    names |= {f"{n}.csv" for n in ("folds", "symbols", "equity", "trades", "portfolio")}
    names |= {f"{n}.parquet" for n in ("equity", "trades", "portfolio")}
    assert {p.name for p in folder.iterdir()} == names
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["joined"]["policy"]["return"] == pytest.approx(
        done.result.summary["joined"]["policy"]["return"], abs=1e-6
    )
    assert summary["deflated_sharpe"] == summary["probabilistic_sharpe"]  # one trial
    low, high = summary["intervals_90"]["sharpe"]
    assert low < summary["joined"]["policy"]["sharpe"] < high
    portfolio = summary["portfolio"]
    assert set(summary["baselines"]) | set(summary["rules_left_out"]) == {"buy_and_hold", *RULES}
    assert portfolio["members"] == [portfolio["sharpe"]]
    assert portfolio["members_spread"] == 0
    assert len(portfolio["per_fold"]) == FOLDS
    gate = json.loads((folder / "gate.json").read_text())
    assert gate["verdict"] == summary["gate"] == "DROP"  # it loses
    value = {reason["metric"]: reason["value"] for reason in gate["reasons"]}
    assert value["excess_over_rules"] == summary["excess_over_best_rule"]["sharpe_difference"]
    assert value["trades"] == portfolio["trades"]
    assert summary["excess_over_best_rule"]["sharpe_difference"] == pytest.approx(
        portfolio["sharpe"] - max(row["sharpe"] for row in summary["baselines"].values())
    )
    assert set(summary["joined"]) == {"policy", "buy_and_hold", "buy_and_hold_once", "flat"}
    # Bought once is a trade a symbol that is tested, as bought anew each fold is one a symbol and fold.
    tested = np.stack([p.test_decisions > 0 for p in done.setup.plans])
    joined = summary["joined"]
    assert joined["buy_and_hold_once"]["trades"] == tested.any(0).sum()
    assert joined["buy_and_hold"]["trades"] == tested.sum()
    assert pl.read_csv(folder / "folds.csv").height == FOLDS
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["walkforward"]["purge_bars"] == 9  # receptive field 4 + reward horizon 5
    page = (folder / "report.html").read_text()
    assert "Walk-forward on" in page
    assert "The policy against the rules" in page
    assert "the best rule" in page
    assert 'src="http' not in page


@pytest.mark.slow
def test_seeds_are_averaged_and_their_spread_is_told(done, bars_folder, tmp_path, capsys):
    out = tmp_path / "two"
    assert main([*flags(bars_folder, out), "--seeds", "2", "--folds", "1", "--n-updates", "2"]) == 0
    policy = restore_policy(out / "folds" / "1")
    assert policy.params.shape == (2, done.states.params.shape[1])
    summary = json.loads((out / "summary.json").read_text())
    own = summary["portfolio"]
    assert len(own["members"]) == 2
    assert own["members_spread"] == pytest.approx(abs(own["members"][0] - own["members"][1]))
    assert own["members_spread"] > 0
    days = pl.read_parquet(out / "portfolio.parquet")
    per_year = len(days) * 365.25 / ((days["date"][-1] - days["date"][0]).days + 1)
    for name, sharpe in zip(("return", "member_0", "member_1"), (own["sharpe"], *own["members"]), strict=True):
        assert days[name].mean() / days[name].std() * per_year**0.5 == pytest.approx(sharpe, rel=1e-4)
    assert "an ensemble of 2 policies in each fold" in capsys.readouterr().out
    assert "The seeds alone" in (out / "report.html").read_text()


def test_every_policy_is_kept(done, folder):
    policy = restore_policy(folder / "folds" / "2", market=done.setup.market)
    mine = jax.tree.map(lambda x: x[1], done.states.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), mine, policy.params)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--folds", "0"], "folds: must be at least 1"),
        (["--folds", "20"], "cannot be tested"),
        (["--first-train-fraction", "1.2"], "first_train_fraction: must lie between 0 and 1"),
        (["--first-train-fraction", "0.01"], "fold 1 of 3 cannot be trained"),
        (["--embargo-bars", "-1"], "embargo_bars: must be at least 0"),
        (["--embargo-bars", "5000"], "cannot be trained"),
        (["--at-once", "0"], "at_once: must be at least 1"),
        (["--trials", "0"], "trials: must be at least 1"),
        (["--train-fraction", "0.5"], "train_fraction: has no effect"),
        (["--n-validations", "2"], "n_validations: has no effect"),
        (["--early-stop", "0.5"], "early_stop: must be from 0 to under 0.5, got 0.5"),
        (["--early-stop", "0.02"], "early_stop 0.02 keeps no more than"),
        (["--data", "nowhere"], "no such file or folder"),
    ],
)
def test_one_clear_error_and_nothing_written(bars_folder, tmp_path, capsys, given, message):
    assert main([*flags(bars_folder, tmp_path / "out"), *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused(bars_folder, folder, capsys):
    before = sorted(p.name for p in folder.iterdir())
    assert main(flags(bars_folder, folder)) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert sorted(p.name for p in folder.iterdir()) == before


def test_an_interrupt_leaves_nothing(bars_folder, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run_folds", interrupt)
    monkeypatch.setattr(
        command, "compile_folds", lambda *_: SimpleNamespace(compile_seconds=0, at_once=1, memory_bytes=0)
    )
    assert main(flags(bars_folder, tmp_path / "out")) == 130
    assert "nothing was left half-written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
