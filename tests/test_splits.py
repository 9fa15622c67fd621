"""Splits by time, the Tapes made of them, and where paths may start."""

import dataclasses
import datetime as dt
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxppo.agent.policy import distribution
from jaxppo.config.checks import check_config
from jaxppo.config.schema import Config, DataConfig, from_dict
from jaxppo.env.trading import env_spec
from jaxppo.errors import ConfigError, DataError
from jaxppo.market.bars import Bars
from jaxppo.market.dataset import MIN_DECISIONS, build_market, joint_calendar, market_warnings
from jaxppo.market.splits import SplitRange, cutoff_times, split_ranges
from jaxppo.market.tape import (
    REWARD_HORIZON,
    VOLATILITY_BARS,
    draw_starts,
    forward_returns,
    start_counts,
    trailing_volatility,
)
from jaxppo.play.deciders import play_policy
from jaxppo.play.passes import lane, n_decisions

HOUR = 3600
START = int(dt.datetime(2024, 1, 1, tzinfo=dt.UTC).timestamp())
RECEPTIVE_FIELD, N_STEPS = 8, 16
WARM_UP = 1  # The calendar features need two bars, so one row is cut off.


def make_bars(symbol="A", n=400, first=0, asset_class="equity", seed=0):
    """`n` hours round the clock from hour `first` on."""
    rng = np.random.default_rng([seed, first, n])
    close = 100.0 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    opening = np.concatenate([[100.0], close[:-1]])
    return Bars(
        symbol=symbol,
        asset_class=asset_class,
        interval=HOUR,
        timezone="UTC",
        time=START + HOUR * np.arange(first, first + n),
        open=opening,
        high=np.maximum(opening, close) * 1.001,
        low=np.minimum(opening, close) * 0.999,
        close=close,
        volume=np.ones(n),
        source=f"{symbol}.csv",
    )


def make_config(**data) -> Config:
    return from_dict({"features": {"features": ["calendar"]}, "budget": {"n_steps": N_STEPS}, "data": data})


def market_of(*bars, receptive_field=RECEPTIVE_FIELD, **data):
    return build_market(list(bars), make_config(**data), receptive_field)


def decision_times(split, i):
    """Times of the bars of symbol i that are decided on."""
    first, length = int(split.tape.first[i]), int(split.tape.length[i])
    return split.times[i][first : length - 1]


# Cut-off dates and ranges.


def test_cutoffs_by_hand():
    # 20 bars: .7 of them are 14 and .85 are 17, so validation begins at bar 14 and test at bar 17.
    time = 100 * np.arange(20)
    assert cutoff_times([time], DataConfig()) == (1400, 1700)


def test_cutoffs_count_the_bars_of_all_symbols():
    # Bars at 0..9 and at 5..9: pooled 0 1 2 3 4 5 5 6 6 7 7 8 8 9 9. .6 of 15 are 9: time 7; .8 are 12: time 8.
    config = DataConfig(train_fraction=0.6, validation_fraction=0.2)
    assert cutoff_times([np.arange(10), np.arange(5, 10)], config) == (7, 8)


def test_without_a_test_share_its_cutoff_is_beyond_the_data():
    config = DataConfig(train_fraction=0.7, validation_fraction=0.3)
    assert cutoff_times([np.arange(20)], config) == (14, 20)


@pytest.mark.parametrize(
    ("train", "validation"),
    [(0.0, 0.5), (1.0, 0.1), (0.5, 0.0), (0.8, 0.3), (-0.1, 0.5), (0.5, 1.0), (float("nan"), 0.1), (0.5, float("nan"))],
)
def test_fractions_that_leave_nothing(train, validation):
    config = Config(data=DataConfig(train_fraction=train, validation_fraction=validation))
    with pytest.raises(ConfigError, match=f"train_fraction {train} and validation_fraction {validation} must be above"):
        check_config(config)


def test_ranges_by_hand():
    # 100 bars, cut at 60 and 80; a decision sees 4 bars, 10 are purged. Training decides from bar 3 to 58: bar 59 only
    # fills. Validation's first 10 bars are the gap.
    ranges = split_ranges(np.arange(100), (60, 80), receptive_field=4, purge=10)
    assert ranges == {
        "train": SplitRange(0, 60, 3),
        "validation": SplitRange(60, 80, 70),
        "test": SplitRange(80, 100, 90),
    }
    assert [r.decisions for r in ranges.values()] == [56, 9, 9]


def test_ranges_of_a_symbol_that_misses_splits():
    early = split_ranges(np.arange(50), (60, 80), 4, 10)
    assert [r.decisions for r in early.values()] == [46, 0, 0]
    late = split_ranges(np.arange(75, 100), (60, 80), 4, 10)
    assert [(r.end - r.begin, r.decisions) for r in late.values()] == [(0, 0), (5, 0), (20, 9)]


