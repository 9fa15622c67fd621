"""The host loop: one compiled segment after another; scalars, a checkpoint and a line of progress between two."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import Params
from jaxppo.config.layers import Resolved
from jaxppo.config.schema import Config
from jaxppo.device import compile_program
from jaxppo.errors import CheckpointError, ConfigError, Interrupted, JaxppoError
from jaxppo.market.dataset import EvaluationSet, Market, evaluation_set
from jaxppo.market.tape import Tape
from jaxppo.page.members import members_line, members_table
from jaxppo.page.progress import Display
from jaxppo.page.terminal import figure_table, gate_line, rules_line, validation_line
from jaxppo.play.best import best_update, ranked_score
from jaxppo.play.edge import Edge, policy_edge
from jaxppo.play.gate import Record, judge_policy
from jaxppo.play.members import play_members
from jaxppo.play.passes import n_decisions
from jaxppo.play.score import Figures, Pooled, Score
from jaxppo.play.sides import Sides, Yardsticks, score_yardsticks
from jaxppo.ppo.program import Program, SegmentOutput, TapeSpec, make_train
from jaxppo.ppo.state import Hyper, TrainState, hyper_from
from jaxppo.store.alarms import AlarmLog
from jaxppo.store.checkpoint import CheckpointWriter
from jaxppo.store.checkpoint_info import CheckpointInfo
from jaxppo.store.columns import metrics_columns, train_columns
from jaxppo.store.directory import METRICS_CSV, MetricsCsv
from jaxppo.store.gate import write_gate
from jaxppo.store.rows import member_rows, pool_and_portfolio, portfolio_rows, train_means, validation_row
from jaxppo.store.tables import write_members, write_portfolios, write_validation
from jaxppo.store.tensorboard import FOLDER as EVENTS
from jaxppo.store.tensorboard import EventWriter
from jaxppo.train.stop import OUT_OF_TIME, Pace, Stop, StopReason

Segment = Callable[..., tuple[TrainState, SegmentOutput]]


@dataclass(frozen=True)
class Compiled:
    """The executable of a run with the arrays that it reads."""

    program: Program
    segment: Segment
    hyper: Hyper
    tape: Tape
    data: EvaluationSet
    compile_seconds: float
    memory_bytes: int  # of the program's arguments, outputs and temporaries, where the backend says
    options: Mapping[str, Any]  # of the compiler


def compile_run(config: Config, market: Market, options: Mapping[str, Any] = MappingProxyType({})) -> Compiled:
    """Trace and compile the program of a run, once. `options` are XLA's."""
    tape = market.splits["train"].tape
    data = evaluation_set(market.splits["validation"])
    program = make_train(config, TapeSpec(tape.n_features, n_decisions(data.tape)))
    hyper = hyper_from(config)
    state = jax.eval_shape(program.init, jax.random.key(0), hyper, tape)
    done = compile_program(program.segment, state, hyper, tape, data, jnp.int32(0), donate=(0,), options=options)
    return Compiled(program, done.run, hyper, tape, data, done.seconds, done.memory_bytes, options)


def first_state(compiled: Compiled, seed: int) -> TrainState:
    """The state before the first update."""
    init = jax.jit(compiled.program.init, compiler_options=dict(compiled.options))
    return init(jax.random.key(seed), compiled.hyper, compiled.tape)


@dataclass(frozen=True)
class Progress:
    """Where a run is, on the host."""

    update: int = 0
    fitness: float = -np.inf  # what validations are ranked by: see `ranked_score`
    best_fitness: float = -np.inf
    best_update: int = 0
    elapsed_seconds: float = 0.0


@dataclass(frozen=True)
class Finished:
    """Totals of a run."""

    updates: int
    env_steps: int  # of each member of an ensemble
    run_seconds: float
    steps_per_second: float  # of all members
    best_update: int
    best_fitness: float
    edge: Edge  # of the best policy, on the validation bars


