"""Whole runs through the command line: bars in, a run directory out, and nothing lost when one is cut off.

The runs have the sizes and the bars of `helpers.tiny_market`, so that their program is compiled once a test session.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
import pytest
from helpers import TINY

import jaxppo.page.run
from benchmarks.robustness.kills import compiled_once
from jaxppo.agent.encoders import receptive_field
from jaxppo.config.layers import DeviceInfo, describe, load_config, resolve
from jaxppo.env.trading import env_spec
from jaxppo.market.bars import data_hash, load_bars
from jaxppo.market.dataset import build_market, evaluation_set
from jaxppo.market.synthetic import synthetic_market
from jaxppo.play.passes import n_decisions
from jaxppo.play.rules import RULES
from jaxppo.play.score import validate
from jaxppo.store.checkpoint import CheckpointWriter, restore_policy, restore_train_state
from jaxppo.store.columns import metrics_columns
from jaxppo.store.rows import validation_row
from jaxppo.store.tensorboard import Event
from jaxppo.train.__main__ import main
from jaxppo.train.loop import Trainer

SYMBOLS = ("ALFA", "BRAVO")
BATCH_STEPS = 16 * 4  # n_envs x n_steps
UPDATES = [0, 2, 3]  # validated: before the first update, then every 2, and the last
TIMES = ("steps_per_second", "elapsed_seconds")
LABELS = ("hold", "buy", "sell")
REPO = Path(__file__).resolve().parent.parent


def flags(**changes: Any) -> list[str]:
    """Command line of the tiny configuration."""
    line = []
    for name, value in {**TINY, **changes}.items():
        values = value if isinstance(value, tuple) else (value,)
        line += [f"--{name.replace('_', '-')}", *map(str, values)]
    return line


@dataclass(frozen=True)
class Run:
    """A run and what it printed."""

    path: Path
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, str]]:
        with (self.path / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    @property
    def rows_without_times(self) -> list[dict[str, str]]:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in self.rows]

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.path / "manifest.json").read_text())

    def frame(self, name: str) -> pl.DataFrame:
        path = self.path / "validation" / name
        return pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)


def call(path: Path, *args: str) -> Run:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["--run-dir", str(path), *args])
    return Run(path, code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def no_report():
    """Charts take longer than these runs; most tests do not look at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxppo.page.run, "write_report", lambda run_dir: run_dir / "report.html")
        yield patch


@pytest.fixture(scope="module", autouse=True)
def once():
    """One compilation for all runs of the same configuration."""
    with compiled_once():
        yield


@pytest.fixture(scope="module")
def bars(tmp_path_factory) -> Path:
    """CSV files of the bars of `helpers.tiny_market`."""
    folder = tmp_path_factory.mktemp("bars")
    for symbol, b in zip(SYMBOLS, synthetic_market(0, 2, 900), strict=True):
        columns = {name: getattr(b, name) for name in ("open", "high", "low", "close", "volume")}
        pl.DataFrame({"timestamp": b.time, **columns}).write_csv(folder / f"{symbol}_1h.csv")
    return folder


@pytest.fixture(scope="module")
def args(bars) -> list[str]:
    return [*flags(seed=6, learning_rate=3e-4), "--data", str(bars)]


@pytest.fixture(scope="module")
def run(args, tmp_path_factory) -> Run:
    return call(tmp_path_factory.mktemp("run"), *args)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_same_result(one: Run, other: Run) -> None:
    assert one.rows_without_times == other.rows_without_times
    state, _ = restore_train_state(one.path, "final")
    again, _ = restore_train_state(other.path, "final")
    assert jax.tree.structure(state) == jax.tree.structure(again)
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


# What a run leaves behind


def test_a_run_ends_well_and_quietly(run):
    assert run.code == 0
    assert run.err == ""


def test_a_run_directory_is_complete(run):
    assert sorted(p.name for p in run.path.iterdir()) == [
        "alarms.json",
        "checkpoints",
        "config.yaml",
        "gate.json",
        "manifest.json",
        "metrics.csv",
        "plots",
        "report.html",
        "tensorboard",
        "validation",
    ]
    kinds = ("equity.parquet", "portfolio.csv", "symbols.csv", "trades.parquet")
    names = {f"{which}_{kind}" for which in ("best", "final") for kind in kinds}
    names |= {"portfolios.csv", "best_tearsheet.json", "best_tearsheet_daily.csv"}
    assert {p.name for p in (run.path / "validation").iterdir()} == names
    rules = pl.read_csv(run.path / "validation" / "portfolios.csv")["name"].to_list()
    assert rules == ["best", "final", "buy_and_hold", *RULES]
    assert set(run.manifest["rules"]) == {"linear_1", "linear_10"}
    assert not [p for p in run.path.rglob("*") if "tmp" in p.name]
    assert (run.path / "report.html").read_text().rstrip().endswith("</html>")
    plots = list((run.path / "plots").iterdir())
    assert len(plots) >= 5
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in plots)


