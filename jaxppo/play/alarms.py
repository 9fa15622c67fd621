"""Alarms: what in a run's rows says that training has gone wrong, from when to when. Pure: rows in, alarms out.

A row is one validation, as metrics.csv names its columns. The same rows give the same alarms: in the run, when it is
resumed, and in the report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

VALIDATIONS = 3
"""Validations in a row. The argmax of an undecided policy is one action: healthy runs of quick_test and production held
on 99 to 100 % of decisions at the first one or two after the untrained one, and on less at the third."""
ONE_ACTION = 0.99
"""Share of validation decisions. Healthy policies that hold patiently did so on up to 95.7 % of them."""
KL_LIMIT = 0.1
"""Mean KL of the updates between two validations. Healthy runs stayed under .01; at .1 most samples are clipped, and
the surrogate no longer says anything about the policy that it has led to."""
EXPLAINED_VARIANCE = 0.0
"""Below 0 the value predicts its target worse than a constant would, and the advantages made of it mislead."""

Row = Mapping[str, float]


@dataclass(frozen=True)
class Rule:
    """An alarm starts where `value` is over `limit`, or below it, for `validations` rows in a row."""

    name: str
    title: str
    value: Callable[[Row, Sequence[str]], float]  # of a row and the labels of the actions; nan where there is none
    limit: float
    validations: int
    text: str  # the worst value goes into its braces
    below: bool = False
    measured: str = ""
    """What was measured of the remedy, and where: for who looks at a run while it trains."""


@dataclass(frozen=True)
class Alarm:
    """One alarm; `until` is None while it lasts."""

    name: str
    title: str
    since: int  # update of the validation at which it started
    until: int | None  # update of the validation at which it was over
    worst: float
    text: str


def _column(name: str) -> Callable[[Row, Sequence[str]], float]:
    return lambda row, labels: row.get(name, math.nan)


def _action_share(row: Row, labels: Sequence[str]) -> float:
    """The largest share of an action that does something."""
    shares = (row.get(f"val_action_share_{label}", math.nan) for label in labels if label != "hold")
    return max((s for s in shares if not math.isnan(s)), default=math.nan)


def _not_a_number(row: Row, labels: Sequence[str]) -> float:
    return float(math.isnan(row.get("val_return", 0.0)))


# What always_hold's remedies earned where costs are twice the edge, as shares of an oracle (benchmarks/RESULTS.md,
# reluctant): `hold_buy_sell` -34 to 45 % with a lambda of .95, 80 to 93 % with .8, 93 to 97 % with .5.
_IN_A_ROW = f"at {VALIDATIONS} validations in a row or more"
RULES = (
    Rule(
        "rollback",
        "Rolled back",
        _column("rollbacks"),
        0.0,
        1,
        "the parameters went back to the last good ones and the learning rate was lowered, up to {:.0f} times between"
        " two validations",
        measured="a run mends itself: of 8 x 200 bad numbers put into runs none reached the weights"
        " (RESULTS.md, Faults withstood)",
    ),
    Rule(
        "skipped_steps",
        "Skipped steps",
        _column("skipped_steps"),
        0.0,
        1,
        "gradients that were not finite moved nothing, up to {:.0f} between two validations; try a lower learning rate",
        measured="three times the preset's learning rate earned 41 and 44 % of an oracle on a slow market, the preset's"
        " 59 and 82 % (RESULTS.md, Learning)",
    ),
    Rule(
        "bad_samples",
        "Bad samples",
        _column("bad_samples"),
        0.0,
        1,
        "rewards, accounts or features were not finite: up to {:,.0f} env steps between two validations taught nothing;"
        " check the bars",
        measured="bars, features or accounts that are not finite are left out and counted, 8 x 200 of 8 x 200 times"
        " (RESULTS.md, Faults withstood); python -m jaxppo.data check finds them",
    ),
    Rule(
        "bad_validation",
        "Validation is not a number",
        _not_a_number,
        0.0,
        1,
        "the validated equity is not a number, so the policy cannot be judged; check the bars of the validation split",
        measured="python -m jaxppo.data check names what is wrong with bars; no training mends them",
    ),
    Rule(
        "always_hold",
        "Always holds",
        _column("val_action_share_hold"),
        ONE_ACTION,
        VALIDATIONS,
        "{:.1%} of the validation's decisions keep the position, "
        + _IN_A_ROW
        + ": try --actions targets, or --gae-lambda 0.5; leave fixed stops out and --cost-anneal above 0, and look at"
        " what the end of the run says of costs",
        measured="where costs are twice the edge, hold_buy_sell earned -34 to 45 % of an oracle at a lambda of .95, 80"
        " to 93 % at .8 and 93 to 97 % at .5, and targets 96 to 99 % at .8 (RESULTS.md, Learning)",
    ),
    Rule(
        "one_action",
        "One action",
        _action_share,
        ONE_ACTION,
        VALIDATIONS,
        "{:.1%} of the validation's decisions are the same, " + _IN_A_ROW + ": the policy reacts to nothing;"
        " leave --cost-anneal above 0 and --gae-lambda at 0.8 or below, and look at what the end of the run says of"
        " costs",
        measured="where costs are twice the edge, costs charged in full from the first update left 0 to 90 % of an"
        " oracle, costs that rise over 65 % of the updates 95 to 99 % (RESULTS.md, Learning)",
    ),
    Rule(
        "kl_blow_up",
        "KL blow-up",
        _column("approx_kl"),
        KL_LIMIT,
        1,
        "updates moved the policy by a KL of {:.2f}, where healthy ones stay under .01; lower the learning rate, or set"
        " a KL limit",
        measured="three times the preset's learning rate earned 41 and 44 % of an oracle on a slow market, the preset's"
        " 59 and 82 % (RESULTS.md, Learning)",
    ),
    Rule(
        "value_explains_nothing",
        "The value explains nothing",
        _column("explained_variance"),
        EXPLAINED_VARIANCE,
        VALIDATIONS,
        "the value's explained variance is below 0 (at worst {:.2f}), "
        + _IN_A_ROW
        + ": its mean would be a better guess",
        below=True,
        measured="advantages with less noise: hold_buy_sell earned 26 % of an oracle at a lambda of .95, 80 to 93 % at"
        " .8 (RESULTS.md, Learning)",
    ),
)

MEASURED = {rule.name: rule.measured for rule in RULES}
"""What was measured of the remedy of an alarm, by its name."""


@dataclass
class _Watch:
    """Where one rule stands."""

    rows: int = 0  # in a row, over the limit
    worst: float = math.nan
    place: int | None = None  # in `Alarms.found`, while the alarm lasts


class Alarms:
    """The alarms of the rows added so far, in the order in which they started."""

    def __init__(self, labels: Sequence[str], rows: Iterable[Row] = ()):
        self.found: list[Alarm] = []
        self._labels = tuple(labels)
        self._watches = {rule.name: _Watch() for rule in RULES}
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> list[Alarm]:
        """Look at one more row; returns the alarms that it starts and those that it ends."""
        if row["update"] == 0:
            return []  # nothing was trained yet
        changes = [self._look(rule, self._watches[rule.name], row) for rule in RULES]
        return [alarm for alarm in changes if alarm is not None]

    def _look(self, rule: Rule, watch: _Watch, row: Row) -> Alarm | None:
        value, update = rule.value(row, self._labels), int(row["update"])
        if not (value < rule.limit if rule.below else value > rule.limit):  # nor where there is no value
            place = watch.place
            self._watches[rule.name] = _Watch()
            if place is None:
                return None
            self.found[place] = replace(self.found[place], until=update)
            return self.found[place]
        watch.rows += 1
        # Five digits: a row read back from metrics.csv gives the same alarm.
        worse = min if rule.below else max
        watch.worst = float(f"{value if math.isnan(watch.worst) else worse(watch.worst, value):.5g}")
        if watch.rows < rule.validations:
            return None
        text = rule.text.format(watch.worst)
        if watch.place is not None:
            lasting = self.found[watch.place]
            self.found[watch.place] = replace(lasting, worst=watch.worst, text=text)
            return None
        watch.place = len(self.found)
        self.found.append(Alarm(rule.name, rule.title, update, None, watch.worst, text))
        return self.found[-1]


def alarm_line(alarm: Alarm) -> str:
    """One line for the log: what an alarm means when it starts, how long it lasted when it is over."""
    if alarm.until is None:
        return f"alarm: {alarm.name} at update {alarm.since}: {alarm.text}"
    return f"alarm over: {alarm.name}, from update {alarm.since} to {alarm.until}"
