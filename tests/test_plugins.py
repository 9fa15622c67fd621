"""Plugins: what they add is used like our own, kept by hash, and asked for by name; nothing else is ever executed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers import TINY

import jaxppo
from jaxppo.agent.encoders import ENCODERS
from jaxppo.backtest.__main__ import main as backtest
from jaxppo.check.__main__ import main as check
from jaxppo.config.schema import EnvConfig
from jaxppo.data.__main__ import main as data
from jaxppo.env.actions import ACTION_TABLES, action_table
from jaxppo.errors import CheckpointError, ConfigError
from jaxppo.market.asset_classes import ASSET_CLASSES, guess_asset_class, may_short
from jaxppo.market.calendar import bars_per_year
from jaxppo.market.doubts import inspect_all
from jaxppo.market.features import FEATURE_GROUPS
from jaxppo.market.synthetic import synthetic_market
from jaxppo.plugins import load_plugin, loaded_plugins, register, unload_plugins
from jaxppo.store.tensorboard import FILE, FOLDER, read_events
from jaxppo.train.__main__ import main as train
from jaxppo.walkforward.__main__ import main as walkforward

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin.py"
OWN = ["--features", "base", "weekday", "--encoder", "mean", "--actions", "half", "--reward", "steady"]


@pytest.fixture(autouse=True)
def unloaded():
    unload_plugins()
    yield
    unload_plugins()


def flags(**changes) -> list[str]:
    found = []
    for name, value in {**TINY, **changes}.items():
        if name not in ("features", "encoder", "actions"):
            found += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    return found


@pytest.fixture(scope="module")
def bars(tmp_path_factory) -> Path:
    """Hourly bars of two futures and of a stock."""
    folder = tmp_path_factory.mktemp("bars")
    for name, b in zip(("ES", "NQ", "SPY"), synthetic_market(0, 3, 900), strict=True):
        columns = {k: getattr(b, k) for k in ("open", "high", "low", "close", "volume")}
        time = pl.Series(b.time * 1_000_000).cast(pl.Datetime("us", "UTC"))
        pl.DataFrame({"timestamp": time, **columns}).write_parquet(folder / f"{name}_1h.parquet")
    return folder


@pytest.fixture(scope="module")
def run(bars, tmp_path_factory) -> Path:
    """A finished run that was trained with the example."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    line = ["--plugin", str(EXAMPLE), "--run-dir", str(folder), "--data", str(bars), *OWN, *flags(), "--track", "lines"]
    assert train(line) == 0
    unload_plugins()
    return folder


def error_of(capsys, call, *line: str) -> str:
    assert call(list(line)) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text.removeprefix("error: ").rstrip("\n")


def test_what_a_plugin_adds_is_in_the_registries_and_gone_when_it_is_unloaded():
    before = {id(r): list(r) for r in (FEATURE_GROUPS, ENCODERS, ACTION_TABLES, ASSET_CLASSES)}
    plugin = load_plugin(EXAMPLE)
    assert (plugin.name, loaded_plugins()) == ("plugin.py", (plugin,))
    assert load_plugin(EXAMPLE) == plugin  # once
    assert {"weekday", "mean", "half", "future"} <= {*FEATURE_GROUPS, *ENCODERS, *ACTION_TABLES, *ASSET_CLASSES}
    assert action_table(EnvConfig(actions="half", max_exposure=2.0)).offset == (0.0, 0.0, 1.0)
    unload_plugins()
    assert {id(r): list(r) for r in (FEATURE_GROUPS, ENCODERS, ACTION_TABLES, ASSET_CLASSES)} == before


def test_an_asset_class_of_a_plugin_is_one_everywhere(bars):
    load_plugin(EXAMPLE)
    assert [guess_asset_class(s) for s in ("ES", "SPY", "EURUSD", "BTCUSDT")] == ["future", "equity", "fx", "crypto"]
    assert may_short("future", EnvConfig())
    assert not may_short("future", EnvConfig(allow_short=("fx",)))
    found = jaxppo.load_bars(bars)
    assert [b.asset_class for b in found] == ["future", "future", "equity"]
    # A week tells the bars of a day, 24; the class says on how many days a year.
    assert bars_per_year(found[0].time[:168], found[0].interval, "future", "America/New_York") == 252 * 24
    assert len(inspect_all(found)) == 3  # the checks of hours and zones know the class