def test_metrics_have_a_row_for_every_validation(run):
    rows = run.rows
    assert [int(r["update"]) for r in rows] == UPDATES
    assert [int(r["env_steps"]) for r in rows] == [u * BATCH_STEPS for u in UPDATES]
    assert list(rows[0]) == metrics_columns(load_config(run.path / "config.yaml"), LABELS)


def test_every_figure_is_there_once_training_began(run):
    # A ratio without trades or without moves has no value; these policies trade.
    for row in run.rows[1:]:
        assert [name for name, value in row.items() if value == ""] == []
    first = run.rows[0]
    trained = [name for name in first if not name.startswith("val_") and name not in ("update", "env_steps")]
    assert {name: first[name] for name in trained if first[name] != ""} == {"elapsed_seconds": "0"}
    assert all(first[name] != "" for name in first if name.startswith("val_"))


def test_figures_are_plausible(run):
    for row in run.rows:
        figures = {k: float(v) for k, v in row.items() if v != ""}
        assert figures["val_ruined"] == 0
        assert 0 <= figures["val_max_drawdown"] <= 1
        assert 0 <= figures["val_win_rate"] <= 1
        assert figures["val_fitness"] == pytest.approx(
            figures["val_sharpe"] * (1 - 0.2 * figures["val_max_drawdown"]), rel=1e-5
        )
        assert sum(figures[f"val_action_share_{label}"] for label in LABELS) == pytest.approx(1)
        if figures["update"] > 0:
            assert sum(figures[f"action_share_{label}"] for label in LABELS) == pytest.approx(1)
            assert 0 < figures["entropy"] <= np.log(3) + 1e-5
            assert figures["steps_per_second"] > 0
    # The last update of 3 (k = 2, warm-up 1): 3e-4 (.01 + .99 (1 + cos(pi / 2)) / 2) = 1.515e-4.
    assert float(run.rows[-1]["learning_rate"]) == pytest.approx(1.515e-4, rel=1e-5)


def test_the_configuration_that_is_saved_is_the_one_that_ran(run, bars):
    config = load_config(run.path / "config.yaml")
    assert (config.seed, config.preset, config.data.data) == (6, "quick_test", str(bars))
    flat = {"n_envs": 16, "lanes": 4, "n_steps": 4, "n_updates": 3, "validate_every": 2}
    assert {name: getattr(config.budget, name) for name in flat} == flat
    assert config.features.features == ("base",)


def test_the_manifest_says_what_the_run_was_made_of(run, bars):
    manifest = run.manifest
    loaded = load_bars(bars)
    assert manifest["data"]["hash"] == data_hash(loaded)
    assert manifest["data"]["interval"] == "1h"
    assert [s["symbol"] for s in manifest["data"]["symbols"]] == list(SYMBOLS)
    assert [s["bars"] for s in manifest["data"]["symbols"]] == [len(b.time) for b in loaded]
    assert manifest["versions"]["jax"] == jax.__version__
    assert manifest["device"]["platform"] == "cpu"
    assert manifest["actions"] == {"name": "hold_buy_sell", "labels": list(LABELS)}
    assert manifest["sources"]["n_envs"] == "command line"
    assert manifest["compile_seconds"] > 0
    bars_trained = sum(s["splits"]["train"] for s in manifest["data"]["symbols"])
    assert manifest["passes"] == pytest.approx(3 * 4 * 4 / bars_trained)  # 3 updates, 4 paths, 4 bars each
    finished = manifest["finished"]
    assert finished["edge"]["passes"] == manifest["passes"]
    assert (finished["updates"], finished["env_steps"]) == (3, 3 * BATCH_STEPS)
    assert finished["steps_per_second"] == pytest.approx(finished["env_steps"] / finished["run_seconds"])


def fitness(run: Run) -> dict[int, float]:
    return {int(r["update"]): float(r["val_fitness"]) for r in run.rows}


