"""What the page of a sweep says in words: key figures, the verdict, and what to know before believing it."""

from __future__ import annotations

import math

from jaxppo.page.document import Card, Remark
from jaxppo.page.scoreboard import Answer, Score
from jaxppo.page.sections import tone
from jaxppo.page.text import number, percent, plural
from jaxppo.play.gate import APPROVED
from jaxppo.store.columns import of_portfolio
from jaxppo.store.read import SweepData, lookup
from jaxppo.sweep.judge import TEST_FIGURE, ensemble_sentences

SURE, OVERFIT = 0.95, 0.5
"""Deflated Sharpe ratio that is more than luck; probability of overfitting from which choosing is worth nothing."""
_EDGE = 0.05  # of a range: a winner so near to its end may want more of it


def cards(data: SweepData) -> list[Card]:
    s, truth = data.summary, data.summary["truth"]
    count, winner, of = s["trials"], s["winner"], s["ensemble"]
    column = s["choose_by"]
    tested = winner["test"].get(TEST_FIGURE[column], math.nan)
    own = of["test"].get(column, math.nan)
    worst = overfitting(data)
    name = "Fitness" if column == "fitness" else "Sharpe"
    deflated, rank = truth["deflated_sharpe"], truth["rank_correlation"]
    pbo, complete = truth["overfitting_probability"], truth["overfitting_probability_complete"]
    among = "" if math.isnan(complete) or complete == pbo else f"; of those not halted {percent(complete, 0)}"
    halted = f"{count['complete']} complete, {count['halted']} halted"
    return [
        Card("Trials", number(count["asked"], 0), f"{halted}; {number(s['looks'], 0)} looks at validation"),
        Card(f"{name} of the winner", number(winner["value"]), f"on test {number(tested)}"),
        Card(
            f"{name} handed over",
            number(own),
            f"on test, {plural(len(of['members']), 'trial')} averaged; validation {number(of['validation'][column])}",
            tone(own > 0, own),
        ),
        Card("Deflated Sharpe", percent(deflated, 0), "P(winner is above luck)", tone(deflated >= SURE, deflated)),
        Card(
            "P(overfitting)",
            percent(pbo, 0),
            f"best of one half, worse half of the other{among}",
            tone(worst < OVERFIT, worst),
        ),
        Card("Rank correlation", number(rank), "of validation and test", tone(rank > 0, rank)),
    ]


def overfitting(data: SweepData) -> float:
    """The probability of backtest overfitting, of all trials or of those that were not halted, whichever is higher."""
    truth = data.summary["truth"]
    known = [
        x for x in (truth["overfitting_probability"], truth["overfitting_probability_complete"]) if not math.isnan(x)
    ]
    return max(known, default=math.nan)


def answer(data: SweepData) -> Answer:
    """What the figures add up to, and the winner's Sharpe ratio, on the test bars where there are any."""
    s, winner = data.summary, data.summary["winner"]
    trial, tested = winner["trial"], _tested(data)
    shown = winner["validation"]["val_portfolio_sharpe"]
    tone, title = _verdict(data)
    deflated = s["truth"]["deflated_sharpe"]
    sentence = f"Trial {trial} is the best of {number(s['trials']['asked'], 0)} on the validation bars"
    if math.isnan(deflated):
        sentence += f": it never traded, which was the best of {plural(s['looks'], 'look')}."
    else:
        sentence += (
            f". The probability that its Sharpe ratio there is more than the luck of {plural(s['looks'], 'look')} is"
            f" {percent(deflated, 0)} (deflated Sharpe ratio)."
        )
    meaning = f"of the winner, trial {trial} at update {number(winner['update'], 0)}, rebalanced daily, after costs, on"
    if math.isnan(tested):
        figure, bars = shown, " the validation bars; there is no test figure"
    else:
        figure, bars = tested, f" the test bars, which chose nothing; {number(shown)} on the validation bars"
    return Answer(
        tone, title, sentence, f"Sharpe ratio {number(figure)} a year", meaning + bars, looked_at=math.isnan(tested)
    )


def _tested(data: SweepData) -> float:
    """The winner's Sharpe ratio a year on the test bars, rebalanced daily; nan without any."""
    return float(data.summary["winner"]["test"].get(TEST_FIGURE["portfolio_sharpe"], math.nan))


