"""What the model says of a run, beside what was measured, and how far the two were apart.

The range of a plan is that of measured over modelled seconds, over the updates and validations of all runs that were
measured with CUDA graphs, which are XLA's default.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxppo.config import measured
from jaxppo.config.layers import flat_fields, replace_fields
from jaxppo.config.measured import MeasuredRun, Part
from jaxppo.config.schema import FIELD_GROUP, Config
from jaxppo.plan.roofline import Work

# Fields that decide what a run's program does; costs, schedules and seeds do not.
_DECIDING = (
    *(f for f, group in FIELD_GROUP.items() if group in ("agent", "features")),
    *("n_envs", "lanes", "n_steps", "seeds", "epochs", "minibatches", "advantages", "dropout", "feature_noise"),
    *("actions", "size_by", "reward"),
)


@dataclass(frozen=True)
class Compared:
    """A run that was measured with the sizes of a plan, and what it would be with as many updates and bars."""

    run: MeasuredRun
    update_seconds: float
    validation_seconds: float
    run_seconds: float


@dataclass(frozen=True)
class Model:
    """Seconds of a run by the model."""

    update_seconds: float
    validation_seconds: float
    run_seconds: float
    low: float  # of run_seconds
    high: float
    no_graphs_seconds: float  # of the run without CUDA graphs
    compared: Compared | None


def part_work(part: Part) -> Work:
    """The counts of what was measured as work of that card; all of it is bound by bytes."""
    size = 1e9 * part.gigabytes
    idle = part.short_turns * (measured.TURN_SECONDS - 3.3e-6)
    return Work(part.kernels, bytes=size, seconds=size / measured.COPY_BANDWIDTH, combining=part.combining, idle=idle)


def part_seconds(run: MeasuredRun, part: Part) -> float:
    """Seconds that the model gives to a part of a run that was measured."""
    work = part_work(part)
    return work.model_seconds if run.graphs else work.no_graphs_seconds


def run_seconds(run: MeasuredRun) -> float:
    """Seconds that the model gives to the whole of a run that was measured."""
    updates = run.n_updates * part_seconds(run, run.update)
    return updates + run.n_validations * (part_seconds(run, run.validation) + measured.DISPATCH_SECONDS)


def residuals() -> tuple[float, float]:
    """Lowest and highest measured over modelled seconds of all parts of the runs that were measured."""
    ratios = [p.seconds / part_seconds(r, p) for r in measured.RUNS if r.graphs for p in (r.update, r.validation)]
    return min(ratios), max(ratios)


def find_measured(config: Config, gpu: str) -> MeasuredRun | None:
    """The run that was measured on this card with the sizes of a configuration, if there is one."""
    if gpu != measured.CARD:
        return None
    flat = flat_fields(config)
    for run in measured.RUNS:
        wanted = flat_fields(replace_fields(Config(), run.sizes))
        if run.graphs and not run.patched and all(flat[f] == wanted[f] for f in _DECIDING):
            return run
    return None


def model_of(config: Config, gpu: str, update: Work, validation: Work, n_validations: int, bars: int) -> Model:
    """What the model says of a run, and what was measured with its sizes.

    Args:
      config: of the run.
      gpu: name of the card.
      update: of one update.
      validation: of one validation.
      n_validations: in the run.
      bars: of a validation.
    """
    n, calls = config.budget.n_updates, n_validations * measured.DISPATCH_SECONDS

    def whole(one: float, judged: float) -> float:
        return n * one + n_validations * judged

    seconds = whole(update.model_seconds, validation.model_seconds) + calls
    plain = whole(update.no_graphs_seconds, validation.no_graphs_seconds) + calls
    low, high = residuals()
    run, compared = find_measured(config, gpu), None
    if run is not None:
        judged = run.validation.seconds * bars / measured.BARS
        compared = Compared(run, run.update.seconds, judged, whole(run.update.seconds, judged))
    return Model(
        update.model_seconds, validation.model_seconds, seconds, low * seconds, high * seconds, plain, compared
    )
