"""Ensembles are trained, saved, resumed, validated and backtested like any policy."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from helpers import TINY, tiny_config, tiny_program

import jaxppo
from benchmarks.robustness.runs import differences, write_bars
from jaxppo.config.layers import load_config
from jaxppo.errors import ConfigError
from jaxppo.export.standalone import self_test
from jaxppo.market.bars import load_bars, slice_bars
from jaxppo.page.members import members_line, members_section, members_sentence
from jaxppo.ppo.program import COUNTS, _each_member, begin_run, run_updates
from jaxppo.ppo.state import hyper_from
from jaxppo.store.checkpoint import restore_policy, restore_train_state
from jaxppo.store.columns import REDUCE
from jaxppo.store.rows import member_spread

CONFIG = tiny_config(seeds=2)
SIZES = {**TINY, "actions": "targets", "targets": (-1.0, 0.0, 1.0), "learning_rate": 0.01}


def slices(tree: Any, member: int) -> Any:
    return jax.tree.map(lambda x: x[member], tree)


def assert_close(one: Any, other: Any) -> None:
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


# --- the program


@pytest.fixture(scope="module")
def programs():
    """Jitted `begin_run` and three `run_updates` of an ensemble of two and of one policy."""
    _, tape, _ = tiny_program(CONFIG)
    built = []
    for seeds in (2, 1):
        config = tiny_config(seeds=seeds)
        spec, hyper = tiny_program(config)[0].spec, hyper_from(config)
        begin = jax.jit(lambda key, s=spec, h=hyper: begin_run(s, key, h, tape))
        learn = jax.jit(lambda state, s=spec, h=hyper: run_updates(s, state, h, tape, 3, 3))
        built.append((begin, learn))
    return built


@pytest.mark.slow
def test_a_member_learns_as_a_run_of_its_own_does(programs):
    (begin, learn), (begin_one, learn_one) = programs
    key = jax.random.key(5)
    state, rows = learn(begin(key))
    assert state.params.shape[0] == 2
    assert (state.params[0] != state.params[1]).any()
    alone = [learn_one(begin_one(jax.random.fold_in(key, i))) for i in range(2)]
    assert alone[0][0].params.ndim == 1
    for i, (own, _) in enumerate(alone):
        assert_close(slices(state, i), own)
    for name, values in rows.items():
        both = np.stack([own[name] for _, own in alone])
        expected = both.sum(0) if name in COUNTS else both.mean(0)
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_a_member_whose_numbers_went_bad_goes_back_alone(programs):
    (begin, learn), _ = programs
    state = begin(jax.random.key(5))
    broken = state._replace(params=state.params.at[1].set(jnp.nan))
    well, after = learn(state)[0], learn(broken)
    assert_close(slices(after[0], 0), slices(well, 0))
    np.testing.assert_array_equal(after[0].guard.scale, [1.0, CONFIG.ppo.rollback_factor])
    assert np.isfinite(after[0].params).all()
    assert float(after[1]["rollbacks"].sum()) == 1.0
    assert np.isfinite(after[1]["policy_loss"]).all()  # of the member that is sound


@pytest.mark.parametrize(("platform", "in_turn"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_members_learn_in_turn_on_a_cpu_and_side_by_side_elsewhere(platform, in_turn):
    """By what is compiled for, as a plan for a GPU is made on a machine without one."""
    doubled = jax.jit(partial(_each_member, lambda x: 2 * x))
    lowered = doubled.trace(jnp.ones((3, 4))).lower(lowering_platforms=(platform,))
    assert ("while" in lowered.as_text()) == in_turn


def test_what_is_counted_adds_up_over_updates_and_members_alike():
    assert {name for name, kind in REDUCE.items() if kind == "sum"} == COUNTS


def test_less_than_one_seed_is_refused():
    for seeds in (0, -1):
        with pytest.raises(ConfigError, match=f"^seeds: must be above 0, got {seeds}$"):
            jaxppo.make_config(seeds=seeds)


# --- a run


@pytest.fixture(scope="module")
def bars(tmp_path_factory) -> Path:
    return write_bars(tmp_path_factory.mktemp("bars"))


@pytest.fixture(scope="module")
def run(bars, tmp_path_factory) -> Path:
    return jaxppo.train(run_dir=tmp_path_factory.mktemp("ensemble") / "run", data=str(bars), seeds=2, **SIZES)


@pytest.fixture(scope="module")
def tested(run) -> Path:
    return jaxppo.backtest(run, split="validation", which="final", out=run.parent / "tested", random_draws=1)


def test_a_checkpoint_is_of_all_members(run):
    state, info = restore_train_state(run, "final")
    policy = restore_policy(run, "final")
    assert info.config.budget.seeds == load_config(run / "config.yaml").budget.seeds == 2
    assert policy.params.shape == state.params.shape == (2, state.params.shape[1])
    np.testing.assert_array_equal(policy.params, state.params)
    np.testing.assert_array_equal(state.update, [3, 3])
    assert restore_policy(run, "best").params.shape == state.params.shape


def test_a_resumed_ensemble_ends_as_one_that_was_never_stopped(run, tmp_path, bars):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.rmtree(copy / "checkpoints" / "3")
    assert differences(run, copy) != []
    jaxppo.train(run_dir=copy, resume=True)
    assert differences(run, copy) == []
    assert (copy / "members.csv").read_bytes() == (run / "members.csv").read_bytes()


def test_a_run_goes_on_with_the_members_that_it_has(run):
    with pytest.raises(ConfigError, match=r"differs in seeds \(saved 2, given 3\)"):
        jaxppo.train(run_dir=run, resume=True, seeds=3)


def test_a_backtest_of_the_own_bars_is_the_runs_own_validation(run, tested):
    assert (tested / "symbols.csv").read_bytes() == (run / "validation" / "final_symbols.csv").read_bytes()


def test_members_are_played_alone_by_run_and_backtest(run, tested):
    """The members' figures of both, and those of one member that is played as a policy of its own."""
    frame = pl.read_csv(run / "members.csv")
    assert frame.select("policy", "member").rows() == [(p, i) for p in ("best", "final") for i in (0, 1)]
    of_run = frame.filter(pl.col("policy") == "final").drop("policy")
    of_test = pl.read_csv(tested / "members.csv")
    assert of_run.columns == of_test.columns
    for x, y in zip(of_run.rows(), of_test.rows(), strict=True):
        np.testing.assert_allclose(np.asarray(x, float), np.asarray(y, float), rtol=1e-4, atol=1e-6)
    facts = json.loads((tested / "metrics.json").read_text())["members"]
    sharpe = of_test["portfolio_sharpe"].to_list()
    assert sharpe[0] != sharpe[1]
    spread = {end: row["portfolio_sharpe"] for end, row in facts["spread"].items()}
    assert spread == pytest.approx({"lowest": min(sharpe), "mean": sum(sharpe) / 2, "highest": max(sharpe)}, rel=1e-5)
    assert [row["member"] for row in facts["each"]] == [0, 1]


