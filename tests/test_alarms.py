"""Alarms: which rows start one, which end it, and which must not."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from jaxppo.page.run_remarks import warnings
from jaxppo.play.alarms import KL_LIMIT, ONE_ACTION, RULES, VALIDATIONS, Alarms, alarm_line
from jaxppo.store.alarms import AlarmLog
from jaxppo.store.directory import MetricsCsv
from jaxppo.store.read import load_run
from tests.reference.run_directory import Fake, write_run

LABELS = ("hold", "buy", "sell")
HEALTHY = {
    "skipped_steps": 0.0,
    "bad_samples": 0.0,
    "rollbacks": 0.0,
    "approx_kl": 0.009,
    "explained_variance": 0.1,
    "val_return": 0.01,
    "val_action_share_hold": 0.957,
    "val_action_share_buy": 0.041,
    "val_action_share_sell": 0.002,
}


def rows(*changes: dict[str, Any], first: int = 5) -> list[dict[str, Any]]:
    """One row each, 5 updates apart: a healthy one with what is changed."""
    return [{"update": first + 5 * i, **HEALTHY, **change} for i, change in enumerate(changes)]


def found(*changes: dict[str, Any], first: int = 5) -> list[tuple[str, int, int | None]]:
    return [(a.name, a.since, a.until) for a in Alarms(LABELS, rows(*changes, first=first)).found]


def holding(share: float) -> dict[str, float]:
    return {"val_action_share_hold": share, "val_action_share_buy": 1 - share, "val_action_share_sell": 0.0}


def test_a_healthy_run_raises_none():
    assert found(*[{}] * 20) == []


def test_the_untrained_policy_and_two_undecided_ones_are_no_alarm():
    # What healthy runs of quick_test and production showed: the first argmax is one action.
    untrained = dict.fromkeys(("approx_kl", "explained_variance", "skipped_steps", "rollbacks"), math.nan)
    assert found({**untrained, **holding(1.0)}, holding(1.0), holding(0.999), holding(0.935), first=0) == []


def test_three_validations_that_hold_are_one():
    assert VALIDATIONS == 3
    assert found(holding(1.0), holding(1.0)) == []
    assert found(holding(1.0), holding(1.0), holding(1.0)) == [("always_hold", 15, None)]
    assert found(*[holding(ONE_ACTION + 0.001)] * 4, {}) == [("always_hold", 15, 25)]
    assert found(*[holding(ONE_ACTION)] * 9) == []  # at the limit, not over it
    # Another kind of row between them starts the count again.
    assert found(holding(1.0), holding(1.0), {}, holding(1.0), holding(1.0)) == []


def test_the_same_action_that_is_no_hold_is_one():
    buying = {"val_action_share_hold": 0.0, "val_action_share_buy": 1.0, "val_action_share_sell": 0.0}
    assert found(buying, buying, buying) == [("one_action", 15, None)]
    assert found(buying, buying, {**buying, "val_action_share_buy": 0.98}) == []
    # It need not be the same one for long: a policy that buys at all times, then sells at all times, sees nothing.
    selling = {"val_action_share_hold": 0.0, "val_action_share_buy": 0.0, "val_action_share_sell": 1.0}
    assert found(buying, selling, buying) == [("one_action", 15, None)]


def test_a_kl_blow_up_needs_no_second_look():
    assert found({"approx_kl": KL_LIMIT}) == []
    assert found({}, {"approx_kl": 0.11}, {"approx_kl": 3.0}, {}) == [("kl_blow_up", 10, 20)]


def test_a_value_that_explains_less_than_nothing():
    below = {"explained_variance": -0.01}
    assert found(below, below, {"explained_variance": 0.0}, below) == []
    assert found(below, {"explained_variance": -0.5}, below, below) == [("value_explains_nothing", 15, None)]
    (alarm,) = Alarms(LABELS, rows(below, {"explained_variance": -0.5}, below, below)).found
    assert alarm.worst == -0.5
    assert "(at worst -0.50)" in alarm.text


@pytest.mark.parametrize(
    ("column", "name"),
    [("skipped_steps", "skipped_steps"), ("bad_samples", "bad_samples"), ("rollbacks", "rollback")],
)
def test_what_was_skipped_or_rolled_back_is_never_silent(column, name):
    assert found({}, {column: 1.0}, {column: 2.0}, {}, {column: 7.0}) == [(name, 10, 20), (name, 25, None)]
    first, last = Alarms(LABELS, rows({}, {column: 1.0}, {column: 2.0}, {}, {column: 7.0})).found
    assert (first.worst, last.worst) == (2.0, 7.0)


def test_a_validation_that_is_not_a_number():
    assert found({}, {"val_return": math.nan}, {}) == [("bad_validation", 10, 15)]


def test_what_a_row_lacks_raises_none():
    assert Alarms((), [{"update": 5 * i + 5} for i in range(9)]).found == []
    gone = dict.fromkeys(("approx_kl", "explained_variance"), math.nan)
    assert found(*[gone] * 4) == []


def test_every_rule_has_a_line_that_starts_and_one_that_ends():
    everything = {
        "skipped_steps": 3.0,
        "bad_samples": 12_345.0,
        "rollbacks": 1.0,
        "approx_kl": 2.5,
        "explained_variance": -1.0,
        "val_return": math.nan,
    }
    for shares in (holding(1.0), {"val_action_share_hold": 0.0, "val_action_share_buy": 1.0}):
        alarms = Alarms(LABELS)
        started = [a for row in rows(*[{**everything, **shares}] * 3) for a in alarms.add(row)]
        ended = alarms.add({"update": 20, **HEALTHY})
        assert len(started) == len(ended) == len(RULES) - 1  # it holds, or does the other thing
        lines = [alarm_line(a) for a in started]
        assert all(line.startswith("alarm: ") and " at update " in line and "{" not in line for line in lines)
        assert all(alarm_line(a).startswith(f"alarm over: {a.name}, from update ") for a in ended)
    assert any("12,345 env steps" in line for line in lines)


def test_a_line_is_said_once_when_an_alarm_starts_and_once_when_it_ends(tmp_path):
    log = AlarmLog(tmp_path, LABELS)
    said = [log.add(row) for row in rows({}, {"approx_kl": 0.5}, {"approx_kl": 0.7}, {}, {})]
    assert [len(lines) for lines in said] == [0, 1, 0, 1, 0]
    assert said[1][0].startswith("alarm: kl_blow_up at update 10: updates moved the policy by a KL of 0.50")
    assert said[3] == ["alarm over: kl_blow_up, from update 10 to 20"]
    (alarm,) = json.loads((tmp_path / "alarms.json").read_text())
    assert (alarm["name"], alarm["since"], alarm["until"], alarm["worst"]) == ("kl_blow_up", 10, 20, 0.7)


def test_a_run_without_an_alarm_says_so_in_its_file(tmp_path):
    AlarmLog(tmp_path, LABELS).add(rows({})[0])
    assert json.loads((tmp_path / "alarms.json").read_text()) == []


def test_a_resumed_run_has_the_alarms_of_one_that_never_stopped(tmp_path):
    """Two validations of three before the stop, and one row after it that the resumed run writes again."""
    all_rows = rows(holding(1.0), {**holding(1.0), "approx_kl": 1 / 3}, holding(1.0), holding(1.0), {})
    through = tmp_path / "through"
    through.mkdir()
    log = AlarmLog(through, LABELS)
    for row in all_rows:
        log.add(row)
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    csv = MetricsCsv(stopped, list(all_rows[0]))
    for row in all_rows[:3]:
        csv.append(row)
    log = AlarmLog(stopped, LABELS)
    log.follow(10)
    lines = [line for row in all_rows[2:] for line in log.add(row)]
    assert len([x for x in lines if "always_hold" in x]) == 2
    assert (stopped / "alarms.json").read_bytes() == (through / "alarms.json").read_bytes()


def test_a_full_disk_does_not_stop_the_run(tmp_path, monkeypatch):
    log = AlarmLog(tmp_path, LABELS)
    row, other = rows({"approx_kl": 0.5}, {})

    def full(path, text):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("jaxppo.store.alarms.write_json", full)
        assert len(log.add(row)) == 1
    assert not (tmp_path / "alarms.json").exists()
    log.add(other)
    assert len(json.loads((tmp_path / "alarms.json").read_text())) == 1


def test_the_report_shows_them_with_the_updates(tmp_path):
    run = tmp_path / "run"
    write_run(run, Fake())
    healthy = {f.title for f in warnings(load_run(run))}
    titles = {rule.title for rule in RULES}
    assert not healthy & titles
    path = run / "metrics.csv"
    header, *lines = path.read_text().splitlines()
    at = header.split(",").index("approx_kl")
    skipped = header.split(",").index("skipped_steps")
    for i in (3, 4, 6):
        cells = lines[i].split(",")
        cells[at] = "0.25"
        lines[i] = ",".join(cells)
    cells = lines[-1].split(",")
    cells[skipped] = "12"
    lines[-1] = ",".join(cells)
    path.write_text("\n".join([header, *lines]) + "\n")
    by_title = {f.title: f for f in warnings(load_run(run)) if f.title in titles}
    assert set(by_title) == {"KL blow-up", "Skipped steps"}
    kl, steps = by_title["KL blow-up"], by_title["Skipped steps"]
    assert kl.tone == "caution"  # it is over
    assert "a KL of 0.25" in kl.text
    assert "Alarm from update 15 to 25, from update 30 to 35." in kl.text
    assert steps.tone == "bad"  # it lasts
    assert "up to 12" in steps.text
    assert "from update 40 to the end" in steps.text
