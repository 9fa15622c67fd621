"""The markets' benchmark: shuffled bars of which nothing can be known, one pass at several costs, parts kept."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from helpers import TINY, tiny_config

from benchmarks import markets
from jaxppo.errors import ConfigError
from jaxppo.market.calendar import DAY
from jaxppo.market.synthetic import synthetic_market
from jaxppo.play.score import Pooled
from jaxppo.walkforward.program import make_folds
from jaxppo.walkforward.run import WalkforwardOptions


def daily(n_bars: int, n_symbols: int = 2):
    """Bars of days: those of the embedded market with other times, as many of each symbol."""
    bars = synthetic_market(0, n_symbols, n_bars + 100)  # some bars are missing there
    columns = ("open", "high", "low", "close", "volume")
    cut = [{name: getattr(b, name)[:n_bars] for name in columns} for b in bars]
    return [
        dataclasses.replace(b, time=np.arange(n_bars) * DAY, interval=DAY, **c) for b, c in zip(bars, cut, strict=True)
    ]


def moves(b):
    return b.close[1:] / b.close[:-1] - 1.0


def test_shuffled_bars_have_the_same_moves_in_another_order():
    bars = daily(1500)
    first = markets.shuffled(bars, 0)
    for b, s in zip(bars, first, strict=True):
        np.testing.assert_array_equal(s.time, b.time)
        # The first bar's own move is from its open, so all but one are those of the bars.
        before, after = (np.sort(np.abs(x)) for x in (moves(b), moves(s)))
        assert np.isclose(before[:, None], after[None, :], rtol=1e-9, atol=1e-15).any(1).mean() > 0.998
        assert (s.low <= np.minimum(s.open, s.close)).all()
        assert (s.high >= np.maximum(s.open, s.close)).all()
        assert not np.allclose(moves(s), moves(b))
        assert 0.45 < (moves(s) > 0).mean() < 0.55
    # One order and one sign for both symbols: what moves together still does.
    together = [np.corrcoef(*map(moves, pair))[0, 1] for pair in (bars, first)]
    assert together[0] == pytest.approx(together[1], abs=0.02)
    again, other = markets.shuffled(bars, 0), markets.shuffled(bars, 1)
    np.testing.assert_array_equal(first[0].close, again[0].close)
    assert not np.allclose(first[0].close, other[0].close)


def test_closes_alone_stay_so():
    b = daily(300, 1)[0]
    alone = dataclasses.replace(b, open=b.close, high=b.close, low=b.close, volume=0 * b.volume)
    assert markets.shuffled([alone], 0)[0].closes_alone


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market")
    bars = daily(900)
    (folder / "costs.csv").write_text("".join(["symbol,half_spread\n", *(f"{b.symbol},0.0010\n" for b in bars)]))
    config = tiny_config(window=4, actions="targets", targets=(-1.0, 1.0), costs=str(folder / "costs.csv"), fee={})
    options = WalkforwardOptions(folds=2, first_train_fraction=0.4)
    return markets.prepare_study("bars", folder, options, config, bars)


@pytest.mark.slow
def test_a_test_at_several_costs_is_each_alone(study):
    program = make_folds(study.config, study.setup.sizes)
    lanes = jax.tree.map(lambda *x: jnp.stack(x), *study.costs.values())
    assert list(study.costs) == ["0 bp", "2 bp", "5 bp", markets.OWN]
    np.testing.assert_allclose(study.costs["5 bp"].fee, 0.0005)
    np.testing.assert_allclose(study.costs[markets.OWN].impact, 0.001)
    fold = jax.tree.map(lambda x: x[0], study.setup.folds)
    hyper = markets.hyper_from(study.config)
    params = jax.jit(program.init)(fold, hyper, study.setup.history.tape).params
    test = jax.jit(markets.make_test(program, study.setup.sizes))
    both: Pooled = jax.device_get(test(params, fold, study.setup.history.tape, lanes))
    assert both.portfolio.sharpe.shape == (1, 4)
    costs = both.portfolio.costs[0]
    assert costs[0] == 0
    # A policy that goes by the market alone trades the same at any cost, so that what it pays is in proportion.
    assert costs[2] == pytest.approx(2.5 * costs[1], rel=0.05)
    assert (np.diff(both.portfolio.net_return[0]) < 0).all()
    # An ensemble of one policy twice is that policy, and so is each of its members.
    pair = jax.device_get(test(jnp.stack([params, params]), fold, study.setup.history.tape, lanes))
    np.testing.assert_allclose(pair.portfolio_equity, np.repeat(both.portfolio_equity, 3, 0), rtol=1e-5)


def test_a_period_lasts_five_years_or_more(study):
    dates = study.setup.plans[0].dates._replace(test_begin=0)
    for years, folds in ((11, 2), (4, 1), (15.1, 3)):
        plan = study.setup.plans[0]._replace(dates=dates._replace(test_end=int(years * 365.25 * DAY)))
        assert markets.five_year_folds(dataclasses.replace(study.setup, plans=[plan])) == folds


def test_a_folder_of_other_settings_is_refused(tmp_path):
    markets.claim(tmp_path / "out", {"bars": "one", "folds": 0})
    markets.claim(tmp_path / "out", {"bars": "one", "folds": 0})
    with pytest.raises(ConfigError, match="was made with another bars; give another --out"):
        markets.claim(tmp_path / "out", {"bars": "two", "folds": 0})


@pytest.mark.slow
def test_the_whole_from_a_folder_to_tables(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "bars"
    folder.mkdir()
    for b in daily(900):
        time = pl.Series(b.time * 1_000_000).cast(pl.Datetime("us", "UTC"))
        columns = {k: getattr(b, k) for k in ("open", "high", "low", "close", "volume")}
        pl.DataFrame({"timestamp": time, **columns}).write_parquet(folder / f"{b.symbol}_1d.parquet")
    line = [str(folder), "--preset", "quick_test", "--out", str(tmp_path / "out"), "--seeds", "2", "--folds", "2"]
    for name, value in {**TINY, "window": 4, "actions": "targets"}.items():
        line += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    markets.study_all(line)
    text = (tmp_path / "out" / "tables.md").read_text()
    assert text.count("| its members |") == 2
    found = json.loads((tmp_path / "out" / "shuffled" / "2_bp.json").read_text())
    assert len(found["portfolio"]["members"]) == 2
    assert found["gate"] == "DROP"
    # What is there is not done again.
    monkeypatch.setattr(markets, "train", None)
    markets.study_all(line)
    assert (tmp_path / "out" / "tables.md").read_text() == text
    assert "ensemble of 2" in capsys.readouterr().out
