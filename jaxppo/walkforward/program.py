"""All folds of a walk-forward in one program: a fold is another `first` and `length` of one shared Tape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.policy import Params, constant_params
from jaxppo.config.schema import Config
from jaxppo.env.actions import flat_action
from jaxppo.env.trading import EnvSpec
from jaxppo.errors import ConfigError
from jaxppo.market.dataset import Calendar, Days, EvaluationSet, JointCalendar, Split, joint_calendar
from jaxppo.market.tape import Tape
from jaxppo.play.curve import TradeSums
from jaxppo.play.deciders import acting_policy, play_policy
from jaxppo.play.formulas import moments, net_returns
from jaxppo.play.members import play_members
from jaxppo.play.metrics import Metrics
from jaxppo.play.passes import Pass, as_lanes, play
from jaxppo.play.score import Pooled, Score, pool_lanes, portfolio_sums, score
from jaxppo.play.significance import deflated_sharpe
from jaxppo.ppo.program import TapeSpec, make_train, run_updates
from jaxppo.ppo.state import Hyper, TrainSpec, TrainState
from jaxppo.walkforward.dates import FoldPlan, fold_split


class FoldRange(NamedTuple):
    """Where a fold decides, and the joint calendar of its bars."""

    first: jax.Array  # (S,) int32
    length: jax.Array  # (S,) int32
    calendar: Calendar


class Fold(NamedTuple):
    """One fold; with a leading axis K, all of them."""

    key: jax.Array
    train: FoldRange
    test: FoldRange
    stop: FoldRange | None = None  # the newest training bars, which early stopping judges by


class Kept(NamedTuple):
    """The best policy so far by the bars that early stopping keeps from training."""

    params: Params  # (N,), or (M, N) of an ensemble
    update: jax.Array  # () int32, after which it was played
    sharpe: jax.Array  # () of the portfolio that is rebalanced daily; NaN before the first


class Growth(NamedTuple):
    """What a portfolio that is rebalanced daily came to, with the costs and without any."""

    charged: jax.Array  # () log growth over all days, after costs
    free: jax.Array  # () the same accounts' decisions, had trading been free


class Judged(NamedTuple):
    """What a fold's bars say of the policy that it trained, before it is handed over."""

    train: Metrics  # () pooled, on the training bars
    probability: jax.Array  # () that its Sharpe ratio is above 0; NaN for one that does not trade
    flat: jax.Array  # () bool: too low to hand it over, so the fold stays flat
    before: Growth  # on the training bars
    after: Growth  # on the tested bars, whether it is handed over or not


class FoldOutput(NamedTuple):
    """What a fold's test says of the policy that is handed over."""

    test: Score
    portfolio_sums: TradeSums  # () of the test's portfolio that is rebalanced daily, a date
    members: Pooled | None  # (M,) of an ensemble, each member's own test; None of one policy


class FoldSizes(NamedTuple):
    """Static sizes that hold for every fold."""

    n_features: int
    n_train: int  # decisions of any symbol in any training part, at most
    n_test: int  # the same of the test parts
    n_stop: int = 0  # the same of what early stopping judges by


class FoldProgram(NamedTuple):
    """Pure functions of one fold; `side_by_side` makes them functions of many.

    init(fold, hyper, tape) -> TrainState
    advance(state, fold, hyper, tape, n_updates) -> (TrainState, means of the updates' metrics)
    judge(params, fold, tape) -> (Params, Judged): the policy to hand over, which is a flat one where it is not trusted
    evaluate(params, fold, tape) -> FoldOutput
    keep(kept, params, update, fold, tape) -> Kept, the better of two policies on `fold.stop`; of equals the later

    With seeds, a fold's state and parameters have an axis of members: member i of fold k draws from
    `fold_in(fold_in(key, k), i)`.
    """

    spec: TrainSpec[EnvSpec]
    init: Callable[[Fold, Hyper, Tape], TrainState]
    advance: Callable[[TrainState, Fold, Hyper, Tape, jax.Array], tuple[TrainState, dict[str, jax.Array]]]
    judge: Callable[[Params, Fold, Tape], tuple[Params, Judged]]
    evaluate: Callable[[Params, Fold, Tape], FoldOutput]
    keep: Callable[[Kept, Params, jax.Array, Fold, Tape], Kept]


