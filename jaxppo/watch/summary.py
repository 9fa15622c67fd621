"""What is said of runs while they train: seeds of one configuration together, with mean and spread. Pure."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxppo.page.text import FORMS, MISSING, number, plain_value, plural
from jaxppo.play.alarms import MEASURED, Alarm
from jaxppo.play.best import ranked
from jaxppo.store.columns import PORTFOLIO_SHARPE, TRAINING, validation_columns
from jaxppo.store.read import lookup
from jaxppo.watch.seen import OVER, Seen, State, whole

DEAD, STOPPED = 1, 75  # exit statuses: a check that found something, and what passes (EX_TEMPFAIL)
_WORST: tuple[State, ...] = ("dead", "late", "training", "ending", "starting", "stopped", "finished")
"""Of several runs the state of all: the first of these that one has, so it is over when all are."""


class Measure(NamedTuple):
    """A column of metrics.csv that is shown."""

    column: str
    title: str
    text: Callable[[float], str]
    percent: bool
    in_training: bool


def _small(value: float) -> str:
    """Two digits that count, whatever their size."""
    return MISSING if math.isnan(value) else f"{value:.2g}"


def measures() -> list[Measure]:
    """What is shown, in order: on the validation bars, then in training."""
    validated = dict(validation_columns())
    shown = [f"val_{name}" for name in ("fitness", "portfolio_sharpe", "return", "gross_return", "buy_and_hold_return")]
    shown += [f"val_{name}" for name in ("max_drawdown", "trades", "exposure")]
    found = [(name, validated[name], False) for name in shown if name in validated]
    trained = {column.name: column for column in TRAINING}
    found += [(n, trained[n], True) for n in ("entropy", "train_trade_rate", "approx_kl", "explained_variance")]
    small, short = ("approx_kl", "explained_variance"), {"explained_variance": "Explained variance"}
    return [
        Measure(
            name,
            short.get(name, column.title),
            _small if name in small else FORMS[column.form],
            column.form in ("percent", "share", "signed", "fine", "loss"),
            training,
        )
        for name, column, training in found
    ]


class Band(NamedTuple):
    """A figure of several seeds over updates."""

    update: np.ndarray  # (U,) float64
    mean: np.ndarray  # (U,) over those that have come so far; NaN where none has a number
    low: np.ndarray  # (U,) the lowest of them
    high: np.ndarray  # (U,)


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone."""

    name: str
    runs: tuple[Seen, ...]

    @property
    def state(self) -> State:
        return whole_state(self.runs)

    def band(self, column: str) -> Band:
        """A column over all validations of any run."""
        updates = np.unique(np.concatenate([run.updates for run in self.runs]))
        each = np.full((len(self.runs), len(updates)), np.nan)
        for i, run in enumerate(self.runs):
            each[i, np.searchsorted(updates, run.updates)] = run.column(column)
        each[~np.isfinite(each)] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of an update at which no run has a number
            return Band(updates, np.nanmean(each, 0), np.nanmin(each, 0), np.nanmax(each, 0))

    def now(self, column: str) -> np.ndarray:
        """(runs,) the last value of each; NaN where it has none."""
        return np.asarray([of[-1] if len(of := run.column(column)) else math.nan for run in self.runs])

    @property
    def score(self) -> float:
        """Mean over the runs of what their best validation is ranked by; NaN where none has one."""
        best = [run.column(run.chosen_by)[run.best] for run in self.runs if run.best is not None]
        return float(np.mean(best)) if best else math.nan

    @property
    def looks(self) -> int:
        """Validations that a best one was chosen from."""
        return sum(len(run.updates) for run in self.runs)


def whole_state(runs: Sequence[Seen]) -> State:
    """The state of several runs together."""
    states = {run.state for run in runs}
    if states & set(OVER) and not states <= set(OVER):
        states -= set(OVER)  # some train still
    return next(state for state in _WORST if state in states)


def exit_status(state: State) -> int:
    """What a watch ends with, once nothing more is written."""
    return {"dead": DEAD, "stopped": STOPPED}.get(state, 0)


