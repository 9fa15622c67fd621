"""What a run leaves in its directory: a row a validation while it trains, and at its end what its policies did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxppo.agent.policy import Params
from jaxppo.config.schema import Config
from jaxppo.device import beside
from jaxppo.env.actions import ActionTable
from jaxppo.market.dataset import EvaluationSet, Market
from jaxppo.play.best import best_update, ranked_score
from jaxppo.play.gate import Gate, Record, judge_policy
from jaxppo.play.members import play_members
from jaxppo.play.passes import n_decisions
from jaxppo.play.score import Figures, Pooled, Score
from jaxppo.play.sides import HOLD, Yardsticks
from jaxppo.play.tearsheet import sheet_of
from jaxppo.ppo.program import Program
from jaxppo.store.alarms import AlarmLog
from jaxppo.store.checkpoint_info import CheckpointInfo
from jaxppo.store.columns import metrics_columns, train_columns
from jaxppo.store.directory import METRICS_CSV, MetricsCsv
from jaxppo.store.gate import write_gate
from jaxppo.store.rows import member_rows, portfolio_rows, train_means, validation_row
from jaxppo.store.tables import FOLDER as VALIDATION
from jaxppo.store.tables import write_members, write_portfolios, write_validation
from jaxppo.store.tearsheet import write_tearsheet
from jaxppo.store.tensorboard import FOLDER as EVENTS
from jaxppo.store.tensorboard import EventWriter
from jaxppo.train.tracking import Tracking


@dataclass(frozen=True)
class Progress:
    """Where a run is, on the host."""

    update: int = 0
    fitness: float = -np.inf  # what validations are ranked by: see `ranked_score`
    best_fitness: float = -np.inf
    best_update: int = 0
    elapsed_seconds: float = 0.0

    def after(self, length: int, seconds: float, fitness: float) -> Progress:
        """Where it is after a segment of `length` updates, whose validation had this fitness."""
        update = self.update + length
        better = best_update({self.best_update: self.best_fitness, update: fitness}) == update
        return replace(
            self,
            update=update,
            fitness=fitness,
            best_fitness=fitness if better else self.best_fitness,
            best_update=update if better else self.best_update,
            elapsed_seconds=self.elapsed_seconds + (seconds if length else 0.0),
        )


class RunLog:
    """The growing files of a run directory: metrics.csv, events and alarms; and who is told besides."""

    def __init__(self, run_dir: Path, config: Config, market: Market, actions: ActionTable, tracking: Tracking):
        self._run_dir = run_dir
        self._tracking = tracking
        self._config = config
        self._market = market
        self._actions = actions
        self._metrics = MetricsCsv(run_dir, metrics_columns(config, actions.labels))
        self._events = EventWriter(run_dir)
        self._alarms = AlarmLog(run_dir, actions.labels)

    def trim(self, done: int | None) -> list[str]:
        """Take away what a run that goes on after `done` updates writes again; what is missing, a line each.

        None is a run that begins.
        """
        if done is None:
            self._metrics.keep_until(-1)
            self._events.keep_until(-1)
            self._alarms.follow(0)
            return []
        step = done * self._config.batch_steps
        found = (
            (METRICS_CSV, self._metrics.keep_until(done), done),
            (EVENTS, self._events.keep_until(step), step),
        )
        self._alarms.follow(done)
        return [
            f"warning: {name} is not whole: what it had of earlier updates up to {done} is lost"
            for name, last, wanted in found
            if last != wanted
        ]

    def row(
        self, at: Progress, rows: Mapping[str, np.ndarray], length: int, speed: float, figures: Figures
    ) -> dict[str, Any]:
        """The row of metrics.csv of a segment of `length` updates that ended at `at`. Host arrays."""
        means = train_means(rows, length)
        return {
            "update": at.update,
            "env_steps": at.update * self._config.batch_steps,
            **{k: means[k] for k in train_columns(self._config, self._actions.labels) if k in means},
            **({"steps_per_second": speed} if length else {}),
            "elapsed_seconds": at.elapsed_seconds,
            **validation_row(figures, self._actions.labels),
        }

    def alarms(self, row: Mapping[str, Any]) -> list[str]:
        """The alarms that a row raises, a line each."""
        return self._alarms.add(row)

    def writes(
        self, at: Progress, rows: Mapping[str, np.ndarray], length: int, row: Mapping[str, Any]
    ) -> tuple[Callable[[], None], ...]:
        """What is to be written of a segment; each may raise `OSError` and is kept for `retries` then."""
        steps = self._config.batch_steps
        return (
            lambda: self._metrics.append(row),
            lambda: self._events.segment(at.update, length, rows, row, steps),
        )

    def track(self, at: Progress, rows: Mapping[str, np.ndarray], length: int, row: Mapping[str, Any]) -> None:
        """Tell the trackers of a segment, which they take in on their own time."""
        self._tracking.segment(at.update, length, rows, row)

    @property
    def retries(self) -> tuple[Callable[[], None], ...]:
        """Writes what could not be written before."""
        return self._metrics.retry, self._events.retry

    def info(self, at: Progress) -> CheckpointInfo:
        """What a checkpoint of the run says of itself."""
        return CheckpointInfo(
            config=self._config,
            feature_names=self._market.feature_names,
            feature_hash=self._market.feature_hash,
            data_hash=self._market.data_hash,
            actions=self._actions,
            update=at.update,
            fitness=at.fitness,
            final=at.update == self._config.budget.n_updates,
            best_fitness=at.best_fitness,
            best_update=at.best_update,
            elapsed_seconds=at.elapsed_seconds,
        )


class Played(NamedTuple):
    """A policy and what it did on the validation split."""

    params: Params
    score: Score  # host arrays


class Ending(NamedTuple):
    """What is said of a run's policies at its end."""

    gate: Gate
    portfolios: list[dict[str, Any]]  # a row a policy, buy-and-hold and rule
    members: dict[str, list[dict[str, Any]]]  # of "best" and "final", a row a member of an ensemble; else empty


