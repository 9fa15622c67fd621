"""Trackers: told the same as the events, by the same id after a resume; one that fails or hangs costs a sentence."""

from __future__ import annotations

import json
import sys
import threading
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from helpers import tiny_config

from jaxppo.errors import ConfigError, Interrupted
from jaxppo.plugins import load_plugin, loaded_plugins, unload_plugins
from jaxppo.store.trackers import TRACKERS, Tracker
from jaxppo.train import tracking
from jaxppo.train.tracking import FILE, known_ids, require_trackers, tracked

CONFIG = tiny_config()  # 16 envs x 4 steps: 64 env steps an update
ROW = {"update": 2, "val_sharpe": 0.5, "val_calmar": float("nan")}
ROWS = {"entropy": np.array([1.0, 0.75, 0.0]), "policy_loss": np.array([np.nan, 2.0, 0.0])}
TOLD = [
    (64, {"train/entropy": 1.0}),
    (128, {"train/entropy": 0.75, "train/policy_loss": 2.0}),
    (128, {"validation/sharpe": 0.5}),
]


@pytest.fixture
def registered():
    """Register sinks for a test."""
    names = []

    def add(name, open_):
        names.append(name)
        TRACKERS.add(Tracker(name, "", open_))

    yield add
    for name in names:
        TRACKERS.remove(name)


class Kept:
    """A sink that keeps what it is told."""

    def __init__(self, run):
        self.run, self.id, self.told, self.status = run, run.id or "new", [], None

    def log(self, step, values):
        self.told.append((step, dict(values)))

    def close(self, status):
        self.status = status


def tell(folder, *names, rows=ROWS, say=print):
    with tracked(folder, names, CONFIG, say) as run:
        run.segment(2, 2, rows, ROW)


def test_a_sink_is_told_of_every_update_and_validation(tmp_path, registered):
    made = []
    registered("kept", lambda run: made.append(Kept(run)) or made[-1])
    tell(tmp_path, "kept")
    assert made[0].told == TOLD
    assert made[0].status == "finished"
    assert made[0].run.config["n_envs"] == 16
    assert (made[0].run.name, made[0].run.id) == (tmp_path.name, None)


def test_a_resumed_run_goes_on_with_the_same_id(tmp_path, registered):
    made = []
    registered("kept", lambda run: made.append(Kept(run)) or made[-1])
    with pytest.raises(Interrupted), tracked(tmp_path, ["kept"], CONFIG, print):
        raise Interrupted("stopped", 130)
    assert made[0].status == "stopped"
    assert known_ids(tmp_path) == {"kept": "new"}
    tell(tmp_path, *known_ids(tmp_path))
    assert made[1].run.id == "new"
    with pytest.raises(ZeroDivisionError), tracked(tmp_path, ["kept"], CONFIG, print):
        raise ZeroDivisionError
    assert made[2].status == "failed"
    (tmp_path / FILE).write_text("{")
    assert known_ids(tmp_path) == {}


@pytest.mark.parametrize("at", ["open", "log", "close"])
def test_a_sink_that_fails_costs_one_sentence(tmp_path, registered, at):
    made, said = [], []

    def fail(*_):
        raise OSError("POST https://me:s3cr3t@host/api refused.\nTraceback")

    def broken(run):
        if at == "open":
            fail()
        sink = Kept(run)
        setattr(sink, at, fail)
        return sink

    registered("broken", broken)
    registered("kept", lambda run: made.append(Kept(run)) or made[-1])
    with tracked(tmp_path, ["broken", "kept"], CONFIG, said.append) as run:
        for update in (2, 4):
            run.segment(update, 2, ROWS, ROW)
    assert said == ["warning: broken: POST https://host/api refused; the run goes on and tells broken no more"]
    assert len(made[0].told) == 6


def test_a_folder_that_cannot_be_written_is_said_too(tmp_path, registered):
    said = []
    registered("kept", Kept)
    tell(tmp_path / "absent", "kept", say=said.append)
    assert len(said) == 1
    assert said[0].startswith("warning: kept: ")


def test_a_sink_that_hangs_holds_the_end_for_a_while_only(tmp_path, registered, monkeypatch):
    monkeypatch.setattr(tracking, "_PATIENCE", 0.05)
    go, said = threading.Event(), []
    sink = SimpleNamespace(id="1", log=lambda *_: go.wait(), close=lambda *_: None)
    registered("slow", lambda run: sink)
    tell(tmp_path, "slow", say=said.append)
    go.set()
    assert said == ["warning: slow has not taken in all within 0 s of the end; the rest is lost to it"]


def test_names_are_looked_up_before_anything_begins(tmp_path, registered):
    with pytest.raises(ConfigError, match="track: unknown tracker 'wandbb'; did you mean 'wandb'"):
        require_trackers(["wandbb"])
    TRACKERS.add(Tracker("absent", "", Kept, package="no_such_package"))
    with pytest.raises(ConfigError, match=r"track: no_such_package is not installed; pip install 'jaxppo\[absent\]'"):
        require_trackers(["absent"])
    TRACKERS.remove("absent")
    said = []
    tell(tmp_path, "gone", say=said.append)
    assert said == ["warning: the tracker 'gone' that the run began with is not registered; give its --plugin again"]


