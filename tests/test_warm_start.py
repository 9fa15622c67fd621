"""A warm start: a run begins with what an earlier one has learned, if it fits, and says what is new to it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from helpers import TINY, tiny_config

import jaxppo
from jaxppo.agent.encoders import receptive_field
from jaxppo.backtest.facts import read_manifest, start_warnings
from jaxppo.config.checks import check_config
from jaxppo.config.layers import DeviceInfo, Resolved, replace_fields
from jaxppo.config.schema import Config
from jaxppo.env.trading import env_spec
from jaxppo.errors import CheckpointError, ConfigError
from jaxppo.market.bars import Bars, slice_bars
from jaxppo.market.dataset import Market, build_market
from jaxppo.market.synthetic import synthetic_market
from jaxppo.market.tape import zero_tape
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.state import TrainState, hyper_from
from jaxppo.store.checkpoint import restore_policy, restore_run, save_once
from jaxppo.store.checkpoint_info import final_info
from jaxppo.store.directory import RunInputs, write_manifest
from jaxppo.store.json import read_json, write_json
from jaxppo.train.warm import new_bars, read_warm_start, require_same_start

LONG = synthetic_market(0, 2, 1000)
SHORT = [slice_bars(b, slice(800)) for b in LONG]


def market_of(config: Config, bars: list[Bars] = SHORT) -> Market:
    return build_market(bars, config, receptive_field(config.agent))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Bars, and another model's predictions for them."""
    folder = tmp_path_factory.mktemp("files")
    fields = ("time", "open", "high", "low", "close", "volume")
    pl.concat([pl.DataFrame({**{f: getattr(b, f) for f in fields}, "symbol": b.symbol}) for b in SHORT]).write_parquet(
        folder / "bars.parquet"
    )
    pl.concat(
        [pl.DataFrame({"timestamp": b.time, "symbol": b.symbol, "pred": np.sin(b.time / 9e4)}) for b in LONG]
    ).write_parquet(folder / "pred.parquet")
    return {"data": str(folder / "bars.parquet"), "extra_features": str(folder / "pred.parquet")}


def state_of(config: Config, n_features: int, value: int) -> TrainState:
    """A train state all of whose numbers are `value`: what is in it does not matter here, and drawing it takes long."""
    program = make_train(config, TapeSpec(n_features, 1))
    tape = jax.eval_shape(lambda: zero_tape(1, 1, n_features))
    shapes = jax.eval_shape(program.init, jax.random.key(0), hyper_from(config), tape)
    return jax.tree.map(lambda x: jnp.full(x.shape, value, x.dtype), shapes)


def save_run(folder: Path, config: Config) -> Path:
    """A run that was saved after its third update."""
    folder.mkdir()
    market, actions = market_of(config), env_spec(config.env, config.reward).actions
    info = final_info(config, market, actions, 3, 0.5)
    inputs = RunInputs(Resolved(config, {}), market, "bars.parquet", (), DeviceInfo("cpu", "cpu", 1, None))
    write_manifest(folder, inputs, actions, {"rules": {}})
    save_once(folder, state_of(config, len(market.feature_names), 3), info)
    return folder


@pytest.fixture(scope="module")
def run(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("first") / "run", tiny_config(**files))


def fitness(run: Path) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["val_fitness"]) for row in csv.DictReader(file)]


def config_of(run: Path, files: dict[str, str], **changes: object) -> Config:
    return tiny_config(**files, init_from=str(run), **changes)


@pytest.mark.slow
def test_a_run_begins_with_the_best_policy_of_another(files: dict[str, str], tmp_path: Path) -> None:
    run = jaxppo.train(run_dir=tmp_path / "first" / "run", **files, **TINY)
    second = jaxppo.train(run_dir=tmp_path / "run", init_from=str(run), **files, **TINY)
    assert fitness(second)[0] == max(fitness(run))
    told = read_json(second / "manifest.json")["init"]
    assert (told["run"], told["path"], told["what"], told["new_bars"]) == ("run", str(run), "policy", {})
    assert told["created"] == read_json(run / "manifest.json")["created"]
    assert told["update"] == restore_policy(run).info.update
    # Predictions are among the features of the checkpoint, and of a decision.
    assert restore_policy(second).info.feature_names[-1] == "pred"
    assert jaxppo.decide(restore_policy(second), SHORT[0]).time == SHORT[0].time[-1]
    with pytest.raises(ConfigError, match=r"features from elsewhere \(pred.parquet\) are not bars"):
        restore_policy(second).stream(SHORT[0])
    # A backtest of it says what the first had seen: here all of what is played.
    manifest = read_manifest(second)
    split = market_of(restore_policy(second).info.config).splits["validation"]
    (warning,) = start_warnings(manifest, split)
    assert warning.startswith("100.0 % of the decisions lie before 2024-12-")
    assert str(run) in warning


