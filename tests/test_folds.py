"""Walk-forward folds: dates and ranges by hand, no bar lost between tests, and what cannot be folded is said."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random_tape

from jaxppo.errors import ConfigError, DataError
from jaxppo.market.dataset import Split
from jaxppo.market.splits import SplitRange
from jaxppo.walkforward.dates import (
    FoldDates,
    fold_dates,
    fold_ranges,
    fold_split,
    pad_ranges,
    plan_folds,
    stop_ranges,
)


def test_dates_of_ten_bars_in_two_folds():
    # 60 % of 10 bars come before the first test, so tests begin at bars 6 and 8, and end after bar 9.
    times = [np.arange(10) * 100]
    assert fold_dates(times, 2, "expanding", 0.6) == [FoldDates(0, 600, 800), FoldDates(0, 800, 901)]
    # Rolling: always 6 bars of training, so the second begins 2 bars later.
    assert fold_dates(times, 2, "rolling", 0.6) == [FoldDates(0, 600, 800), FoldDates(200, 800, 901)]


def test_dates_pool_the_bars_of_all_symbols():
    # Pooled: 0 0 1 1 2 2 3 3; half of them come before time 2.
    times = [np.arange(4), np.arange(4)]
    assert fold_dates(times, 1, "expanding", 0.5) == [FoldDates(0, 2, 4)]


def test_ranges_by_hand():
    # Bars 0..19, test from 10 to 15, gap 4: the first test decision is at bar 9 and fills at 10; bars 5, 6, 7, 8 are
    # left out, so training ends with bar 4. With a receptive field of 3 its first decision is at bar 2.
    train, test = fold_ranges(np.arange(20), FoldDates(0, 10, 15), receptive_field=3, gap=4)
    assert train == SplitRange(0, 5, 2)
    assert train.decisions == 2  # at bars 2 and 3; bar 4 only fills and marks
    assert (test.first, test.end, test.decisions) == (9, 15, 5)  # at 9..13, which fill at 10..14


def test_a_rolling_range_begins_late_and_keeps_its_history():
    train, _ = fold_ranges(np.arange(20), FoldDates(4, 14, 18), receptive_field=3, gap=4)
    assert train == SplitRange(4, 9, 6)  # bars 4 and 5 are history alone


def test_a_symbol_that_begins_or_ends_within_the_test_period():
    dates = FoldDates(0, 10, 15)
    late, early = np.arange(12, 20), np.arange(0, 13)
    _, test = fold_ranges(late, dates, receptive_field=2, gap=4)
    assert (test.first, test.end, test.decisions) == (1, 3, 1)  # decides at its bar 1 (time 13), fills at 14
    _, test = fold_ranges(early, dates, receptive_field=2, gap=4)
    assert (test.first, test.end, test.decisions) == (9, 13, 3)  # fills at 10, 11 and 12
    train, test = fold_ranges(np.arange(0, 8), dates, receptive_field=2, gap=4)
    assert test.decisions == 0
    train, _ = fold_ranges(late, dates, receptive_field=2, gap=4)
    assert train.decisions == 0


def test_the_newest_bars_are_kept_to_stop_by():
    # Before the test at 26 and its gap of 4 lie bars 0..20. A fifth of them is 4: of 21 bars, 17 are older, so the cut
    # is at 17. Like a test, the kept bars begin with the decision at 16, filled at 17; bars 12..15 are the gap.
    dates, time = FoldDates(0, 26, 30), np.arange(30)
    whole = fold_ranges(time, dates, 3, 4)[0]
    assert whole == SplitRange(0, 21, 2)
    [train], [stop] = stop_ranges([time], [whole], dates, 0.2, 3, 4)
    assert train == SplitRange(0, 12, 2)
    assert (stop.first, stop.end, stop.decisions) == (16, 21, 4)  # at 16..19; bar 20 only fills and marks
    # One that begins at 15 trains on nothing and is judged from its first whole window on, at its bar 2.
    late = np.arange(15, 30)
    ranges = [whole, fold_ranges(late, dates, 3, 4)[0]]
    trains, stops = stop_ranges([time, late], ranges, dates, 0.2, 3, 4)  # 27 bars; 22 are before the 3rd last of each
    assert trains[1].decisions == 0
    assert (stops[1].first, stops[1].end) == (2, 6)
    # One that ends before the cut has nothing to be judged by.
    early = np.arange(10)
    _, stops = stop_ranges([time, early], [whole, fold_ranges(early, dates, 3, 4)[0]], dates, 0.1, 3, 4)
    assert stops[1].decisions == 0


def test_a_fold_that_cannot_be_stopped_early_is_named():
    plan = plan_folds([np.arange(500)], 2, "expanding", 0.5, 3, 4, 5, early_stop=0.2)[0]
    assert int(plan.stop_decisions[0]) == 49  # of 245 bars before the gap
    assert int(plan.fit_length[0]) == int(plan.stop_length[0]) == 245
    with pytest.raises(DataError, match=r"fold 1 of 2 cannot be stopped early: .* keeps no more than 5 bars"):
        plan_folds([np.arange(500)], 2, "expanding", 0.5, 3, 4, 5, early_stop=0.02)


@pytest.mark.parametrize("scheme", ["expanding", "rolling"])
def test_no_bar_is_lost_and_no_gap_is_short(scheme):
    rng = np.random.default_rng(0)
    for _ in range(50):
        times = []
        for _ in range(3):
            begin, end = rng.integers(0, 120), rng.integers(380, 500)
            times.append(np.sort(rng.choice(np.arange(begin, end), int(0.7 * (end - begin)), replace=False)))
        folds, field, gap = int(rng.integers(1, 4)), int(rng.integers(1, 9)), int(rng.integers(0, 30))
        plans = plan_folds(times, folds, scheme, 0.5, field, gap, needed=1)
        for s, time in enumerate(times):
            filled = [time[p.test_first[s] + 1 : p.test_length[s]] for p in plans if p.test_decisions[s]]
            # Every bar from the first test date on is filled on once, but where the history is too short to decide.
            after = time[max(int(np.searchsorted(time, plans[0].dates.test_begin)), field) :]
            np.testing.assert_array_equal(np.concatenate(filled), after)
            for p in plans:
                if p.train_decisions[s] and p.test_decisions[s]:
                    assert p.test_first[s] - (p.train_length[s] - 1) - 1 >= gap
                    assert time[p.train_length[s] - 1] < p.dates.test_begin
                    assert p.train_first[s] - (field - 1) >= np.searchsorted(time, p.dates.train_begin)


def test_symbols_with_too_little_get_no_decision_and_a_bar_that_exists():
    first, length = pad_ranges([SplitRange(0, 9, 2), SplitRange(0, 4, 2)], needed=6, receptive_field=3)
    np.testing.assert_array_equal(length - 1 - first, [6, 0])
    assert length[1] - 2 >= 0


def test_a_fold_split_holds_the_symbols_that_decide():
    tape = random_tape(0, 3, 20, 2, first=1)
    history = Split(tape, ("A", "B", "C"), tuple(np.arange(20) + 100 * s for s in range(3)))
    split, rows = fold_split(history, np.array([5, 2, 3], np.int32), np.array([9, 3, 20], np.int32))
    assert split.symbols == ("A", "C")
    np.testing.assert_array_equal(rows, [0, 2])
    np.testing.assert_array_equal(split.times[0], np.arange(9))
    np.testing.assert_array_equal(split.tape.close, np.asarray(tape.close)[[0, 2]])
    assert split.tape.features.size == 0


@pytest.mark.parametrize(
    ("folds", "fraction", "message"),
    [
        (0, 0.5, "folds: must be at least 1, got 0"),
        (2, 0.0, "first_train_fraction: must lie between 0 and 1"),
        (2, 1.0, "first_train_fraction: must lie between 0 and 1"),
        (300, 0.5, "300 folds need at least a bar each, and 500 bars leave 250"),
    ],
)
def test_folds_that_do_not_fit(folds, fraction, message):
    with pytest.raises(ConfigError, match=message):
        plan_folds([np.arange(500)], folds, "expanding", fraction, 3, 4, needed=5)


def test_a_fold_with_nothing_to_train_or_test_on_is_named():
    with pytest.raises(DataError, match=r"fold 1 of 10 cannot be tested: .* has more than 25 .* and 30 are needed"):
        plan_folds([np.arange(500)], 10, "expanding", 0.5, 3, 4, needed=5)
    # 50 bars before the test, less the decision before it, 60 of gap: nothing is left.
    with pytest.raises(DataError, match=r"fold 1 of 2 cannot be trained: .* gap of 60 bars .* more than 0 bars"):
        plan_folds([np.arange(500)], 2, "expanding", 0.1, 3, 60, needed=5)