def test_a_policy_does_not_need_the_plugin_of_its_tracker(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import jaxppo\nfrom jaxppo.store.trackers import Tracker\njaxppo.register(Tracker('mine', '', None))\n"
    )
    load_plugin(path)
    assert "mine" in TRACKERS
    assert loaded_plugins() == ()
    unload_plugins()
    assert "mine" not in TRACKERS


class Calls:
    """A stand-in of a client library: what was called, in order."""

    def __init__(self):
        self.made = []

    def __call__(self, name, result=None):
        def call(*args, **kwargs):
            self.made.append((name, args, kwargs))
            return result

        return call

    def of(self, name):
        return [(args, kwargs) for n, args, kwargs in self.made if n == name]


@pytest.fixture
def calls():
    return Calls()


def test_weights_and_biases(tmp_path, monkeypatch, calls):
    """By a stand-in of its client; the real one is used by a slow test."""
    run = SimpleNamespace(id="abc", log=calls("log"), finish=calls("finish"))
    wandb = ModuleType("wandb")
    wandb.init, wandb.login, wandb.Settings = calls("init", run), calls("login", False), dict
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    said = []
    tell(tmp_path, "wandb", say=said.append)
    assert said == [
        "warning: wandb: there is no access key: set WANDB_API_KEY, or WANDB_MODE=offline; the run goes on and tells"
        " wandb no more"
    ]
    monkeypatch.setenv("WANDB_MODE", "offline")
    tell(tmp_path, "wandb")
    tell(tmp_path, "wandb")
    first, again = (kwargs for _, kwargs in calls.of("init"))
    assert (first["project"], first["dir"], first["name"]) == ("mine", str(tmp_path), tmp_path.name)
    assert (first["id"], again["id"], again["resume"]) == (None, "abc", "allow")
    assert first["config"]["n_envs"] == 16
    assert [(kwargs["step"], values) for (values,), kwargs in calls.of("log")] == TOLD * 2
    assert calls.of("finish") == [((), {"exit_code": 0})] * 2


def test_mlflow(tmp_path, monkeypatch, calls):
    """By a stand-in of its client; the real one is used by a slow test."""
    made = SimpleNamespace(info=SimpleNamespace(run_id="r1"))
    client = SimpleNamespace(
        get_experiment_by_name=calls("experiment"),
        create_experiment=calls("create_experiment", "7"),
        create_run=calls("create_run", made),
        update_run=calls("update_run"),
        log_batch=calls("log_batch"),
        set_terminated=calls("set_terminated"),
    )
    mlflow, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    mlflow.MlflowClient = lambda: client
    entities.Metric = lambda name, value, time, step: (name, value, step)
    entities.Param = lambda name, value: (name, value)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    rows = {"action_share_target_+1": np.array([0.5, 0.25])}
    tell(tmp_path, "mlflow", rows=rows)
    tell(tmp_path, "mlflow", rows=rows)
    assert calls.of("create_experiment") == [(("jaxppo",), {})]
    assert calls.of("create_run") == [(("7",), {"run_name": tmp_path.name})]
    assert calls.of("update_run") == [(("r1",), {"status": "RUNNING"})]
    params = [p for _, kwargs in calls.of("log_batch") for p in kwargs.get("params", [])]
    assert ("n_envs", "16") in params
    metrics = [m for _, kwargs in calls.of("log_batch") for m in kwargs.get("metrics", [])]
    name = "train/action_share_target__1"
    assert metrics == [(name, 0.5, 64), (name, 0.25, 128), ("validation/sharpe", 0.5, 128)] * 2
    assert calls.of("set_terminated") == [(("r1", "FINISHED"), {})] * 2


def files_with(folder, word: bytes) -> list[str]:
    return [str(p) for p in folder.rglob("*") if p.is_file() and word in p.read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed: pip install 'jaxppo[wandb]'")
def test_weights_and_biases_itself_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "s3cr3t" * 7)
    tell(tmp_path, "wandb", say=pytest.fail)
    tell(tmp_path, "wandb", say=pytest.fail)
    (id_,) = known_ids(tmp_path).values()
    assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{id_}"))) >= 1
    assert files_with(tmp_path, b"train/entropy")
    assert not files_with(tmp_path, b"s3cr3t")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mlflow") is None, reason="MLflow is not installed: pip install 'jaxppo[mlflow]'")
def test_mlflow_itself_in_a_local_database(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cr3t" * 7)
    (tmp_path / "run").mkdir()
    tell(tmp_path / "run", "mlflow", say=pytest.fail)
    tell(tmp_path / "run", "mlflow", say=pytest.fail)
    (id_,) = json.loads((tmp_path / "run" / FILE).read_text()).values()
    client = MlflowClient(address)
    assert client.get_run(id_).info.status == "FINISHED"
    assert client.get_run(id_).data.params["n_envs"] == "16"
    history = client.get_metric_history(id_, "train/entropy")
    assert sorted((m.step, m.value) for m in history) == [(64, 1.0)] * 2 + [(128, 0.75)] * 2
    assert not files_with(tmp_path, b"s3cr3t")
