"""TorchTrade's vectorised env alone, under random actions, on spot (no shorts, no liquidation: its cheapest mode)."""

from __future__ import annotations

import os

import pandas as pd
import torch
from torchtrade.envs.offline.vectorized_sequential import (
    VectorizedSequentialTradingEnv,
    VectorizedSequentialTradingEnvConfig,
)

from benchmarks.peers import settings
from benchmarks.peers.settings import Peer, Setting, random_market

ENV_STEPS = 64


def make_peer(setting: Setting, n_envs: int, window: int) -> Peer:
    """Steps of `n_envs` envs with auto-reset; each builds an observation of `window` bars of its features."""
    torch.set_num_threads(os.cpu_count() or 1)
    market = random_market(setting.n_bars, setting.n_features)
    frame = pd.DataFrame(
        {
            "timestamp": pd.date_range("2020-01-01", periods=setting.n_bars, freq="h"),
            "open": market.open.astype("float64"),
            "high": market.high.astype("float64"),
            "low": market.low.astype("float64"),
            "close": market.close.astype("float64"),
            "volume": 1.0,
            **{f"features_{i}": x for i, x in enumerate(market.features.T)},
        }
    )
    config = VectorizedSequentialTradingEnvConfig(
        num_envs=n_envs,
        time_frames="1Hour",
        execute_on="1Hour",
        window_sizes=window,
        transaction_fee=settings.FEE,
        max_traj_length=setting.episode_steps,
    )
    env = VectorizedSequentialTradingEnv(frame, config)
    seen = env.reset()

    @torch.no_grad()
    def unit() -> int:
        nonlocal seen
        for _ in range(ENV_STEPS):
            seen["action"] = torch.randint(0, settings.N_ACTIONS, (n_envs,))
            _, seen = env.step_and_maybe_reset(seen)
        return n_envs * ENV_STEPS

    return Peer(unit, f"{n_envs:,} envs, spot, windows of {window} bars, float64 money")
