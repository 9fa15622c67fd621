"""What the figures of a walk-forward say: key figures, a verdict, how it was come by, and warnings."""

from __future__ import annotations

from jaxppo.page import gate
from jaxppo.page.document import Card, Remark
from jaxppo.page.scoreboard import Answer
from jaxppo.page.sections import drawdown_card, profit_card, return_card, tone
from jaxppo.page.selection import DRAWDOWN_LIMIT, MIN_TRADES
from jaxppo.page.text import moment, number, percent, plural
from jaxppo.page.yardsticks import title
from jaxppo.play.gate import APPROVED
from jaxppo.play.portfolio import excess_sentence
from jaxppo.store.read import WalkforwardData, values

CONFIDENT = 0.95


def cards(data: WalkforwardData) -> list[Card]:
    """The six key figures."""
    s = data.summary
    result, hold = data.joined("policy", "return"), data.joined("buy_and_hold", "return")
    sharpe, fall = data.joined("policy", "sharpe"), data.joined("policy", "max_drawdown")
    low, high = s["intervals_90"]["sharpe"]
    factor, gap = data.joined("policy", "profit_factor"), s["gaps"]["sharpe"]
    deflated = s["deflated_sharpe"]
    return [
        return_card(result, hold),
        Card("Sharpe ratio", number(sharpe), f"90 % interval {number(low)} to {number(high)}", tone(low > 0, low)),
        drawdown_card(fall, data.joined("buy_and_hold", "max_drawdown"), DRAWDOWN_LIMIT),
        profit_card(factor, plural(int(data.joined("policy", "trades")), "closed trade")),
        Card(
            "Folds with a gain",
            percent(s["positive_folds"], 0),
            f"above buy-and-hold {percent(s['folds_above_buy_and_hold'], 0)}",
            tone(s["positive_folds"] > 0.5),
        ),
        Card(
            "Sharpe, out less in",
            number(gap["gap"]),
            f"deflated Sharpe {number(deflated)} of {plural(s['trials'], 'trial')}",
            tone(deflated > CONFIDENT, deflated),
        ),
    ]


def verdict(data: WalkforwardData) -> Remark:
    """One sentence on what the joined curve adds up to."""
    s = data.summary
    result, hold = data.joined("policy", "return"), data.joined("buy_and_hold", "return")
    once = data.joined("buy_and_hold_once", "return")
    trades = plural(int(data.joined("policy", "trades")), "closed trade")
    excess = s["excess_over_best_rule"]
    rule = title(excess["rule"])
    text = (
        f"From {moment(s['first_test'])} to {moment(s['last_test'])} the policies of {plural(s['folds'], 'fold')} made"
        f" {percent(result, sign=True)} after costs with {trades};"
        f" buy-and-hold made {percent(hold, sign=True)} with equal money in each symbol at the start of each fold, and"
        f" {percent(once, sign=True)} bought once."
        f" {excess_sentence(excess, rule, s['portfolio']['sharpe'])} {s['handed_over']['sentence']}"
    )
    if len(s["handed_over"]["flat_folds"]) == s["folds"]:
        return Remark("caution", "Stays flat: nothing to trade was found", text)
    if data.joined("policy", "trades") == 0:
        return Remark("bad", "No policy closed a trade", text)
    if not result > 0:
        return Remark("bad", "Loses money out of sample", text)
    if excess["verdict"] == "does not beat":
        return Remark("caution", f"Does not beat the best rule out of sample: {rule}", text)
    if excess["verdict"] == "cannot be told":
        return Remark("caution", f"Above the best rule out of sample, {rule}, but luck could explain it", text)
    if not s["deflated_sharpe"] > CONFIDENT:
        return Remark("caution", f"Beats the best rule out of sample, {rule}, but luck could explain the gain", text)
    return Remark("good", f"Beats the best rule out of sample, {rule}, and luck hardly explains it", text)


def answer(data: WalkforwardData) -> Answer:
    """The gate's verdict in words, and the Sharpe ratio that decides."""
    s, judged, said = data.summary, gate.verdict(data.gate), verdict(data)
    own = s["portfolio"]
    low, high = own["interval_90"]
    meaning = (
        f"rebalanced daily, on bars that no policy had seen, {s['first_test'][:10]} to {s['last_test'][:10]}, folds"
        f" joined; 90 % interval {number(low)} to {number(high)}"
    )
    short = "" if data.gate.verdict == APPROVED else f" {judged.text}"
    figure = f"Sharpe ratio {number(own['sharpe'])} a year"
    return Answer(judged.tone, judged.title, f"{said.title}.{short}", figure, meaning)


def method(data: WalkforwardData) -> str:
    """How the figures came about, and what they count."""
    trials, share = plural(data.summary["trials"], "trial"), data.summary["early_stop"]
    which = "its last policy"
    if share:
        which = (
            f"the policy of the highest Sharpe ratio, rebalanced daily, on the newest {percent(share, 0)}"
            " of its training bars, which it was not trained on"
        )
    asked, judges = data.summary["handed_over"]["flat_below"], "those bars" if share else "its training bars"
    flat = ""
    if asked:
        flat = (
            f" A fold stays flat where the probability that its policy's Sharpe ratio is above 0 on {judges} is under"
            f" {number(asked, 3)}; the gap between in sample and out of sample is of the other folds."
        )
    return (
        f"Each fold is trained from scratch on bars before its test period and tested once, with {which}:"
        f" nothing was chosen on the tested bars.{flat} Positions are closed at cost at the end of a fold, and equal"
        f" money goes into every symbol at the start of the next. The deflated Sharpe ratio counts {trials} (--trials):"
        " count every configuration that you have tried on these bars. Rules that are fitted are fitted on what each"
        " fold trains on; the best of them is chosen by the tested days themselves, which makes it the harder to beat."
    )


def warnings(data: WalkforwardData) -> list[Remark]:
    """What to mind."""
    s, found = data.summary, []
    gap, trades = s["gaps"]["sharpe"], data.joined("policy", "trades")
    one, two = gap["in_sample"], gap["out_of_sample"]
    if one > 0 and two < 0.5 * one:
        text = (
            f"Sharpe {number(one)} on the bars trained on and {number(two)} on those that came after, mean of the"
            " folds: most of what was learnt does not carry over."
        )
        found.append(Remark("bad", "Overfit", text))
    if trades < MIN_TRADES:
        text = f"{plural(int(trades), 'closed trade')} out of sample; under {MIN_TRADES} say little."
        found.append(Remark("caution", "Few trades", text))
    low, high = s["intervals_90"]["sharpe"]
    if low <= 0 <= high:
        text = f"The 90 % interval of the Sharpe ratio, {number(low)} to {number(high)}, holds 0."
        found.append(Remark("caution", "Not told apart from luck", text))
    idle = [str(f) for f, n in zip(data.folds["fold"], values(data.folds, "out_trades"), strict=True) if n == 0]
    if idle:
        closed = "The policy of fold" if len(idle) == 1 else "The policies of folds"
        text = f"{closed} {', '.join(idle)} closed no trade out of sample."
        found.append(Remark("caution", "Folds without a trade", text))
    ruined = int(data.folds["ruined"].sum())
    if ruined:
        found.append(Remark("bad", "Ruined accounts", f"{plural(ruined, 'account')} lost nearly everything in a fold."))
    found += [Remark("caution", "Symbols", f"{text[0].upper()}{text[1:]}.") for text in s["warnings"]]
    return found or [Remark("good", "None of the usual ones", "Enough trades, and as good after training as on it.")]
