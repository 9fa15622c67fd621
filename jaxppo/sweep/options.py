"""What the command line of a sweep says beside the configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxppo.device import GpuMemory
from jaxppo.errors import ConfigError
from jaxppo.sweep.study import Sampler


@dataclass(frozen=True)
class SweepOptions(GpuMemory):
    """What is searched, by which trials, and where it is kept."""

    search: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """A field and what to try of it: `learning_rate log 1e-4 3e-3`, `gamma uniform .9 .99` (a third number is a step),
    `n_steps int 16 64 16`, or categories: `encoder tcn none`, `features base base,trend`. May be given again."""
    space: Path | None = None
    """YAML file of the same: `learning_rate: {log: [1e-4, 3e-3]}`, `encoder: [tcn, none]`; --search goes over it."""
    trials: int = 32
    """Trials in all, of all processes. A sweep that has ended goes on with more."""
    sampler: Sampler = "tpe"
    """What chooses the parameters, from Optuna: tpe (learns from the trials before), random, or grid (every
    combination once; --trials bounds it)."""
    batch: int = 16
    """Trials that are asked for together. Those that differ in learning rate, discount, entropy and other arrays of the
    program are trained as one population; tpe learns between batches."""
    halve_at: tuple[int, ...] = ()
    """Successive halving: after so many validations that follow updates, only the best of a batch go on."""
    eta: int = 2
    """At each of --halve-at one in so many goes on."""
    best: int = 5
    """Trials whose policies are averaged to the one that is handed over: all of one shape, that of most of the best."""
    day_blocks: int = 16
    """Blocks of days from which the probability of backtest overfitting is told: an even number."""
    devices: int | Literal["all"] = 1
    """Devices that divide the trials of a population, or all that there are."""
    storage: str | None = None
    """Optuna's storage: a file whose name ends in .log (its journal) or .db (SQLite); by default OUT/study.log."""
    study: str = "sweep"
    """Name of the study in the storage."""
    out: Path | None = None
    """Folder of the sweep, by default runs/sweep-DATE-TIME. Where it holds this very sweep already, the process joins
    it: it goes on with what a killed process left, and shares the trials with those that run."""


def check_options(options: SweepOptions) -> None:
    """`ConfigError` for the first option that does not fit."""
    for name in ("trials", "batch", "best"):
        if getattr(options, name) < 1:
            raise ConfigError(f"{name}: must be at least 1, got {getattr(options, name)}")
    if options.eta < 2:
        raise ConfigError(f"eta: one in at least 2 goes on, got {options.eta}")
    if any(a < 1 for a in options.halve_at) or list(options.halve_at) != sorted(set(options.halve_at)):
        raise ConfigError(f"halve_at: must be rising numbers of validations from 1, got {list(options.halve_at)}")
    if options.day_blocks < 2 or options.day_blocks % 2:
        raise ConfigError(f"day_blocks: must be an even number from 2, got {options.day_blocks}")
    if options.day_blocks > 20:
        splits = math.comb(options.day_blocks, options.day_blocks // 2)
        raise ConfigError(f"day_blocks: {options.day_blocks} make {splits:,} splits; give at most 20")
