"""Exported policies: the same decisions without jaxppo, by NumPy, onnxruntime and jax.export."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import tiny_config
from test_live import Backtested, backtested, policy_of

from jaxppo.env.trading import ACCOUNT_FEATURES
from jaxppo.errors import ConfigError, DataError, RunDirectoryError
from jaxppo.export import run as export_room
from jaxppo.export.formats import FORMATS
from jaxppo.export.networks import FILES
from jaxppo.export.run import ExportOptions, export_run, write_export
from jaxppo.export.standalone import MARKET, NUMBERS, Policy, Refused, Stream, read_bars, self_test
from jaxppo.live.account import Account
from jaxppo.live.decision import Seen
from jaxppo.market.synthetic import synthetic_market

BARS = synthetic_market(0, 1, 700)[0]
RICH = tiny_config(actions="sized_close", size_by="volatility", act_by="mean", features=("base", "calendar"))


@pytest.fixture(scope="module")
def done() -> Backtested:
    """An ensemble that acts by mean, sized by volatility, with levels."""
    return backtested(RICH, BARS, 2, last=150, seed=3)


@pytest.mark.parametrize("form", ["numpy", "onnx", "stablehlo"])
def test_it_decides_as_the_policy_on_a_whole_split(done, form, tmp_path):
    """Against the backtest: its accounts at every bar, the open to come, its actions and units; and the program's own
    probabilities, values and levels."""
    write_export(tmp_path, done.policy.decider, [done.bars], form)
    policy = Policy(tmp_path)
    n, first = len(done.units), int(done.split.tape.first[0])
    reach, tape = done.policy.decider.reach, jax.tree.map(lambda x: np.asarray(x)[0], done.split.tape)
    windows = np.stack([tape.features[first + i - reach + 1 : first + i + 1] for i in range(n)])
    account = {name: np.asarray(getattr(done.account, name), np.float32) for name in NUMBERS}
    now, after = slice(first, first + n), slice(first + 1, first + n + 1)
    columns = (tape.close[now], tape.size[now], tape.open[after], tape.allow_short, tape.costs.fee, tape.costs.impact)
    market = {k: np.broadcast_to(x, (n,)) for k, x in zip(MARKET, columns, strict=True)}
    found = policy.run(windows, account, market)
    np.testing.assert_array_equal(found["action"], done.action)
    np.testing.assert_array_equal(found["units"] == account["units"], done.units == account["units"])
    np.testing.assert_allclose(found["units"], done.units, rtol=3e-6, atol=1e-9)
    assert len(np.unique(done.action)) > 1
    for i in range(n):
        seen = Seen(windows[i], "", 0, float(market["close"][i]), float(market["size"][i]), True, tape.costs, [], 0)
        d = done.policy.decider.decide(seen, done.at(i), float(market["price"][i]))
        np.testing.assert_allclose(np.exp(found["log_probs"][i]), list(d.probabilities.values()), atol=1e-6)
        np.testing.assert_allclose([found["value"][i], found["exposure"][i]], [d.value, d.exposure], atol=3e-6)
        if d.units and d.stop:
            np.testing.assert_allclose([found["stop"][i], found["take_profit"][i]], [d.stop, d.take_profit], rtol=1e-6)


KINDS = {
    "targets, no shorts, a window": {"actions": "targets", "encoder": "window_mlp", "allow_short": ()},
    "hold, the current bar, three layers": {"actions": "hold_buy_sell", "encoder": "none", "trunk_layers": 3},
    "sized, trend, by mean": {
        "actions": "sized",
        "encoder": "none",
        "act_by": "mean",
        "features": ("trend",),
        "trend_macd": (8,),
        "trend_returns": (1, 5),
    },
    "one layer, without levels": {
        "actions": "sized_close",
        "trunk_layers": 1,
        "window": 2,
        "stop_loss": 0.0,
        "take_profit": 0.0,
    },
}


LONG = ("hold, the current bar, three layers", "one layer, without levels")


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.slow) if k in LONG else k for k in KINDS])
def test_every_kind_of_policy_passes_its_self_test(kind, tmp_path, capsys):
    policy, _ = policy_of(tiny_config(**KINDS[kind]), BARS)
    for form in ("numpy", "onnx"):
        folder = tmp_path / form
        folder.mkdir()
        write_export(folder, policy.decider, [BARS], form)
        assert self_test(folder) == 0, capsys.readouterr().out
        assert "self-test passed: 64 decisions, actions the same" in capsys.readouterr().out
        with np.load(folder / "vectors.npz") as vectors:
            assert len(np.unique(vectors["action"])) > 1
            assert (vectors["units"] != vectors["account/units"]).any()
            assert np.isfinite(vectors["probabilities"]).all()


def test_fused_kernels_are_exported_as_the_plain_path():
    files = []
    for kernels in ("fused", "plain"):
        policy, _ = policy_of(tiny_config(kernels=kernels, trunk_width=16, channels=16, window=2), BARS)
        files.append(FORMATS["stablehlo"](policy))
    assert files[0] == files[1]


@pytest.fixture(scope="module")
def folder(done, tmp_path_factory):
    made = tmp_path_factory.mktemp("exported")
    write_export(made, done.policy.decider, [done.bars], "numpy")
    return made


def alone(folder, *arguments):
    """`python decide.py` where neither jaxppo nor anything it needs but NumPy can be imported."""
    code = f"""
