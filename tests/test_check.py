"""The checks of self-deception: each passes on sound input, and fails on input that is broken on purpose."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import numpy as np
import polars as pl
import pytest
from helpers import TINY, tiny_config

from jaxppo.agent.policy import init_params
from jaxppo.check.__main__ import main
from jaxppo.check.lookahead import END, FALL, RISE, change_after, check_lookahead, cut_rows
from jaxppo.check.parity import check_parity
from jaxppo.check.reward import CONFIGURED, LANES, check_reward, cut_episodes, play_episodes
from jaxppo.check.verdict import Player, differing_bits
from jaxppo.env.trading import observe_account
from jaxppo.errors import DataError
from jaxppo.market.bars import slice_bars
from jaxppo.market.dataset import build_evaluation
from jaxppo.market.features import FEATURE_GROUPS, FeatureTable, compute_features
from jaxppo.market.quality import Origin, check_bars
from jaxppo.market.synthetic import synthetic_market
from jaxppo.ppo.program import train_spec
from jaxppo.train.__main__ import main as train


@pytest.fixture(scope="module")
def bars():
    return synthetic_market(3, 2, 900)


def compute(bars):
    return compute_features(bars, ("base",), 32)


@pytest.fixture(scope="module")
def player():
    config = tiny_config()
    n_features = len(FEATURE_GROUPS["base"].names)
    spec = train_spec(config, n_features)
    params = init_params(spec.agent.spec, jax.random.key(1))
    return Player(config, spec.agent, params, spec.env)


# --- bits and changed bars


def test_bits_tell_zeros_apart_and_know_the_same_nan():
    a = np.asarray([0.0, np.nan, 1.0], np.float32)
    b = np.asarray([-0.0, np.nan, np.nextafter(np.float32(1), np.float32(2))], np.float32)
    assert differing_bits(a, b).tolist() == [True, False, True]
    with pytest.raises(ValueError, match="cannot compare"):
        differing_bits(a, a.astype(np.float64))


@pytest.mark.parametrize("change", [RISE, FALL])
def test_changed_bars_are_bars_and_begin_after_the_cut(bars, change):
    other = change_after(bars[0], 400, change, np.random.default_rng(0))
    values = {k: getattr(other, k) for k in ("open", "high", "low", "close", "volume")}
    check_bars(other.time, values, Origin("test", "SYN_A", 0, "row"))
    for name, x in values.items():
        assert (x[:401] == getattr(bars[0], name)[:401]).all()
        assert (x[401:] != getattr(bars[0], name)[401:]).all()
    # Every later close is on its side of the last known one, and of its own open.
    above = other.close[401:] > bars[0].close[400]
    up = other.close[401:] >= other.open[401:]
    assert above.all() if change == RISE else not above.any()
    assert up.all() if change == RISE else not up.any()


def test_a_cut_leaves_nothing_after_it(bars):
    assert len(change_after(bars[0], 400, END, np.random.default_rng(0)).time) == 401


def test_cuts_include_the_warm_up_the_last_bar_but_one_and_a_hole(bars):
    volume = bars[0].volume.copy()
    volume[123] = 0
    rows = cut_rows(replace(bars[0], volume=volume), 4, np.random.default_rng(0))
    assert {1, 10, 60, 123, 898} <= set(rows)


# --- lookahead


@pytest.mark.parametrize("group", FEATURE_GROUPS)
def test_every_group_of_the_registry_knows_no_future(bars, group):
    check = check_lookahead(lambda b: compute_features(b, (group,), 32), bars[:1], cuts=3)
    assert check.passed, check.explanation
    assert check.details["compared"] > 10_000


def log_return(b):
    return np.diff(np.log(b.close), prepend=np.log(b.close[0]))


def filled_volume(b):
    seen = pl.Series(np.where(b.volume > 0, b.volume, np.nan)).fill_nan(None)
    return seen.fill_null(strategy="backward").fill_null(strategy="forward").to_numpy()


LEAKS = {
    "next_return": lambda b: np.append(log_return(b)[1:], 0.0),
    "next_sign": lambda b: np.append(np.sign(log_return(b)[1:]), 0.0),
    "next_bar_up": lambda b: np.append((b.close > b.open)[1:], False).astype(float),
    "return_in_20_bars": lambda b: np.append(b.close[20:] / b.close[:-20], np.ones(20)),
    "centred_window": lambda b: np.convolve(b.close, np.ones(11) / 11, "same"),
    "whole_sample_z": lambda b: (b.close - b.close.mean()) / b.close.std(),
    "share_of_the_maximum": lambda b: b.close / b.close.max(),
    "backfilled_volume": filled_volume,
    "backfilled_warm_up": lambda b: pl.Series(b.close).rolling_mean(20).fill_null(strategy="backward").to_numpy(),
    "days_close": lambda b: b.close[np.searchsorted(b.time // 86400, b.time // 86400, side="right") - 1],
    "next_volume": lambda b: np.append(b.volume[1:], 0.0),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_feature_that_knows_the_future_is_caught(bars, name):
    def leaky(b):
        own = compute(b)
        values = np.concatenate([own.values, LEAKS[name](b)[:, None].astype(np.float32)], axis=1)
        return FeatureTable(values, (*own.names, name), own.min_bars)

    check = check_lookahead(leaky, bars[:1], cuts=4)
    assert not check.passed
    assert check.details["features"] == [name]  # and no sound one
    leak = check.details["leaks"][0]
    assert leak["symbol"] == "SYN_A"
    assert leak["bar"] <= leak["cut"]
    assert f"feature {name} of SYN_A at bar {leak['bar']}" in check.explanation


def test_the_first_bar_that_knows_too_much_is_named(bars):
    # At a cut after bar t, the mean of t - 5 to t + 5 is wrong from bar t - 4 on.
    check = check_lookahead(LEAKS["centred_window"], bars[:1], cuts=1)
    leaks = [leak for leak in check.details["leaks"] if leak["what"] == "feature feature_0"]
    assert leaks[0]["cut"] == 1
    assert leaks[0]["bar"] == 0


def test_a_feature_that_is_not_a_function_of_the_bars_is_refused(bars):
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="feature_0 has two values at bar 0"):
        check_lookahead(lambda b: rng.random(len(b.time)), bars[:1])
    with pytest.raises(DataError, match="899 rows for 900 bars"):
        check_lookahead(lambda b: b.close[1:], bars[:1])


def test_the_whole_pipeline_knows_no_future(bars, player):
    check = check_lookahead(compute, bars, player, cuts=1)
    assert check.passed, check.explanation
    assert "actions at 6 cuts" in check.explanation


def test_a_leak_is_followed_to_tape_encoder_and_account(bars, player):
    def leaky(b):
        own = compute(b)
        values = own.values.copy()
        values[:, 1] = np.append(log_return(b)[1:], 0.0)
        return FeatureTable(values, own.names, own.min_bars)

    found = {leak["what"] for leak in check_lookahead(leaky, bars, player, cuts=1).details["leaks"]}
    assert {"feature return", "features in the train split", "features in the test split", "encoded market"} <= found
    assert not {w for w in found if w.startswith(("open", "close", "length", "first"))}


# --- parity


def test_live_use_sees_what_training_saw(bars, player):
    check = check_parity(compute, bars, player, n_bars=24)
    assert check.passed, check.explanation
    assert check.details["decisions"] == 48
    assert check.details["largest_encoded_difference"] < 1e-5


def test_live_features_of_one_s_own_must_be_the_same_bits(bars, player):
    def live(b):
        return compute(slice_bars(b, slice(-130, None)))  # too short for recursive averages to settle

    check = check_parity(compute, bars[:1], player, n_bars=3, live=live)
    assert not check.passed
    assert "of SYN_A differs first at" in check.explanation


def test_an_account_observed_another_way_is_caught(bars, player):
    def observe(account, quote, config):
        vector = observe_account(account, quote, config)
        return vector.at[2].set(-vector[2])  # a drawdown below 0

    check = check_parity(compute, bars[:1], player, n_bars=24, observe=observe)
    assert not check.passed
    assert "drawdown of SYN_A" in check.explanation


# --- reward


@pytest.fixture(scope="module")
def tape(bars):
    return build_evaluation(bars, tiny_config(), 8, "all", None, [compute(b) for b in bars]).splits["all"].tape


REWARD = {"episode_steps": 64}


def test_a_reward_of_money_pays_the_oracle_most_and_holding_nothing(tape):
    check = check_reward(tape, tiny_config(**REWARD))
    assert check.passed, check.explanation
    paid = check.details["mean_reward_a_step"]
    assert set(paid) == {CONFIGURED, "v245", "v33", "log_return", "differential_sharpe"}
    assert paid[CONFIGURED] == paid["log_return"]
    assert paid["log_return"]["hold"] == 0
    # log_return pays the net log return in percent: 100 of it is 1 % of growth.
    money = check.details["net_log_return_bp"]
    assert paid["log_return"]["oracle"] == pytest.approx(money["oracle"] / 100, rel=1e-4)
    # To flip on every bar is an order a bar, at twice .1 % of equity.
    assert check.details["orders_a_step"]["flip"] == pytest.approx(1.0, abs=0.02)
    assert money["flip"] == pytest.approx(-20, abs=2)


@pytest.mark.parametrize(
    ("weights", "best"),
    [
        ({"log_return": -100.0}, "flip"),  # pays for losses: to lose the most is best
        pytest.param({"log_return": 0.0, "slippage": 1.0}, "hold", marks=pytest.mark.slow),  # only costs are punished
        # Pays for not deciding: .05 x 100 a step.
        pytest.param({"exploration": 100.0}, "random", marks=pytest.mark.slow),
    ],
)
def test_a_reward_that_pays_for_no_skill_is_reported(tape, weights, best):
    check = check_reward(tape, tiny_config(**REWARD, reward_weights=weights))
    assert not check.passed
    assert check.details["verdicts"][CONFIGURED]["best"] == best
    assert "it can be hacked" in check.explanation
    # The presets next to it are what they were.
    assert not check.details["verdicts"]["log_return"]["hackable"]


def test_where_short_selling_is_not_allowed_nothing_is_short(tape):
    config = tiny_config(**REWARD)
    paid = play_episodes(tape._replace(allow_short=np.asarray([False, False])), config)
    assert np.isnan(paid.growth[:, LANES.index("short")]).all()
    assert (paid.growth[:, LANES.index("oracle")] >= -1e-3).all()


def test_episodes_follow_each_other_and_stay_inside_their_symbol(tape):
    cut = cut_episodes(tape, 64)
    first, last = np.asarray(tape.first), np.asarray(tape.length) - 1
    for s in range(tape.n_symbols):
        starts = cut.start[cut.symbol == s]
        assert starts[0] == first[s]
        assert (np.diff(starts) == 64).all()
        assert last[s] - 64 < starts[-1] + 64 <= last[s]


# --- the command


SMALL = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "features"]


@pytest.fixture
def data(tmp_path, bars):
    b = bars[0]
    frame = {"timestamp": b.time * 1000, "open": b.open, "high": b.high, "low": b.low, "close": b.close}
    pl.DataFrame({**frame, "volume": b.volume}).write_csv(tmp_path / "ABC_1h.csv")
    return ["--data", str(tmp_path / "ABC_1h.csv"), "--features", "base", *SMALL]


def test_the_command_prints_a_table_and_writes_a_file(data, tmp_path, capsys):
    out = tmp_path / "checks.json"
    assert main(["reward", "parity", "--out", str(out), *data]) == 0
    shown = capsys.readouterr().out
    assert "PASS" in shown
    assert "differential_sharpe" in shown
    report = json.loads(out.read_text())
    assert report["passed"] is True
    assert [c["name"] for c in report["checks"]] == ["reward", "parity"]
    assert set(report["checks"][0]) == {
        "name", "passed", "figure", "threshold", "explanation", "details", "seconds",
    }  # fmt: skip
    assert report["config"]["reward"]["reward"] == "log_return"
    # Again, it would be overwritten.
    assert main(["reward", "--out", str(out), *data]) == 2
    assert "never overwritten" in capsys.readouterr().err


def test_a_failed_check_is_exit_status_1(data, capsys):
    assert main(["reward", *data, "--reward-weights", "log_return", "-100"]) == 1
    assert "FAIL" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--effort", "0"], "effort: must be above 0"),
        (["--data", "nowhere"], "nowhere"),
        (["--policy", "nowhere"], "nowhere"),
        (["--out", "nowhere/x.json"], "there is no folder"),
        (["--encoder", "tcn", "--window", "7"], "power of two"),
    ],
)
def test_bad_input_is_exit_status_2_and_one_line(arguments, message, capsys):
    assert main(["lookahead", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.slow  # it trains, and draws the run's report
def test_a_run_s_own_policy_is_checked(data, tmp_path, capsys):
    run = ["--run-dir", str(tmp_path / "run")]
    assert train([*run, *data]) == 0
    policy = ["--policy", str(tmp_path / "run")]
    assert main(["parity", *policy]) == 0
    # What the policy was built for cannot be another.
    for flags, message in (
        (["--actions", "sized"], "actions"),
        (["--features", "calendar"], "trained with feature"),
        (["--window", "4"], "window: --policy has a configuration of its own"),
        (["--preset", "standard"], "preset: --policy has"),
    ):
        capsys.readouterr()
        assert main(["parity", *policy, *flags]) == 2
        assert message in capsys.readouterr().err


def test_an_unknown_check_names_those_there_are(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["lookahed"])
    assert stop.value.code == 2
    assert "lookahead" in capsys.readouterr().err