def test_a_gap_below_the_receptive_field_is_widened_to_it():
    assert split_ranges(np.arange(100), (60, 80), receptive_field=12, purge=2)["validation"].first == 71


# The market: cut-offs, purge gap, absent symbols.


@pytest.fixture(scope="module")
def market():
    """Two symbols over the same 800 hours with different gaps, one that ends early and one that starts late."""
    whole = make_bars("A", 800)
    holes = make_bars("B", 800, seed=1)
    keep = np.arange(800) % 5 != 0
    holes = dataclasses.replace(
        holes, **{k: getattr(holes, k)[keep] for k in ("time", "open", "high", "low", "close", "volume")}
    )
    return market_of(whole, holes, make_bars("EARLY", 300), make_bars("LATE", 180, first=620))


def test_the_cutoffs_are_the_same_dates_for_every_symbol(market):
    one, two = market.cutoffs
    assert one < two
    for name, low, high in (("train", -np.inf, one), ("validation", one, two), ("test", two, np.inf)):
        for times in market.splits[name].times:
            assert low <= times[0] <= times[-1] < high


def test_no_bar_is_in_two_splits_and_none_is_lost(market):
    for bars in market.bars[:2]:
        parts = [s.times[s.symbols.index(bars.symbol)] for s in market.splits.values()]
        np.testing.assert_array_equal(np.concatenate(parts), bars.time[WARM_UP:])


def test_tapes_hold_the_bars_of_their_times(market):
    for split in market.splits.values():
        for i, symbol in enumerate(split.symbols):
            bars = next(b for b in market.bars if b.symbol == symbol)
            at = np.searchsorted(bars.time, split.times[i])
            for field in ("open", "high", "low", "close"):
                got = np.asarray(getattr(split.tape, field))[i, : len(at)]
                np.testing.assert_array_equal(got, getattr(bars, field)[at].astype(np.float32))


@pytest.mark.parametrize("purge_bars", [0, 40])
@pytest.mark.parametrize("receptive_field", [1, 8, 32])
def test_the_purge_gap_is_receptive_field_plus_horizon_or_more(purge_bars, receptive_field):
    market = market_of(make_bars(n=1500), receptive_field=receptive_field, purge_bars=purge_bars)
    least = max(purge_bars, receptive_field + REWARD_HORIZON)
    assert market.purge_bars == least
    time = market.bars[0].time
    for before, after in (("train", "validation"), ("validation", "test")):
        last = np.searchsorted(time, market.splits[before].times[0][-1])
        first = np.searchsorted(time, decision_times(market.splits[after], 0)[0])
        assert first - last - 1 == least  # bars strictly between
    # The first training decision has a whole receptive field, feature warm-up apart, and wastes no bar.
    assert int(market.splits["train"].tape.first[0]) == receptive_field - 1


def test_symbols_that_a_split_lacks_are_named(market):
    assert market.splits["train"].symbols == ("A", "B", "EARLY")
    assert market.splits["validation"].symbols == ("A", "B", "LATE")
    assert market.splits["test"].symbols == ("A", "B", "LATE")
    assert [w.split(" split")[0] for w in market.split_warnings] == ["train", "validation", "test"]
    assert [w.split()[-1] for w in market.split_warnings] == ["LATE", "EARLY", "EARLY"]
    assert market.decisions["LATE"]["train"] == 0
    assert market.decisions["EARLY"]["train"] == 300 - WARM_UP - RECEPTIVE_FIELD  # the last bar only fills


def test_decisions_are_counted_per_symbol_and_split(market):
    for name, split in market.splits.items():
        for i, symbol in enumerate(split.symbols):
            assert market.decisions[symbol][name] == len(decision_times(split, i))


def test_split_by_symbol_warns_and_cuts_each_symbol_by_itself():
    market = market_of(make_bars("A", 500), make_bars("B", 500, first=400), split_by="symbol")
    assert market.cutoffs is None
    assert any("split_by symbol" in w and "flatter" in w for w in market_warnings(market))
    # .7 of the 499 bars of each are left for training: 349.
    assert [len(t) for t in market.splits["train"].times] == [349, 349]
    # Time leaks: B trains on hours that A is validated on.
    assert market.splits["train"].times[1][0] < market.splits["validation"].times[0][-1]
    assert market_warnings(market_of(make_bars("A", 500), make_bars("B", 500))) == ()


@pytest.mark.parametrize(
    ("n", "split"), [(30, "train"), (200, "validation")]
)  # 20 of 29 bars train; 30 of 199 validate, 13 of which are purged
def test_too_few_bars_name_file_symbol_and_numbers(n, split):
    with pytest.raises(DataError) as error:
        market_of(make_bars("SHORT", n), make_bars("SHORTER", n - 10, first=10))
    message = str(error.value)
    needed = {"train": N_STEPS + REWARD_HORIZON, "validation": MIN_DECISIONS}[split]
    for word in ("SHORT.csv", f"a {split} split", f"SHORT, the longest there, has {n} bars", f"at least {needed}"):
        assert word in message