import sys
from pathlib import Path
for name in ("jaxppo", "jax", "flax", "talib", "polars", "onnxruntime"):
    sys.modules[name] = None
sys.path.insert(0, {str(folder)!r})
import decide
sys.exit(decide.main({list(map(str, arguments))!r}))
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")


def test_the_folder_decides_with_numpy_alone(done, folder, tmp_path):
    tested = alone(folder, "--self-test")
    assert tested.returncode == 0, tested.stderr
    assert "features of 138 bars within 0.0e+00" in tested.stdout
    history = done.history(149)
    columns = (history.time, history.open, history.high, history.low, history.close, history.volume)
    lines = [",".join(map(repr, row)) for row in zip(*(c.tolist() for c in columns), strict=True)]
    (tmp_path / "bars.csv").write_text("\n".join(["timestamp,open,high,low,close,volume", *lines]) + "\n")
    told = {"equity": 9_000.0, "units": 4.0, "average_price": 95.0, "start": 8_000.0, "trades": 3, "wins": 1}
    (tmp_path / "account.json").write_text(json.dumps(told))
    decided = alone(folder, tmp_path / "bars.csv", "--account", tmp_path / "account.json", "--price", "96.5")
    assert decided.returncode == 0, decided.stderr
    found = json.loads(decided.stdout)
    per_year = json.loads((folder / "policy.json").read_text())["symbols"]["SYN_A"]["bars_per_year"]
    d = done.policy.decider(history, Account(**told), price=96.5, bars_per_year=per_year)
    assert found["action"] == d.action
    for name in ("value", "size", "exposure", "price", "units", "order", "stop", "take_profit"):
        np.testing.assert_allclose(found[name], getattr(d, name), rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(list(found["probabilities"].values()), list(d.probabilities.values()), atol=1e-6)


def test_what_the_folder_says_of_itself(done, folder):
    facts = json.loads((folder / "policy.json").read_text(), parse_constant=pytest.fail)
    info, decider = done.policy.info, done.policy.decider
    assert facts["features"]["names"] == list(info.feature_names)
    assert facts["features"]["hash"] == info.feature_hash
    assert facts["actions"]["labels"] == list(info.actions.labels)
    assert (facts["min_bars"], facts["receptive_field"], facts["members"]) == (decider.min_bars, decider.reach, 2)
    assert facts["symbols"]["SYN_A"]["fee"] == 0.001
    assert facts["observation"] == list(ACCOUNT_FEATURES)


def test_features_that_raw_bars_do_not_give_are_asked_for_as_windows(done, tmp_path):
    """Bars with dividends: the features are of total returns, which prices alone do not tell."""
    paying = dataclasses.replace(done.bars, dividend=np.zeros(len(done.bars.time)))
    write_export(tmp_path, done.policy.decider, [paying], "numpy")
    assert self_test(tmp_path) == 0
    with pytest.raises(Refused, match="features: those of this policy cannot be computed here; give windows"):
        Stream(Policy(tmp_path))


def test_a_folder_that_was_changed_is_refused(done, folder, tmp_path):
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    facts = json.loads((tmp_path / "policy.json").read_text())
    facts["env"]["max_exposure"] = 2.0
    (tmp_path / "policy.json").write_text(json.dumps(facts))
    with pytest.raises(Refused, match=r"weights.npz or policy.json is not what was exported: the hash differs"):
        Policy(tmp_path)
    changed = alone(tmp_path, "--self-test")
    assert changed.returncode == 2
    assert changed.stderr.startswith("error: ")
    policy = Policy(folder)
    window = np.zeros((8, len(done.policy.info.feature_names)), np.float32)
    for account, says in (
        ({"cash": -1.0}, "its equity is -1"),
        ({"equity": -1.0}, "equity must be above 0, got -1"),
        ({"money": 1.0}, "account: unknown field 'money'"),
        ({"units": 1.0}, "give one of equity and cash"),
        ({"equity": "1"}, "equity must be a finite number, got '1'"),
        ({"equity": 1.0, "start": 0}, "start must be above 0, got 0"),
        ({"equity": 1.0, "trades": -1}, "trades must be a whole number of at least 0, got -1"),
        ({"equity": 1.0, "units": 1e300}, "an amount is too large beside the start"),
        ({}, "give one of equity and cash"),
        ([1.0], "account: must be an object with the fields equity"),
    ):
        with pytest.raises(Refused, match=says):
            policy.decide(window, account, close=100.0)
    with pytest.raises(Refused, match="symbol: 'SYN_Z' given; the policy knows SYN_A"):
        policy.decide(window, close=100.0, symbol="SYN_Z")


def decided_on(folder: Path, bars: Path) -> dict:
    stream = Stream(policy := Policy(folder))
    for bar in read_bars(str(bars)):
        stream.feed(bar)
    return stream.decide(policy)


def test_what_is_not_bars_is_refused_by_the_folder(folder, tmp_path):
    """By row, as jaxppo does: nothing is sorted, guessed or decided on."""
    hours = [f"2024-01-{1 + i // 24:02d}T{i % 24:02d}:00:00Z,2,3,1,2,5" for i in range(200)]
    days = [f"{np.datetime64('2023-01-01') + i},2,3,1,2,5" for i in range(200)]
    for lines, says in (
        ([*hours, hours[-1]], "bars: one of 1704783600 after one of 1704783600; give every bar once, oldest first"),
        ([*hours[:-1], hours[-1].replace("1,2,5", "1,nan,5")], "close nan, volume 5, which no market can have"),
        ([*hours[:-1], hours[-1][:24]], "line 201: no row of timestamp, open, high, low, close"),
        ([hours[0].replace("Z", "")], "line 2: .*2024-01-01T00:00:00 has no offset, such as"),
        (["1704067200000,2,3,1,2,5"], "line 2: .*1704067200000 is too late for epoch seconds"),
        (days, "bars: 86400 s apart, and the policy was trained on bars of 3600 s"),
    ):
        (tmp_path / "bars.csv").write_text("\n".join(["timestamp,open,high,low,close,volume", *lines]) + "\n")
        with pytest.raises(Refused, match=says):
            decided_on(folder, tmp_path / "bars.csv")
    for name, text in (("list", "[]"), ("nothing", "{}"), ("text", "x")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.json").write_text(text)
        with pytest.raises(Refused, match=r"policy.json: not"):
            Policy(tmp_path / name)


def test_a_self_test_fails_where_decisions_differ(done, folder, tmp_path, capsys):
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with np.load(folder / "vectors.npz") as file:
        changed = {**file, "probabilities": file["probabilities"] + np.float32(1e-4)}
    np.savez(tmp_path / "vectors.npz", **changed)
    assert self_test(tmp_path) == 1
    assert "self-test FAILED" in capsys.readouterr().out


def test_what_cannot_be_exported_is_refused(done, tmp_path, monkeypatch):
    config = done.policy.info.config

    def with_agent(**changes):
        agent = dataclasses.replace(config.agent, **changes)
        info = dataclasses.replace(done.policy.info, config=dataclasses.replace(config, agent=agent))
        return dataclasses.replace(done.policy, info=info)

    with pytest.raises(ConfigError, match="computes in bfloat16, which NumPy and ONNX have in other bits"):
        FORMATS["numpy"](with_agent(compute_dtype="bfloat16"))
    with pytest.raises(ConfigError, match="encoder 'mean' is a plugin's, which only stablehlo can hold"):
        FORMATS["onnx"](with_agent(encoder="mean"))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match="--format onnx: needs the package onnx; pip install"):
        FORMATS["onnx"](done.policy)


def test_the_command_writes_a_folder_or_nothing(done, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export_room, "restore_policy", lambda run_dir, which: done.policy)
    monkeypatch.setattr(export_room, "load_market_bars", lambda data: ([done.bars], ""))
    made = export_run(ExportOptions(run_dir=tmp_path))
    assert made == tmp_path / "export-numpy"
    names = {FILES["numpy"], "policy.json", "vectors.npz", "decide.py", "networks.py", "features.py", "indicators.py"}
    assert {p.name for p in made.iterdir()} == names
    assert "--self-test" in capsys.readouterr().out
    with pytest.raises(RunDirectoryError, match="already holds something"):
        export_run(ExportOptions(run_dir=tmp_path))
    daily = dataclasses.replace(done.bars, interval=86_400)
    monkeypatch.setattr(export_room, "load_other_bars", lambda data, options, config: ([daily], ""))
    monkeypatch.setattr(export_room, "trained_interval", lambda run_dir, asked: "1h")
    with pytest.raises(DataError, match="days: bars of 1d, and the policy was trained on bars of 1h; give such"):
        export_run(ExportOptions(run_dir=tmp_path, data="days", out=tmp_path / "days"))
    assert not (tmp_path / "days").exists()