@pytest.mark.slow
def test_a_policy_of_a_plugin_is_backtested_walked_forward_checked_and_resumed(run, bars, tmp_path, capsys):
    run = Path(shutil.copytree(run, tmp_path / "run"))  # which goes on below; another test reads what it left
    manifest = json.loads((run / "manifest.json").read_text())
    assert [p["name"] for p in manifest["plugins"]] == ["plugin.py"]
    assert "monday" in manifest["features"]["names"]
    assert "reward_surprise_mean" in (run / "metrics.csv").read_text().splitlines()[0]
    plugin = ["--plugin", str(EXAMPLE)]
    out = tmp_path / "backtest"
    assert backtest([*plugin, str(run), "--split", "validation", "--out", str(out), "--random-draws", "1"]) == 0
    assert "At the top" in (out / "report.html").read_text()
    assert "at_the_top" in pl.read_csv(out / "baselines.csv")["name"].to_list()
    assert train([*plugin, "--resume", "--run-dir", str(run)]) == 0
    assert (run / "lines.txt").read_text().count("finished") == 2  # told of the resumed run too, by the same id
    assert json.loads((run / "trackers.json").read_text()) == {"lines": "run"}
    assert check(["lookahead", "parity", "reward", *plugin, "--policy", str(run)]) == 0
    line = [*plugin, "--data", str(bars), "--folds", "2", "--out", str(tmp_path / "wf"), *OWN, *flags(n_updates=1)]
    assert walkforward(line) == 0
    assert data(["check", str(bars), *plugin]) in (0, 1)
    assert "future" in capsys.readouterr().out


def test_a_tracker_is_told_what_metrics_and_events_have(run):
    lines = (run / "lines.txt").read_text().splitlines()
    told = {(int(step), name): float(value) for step, name, value in (x.split() for x in lines[:-1])}
    assert lines[-1] == "finished"
    assert json.loads((run / "trackers.json").read_text()) == {"lines": "run"}
    (last,) = pl.read_csv(run / "metrics.csv").tail(1).to_dicts()
    assert told[last["env_steps"], "validation/sharpe"] == pytest.approx(last["val_sharpe"], rel=1e-6)
    events = read_events((run / FOLDER / FILE).read_bytes())
    written = {(e.step, v.tag): v.simple_value for e in events for v in e.summary.value}
    assert told.keys() == {k for k, v in written.items() if np.isfinite(v)}
    assert [told[k] for k in told] == pytest.approx([written[k] for k in told], rel=1e-6)


def test_without_its_plugin_a_policy_is_refused_by_name(run, tmp_path, capsys):
    with pytest.raises(
        CheckpointError, match=r"trained with the plugin plugin\.py \(SHA-256 [0-9a-f]{12}\); give it with"
    ):
        jaxppo.restore_policy(run)
    assert "the plugin plugin.py" in error_of(capsys, backtest, str(run), "--out", str(tmp_path / "out"))
    assert "the plugin plugin.py" in error_of(capsys, train, "--resume", "--run-dir", str(run))
    other = tmp_path / "plugin.py"
    other.write_text(EXAMPLE.read_text() + "\n# changed\n")
    text = error_of(capsys, backtest, "--plugin", str(other), str(run), "--out", str(tmp_path / "out"))
    assert "and the one given has" in text
    unload_plugins()
    load_plugin(EXAMPLE)
    assert jaxppo.restore_policy(run).info.actions.labels == ("hold", "flat", "half")


def test_only_the_command_line_names_what_is_executed(run, tmp_path, monkeypatch):
    """The name of a plugin in a manifest, a checkpoint or a configuration executes nothing, wherever the file lies."""
    trap = tmp_path / "plugin.py"
    trap.write_text("raise SystemExit('executed')\n")
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(trap, tmp_path / "run" / "plugin.py")
    monkeypatch.chdir(tmp_path / "run")
    with pytest.raises(CheckpointError, match="trained with the plugin"):
        jaxppo.restore_policy(tmp_path / "run")
    own = tmp_path / "own.yaml"
    own.write_text("plugin: plugin.py\n")
    with pytest.raises(ConfigError, match="unknown group 'plugin'"):
        jaxppo.train(config=own, run_dir=tmp_path / "other")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_of_this_name\n", ", line 1: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("\n\n1 / 0\n", ", line 3: ZeroDivisionError: division by zero"),
        ("def f(:\n", ", line 1: SyntaxError: invalid syntax"),
        (
            "import jaxppo\njaxppo.register(3)\n",
            ", line 2: register: a int cannot be registered; give one of FeatureGroup,",
        ),
        (
            "import jaxppo\nfrom jaxppo.env.actions import ActionKind as A\njaxppo.register(A('sized', '', None))\n",
            ", line 3: choice 'sized': is registered already; choose another name",
        ),
    ],
)
def test_a_broken_plugin_is_one_sentence_and_leaves_nothing(tmp_path, capsys, source, said):
    path = tmp_path / "broken.py"
    path.write_text(source)
    before = list(ACTION_TABLES)
    text = error_of(capsys, train, "--plugin", str(path), "--run-dir", str(tmp_path / "run"))
    assert text.startswith(f"plugin: {path}{said}")
    assert list(ACTION_TABLES) == before
    assert not (tmp_path / "run").exists()


def test_a_plugin_that_is_no_python_file(tmp_path, capsys):
    text = error_of(capsys, train, "--plugin", str(tmp_path / "absent.py"))
    assert text == f"plugin: {tmp_path / 'absent.py'} is no Python file; give a .py file that registers something"


def test_registering_from_a_notebook():
    record = register(ENCODERS["none"].__class__("again", "", ENCODERS["none"].make, ENCODERS["none"].receptive_field))
    assert ENCODERS["again"] is record
    with pytest.raises(ConfigError, match="choice 'again': is registered already"):
        register(record)
    ENCODERS.remove("again")
