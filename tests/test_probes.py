"""Probe markets: each isolates one thing that the trainer must learn, with an answer known by hand.

They are the probe environments of RL debugging (value, discount, advantage, policy, termination) as bars of a Tape,
trained by the real update on one small network. Rewards are net log returns in percent: r = 100 log 1.01 = .995033.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config
from scipy.signal import max_len_seq

from jaxppo.agent.policy import distribution
from jaxppo.config.layers import replace_fields
from jaxppo.env.actions import action_mask
from jaxppo.env.trading import ACCOUNT_FEATURES
from jaxppo.market.tape import Costs, Tape
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.rollout import Rollout, RolloutStart, collect
from jaxppo.ppo.state import TrainState, hyper_from
from jaxppo.ppo.update import update

BARS, FEATURES, STEPS, UPDATES, GAMMA = 254, 4, 8, 500, 0.8
CONFIG = tiny_config(
    encoder="none",
    trunk_width=32,
    n_envs=128,
    lanes=2,
    n_steps=STEPS,
    n_updates=UPDATES,
    episode_steps=2 * STEPS,  # every second rollout of a path ends in a truncation
    epochs=4,
    minibatches=2,
    learning_rate=1e-2,
    gamma=GAMMA,
    entropy_start=0.05,
    entropy_end=0.0,
    actions="targets",
    stop_loss=0.0,
    take_profit=0.0,
    ruin_level=0.9,
)
# Two targets but one effective action: the second is never worth an order once the first is held.
INVESTED = (0.9999, 1.0)
FREE = (-1.0, 0.0, 1.0)
SHORT, FLAT, LONG = 0, 1, 2
R = 100 * math.log(1.01)
CRASH = 100 * math.log(0.9)


@functools.cache
def trainer(targets: tuple[float, ...]):
    """(spec, jitted init, update and rollout) for these target exposures: one compilation serves several probes."""
    config = replace_fields(CONFIG, {"targets": targets})
    program, hyper = make_train(config, TapeSpec(FEATURES, 1)), hyper_from(config)
    spec = program.spec

    def play(state: TrainState, tape: Tape) -> Rollout:
        key = jax.random.key(1)
        return collect(spec, state.params, tape, RolloutStart(state.paths, state.lanes, key), hyper.gamma)[1]

    step = jax.jit(lambda state, tape: update(state, tape, spec, hyper), donate_argnums=0)
    return spec, jax.jit(lambda tape: program.init(jax.random.key(0), hyper, tape)), step, jax.jit(play)


def probe(gross, shown, *, fee: float = 0.0, allow_short: bool = True) -> Tape:
    """One symbol whose close moves by the factor gross[t] on bar t; shown[t], at most 4 numbers, is known then."""
    close = np.cumprod(gross).reshape(1, -1)
    open_ = np.concatenate([[[1.0]], close[:, :-1]], axis=1)
    features = np.zeros((1, BARS, FEATURES))
    features[0, :, : shown.shape[1]] = shown

    def f32(x) -> jax.Array:
        return jnp.asarray(x, jnp.float32)

    return Tape(
        features=f32(features),
        open=f32(open_),
        high=f32(np.maximum(open_, close)),
        low=f32(np.minimum(open_, close)),
        close=f32(close),
        forward_return=f32(0 * close),
        volatility=f32(0 * close),
        first=jnp.zeros(1, jnp.int32),
        length=jnp.full(1, BARS, jnp.int32),
        costs=Costs(f32([fee]), f32([0.0]), f32([0.0])),
        allow_short=jnp.array([allow_short]),
        bars_per_year=f32([8766.0]),
    )


def trained(targets: tuple[float, ...], tape: Tape) -> tuple[TrainState, Rollout]:
    """The state after all updates and one more rollout of its policy."""
    _, init, step, play = trainer(targets)
    state = init(tape)
    for _ in range(UPDATES):
        state, _ = step(state, tape)
    return state, jax.tree.map(np.asarray, play(state, tape))


NOTHING = np.zeros((BARS, 1))
PHASE = np.arange(BARS) % 4


def phases(state: TrainState) -> np.ndarray:
    """Phase of the decision bars of a rollout (T, P)."""
    return (np.asarray(state.paths.t) + np.arange(STEPS)[:, None]) % 4


# --- the value ---


def test_value_of_a_constant_reward():
    """r on every bar for ever, though every episode is cut after 16: r / (1 - gamma) = 4.975."""
    _, rollout = trained(INVESTED, probe(np.full(BARS, 1.01), NOTHING))
    np.testing.assert_allclose(rollout.steps.reward, R, rtol=1e-3)
    assert not rollout.steps.terminated.any()
    np.testing.assert_allclose(rollout.steps.value, R / (1 - GAMMA), rtol=0.02)
    np.testing.assert_allclose(rollout.last_value, R / (1 - GAMMA), rtol=0.02)


def test_value_of_an_announced_reward_is_discounted_bar_by_bar():
    """The close rises by 1 % on every fourth bar; k bars before it the value is gamma^(k - 1) r / (1 - gamma^4)."""
    state, rollout = trained(INVESTED, probe(np.where(PHASE == 0, 1.01, 1.0), np.eye(4)[PHASE]))
    value = np.array([rollout.steps.value[phases(state) == p].mean() for p in range(4)])
    # 3 bars of .8 from phase 0: .8632, 1.0790, 1.3488, 1.6860.
    np.testing.assert_allclose(value, R / (1 - GAMMA**4) * GAMMA ** np.array([3, 2, 1, 0]), rtol=0.03)
    np.testing.assert_allclose(value[1:] / value[:-1], 1 / GAMMA, rtol=0.03)


def test_ruin_ends_the_value_and_the_end_of_an_episode_does_not():
    """Three bars of +1 %, then a crash through the ruin level of .9 that the feature announces; then all over again.

    A fresh account that enters in phase 3 loses log .9 and is gone; whatever its lane earns next is not its own.
    """
    state, rollout = trained(INVESTED, probe(np.where(PHASE == 0, 0.85, 1.01), np.eye(4)[PHASE]))
    phase = np.broadcast_to(np.expand_dims(phases(state), -1), rollout.steps.value.shape)
    np.testing.assert_array_equal(rollout.steps.terminated, phase == 3)
    new = (rollout.steps.observation == np.array([0, 0.5, 0, 0, 0, 0, 0, 0], np.float32)).all(-1)
    # After k gains the account is at 1.01^k, so that the fall to .9 costs k r more.
    for start in range(4):
        gains = 3 - start
        by_hand = sum(GAMMA**i * R for i in range(gains)) + GAMMA**gains * (CRASH - gains * R)
        value = rollout.steps.value[new & (phase == start)]
        assert value.size > 0
        np.testing.assert_allclose(value, by_hand, rtol=0.05, err_msg=f"phase {start}")
    last = rollout.steps.terminated
    np.testing.assert_allclose(rollout.steps.value[last], rollout.steps.reward[last], rtol=0.05)


# --- the policy ---


def preferred(targets: tuple[float, ...], state: TrainState, shown: float, exposure: float, allow_short=True) -> int:
    """Most probable action at a feature and an exposure; the account is otherwise fresh."""
    spec, *_ = trainer(targets)
    account = np.array([0, 0.5, 0, exposure, 0, 0, 0, 0], np.float32)
    assert ACCOUNT_FEATURES.index("exposure") == 3
    features = np.zeros((1, 1, FEATURES), np.float32)
    features[..., 0] = shown
    logits, _ = spec.agent.decide(state.params, spec.agent.encode(state.params, features)[0, 0], account[None])
    mask = action_mask(spec.env.actions, jnp.float32([exposure]), jnp.bool_(allow_short))
    return int(distribution(logits, mask).mode()[0])


@pytest.mark.parametrize(("gross", "best"), [(1.01, LONG), (0.99, SHORT)])
def test_policy_learns_the_better_action_without_seeing_anything(gross, best):
    state, rollout = trained(FREE, probe(np.full(BARS, gross), NOTHING))
    assert preferred(FREE, state, 0.0, 0.0) == best
    assert (rollout.steps.action == best).mean() > 0.97


def announced(edge: float, **market) -> Tape:
    """Signs that announce the next bar's move of +-`edge`, and nothing of any later one.

    A maximum length sequence: half of it +1, and no correlation at any lag, where 200 random signs have some.
    """
    sign = np.resize(2.0 * max_len_seq(7)[0] - 1.0, BARS)
    moves = np.concatenate([[0.0], edge * sign[:-1]])
    return probe(1 + moves, sign.reshape(-1, 1), **market)


def test_policy_follows_a_feature_that_announces_the_next_bar():
    state, rollout = trained(FREE, announced(0.01))
    for exposure in (-1.0, 0.0, 1.0):
        assert preferred(FREE, state, 1.0, exposure) == LONG
        assert preferred(FREE, state, -1.0, exposure) == SHORT
    # Each bar pays log 1.01 or -log .99: 1.0000 on average.
    assert rollout.steps.reward.mean() > 0.95


def test_value_tells_good_news_from_bad_where_shorts_are_forbidden():
    """Half of the bars pay r, the rest nothing: gamma / (1 - gamma) r / 2 is to come, and r more on good news."""
    tape = announced(0.01, allow_short=False)
    state, rollout = trained(FREE, tape)
    good = np.asarray(tape.features)[0, np.asarray(state.paths.t) + np.arange(STEPS)[:, None], 0] > 0
    value = np.array([rollout.steps.value[~good].mean(), rollout.steps.value[good].mean()])
    assert value[1] - value[0] == pytest.approx(R, rel=0.2)
    assert value.mean() == pytest.approx(R / 2 * (1 + GAMMA / (1 - GAMMA)), rel=0.1)
    assert preferred(FREE, state, 1.0, 0.0, allow_short=False) == LONG
    np.testing.assert_allclose(rollout.steps.reward.mean(), (good * R).mean(), rtol=0.1)


def test_policy_stays_flat_where_the_costs_exceed_the_edge():
    """A bar pays 1 % and the way in and out costs 2 % each time."""
    state, rollout = trained(FREE, announced(0.01, fee=0.02))
    assert preferred(FREE, state, 1.0, 0.0) == FLAT
    assert preferred(FREE, state, -1.0, 0.0) == FLAT
    assert (rollout.steps.action == FLAT).mean() > 0.97


def test_policy_trades_again_at_a_cost_below_the_edge():
    state, rollout = trained(FREE, announced(0.01, fee=0.0005))
    assert preferred(FREE, state, 1.0, 0.0) == LONG
    assert preferred(FREE, state, -1.0, 0.0) == SHORT
    # 1.0000 a bar, less 2 x .05 on every flip, which is every other bar, and .05 to enter.
    assert rollout.steps.reward.mean() == pytest.approx(1.0 - 0.05 - 0.05 / STEPS, abs=0.05)
