"""Why a policy acts as it does: on markets and with policies whose answer is known."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from helpers import random_tape
from jax.flatten_util import ravel_pytree

from jaxppo.agent.policy import Agent, AgentSpec, Params, init_params, make_agent
from jaxppo.backtest.why import ACCOUNT, ALL, Policy, explain, played_again, why_not
from jaxppo.backtest.worst import worst_trades
from jaxppo.config.schema import AgentConfig, Config, EnvConfig, RewardConfig
from jaxppo.env.trading import ACCOUNT_FEATURES, EXPOSURE, env_spec
from jaxppo.market.dataset import Split, evaluation_set
from jaxppo.market.recipe import feature_recipe
from jaxppo.page import why as why_page
from jaxppo.page import worst_trades as worst_page
from jaxppo.page.text import percent
from jaxppo.play.action_map import Axes, draw_map, make_axes
from jaxppo.play.confidence import Decided, buckets, clustered_mean, gather, summarize_confidence
from jaxppo.play.deciders import acting_policy
from jaxppo.play.decisions import percentiles, what_was_said
from jaxppo.play.importance import Shifts, draw_shifts, play_shifted, shifted_features
from jaxppo.play.passes import n_decisions, play
from jaxppo.play.score import Score, portfolio_curve

SPEC = env_spec(EnvConfig(actions="targets", targets=(-1.0, 0.0, 1.0)), RewardConfig())
GROUPS = {"signal": ("known",), "noise": ("one", "two"), "none": ("three",)}
NAMES = [name for names in GROUPS.values() for name in names]
N_BARS, FIRST = 400, 3
SHARP = 8.0


@functools.cache
def small_agent() -> Agent:
    config = AgentConfig(encoder="none", trunk_width=2, trunk_layers=1)
    return make_agent(AgentSpec(config, len(NAMES), SPEC.n_observation, 3))


def leaning(weights: dict[str, float], exposure: float = 0.0) -> tuple[Agent, Params]:
    """A policy whose logits are SHARP * max(-z, 0), 0 and SHARP * max(z, 0), with z a sum of features and exposure."""
    agent = small_agent()
    size = jax.eval_shape(lambda key: init_params(agent.spec, key), jax.random.key(0)).shape
    network = agent.unravel(jnp.zeros(size, jnp.float32))
    for name, weight in weights.items():
        row = NAMES.index(name)
        network["market"]["kernel"] = network["market"]["kernel"].at[row].set(jnp.asarray([-weight, weight]))
    account = network["account"]["kernel"]
    network["account"]["kernel"] = account.at[EXPOSURE].set(jnp.asarray([-exposure, exposure]))
    network["policy_head"]["kernel"] = jnp.asarray([[SHARP, 0.0, 0.0], [0.0, 0.0, SHARP]])
    return agent, ravel_pytree(network)[0]


class Played(NamedTuple):
    """A policy's own play over the probe market, host arrays."""

    score: Score
    observation: np.ndarray  # (N, S, A)


@pytest.fixture(scope="module")
def split() -> Split:
    """Three symbols of different length; `known` is the next bar's return in deviations, all else noise."""
    tape = random_tape(3, 3, N_BARS, len(NAMES), FIRST, fee=0.0001)
    nearly = (tape.close[:, 1:] / tape.close[:, :-1] - 1.0) / 0.005
    features = tape.features.at[:, :-1, 0].set(nearly + 0.5 * tape.features[:, :-1, 1])
    features = features.at[:, :, 1].set(jnp.roll(tape.features[:, :, 1], 7, axis=1))
    length = jnp.int32([N_BARS, N_BARS - 50, N_BARS])
    times = tuple(3600 * np.arange(int(n)) + 86_400 * 19_000 for n in length)
    return Split(tape._replace(features=features, length=length), ("A", "B", "C"), times)


