"""Gymnasium's interface: its own checker is content, other trainers train on it, and the ledger is ours to the bit."""

from __future__ import annotations

import doctest
import warnings
from importlib.util import find_spec

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from helpers import tiny_config, tiny_market

import jaxppo
from jaxppo.errors import ConfigError
from jaxppo.gym import ID, TradingEnv, TradingVectorEnv

torch_missing = pytest.mark.skipif(
    find_spec("sb3_contrib") is None,
    reason="sb3-contrib and PyTorch are installed with the tests below Python 3.12 only",
)
WINDOW = 3


@pytest.fixture(scope="module")
def config():
    return tiny_config(actions="sized_close", spread=0.001)


@pytest.fixture(scope="module")
def market(config):
    return tiny_market(config)


@pytest.fixture(scope="module")
def made(config, market):
    """Arguments of every environment here: one program of a single account, one of three."""
    return {"config": config, "market": market, "window": WINDOW}


def bits(*values) -> list[int]:
    return [int(np.float32(v).view(np.uint32)) for v in values]


def test_gymnasium_is_content(made):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID, **made).unwrapped)


def test_an_observation_is_a_window_of_features_and_the_account(made, market):
    env = TradingEnv(**made)
    seen, info = env.reset(seed=3)
    tape, state = market.splits["train"].tape, env.state
    s, t = int(state.symbol), int(state.t)
    assert len(env.observation_names) == len(seen) == WINDOW * tape.n_features + 8
    assert env.observation_names[0] == f"{market.feature_names[0]}[-2]"
    assert env.observation_names[-8] == "total_return"
    np.testing.assert_array_equal(seen[:-8], np.asarray(tape.features[s, t - 2 : t + 1]).ravel())
    np.testing.assert_array_equal(seen[-8:], [0, 0.5, 0, 0, 0, 0, 0, 0])
    assert info["symbol"] == market.splits["train"].symbols[s]
    assert info["time"] == market.splits["train"].times[s][t]


def ledger(state, reward):
    return jnp.stack([state.account.equity, state.account.units, state.account.mark, reward])


def with_cash(equity, units, mark, reward):
    """Cash as the account has it, on the host: within a program the product would be fused with the difference."""
    return np.stack([equity, equity - units * mark, units, reward])


def test_the_ledger_is_that_of_the_pure_environment_to_the_bit(made, config, market):
    """Step by step, by the pure functions one by one, and by a scan over the same actions."""
    env, pure = TradingEnv(**made), jaxppo.make_env(market, config)
    env.reset(seed=1)
    state = env.state
    actions = np.random.default_rng(0).integers(0, env.action_space.n, 16).astype(np.int32)

    def one(state, action):
        state, _, result, terminated, truncated = pure.step(state, action)
        return state, (ledger(state, result.reward), terminated | truncated)

    scanned, ended = jax.jit(lambda s, a: jax.lax.scan(one, s, a)[1])(state, actions)
    step = jax.jit(one)
    for i, action in enumerate(actions):
        state, (alone, _) = step(state, jnp.int32(action))
        _, reward, terminated, truncated, info = env.step(action)
        got = bits(info["equity"], info["cash"], info["units"], reward)
        assert got == bits(*with_cash(*np.asarray(alone))) == bits(*with_cash(*np.asarray(scanned[i]))), i
        assert (terminated or truncated) == bool(ended[i]) == (i == 15)  # an episode has 16 bars
    assert info["units"] != 0
    assert truncated
    assert not terminated
    with pytest.raises(gymnasium.error.ResetNeeded, match="the episode is over"):
        env.step(0)


