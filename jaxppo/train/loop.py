"""The host loop: one compiled segment after another; what one leaves is written while the next one runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import Params
from jaxppo.config.layers import Resolved
from jaxppo.config.schema import Config
from jaxppo.errors import CheckpointError, ConfigError, Interrupted, JaxppoError
from jaxppo.hosts import ALONE, Hosts
from jaxppo.market.dataset import Market
from jaxppo.page.members import members_line, members_table
from jaxppo.page.progress import Display
from jaxppo.page.terminal import figure_table, gate_line, rules_line, validation_line
from jaxppo.play.best import ranked_score
from jaxppo.play.edge import Edge, policy_edge
from jaxppo.play.passes import n_decisions
from jaxppo.play.score import Score
from jaxppo.play.sides import Sides, Yardsticks, score_yardsticks
from jaxppo.ppo.layout import fetch, of_members, place
from jaxppo.ppo.program import SegmentOutput
from jaxppo.ppo.state import TrainState
from jaxppo.store.checkpoint import CheckpointWriter
from jaxppo.store.rows import pool_and_portfolio
from jaxppo.train.compiled import Compiled
from jaxppo.train.record import Ending, Played, Progress, RunLog, Setting, ahead, write_ending
from jaxppo.train.stop import OUT_OF_TIME, Pace, Stop, StopReason
from jaxppo.train.tracking import Tracking


@dataclass(frozen=True)
class Finished:
    """Totals of a run."""

    updates: int
    env_steps: int  # of each member of an ensemble
    run_seconds: float
    steps_per_second: float  # of all members
    best_update: int
    best_fitness: float
    edge: Edge | None  # of the best policy, on the validation bars; where this process writes


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


class _Segment(NamedTuple):
    """A segment that is done and not yet written down."""

    state: TrainState  # of one process on the host, since the next segment takes over its memory
    at: Progress
    length: int
    rows: Mapping[str, np.ndarray]  # (length or more,) of each update
    row: dict[str, Any]  # of metrics.csv
    speed: float  # steps a second


class Trainer:
    """Runs the segments that are left and leaves their traces in the run directory."""

    def __init__(
        self, run_dir: Path, resolved: Resolved, market: Market, compiled: Compiled, keep: int, tracking: Tracking,
        hosts: Hosts = ALONE,
    ):  # fmt: skip
        self._hosts = hosts  # of which the leading one writes
        self._run_dir = run_dir
        self._config = resolved.config
        self._market = market
        self._compiled = compiled
        self._actions = compiled.program.spec.env.actions
        self._checkpoints = CheckpointWriter(run_dir, keep, hosts)
        self._log = RunLog(run_dir, resolved.config, market, self._actions, tracking)
        self._best: Params | None = None  # on the host
        self._unwritten: _Segment | None = None

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
        for line in self._log.trim(done) if self._hosts.lead else ():
            display.say(line)
        display.say(self._checkpoints.bound(state))
        pace = Pace(at.elapsed_seconds / at.update if at.update else 0.0)
        out: SegmentOutput | None = None
        yardsticks = ahead(partial(self._score_yardsticks, sides))
        for length in segment_lengths(self._config, done):
            reason = self._why_stop(stop, pace.foresee(length) + self._checkpoints.seconds)
            if reason is not None:
                self._write(display)
                raise self._stopped(reason, state, at, at.update > began or reason.status != OUT_OF_TIME, display)
            since = time.perf_counter()
            state, out, at = self._segment(state, at, length, display)
            pace.took(length, time.perf_counter() - since)
        self._write(display)
        best_played, final_played = self._played(state, out, at)
        edge = self._finish(best_played, final_played, at, yardsticks(), display) if self._hosts.lead else None
        if not self._secure(state, at, display):  # asked last: the checkpoint is written beside the rest
            raise CheckpointError(f"{self._run_dir}: the run is done but not saved: {self._resume_from()}")
        steps = at.update * self._config.batch_steps
        speed = self._config.budget.seeds * steps / at.elapsed_seconds if at.elapsed_seconds else 0.0
        return Finished(at.update, steps, at.elapsed_seconds, speed, at.best_update, at.best_fitness, edge)

    def close(self) -> None:
        """Wait for the save in flight; safe to call again."""
        self._checkpoints.wait()
        self._checkpoints.close()

    def _segment(
        self, state: TrainState, at: Progress, length: int, display: Display
    ) -> tuple[TrainState, SegmentOutput, Progress]:
        """One segment, during which what the one before left is written."""
        began = time.perf_counter()
        state, out = self._compiled.advance(state, length)  # returns before the device is done
        self._write(display)
        self._unwritten = self._done(state, out, at, length, began)
        at = self._unwritten.at
        if self._hosts.count > 1:  # they write together what lies on their devices, so the next one waits for it
            self._write(display)
        return state, out, at

    def _done(self, state: TrainState, out: SegmentOutput, at: Progress, length: int, began: float) -> _Segment:
        """Wait for a segment of `length` updates after `at`; what is to be written of it."""
        rows, figures = jax.device_get((out.updates, out.score.figures))  # waits for the segment
        seconds = time.perf_counter() - began
        speed = self._config.budget.seeds * length * self._config.batch_steps / seconds if length else 0.0
        after = at.after(length, seconds, ranked_score(figures, self._config.budget.choose_by))
        kept = fetch(state) if self._hosts.count == 1 else state
        if after.best_update == after.update:
            self._best = fetch(kept.params)
        return _Segment(kept, after, length, rows, self._log.row(after, rows, length, speed, figures), speed)

    def _write(self, display: Display) -> None:
        """Say and write what the last segment left: its rows first, which no checkpoint may be ahead of."""
        if self._unwritten is None:
            return
        (state, after, length, rows, row, speed), self._unwritten = self._unwritten, None
        display.segment(after.update, speed, validation_line(row))
        for line in self._log.alarms(row) if self._hosts.lead else ():
            display.say(line)
        recorded = self._record(display, *self._log.writes(after, rows, length, row))
        self._log.track(after, rows, length, row)
        self._waited(display)
        if recorded:
            self._checkpoints.save(state, self._log.info(after), self._best)

    def _record(self, display: Display, *writes: Callable[[], None]) -> bool:
        """Whether rows and events are on the disk, which no checkpoint may be ahead of; if not, they are kept."""
        done = True
        for write in writes if self._hosts.lead else ():
            try:
                write()
            except OSError as error:
                done = False
                where = error.filename or self._run_dir
                display.say(f"warning: {where}: {error.strerror}; nothing is saved, the next try is after a segment")
        return self._hosts.all(done)

    def _waited(self, display: Display) -> None:
        failure = self._checkpoints.wait()
        if failure is not None:
            display.say(f"warning: {failure}; older ones are kept, and the next is saved after the next segment")

    def _secure(self, state: TrainState, at: Progress, display: Display) -> bool:
        """Wait until `state` is saved; where it could not be, try once more."""
        self._waited(display)
        if at.update not in self._checkpoints.updates and self._record(display, *self._log.retries):
            self._checkpoints.save(state, self._log.info(at), self._best)
            self._waited(display)
        return at.update in self._checkpoints.updates

    def _resume_from(self) -> str:
        saved = self._checkpoints.updates
        where = f"from update {saved[-1]}" if saved else "from the start"
        return f"make room and go on {where} with --run-dir {self._run_dir} --resume"

    def _why_stop(self, stop: Stop, seconds: float) -> StopReason | None:
        """Why all processes stop, where one of them should; None to go on."""
        mine = stop.reason(seconds)
        status = self._hosts.most(mine.status if mine else 0)
        return StopReason("another process was stopped", status) if status and mine is None else mine

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

    def _played(self, state: TrainState, out: SegmentOutput | None, at: Progress) -> tuple[Played, Played]:
        """What the best and the final policy did on the validation split, by all processes."""
        params = fetch(state.params)
        best = final = Played(jnp.asarray(params), self._play(state, params) if out is None else _host(out.score))
        if at.best_update != at.update:
            assert self._best is not None
            best = Played(jnp.asarray(self._best), self._play(state, self._best))
        return best, final

    def _score_yardsticks(self, sides: Sides) -> Yardsticks:
        data = self._compiled.data
        return score_yardsticks(sides, self._config.env, data, n_decisions(data.tape))

    def _finish(self, best: Played, final: Played, at: Progress, yardsticks: Yardsticks, display: Display) -> Edge:
        """Write and say what the best and the final policy and the rules did on the validation split; judge."""
        compiled, config = self._compiled, self._config
        setting = Setting(config, self._market, compiled.program, compiled.data, yardsticks, compiled.options)
        _show_ending(write_ending(self._run_dir, setting, best, final), setting, best.score, display)
        spec = compiled.program.spec
        return policy_edge(
            best.score,
            spec.env,
            spec.agent,
            best.params,
            compiled.data.tape,
            receptive_field(config.agent),
            passes=config.passes_over(self._market.n_decided("train"), at.update),
            cost_anneal=config.ppo.cost_anneal,
        )

    def _play(self, state: TrainState, params: Any) -> Score:
        """Validate other parameters than those of a state."""
        params = place(self._compiled.program.spec.mesh, params, of_members(state))
        return _host(self._compiled.validate(params))


def _host(score: Score) -> Score:
    host: Score = jax.device_get(score)
    return host


def _show_ending(ending: Ending, setting: Setting, best: Score, display: Display) -> None:
    """Say how policies, rules and members compare, and what the gate says."""
    yardsticks, figures = setting.yardsticks, best.figures
    title = "Rebalanced daily: policies and rules on the validation bars at the same costs"
    display.table(figure_table(title, "", [(row["name"], row) for row in ending.portfolios]))
    if yardsticks.missing:
        display.say(f"rules left out, as the training bars are too few to fit them: {', '.join(yardsticks.missing)}")
    display.say(rules_line(float(figures.portfolio.sharpe), *yardsticks.best))
    if ending.members:
        ensemble = pool_and_portfolio(figures.pooled, figures.portfolio)
        display.table(members_table(ensemble, ending.members["best"]))
        display.say(members_line(ensemble, ending.members["best"]))
    display.say(gate_line(ending.gate))