def part(tape: Tape, of: FoldRange) -> Tape:
    """The Tape as a fold's range sees it."""
    return tape._replace(first=of.first, length=of.length)


def make_folds(config: Config, sizes: FoldSizes) -> FoldProgram:
    """Functions that train a fold and test a policy on it."""
    program = make_train(config, TapeSpec(sizes.n_features, sizes.n_test))
    spec, still, n_looks = program.spec, None, len(config.segments)
    if config.budget.flat_below > 0:
        action = flat_action(spec.env.actions)
        if action is None:
            raise ConfigError(
                f"flat_below: no action of {', '.join(spec.env.actions.labels)} stays flat; add a target of 0, or give"
                " --flat-below 0"
            )
        still = constant_params(spec.agent, action)

    def init(fold: Fold, hyper: Hyper, tape: Tape) -> TrainState:
        return program.init(fold.key, hyper, part(tape, fold.train))

    def advance(
        state: TrainState, fold: Fold, hyper: Hyper, tape: Tape, n_updates: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        own, most = part(tape, fold.train), config.budget.validate_every
        state, rows = run_updates(spec, state, hyper, own, n_updates, most)
        return state, jax.tree.map(lambda x: x.sum(0) / jnp.maximum(n_updates, 1).astype(x.dtype), rows)

    def played(params: Params, data: EvaluationSet, n: int, *, keep: bool) -> Pass:
        return play_policy(spec.agent, spec.env, params, data.tape, n, spec.receptive_field, keep=keep)

    def both(params: Params, of: FoldRange, n: int, tape: Tape) -> tuple[Pooled, Growth]:
        """The policy's pool on a range, and the portfolio's growth at the costs and without any."""
        data = EvaluationSet(part(tape, of), of.calendar)
        policy = acting_policy(spec.agent, spec.env, params, data.tape, n, spec.receptive_field)
        costs = as_lanes(data.tape.costs, (1.0, 0.0))
        pools = pool_lanes(play(policy, data.tape, n, costs, keep=False), data)
        growth = jnp.log(jnp.maximum(pools.portfolio_equity[:, -1], 1e-6))
        return jax.tree.map(lambda x: x[0], pools), Growth(growth[0], growth[1])

    def judge(params: Params, fold: Fold, tape: Tape) -> tuple[Params, Judged]:
        train, before = both(params, fold.train, sizes.n_train, tape)
        _, after = both(params, fold.test, sizes.n_test, tape)
        by, days, looks = train, fold.train.calendar.days, 1
        if fold.stop is not None:
            (by, _), days, looks = both(params, fold.stop, sizes.n_stop, tape), fold.stop.calendar.days, n_looks
        curve = by.portfolio_equity
        returns = net_returns(curve, jnp.ones((), curve.dtype), days.valid)
        probability = deflated_sharpe(moments(returns, days.valid), looks)
        if still is None:
            return params, Judged(train.metrics, probability, jnp.zeros((), bool), before, after)
        flat = ~(probability >= config.budget.flat_below)  # also where it is no number, of a policy that does not trade
        return jnp.where(flat, still, params), Judged(train.metrics, probability, flat, before, after)

    def evaluate(params: Params, fold: Fold, tape: Tape) -> FoldOutput:
        after = EvaluationSet(part(tape, fold.test), fold.test.calendar)
        test = score(played(params, after, sizes.n_test, keep=True), after, spec.env.actions.n_actions)
        members = None
        if params.ndim == 2:
            members = play_members(spec.agent, spec.env, params, after, sizes.n_test, spec.receptive_field)
        return FoldOutput(test, portfolio_sums(after, test.sums), members)

    def keep(kept: Kept, params: Params, update: jax.Array, fold: Fold, tape: Tape) -> Kept:
        assert fold.stop is not None
        data = EvaluationSet(part(tape, fold.stop), fold.stop.calendar)
        sharpe = pool_lanes(played(params, data, sizes.n_stop, keep=False), data).portfolio.sharpe[0]
        # As `jaxppo.play.best.best_update` has it: of equals the later; what is no number only if all are none.
        better = jnp.isnan(kept.sharpe) | (sharpe >= kept.sharpe)
        new = Kept(params, update, sharpe)
        chosen: Kept = jax.tree.map(lambda one, other: jnp.where(better, one, other), new, kept)
        return chosen

    return FoldProgram(spec, init, advance, judge, evaluate, keep)


def nothing_kept(params: Params, folds: int) -> Kept:
    """Before the first update of folds whose parameters are `params`, an axis of folds first."""
    return Kept(jnp.zeros_like(params), jnp.zeros(folds, jnp.int32), jnp.full(folds, jnp.nan, jnp.float32))


def side_by_side(program: FoldProgram) -> FoldProgram:
    """The same functions of many folds at once: folds, states and outputs have a leading axis; the Tape is shared."""
    return FoldProgram(
        program.spec,
        jax.vmap(program.init, (0, None, None)),
        jax.vmap(program.advance, (0, 0, None, None, None)),
        jax.vmap(program.judge, (0, 0, None)),
        jax.vmap(program.evaluate, (0, 0, None)),
        jax.vmap(program.keep, (0, 0, None, 0, None)),
    )


def stack_folds(history: Split, plans: Sequence[FoldPlan], key: jax.Array) -> tuple[Fold, FoldSizes]:
    """The folds as arrays with a leading axis K, padded to common sizes.

    Fold i draws from `fold_in(key, i)`, so it does not depend on how many folds there are.
    """
    train = _stack_ranges(history, [(p.train_first, p.train_length) for p in plans])
    test = _stack_ranges(history, [(p.test_first, p.test_length) for p in plans])
    kept = [(p.stop_first, p.stop_length) for p in plans if p.stop_first is not None and p.stop_length is not None]
    stop = _stack_ranges(history, kept) if kept else None
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(len(plans), dtype=jnp.uint32))
    most = (
        max(int(d.max()) for d in ds)
        for ds in zip(*((p.train_decisions, p.test_decisions, p.stop_decisions) for p in plans), strict=True)
    )
    return Fold(keys, train, test, stop), FoldSizes(history.tape.n_features, *most)