def test_the_ledger_of_many_is_that_of_a_scan_to_the_bit(made, config, market):
    """Where the trainer lays many accounts side by side, too."""
    envs, pure = TradingVectorEnv(num_envs=3, **made), jaxppo.make_env(market, config)
    envs.reset(seed=1)
    actions = np.random.default_rng(0).integers(0, 8, (16, 3)).astype(np.int32)

    def all_of(states, chosen):
        states, _, result, _, _ = jax.vmap(pure.step)(states, chosen)
        return states, ledger(states, result.reward)

    scanned = jax.jit(lambda s, a: jax.lax.scan(all_of, s, a)[1])(envs.state, actions)
    for i in range(16):
        _, rewards, _, truncated, infos = envs.step(actions[i])
        told = infos["final_info"] if i == 15 else infos
        assert truncated.all() == (i == 15)
        got = np.float32([told["equity"], told["cash"], told["units"], rewards])
        np.testing.assert_array_equal(got.view(np.uint32), with_cash(*np.asarray(scanned[i])).view(np.uint32))


def test_the_first_rewards_are_net_log_returns_in_percent(config, market):
    """Spread .001: a fill is moved .0005. Fee .001 a side. All of it bought at the open, marked at the close."""
    config = tiny_config(actions="targets", spread=0.001, stop_loss=0.0, take_profit=0.0)
    env = TradingEnv(config=config, market=market)
    env.reset(seed=3)
    s, t = int(env.state.symbol), int(env.state.t)
    tape = market.splits["train"].tape
    flat, bought = env.step(1), env.step(2)
    assert flat[1] == 0
    # Of 1, x = 1 / (1.0005 * 1.001) is invested in units at the open, and the rest is spread and fee.
    grown = float(tape.close[s, t + 2]) / float(tape.open[s, t + 2]) / (1.0005 * 1.001)
    assert bought[1] == pytest.approx(100 * np.log(grown), abs=1e-4)  # float32 of a percent
    assert bought[4]["equity"] == pytest.approx(grown, rel=1e-6)


def test_seeds_decide_every_episode(made):
    def starts(env, seed):
        return [(info["symbol"], info["time"]) for _, info in (env.reset(seed=seed), env.reset(), env.reset())]

    first, second = TradingEnv(**made), TradingEnv(**made)
    assert starts(first, 7) == starts(second, 7)
    assert len(set(starts(first, 7))) == 3
    assert starts(first, 8) != starts(second, 7)
    assert starts(first, 2**40) == starts(second, 2**40)
    first.reset()
    assert first.np_random_seed == 2**40


