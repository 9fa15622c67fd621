"""The rows of each comparison: which module builds a peer, and with what."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from benchmarks.peers.settings import Peer, Setting

ENV_ONLY = 4096  # envs of the env-only comparison


@dataclass(frozen=True)
class Row:
    """A line of the table. `module` is imported only in the process that runs it."""

    name: str
    module: str
    arguments: dict[str, Any] = field(default_factory=dict)
    build: str = "make_peer"
    python: str = "this"  # `torchtrade` runs in an interpreter of its own

    def make(self, setting: Setting) -> Peer:
        """Build the peer; `ImportError` where a package is not installed."""
        builder = getattr(import_module(f"benchmarks.peers.{self.module}"), self.build)
        return builder(setting, **self.arguments)


OURS, OURS_BEST = "jaxppo", "jaxppo, own settings"
TRAINERS = (
    Row(OURS, "ours"),
    Row(OURS_BEST, "ours", {"variant": "best"}),
    Row("jaxppo, window_mlp", "ours", {"variant": "window_mlp"}),
    Row("jaxppo, lanes 1", "ours", {"variant": "one_lane"}),
    Row("stored windows in JAX", "stored_windows"),
    Row("stored windows in PyTorch", "torch_windows"),
    Row("SB3 + Gym-Trading-Env", "gym_trading"),
    Row("SB3, own settings", "gym_trading", {"own": True}),
)
ENVS = (
    Row(OURS, "ours", {"n_envs": ENV_ONLY, "lanes_a_path": 32}, "make_lanes_peer"),
    Row("jaxppo, independent envs", "ours", {"n_envs": ENV_ONLY, "windows": False}, "make_env_peer"),
    Row("jaxppo, independent envs with windows", "ours", {"n_envs": ENV_ONLY, "windows": True}, "make_env_peer"),
    Row("TorchTrade, window 64", "torchtrade_env", {"n_envs": ENV_ONLY, "window": 64}, python="torchtrade"),
    Row(
        "TorchTrade, window 10 (its default)", "torchtrade_env", {"n_envs": ENV_ONLY, "window": 10}, python="torchtrade"
    ),
    Row("TorchTrade, window 1", "torchtrade_env", {"n_envs": ENV_ONLY, "window": 1}, python="torchtrade"),
)
# Need nothing but jaxppo: the guard against getting slower.
SHORT = (OURS, OURS_BEST, "jaxppo, window_mlp", "jaxppo, independent envs", "stored windows in JAX")
