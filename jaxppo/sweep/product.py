"""What a sweep hands over: the policies of its best trials as one ensemble, in a folder like that of any run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.config.layers import Resolved, flat_fields, replace_fields
from jaxppo.config.schema import Config
from jaxppo.market.dataset import market_warnings
from jaxppo.play.best import ranked, ranked_score
from jaxppo.play.gate import Gate, Record, judge_policy
from jaxppo.play.sides import HOLD, rules_of, score_yardsticks
from jaxppo.play.tearsheet import sheet_of
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.state import hyper_from
from jaxppo.store.checkpoint import save_once
from jaxppo.store.checkpoint_info import final_info
from jaxppo.store.directory import RunInputs, whole_folder, write_config, write_manifest
from jaxppo.store.gate import write_gate
from jaxppo.store.rows import pool_and_portfolio, portfolio_rows
from jaxppo.store.tables import FOLDER as VALIDATION
from jaxppo.store.tables import write_portfolios, write_validation
from jaxppo.store.tearsheet import write_tearsheet
from jaxppo.sweep.batches import Trial
from jaxppo.sweep.shapes import Program

FOLDER = "policy"


class Member(NamedTuple):
    """A trial of the ensemble."""

    trial: Trial
    params: np.ndarray  # (N,), or (K, N) where the trial is an ensemble itself


class Product(NamedTuple):
    """What the ensemble is worth, as files name it."""

    validation: dict[str, float]
    test: dict[str, float]  # empty without a test split
    gate: Gate  # on the validation bars


def ranked_trials(trials: Sequence[Trial]) -> list[Trial]:
    """The complete trials, the best first; those without a score last."""
    complete = [t for t in trials if t.state == "complete"]
    return [complete[i] for i in ranked([t.best for t in complete])]


def chosen_trials(trials: Sequence[Trial], shape_of: Mapping[int, str], best: int) -> list[Trial]:
    """Trials whose policies are averaged: the `best` of one shape, since networks of different shapes are not.

    It is the shape that most of the `best` trials of all shapes have; of equal numbers that of the better trial. It
    need not be the winner's: beside that there may be poor ones alone, and an average is worth more than a winner.

    Args:
      trials: of the sweep.
      shape_of: what may be averaged, by the number of a trial.
      best: most of them.

    Returns:
      The best first; empty where no trial was completed with a score.
    """
    scored = [t for t in ranked_trials(trials) if not math.isnan(t.best)]
    shapes = [shape_of[t.number] for t in scored[:best]]
    if not shapes:
        return []
    chosen = max(shapes, key=lambda shape: (shapes.count(shape), -shapes.index(shape)))
    return [t for t in scored if shape_of[t.number] == chosen][:best]


def write_product(
    out: Path, members: Sequence[Member], config: Config, program: Program, inputs: RunInputs, facts: Mapping[str, Any]
) -> Product:
    """Write the ensemble to `out`, which is not there yet, and play it.

    Args:
      out: folder of the policy.
      members: the best first.
      config: of the best, with its updates.
      program: of their shape.
      inputs: of the sweep.
      facts: the manifest's entry `sweep`: how many trials and looks there were, among others.
    """
    params = np.concatenate([m.params.reshape(-1, m.params.shape[-1]) for m in members])
    seeds = len(params)
    ensemble = replace_fields(config, {"seeds": seeds})
    params = params if seeds > 1 else params[0]
    market, spec = program.market, program.spec
    split, actions = market.splits["validation"], spec.env.actions
    played = program.play("validation", params, whole=True)
    assert played is not None
    assert played.score is not None
    score = played.score
    fitness = ranked_score(score.figures, config.budget.choose_by)
    sides, rules = rules_of(market)
    yardsticks = score_yardsticks(sides, config.env, program.data["validation"], program.n_bars("validation"))
    looks = int(facts["looks"])
    gate = judge_policy(score, split, actions, config.gate, Record(looks, fitness, fitness), yardsticks.best[1])
    update = int(members[0].trial.best_row["update"])
    with whole_folder(out) as folder:
        sources = {
            **inputs.resolved.sources,
            **dict.fromkeys(members[0].trial.params, "the sweep"),
            "seeds": "the sweep",
        }
        of = RunInputs(
            Resolved(ensemble, _known(sources, ensemble)), market, inputs.source, market_warnings(market), inputs.device
        )
        write_config(folder, of.resolved)
        more = {
            "sweep": dict(facts),
            "rules": rules,
            "finished": {"updates": config.budget.n_updates, "best_update": update, "best_fitness": fitness},
        }
        write_manifest(folder, of, actions, more)
        _save(folder, ensemble, params, program, update, fitness)
        write_validation(folder, "best", score, split, actions.labels)
        write_portfolios(folder, portfolio_rows([("best", score.figures.portfolio)], yardsticks))
        hold = yardsticks.of(HOLD).portfolio_equity
        write_tearsheet(folder / VALIDATION, sheet_of(score, split, hold, market.bars), "best_")
        write_gate(folder, gate)
    tested = program.play("test", params)
    test = pool_and_portfolio(tested.figures.pooled, tested.figures.portfolio) if tested is not None else {}
    return Product(pool_and_portfolio(score.figures.pooled, score.figures.portfolio), test, gate)


def _known(sources: Mapping[str, str], config: Config) -> dict[str, str]:
    """Sources of values that are not the schema's defaults."""
    default = flat_fields(Config())
    return {k: sources.get(k, "the sweep") for k, v in flat_fields(config).items() if v != default[k]}


def _save(folder: Path, config: Config, params: np.ndarray, program: Program, update: int, fitness: float) -> None:
    """The ensemble as the one checkpoint of a run.

    The members come from trials with other hyperparameters, so there is no run to go on with: what the checkpoint has
    beside the policy is empty.
    """
    market, tape = program.market, program.tape
    run = make_train(config, TapeSpec(tape.n_features, program.n_bars("validation")))
    shapes = jax.eval_shape(run.init, jax.random.key(0), hyper_from(config), tape)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    info = final_info(config, market, program.spec.env.actions, update, fitness)
    save_once(folder, state._replace(params=jnp.asarray(params)), info)