@dataclass(frozen=True)
class Setting:
    """What policies of a run are judged with."""

    config: Config
    market: Market
    program: Program
    data: EvaluationSet
    yardsticks: Yardsticks
    options: Mapping[str, Any]  # of the compiler


def write_ending(run_dir: Path, setting: Setting, best: Played, final: Played) -> Ending:
    """Judge the best and the final policy, and write what they and the rules did on the validation split."""
    config, market, yardsticks = setting.config, setting.market, setting.yardsticks
    split, actions = market.splits["validation"], setting.program.spec.env.actions
    for name, of in (("final", final), ("best", best)):
        write_validation(run_dir, name, of.score, split, actions.labels)
    hold = yardsticks.of(HOLD).portfolio_equity
    write_tearsheet(run_dir / VALIDATION, sheet_of(best.score, split, hold, market.bars), "best_")
    looks = 1 + len(config.segments)  # the untrained policy is looked at too
    fitness = (ranked_score(of.score.figures, config.budget.choose_by) for of in (best, final))
    gate = judge_policy(best.score, split, actions, config.gate, Record(looks, *fitness), yardsticks.best[1])
    rows = portfolio_rows([(n, p.score.figures.portfolio) for n, p in (("best", best), ("final", final))], yardsticks)
    write_portfolios(run_dir, rows)
    members = _play_members(setting, {"best": best.params, "final": final.params}) if best.params.ndim == 2 else {}
    if members:
        write_members(run_dir, [{"policy": name, **row} for name, each in members.items() for row in each])
    write_gate(run_dir, gate)
    return Ending(gate, rows, members)


def ahead(score: Callable[[], Yardsticks]) -> Callable[[], Yardsticks]:
    """What gives the yardsticks at a run's end; on an accelerator they are scored while it trains.

    The host has nothing to do then: the program of the rules is compiled and played beside the training, and what draws
    the pages is imported, 1.1 s of a core with all programs in the cache, 6 s without. A CPU would train slower for it.
    """
    if jax.default_backend() == "cpu":
        return score
    yardsticks = beside(score)
    beside(partial(import_module, "jaxppo.page.run"))
    return yardsticks.result


def _play_members(setting: Setting, policies: Mapping[str, Params]) -> dict[str, list[dict[str, Any]]]:
    """Play each member of ensembles alone."""
    data, spec = setting.data, setting.program.spec
    n_bars = n_decisions(data.tape)

    @partial(jax.jit, compiler_options=dict(setting.options))
    def alone(params: Params, data: EvaluationSet) -> Pooled:
        return play_members(spec.agent, spec.env, params, data, n_bars, spec.receptive_field)

    return {name: member_rows(jax.device_get(alone(params, data))) for name, params in policies.items()}