def test_a_test_split_may_be_left_out():
    market = market_of(make_bars(n=500), train_fraction=0.7, validation_fraction=0.3)
    assert sorted(market.splits) == ["train", "validation"]


def test_training_sees_nothing_of_later_splits():
    """Other bars from the first cut-off on leave the training Tape bit-identical."""
    bars = make_bars(n=600)
    market = market_of(bars)
    cut = int(np.searchsorted(bars.time, market.cutoffs[0]))
    later = {
        k: np.where(np.arange(600) < cut, getattr(bars, k), 3 * getattr(bars, k)) for k in ("open", "high", "close")
    }
    changed = market_of(dataclasses.replace(bars, **later))
    jax.tree.map(np.testing.assert_array_equal, market.splits["train"].tape, changed.splits["train"].tape)
    assert (
        np.asarray(market.splits["validation"].tape.close) != np.asarray(changed.splits["validation"].tape.close)
    ).all()


def test_costs_and_shorts_go_by_asset_class():
    config = from_dict(
        {
            "features": {"features": ["calendar"]},
            "env": {"fee": {"fx": 0.0002}, "spread": 0.002, "slippage": 0.0005, "borrow": 0.05},
        }
    )
    classes = ("equity", "crypto", "fx")
    tape = build_market([make_bars(c, 500, asset_class=c) for c in classes], config, 4).splits["train"].tape
    np.testing.assert_allclose(tape.costs.fee, [0.001, 0.001, 0.0002], rtol=1e-6)
    np.testing.assert_allclose(tape.costs.impact, 0.0015, rtol=1e-6)  # half of .002, and .0005
    # 24 bars on 252, 365.25 and 260 days; borrow 5 % a year.
    np.testing.assert_allclose(tape.bars_per_year, [6048, 8766, 6240], rtol=1e-6)
    np.testing.assert_allclose(tape.costs.borrow, 0.05 / np.array([6048, 8766, 6240]), rtol=1e-6)
    assert tape.allow_short.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"fee": {"equities": 0.1}}, "fee: unknown asset class 'equities'.*'equity'"),
        ({"fee": {"fx": 0.5}}, "fee: fx has 0.5"),
        ({"fee": {"fx": -0.1}}, "fee: fx has -0.1"),
        ({"allow_short": ["stocks"]}, "allow_short: unknown asset class 'stocks'"),
    ],
)
def test_fees_and_shorts_of_no_class(env, words):
    with pytest.raises(ConfigError, match=words):
        build_market([make_bars()], from_dict({"features": {"features": ["calendar"]}, "env": env}), 4)


# Reward context of a Tape.


def test_forward_returns_by_hand():
    # From open[t + 1] to close[t + 5], cut at the last bar; opens 1 below their closes.
    close = np.array([10.0, 11, 12, 13, 14, 15, 16])
    expected = [15 / 10 - 1, 16 / 11 - 1, 16 / 12 - 1, 16 / 13 - 1, 16 / 14 - 1, 16 / 15 - 1, 0]
    np.testing.assert_allclose(forward_returns(close - 1, close), expected)


def test_trailing_volatility_by_hand():
    # Returns +10 % and -10 % in turn: deviation .1 * sqrt(20 / 19), times sqrt 5; 0 before 20 returns.
    close = np.cumprod(np.concatenate([[1.0], np.tile([1.1, 0.9], 15)]))
    got = trailing_volatility(close)
    assert (got[:VOLATILITY_BARS] == 0).all()
    np.testing.assert_allclose(got[VOLATILITY_BARS:], 0.1 * np.sqrt(20 / 19) * np.sqrt(5))
    assert (trailing_volatility(close[:20]) == 0).all()


# The joint calendar.


def test_joint_calendar_by_hand():
    """A decides on hours 0, 1, 2, 3 and B on 2, 4; each fills a bar later in its own sequence."""
    split = market_of(make_bars()).splits["train"]
    times = (HOUR * np.arange(5), HOUR * np.array([0, 2, 4, 6]))
    tape = split.tape._replace(first=jnp.array([0, 1]), length=jnp.array([5, 4]))
    time, index, per_year, *_ = joint_calendar(dataclasses.replace(split, tape=tape, times=times))
    # A fills at hours 1, 2, 3, 4, B at 4 and 6.
    np.testing.assert_array_equal(time, HOUR * np.array([1, 2, 3, 4, 6]))
    np.testing.assert_array_equal(index, [[1, 2, 3, 4, 4], [0, 0, 0, 1, 2]])
    assert index.dtype == np.int32
    # Four intervals in five hours: 4 / 5 of the 8,766 hours of a year.
    assert per_year == pytest.approx(0.8 * 8766)


