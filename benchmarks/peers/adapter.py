"""jaxppo's environment as a `VecEnv` of Stable-Baselines3. For comparison only.

The host pays a dispatch every step, and the window travels to it: what jaxppo avoids by being one program.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from jaxppo.config.schema import Config
from jaxppo.gym import TradingVectorEnv
from jaxppo.market.dataset import Market


class TradingEnvs(VecEnv):
    """N accounts stepped together: kinder to it than N Gymnasium environments."""

    def __init__(self, market: Market, config: Config, window: int, n_envs: int, seed: int = 0):
        self._envs = TradingVectorEnv(n_envs, market, config, window=window)
        self._seed: int | None = seed
        super().__init__(n_envs, self._envs.single_observation_space, self._envs.single_action_space)

    def reset(self) -> np.ndarray:
        seed, self._seed = self._seed, None
        return self._envs.reset(seed=seed)[0]

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
        observation, reward, terminated, truncated, told = self._envs.step(self._actions)
        done = terminated | truncated
        infos: list[dict] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            infos[i] = {"terminal_observation": told["final_obs"][i], "TimeLimit.truncated": bool(truncated[i])}
        return observation, reward.astype(np.float32), done, infos

    def close(self) -> None: ...

    def get_attr(self, attr_name: str, indices: Any = None) -> list:
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list:
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs
