"""The rules in every fold: fitted on what its policy learns from, played over what it is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax

from jaxppo.config.schema import EnvConfig
from jaxppo.market.bars import Bars
from jaxppo.market.dataset import EvaluationSet, Split
from jaxppo.play.sides import Fitted, Yardsticks, fit_rules, rule_sides, rule_signals, score_yardsticks
from jaxppo.walkforward.dates import FoldPlan
from jaxppo.walkforward.program import Fold, FoldSizes, part


class FoldRules(NamedTuple):
    """What each fold's training part says of the rules that are fitted, and how all fared on its test part."""

    fitted: tuple[dict[str, Fitted], ...]  # K
    yardsticks: tuple[Yardsticks, ...]  # K; curves are padded as the folds' calendars are


def play_fold_rules(
    bars: Sequence[Bars], history: Split, plans: Sequence[FoldPlan], folds: Fold, sizes: FoldSizes, env: EnvConfig
) -> FoldRules:
    """Fit and play the rules, sized and charged as the policies are. All folds share one compiled program.

    Args:
      bars: of all symbols, whole.
      history: the whole market.
      plans: K folds; a rule is fitted on all of each that ends a purge gap before its test, also on what early
        stopping keeps from training.
      folds: the same (K,), with their calendars.
      sizes: of the folds.
      env: as of `jaxppo.play.sides.play_rules`.
    """
    signals = rule_signals(bars, history)
    fitted, yardsticks = [], []
    for k, plan in enumerate(plans):
        own = fit_rules(signals, history, plan.fit_first, plan.fit_length)
        test = jax.tree.map(lambda x, k=k: x[k], folds.test)
        data = EvaluationSet(part(history.tape, test), test.calendar)
        fitted.append(own)
        yardsticks.append(score_yardsticks(rule_sides(signals, own), env, data, sizes.n_test))
    return FoldRules(tuple(fitted), tuple(yardsticks))