def _stack_ranges(history: Split, ranges: Sequence[tuple[np.ndarray, np.ndarray]]) -> FoldRange:
    calendars = [_calendar(history, first, length) for first, length in ranges]
    first, length = (jnp.asarray(np.stack(x)) for x in zip(*ranges, strict=True))
    per_year = jnp.asarray([c.bars_per_year for c in calendars], jnp.float32)
    days_per_year = jnp.asarray([c.days_per_year for c in calendars], jnp.float32)
    days = Days(*_stack_behind([c.day_behind for c in calendars]), days_per_year)
    return FoldRange(first, length, Calendar(*_stack_behind([c.behind for c in calendars]), per_year, days))


def _stack_behind(behind: Sequence[np.ndarray]) -> tuple[jax.Array, jax.Array]:
    """Decisions behind (S, U_k) of K ranges, padded to the longest by their last column (K, S, U), and which are so."""
    times = [b.shape[1] for b in behind]
    size = max(times)
    padded = [np.pad(b, ((0, 0), (0, size - n)), mode="edge") for b, n in zip(behind, times, strict=True)]
    return jnp.asarray(np.stack(padded)), jnp.asarray(np.arange(size) < np.asarray(times)[:, None])


def _calendar(history: Split, first: np.ndarray, length: np.ndarray) -> JointCalendar:
    """The joint calendar of a range, with the rows of all symbols: those that do not decide there have none behind."""
    split, rows = fold_split(history, first, length)
    joint = joint_calendar(split)

    def spread(behind: np.ndarray) -> np.ndarray:
        out = np.zeros((len(first), behind.shape[1]), np.int32)
        out[rows] = behind
        return out

    return joint._replace(behind=spread(joint.behind), day_behind=spread(joint.day_behind))
