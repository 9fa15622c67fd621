"""Stable-Baselines3's PPO on Gym-Trading-Env."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from typing import Any

import gymnasium
import pandas as pd
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import Tensor, nn

from benchmarks.peers import settings
from benchmarks.peers.settings import Market, Peer, Setting, random_market

# Fewer envs and longer rollouts: its envs are stepped one by one whatever their number, and fewer stay in the cache.
OWN_ENVS = 256


class Trunk(BaseFeaturesExtractor):
    """Two hidden layers shared by policy and value: half the work of its default of two networks."""

    def __init__(self, space: gymnasium.Space, width: int):
        super().__init__(space, width)
        n_in = gymnasium.spaces.flatdim(space)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def make_ppo(envs: VecEnv, width: int, n_steps: int, batch_size: int, epochs: int, **changes: Any) -> PPO:
    """PPO with the hyperparameters of every peer."""
    policy = {
        "features_extractor_class": Trunk,
        "features_extractor_kwargs": {"width": width},
        "net_arch": [],
        "optimizer_kwargs": {"eps": settings.ADAM_EPS},
    }
    own = {
        "learning_rate": settings.LEARNING_RATE,
        "gamma": settings.GAMMA,
        "gae_lambda": settings.GAE_LAMBDA,
        "clip_range": settings.CLIP,
        "vf_coef": settings.VALUE_WEIGHT,
        "ent_coef": settings.ENTROPY,
        "max_grad_norm": settings.MAX_GRAD_NORM,
        "device": "cpu",
    }
    sizes = {"n_steps": n_steps, "batch_size": batch_size, "n_epochs": epochs}
    return PPO("MlpPolicy", envs, policy_kwargs=policy, **sizes, **{**own, **changes})


def data_frame(market: Market) -> pd.DataFrame:
    """Bars and features under the names that the environment looks for."""
    prices = {name: getattr(market, name) for name in ("open", "high", "low", "close")}
    features = {f"feature_{i}": x for i, x in enumerate(market.features.T)}
    index = pd.date_range("2020-01-01", periods=len(market.close), freq="h")
    return pd.DataFrame({**prices, **features}, index=index)


def make_peer(setting: Setting, own: bool = False) -> Peer:
    """Whole PPO updates; with `own`, an eighth of the envs and longer rollouts, same steps an update."""
    import gym_trading_env  # noqa: F401  (registers the environment)
    from gym_trading_env.environments import TradingEnv

    torch.set_num_threads(os.cpu_count() or 1)
    frame = data_frame(random_market(setting.n_bars, setting.n_features))
    n_envs = OWN_ENVS if own else setting.n_envs
    n_steps = setting.batch_steps // n_envs

    def one() -> gymnasium.Env:
        return TradingEnv(
            frame,
            positions=[0, 1, -1],
            windows=setting.window,
            trading_fees=settings.FEE,
            initial_position=0,
            max_episode_duration=setting.episode_steps,
            verbose=0,
        )

    model = make_ppo(
        DummyVecEnv([one] * n_envs), setting.width, n_steps, setting.batch_steps // setting.minibatches, setting.epochs
    )

    def unit() -> int:
        with redirect_stdout(io.StringIO()):
            model.learn(setting.batch_steps, reset_num_timesteps=model.num_timesteps == 0)
        return setting.batch_steps

    held = f"{n_envs:,} envs x {n_steps} steps, window of {setting.window} x {setting.n_features} + 2, no stops"
    return Peer(unit, f"{held}, fills at the close, 2 layers of {setting.width}")