def group(runs: Sequence[Seen]) -> list[Group]:
    """Runs by all of their configuration but the seed, and their bars, the best first; those without a score last."""
    groups: dict[str, list[Seen]] = {}
    for run in runs:
        rest = {k: v for k, v in run.fields.items() if k != "seed"}
        data = lookup(dict(run.manifest), "data", "hash")
        groups.setdefault(json.dumps([rest, data], sort_keys=True, default=str), []).append(run)
    found = list(groups.values())
    differ = _differing([own[0] for own in found])
    named = [Group(_name(own, differ), tuple(own)) for own in found]
    return [named[i] for i in ranked([g.score for g in named])]


def _differing(runs: Sequence[Seen]) -> list[str]:
    """Fields in which some of the runs differ."""
    fields = dict.fromkeys(name for run in runs for name in run.fields if name != "seed")
    return [name for name in fields if any(r.fields.get(name) != runs[0].fields.get(name) for r in runs)]


def _name(own: Sequence[Seen], differ: Sequence[str]) -> str:
    """What a group is called: by the values in which it differs from the others, or by the names of its runs."""
    values = ", ".join(f"{name} {plain_value(own[0].fields.get(name))}" for name in differ)
    if len(own) == 1:
        return printable(f"{own[0].name}: {values}" if values else own[0].name)
    seeds = ", ".join(str(run.fields.get("seed", "?")) for run in own)
    return printable(f"{values or own[0].path.resolve().name} ({len(own)} seeds: {seeds})")


def known_measures(own: Group) -> list[Measure]:
    """Those that a group has a value of; all before its first validation."""
    return [m for m in measures() if not own.looks or any(np.isfinite(run.column(m.column)).any() for run in own.runs)]


def now_text(own: Group, measure: Measure) -> str:
    """The last values of a group: their mean, and of several seeds the lowest and highest."""
    known = own.now(measure.column)
    known = known[np.isfinite(known)]
    mean = measure.text(_mean(known))
    if len(own.runs) == 1 or not len(known):
        return mean
    return f"{mean} ({measure.text(known.min())} to {measure.text(known.max())})"


def best_text(own: Group, measure: Measure) -> str:
    """At the best validation of each run, the mean over them."""
    return measure.text(_mean([run.column(measure.column)[run.best] for run in own.runs if run.best is not None]))


def _mean(values: Any) -> float:
    """Of those that are numbers; NaN without one."""
    found = np.asarray(values, np.float64)
    known = found[np.isfinite(found)]
    return float(known.mean()) if len(known) else math.nan