def test_a_restored_ensemble_decides_as_the_backtest_did(run, tested, bars):
    policy = restore_policy(run, "final")
    equity = pl.read_parquet(tested / "equity.parquet")
    for b in load_bars(str(bars)):
        first = equity.filter(pl.col("symbol") == b.symbol).row(0, named=True)
        at = int(np.searchsorted(b.time, first["time"].timestamp()))  # the bar after the first decision
        history = slice_bars(b, slice(at))
        decided = jaxppo.decide(policy, history)
        assert decided.action == policy.info.actions.labels[first["action"]]


def test_a_run_acts_and_is_exported(run, bars, tmp_path):
    """From its folder: what `act` says is the restored policy's decision, and its export repeats what it decided."""
    alfa = load_bars(str(bars))[0]
    now = f"{datetime.fromtimestamp(int(alfa.time[-1]) + 3601, UTC):%Y-%m-%dT%H:%M:%S}"
    line = jaxppo.act(run, bars, which="final", now=now, symbols=("ALFA",), max_missing=900)
    decided = jaxppo.decide(restore_policy(run, "final"), alfa)
    assert [d["action"] for d in line["decisions"]] == [decided.action]
    assert line["decisions"][0]["probabilities"] == decided.probabilities
    folder = jaxppo.export(run, out=tmp_path / "exported", which="final")
    assert self_test(folder) == 0


def test_a_spread_is_of_each_figure_by_itself_and_leaves_out_what_is_not_defined():
    """Sharpe ratios of 1 and 3 have a mean of 2; the second member closed no trade, so its profit factor is none."""
    rows = [
        {"member": 0, "portfolio_sharpe": 1.0, "profit_factor": 1.5, "portfolio_cagr": np.nan},
        {"member": 1, "portfolio_sharpe": 3.0, "profit_factor": np.nan, "portfolio_cagr": np.nan},
    ]
    spread = member_spread(rows)
    assert [row["portfolio_sharpe"] for row in spread.values()] == [1.0, 2.0, 3.0]
    assert [row["profit_factor"] for row in spread.values()] == [1.5, 1.5, 1.5]
    assert all(np.isnan(row["portfolio_cagr"]) for row in spread.values())
    assert "member" not in spread["mean"]
    assert members_line({"portfolio_sharpe": 2.5}, rows).endswith("of the 2 alone 1.00 to 3.00; the ensemble 2.50")
    assert members_section({"portfolio_sharpe": 2.5}, []) == members_sentence([]) == ""


def test_pages_and_log_show_the_spread(run, tested, bars, capsys):
    for page in (run / "report.html", tested / "report.html"):
        text = page.read_text()
        assert "The ensemble and its members" in text
        assert text.count("Members, lowest") == 4  # of pool and portfolio, in two tables each
        assert "Member 1, rebalanced daily" in text
        assert "Buy-and-hold" not in text.split("The ensemble and its members")[1].split("</details>")[0]
        assert "Alone, its 2 members have Sharpe ratios, rebalanced daily, from " in text
    assert "an ensemble of 2" in (run / "report.html").read_text()
    jaxppo.backtest(run, split="validation", out=run.parent / "again", random_draws=1)
    told = capsys.readouterr().out
    assert "members: rebalanced daily, Sharpe ratios of the 2 alone " in told
    assert "members, highest " in told
