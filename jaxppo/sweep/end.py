"""The end of a sweep: all trials gathered, the winner judged, the best averaged, files and page written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from jaxppo.env.trading import env_spec
from jaxppo.errors import ConfigError
from jaxppo.page.terminal import cell, plain_table
from jaxppo.store.directory import earlier_manifest, write_config, write_manifest
from jaxppo.store.json import as_figures, read_json
from jaxppo.sweep.batches import Trial, batch_folders
from jaxppo.sweep.files import SUMMARY, write_sweep
from jaxppo.sweep.judge import TEST_FIGURE, Curve, Truth, ensemble_sentences, tell_truth, truth_sentences
from jaxppo.sweep.product import FOLDER, Member, chosen_trials, ranked_trials, write_product
from jaxppo.sweep.setup import Setup
from jaxppo.sweep.shapes import shape_key
from jaxppo.sweep.study import Study

_SHOWN = 10  # trials on the terminal


class Gathered(NamedTuple):
    """All trials of a sweep, by number, and what they leave."""

    trials: list[Trial]
    params: dict[int, np.ndarray]  # (N,), or (K, N), of those that were validated
    curves: dict[int, Curve]  # on the validation bars
    shapes: dict[int, str]  # what may be averaged


def gather(setup: Setup) -> Gathered:
    """Read all batches.

    Raises:
      CheckpointError: the policies of one cannot be read.
    """
    found = Gathered([], {}, {}, {})
    for folder in batch_folders(setup.out):
        batch = folder.load()
        found.trials.extend(batch.trials)
        for i, shape in enumerate(batch.shapes):
            arrays = folder.load_policies(i)
            trials = batch.of(shape)
            key = shape_key(setup.programs.configured(setup.config_of(trials[0])))
            for row, trial in enumerate(trials):
                found.params[trial.number] = arrays["params"][row]
                found.shapes[trial.number] = key
                found.curves[trial.number] = Curve(
                    arrays["validation_days"], arrays["validation"][row], float(arrays["validation_per_year"])
                )
    found.trials.sort(key=lambda t: t.number)
    return found


def finish(setup: Setup, study: Study, console: Console) -> None:
    """Judge, average, write and say it."""
    options, out, found = setup.options, setup.out, gather(setup)
    best = chosen_trials(found.trials, found.shapes, options.best)
    if not best:
        reasons = [f"trial {t.number}: {t.reason}" for t in found.trials if t.reason]
        raise ConfigError(f"{out}: no trial was completed; {reasons[0] if reasons else 'all were halted'}")
    winner, config = ranked_trials(found.trials)[0], setup.config
    choose_by = config.budget.choose_by
    truth = tell_truth(found.trials, found.curves, winner, TEST_FIGURE[choose_by], options.day_blocks)
    tested = winner.result.get(TEST_FIGURE[choose_by], math.nan)
    sentences = truth_sentences(truth, winner, choose_by, tested)
    ensemble = _ensemble(setup, found, best, truth)
    summary = {
        "trials": {
            "asked": len(found.trials),
            **{state: sum(t.state == state for t in found.trials) for state in ("complete", "halted", "failed")},
        },
        "looks": truth.looks,
        "choose_by": choose_by,
        "sampler": options.sampler,
        "halve_at": list(options.halve_at),
        "eta": options.eta,
        "seeds": config.budget.seeds,
        "space": {name: dimension.to_json() for name, dimension in setup.space.items()},
        "shapes": len(set(found.shapes.values())),
        "winner": _winner(winner),
        "truth": _truth(truth, options.day_blocks),
        "sentences": sentences,
        "importance": study.importance(),
        "ensemble": ensemble,
    }
    write_config(out, setup.inputs.resolved)
    write_manifest(
        out,
        setup.inputs,
        env_spec(config.env, config.reward).actions,
        {"sweep": {"trials": len(found.trials), "looks": truth.looks}},
    )
    write_sweep(out, found.trials, setup.space, found.curves, truth.overfitting, summary)
    from jaxppo.sweep.page import write_page  # matplotlib takes a second to import

    page = write_page(out)
    _show(setup, found, summary, console)
    console.print(f"policy: {out / FOLDER}; files: {out}; page: {page}")


def _winner(winner: Trial) -> dict[str, Any]:
    row = winner.best_row
    return {
        "trial": winner.number,
        "seed": winner.seed,
        "params": winner.params,
        "update": int(row["update"]),
        "value": winner.best,
        "validation": {k: v for k, v in row.items() if k.startswith("val_")},
        "test": {k: v for k, v in winner.result.items() if k.startswith("test_") and "member" not in k},
    }


def _truth(truth: Truth, blocks: int) -> dict[str, Any]:
    of = truth.overfitting
    found = {
        "overfitting_probability": of.probability if of else math.nan,
        "overfitting_loss_probability": of.loss_probability if of else math.nan,
        "overfitting_slope": of.slope if of else math.nan,
        "overfitting_splits": len(of.logits) if of else 0,
        "overfitting_blocks": blocks,
        "overfitting_trials": truth.compared,
        "overfitting_days": truth.days,
        "overfitting_probability_complete": truth.overfitting_complete,
        "overfitting_trials_complete": truth.compared_complete,
    }
    names = ("sharpe", "luck_sharpe", "probabilistic_sharpe", "deflated_sharpe", "rank_correlation", "ranked")
    return {**{name: getattr(truth, name) for name in names}, **found}


def _ensemble(setup: Setup, found: Gathered, best: Sequence[Trial], truth: Truth) -> dict[str, Any]:
    """Write the ensemble of the best, unless it is there already; what summary.json says of it."""
    folder = setup.out / FOLDER
    members = [
        {"trial": t.number, "seed": t.seed, "update": int(t.best_row["update"]), "value": t.best, "params": t.params}
        for t in best
    ]
    facts = {"trials": len(found.trials), "looks": truth.looks, "members": members}
    there = earlier_manifest(folder).get("sweep")
    if there is not None:
        if as_figures(there) == as_figures(facts) and (told := _earlier(setup.out)):
            return told
        folder.rename(
            _free(setup.out / f"{FOLDER}-of-{there['trials']}-trials")
        )  # what was tested with it stays with it
    config = setup.programs.configured(setup.config_of(best[0]))
    program = setup.programs.of(config)
    product = write_product(
        folder, [Member(t, found.params[t.number]) for t in best], config, program, setup.inputs, facts
    )
    return {
        "members": [t.number for t in best],
        "asked": setup.options.best,
        "policies": len(best) * config.budget.seeds,
        "validation": product.validation,
        "test": product.test,
        "gate": product.gate.verdict,
    }


def _earlier(out: Path) -> dict[str, Any]:
    """What an earlier end said of the ensemble that is there; empty where that cannot be read."""
    try:
        told: dict[str, Any] = as_figures(read_json(out / SUMMARY))["ensemble"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return told


def _free(path: Path) -> Path:
    """`path`, or with a number after it one that is not there."""
    tried = [path, *(path.with_name(f"{path.name}-{i}") for i in range(2, 1000))]
    return next(p for p in tried if not p.exists())


def _show(setup: Setup, found: Gathered, summary: Mapping[str, Any], console: Console) -> None:
    """The best trials, what is averaged, and the truth."""
    choose_by = summary["choose_by"]
    done = ranked_trials(found.trials)
    head = ["trial", *setup.space, "update", choose_by, "test", "trades"]
    rows = [
        [
            str(t.number),
            *(_plain(t.params[name]) for name in setup.space),
            str(int(t.best_row["update"])),
            cell("number", t.best),
            cell("number", t.result.get(TEST_FIGURE[choose_by], math.nan)),
            cell("whole", t.best_row["val_trades"]),
        ]
        for t in done[:_SHOWN]
    ]
    count = summary["trials"]
    console.print(
        plain_table(f"The best {len(rows)} of {count['asked']} trials, by their best validations", head, rows)
    )
    console.print(f"{count['complete']} complete, {count['halted']} halted, {count['failed']} could not be run")
    for line in [*summary["sentences"], *ensemble_sentences(summary)]:
        console.print(line)


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