@functools.cache
def player(agent: Agent, n: int, field: int):
    """Compiled once a policy's kind."""
    return jax.jit(
        lambda params, tape: play(acting_policy(agent, SPEC, params, tape, n, field, observed=True), tape, n)
    )


def own_play(agent: Agent, params: Params, split: Split, field: int = 1) -> Played:
    """Its figures and curves are left out: they take longest to compile."""
    done = player(agent, n_decisions(split.tape), field)(params, split.tape)
    record, note = jax.device_get(jax.tree.map(lambda x: x[:, 0], (done.record, done.note)))
    empty: Any = None
    return Played(Score(record, note.action, np.asarray(done.valid), empty, empty, empty), note.observation)


@functools.cache
def shifted(n: int, act_by: str = "mode"):
    """`play_shifted` of `small_agent`, compiled once."""
    spec = dataclasses.replace(SPEC, config=dataclasses.replace(SPEC.config, act_by=act_by))
    return jax.jit(functools.partial(play_shifted, small_agent(), spec, n_bars=n, receptive_field=1))


WEIGHTS = {"known": 1.0, "one": 0.1}


@pytest.fixture(scope="module")
def probe():
    return leaning(WEIGHTS)


@pytest.fixture(scope="module")
def played(probe, split) -> Played:
    return own_play(*probe, split)


@pytest.fixture(scope="module")
def why(probe, split, played):
    policy = Policy(probe[0], SPEC, probe[1], split, GROUPS, played.score.action.shape[0], 1)
    return explain(policy, played.score, played.observation, 0)


def test_the_one_group_that_matters_is_named_and_the_others_are_near_nothing(why, played, split):
    rows = {row["input"]: row for row in why.importance}
    assert list(rows) == [ALL, ACCOUNT, *GROUPS, *NAMES]
    own = why.facts["sharpe"]
    curve = np.asarray(portfolio_curve(evaluation_set(split), jnp.asarray(played.score.record.equity)), np.float64)
    returns = np.diff(curve, prepend=1.0) / np.concatenate([[1.0], curve[:-1]])
    assert own == pytest.approx(returns.mean() / returns.std(ddof=1) * np.sqrt(365.25), rel=1e-3)
    assert why.facts["return"] == pytest.approx(curve[-1] - 1.0, rel=1e-4)
    groups = [row for row in why.importance if row["kind"] == "group"]
    assert max(groups, key=lambda row: row["sharpe_drop"])["input"] == "signal"
    assert own > 30  # it knows nearly all
    assert rows["signal"]["sharpe_drop_low"] > 0.8 * own
    assert 0.3 < rows["signal"]["changed"] < 0.7
    assert abs(rows["noise"]["sharpe_drop"]) < 0.1 * own
    assert 0 < rows["noise"]["changed"] < 0.1
    for name in ("none", "two", "three", ACCOUNT):  # whose weights are 0
        found = rows[name]
        assert [found[k] for k in ("sharpe_drop", "return_drop", "costs_added", "changed")] == [0.0] * 4
    assert rows["known"]["sharpe_drop"] == rows["signal"]["sharpe_drop"]  # the same columns by the same shifts
    assert rows["one"]["changed"] == rows["noise"]["changed"]
    assert (rows[ALL]["features"], rows[ACCOUNT]["features"]) == (4, 0)


def test_an_account_that_matters_is_named(split):
    agent, params = leaning({"known": 1.0}, exposure=1.0)  # it stays where it is unless there is much to gain
    own = own_play(agent, params, split)
    data, n = evaluation_set(split), own.score.action.shape[0]
    lanes = jnp.asarray([False, True, False, False])
    shifts = Shifts(jnp.zeros((4, 4), bool), lanes, jnp.asarray([[0] * 3, *[[100] * 3] * 3], jnp.int32))
    effect = jax.device_get(shifted(n)(params, data, jnp.asarray(own.observation), shifts))
    assert effect.changed[1] > 0.1
    assert effect.costs[1] > 1.1 * effect.costs[0]  # it no longer knows what it holds, and trades for that


