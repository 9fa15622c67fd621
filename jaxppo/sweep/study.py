"""What Optuna does for a sweep: it chooses the parameters of trials, and keeps them where several processes see them.

The files of the batches are the truth about what was trained (`jaxppo.sweep.batches`); the study is told from them, and
telling it again changes nothing.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxppo.errors import ConfigError, RunDirectoryError
from jaxppo.store.locks import Lock
from jaxppo.sweep.space import Dimension, Space

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend
except ImportError:
    optuna = None  # type: ignore[assignment]

Sampler = Literal["tpe", "random", "grid"]
State = Literal["running", "complete", "halted", "failed"]
JOURNAL, _SQLITE, _FACTS = ("log", "journal"), ("db", "sqlite", "sqlite3"), "jaxppo"


class Asked(NamedTuple):
    """A trial that is to be run."""

    number: int
    params: dict[str, Any]  # plain values, by field


def require_optuna() -> None:
    """`ConfigError` where Optuna is not installed."""
    if optuna is None:
        raise ConfigError("sweep: needs Optuna, which is not installed: pip install 'jaxppo[sweep]'")
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def storage_path(storage: str | None, folder: Path) -> Path:
    """The file of a study: by default a journal in the sweep's folder; `ConfigError` for what is no file of either."""
    if storage is None:
        return folder / "study.log"
    path = Path(storage.removeprefix("sqlite:///"))
    if "://" in str(path) or path.suffix[1:] not in (*JOURNAL, *_SQLITE):
        raise ConfigError(
            "storage: must be a file whose name ends in .log (Optuna's journal) or .db (SQLite), got one that does not"
        )
    return path


def check_sampler(sampler: Sampler, space: Space) -> None:
    """`ConfigError` where a grid has no end."""
    endless = [name for name, of in space.items() if of.grid is None]
    if sampler == "grid" and endless:
        raise ConfigError(
            f"search: {endless[0]}: a grid needs categories, an int range or a uniform range with a step; or give"
            " another --sampler"
        )


def grid_size(space: Space) -> int:
    """Points of the grid of a space that has one."""
    return math.prod(len(of.grid or ()) for of in space.values())


class Study:
    """One study, shared by all processes of a sweep."""

    def __init__(self, path: Path, name: str, space: Space, facts: Mapping[str, Any]):
        """
        Args:
          path: of its file, from `storage_path`.
          name: of the study in the file.
          space: what is searched.
          facts: flat plain values that all processes of the sweep must have in common.

        Raises:
          RunDirectoryError: the file cannot be read, or holds a study of another sweep.
        """
        require_optuna()
        self._space = space
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what Optuna calls experimental
                self._study = optuna.create_study(
                    storage=_storage(path), study_name=name, direction="maximize", load_if_exists=True
                )
            kept = self._study.user_attrs.get(_FACTS)
        except Exception as error:  # of SQLAlchemy, of a journal that is no JSON, of the system
            raise RunDirectoryError(
                f"{path}: cannot be read as Optuna's storage ({(str(error).splitlines() or ['?'])[0][:200]})"
            ) from error
        if kept is None:
            self._study.set_user_attr(_FACTS, dict(facts))
        else:
            require_same(kept, facts, f"{path}: study {name!r}")

    def __len__(self) -> int:
        return len(self._study.get_trials(deepcopy=False))

    def running(self) -> list[Asked]:
        """Trials that were begun and not ended, by whichever process."""
        states = (optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.WAITING)
        return [Asked(t.number, dict(t.params)) for t in self._study.get_trials(deepcopy=False, states=states)]

    def ask(self, n: int, sampler: Sampler, seed: int) -> list[Asked]:
        """`n` new trials. They are those of any other process with as many trials before them, so hold a lock."""
        self._choose_by(sampler, seed)
        return [self._suggest(self._study.ask()) for _ in range(n)]

    def complete(self, number: int, sampler: Sampler, seed: int) -> Asked:
        """A trial whose process ended before it had all of its parameters, with those that it lacked."""
        self._choose_by(sampler, seed)
        return self._suggest(self._trial(number))

    def tell(self, number: int, values: Mapping[int, float], state: State, best: float) -> None:
        """What became of a trial: `values` by update, and where it has ended its state and value. May be told again."""
        frozen = self._study.get_trials(deepcopy=False)[number]
        if frozen.state.is_finished():
            return
        self._choose_by("random", 0)  # a grid that has been walked over would stop a loop that is not there
        trial = self._trial(number)
        for update, value in values.items():
            if update not in frozen.intermediate_values and not math.isnan(value):
                trial.report(value, update)
        if state == "running":
            return
        known = state == "complete" and not math.isnan(best)
        told = "COMPLETE" if known else "PRUNED" if state == "halted" else "FAIL"
        self._study.tell(number, best if known else None, getattr(optuna.trial.TrialState, told))

    def importance(self) -> dict[str, float]:
        """How much of the good scores each field decides, summing to 1 (PED-ANOVA, Watanabe and others 2023).

        Empty below ten complete trials, of which it says nothing.
        """
        done = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len(done) < 10 or len({t.value for t in done}) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {k: float(v) for k, v in optuna.importance.get_param_importances(self._study).items()}

    def _trial(self, number: int) -> Any:
        return optuna.trial.Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)

    def _suggest(self, trial: Any) -> Asked:
        return Asked(trial.number, {name: _suggest(trial, of) for name, of in self._space.items()})

    def _choose_by(self, sampler: Sampler, seed: int) -> None:
        if sampler == "grid":
            grid = {name: of.grid or [] for name, of in self._space.items()}
            self._study.sampler = optuna.samplers.GridSampler(grid, seed=seed)  # by which it numbers its points
        else:
            kind = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[sampler]
            self._study.sampler = kind(seed=seed + len(self))  # with the same seed it would draw the same again


def _storage(path: Path) -> Any:
    if path.suffix[1:] in _SQLITE:
        return f"sqlite:///{path}"
    # Optuna's own lock stays behind a process that is killed, and the next waits 30 s for it.
    lock: Any = Lock(path.with_name(path.name + ".lock"))
    backend = JournalFileBackend(str(path), lock_obj=lock)
    return optuna.storages.JournalStorage(backend)


def _suggest(trial: Any, of: Dimension) -> Any:
    if of.kind == "categories":
        return trial.suggest_categorical(of.field, list(of.choices))
    suggest = trial.suggest_int if of.whole else trial.suggest_float
    step = {"step": of.step} if of.step else {}
    return suggest(of.field, *of.values[:2], log=of.kind == "log", **step)


def require_same(kept: Mapping[str, Any], facts: Mapping[str, Any], where: str) -> None:
    """`RunDirectoryError` with the first values that differ."""
    now: Mapping[str, Any] = json.loads(json.dumps(facts))
    differ = [k for k in {**kept, **now} if kept.get(k) != now.get(k)]
    if differ:
        told = "; ".join(f"{k} (there {_brief(kept.get(k))}, here {_brief(now.get(k))})" for k in differ[:3])
        more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
        raise RunDirectoryError(
            f"{where}: is of another sweep, which differs in {told}{more}; give the same, or another --out and --study"
        )


def _brief(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
