"""One batch of trials from its first update to its figures: populations in turn, the worst halted, all of it saved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxppo.config.schema import Config
from jaxppo.errors import CheckpointError, ConfigError, DataError
from jaxppo.members import Population
from jaxppo.play.best import best_update, ranked, ranked_score
from jaxppo.ppo.state import TrainState, hyper_from
from jaxppo.store.arrays import leaves_by_name
from jaxppo.store.rows import pool_and_portfolio, validation_row
from jaxppo.sweep.batches import Batch, BatchFolder, Shape, Trial, from_the_start
from jaxppo.sweep.shapes import Program, Programs, shape_key
from jaxppo.sweep.study import Study

_STATE, _NUMBERS = "state/", "numbers"


@dataclass(frozen=True)
class Halving:
    """Successive halving (Jamieson and Talwalkar 2016): after so many segments each, one in `eta` trials goes on."""

    at: tuple[int, ...] = ()
    eta: int = 2

    def survivors(self, scores: Mapping[int, float]) -> set[int]:
        """The trials, by number, that go on: of equal scores the earlier; those without a score last.

        Example:
          >>> sorted(Halving((1,), 2).survivors({0: 0.5, 1: float("nan"), 2: 0.7, 3: 0.5, 4: -1.0}))
          [0, 2, 3]
        """
        numbers = sorted(scores)
        order = ranked([scores[n] for n in numbers])
        return {numbers[i] for i in order[: math.ceil(len(order) / self.eta)]}


class Worker:
    """Works on batches, one after another."""

    def __init__(
        self,
        study: Study,
        programs: Programs,
        config_of: Callable[[Trial], Config],
        halving: Halving,
        choose_by: str,
        say: Callable[[str], None],
    ):
        """
        Args:
          study: is told what becomes of every trial.
          programs: of all shapes.
          config_of: a trial's configuration; `ConfigError` where its values do not fit together.
          halving: of every batch.
          choose_by: what validations are ranked by.
          say: prints a line.
        """
        self._study, self._programs, self._config_of = study, programs, config_of
        self._halving, self._choose_by, self._say = halving, choose_by, say

    def run(self, folder: BatchFolder, batch: Batch) -> None:
        """Take a batch from where it is to its end."""
        try:
            self._train(folder, batch)
        except CheckpointError as error:
            self._say(f"warning: {error}; the trials of batch {folder.name} begin again")
            from_the_start(batch)
            folder.save(batch)
            self._train(folder, batch)
        for trial in batch.trials:
            trial.state = "complete" if trial.state == "running" else trial.state
        folder.save(batch)
        self._tell(batch)  # before it is finished: of a batch that is, nobody looks whether the study was told
        batch.finished = True
        folder.save(batch)
        for i in range(len(batch.shapes)):
            folder.keep_state(i, -1)

    def _train(self, folder: BatchFolder, batch: Batch) -> None:
        configs = self._configure(batch)
        folder.save(batch)
        for rung, segments in enumerate((*self._halving.at, None)):
            for shape in batch.shapes:
                self._train_shape(folder, batch, shape, configs, None if segments is None else segments + 1)
            if segments is not None and batch.rungs <= rung:
                self._halt(batch, segments)
                batch.rungs = rung + 1
                folder.save(batch)
                self._tell(batch)
        for i, shape in enumerate(batch.shapes):
            self._conclude(folder, batch, i, self._programs.of(configs[shape.trials[0]]))

    def _configure(self, batch: Batch) -> dict[int, Config]:
        """The configurations of the trials, by number, and the shapes of a new batch."""
        configs: dict[int, Config] = {}
        keys: list[str] = []
        for trial in (t for t in batch.trials if t.state != "failed"):
            try:
                configs[trial.number] = self._programs.configured(self._config_of(trial))
            except (ConfigError, DataError) as error:
                trial.state, trial.reason = "failed", str(error)
                self._say(f"trial {trial.number} cannot be run: {error}")
                continue
            key = shape_key(configs[trial.number])
            if key not in keys:
                keys.append(key)
            trial.shape = keys.index(key)
        if not batch.shapes:
            numbers = [[t.number for t in batch.trials if t.shape == i] for i in range(len(keys))]
            batch.shapes = [Shape(n) for n in numbers]
        return configs

    def _train_shape(
        self, folder: BatchFolder, batch: Batch, shape: Shape, configs: Mapping[int, Config], until: int | None
    ) -> None:
        """Train the trials of a shape that still run until they have so many validations behind them, or all."""
        first = configs[shape.trials[0]]
        total = 1 + len(first.segments)
        until = total if until is None else min(until, total)
        running = [t for t in batch.of(shape) if t.state == "running"]
        if shape.done >= until or not running:
            return
        index = batch.shapes.index(shape)
        program = self._programs.of(first)
        population, kept = self._population(folder, index, shape, running, program, configs)
        while shape.done < until:
            length, began = program.lengths[shape.done], time.perf_counter()
            out = population.segment(length)
            seconds = time.perf_counter() - began
            for i, trial in enumerate(running):
                figures = jax.tree.map(lambda x, i=i: x[i], out.figures)
                update = int(np.max(population.state.update[i]))
                row = {"update": update, "value": ranked_score(figures, self._choose_by)}
                trial.rows.append(row | validation_row(figures, program.labels))
                if best_update(trial.values) == update:
                    kept.take(
                        shape.trials.index(trial.number),
                        np.asarray(population.params_of(i)),
                        np.asarray(out.portfolio[i]),
                    )
            shape.done += 1
            folder.save_state(index, shape.done, _packed(population.state, running, kept))
            folder.save(batch)
            folder.keep_state(index, shape.done)
            self._tell(batch)
            self._say(self._line(running, program, length, seconds))

    def _population(
        self,
        folder: BatchFolder,
        index: int,
        shape: Shape,
        running: Sequence[Trial],
        program: Program,
        configs: Mapping[int, Config],
    ) -> tuple[Population, Kept]:
        """The trials of a shape that still run, as they were saved or before their first update."""
        mine = [configs[t.number] for t in running]
        if shape.done == 0:
            n, days = len(shape.trials), len(program.days("validation"))
            population = Population(program.compiled(len(mine)), mine)
            params = population.state.params
            return population, Kept(np.zeros((n, *params.shape[1:]), params.dtype), np.full((n, days), np.nan))
        arrays = folder.load_state(index, shape.done)
        state, numbers, kept = _unpacked(arrays, program, folder)
        rows = [numbers.index(t.number) for t in running]
        return Population(program.compiled(len(mine)), mine, jax.tree.map(lambda x: x[rows], state)), kept

    def _halt(self, batch: Batch, segments: int) -> None:
        """Halt all running trials but the best of the whole batch, by the best that each has shown so far."""
        running = [t for t in batch.trials if t.state == "running"]
        go_on = self._halving.survivors({t.number: t.best for t in running})
        for trial in running:
            if trial.number not in go_on:
                trial.state = "halted"
        if len(running) > len(go_on):
            told = ", ".join(str(n) for n in sorted(go_on))
            self._say(f"after {segments} segments {len(go_on)} of {len(running)} trials go on: {told}")

    def _conclude(self, folder: BatchFolder, batch: Batch, index: int, program: Program) -> None:
        """Play every trial's best policy on the test split, and the members of ensembles alone; keep the policies."""
        shape = batch.shapes[index]
        trials = batch.of(shape)
        _, _, kept = _unpacked(folder.load_state(index, shape.done), program, folder)
        tested = np.full((len(trials), len(program.days("test"))), np.nan)
        for i, trial in enumerate(trials):
            played = program.play("test", kept.params[i])
            if played is not None:
                figures = pool_and_portfolio(played.figures.pooled, played.figures.portfolio)
                trial.result = {f"test_{name}": value for name, value in figures.items()}
                trial.result["test_buy_and_hold_return"] = float(played.figures.hold)
                tested[i] = played.portfolio
            if kept.params.ndim == 3:
                for split, short in (("validation", "val"), ("test", "test")):
                    alone = program.alone(split, kept.params[i])
                    trial.result |= {f"{short}_member_{j}": value for j, value in enumerate(alone)}
        arrays: dict[str, np.ndarray] = {
            "params": kept.params,
            "validation": kept.portfolio,
            "validation_days": program.days("validation"),
            "validation_per_year": np.asarray(program.per_year("validation")),
            "test": tested,
            "test_days": program.days("test"),
            "test_per_year": np.asarray(program.per_year("test")),
        }
        folder.save_policies(index, arrays)

    def _tell(self, batch: Batch) -> None:
        """Tell the study all that the batch's record says."""
        for trial in batch.trials:
            self._study.tell(trial.number, trial.values, trial.state, trial.best)

    def _line(self, running: Sequence[Trial], program: Program, length: int, seconds: float) -> str:
        best = max(running, key=lambda t: (not math.isnan(t.best), t.best))
        update = int(running[0].rows[-1]["update"])
        steps = length * program.config.batch_steps * program.config.budget.seeds * len(running)
        speed = f"  {steps / seconds:,.0f} steps/s" if length else ""
        numbers = [str(t.number) for t in running]
        which = ", ".join(numbers if len(numbers) <= 8 else [*numbers[:7], f"{len(numbers) - 7} more"])
        known = [t.rows[-1]["value"] for t in running if not math.isnan(t.rows[-1]["value"])]
        mean = sum(known) / len(known) if known else math.nan
        return (
            f"{'trial' if len(running) == 1 else 'trials'} {which}: update {update}/{program.config.budget.n_updates}"
            f"{speed}  {self._choose_by} mean {mean:.3f}, best so far {best.best:.3f} of trial {best.number}"
        )


