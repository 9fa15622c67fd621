"""jaxppo's env for trainers that step from the host: Gymnasium and Stable-Baselines3. For comparison only.

The host pays a dispatch every step, and the window travels to it: what jaxppo avoids by being one program.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.stored_windows import flat, observation_size
from jaxppo.config.schema import Config
from jaxppo.env.actions import action_table
from jaxppo.env.trading import EnvState, make_env
from jaxppo.market.tape import Tape


class HostStep(NamedTuple):
    """What N envs tell the host; numpy arrays."""

    observation: np.ndarray  # (N, D) float32, of the next episode where one ended
    reward: np.ndarray  # (N,) float32
    terminated: np.ndarray  # (N,) bool
    truncated: np.ndarray  # (N,) bool
    final: np.ndarray  # (N, D) float32: the observation before any reset


class HostEnvs:
    """N envs with auto-reset behind numpy: one compiled call a step for all of them."""

    def __init__(self, tape: Tape, config: Config, window: int, n_envs: int, seed: int = 0):
        self.n_envs, self.n_actions = n_envs, action_table(config.env).n_actions
        self.size = observation_size(tape, window)
        self._key = jax.random.key(seed)
        env = make_env(tape, config.env, config.reward)

        def begin(key: jax.Array) -> tuple[EnvState, jax.Array]:
            states, seen = jax.vmap(env.reset)(jax.random.split(key, n_envs))
            return states, flat(tape, seen, window)

        def step(states: EnvState, actions: jax.Array, key: jax.Array) -> tuple[EnvState, HostStep]:
            states, seen, result, terminated, truncated = jax.vmap(env.step)(states, actions)
            final = flat(tape, seen, window)
            fresh, first = begin(key)
            ended = terminated | truncated

            def choose(new: jax.Array, old: jax.Array) -> jax.Array:
                return jnp.where(jnp.expand_dims(ended, tuple(range(1, old.ndim))), new, old)

            states, following = jax.tree.map(choose, (fresh, first), (states, final))
            return states, HostStep(following, result.reward, terminated, truncated, final)

        self._begin, self._step = jax.jit(begin), jax.jit(step, donate_argnums=0)

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Fresh episodes; their observations (N, D)."""
        if seed is not None:
            self._key = jax.random.key(seed)
        self._states, seen = self._begin(self._next_key())
        return np.array(seen)

    def step(self, actions: np.ndarray) -> HostStep:
        """One bar of every env under int actions (N,)."""
        self._states, out = self._step(self._states, np.asarray(actions, np.int32), self._next_key())
        return HostStep(*(np.array(x) for x in out))

    def _next_key(self) -> jax.Array:
        self._key, key = jax.random.split(self._key)
        return key


def gymnasium_env(tape: Tape, config: Config, window: int, seed: int = 0) -> Any:
    """One env as a `gymnasium.Env`."""
    import gymnasium

    class TradingEnv(gymnasium.Env):
        """jaxppo's env, one account."""

        def __init__(self) -> None:
            self._envs = HostEnvs(tape, config, window, 1, seed)
            self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (self._envs.size,), np.float32)
            self.action_space = gymnasium.spaces.Discrete(self._envs.n_actions)

        def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
            super().reset(seed=seed)
            return self._envs.reset(seed)[0], {}

        def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
            out = self._envs.step(np.array([action]))
            return out.final[0], float(out.reward[0]), bool(out.terminated[0]), bool(out.truncated[0]), {}

    return TradingEnv()


def sb3_envs(tape: Tape, config: Config, window: int, n_envs: int, seed: int = 0) -> Any:
    """N envs as a `VecEnv` of Stable-Baselines3, stepped by one compiled call: kinder to it than N Gymnasium envs."""
    import gymnasium
    from stable_baselines3.common.vec_env import VecEnv

    class TradingEnvs(VecEnv):
        """jaxppo's env, N accounts."""

        def __init__(self) -> None:
            self._envs = HostEnvs(tape, config, window, n_envs, seed)
            space = gymnasium.spaces.Box(-np.inf, np.inf, (self._envs.size,), np.float32)
            super().__init__(n_envs, space, gymnasium.spaces.Discrete(self._envs.n_actions))

        def reset(self) -> np.ndarray:
            return self._envs.reset()

        def step_async(self, actions: np.ndarray) -> None:
            self._actions = actions

        def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
            out = self._envs.step(self._actions)
            done = out.terminated | out.truncated
            infos: list[dict] = [{} for _ in range(n_envs)]
            for i in np.flatnonzero(done):
                infos[i] = {"terminal_observation": out.final[i], "TimeLimit.truncated": bool(out.truncated[i])}
            return out.observation, out.reward, done, infos

        def close(self) -> None: ...

        def get_attr(self, attr_name: str, indices: Any = None) -> list:
            return [getattr(self, attr_name, None)] * n_envs

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list:
            return [None] * n_envs

        def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
            return [False] * n_envs

    return TradingEnvs()