def group_rows(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """Of each its name, state, updates, last fitness, Sharpe ratio rebalanced daily, net return, and lasting alarms."""
    shown = [m for name in ("fitness", "portfolio_sharpe", "return") for m in measures() if m.column == f"val_{name}"]
    rows = []
    for own in groups:
        updates = sorted({run.update for run in own.runs})
        far = f"{updates[0]}" if len(updates) == 1 else f"{updates[0]}-{updates[-1]}"
        figures = (m.text(_mean(own.now(m.column))) for m in shown)
        lasting = sum(alarm.until is None for run in own.runs for alarm in run.alarms)
        rows.append((own.name, own.state, far, *figures, str(lasting or "")))
    return rows


def printable(text: str) -> str:
    """`text` without what could steer a terminal: names are not ours."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def seconds_left(runs: Sequence[Seen]) -> float:
    """Until all runs are trained, by their pace so far; NaN where it is not known."""
    left = []
    for run in runs:
        elapsed = run.column("elapsed_seconds")
        if run.state in OVER or not run.update or not run.n_updates or math.isnan(elapsed[-1]):
            continue
        rest = (run.n_updates - run.update) * elapsed[-1] / run.update
        left.append(max(rest - run.age, 0.0))
    return max(left, default=math.nan)


def share_done(runs: Sequence[Seen]) -> float:
    """Share of the updates of all runs that is done; NaN where it is not known. A halted trial has no more to do."""
    planned = [run.update if run.over else run.n_updates for run in runs]
    return sum(run.update for run in runs) / sum(planned) if sum(planned) else math.nan


def clock(seconds: float) -> str:
    """A span as h:mm:ss, a dash for NaN."""
    if math.isnan(seconds):
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def span(seconds: float) -> str:
    """How long ago, in words that need no second look."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Told:
    """An alarm as it is shown."""

    run: str  # their names, where there are several
    lasts: bool
    since: int
    until: int | None
    title: str
    text: str
    measured: str


@dataclass(frozen=True)
class Picture:
    """Everything that a dashboard or a page shows of some runs at one moment."""

    name: str  # of the folders
    title: str  # with what is trained on what
    state: State
    done: float  # share of the updates, NaN where it is not known
    gone: float  # seconds of training
    left: float  # seconds
    facts: tuple[str, ...]
    groups: tuple[Group, ...]  # the best first
    best: str  # the best validation so far, and of how many looks
    checkpoints: str
    alarms: tuple[Told, ...]  # those that last first
    advice: str  # what to do about a run that is stopped, late or dead; empty for nothing
    fresh: str  # how old all of this is


def picture(runs: Sequence[Seen]) -> Picture:
    """Of at least one run."""
    state, all_of = whole_state(runs), runs
    runs = [run for run in runs if not run.between] or runs
    groups = group(runs)
    return Picture(
        name=_names(runs),
        title=_title(runs),
        state=state,
        done=share_done(runs),
        gone=max((float(of[-1]) for run in runs if len(of := run.column("elapsed_seconds"))), default=math.nan),
        left=seconds_left(runs),
        facts=_facts(runs, state),
        groups=tuple(groups),
        best=_best(groups),
        checkpoints=_checkpoints(groups[0].runs),
        alarms=_alarms(runs),
        advice=_advice(all_of),
        fresh=_fresh(runs, state),
    )


def _names(runs: Sequence[Seen]) -> str:
    names = sorted({run.path.resolve().name for run in runs})
    return printable(", ".join(names) if len(names) < 3 else plural(len(names), "folder"))


def _title(runs: Sequence[Seen]) -> str:
    first, data = runs[0], dict(runs[0].manifest)
    symbols = lookup(data, "data", "symbols", default=[])
    parts = [
        _names(runs),
        str(first.fields.get("preset", "")),
        str(lookup(data, "data", "source", default="")),
        plural(len(symbols), "symbol") if isinstance(symbols, list) and symbols else "",
        f"{interval} bars" if (interval := lookup(data, "data", "interval")) else "",
        plural(len(runs), "run") if len(runs) > 1 else f"seed {first.fields['seed']}" if "seed" in first.fields else "",
    ]
    return printable(" \u00b7 ".join(part for part in parts if part))


def _facts(runs: Sequence[Seen], state: State) -> tuple[str, ...]:
    """Updates, speed, env steps and passes."""
    going = [run for run in runs if run.state not in OVER] or list(runs)
    first = going[0]
    updates = sorted({run.update for run in going})
    far = f"{updates[0]}" if len(updates) == 1 else f"{updates[0]} to {updates[-1]}"
    found = [f"update {far} of {first.n_updates or '?'}"]
    speeds = [of[-1] for run in going if len(of := run.column("steps_per_second")) and math.isfinite(of[-1])]
    mean = lookup(dict(first.manifest), "finished", "steps_per_second")
    if speeds and state not in OVER:
        found.append(f"{number(sum(speeds), 0)} env steps/s")
    elif len(runs) == 1 and isinstance(mean, float):
        found.append(f"{number(mean, 0)} env steps/s")
    steps = [of[-1] for run in going if len(of := run.column("env_steps")) and math.isfinite(of[-1])]
    if steps:
        found.append(f"{number(sum(steps), 0)} env steps")
    passes = lookup(dict(first.manifest), "passes")
    alike = all(lookup(dict(run.manifest), "passes") == passes for run in going)
    if alike and isinstance(passes, float) and first.n_updates:
        done = passes * first.update / first.n_updates
        found.append(f"{number(done, 1)} of {number(passes, 1)} passes over the training bars")
    return tuple(found)


def _best(groups: Sequence[Group]) -> str:
    """The best validation of any run, and from how many it was chosen."""
    runs = [run for group in groups for run in group.runs if run.best is not None]
    if not runs:
        return "no validation yet"
    scores = [float(run.column(run.chosen_by)[run.best or 0]) for run in runs]
    top = runs[ranked(scores)[0]]
    row = top.best or 0
    what = PORTFOLIO_SHARPE.title if top.chosen_by == "val_portfolio_sharpe" else "fitness"
    looks, which = sum(g.looks for g in groups), f" of {printable(top.name)}" if len(runs) > 1 else ""
    gain, hold = (float(top.column(f"val_{name}")[row]) for name in ("return", "buy_and_hold_return"))
    money = ""
    if math.isfinite(gain):
        money = f", net return {FORMS['signed'](gain)} against {FORMS['signed'](hold)} of holding"
    return (
        f"best so far: update {int(top.updates[row])}{which}, {what} {number(max(scores))}{money};"
        f" the best of {plural(looks, 'look')} at the same validation bars"
    )


def _checkpoints(runs: Sequence[Seen]) -> str:
    kept = runs[0].checkpoints
    which = f" of {printable(runs[0].name)}" if len(runs) > 1 else ""
    return f"checkpoints{which}: update {', '.join(map(str, kept))}" if kept else ""


def _alarms(runs: Sequence[Seen]) -> tuple[Told, ...]:
    """Those of one kind that several runs have are one, told of the first that has it."""
    kinds: dict[tuple[str, bool], list[tuple[Seen, Alarm]]] = {}
    for run in runs:
        for alarm in run.alarms:
            kinds.setdefault((alarm.name, alarm.until is None), []).append((run, alarm))
    found = []
    for (name, lasts), each in kinds.items():
        names = list(dict.fromkeys(printable(run.name) for run, _ in each)) if len(runs) > 1 else []
        some = [*names[:_NAMED], *([f"{len(names) - _NAMED} more"] if len(names) > _NAMED else [])]
        first = min((alarm for _, alarm in each), key=lambda alarm: alarm.since)
        until = None if lasts else max(alarm.until or 0 for _, alarm in each)
        found.append(Told(", ".join(some), lasts, first.since, until, first.title, first.text, MEASURED.get(name, "")))
    return tuple(sorted(found, key=lambda told: (not told.lasts, -told.since)))


_NAMED = 6


def _advice(runs: Sequence[Seen]) -> str:
    """What to do about the first run that does not train as it should."""
    for run in runs:
        where, state = printable(str(run.path)), run.state
        go_on = f"go on with python -m jaxppo.train --run-dir {where} --resume"
        if run.fields and "preset" not in run.fields:
            go_on = "start its command again to go on"  # a trial of a sweep
        if state == "stopped":
            status = _status(run.manifest)
            return f"{where} was stopped{status}; {go_on}"
        if state == "dead":
            return f"{where}: no process trains in it and it did not say why (killed, or out of memory?); {go_on}"
        if state == "late":
            return (
                f"{where}: no line for {span(run.age)}, where the longest wait was {span(run.longest_wait)}; its"
                " process lives: look whether the device still works"
            )
    return ""


def _status(manifest: Mapping[str, Any]) -> str:
    words = {130: " by Ctrl-C", 143: " by SIGTERM", 75: " by --max-seconds"}
    return words.get(lookup(dict(manifest), "stopped", "status", default=0), "")


def _fresh(runs: Sequence[Seen], state: State) -> str:
    ages = [run.age for run in runs if not math.isnan(run.age)]
    if not ages:
        return "no line was written" if state in OVER else "no line yet: it compiles first"
    every = {run.fields.get("validate_every") for run in runs}
    often = max(map(whole, every)) if len(every) == 1 else 0
    last = f"last line {span(min(ages))} ago"
    return last if state in OVER else f"{last}, one {f'every {often} updates' if often else 'a validation'}"
