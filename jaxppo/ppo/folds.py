"""All folds of a walk-forward in one program: a fold is another `first` and `length` of one shared Tape."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxppo.agent.policy import Params
from jaxppo.config.schema import Config
from jaxppo.env.account import StepRecord
from jaxppo.evaluate.validate import play_policy
from jaxppo.evaluate.walkforward import Figures, Pool, fold_figures
from jaxppo.market.tape import Tape
from jaxppo.ppo.loss import Hyper
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.update import update


class FoldRange(NamedTuple):
    """Where a fold decides, and the joint calendar of its bars."""

    first: jax.Array  # (S,) int32
    length: jax.Array  # (S,) int32
    pool: Pool


class Fold(NamedTuple):
    """One fold; with a leading axis K, all of them."""

    key: jax.Array
    train: FoldRange
    test: FoldRange


class FoldOutput(NamedTuple):
    """What a fold leaves: its policy, its figures, and the recorded test decisions."""

    params: Params
    train: Figures
    test: Figures
    record: StepRecord  # (N, S)
    action: jax.Array  # (N, S) int32
    valid: jax.Array  # (N, S) bool


class FoldProgram(NamedTuple):
    """Pure functions of one fold.

    train(fold, hyper, tape) -> Params; evaluate(params, fold, tape) -> FoldOutput
    """

    train: Callable[[Fold, Hyper, Tape], Params]
    evaluate: Callable[[Params, Fold, Tape], FoldOutput]


def part(tape: Tape, of: FoldRange) -> Tape:
    """The Tape as a fold's range sees it."""
    return tape._replace(first=of.first, length=of.length)


def make_folds(config: Config, n_features: int, n_train: int, n_test: int) -> FoldProgram:
    """Functions that train a fold and test its last policy.

    Args:
      config: a checked configuration.
      n_features: of the Tape.
      n_train, n_test: static bounds on the decisions of any symbol in any fold's range.
    """
    program = make_train(config, TapeSpec(n_features, n_test))
    spec = program.spec

    def train(fold: Fold, hyper: Hyper, tape: Tape) -> Params:
        own = part(tape, fold.train)
        state = program.init(fold.key, hyper, own)
        return jax.lax.fori_loop(0, config.budget.n_updates, lambda _, s: update(s, own, spec, hyper)[0], state).params

    def played(params: Params, of: FoldRange, tape: Tape, n: int) -> tuple[Figures, StepRecord, jax.Array, jax.Array]:
        own = part(tape, of)
        record, action, valid = play_policy(spec.agent, spec.env, params, own, n, spec.receptive_field)
        return fold_figures(own, of.pool, record, valid), record, action, valid

    def evaluate(params: Params, fold: Fold, tape: Tape) -> FoldOutput:
        before, *_ = played(params, fold.train, tape, n_train)
        after, record, action, valid = played(params, fold.test, tape, n_test)
        return FoldOutput(params, before, after, record, action, valid)

    return FoldProgram(train, evaluate)


def run_folds(program: FoldProgram, folds: Fold, hyper: Hyper, tape: Tape, at_once: int) -> FoldOutput:
    """Train and test all folds (leading axis K), `at_once` of them side by side; the Tape is shared."""
    return jax.lax.map(lambda f: program.evaluate(program.train(f, hyper, tape), f, tape), folds, batch_size=at_once)