def _verdict(data: SweepData) -> tuple[str, str]:
    """Tone and words. The validation bars alone are never good: they chose among all that were looked at."""
    truth, tested = data.summary["truth"], _tested(data)
    deflated, worst = truth["deflated_sharpe"], overfitting(data)
    if math.isnan(deflated):
        return "bad", "The winner never traded"
    if deflated < 0.5 or worst >= OVERFIT:
        return "bad", "The winner may well be luck"
    if tested <= 0:
        return "bad", "The winner earns nothing on the test bars"
    if not deflated >= SURE or truth["rank_correlation"] <= 0:
        return "caution", "Not to be told from luck"
    if tested > 0 or data.summary["ensemble"]["gate"] == APPROVED:
        return "good", "The winner is more than luck"
    return "caution", "The winner is more than luck, by the validation bars alone"


def scores(data: SweepData) -> list[Score]:
    """The winner and what is handed over, on the test bars and on those that chose them."""
    winner, of = data.summary["winner"], data.summary["ensemble"]
    averaged = plural(len(of["members"]), "trial") + (" averaged" if len(of["members"]) > 1 else "")
    found = []
    for part, prefix, title in (("test", "test_", "test"), ("validation", "val_", "validation (looked at)")):
        for called, row, own in (
            (f"Winner, trial {winner['trial']}", of_portfolio(winner[part], prefix), True),
            (f"Handed over, {averaged}", of_portfolio(of[part]), False),
        ):
            if row:
                made, fell = (float(row.get(column, math.nan)) for column in ("return", "max_drawdown"))
                found.append(Score(f"{called}: {title}", float(row["sharpe"]), None, made, fell, own=own))
    return found


def doubt(data: SweepData) -> str:
    """How far to trust the figures."""
    text = f"The validation bars chose among {data.summary['looks']:,.0f} policies, so the best figure there flatters."
    if data.summary["ensemble"]["test"]:
        text += " The test bars chose nothing, once: who goes back and chooses by them has used them up."
    return text


def handed_over(data: SweepData) -> list[str]:
    return ensemble_sentences(data.summary)


def warnings(data: SweepData) -> list[Remark]:
    s, found = data.summary, []
    count, truth = s["trials"], s["truth"]
    if lookup(data.config, "data", "data") is None:
        found.append(Remark("caution", "Made up", "The embedded market is made up, with an edge that no real one has."))
    if not s["ensemble"]["test"]:
        found.append(Remark("caution", "No test", "The bars leave no test split, so nothing speaks of bars to come."))
    if overfitting(data) >= OVERFIT:
        text = "Choosing the best trial was no better than drawing one. What is averaged is no better for being chosen."
        found.append(Remark("bad", "The choice is worth nothing", text))
    elif math.isnan(overfitting(data)):
        text = (
            "Too few trials or validation days to say how far to trust the choice; fewer --day-blocks need fewer days."
        )
        found.append(Remark("caution", "Overfitting unknown", text))
    if truth["rank_correlation"] <= 0:
        text = "What was good on the validation bars was not on the test bars."
        found.append(Remark("bad", "Ranks do not hold", text))
    edges = _at_an_edge(data)
    if edges:
        text = f"The winner lies near an end of its range in {', '.join(edges)}; better values may lie beyond."
        found.append(Remark("caution", "At the edge", text))
    if count["failed"]:
        text = f"{plural(int(count['failed']), 'trial')} could not be run; the table of trials has the reasons."
        found.append(Remark("caution", "Not all were run", text))
    if s["seeds"] == 1:
        text = "Each trial is one seed, so a good trial may be a lucky seed: --seeds 5 averages five in each."
        found.append(Remark("caution", "One seed each", text))
    alone = "The test figures of all trials are told to show how ranks hold. To choose by them is to overfit to them."
    return [*found, Remark("caution", "Do not choose by test", alone)]


def _at_an_edge(data: SweepData) -> list[str]:
    """Fields of which the winner lies in the outer part of its range."""
    found = []
    for name, dimension in data.summary["space"].items():
        if not isinstance(dimension, dict):
            continue
        (kind, ends), value = next(iter(dimension.items())), data.summary["winner"]["params"][name]
        low, high, at = (math.log(x) if kind == "log" else float(x) for x in (*ends[:2], value))
        if not low + _EDGE * (high - low) <= at <= high - _EDGE * (high - low):
            found.append(f"{name} ({value:.4g} of {ends[0]:g} to {ends[1]:g})")
    return found