@dataclass(frozen=True)
class Kept:
    """Of each trial of a shape, halted ones too, what its best validation so far leaves."""

    params: np.ndarray  # (T, N), or (T, K, N) of ensembles
    portfolio: np.ndarray  # (T, D) equity day by day, rebalanced daily

    def take(self, trial: int, params: np.ndarray, portfolio: np.ndarray) -> None:
        self.params[trial], self.portfolio[trial] = params, portfolio


def _packed(state: TrainState, running: Sequence[Trial], kept: Kept) -> dict[str, np.ndarray]:
    """What a shape goes on from, as named arrays."""
    named = {_STATE + name: np.asarray(leaf) for name, leaf in leaves_by_name(state).items()}
    numbers = np.asarray([t.number for t in running], np.int64)
    return {**named, _NUMBERS: numbers, "params": kept.params, "portfolio": kept.portfolio}


def _unpacked(
    arrays: Mapping[str, np.ndarray], program: Program, folder: BatchFolder
) -> tuple[TrainState, list[int], Kept]:
    """The states of the trials that ran, (M, ...), their numbers, and what is kept of all.

    Raises:
      CheckpointError: an array is missing or not of the shape of the program.
    """
    one: Any = jax.eval_shape(program.program.init, jax.random.key(0), hyper_from(program.config), program.tape)
    try:
        numbers = arrays[_NUMBERS].tolist()
        names = leaves_by_name(one)
        found = {name: arrays[_STATE + name] for name in names}
        kept = Kept(arrays["params"].copy(), arrays["portfolio"].copy())
    except KeyError as error:
        raise CheckpointError(f"{folder.path}: the saved state lacks {error}") from error
    for name, leaf in names.items():
        wanted = (len(numbers), *leaf.shape)
        if (found[name].shape, found[name].dtype) != (wanted, leaf.dtype):
            raise CheckpointError(f"{folder.path}: {name} of the saved state is not of this program ({wanted})")
    state: TrainState = jax.tree.unflatten(jax.tree.structure(one), list(found.values()))
    return state, numbers, kept