def test_each_of_many_is_as_one_alone_and_begin_anew_within_a_step(made):
    envs, alone = TradingVectorEnv(num_envs=3, **made), [TradingEnv(**made) for _ in range(3)]
    assert envs.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.SAME_STEP
    seen, infos = envs.reset(seed=5)
    for i, env in enumerate(alone):
        first, info = env.reset(seed=5 + i)
        np.testing.assert_array_equal(seen[i], first)
        assert infos["equity"][i] == info["equity"] == 1
    rng, ends = np.random.default_rng(1), 0
    for _ in range(20):
        actions = rng.integers(0, 8, 3)
        seen, rewards, terminated, truncated, infos = envs.step(actions)
        assert seen in envs.observation_space
        for i, env in enumerate(alone):
            last, reward, over, cut, info = env.step(actions[i])
            assert (over, cut) == (terminated[i], truncated[i])
            assert reward == pytest.approx(rewards[i], rel=1e-5, abs=1e-6)  # rounded alike but for fused products
            ended = over or cut
            told = infos["final_info"] if ended else infos
            np.testing.assert_allclose(told["equity"][i], info["equity"], rtol=1e-6)
            assert told["_fees"][i]
            assert told["fees"][i] == pytest.approx(info["fees"], rel=1e-6)
            if ended:
                ends += 1
                assert infos["_final_obs"][i]
                assert not infos["_fees"][i]
                np.testing.assert_allclose(infos["final_obs"][i], last, rtol=1e-5, atol=1e-6)
                last, info = env.reset()
            elif "final_obs" in infos:
                assert infos["final_obs"][i] is None
            np.testing.assert_allclose(seen[i], last, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(infos["action_mask"][i], env.action_masks())
            assert infos["symbol"][i] == info["symbol"]
    assert ends == 3


def test_some_of_many_are_reset(made):
    envs = TradingVectorEnv(num_envs=3, **made)
    envs.reset(seed=5)
    before, *_ = envs.step(np.full(3, 3))
    after, infos = envs.reset(seed=[1, 1, 1], options={"reset_mask": np.array([False, True, False])})
    np.testing.assert_array_equal(infos["_equity"], [False, True, False])
    np.testing.assert_array_equal(after[::2], before[::2])
    np.testing.assert_array_equal(after[1], TradingEnv(**made).reset(seed=1)[0])


def test_ruin_terminates_and_is_not_cut(market):
    """All equity at a ruin level of 99.9 % is lost on entry: a spread of 2 % costs 1 % at once."""
    config = tiny_config(actions="targets", ruin_level=0.999, spread=0.02, stop_loss=0.0, take_profit=0.0)
    env = TradingEnv(config=config, market=tiny_market(config))
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(2)
    assert (terminated, truncated) == (True, False)
    assert info["ruined"]
    assert info["equity"] < 0.999


def test_masks_forbid_what_means_nothing(market):
    """Crypto cannot be sold short: from flat, sales are masked; with a position they are not."""
    config = tiny_config(actions="sized_close", allow_short=())
    env = TradingEnv(config=config, market=tiny_market(config))
    _, info = env.reset(seed=0)
    sales = np.array([label.startswith("sell") for label in env.action_labels])
    np.testing.assert_array_equal(env.action_masks(), ~sales)
    assert info["action_mask"].dtype == np.int8
    assert not sales[[env.action_space.sample(info["action_mask"]) for _ in range(20)]].any()
    assert env.step(3)[4]["action_mask"].all()


def test_mistakes_are_sentences(made, config, market):
    with pytest.raises(ConfigError, match="give a config or its fields, not both; got spread too"):
        TradingEnv(config=config, spread=0.1)
    with pytest.raises(ConfigError, match=r"split: unknown split 'tset'; did you mean 'test'"):
        TradingEnv(config=config, market=market, split="tset")
    with pytest.raises(ConfigError, match="window: 9 bars, but the market was built with 8 before its first decision"):
        TradingEnv(config=config, market=market, window=9)
    with pytest.raises(ConfigError, match="window: must be at least 1 bar, got 0"):
        TradingEnv(config=config, market=market, window=0)
    env = TradingEnv(**made)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    for action in (8, -1, 0.5, [1]):
        with pytest.raises(gymnasium.error.InvalidAction, match="integers from 0 to 7 of shape"):
            env.step(action)


@torch_missing
def test_stable_baselines3_trains(made):
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env(ID, n_envs=2, seed=0, env_kwargs={**made, "render_mode": None})
    model = PPO("MlpPolicy", envs, n_steps=64, batch_size=32, n_epochs=1, seed=0, device="cpu")
    before = model.policy.action_net.weight.detach().clone()
    model.learn(256)
    assert model.num_timesteps == 256
    assert (model.policy.action_net.weight != before).any()
    # Truncated, so bootstrapped, and so told: an episode has 16 bars.
    assert {episode["l"] for episode in model.ep_info_buffer} == {16}


@torch_missing
def test_sb3_contrib_trains_with_masks():
    from sb3_contrib import MaskablePPO
    from sb3_contrib.common.maskable.utils import get_action_masks

    config = tiny_config(actions="sized_close", allow_short=())
    env = gymnasium.make(ID, config=config, market=tiny_market(config))
    model = MaskablePPO("MlpPolicy", env, n_steps=64, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(256)
    assert model.num_timesteps == 256
    masks = model.rollout_buffer.action_masks.reshape(-1, 8).astype(bool)
    taken = model.rollout_buffer.actions.reshape(-1).astype(int)
    assert not masks.all()
    assert masks[np.arange(64), taken].all()
    np.testing.assert_array_equal(get_action_masks(model.get_env()), [env.unwrapped.action_masks()])


@pytest.mark.slow
@pytest.mark.parametrize("module", [jaxppo.gym.env, jaxppo.gym.vector])
def test_examples_in_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