def segment_lengths(config: Config, done: int | None) -> list[int]:
    """Updates of each segment that is left after `done` updates and their validation.

    A fresh run, whose `done` is None, begins with a segment of no updates: the validation of the untrained policy.
    """
    if done is None:
        return [0, *config.segments]
    left, at = [], 0
    for length in config.segments:
        at += length
        if at > done:
            left.append(at - max(done, at - length))
    return left


class Trainer:
    """Runs the segments that are left and leaves their traces in the run directory."""

    def __init__(self, run_dir: Path, resolved: Resolved, market: Market, compiled: Compiled, keep: int):
        self._run_dir = run_dir
        self._config = resolved.config
        self._market = market
        self._compiled = compiled
        self._actions = compiled.program.spec.env.actions
        self._checkpoints = CheckpointWriter(run_dir, keep)
        self._metrics = MetricsCsv(run_dir, metrics_columns(self._config, self._actions.labels))
        self._events = EventWriter(run_dir)
        self._alarms = AlarmLog(run_dir, self._actions.labels)
        self._best: Params | None = None  # on the host

    def kept(self, state: TrainState) -> dict[str, Any]:
        """The checkpoints that are on the disk, for the manifest."""
        return self._checkpoints.kept(state)

    def run(
        self,
        state: TrainState,
        at: Progress,
        display: Display,
        sides: Sides,
        stop: Stop | None = None,
        best: Params | None = None,
    ) -> Finished:
        """Train to the end, validate, save; returns the totals.

        Args:
          state: to go on from.
          at: where that is.
          display: told of every segment.
          sides: of the rules on the validation split.
          stop: asked before every segment.
          best: of a resumed run, the policy of `at.best_update`.

        Raises:
          Interrupted: `stop` said so; all is saved, or the message says what is not.
          CheckpointError: the run is done, but its last checkpoint could not be saved.
        """
        stop, began, self._best = stop or Stop(), at.update, best
        done = at.update if self._checkpoints.updates else None  # a run without a checkpoint begins again
        self._trim(done, display)
        self._alarms.follow(at.update)
        display.say(self._checkpoints.bound(state))
        pace = Pace(at.elapsed_seconds / at.update if at.update else 0.0)
        out: SegmentOutput | None = None
        for length in segment_lengths(self._config, done):
            reason = stop.reason(pace.foresee(length) + self._checkpoints.seconds)
            if reason is not None:
                raise self._stopped(reason, state, at, at.update > began or reason.status != OUT_OF_TIME, display)
            since = time.perf_counter()
            state, out, at = self._segment(state, at, length, display)
            pace.took(length, time.perf_counter() - since)
        saved = self._secure(state, at, display)
        edge = self._finish(state, out, at, sides, display)
        if not saved:
            raise CheckpointError(f"{self._run_dir}: the run is done but not saved: {self._resume_from()}")
        steps = at.update * self._config.batch_steps
        speed = self._config.budget.seeds * steps / at.elapsed_seconds if at.elapsed_seconds else 0.0
        return Finished(at.update, steps, at.elapsed_seconds, speed, at.best_update, at.best_fitness, edge)

    def close(self) -> None:
        """Wait for the save in flight; safe to call again."""
        self._checkpoints.wait()
        self._checkpoints.close()

    def _trim(self, done: int | None, display: Display) -> None:
        """Take from metrics.csv and the events what the resumed run writes again."""
        if done is None:
            self._metrics.keep_until(-1)
            self._events.keep_until(-1)
            return
        step = done * self._config.batch_steps
        for name, last, wanted in (
            (METRICS_CSV, self._metrics.keep_until(done), done),
            (EVENTS, self._events.keep_until(step), step),
        ):
            if last != wanted:
                display.say(f"warning: {name} is not whole: what it had of earlier updates up to {done} is lost")

    def _segment(
        self, state: TrainState, at: Progress, length: int, display: Display
    ) -> tuple[TrainState, SegmentOutput, Progress]:
        compiled = self._compiled
        began = time.perf_counter()
        state, out = compiled.segment(state, compiled.hyper, compiled.tape, compiled.data, jnp.int32(length))
        rows, figures = jax.device_get((out.updates, out.score.figures))  # waits for the segment
        seconds = time.perf_counter() - began
        speed = self._config.budget.seeds * length * self._config.batch_steps / seconds if length else 0.0
        after = self._progress(at, length, seconds, ranked_score(figures, self._config.budget.choose_by))
        if after.best_update == after.update:
            self._best = jax.tree.map(np.array, jax.device_get(state.params))  # a copy: the state will be donated
        row = self._row(after, rows, length, speed, figures)
        display.segment(after.update, speed, validation_line(row))
        for line in self._alarms.add(row):
            display.say(line)
        recorded = self._record(
            display,
            lambda: self._metrics.append(row),
            lambda: self._events.segment(after.update, length, rows, row, self._config.batch_steps),
        )
        self._waited(display)
        if recorded:
            self._checkpoints.save(state, self._info(after), self._best)
        return state, out, after

    def _record(self, display: Display, *writes: Callable[[], None]) -> bool:
        """Whether rows and events are on the disk, which no checkpoint may be ahead of; if not, they are kept."""
        done = True
        for write in writes:
            try:
                write()
            except OSError as error:
                done = False
                where = error.filename or self._run_dir
                display.say(f"warning: {where}: {error.strerror}; nothing is saved, the next try is after a segment")
        return done

    def _waited(self, display: Display) -> None:
        failure = self._checkpoints.wait()
        if failure is not None:
            display.say(f"warning: {failure}; older ones are kept, and the next is saved after the next segment")

    def _secure(self, state: TrainState, at: Progress, display: Display) -> bool:
        """Wait until `state` is saved; where it could not be, try once more."""
        self._waited(display)
        if at.update not in self._checkpoints.updates and self._record(
            display, self._metrics.retry, self._events.retry
        ):
            self._checkpoints.save(state, self._info(at), self._best)
            self._waited(display)
        return at.update in self._checkpoints.updates

    def _resume_from(self) -> str:
        saved = self._checkpoints.updates
        where = f"from update {saved[-1]}" if saved else "from the start"
        return f"make room and go on {where} with --run-dir {self._run_dir} --resume"

    def _stopped(
        self, reason: StopReason, state: TrainState, at: Progress, moved: bool, display: Display
    ) -> JaxppoError:
        begun = at.update > 0 or self._checkpoints.updates  # else the run has nothing to save
        saved = not begun or self._secure(state, at, display)
        where = f"stopped at update {at.update} of {self._config.budget.n_updates}"
        if not moved:
            return ConfigError(f"{reason.text}; {where} without a segment done: give more, or lower --validate-every")
        if not saved:
            return Interrupted(
                f"{reason.text}; {where}, which could not be saved; {self._resume_from()}", reason.status
            )
        return Interrupted(f"{reason.text}; {where}; go on with --run-dir {self._run_dir} --resume", reason.status)

    def _progress(self, at: Progress, length: int, seconds: float, fitness: float) -> Progress:
        update = at.update + length
        better = best_update({at.best_update: at.best_fitness, update: fitness}) == update
        return replace(
            at,
            update=update,
            fitness=fitness,
            best_fitness=fitness if better else at.best_fitness,
            best_update=update if better else at.best_update,
            elapsed_seconds=at.elapsed_seconds + (seconds if length else 0.0),
        )

    def _row(
        self, at: Progress, rows: Mapping[str, np.ndarray], length: int, speed: float, figures: Figures
    ) -> dict[str, Any]:
        means = train_means(rows, length)
        return {
            "update": at.update,
            "env_steps": at.update * self._config.batch_steps,
            **{k: means[k] for k in train_columns(self._config, self._actions.labels) if k in means},
            **({"steps_per_second": speed} if length else {}),
            "elapsed_seconds": at.elapsed_seconds,
            **validation_row(figures, self._actions.labels),
        }

    def _info(self, at: Progress) -> CheckpointInfo:
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

    def _finish(
        self, state: TrainState, out: SegmentOutput | None, at: Progress, sides: Sides, display: Display
    ) -> Edge:
        """Write and say what the final and the best policy and the rules did on the validation split; judge."""
        split, labels = self._market.splits["validation"], self._actions.labels
        final = self._play(state, state.params) if out is None else jax.device_get(out.score)
        write_validation(self._run_dir, "final", final, split, labels)
        best, params, final_params = final, jnp.copy(state.params), jnp.copy(state.params)
        if at.best_update != at.update:
            assert self._best is not None
            best, params = self._play(state, self._best), jnp.asarray(self._best)
        write_validation(self._run_dir, "best", best, split, labels)
        looks = 1 + len(self._config.segments)  # the untrained policy is looked at too
        by = self._config.budget.choose_by
        record = Record(looks, ranked_score(best.figures, by), ranked_score(final.figures, by))
        yardsticks = self._measure(best, final, sides, display)
        if params.ndim == 2:
            self._show_members({"best": (params, best), "final": (final_params, final)}, display)
        gate = judge_policy(best, split, self._actions, self._config.gate, record, yardsticks.best[1])
        write_gate(self._run_dir, gate)
        display.say(gate_line(gate))
        spec, config = self._compiled.program.spec, self._config
        return policy_edge(
            best,
            spec.env,
            spec.agent,
            params,
            self._compiled.data.tape,
            receptive_field(config.agent),
            passes=config.passes_over(self._market.n_decided("train"), at.update),
            cost_anneal=config.ppo.cost_anneal,
        )

    def _measure(self, best: Score, final: Score, sides: Sides, display: Display) -> Yardsticks:
        """Play the rules on the validation split, and say and write how policies and rules compare."""
        data = self._compiled.data
        yardsticks = score_yardsticks(sides, self._config.env, data, n_decisions(data.tape))
        policies = [("best", best.figures.portfolio), ("final", final.figures.portfolio)]
        rows = portfolio_rows(policies, yardsticks)
        write_portfolios(self._run_dir, rows)
        title = "Rebalanced daily: policies and rules on the validation bars at the same costs"
        display.table(figure_table(title, "", [(row["name"], row) for row in rows]))
        if sides.missing:
            display.say(f"rules left out, as the training bars are too few to fit them: {', '.join(sides.missing)}")
        display.say(rules_line(float(best.figures.portfolio.sharpe), *yardsticks.best))
        return yardsticks

    def _show_members(self, policies: Mapping[str, tuple[Params, Score]], display: Display) -> None:
        """Play each member of the best and the final ensemble alone; say how far the best's differ, and write all."""
        data, spec = self._compiled.data, self._compiled.program.spec
        n_bars, rows = n_decisions(data.tape), {}

        @partial(jax.jit, compiler_options=dict(self._compiled.options))
        def alone(params: Params, data: EvaluationSet) -> Pooled:
            return play_members(spec.agent, spec.env, params, data, n_bars, spec.receptive_field)

        for name, (params, _) in policies.items():
            rows[name] = member_rows(jax.device_get(alone(params, data)))
        write_members(self._run_dir, [{"policy": name, **row} for name, each in rows.items() for row in each])
        of = policies["best"][1].figures
        ensemble = pool_and_portfolio(of.pooled, of.portfolio)
        display.table(members_table(ensemble, rows["best"]))
        display.say(members_line(ensemble, rows["best"]))

    def _play(self, state: TrainState, params: Any) -> Score:
        """Validate other parameters with the same executable: a segment of no updates. Uses `state` up."""
        compiled = self._compiled
        state = jax.tree.map(jnp.copy, state._replace(params=params))
        _, out = compiled.segment(state, compiled.hyper, compiled.tape, compiled.data, jnp.int32(0))
        return jax.device_get(out.score)