def test_all_takes_the_last_parameters_and_the_moments_and_begins_the_schedules_anew(
    run: Path, files: dict[str, str]
) -> None:
    config = config_of(run, files, init_what="all")
    market = market_of(config)
    warm = read_warm_start(config, market)
    assert warm is not None
    drawn = state_of(config, len(market.feature_names), 0)
    state, before = warm.begin(drawn), restore_run(run)[0]
    for learned in ((state.params, state.moments), (state.guard.good.params, state.guard.good.moments)):
        jax.tree.map(np.testing.assert_array_equal, learned, (before.params, before.moments))
    assert float(state.params[0]) == float(state.moments.mean[0]) == int(state.moments.gradients) == 3
    assert int(state.steps) == int(state.update) == 0
    jax.tree.map(np.testing.assert_array_equal, state.lanes, drawn.lanes)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), drawn)


def test_an_ensemble_begins_with_the_members_of_an_ensemble(files: dict[str, str], tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", tiny_config(**files, seeds=2))
    config = config_of(run, files, seeds=2, init_what="all")
    market = market_of(config)
    warm = read_warm_start(config, market)
    assert warm is not None
    state = warm.begin(state_of(config, len(market.feature_names), 0))
    assert state.params.shape == state.moments.mean.shape == state.guard.good.params.shape == (2, state.params.shape[1])
    np.testing.assert_array_equal(state.moments.gradients, [3, 3])
    with pytest.raises(CheckpointError, match="its policy has seeds 2 where this run has 1; give --seeds 2, or"):
        read_warm_start(config_of(run, files), market)


def test_bars_after_the_end_of_the_run_are_new(run: Path, files: dict[str, str]) -> None:
    config = config_of(run, files)
    longer = market_of(config, LONG)
    warm = read_warm_start(config, longer)
    assert warm is not None
    ends = [(len(b.time) - 800, b.time) for b in LONG]
    assert [of["bars"] for of in warm.facts["new_bars"].values()] == [n for n, _ in ends] == [200, 190]
    first, last = (np.datetime64(int(ends[0][1][i]), "s") for i in (800, -1))
    assert warm.facts["new_bars"]["SYN_A"] == {"bars": 200, "start": f"{first}+00:00", "end": f"{last}+00:00"}
    assert warm.lines[0].endswith("learning rate 0.0003, entropy coefficient 0.15, costs in full")
    assert warm.lines[1] == (
        f"new to it: 390 bars: SYN_A 200 ({str(first)[:10]} to {str(last)[:10]}), SYN_B 190 (2024-12-24 to 2024-12-31)"
    )
    # It was chosen on bars up to 85 % of its 685 with features, bar 697; this run validates from 70 % of 885, bar 734.
    assert warm.warnings == ()
    other = replace(LONG[0], symbol="NEW")
    assert new_bars(read_json(run / "manifest.json"), (other,))["NEW"]["new_symbol"] is True
    early = market_of(replace_fields(config, {"train_fraction": 0.5, "validation_fraction": 0.2}), LONG)
    seen = read_warm_start(config, early)
    assert seen is not None
    assert "validation split begins at" in seen.warnings[0]
    assert "a larger --train-fraction moves the cut-off" in seen.warnings[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": ("base", "calendar")}, "init_from: .*: the policy was trained with feature 'pred' where"),
        ({"scale_window": 33}, "the names agree, but not the scaling; the policy was trained with --scale-window 32"),
        ({"actions": "sized"}, "trained with actions 'hold_buy_sell' .* and this run has 'sized'"),
        ({"trunk_width": 16, "seeds": 2}, "its policy has trunk_width 8 where this run has 16, seeds 1 where this run"
         " has 2; give --trunk-width 8 --seeds 1, or --config .*config.yaml"),
    ],
)  # fmt: skip
def test_a_policy_that_does_not_fit_is_refused_by_name(
    run: Path, files: dict[str, str], changes: dict[str, object], message: str
) -> None:
    config = config_of(run, files, **changes)
    with pytest.raises(CheckpointError, match=message):
        read_warm_start(config, market_of(config))


def test_what_begins_from_scratch_says_so(run: Path, files: dict[str, str], tmp_path: Path) -> None:
    given = {"init_from": str(run), **files, **TINY}
    with pytest.raises(ConfigError, match="init_from: a fold begins from scratch, since a run may have seen"):
        jaxppo.walkforward(out=tmp_path / "walk", **given)
    with pytest.raises(ConfigError, match="init_from: the runs of a grid begin from scratch"):
        jaxppo.train(run_dir=tmp_path / "grid", grid=(("seed", "0", "1"),), **given)
    with pytest.raises(CheckpointError, match="no checkpoints there"):
        jaxppo.train(run_dir=tmp_path / "none", **{**given, "init_from": str(tmp_path)})
    with pytest.raises(ConfigError, match="init_what: says what to take of --init-from"):
        check_config(tiny_config(init_what="all"))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_begun_again_begins_with_the_same_policy(
    run: Path, files: dict[str, str], tmp_path: Path
) -> None:
    config = config_of(run, files)
    warm = read_warm_start(config, market_of(config))
    assert warm is not None
    write_json(tmp_path / "manifest.json", {"init": warm.facts})
    require_same_start(tmp_path, warm)
    write_json(tmp_path / "manifest.json", {"init": {**warm.facts, "sha256": "0" * 64}})
    with pytest.raises(CheckpointError, match=r"its policy changed since .* began with it"):
        require_same_start(tmp_path, warm)