def test_joint_calendar_reaches_every_decision_and_no_padding(market):
    for split in market.splits.values():
        time, index, *_ = joint_calendar(split)
        assert (np.diff(time) > 0).all()
        assert ((np.diff(index, axis=1) == 0) | (np.diff(index, axis=1) == 1)).all()
        decisions = [len(decision_times(split, i)) for i in range(len(split.symbols))]
        np.testing.assert_array_equal(index[:, -1], decisions)
        assert (index.max(axis=0) > 0).all()


# Starts of paths, and padding.


def test_paths_start_uniformly_over_every_place_that_can_start_one(market):
    tape = market.splits["train"].tape
    # The last decision is n_steps - 1 bars on and its reward looks 5 bars further, up to the last bar.
    last = np.asarray(tape.length) - 1 - REWARD_HORIZON - (N_STEPS - 1)
    counts = last - np.asarray(tape.first) + 1
    np.testing.assert_array_equal(start_counts(tape, N_STEPS), counts)
    n = 40 * counts.sum()
    symbol, t = (
        np.asarray(x) for x in jax.jit(draw_starts, static_argnums=(2, 3))(tape, jax.random.key(0), n, N_STEPS)
    )
    assert (t >= np.asarray(tape.first)[symbol]).all()
    assert (t <= last[symbol]).all()
    hits = np.bincount(np.concatenate([[0], np.cumsum(counts)])[symbol] + t - np.asarray(tape.first)[symbol])
    # Chi-square over all places, 40 expected in each: mean k - 1, deviation sqrt(2 (k - 1)); four of them either way.
    places = counts.sum() - 1
    chi_square = ((hits - 40.0) ** 2 / 40.0).sum()
    assert len(hits) == counts.sum()
    assert abs(chi_square - places) < 4 * np.sqrt(2 * places)


def test_a_symbol_too_short_for_a_path_starts_none():
    tape = market_of(make_bars("A", 400), make_bars("B", 400)).splits["train"].tape
    short = tape._replace(length=jnp.array([N_STEPS + REWARD_HORIZON + 4, int(tape.length[1])]))
    # From bar 7: the last start is 25 - 1 - 5 - 15 = 4, before the first decision.
    assert start_counts(short, N_STEPS).tolist()[0] == 0
    symbol, _ = draw_starts(short, jax.random.key(1), 1000, N_STEPS)
    assert (np.asarray(symbol) == 1).all()


def test_padding_is_finite_and_repeats_the_last_bar(market):
    for split in market.splits.values():
        for field in ("features", "open", "high", "low", "close", "forward_return", "volatility"):
            values = np.asarray(getattr(split.tape, field))
            assert np.isfinite(values).all()
            for row, length in zip(values, np.asarray(split.tape.length), strict=True):
                np.testing.assert_array_equal(row[length:], np.broadcast_to(row[length - 1], row[length:].shape))


def spoil_padding(tape):
    """The Tape with nan on every bar that is padding."""
    padding = np.arange(tape.n_bars) >= np.asarray(tape.length)[:, None]
    assert padding.any()

    def spoil(x):
        return jnp.asarray(np.where(padding if x.ndim == 2 else padding[..., None], np.float32(np.nan), x))

    names = ("features", "open", "high", "low", "close", "forward_return", "volatility")
    return tape._replace(**{k: spoil(getattr(tape, k)) for k in names})


class CalendarAgent(NamedTuple):
    """Buys while the first feature is above -.1 and sells while it is below: on some days of the week."""

    def network(self, params):
        return params

    def encode(self, params, features):
        return features[..., :1] + 0.1

    def decide(self, params, market, account):
        signal = jnp.broadcast_to(market, account.shape[:-1])
        return jnp.stack([0 * signal, signal, -signal], axis=-1), 0 * signal

    def act(self, params, market, account, mask):
        logits, value = self.decide(params, market, account)
        return distribution(logits, mask), value


def test_padding_is_never_decided_on(market):
    tape = market.splits["validation"].tape
    spec, n = env_spec(Config().env, Config().reward), n_decisions(tape)

    @jax.jit
    def run(tape):
        done = play_policy(CalendarAgent(), spec, {}, tape, n, receptive_field=1)
        return *lane((done.record, done.note.action), 0), done.valid

    record, action, valid = run(tape)
    jax.tree.map(np.testing.assert_array_equal, (record, action, valid), run(spoil_padding(tape)))
    assert np.asarray(valid).sum(0).tolist() == [market.decisions[s]["validation"] for s in ("A", "B", "LATE")]
    traded, valid = np.asarray(record.traded), np.asarray(valid)
    assert (traded > 0).any(0).all()
    assert (traded[~valid] == 0).all()
