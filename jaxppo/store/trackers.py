"""Trackers: who is told of a run's metrics besides its own files. One small interface, and a registry to add to it.

Access keys come from the environment, where each client library looks for them, and are written nowhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from jaxppo.registry import Registry

Status = Literal["finished", "stopped", "failed"]


class TrackedRun(NamedTuple):
    """What a tracker is opened for."""

    folder: Path  # of the run
    config: Mapping[str, Any]  # every field by its name, plain values
    id: str | None  # of the tracker's own run that is gone on with; None for a new one

    @property
    def name(self) -> str:
        return self.folder.name


class Sink(Protocol):
    """A run as a tracker takes it in. It is called from one thread of its own and may raise whatever it likes."""

    @property
    def id(self) -> str:
        """Name of the tracker's run, by which a resumed run finds it again."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Finite values by name at a number of env steps, such as `train/entropy` or `validation/sharpe`.

        Steps never fall, but a run that was killed says its last ones again; a step may come twice.
        """

    def close(self, status: Status) -> None:
        """All is told."""


@dataclass(frozen=True)
class Tracker:
    """A tracker that `--track` may name: an entry of `TRACKERS`.

    Example (in a file of your own; `--plugin my.py --track lines` then uses it):
      >>> class Lines:
      ...     id = "1"
      ...     def __init__(self, run):
      ...         self.file = (run.folder / "lines.txt").open("a")
      ...     def log(self, step, values):
      ...         print(step, dict(values), file=self.file)
      ...     def close(self, status):
      ...         self.file.close()
      >>> lines = Tracker("lines", "a line a step", Lines)
    """

    name: str
    help: str
    open: Callable[[TrackedRun], Sink]
    package: str | None = None  # that it imports, which is the extra of its name


class _Wandb:
    """A run of Weights & Biases. WANDB_PROJECT, WANDB_API_KEY and WANDB_MODE say where it goes."""

    def __init__(self, run: TrackedRun):
        import wandb

        if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.login(prompt=False, verify=False):
            raise PermissionError("there is no access key: set WANDB_API_KEY, or WANDB_MODE=offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "jaxppo"),
            dir=str(run.folder),
            id=run.id,
            resume="allow",
            name=run.name,
            config=dict(run.config),
            reinit="create_new",  # members of a population are runs side by side
            settings=wandb.Settings(console="off", silent=True, disable_git=True),  # a remote's address may hold a key
        )
        self.id: str = self._run.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)  # it passes over a step that is behind its last

    def close(self, status: Status) -> None:
        self._run.finish(exit_code=int(status == "failed"))


class _Mlflow:
    """A run of MLflow. MLFLOW_TRACKING_URI, its user and token, and MLFLOW_EXPERIMENT_NAME say where it goes."""

    _ENDS: Mapping[Status, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
    _PARAMS = 100  # that MLflow takes at a time

    def __init__(self, run: TrackedRun):
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._client, self._metric = MlflowClient(), Metric
        if run.id is not None:
            self.id = run.id
            self._client.update_run(run.id, status="RUNNING")
            return
        named = os.environ.get("MLFLOW_EXPERIMENT_NAME", "jaxppo")
        known = self._client.get_experiment_by_name(named)
        experiment = known.experiment_id if known else self._client.create_experiment(named)
        self.id = str(self._client.create_run(experiment, run_name=run.name).info.run_id)
        params = [Param(name, str(value)[:500]) for name, value in run.config.items()]
        for i in range(0, len(params), self._PARAMS):
            self._client.log_batch(self.id, params=params[i : i + self._PARAMS])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        # A name may not have a plus: an action is called target_+1.
        metrics = [self._metric(name.replace("+", "_"), value, now, step) for name, value in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def close(self, status: Status) -> None:
        self._client.set_terminated(self.id, self._ENDS[status])


TRACKERS = Registry(
    "tracker",
    [
        Tracker("wandb", "Weights & Biases", _Wandb, "wandb"),
        Tracker("mlflow", "MLflow", _Mlflow, "mlflow"),
    ],
    of_policy=False,
)