def test_the_best_and_the_newest_checkpoints_are_kept(run):
    by_update = fitness(run)
    best = max(by_update, key=lambda u: (by_update[u], u))
    assert run.manifest["finished"]["best_update"] == best
    assert sorted(int(p.name) for p in (run.path / "checkpoints").iterdir()) == sorted({best, *UPDATES[-2:]})
    assert restore_policy(run.path).info.update == best
    final = restore_policy(run.path, "final").info
    assert (final.update, final.final) == (3, True)
    assert final.fitness == pytest.approx(by_update[3], rel=1e-6)


def events(run: Run) -> list[Event]:
    """The records of all event files: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    found = []
    for file in sorted((run.path / "tensorboard").iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def scalars(run: Run, tag: str) -> dict[int, float]:
    return {e.step: v.simple_value for e in events(run) for v in e.summary.value if v.tag == tag}


def test_tensorboard_has_every_update_and_every_validation(run):
    assert sorted(scalars(run, "train/entropy")) == [BATCH_STEPS * (k + 1) for k in range(3)]
    for column in ("val_sharpe", "val_return", "val_trades"):
        wanted = {int(r["env_steps"]): float(r[column]) for r in run.rows}
        assert scalars(run, f"validation/{column[4:]}") == pytest.approx(wanted, rel=1e-5)
    entropy = scalars(run, "train/entropy")
    assert np.mean([entropy[64], entropy[128]]) == pytest.approx(float(run.rows[1]["entropy"]), rel=1e-5)


@pytest.mark.parametrize("which", ["best", "final"])
def test_trades_explain_the_equity(run, which):
    equity, trades = run.frame(f"{which}_equity.parquet"), run.frame(f"{which}_trades.parquet")
    assert equity["symbol"].unique(maintain_order=True).to_list() == [*SYMBOLS, "POOLED"]
    assert set(trades["reason"]) <= {"order", "stop", "take_profit", "liquidation", "end"}
    assert (trades["exit_time"] >= trades["entry_time"]).all()
    for symbol in SYMBOLS:
        curve, own = equity.filter(pl.col("symbol") == symbol), trades.filter(pl.col("symbol") == symbol)
        assert own.height > 0
        assert own["pnl"].sum() == pytest.approx(curve["equity"][-1] - 1, abs=1e-5)
        assert curve["units"][-1] == 0
        # Round trips do not overlap in time, and lie on bars of the symbol.
        assert (own["entry_time"][1:] >= own["exit_time"][:-1]).all()
        assert set(own["entry_time"]) | set(own["exit_time"]) <= set(curve["time"])


@pytest.mark.parametrize("which", ["best", "final"])
def test_validation_files_and_metrics_agree(run, which):
    update = run.manifest["finished"]["best_update"] if which == "best" else 3
    row = next(r for r in run.rows if int(r["update"]) == update)
    symbols, equity = run.frame(f"{which}_symbols.csv"), run.frame(f"{which}_equity.parquet")
    assert symbols["symbol"].to_list() == [*SYMBOLS, "POOLED", "PORTFOLIO"]
    pooled = symbols.row(2, named=True)
    for column, name in {"val_return": "return", "val_sharpe": "sharpe", "val_max_drawdown": "max_drawdown"}.items():
        assert pooled[name] == pytest.approx(float(row[column]), rel=1e-6, abs=1e-7)
    assert pooled["trades"] == int(row["val_trades"]) == run.frame(f"{which}_trades.parquet").height
    portfolio = run.frame(f"{which}_portfolio.csv")
    assert portfolio["equity"][-1] - 1 == pytest.approx(symbols.row(3, named=True)["return"], abs=1e-6)
    assert float(row["val_portfolio_sharpe"]) == pytest.approx(symbols.row(3, named=True)["sharpe"], rel=1e-6)
    for symbol, net in symbols.head(3).select("symbol", "return").rows():
        assert equity.filter(pl.col("symbol") == symbol)["equity"][-1] - 1 == pytest.approx(net, abs=1e-6)


def test_the_best_policy_validates_outside_the_run_as_it_did_in_it(run, bars):
    policy = restore_policy(run.path)
    config = policy.info.config
    market = build_market(load_bars(bars), config, receptive_field(config.agent))
    policy = restore_policy(run.path, "best", market)
    data = evaluation_set(market.splits["validation"])
    env, n_bars = env_spec(config.env, config.reward), n_decisions(data.tape)
    play = jax.jit(lambda p: validate(policy.agent, env, p, data, n_bars, receptive_field(config.agent)).figures)
    row = validation_row(jax.device_get(play(policy.params)), policy.info.actions.labels)
    written = next(r for r in run.rows if int(r["update"]) == policy.info.update)
    for name, value in row.items():
        assert value == pytest.approx(float(written[name]), rel=1e-3, abs=1e-5), name


# What a run prints


def test_printed_values_say_where_they_came_from(run, bars):
    lines = [line.split() for line in run.out.splitlines()]
    assert ["n_envs", "=", "16", "from", "command", "line"] in lines
    assert ["data", "=", str(bars), "from", "command", "line"] in lines
    assert run.out.startswith("preset quick_test on ")
    assert not [line for line in lines if line[:1] == ["gamma"]]  # a default is not listed


def test_values_come_from_presets_devices_and_the_command_line():
    device = DeviceInfo("gpu", "NVIDIA A100-SXM4-40GB", 1, 40 * 2**30)
    lines = [line.split() for line in describe(resolve("auto", {"reward": "v33", "seed": 3}, device))]
    found = {line[0]: (line[2], " ".join(line[3:])) for line in lines}
    assert found["seed"] == ("3", "from command line")
    assert found["gamma"] == ("0.991", "from reward preset v33")
    assert found["n_envs"] == ("131072", "chosen: the size that was measured, which needs 298 MiB with 16 minibatches")
    assert found["env_steps"][1] == "from preset auto"
    assert found["n_updates"] == ("477", "derived from env_steps")


def test_a_run_says_how_often_it_visits_its_bars(run):
    bars_trained = sum(s["splits"]["train"] for s in run.manifest["data"]["symbols"])
    times = f"{48 / bars_trained:.2g}"
    line = f"3 updates visit each of the {bars_trained:,} training bars {times} times, with 4 accounts each time"
    assert line in run.out.splitlines()


def test_progress_is_plain_lines(run):
    assert "\x1b" not in run.out
    assert "\r" not in run.out
    lines = [line for line in run.out.splitlines() if line.startswith("update ")]
    assert [int(line.split()[1].split("/")[0]) for line in lines] == UPDATES
    assert all("trades" in line and "Sharpe" in line and "maxDD" in line for line in lines)
    assert "steps/s" not in lines[0]
    assert re.search(r"[\d,]+ steps/s  ETA [\d,]+ s  return ", lines[1])
    assert "ETA" not in lines[-1]
    assert run.out.splitlines()[-1] == f"report: {run.path / 'report.html'}"


def test_the_embedded_market_is_called_made_up(bars, tmp_path):
    with no_report() as patch:
        patch.setattr("jaxppo.market.source.synthetic_market", lambda seed: synthetic_market(0, 2, 900))
        run = call(tmp_path / "run", *flags(seed=6))
    assert run.code == 0
    assert "no --data given: training on the embedded synthetic market, which is made up" in run.out
    assert "data: embedded synthetic market; 2 symbols" in run.out
    assert run.manifest["data"]["source"] == "embedded synthetic market"


def test_files_are_not_called_made_up(run):
    assert "made up" not in run.out
    assert "synthetic" not in run.out


# The same and not the same


def test_the_same_seed_gives_the_same_run(run, args, tmp_path):
    with no_report():
        again = call(tmp_path / "run", *args)
    assert_same_result(run, again)


def test_another_seed_gives_another_run(run, args, tmp_path):
    with no_report():
        other = call(tmp_path / "run", *args, "--seed", "1")
    assert other.rows_without_times[0] != run.rows_without_times[0]
    assert other.rows_without_times[-1] != run.rows_without_times[-1]


def test_a_run_whose_numbers_go_bad_ends_well_and_says_so(run, args, tmp_path):
    """A step size of 1e38 breaks the parameters in every update; each goes back, with half of it."""
    with no_report():
        bad = call(tmp_path / "run", *args, "--learning-rate", "1e38")
    assert (bad.code, bad.err) == (0, "")
    assert [r["rollbacks"] for r in bad.rows] == ["", "2", "1"]
    assert [r["learning_rate_scale"] for r in bad.rows] == ["", "0.25", "0.125"]
    assert all(float(r["skipped_steps"]) > 0 for r in bad.rows[1:])
    assert [r["entropy_coefficient"] for r in bad.rows] == [r["entropy_coefficient"] for r in run.rows]
    said = [line for line in bad.out.splitlines() if line.startswith("alarm: rollback")]
    assert len(said) == 1  # once, at its start
    assert said[0].startswith("alarm: rollback at update 2: the parameters went back to the last good ones")
    alarms = {a["name"]: a for a in json.loads((bad.path / "alarms.json").read_text())}
    assert (alarms["rollback"]["since"], alarms["rollback"]["until"], alarms["rollback"]["worst"]) == (2, None, 2)
    assert "skipped_steps" in alarms
    state, _ = restore_train_state(bad.path, "final")
    for name, tree in {"params": state.params, "moments": state.moments, "guard": state.guard}.items():
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(tree)), name


# Cut off and resumed


class PowerCut(BaseException):
    """No handler of errors sees it coming."""


def in_a_segment(patch: pytest.MonkeyPatch) -> None:
    """The machine goes down in a segment, with everything of the last one written."""
    done = Trainer._done

    def cut(self: Trainer, state: Any, out: Any, at: Any, *rest: Any) -> Any:
        if at.update == 2:
            wait_for(self._run_dir / "checkpoints" / "2")
            raise PowerCut
        return done(self, state, out, at, *rest)

    patch.setattr(Trainer, "_done", cut)


def before_a_row(patch: pytest.MonkeyPatch) -> None:
    """The machine goes down in a segment, with nothing of the last one written yet."""
    write = Trainer._write

    def cut(self: Trainer, display: Any) -> None:
        if self._unwritten is not None and self._unwritten.at.update > 2:
            wait_for(self._run_dir / "checkpoints" / "2")
            raise PowerCut
        write(self, display)

    patch.setattr(Trainer, "_write", cut)


def before_a_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """The machine goes down with the row of a validation written, and its checkpoint not."""
    save = CheckpointWriter.save

    def cut(self: CheckpointWriter, state: Any, info: Any, best: Any = None) -> None:
        if info.update == 2:
            self.close()  # of update 0
            raise PowerCut
        save(self, state, info, best)

    patch.setattr(CheckpointWriter, "save", cut)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


@pytest.fixture(scope="module", params=[in_a_segment, before_a_row, before_a_checkpoint], ids=lambda f: f.__name__)
def cut_off(request, args, tmp_path_factory) -> Path:
    """A run that was cut off after its second validation."""
    path = tmp_path_factory.mktemp("cut") / "run"
    with no_report() as patch:
        request.param(patch)
        with pytest.raises(PowerCut):
            call(path, *args)
    return path


def test_what_is_left_of_a_run_that_was_cut_off_can_be_resumed(run, cut_off, args):
    left = Run(cut_off, 0, "", "")
    assert [int(r["update"]) for r in left.rows] == [0, 2]
    assert "finished" not in left.manifest
    created = left.manifest["created"]
    with no_report():
        resumed = call(cut_off, *args, "--resume")  # the same command, and one word
    assert resumed.code == 0
    assert_same_result(run, resumed)
    for which in ("best", "final"):
        for kind in ("equity", "trades"):
            assert resumed.frame(f"{which}_{kind}.parquet").equals(run.frame(f"{which}_{kind}.parquet"))
    assert resumed.manifest["finished"]["best_update"] == run.manifest["finished"]["best_update"]
    assert resumed.manifest["created"] == created
    # Seconds count on from before: those of every update, whichever process did it.
    times = [float(r["elapsed_seconds"]) for r in resumed.rows]
    assert times == sorted(times)
    assert resumed.manifest["finished"]["run_seconds"] == pytest.approx(times[-1], rel=1e-6)


def test_an_interrupt_waits_for_the_checkpoint_and_says_how_to_go_on(args, tmp_path):
    done = Trainer._done

    def interrupted(self: Trainer, state: Any, out: Any, at: Any, *rest: Any) -> Any:
        if at.update == 2:
            raise KeyboardInterrupt
        return done(self, state, out, at, *rest)

    with no_report() as patch:
        patch.setattr(Trainer, "_done", interrupted)
        try:
            stopped = call(tmp_path / "run", *args)
        except KeyboardInterrupt:  # which would end the whole test session
            pytest.fail("the interrupt came through")
    assert stopped.code == 130
    assert restore_policy(stopped.path, "latest").info.update == 2
    assert stopped.err.count("\n") == 1
    assert "--resume" in stopped.err


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """A copy of the finished run, to do things to."""
    return Path(shutil.copytree(run.path, tmp_path / "run"))


def test_a_finished_run_resumes_to_what_it_was(run, copy):
    with no_report():
        again = call(copy, "--resume")
    assert again.code == 0
    assert "best validation at update" in again.out
    assert again.rows == run.rows  # the times as well: nothing was trained
    assert_same_result(run, again)
    assert again.frame("final_equity.parquet").equals(run.frame("final_equity.parquet"))
    assert again.manifest["finished"] == run.manifest["finished"]


@pytest.mark.parametrize(
    ("line", "field", "saved", "given"),
    [
        (["--learning-rate", "0.1"], "learning_rate", "0.0003", "0.1"),
        (["--n-updates", "9"], "n_updates", "3", "9"),
        (["--seed", "7"], "seed", "6", "7"),
        (["--preset", "standard"], "preset", "'quick_test'", "'standard'"),
        (["--features", "base", "calendar"], "features", "('base',)", "('base', 'calendar')"),
    ],
)
def test_a_run_is_not_resumed_as_another(run, line, field, saved, given):
    before = snapshot(run.path)
    refused = call(run.path, "--resume", *line)
    assert refused.code == 2
    assert f"differs in {field} (saved {saved}, given {given})" in refused.err
    assert refused.err.count("\n") == 1
    assert snapshot(run.path) == before


def test_a_run_is_not_resumed_on_other_bars(run, bars, tmp_path):
    file = bars / "BRAVO_1h.csv"
    whole = file.read_text()
    before = snapshot(run.path)
    try:
        file.write_text("\n".join(whole.splitlines()[:-1]) + "\n")
        refused = call(run.path, "--resume")
    finally:
        file.write_text(whole)
    assert refused.code == 2
    assert "the data changed since the run began (hash" in refused.err
    assert snapshot(run.path) == before


def test_resume_needs_a_run(tmp_path, capsys):
    assert main(["--resume"]) == 2
    assert "--resume needs --run-dir" in capsys.readouterr().err
    refused = call(tmp_path / "absent", "--resume")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "holds no run to resume (config.yaml is missing)" in refused.err
    assert not (tmp_path / "absent").exists()


def test_a_finished_run_without_checkpoints_is_not_begun_again(copy):
    shutil.rmtree(copy / "checkpoints")
    before = snapshot(copy)
    refused = call(copy, "--resume")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "the run is finished and its checkpoints are gone; start a new run" in refused.err
    assert snapshot(copy) == before


# Refused before anything is written


def test_a_run_directory_in_use_is_refused_and_left_alone(run, args):
    before = snapshot(run.path)
    refused = call(run.path, *args)
    assert refused.code == 2
    assert refused.err == (
        f"error: {run.path}: already holds a run and is never overwritten;"
        " choose another --run-dir, or --resume a run\n"
    )
    assert snapshot(run.path) == before


def test_bad_bars_leave_no_run_directory(bars, tmp_path):
    folder = tmp_path / "bars"
    shutil.copytree(bars, folder)
    text = (folder / "ALFA_1h.csv").read_text().splitlines()
    fields = text[500].split(",")
    text[500] = ",".join([*fields[:4], "-1", *fields[5:]])
    (folder / "ALFA_1h.csv").write_text("\n".join(text))
    refused = call(tmp_path / "run", *flags(), "--data", str(folder))
    assert refused.code == 2
    assert refused.err == "error: ALFA_1h.csv, symbol ALFA, line 501: close -1 is not positive\n"
    assert not (tmp_path / "run").exists()


# In processes of their own


def start(path: Path, args: list[str]) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-m", "jaxppo.train", "--run-dir", str(path), *args]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows_written(path: Path) -> int:
    file = path / "metrics.csv"
    return len(file.read_text().splitlines()) - 1 if file.exists() else 0


@pytest.mark.slow
def test_a_killed_process_is_resumed_bit_for_bit(bars, tmp_path):
    args = [*flags(seed=6, n_updates=2000, validate_every=50), "--data", str(bars)]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    out, err = start(whole, args).communicate()
    assert "report: " in out, err
    for _ in range(3):
        process, before = start(killed, [*args, *(["--resume"] if killed.exists() else [])]), rows_written(killed)
        while rows_written(killed) in range(before - 1, before + 5):  # a resumed run may do its last row again
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)
        process.kill()
        process.communicate()
    assert rows_written(killed) < 41
    out, err = start(killed, ["--resume"]).communicate()
    assert "report: " in out, err
    assert_same_result(Run(whole, 0, "", ""), Run(killed, 0, "", ""))
