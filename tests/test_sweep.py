"""Sweeps from the command line to the policy: halved, cut off and gone on with, shared, refused, judged."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers import TINY

import jaxppo
from benchmarks.robustness.runs import start
from jaxppo.errors import CheckpointError, ConfigError, RunDirectoryError
from jaxppo.market.synthetic import synthetic_market
from jaxppo.store.directory import Tried, sweep_tried
from jaxppo.store.locks import Lock
from jaxppo.store.npz import read_npz, write_npz
from jaxppo.sweep.__main__ import main
from jaxppo.sweep.batches import BatchFolder, Trial, batch_folders
from jaxppo.sweep.judge import Curve, tell_truth, truth_sentences
from jaxppo.sweep.product import chosen_trials
from jaxppo.sweep.space import read_space
from jaxppo.sweep.study import Study, require_optuna, storage_path
from jaxppo.sweep.work import Halving

pytest.importorskip("optuna")

SIZES = {
    **{k: v for k, v in TINY.items() if k not in ("actions", "stop_loss", "take_profit")},
    "encoder": "none",
    "n_updates": 4,
}
SWEEP = ["--trials", "5", "--batch", "3", "--halve-at", "1", "--best", "2", "--day-blocks", "4", "--sampler", "random"]
SEARCH = ["--search", "learning_rate", "log", "1e-3", "1e-1", "--search", "gamma", "uniform", ".8", ".99"]


class PowerCut(BaseException):
    """No handler of errors sees it coming."""


def words(sizes: dict[str, Any]) -> list[str]:
    return [
        w for k, v in sizes.items() for w in (f"--{k.replace('_', '-')}", *map(str, v if isinstance(v, tuple) else [v]))
    ]


def sweep(out: Path, args: list[str]) -> tuple[int, str]:
    told = StringIO()
    with redirect_stdout(told), redirect_stderr(told):
        status = main(["--out", str(out), *args])
    return status, told.getvalue()


@pytest.fixture(scope="module")
def args(tmp_path_factory) -> list[str]:
    bars = tmp_path_factory.mktemp("bars")
    for symbol, made in zip(("EURUSD", "GBPUSD"), synthetic_market(0, 2, 900), strict=True):
        days = np.arange(len(made.time)) * 86400 + 1_600_041_600  # daily, so that there are as many days as bars
        columns = {name: getattr(made, name) for name in ("open", "high", "low", "close", "volume")}
        pl.DataFrame({"timestamp": days, **columns}).write_csv(bars / f"{symbol}_1d.csv")
    return ["--data", str(bars), *words(SIZES), *SEARCH, *SWEEP]


@pytest.fixture(scope="module")
def whole(args, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sweeps") / "whole"
    status, told = sweep(out, args)
    assert status == 0, told
    return out


def table(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "trials.parquet")


def figures(out: Path) -> tuple[Any, ...]:
    """All that a sweep found out, without when."""
    return (
        (out / "trials.csv").read_bytes(),
        (out / "validations.csv").read_bytes(),
        json.loads((out / "summary.json").read_text()),
        jaxppo.restore_policy(out / "policy").params.tobytes(),
    )


# --- a whole one


def test_trials_are_halved_judged_and_averaged(whole, capsys):
    found, summary = table(whole), json.loads((whole / "summary.json").read_text())
    assert found["trial"].to_list() == [0, 1, 2, 3, 4]
    assert found["seed"].to_list() == [0, 1, 2, 3, 4]
    # Of three and of two trials one in two goes on: two and one. The others have the first two validations alone.
    assert summary["trials"] == {"asked": 5, "complete": 3, "halted": 2, "failed": 0}
    assert sorted(found["validations"].to_list()) == [2, 2, 3, 3, 3]
    assert summary["looks"] == 13
    best = found.filter(pl.col("state") == "complete").sort("value", descending=True)
    assert summary["winner"]["trial"] == best["trial"][0]
    assert summary["ensemble"]["members"] == best["trial"].to_list()[:2]
    halves = pl.read_csv(whole / "validations.csv").filter(pl.col("update") <= 2)
    for batch in ([0, 1, 2], [3, 4]):
        so_far = halves.filter(pl.col("trial").is_in(batch)).group_by("trial").agg(pl.col("value").max())
        went_on = found.filter(pl.col("trial").is_in(batch) & (pl.col("state") == "complete"))["trial"].to_list()
        assert set(went_on) == set(so_far.sort("value", descending=True)["trial"].to_list()[: len(went_on)])
    assert summary["truth"]["overfitting_splits"] == 6
    assert len(summary["sentences"]) == 4
    assert "best of 13 looks" in summary["sentences"][1]
    page = (whole / "sweep.html").read_text()
    assert "How much of the winner is luck" in page
    drawn = set(re.findall(r'data-chart="(\w+)"', page))
    # Without importance, of three trials, and seeds, of which there is one.
    assert drawn == {"ranks", "halves", "test", "score_learning_rate", "score_gamma", "learning"}
    assert {p.stem for p in (whole / "plots").iterdir()} == {"overfitting", "test", "scores", "learning"}
    assert [b.load().finished for b in batch_folders(whole)] == [True, True]
    assert not list(whole.glob("batches/*/state-*"))


def test_the_product_is_a_run_of_an_ensemble_that_knows_the_count(whole):
    policy = jaxppo.restore_policy(whole / "policy")
    summary = json.loads((whole / "summary.json").read_text())
    assert policy.info.config.budget.seeds == 2
    assert policy.params.shape[0] == 2
    assert policy.info.config.ppo.learning_rate == summary["winner"]["params"]["learning_rate"]
    assert sweep_tried(whole / "policy") == Tried(5, 13)
    assert sweep_tried(whole) == Tried(5, 13)
    with pytest.raises(CheckpointError, match="holds the policy of a sweep"):
        jaxppo.train(run_dir=whole / "policy", resume=True)


@pytest.mark.slow
def test_a_backtest_and_a_walk_forward_of_the_product_know_how_many_were_tried(whole, tmp_path):
    summary = json.loads((whole / "summary.json").read_text())
    for given, looks in ((None, 13), (40, 40)):
        tested = jaxppo.backtest(whole / "policy", out=tmp_path / f"tested-{looks}", random_draws=2, trials=given)
        metrics = json.loads((tested / "metrics.json").read_text())
        assert metrics["looks"] == looks
        assert metrics["pooled"]["sharpe"] == pytest.approx(summary["ensemble"]["test"]["sharpe"], rel=1e-5)
    config = whole / "policy" / "config.yaml"
    walked = jaxppo.walkforward(config=config, folds=2, seeds=1, out=tmp_path / "walked")
    assert json.loads((walked / "summary.json").read_text())["trials"] == 5


def test_the_same_command_again_finds_nothing_to_do_and_more_trials_go_on(whole, args, tmp_path):
    out = Path(shutil.copytree(whole, tmp_path / "again"))
    before = figures(out)
    status, told = sweep(out, args)
    assert status == 0, told
    assert "begins" not in told
    assert figures(out) == before


# --- cut off


def cut_at(monkeypatch, method: str, call: int) -> None:
    """The power fails before the `call`-th call of a method of `BatchFolder`."""
    calls, real = iter(range(1, 1000)), getattr(BatchFolder, method)

    def cut(self: BatchFolder, *arguments: Any) -> Any:
        if next(calls) == call:
            self.release()  # as the system does for a process that ends
            raise PowerCut
        return real(self, *arguments)

    monkeypatch.setattr(BatchFolder, method, cut)


CUTS = [("save", 4), ("save_state", 3), ("keep_state", 2)]
MORE_CUTS = [("save", n) for n in (1, 2, 3, 5, 6, 7, 8)] + [
    ("save_policies", 1),
    ("load_policies", 1),
    ("keep_state", 4),
]


@pytest.mark.parametrize(
    ("method", "call"), [CUTS[0], *(pytest.param(*c, marks=pytest.mark.slow) for c in (*CUTS[1:], *MORE_CUTS))]
)
def test_a_sweep_that_is_cut_anywhere_goes_on_as_if_it_had_not_been(whole, args, tmp_path, method, call):
    out = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        cut_at(patch, method, call)
        with pytest.raises(PowerCut):
            sweep(out, args)
    status, told = sweep(out, args)
    assert status == 0, told
    assert figures(out) == figures(whole)
    assert len(study_of(out, args)) == 5


def study_of(out: Path, args: list[str]) -> list[Any]:
    import optuna

    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(out / "study.log")))
    return optuna.load_study(study_name="sweep", storage=storage).get_trials()


def test_optuna_is_told_what_the_batches_say(whole, args):
    found, trials = table(whole), study_of(whole, args)
    assert [t.number for t in trials] == [0, 1, 2, 3, 4]
    for row, trial in zip(found.to_dicts(), trials, strict=True):
        assert trial.state.name == {"complete": "COMPLETE", "halted": "PRUNED"}[row["state"]]
        assert list(trial.intermediate_values) == [0, 2, 4][: row["validations"]]
        if row["state"] == "complete":
            assert trial.value == row["value"] == max(trial.intermediate_values.values())
        assert trial.params["gamma"] == row["gamma"]


@pytest.mark.slow
def test_trials_that_were_asked_for_and_lost_are_run_under_their_own_numbers(whole, args, tmp_path, monkeypatch):
    out = tmp_path / "lost"

    def cut(*arguments: Any) -> Any:
        raise PowerCut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxppo.sweep.queue.new_batch", cut)
        with pytest.raises(PowerCut):
            sweep(out, args)
    assert [t.state.name for t in study_of(out, args)] == ["RUNNING"] * 3
    assert sweep(out, args)[0] == 0
    assert figures(out) == figures(whole)


@pytest.mark.slow
def test_states_that_are_damaged_begin_again_from_the_start(whole, args, tmp_path):
    out = tmp_path / "damaged"
    with pytest.MonkeyPatch.context() as patch:
        cut_at(patch, "save", 5)
        with pytest.raises(PowerCut):
            sweep(out, args)
    (state,) = out.glob("batches/000000/state-0-2.npz")
    state.write_bytes(state.read_bytes()[:5000])
    status, told = sweep(out, args)
    assert status == 0, told
    assert "the trials of batch 000000 begin again" in told
    assert figures(out) == figures(whole)


@pytest.mark.slow
def test_sigkill_at_random_times_loses_and_repeats_nothing(whole, args, tmp_path):
    """A process that is killed again and again, each time a little later, ends with the figures of one that was not."""
    out, rng, kills = tmp_path / "killed", random.Random(0), 0
    wait = 3.0
    while True:
        process = start("jaxppo.sweep", "--out", str(out), *args, stdout=None, stderr=None)
        try:
            status = process.wait(timeout=wait + rng.uniform(0, 3))
            assert status == 0
            break
        except Exception as error:
            if isinstance(error, AssertionError):
                raise
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills, wait = kills + 1, wait * 1.4
    assert kills > 3
    assert figures(out) == figures(whole)
    assert len(study_of(out, args)) == 5


@pytest.mark.slow
def test_two_processes_share_a_sweep(whole, args, tmp_path):
    out = tmp_path / "shared"
    more = [*args, "--trials", "8", "--batch", "2"]
    both = [start("jaxppo.sweep", "--out", str(out), *more) for _ in range(2)]
    told = [process.communicate() for process in both]
    assert [p.returncode for p in both] == [0, 0], told
    found = table(out)
    assert found["trial"].to_list() == list(range(8))
    assert found["learning_rate"].n_unique() == 8
    asked = [sum(line.endswith("begins") for line in text.splitlines()) for text, _ in told]
    assert sum(asked) == 4
    assert min(asked) > 0
    assert sum("policy: " in text for text, _ in told) >= 1


# --- the same trials elsewhere


@pytest.mark.slow
def test_a_trial_is_the_training_run_with_its_flags(whole, args, tmp_path):
    row = table(whole).filter(pl.col("state") == "complete").to_dicts()[0]
    data = dict(zip(args[::2], args[1::2], strict=False))["--data"]
    run = jaxppo.train(
        run_dir=tmp_path / "run",
        data=data,
        learning_rate=row["learning_rate"],
        gamma=row["gamma"],
        seed=row["seed"],
        **SIZES,
    )
    own = pl.read_csv(run / "metrics.csv")
    rows = pl.read_csv(whole / "validations.csv").filter(pl.col("trial") == row["trial"])
    np.testing.assert_allclose(own["val_fitness"], rows["val_fitness"], rtol=1e-3)
    np.testing.assert_allclose(own["val_trades"], rows["val_trades"])


@pytest.mark.slow
def test_ensembles_shapes_and_sqlite(args, tmp_path):
    """Two shapes, of which one cannot be trained with some steps; ensembles of two; no test split; all in SQLite."""
    search = ["--search", "n_steps", "int", "4", "8", "--search", "encoder", "none", "window_mlp"]
    fixed = {k: v for k, v in SIZES.items() if k not in ("n_steps", "encoder")}
    sizes = words({**fixed, "seeds": 2, "validation_fraction": 0.3})
    more = ["--trials", "8", "--batch", "8", "--best", "8", "--storage", str(tmp_path / "all.db"), "--day-blocks", "2"]
    data = args[:2]
    out = tmp_path / "out"
    status, told = sweep(out, [*data, *sizes, *search, *more])
    assert status == 0, told
    found = table(out)
    failed = found.filter(pl.col("state") == "failed")
    assert failed["n_steps"].is_in([5, 6, 7]).all()
    assert failed.height > 0
    assert all("is not a multiple of n_steps" in reason for reason in failed["reason"])
    summary = json.loads((out / "summary.json").read_text())
    members = summary["ensemble"]["members"]
    assert found.filter(pl.col("trial").is_in(members)).select("n_steps", "encoder").n_unique() == 1
    assert jaxppo.restore_policy(out / "policy").params.shape[0] == 2 * len(members)
    done = found.filter(pl.col("state") == "complete")
    assert done["val_member_0"].is_not_null().all()
    assert summary["ensemble"]["test"] == {}
    assert "Spread over seeds" in (out / "sweep.html").read_text()


# --- refusals


def test_another_configuration_is_refused_with_one_sentence(whole, args, tmp_path):
    for more, says in (
        (["--clip", "0.3"], "its sweep: is of another sweep, which differs in clip (there 0.2, here 0.3)"),
        (["--search", "clip", "0.1", "0.2"], "search clip (there nothing, here [0.1, 0.2])"),
        (["--eta", "3"], "eta (there 2, here 3)"),
    ):
        status, told = sweep(whole, [*args, *more])
        assert status == 2
        assert says in told.splitlines()[-1]
    status, told = sweep(tmp_path / "other", [*args, "--storage", str(whole / "study.log")])
    assert status == 2
    assert "study 'sweep': is of another sweep, which differs in folder of the sweep" in told.splitlines()[-1]
    (tmp_path / "file").write_text("something")
    status, told = sweep(tmp_path, args)
    assert status == 2
    assert "holds something that is no sweep" in told.splitlines()[-1]


def test_what_does_not_fit_together_is_refused_before_anything_is_written(args, tmp_path):
    status, told = sweep(tmp_path / "out", [*args, "--halve-at", "2"])
    assert (status, told.splitlines()[-1]) == (
        2,
        "error: halve_at: 2 is not before the end: a trial has 2 validations that follow updates",
    )
    status, told = sweep(tmp_path / "out", [*args, "--gamma", "0.9"])
    assert (status, told) == (2, "error: gamma: is given and searched; leave one out\n")
    assert not (tmp_path / "out").exists()


def test_a_study_that_was_removed_is_missed(whole, args, tmp_path):
    out = Path(shutil.copytree(whole, tmp_path / "copy"))
    (out / "study.log").unlink()
    status, told = sweep(out, args)
    assert status == 2
    assert "has trials up to 4, and the study has 0 in all" in told.splitlines()[-1]


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("jaxppo.sweep.study.optuna", None)
    with pytest.raises(ConfigError, match="pip install 'jaxppo\\[sweep\\]'"):
        require_optuna()


# --- parts


@pytest.mark.parametrize("name", ["study.log", "study.db"])
def test_a_study_is_shared_and_told_twice_the_same(tmp_path, name):
    space = read_space([["learning_rate", "log", "1e-4", "1e-2"], ["encoder", "tcn", "none"]], None)
    one = Study(tmp_path / name, "sweep", space, {"a": 1, "b": [1, 2]})
    asked = one.ask(3, "tpe", 0)
    other = Study(tmp_path / name, "sweep", space, {"a": 1, "b": [1, 2]})
    assert other.running() == asked
    more = other.ask(2, "tpe", 0)
    assert [t.number for t in more] == [3, 4]
    assert len({t.params["learning_rate"] for t in (*asked, *more)}) == 5
    for study in (one, other, one):
        study.tell(0, {0: 0.1, 5: float("nan")}, "running", 0.1)
        study.tell(1, {0: 0.1, 5: 0.3}, "complete", 0.3)
        study.tell(2, {0: 0.2}, "halted", 0.2)
        study.tell(3, {}, "failed", float("nan"))
        study.tell(4, {0: float("nan")}, "complete", float("nan"))  # without any figure there is nothing to learn from
    assert [t.number for t in one.running()] == [0]
    assert [t.state.name for t in one._study.get_trials()] == ["RUNNING", "COMPLETE", "PRUNED", "FAIL", "FAIL"]
    assert len(one) == 5
    assert one.importance() == {}
    with pytest.raises(RunDirectoryError, match=r"differs in a \(there 1, here 2\); c \(there nothing, here 3\)"):
        Study(tmp_path / name, "sweep", space, {"a": 2, "b": [1, 2], "c": 3})
    (tmp_path / name).write_text("nonsense\nmore\n")
    with pytest.raises(RunDirectoryError, match="cannot be read as Optuna's storage"):
        Study(tmp_path / name, "sweep", space, {})


def test_a_grid_is_walked_once_over_all_processes(tmp_path):
    space = read_space([["gamma", ".9", ".95"], ["encoder", "tcn", "none"]], None)
    asked = [Study(tmp_path / "study.log", "sweep", space, {}).ask(n, "grid", 7) for n in (3, 1)]
    points = {(t.params["gamma"], t.params["encoder"]) for part in asked for t in part}
    assert len(points) == 4


@pytest.mark.parametrize("storage", ["study.txt", "postgresql://user:secret@host/db", "study"])
def test_a_storage_that_is_no_file_of_either_kind_is_refused(tmp_path, storage):
    with pytest.raises(ConfigError, match="storage: must be a file") as error:
        storage_path(storage, tmp_path)
    assert "secret" not in str(error.value)
    assert storage_path("sqlite:///here.db", tmp_path) == Path("here.db")
    assert storage_path(None, tmp_path) == tmp_path / "study.log"


def test_survivors_are_the_best_of_those_that_have_a_figure():
    assert Halving((1,), 3).survivors({4: 1.0, 5: 3.0, 6: 2.0, 7: float("nan")}) == {5, 6}
    assert Halving((1,), 4).survivors({4: float("nan")}) == {4}


def trial(number: int, *values: float, state: str = "complete", **result: float) -> Trial:
    rows = [{"update": float(i), "value": v, "val_portfolio_sharpe": v} for i, v in enumerate(values)]
    return Trial(number, {"x": 0.0}, number, 0, state, "", rows, result)  # type: ignore[arg-type]


def test_what_is_averaged_is_of_the_shape_that_most_of_the_best_have():
    trials = [trial(0, 1.0), trial(1, 5.0), trial(2, 4.0), trial(3, 3.0), trial(4, 9.0, state="halted")]
    trials.append(trial(5, float("nan")))
    shapes = {0: "a", 1: "a", 2: "b", 3: "a", 4: "a", 5: "a"}
    assert [t.number for t in chosen_trials(trials, shapes, 2)] == [1, 3]  # one each of the best two: the winner's
    assert [t.number for t in chosen_trials(trials, shapes, 9)] == [1, 3, 0]
    shapes |= {0: "b", 3: "b"}
    assert [t.number for t in chosen_trials(trials, shapes, 3)] == [2, 3, 0]  # two of the best three
    assert chosen_trials(trials[4:], shapes, 2) == []


def test_the_truth_counts_every_look_and_shares_days():
    rng = np.random.default_rng(0)
    days = np.arange(100) * 86400
    curves = {
        n: Curve(days[n:], np.cumprod(1 + rng.normal(0.002 * (n == 1), 0.01, 100 - n)).astype(np.float32), 365.25)
        for n in range(4)
    }
    trials = [trial(n, 0.1 * n, 0.5 + n, test_fitness=-1.0 * n) for n in range(3)]
    trials += [trial(3, 0.2, state="halted", test_fitness=5.0), trial(4, state="failed")]
    truth = tell_truth(trials, curves, trials[2], "test_fitness", 4)
    assert truth.looks == 7
    assert (truth.compared, truth.days) == (4, 97)  # the fourth trial's days begin three later
    assert (truth.ranked, truth.rank_correlation) == (3, pytest.approx(-1))
    assert truth.overfitting is not None
    np.testing.assert_allclose(np.cumprod(1 + curves[2].returns), curves[2].equity, rtol=1e-6)
    assert truth.luck_sharpe == pytest.approx(1.38 * (365.25 / 97) ** 0.5, rel=0.01)  # of 7 normal draws 1.38
    told = truth_sentences(truth, trials[2], "fitness", -2.0)
    assert told[0].startswith(
        "The winner, trial 2, has a fitness of 2.50 on the validation bars and of -2.00 on the test"
    )
    assert "6 ways to split the 97 days in halves, the best of 4 trials" in told[2]
    still = truth._replace(deflated_sharpe=float("nan"))
    assert truth_sentences(still, trials[2], "fitness", -2.0)[1].startswith("It never traded, which was the best of 7")
    few = tell_truth(trials[3:], curves, trials[3], "test_fitness", 4)
    assert few.overfitting is None
    assert "Too few trials or days" in truth_sentences(few, trials[3], "fitness", 5.0)[2]


def test_named_arrays_are_whole_or_refused(tmp_path):
    write_npz(tmp_path / "a.npz", {"x/y": np.arange(3), "z": np.ones((2, 2), np.float32)})
    found = read_npz(tmp_path / "a.npz")
    assert list(found) == ["x/y", "z"]
    assert found["z"].dtype == np.float32
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[150] ^= 255
    (tmp_path / "b.npz").write_bytes(data)
    np.save(tmp_path / "c.npy", np.array([{}], object), allow_pickle=True)
    for name in ("b.npz", "c.npy", "d.npz"):
        with pytest.raises(CheckpointError, match=f"{name}: cannot be read"):
            read_npz(tmp_path / name)


def test_a_lock_is_held_once_and_let_go_of(tmp_path):
    one, other = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert one.take()
    assert not other.take(wait=False)
    one.release()
    one.release()
    assert other.take(wait=False)
    other.release()
    with Lock(tmp_path / "file"):
        assert not Lock(tmp_path / "file").take(wait=False)
