"""Reward components by hand, the weights of the presets, and the differential Sharpe ratio as a plain recursion."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BRACKETED

from jaxppo.config.rewards import REWARD_PRESETS
from jaxppo.config.schema import RewardConfig
from jaxppo.env.account import (
    REASON_END,
    REASON_LIQUIDATION,
    REASON_NONE,
    REASON_STOP,
    REASON_TAKE_PROFIT,
    AccountState,
    StepRecord,
)
from jaxppo.env.rewards import (
    REWARD_COMPONENTS,
    Outcome,
    SharpeMoments,
    move_memory,
    reward_components,
    reward_preset,
    total_reward,
)
from jaxppo.env.trading import env_spec
from jaxppo.errors import ConfigError
from jaxppo.market.tape import Costs, MarketStep, Terms


def outcome(
    exposure=0.0,
    forward=0.0,
    volatility=0.02,
    net_return=0.0,
    reason=REASON_NONE,
    cost=0.0,
    equity=(1.0, 1.0),
    peak=1.0,
    entropy=0.0,
) -> Outcome:
    """An outcome of float32 scalars; `equity` before and after."""
    f = jnp.float32
    blank = AccountState(*(f(0) for _ in AccountState._fields))
    before = blank._replace(equity=f(equity[0]))
    record = StepRecord(*(f(0) for _ in StepRecord._fields))._replace(
        exposure=f(exposure), net_return=f(net_return), reason=jnp.int32(reason), cost=f(cost)
    )
    market = MarketStep(f(0), f(0), f(0), f(0), f(forward), f(volatility))
    return Outcome(before, blank._replace(equity=f(equity[1]), peak=f(peak)), record, market, f(entropy))


def remembered(moments=(0.0, 0.0)) -> dict:
    """What the reward remembers: of the differential Sharpe ratio alone."""
    return {"differential_sharpe": SharpeMoments(*(jnp.float32(m) for m in moments))}


def component(name: str, preset: str, moments=(0.0, 0.0), **kwargs) -> float:
    chosen = reward_preset(RewardConfig(reward=preset, reward_weights={name: 1.0}))
    return float(reward_components(outcome(**kwargs), chosen, remembered(moments))[name])


near = pytest.approx


@pytest.mark.parametrize(("preset", "threshold"), [("v245", 0.001), ("v33", 0.003)])
def test_direction_is_the_agreement_of_signs_beyond_the_threshold(preset, threshold):
    for exposure in (-3.0, -0.2, 0.0, 0.2, 1.0):
        side = (exposure > 0) - (exposure < 0)
        assert component("direction", preset, exposure=exposure, forward=1.01 * threshold) == side
        assert component("direction", preset, exposure=exposure, forward=-1.01 * threshold) == -side
        for small in (0.99 * threshold, threshold, 0.0, -threshold):
            assert component("direction", preset, exposure=exposure, forward=small) == 0


@pytest.mark.parametrize("preset", ["v245", "v33"])
def test_magnitude_is_the_agreement_times_the_size_of_the_move(preset):
    # .01 is half of a volatility of .02; half a position halves it again.
    assert component("magnitude", preset, exposure=0.5, forward=0.01) == near(0.25)
    assert component("magnitude", preset, exposure=-0.5, forward=0.01) == near(-0.25)
    assert component("magnitude", preset, exposure=-0.5, forward=-0.01) == near(0.25)
    assert component("magnitude", preset, exposure=1.0, forward=0.05) == near(1.0)  # cut at one volatility
    assert component("magnitude", preset, exposure=1.0, forward=0.0) == 0
    assert component("magnitude", preset, exposure=0.0, forward=0.05) == 0
    # A market that has not moved yet has no volatility.
    assert component("magnitude", preset, exposure=1.0, forward=0.05, volatility=0.0) == near(1.0)
    assert component("magnitude", preset, exposure=1.0, forward=0.0, volatility=0.0) == 0


def test_pnl_of_v245_is_a_tanh_of_percent():
    for r in (-0.01, -0.0005, 0.0, 0.0002, 0.003):
        assert component("pnl", "v245", net_return=r) == near(math.tanh(10 * 100 * r), abs=1e-6)
    assert component("pnl", "v245", net_return=0.0002) == near(0.197375, abs=1e-6)  # tanh(.2)


def test_pnl_of_v33_is_percent_clipped_at_two():
    assert component("pnl", "v33", net_return=0.003) == near(0.3)
    assert component("pnl", "v33", net_return=-0.0199) == near(-1.99)
    assert component("pnl", "v33", net_return=0.05) == 2
    assert component("pnl", "v33", net_return=-0.05) == -2


@pytest.mark.parametrize("preset", ["v245", "v33"])
def test_stop_tp_looks_at_what_fired(preset):
    wants = {REASON_TAKE_PROFIT: 1, REASON_STOP: -1, REASON_NONE: 0, REASON_LIQUIDATION: 0, REASON_END: 0}
    for reason, want in wants.items():
        assert component("stop_tp", preset, reason=reason) == want


@pytest.mark.parametrize(("preset", "scale"), [("v245", 0.01), ("v33", 0.05)])
def test_exploration_is_scaled_entropy(preset, scale):
    for entropy in (0.0, 0.4, 1.0):
        assert component("exploration", preset, entropy=entropy) == near(scale * entropy)


@pytest.mark.parametrize("preset", ["v245", "v33"])
def test_slippage_is_ten_times_the_cost_as_a_share_of_equity(preset):
    assert component("slippage", preset, cost=0.002, equity=(0.5, 0.49)) == near(-10 * 0.002 / 0.5)
    assert component("slippage", preset) == 0


@pytest.mark.parametrize("preset", ["v245", "v33"])
def test_drawdown_is_the_square_of_what_exceeds_fifteen_percent(preset):
    # 1 - .9 / 1.2 = .25, .10 too much: -10 * .01.
    assert component("drawdown", preset, equity=(1.0, 0.9), peak=1.2) == near(-0.1, rel=1e-5)
    assert component("drawdown", preset, equity=(1.0, 1.02), peak=1.2) == near(0, abs=1e-9)  # exactly .15
    assert component("drawdown", preset, equity=(1.0, 1.2), peak=1.2) == 0


def test_log_return_is_finite_at_ruin():
    assert component("log_return", "log_return", net_return=0.01) == near(math.log(1.01))
    assert component("log_return", "log_return", net_return=-0.5) == near(math.log(0.5))
    for gone in (-1.0, -1.5):
        assert component("log_return", "log_return", net_return=gone) == near(math.log(1e-3))


V245 = {
    "direction": 0.35,
    "magnitude": 0.10,
    "pnl": 0.25,
    "stop_tp": 0.15,
    "exploration": 0.10,
    "slippage": 0.05,
    "drawdown": 0.05,
}
V33 = {
    "direction": 0.15,
    "magnitude": 0.05,
    "pnl": 0.40,
    "stop_tp": 0.10,
    "exploration": 0.15,
    "slippage": 0.02,
    "drawdown": 0.03,
}


def test_weights_of_the_presets():
    assert reward_preset(RewardConfig(reward="v245")).weights == V245
    assert reward_preset(RewardConfig(reward="v33")).weights == V33
    assert sum(V245.values()) == near(1.05)
    assert list(reward_preset(RewardConfig(reward="log_return")).weights) == ["log_return"]
    assert reward_preset(RewardConfig(reward="differential_sharpe")).weights == {"differential_sharpe": 1.0}


@pytest.mark.parametrize(("preset", "weights", "pnl"), [("v245", V245, math.tanh(3.0)), ("v33", V33, 0.3)])
def test_reward_is_the_weighted_sum(preset, weights, pnl):
    chosen = reward_preset(RewardConfig(reward=preset))
    parts = reward_components(
        outcome(
            exposure=0.5,
            forward=0.01,
            net_return=0.003,
            reason=REASON_TAKE_PROFIT,
            cost=0.001,
            equity=(1.0, 0.9),
            peak=1.2,
            entropy=0.8,
        ),
        chosen,
        {},
    )
    want = {
        "direction": 1.0,
        "magnitude": 0.25,
        "pnl": pnl,
        "stop_tp": 1.0,
        "exploration": 0.8 * (0.01 if preset == "v245" else 0.05),
        "slippage": -0.01,
        "drawdown": -0.1,
    }
    assert {n: float(c) for n, c in parts.items()} == near(want, rel=1e-5)
    assert float(total_reward(parts, chosen)) == near(sum(weights[n] * want[n] for n in want), rel=1e-5)


def test_normalize_divides_by_the_sum_of_the_weights():
    weights = reward_preset(RewardConfig(reward="v245", normalize_reward=True)).weights
    assert sum(weights.values()) == near(1.0)
    assert weights == near({n: w / 1.05 for n, w in V245.items()})
    only = RewardConfig(reward="log_return", normalize_reward=True)
    assert reward_preset(only).weights == {"log_return": 1.0}


def test_weights_replace_the_presets_one_by_one():
    config = RewardConfig(reward="v33", reward_weights={"log_return": 2.0, "direction": 0.0, "pnl": 0.5})
    chosen = reward_preset(config)
    assert chosen.weights == {**{n: w for n, w in V33.items() if n != "direction"}, "pnl": 0.5, "log_return": 2.0}
    assert list(chosen.weights) == [n for n in REWARD_COMPONENTS if n in chosen.weights]
    assert set(reward_components(outcome(), chosen, {})) == set(chosen.weights)
    assert REWARD_PRESETS["v33"].weights == V33  # nothing was written into the preset


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (RewardConfig(reward_weights={"pnll": 1.0}), "unknown component 'pnll'; did you mean 'pnl'"),
        (RewardConfig(reward_weights={"draw_down": 1.0}), "did you mean 'drawdown'"),
        (RewardConfig(reward_weights={"xyzzy": 1.0}), "valid names are .*'slippage'"),
        (RewardConfig(reward="log_return", reward_weights={"log_return": 0.0}), "every component has weight 0"),
        (
            RewardConfig(reward="log_return", reward_weights={"log_return": 1.0, "pnl": -1.0}, normalize_reward=True),
            "sum of the weights, which is 0.0",
        ),
    ],
)
def test_weights_that_make_no_sense_are_refused(config, words):
    with pytest.raises(ConfigError, match=words):
        reward_preset(config)


def differential_sharpe(returns: list[float], eta: float = 0.01) -> list[float]:
    """Moody and Saffell (2001), eq. 6 and 7, with a floor of 1e-8 under the variance and a clip at 10."""
    a = b = 0.0
    out = []
    for r in returns:
        variance = max(b - a * a, 1e-8)
        d = (b * (r - a) - 0.5 * a * (r * r - b)) / variance**1.5
        out.append(min(max(d, -10.0), 10.0))
        a, b = a + eta * (r - a), b + eta * (r * r - b)
    return out


def test_differential_sharpe_is_the_plain_recursion():
    rng = np.random.default_rng(3)
    prices = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(200)))
    actions = rng.integers(0, 3, 200)
    spec = env_spec(BRACKETED, RewardConfig(reward="differential_sharpe"))

    @jax.jit
    def play(state, prices, actions):
        terms = Terms(Costs(*(jnp.asarray(c, prices.dtype) for c in (1e-3, 1e-4, 1e-5))), jnp.bool_(True))
        zero = jnp.zeros((), prices.dtype)

        def bar(state, x):
            price, action = x
            market = MarketStep(price, price * 1.001, price * 0.999, price, zero, zero)
            state, result = spec.step(state, action, market, terms)
            return state, (result.reward, result.record.net_return)

        return jax.lax.scan(bar, state, (prices, actions))[1]

    with jax.enable_x64(True):
        rewards, returns = play(spec.begin(()), jnp.asarray(prices), jnp.asarray(actions, jnp.int32))
        want = differential_sharpe(returns.tolist())
        np.testing.assert_allclose(rewards, want, rtol=1e-9, atol=1e-12)
    assert max(want) > 0.1
    assert min(want) < -0.1
    rewards32, _ = play(spec.begin(()), jnp.asarray(prices, jnp.float32), jnp.asarray(actions, jnp.int32))
    np.testing.assert_allclose(rewards32, want, rtol=1e-3, atol=2e-3)


def test_differential_sharpe_starts_at_zero_and_is_bounded():
    assert component("differential_sharpe", "differential_sharpe", net_return=0.05) == 0  # A and B are those of t - 1
    # A = 1e-3, B = 2e-6: variance 1e-6; (2e-6 * 1e-3 - .5 * 1e-3 * (4e-6 - 2e-6)) / 1e-9 = 1.
    one = component("differential_sharpe", "differential_sharpe", net_return=0.002, moments=(1e-3, 2e-6))
    assert one == near(1.0, rel=1e-4)
    for r in (0.5, -0.5):
        wild = component("differential_sharpe", "differential_sharpe", net_return=r, moments=(0.0, 1e-8))
        assert wild == math.copysign(10, r)


def test_sharpe_moments_move_by_a_hundredth():
    after = move_memory(remembered((0.01, 0.0004)), outcome(net_return=0.03))["differential_sharpe"]
    assert float(after.mean) == near(0.99 * 0.01 + 0.01 * 0.03)
    assert float(after.square) == near(0.99 * 0.0004 + 0.01 * 0.0009)


@pytest.mark.parametrize("preset", list(REWARD_PRESETS))
def test_no_component_passes_its_saturation_bound(preset):
    every = dict.fromkeys(REWARD_COMPONENTS, 1.0)
    chosen = reward_preset(RewardConfig(reward=preset, reward_weights=every))
    rng = np.random.default_rng(0)
    reached = dict.fromkeys(REWARD_COMPONENTS, 0.0)
    for _ in range(60):
        parts = reward_components(
            outcome(
                exposure=rng.choice([-1.0, 0.5, 1.0]),
                forward=rng.normal(0, 0.05),
                net_return=rng.normal(0, 0.05),
                reason=rng.integers(0, 5),
                cost=rng.uniform(0, 0.1),
                equity=(1.0, rng.uniform(0.1, 1.0)),
                entropy=rng.choice([0.3, 1.0]),
            ),
            chosen,
            remembered((0.0, rng.choice([1e-8, 1e-4]))),
        )
        for name, part in parts.items():
            reached[name] = max(reached[name], abs(float(part)))
    bounds = {name: own.bound(chosen) for name, own in REWARD_COMPONENTS.items()}
    for name, bound in bounds.items():
        assert reached[name] <= bound * (1 + 1e-6)
        if math.isfinite(bound):
            assert reached[name] >= 0.99 * bound  # and it is a bound that is reached, which is what is logged
    assert [n for n, b in bounds.items() if math.isinf(b)] == ["slippage", "drawdown", "log_return"]
    assert bounds["pnl"] == (1.0 if preset == "v245" else 2.0)
    assert bounds["exploration"] == (0.01 if preset == "v245" else 0.05)