def test_shifting_nothing_changes_nothing(probe, split, played):
    _, params = probe
    data, n = evaluation_set(split), played.score.action.shape[0]
    bars = np.asarray(split.tape.length) - 1
    columns = np.array([[False] * 4, [False] * 4, [True] * 4, [True] * 4])
    moved = np.stack([0 * bars, bars // 2, 0 * bars, bars])  # nothing by half a circle, all by none or a whole one
    shifts = Shifts(jnp.asarray(columns), jnp.zeros(4, bool), jnp.asarray(moved, jnp.int32))
    effect = jax.device_get(shifted(n)(params, data, jnp.asarray(played.observation), shifts))
    for figure in effect:
        np.testing.assert_array_equal(figure, figure[0])
    assert (effect.changed == 0).all()


def test_a_shift_is_a_circle_over_the_bars_of_a_symbol_that_are_seen(split):
    columns, bars = jnp.asarray([True, False, True, False]), jnp.int32([5, 7, 398])
    moved = np.asarray(jax.jit(shifted_features)(split.tape, columns, bars))
    before = np.asarray(split.tape.features)
    np.testing.assert_array_equal(moved[:, :, [1, 3]], before[:, :, [1, 3]])
    for s, (shift, n) in enumerate(zip([5, 7, 398], [399, 349, 399], strict=True)):
        np.testing.assert_array_equal(moved[s, :n, [0, 2]], np.roll(before[s, :n], -shift, axis=0)[:, [0, 2]].T)
        np.testing.assert_array_equal(moved[s, n:], before[s, n:])


def test_shifts_keep_away_from_where_things_were():
    shifts = draw_shifts(0, 8, np.array([1000, 500, 2]))
    assert (shifts[:, 0] >= 100).all()
    assert (shifts[:, 0] <= 900).all()
    assert (np.diff(shifts[:, 1]) > 0).all()
    assert len(set(shifts[:, 0] / 1000) & set(shifts[:, 1] / 500)) == 0
    assert (shifts[:, 2] == 1).all()


def softmax(z: np.ndarray) -> np.ndarray:
    logits = SHARP * np.stack([np.maximum(-z, 0), np.zeros_like(z), np.maximum(z, 0)], -1)
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_the_action_map_of_a_policy_is_its_formula(split):
    agent, params = leaning({"known": 0.5, "two": -0.25}, exposure=0.3)
    own = own_play(agent, params, split)
    valid, n = np.asarray(own.score.valid), own.score.action.shape[0]
    rows = np.flatnonzero(valid.reshape(-1))
    at, symbol = np.divmod(rows, 3)
    decided = np.asarray(split.tape.features)[symbol, FIRST + at][:, [0, 2]]
    axes = make_axes(decided, own.observation[at, symbol, EXPOSURE], [0, 2], rows, 0, grid=5, sample=16)
    assert axes.exposure[[0, -1]] == pytest.approx([-1, 1], abs=0.1)
    np.testing.assert_allclose(axes.values[0, [0, -1]], np.percentile(decided[:, 0], [1, 99]), rtol=1e-6)

    def draw(params: Params, axes: Axes):
        return draw_map(agent, SPEC, params, split.tape, jnp.asarray(own.observation), axes, n, 1)

    found = jax.device_get(jax.jit(draw)(params, jax.tree.map(jnp.asarray, axes)))
    one, two = np.meshgrid(*axes.values.astype(float), indexing="ij")
    z = 0.5 * one.reshape(1, -1) - 0.25 * two.reshape(1, -1) + 0.3 * axes.exposure.astype(float)[:, None]
    np.testing.assert_allclose(found.probabilities, softmax(z), atol=2e-6)
    np.testing.assert_allclose(found.exposure, softmax(z) @ [-1, 0, 1], atol=2e-6)


def test_donors_of_a_cell_are_the_decisions_nearest_to_it():
    decided, exposure = np.arange(100.0)[:, None], np.repeat([-1.0, 0.0, 0.5, 1.0], 25)
    axes = make_axes(decided, exposure, [0], np.arange(100) + 1000, 0, grid=3, sample=4)
    assert axes.values[0] == pytest.approx([0.99, 49.5, 98.01])
    near = [{0, 1, 2, 3}, {48, 49, 50, 51}, {96, 97, 98, 99}]
    assert [set((row - 1000).tolist()) for row in axes.donors[0]] == near
    assert axes.exposure.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert set(exposure[axes.accounts[3] - 1000]) == {0.5}
    assert len(set(axes.accounts[4].tolist())) == 4


def test_buckets_by_hand():
    confidence = np.array([0.5, 0.9, 0.6, 1.0])
    earned, held = np.array([-0.02, 0.04, 0.01, 0.0]), np.array([True, True, True, False])
    of = Decided(confidence, confidence, confidence, earned, held, np.array([1, 1, 2, 2]), None)
    unsure, sure = buckets(of, 2)
    assert (unsure["from"], unsure["to"], unsure["decisions"], unsure["held"]) == (0.5, 0.6, 2, 2)
    assert (sure["from"], sure["to"], sure["decisions"], sure["held"]) == (0.9, 1.0, 2, 1)
    assert (unsure["confidence"], unsure["earned"], unsure["hit_rate"]) == pytest.approx((0.55, -0.005, 0.5))
    assert (sure["confidence"], sure["earned"], sure["hit_rate"]) == pytest.approx((0.95, 0.02, 1.0))
    # Of the surest: .02 either side of the mean on two days; n / (n - 1) = 2, so the error is sqrt(2 * 2 * .02^2) / 2.
    assert sure["earned_90"] == pytest.approx([0.02 - 1.6449 * 0.02, 0.02 + 1.6449 * 0.02])
    assert all(np.isnan(x) for x in sure["hit_rate_90"])  # one day
    # All alike cannot be told apart: one bucket.
    same = of._replace(confidence=np.full(4, 0.7))
    assert [row["decisions"] for row in buckets(same)] == [4]
    assert np.isnan(summarize_confidence(same, 3)["surest_less_least_sure"]["difference"])
    # The influences of the difference by hand: sure x 2, unsure x 2, summed by day.
    told = summarize_confidence(of._replace(confidence=np.array([0.5, 0.9, 0.5, 0.9])), 2)["surest_less_least_sure"]
    assert told["difference"] == pytest.approx(0.02 - -0.005)
    days = np.array([2 * 0.02 - 2 * -0.015, 2 * -0.02 - 2 * 0.015])
    assert told["interval_90"][1] - told["difference"] == pytest.approx(1.6449 * np.sqrt((days**2).sum() * 2) / 4)


def test_a_day_is_one_draw():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert clustered_mean(x, np.arange(4)) == pytest.approx((2.5, x.std(ddof=1) / 2))
    assert clustered_mean(np.repeat(x, 5), np.repeat(np.arange(4), 5)) == pytest.approx((2.5, x.std(ddof=1) / 2))


def test_confidence_and_entropy_of_probabilities():
    log_probs = np.log(np.array([[0.5, 0.25, 0.25], [1.0, 1e-30, 1e-30], [0.5, 0.5, 1e-30]]))
    of = gather(log_probs, np.array([3, 3, 2]), np.zeros(3), np.ones(3, bool), np.arange(3))
    assert of.confidence == pytest.approx([0.5, 1.0, 0.5])
    assert of.entropy == pytest.approx([1.5, 0.0, 1.0], abs=1e-12)
    assert of.share == pytest.approx([1.5 / np.log2(3), 0.0, 1.0], abs=1e-12)
    found = summarize_confidence(of, 3)
    assert sum(found["confidence"]["decisions"]) == sum(found["entropy_share"]["decisions"]) == 3
    assert "agreement" not in found


def test_members_that_disagree_are_counted(split):
    agent, one = leaning({"known": 1.0})
    _, other = leaning({"known": -0.5})  # always of the other opinion, less sure of it
    params = jnp.stack([one, one, other])
    own = own_play(agent, params, split)
    n = own.score.action.shape[0]
    said = jax.jit(functools.partial(what_was_said, agent, SPEC, n_bars=n, receptive_field=1))
    found = jax.device_get(said(params, split.tape, jnp.asarray(own.observation)))
    valid = np.asarray(own.score.valid)
    np.testing.assert_array_equal(found.log_probs.argmax(-1)[valid], own.score.action[valid])
    assert set(found.agreeing[valid].tolist()) == {2}
    assert (found.allowed == 3).all()


FIELD = 4


@pytest.fixture(scope="module", params=[1, 2], ids=["one", "ensemble"])
def windowed(request, split):
    """A policy that sees four bars, and its own play."""
    config = AgentConfig(encoder="window_mlp", window=FIELD, channels=4, trunk_width=4, trunk_layers=1)
    agent = make_agent(AgentSpec(config, len(NAMES), SPEC.n_observation, 3))
    keys = jax.random.split(jax.random.key(1), request.param)
    params = jnp.stack([init_params(agent.spec, key) for key in keys])
    params = params[0] if request.param == 1 else params
    return agent, params, own_play(agent, params, split, FIELD)


def test_the_worst_trades_say_what_the_policy_saw(windowed, split):
    agent, params, own = windowed
    found = worst_trades(agent, SPEC, params, own.score, own.observation, split, GROUPS, FIELD)
    profits = [t["pnl"] for t in found]
    assert len(found) == 10
    assert profits == sorted(profits)
    assert profits[0] < 0
    n = own.score.action.shape[0]
    said = jax.jit(functools.partial(what_was_said, agent, SPEC, n_bars=n, receptive_field=FIELD))
    log_probs = np.asarray(said(params, split.tape, jnp.asarray(own.observation)).log_probs)
    features = np.asarray(split.tape.features)
    for trade in found:
        s = split.symbols.index(trade["symbol"])
        opened = next(i for i, t in enumerate(split.times[s]) if stamp(t) == trade["decision"]["time"])
        row, seen = opened - FIRST, trade["decision"]
        assert stamp(split.times[s][opened + 1]) == trade["entry_time"]
        assert trade["entry_price"] == pytest.approx(float(split.tape.open[s, opened + 1]))
        # What it said then is what it did in the play, by the same functions.
        assert list(seen["probabilities"]) == list(SPEC.action_labels)
        np.testing.assert_allclose(list(seen["probabilities"].values()), np.exp(log_probs[row, s]), rtol=1e-6)
        assert seen["action"] == SPEC.action_labels[own.score.action[row, s]]
        wanted = {"long": "target_+1", "short": "target_-1"}[trade["side"]]
        assert seen["action"] == wanted
        assert list(seen["account"].values()) == own.observation[row, s].tolist()
        assert list(seen["account"]) == list(ACCOUNT_FEATURES)
        assert [f["name"] for f in seen["features"]] == NAMES
        assert [f["value"] for f in seen["features"]] == features[s, opened].tolist()
        assert trade["costs"] == pytest.approx(trade["fees"])


def stamp(seconds: int) -> str:
    return str(np.datetime64(int(seconds), "s")) + "+00:00"


def test_fewer_trades_than_ten_and_none(split):
    agent, params = leaning({"known": 1.0})
    own = own_play(agent, params, split)
    few = worst_trades(agent, SPEC, params, own.score, own.observation, split, GROUPS, 1, most=2)
    assert [t["rank"] for t in few] == [1, 2]
    none = own.score._replace(record=jax.tree.map(np.zeros_like, own.score.record))
    assert worst_trades(agent, SPEC, params, none, own.observation, split, GROUPS, 1) == []


def test_percentiles_by_hand():
    features = np.array([[[0.0], [1.0], [9.0]], [[1.0], [2.0], [9.0]]])
    seen = np.array([[True, True, False], [True, True, False]])
    # Of 0, 1, 1, 2: below 1 lies one and two are equal; below 9 lie all four.
    assert percentiles(features, seen, np.array([[1.0], [9.0], [-1.0]])).tolist() == [[50.0], [100.0], [0.0]]


def test_what_is_explained_by_itself(probe, split):
    few = Policy(*probe[:1], SPEC, probe[1], split, GROUPS, 100, 1)
    assert played_again(few, 1000) == 1000 * (3 + 2 + 4) * 4
    assert why_not("auto", few, 5000) is None
    assert why_not("yes", few, 10) is None
    assert "--explain no" in (why_not("no", few, 5000) or "")
    assert "10 decisions, under 2,000, say little; --explain yes does it" in (why_not("auto", few, 10) or "")
    assert "36,000,000 decisions would be played again, over 5,000,000" in (why_not("auto", few, 10**6) or "")
    alone = few._replace(groups={"all": NAMES})
    assert played_again(alone, 1000) == 1000 * (1 + 1 + 4) * 4  # one group is all there is
    ensemble = few._replace(params=jnp.stack([probe[1]] * 5))
    assert played_again(ensemble, 1000) == 5 * played_again(few, 1000)


def test_groups_of_a_recipe_are_its_names_in_order():
    features = Config().features
    recipe = feature_recipe(Config(features=features.__class__(features=("base", "trend"), context=("1d",))))
    assert list(recipe.by_group) == ["base", "trend", "1d base"]
    assert tuple(name for names in recipe.by_group.values() for name in names) == recipe.names


def test_a_policy_that_acts_by_its_mean_is_compared_by_that(split):
    _, params = leaning({"known": 1.0})
    data = evaluation_set(split)
    n = n_decisions(data.tape)
    observation = jnp.zeros((n, 3, SPEC.n_observation))
    shifts = Shifts(
        jnp.asarray([[False] * 4, [True] + [False] * 3, [False, True, True, True]]),
        jnp.zeros(3, bool),
        jnp.asarray([[0] * 3, [100] * 3, [100] * 3], jnp.int32),
    )
    changed = jax.device_get(shifted(n, "mean")(params, data, observation, shifts)).changed
    assert changed[0] == changed[2] == 0
    assert changed[1] > 0.5


def importance_of(*rows: tuple[str, str, float]) -> pl.DataFrame:
    """A table of inputs, their kinds and the Sharpe ratio lost."""
    spread = {f"{k}{end}": 0.1 for k in ("return_drop", "costs_added", "changed") for end in ("", "_sd")}
    return pl.DataFrame(
        [
            {"input": of, "kind": kind, "group": "", "features": 1.0, "sharpe_drop": drop, **spread}
            | {"sharpe_drop_sd": 0.2, "sharpe_drop_low": drop - 0.5, "sharpe_drop_high": drop + 0.5}
            for of, kind, drop in rows
        ]
    )


def test_sections_say_what_was_found(why):
    parts = why_page.sections(pl.DataFrame(why.importance), why.facts)
    assert [s.anchor for s in parts] == ["why", "map", "sure"]
    assert "matters most is signal, of 3 groups" in parts[0].body
    assert "What it holds does not matter to it" in parts[0].body
    assert "Holding 0.0" in parts[1].body
    assert "16 of" not in parts[0].body  # all four were looked at
    text = "".join(s.body for s in parts)
    assert not re.search(r">(nan|inf|None)<", text)
    assert "python -m jaxppo.backtest RUN --explain yes" in why_page.sections(None, None)[0].body


def test_words_on_what_matters_name_the_costs_of_another_account():
    frame = importance_of(("base", "group", 1.5), ("trend", "group", 2.0), ("account", "account", 5.0))
    words = why_page.importance_words(frame, {"sharpe": 3.0})
    assert "is trend, of 2 groups: shown at other times, the Sharpe ratio falls from 3.00 to 1.00" in words
    assert "net return falls by 10.0 percentage points, 10.0 of them costs" in words
    none = importance_of(("base", "group", -0.5), ("account", "account", 0.0))
    assert "no group of market features costs it anything" in why_page.importance_words(none, {"sharpe": 3.0})
    same = none.with_columns(changed=pl.lit(0.0))
    words = why_page.importance_words(same, {"sharpe": 0.0})
    assert words == "No market feature changes a single decision of it. What it holds does not matter to it."


def bucket(low: float, high: float, earned: float, n: int = 10) -> dict[str, Any]:
    interval = [earned - 1e-4, earned + 1e-4]
    return {"from": low, "to": high, "confidence": low, "decisions": n, "earned": earned, "earned_90": interval} | {
        "held": n,
        "hit_rate": 0.5,
        "hit_rate_90": [0.4, 0.6],
    }


def test_words_on_confidence():
    found: dict[str, Any] = {
        "decisions": 20,
        "confidence": {"p50": 0.9, "p5": 0.5},
        "entropy_share": {"mean": 0.25},
        "buckets": [bucket(0.5, 0.9, 1e-4), bucket(0.9, 1.0, 3e-4)],
        "surest_less_least_sure": {"difference": 2e-4, "interval_90": [1e-4, 3e-4]},
    }
    first, second = why_page.sure_words(found, 1, "mode")
    assert "most probable action has 90.0 %; at one in twenty it has less than 50.0 %" in first.replace("\u00a0", " ")
    assert "a difference of 2.00 (90 % interval 1.00 to 3.00), so sure decisions did earn more" in second
    found["surest_less_least_sure"]["interval_90"] = [-1e-4, 3e-4]
    assert "so sure decisions cannot be told from the others" in why_page.sure_words(found, 1, "mode")[1]
    found |= {"agreement": {"mean": 0.8, "unanimous": 0.4}}
    assert "undecided policy holds little" in why_page.sure_words(found, 5, "mean")[0]
    assert "80 % of the 5 members" in why_page.sure_words(found, 5, "mean")[2].replace("\u00a0", " ")


def test_the_account_is_told_in_a_traders_terms():
    told = {name: show for name, (_, show) in worst_page.ACCOUNT.items()}
    assert list(told) == list(ACCOUNT_FEATURES)
    assert told["total_return"](np.tanh(10 * 0.123)).replace("\u00a0", " ") == "+12.3 %"
    assert told["unrealised_return"](-1.0).replace("\u00a0", " ") == "beyond \u221235 %"
    assert worst_page._returned(np.tanh(10 * 0.02 * 0.5), 0.5).replace("\u00a0", " ") == "+2.0 %"
    assert told["bars_held"](np.log1p(86) / np.log1p(256)) == "86"


def test_a_card_for_every_worst_trade(split, probe, played):
    trades = worst_trades(*probe[:1], SPEC, probe[1], played.score, played.observation, split, GROUPS, 1)
    (section,) = worst_page.section(trades, 0.99)
    assert section.body.count("<details>") == 10
    assert "of which costs are" in section.body
    assert "at the median decision it has 99.0" in section.body
    assert "Distance to the stop" not in section.body  # there is none
    first = trades[0]
    said = f"1. {first['symbol']} {first['side']}: {percent(first['pnl'], 2, sign=True)} of equity"
    assert said in section.body
    assert "All 4 features" not in section.body  # so few are all shown
    assert (worst_page.section(None), worst_page.section([])) == ([], [])
