"""A population from the command line: members trained together, each in a run directory of its own beneath one."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxppo.agent.policy import Params
from jaxppo.config.layers import Resolved
from jaxppo.config.schema import Config
from jaxppo.device import xla_options
from jaxppo.errors import CheckpointError, ConfigError, Interrupted, RunDirectoryError
from jaxppo.market.dataset import EvaluationSet
from jaxppo.members import CompiledMembers, Population, compile_members
from jaxppo.page.progress import Display
from jaxppo.page.terminal import validation_line
from jaxppo.page.text import plural
from jaxppo.play.best import RANKED_COLUMN, best_update, ranked, ranked_score
from jaxppo.play.passes import n_decisions
from jaxppo.play.score import Score, validate
from jaxppo.play.sides import Sides, rules_of, score_yardsticks
from jaxppo.ppo.population import MemberOutput
from jaxppo.store.alarms import metrics_rows
from jaxppo.store.checkpoint import CheckpointWriter, has_checkpoints, restore_members, save_once
from jaxppo.store.directory import (
    CONFIG,
    METRICS_CSV,
    POPULATION,
    SNAPSHOTS,
    RunInputs,
    earlier_manifest,
    note_stopped,
    write_config,
    write_manifest,
)
from jaxppo.store.json import read_json, write_json
from jaxppo.train.grid import Grid, grid_text, grid_values, member_configs, parse_grid, require_grid
from jaxppo.train.loop import segment_lengths
from jaxppo.train.record import Played, Progress, RunLog, Setting, write_ending
from jaxppo.train.resume import require_same_inputs
from jaxppo.train.stop import OUT_OF_TIME, Pace, Stop, StopReason
from jaxppo.train.table import Member, Totals, looks_of, table_row, write_table
from jaxppo.train.tracking import Tracking, known_ids, tracked

if TYPE_CHECKING:
    from jaxppo.train.run import RunOptions


def is_population(folder: Path) -> bool:
    """Whether a folder is that of a population, or of one that was begun."""
    return (folder / POPULATION).is_file()


def population_grid(folder: Path, options: RunOptions) -> dict[str, tuple[Any, ...]]:
    """The grid that is asked for, or that of the population to go on with."""
    if not options.resume:
        return parse_grid(options.grid)
    if options.grid:
        raise ConfigError("--resume goes on with the grid that was begun: leave --grid out")
    if options.extend_to:
        raise ConfigError(
            f"--extend-to goes on with one member: give its folder as --run-dir, such as {folder / '000'}"
        )
    path = folder / POPULATION
    try:
        raw = read_json(path)
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}: cannot be read ({error})") from error
    return require_grid(raw.get("grid") if isinstance(raw, dict) else None, str(path))


def name_members(config: Config, grid: Grid) -> list[Member]:
    """The members of a grid, numbered, each with its checked configuration."""
    values = grid_values(grid)
    width = max(3, len(str(len(values) - 1)))
    configs = member_configs(config, values)
    return [Member(f"{i:0{width}}", v, c) for i, (v, c) in enumerate(zip(values, configs, strict=True))]


def train_population(folder: Path, options: RunOptions, inputs: RunInputs, display: Display, began: float) -> Path:
    """Train a population in `folder`, which is this process's alone; the folder.

    Raises:
      ConfigError: a member's values do not fit.
      Interrupted: it was stopped; all is saved up to the last segment.
    """
    config, market = inputs.resolved.config, inputs.market
    grid = population_grid(folder, options)
    members = name_members(config, grid)
    display.say(f"a population of {len(members)} members: {grid_text(grid)}")
    display.expect(config.budget.n_updates, len(members) * config.batch_steps * config.budget.seeds)
    sides, rules = rules_of(market)
    begun = _restore(folder, members, config, inputs) if options.resume else None
    write_config(folder, inputs.resolved)
    write_json(folder / POPULATION, {"grid": {k: list(v) for k, v in grid.items()}})
    flags = xla_options(options.deterministic)
    try:
        compiled = compile_members(config, market, len(members), options.members_at_once, flags, inputs.device.count)
    except BaseException:  # an interrupt until here leaves an empty folder, which the next try may have
        if not options.resume:
            for name in (CONFIG, POPULATION):
                (folder / name).unlink()
        raise
    executable, at_once = compiled.passes.executable, compiled.passes.at_once
    turns = math.ceil(len(members) / at_once)
    display.say(
        f"compiled in {executable.seconds:.1f} s; {plural(at_once, 'member')} at once, which take"
        f" {executable.memory_bytes / 2**20:,.1f} MiB, {'all' if turns == 1 else f'in {turns} passes'}; folder {folder}"
    )
    facts = {
        "compile_seconds": executable.seconds,
        "program": {
            "memory_bytes": executable.memory_bytes,
            "members_at_once": at_once,
            "deterministic": options.deterministic,
        },
        "passes": config.passes_over(market.n_decided("train"), config.budget.n_updates),
        "rules": rules,
    }
    with ExitStack() as stack:
        tracking = []
        for member in members:
            run_dir = folder / member.name
            run_dir.mkdir(exist_ok=True)
            names = options.track or tuple(known_ids(run_dir))
            tracking.append(stack.enter_context(tracked(run_dir, names, member.config, display.say)))
        trainer = PopulationTrainer(folder, inputs, members, compiled, facts, tracking)
        trainer.open(begun, display)
        try:
            with display, Stop(options.max_seconds, began, display.say) as stop:
                trainer.run(display, stop)
        except KeyboardInterrupt:
            raise Interrupted(f"go on from the last segment with --run-dir {folder} --resume", 130) from None
        except Interrupted as interrupted:
            for member in members:
                note_stopped(folder / member.name, interrupted.status)
            raise
        finally:
            trainer.close()
    trainer.finish(sides, flags, display)
    return folder


class _Begun(NamedTuple):
    """What a population goes on from."""

    state: Any  # TrainState (M, ...) on the host
    best: Params  # (M, N)
    update: int


def _restore(folder: Path, members: Sequence[Member], config: Config, inputs: RunInputs) -> _Begun | None:
    """The newest sound snapshot; None when there is none yet."""
    snapshots = folder / SNAPSHOTS
    manifest = earlier_manifest(folder / members[0].name)
    if not has_checkpoints(snapshots):
        if "finished" in manifest:
            raise CheckpointError(
                f"{folder}: the population is finished; go on with one member by its folder, such as"
                f" {folder / members[0].name}"
            )
        return None
    state, best, info = restore_members(snapshots, len(members))
    require_same_inputs(folder, info, manifest, config, inputs.market)
    return _Begun(state, best, info.update)


class PopulationTrainer:
    """Runs the segments that are left and leaves the traces of every member in its folder.

    The states of all members are saved together at every segment's end; a member's own checkpoint is its last. Orbax
    takes 85 ms of a core a save, which for 256 small members would be as much as their training.
    """

    def __init__(
        self,
        folder: Path,
        inputs: RunInputs,
        members: Sequence[Member],
        compiled: CompiledMembers,
        facts: Mapping[str, Any],
        tracking: Sequence[Tracking],
    ):
        self._folder = folder
        self._inputs = inputs
        self._config = inputs.resolved.config
        self._members = members
        self._compiled = compiled
        self._facts = facts
        self._actions = compiled.program.spec.env.actions
        self._at = [Progress() for _ in members]
        self._begun = False
        for member in members:
            self._open_folder(member)
        self._logs = [
            RunLog(folder / m.name, m.config, inputs.market, self._actions, told)
            for m, told in zip(members, tracking, strict=True)
        ]
        self._snapshots = CheckpointWriter(folder / SNAPSHOTS, 1)
        self._population = Population(compiled, [m.config for m in members])
        self._best: Any = np.array(self._population.state.params)  # (M, N) on the host

    def _inputs_of(self, member: Member) -> RunInputs:
        resolved = self._inputs.resolved
        own = Resolved(member.config, {**resolved.sources, **dict.fromkeys(member.values, "--grid")})
        return self._inputs._replace(resolved=own)

    def _open_folder(self, member: Member) -> None:
        run_dir, inputs = self._folder / member.name, self._inputs_of(member)
        write_config(run_dir, inputs.resolved)
        count, looks = len(self._members), looks_of(self._config, len(self._members))
        told = {"member": member.name, "values": dict(member.values), "trials": count, "looks": looks}
        write_manifest(run_dir, inputs, self._actions, {**self._facts, "population": told})

    def open(self, begun: _Begun | None, display: Display) -> None:
        """Take up where it was left, or begin."""
        self._begun = begun is not None
        for log in self._logs:
            for line in log.trim(begun.update if begun else None):
                display.say(line)
        if begun is None:
            return
        self._population = Population(self._compiled, [m.config for m in self._members], begun.state)
        self._best = np.array(begun.best)
        self._at = [_progress_of(self._folder / m.name, m.config, begun.update) for m in self._members]
        display.say(f"resumed at update {begun.update} of {self._config.budget.n_updates}")

    @property
    def _update(self) -> int:
        return self._at[0].update

    def run(self, display: Display, stop: Stop) -> None:
        """Train the segments that are left.

        Raises:
          Interrupted: `stop` said so.
        """
        began, at = self._update, self._at[0]
        pace = Pace(at.elapsed_seconds / at.update if at.update else 0.0)
        for length in segment_lengths(self._config, at.update if self._begun else None):
            reason = stop.reason(pace.foresee(length) + self._snapshots.seconds)
            if reason is not None:
                self._stopped(reason, self._update > began or reason.status != OUT_OF_TIME, display)
            since = time.perf_counter()
            self._segment(length, display)
            pace.took(length, time.perf_counter() - since)
        self._waited(display)

    def close(self) -> None:
        """Wait for the save in flight; safe to call again."""
        self._snapshots.wait()
        self._snapshots.close()

    def _segment(self, length: int, display: Display) -> None:
        since = time.perf_counter()
        out = self._population.segment(length)
        seconds = time.perf_counter() - since
        rows = [self._record(i, out, length, seconds) for i in range(len(self._members))]
        own = length * self._config.batch_steps * self._config.budget.seeds / seconds if length else 0.0
        top = ranked([at.fitness for at in self._at])[0]
        line = f"best {self._members[top].name}: {validation_line(rows[top])}"
        display.segment(self._update, own * len(self._members), line)
        self._waited(display)
        info = dataclasses.replace(
            self._logs[0].info(self._at[0]),
            config=self._config,
            fitness=float(self._update),  # of snapshots the newest is kept
            best_fitness=float(self._update),
            best_update=self._update,
        )
        self._snapshots.save(self._population.state, info, self._best)

    def _record(self, i: int, out: MemberOutput, length: int, seconds: float) -> dict[str, Any]:
        """Take in what a segment left of one member; its row."""
        updates, figures = jax.tree.map(lambda x: x[i], (out.updates, out.figures))
        config, log = self._config, self._logs[i]
        at = self._at[i] = self._at[i].after(length, seconds, ranked_score(figures, config.budget.choose_by))
        if at.best_update == at.update:
            self._best[i] = self._population.state.params[i]
        speed = config.budget.seeds * length * config.batch_steps / seconds if length else 0.0
        row = log.row(at, updates, length, speed, figures)
        log.alarms(row)  # alarms.json; M members would bury the terminal in them
        for write in log.writes(at, updates, length, row):
            write()
        log.track(at, updates, length, row)
        return row

    def _waited(self, display: Display) -> None:
        failure = self._snapshots.wait()
        if failure is not None:
            display.say(f"warning: {failure}; the next is saved after the next segment")

    def _stopped(self, reason: StopReason, moved: bool, display: Display) -> None:
        self._waited(display)
        where = f"stopped at update {self._update} of {self._config.budget.n_updates}"
        if not moved:
            raise ConfigError(f"{reason.text}; {where} without a segment done: give more, or lower --validate-every")
        raise Interrupted(f"{reason.text}; {where}; go on with --run-dir {self._folder} --resume", reason.status)

    def finish(self, sides: Sides, options: Mapping[str, Any], display: Display) -> None:
        """Judge every member on the validation split, save it, and write and show the table of all."""
        compiled, config = self._compiled, self._config
        n_bars = n_decisions(compiled.data.tape)
        yardsticks = score_yardsticks(sides, config.env, compiled.data, n_bars)
        score = _scorer(compiled, n_bars, options)
        rows = []
        for i, member in enumerate(self._members):
            setting = Setting(member.config, self._inputs.market, compiled.program, compiled.data, yardsticks, options)
            final, at = self._population.params_of(i), self._at[i]
            last = Played(final, score(final))
            best = last if at.best_update == at.update else Played(self._best[i], score(self._best[i]))
            ending = write_ending(self._folder / member.name, setting, best, last)
            self._save(i, best.params)
            rows.append(table_row(member, at, best, ending))
        update, seconds = self._update, self._at[0].elapsed_seconds
        write_table(self._folder, config, Totals(update, seconds, self._facts), rows, self._members, display)
        shutil.rmtree(self._folder / SNAPSHOTS)  # every member has its own by now

    def _save(self, i: int, best: Params) -> None:
        """The last checkpoint of a member, and its manifest as that of a run that is done."""
        member, at, config = self._members[i], self._at[i], self._config
        run_dir = self._folder / member.name
        saved = save_once(run_dir, self._population.state_of(i), self._logs[i].info(at), best)
        steps = at.update * config.batch_steps
        finished = {
            "updates": at.update,
            "env_steps": steps,
            "run_seconds": at.elapsed_seconds,  # of all members together
            "steps_per_second": config.budget.seeds * steps / at.elapsed_seconds if at.elapsed_seconds else 0.0,
            "best_update": at.best_update,
            "best_fitness": at.best_fitness,
        }
        facts = {"finished": finished, "checkpoints": saved}
        write_manifest(run_dir, self._inputs_of(member), self._actions, facts)


def _scorer(compiled: CompiledMembers, n_bars: int, options: Mapping[str, Any]) -> Callable[[Params], Score]:
    """Plays a policy over the validation split; compiled once for all members."""
    spec = compiled.program.spec

    @partial(jax.jit, compiler_options=dict(options))
    def play(params: Params, data: EvaluationSet) -> Score:
        return validate(spec.agent, spec.env, params, data, n_bars, spec.receptive_field)

    def scored(params: Params) -> Score:
        host: Score = jax.device_get(play(params, compiled.data))
        return host

    return scored


def _progress_of(run_dir: Path, config: Config, update: int) -> Progress:
    """Where a member is, by its rows of metrics.csv, which are whole up to `update`."""
    rows = list(metrics_rows(run_dir / METRICS_CSV, update))
    if not rows or int(rows[-1]["update"]) != update:
        raise CheckpointError(
            f"{run_dir / METRICS_CSV}: has no row of update {update}, from which the population goes on; it was damaged"
            " since, so begin a new one"
        )
    column = RANKED_COLUMN[config.budget.choose_by]
    # The file has the 9 digits that tell any float32 from its neighbours.
    fitness = {int(row["update"]): float(np.float32(row[column])) for row in rows}
    best = best_update(fitness)
    return Progress(update, fitness[update], fitness[best], best, rows[-1]["elapsed_seconds"])
