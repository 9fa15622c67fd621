"""N accounts as a `gymnasium.vector.VectorEnv`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector.utils import batch_space

from jaxppo.config.schema import Config
from jaxppo.env.protocol import choose_lanes
from jaxppo.env.trading import EnvState
from jaxppo.gym.accounts import Accounts, Host, require_actions, wrapped
from jaxppo.market.dataset import Market

_RESET_MASK = "reset_mask"


class TradingVectorEnv(gymnasium.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """N environments stepped together: `gymnasium.make_vec("jaxppo/Trading-v0", num_envs=N)`.

    Each is a `TradingEnv` with a seed of its own: with `reset(seed=s)` account i begins as a `TradingEnv`
    with the seed s + i. One that ends begins anew in the same step (`AutoresetMode.SAME_STEP`): the observation is then
    the first of its next episode; the last of the old one is in `infos["final_obs"]` and its info in
    `infos["final_info"]`.

    Args:
      num_envs: N.
      market, config, split, window, fields: as of `TradingEnv`.

    Example:
      >>> import gymnasium, numpy as np, jaxppo.gym
      >>> envs = gymnasium.make_vec("jaxppo/Trading-v0", num_envs=3, features=("base",), episode_steps=64)
      >>> observations, infos = envs.reset(seed=0)
      >>> observations, rewards, terminated, truncated, infos = envs.step(np.array([1, 1, 1]))
      >>> observations.shape, infos["action_mask"].shape
      ((3, 15), (3, 3))
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": [],
        "autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        market: Market | None = None,
        config: Config | None = None,
        split: str = "train",
        window: int = 1,
        render_mode: None = None,
        **fields: Any,
    ):
        self.host = Host(market, config, split, window, render_mode, fields)
        self.num_envs = num_envs
        self.single_observation_space = self.host.observation_space
        self.single_action_space = self.host.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.action_labels = self.host.spec.action_labels
        self.observation_names = self.host.observation_names
        self._accounts: Accounts | None = None
        self._mask = np.ones((num_envs, len(self.action_labels)), bool)

    @property
    def state(self) -> EnvState:
        """State of `jax.vmap` of the pure environment (`jaxppo.make_env`), (N,)."""
        if self._accounts is None:
            raise gymnasium.error.ResetNeeded("no episode has begun: call reset() first")
        return self._accounts.state

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Fresh accounts; with `options={"reset_mask": (N,) bool}` only those that it says.

        `seed` is one of all, of which account i has seed + i, or one an account; without one what follows is drawn.
        """
        super().reset(seed=int(seed) if isinstance(seed, int | np.integer) else None)
        where = np.ones(self.num_envs, bool)
        before, tape, programs = self._accounts, self.host.tape, self.host.programs
        self._accounts = programs.begin(tape, self._keys(seed))
        if before is not None:
            where = np.asarray((options or {}).get(_RESET_MASK, where), bool)
            self._accounts = choose_lanes(jnp.asarray(where), self._accounts, before)
        seen = jax.device_get(programs.see(tape, self._accounts.state))
        self._mask = seen.mask
        return np.array(seen.observation), _told(self.host.info(seen), where)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One bar of every account."""
        if self._accounts is None:
            raise gymnasium.error.ResetNeeded("no episode has begun: call reset() first")
        given = require_actions(self.host.action_space, actions, (self.num_envs,))
        tape, programs = self.host.tape, self.host.programs
        state, _, result, *ends = programs.step(tape, self._accounts.state, given)
        self._accounts, last, first = programs.renew(tape, self._accounts._replace(state=state), *ends)
        out, (terminated, truncated), last, seen = jax.device_get((result, ends, last, first))
        ended = terminated | truncated
        self._mask = seen.mask
        record = {name: x for name, x in out.record._asdict().items() if x is not None}
        infos = {**_told(record, ~ended), **_told(self.host.info(seen), np.ones(self.num_envs, bool))}
        if ended.any():
            final = np.full(self.num_envs, None, dtype=object)
            for i in np.flatnonzero(ended):
                final[i] = last.observation[i].copy()
            told = _told({**record, **self.host.info(last)}, ended)
            infos |= {"final_obs": final, "_final_obs": ended, "final_info": told, "_final_info": ended.copy()}
        reward = out.reward.astype(np.float64)
        return np.array(seen.observation), reward, np.array(terminated), np.array(truncated), infos

    def action_masks(self) -> np.ndarray:
        """(N, K) bool, of the last observations."""
        return self._mask

    def _keys(self, seed: int | list[int | None] | None) -> jax.Array:
        """(N,) keys of the seeds; where there is none, those that go on, or of seeds drawn."""
        each = (
            [seed + i for i in range(self.num_envs)]
            if isinstance(seed, int | np.integer)
            else seed or [None] * self.num_envs
        )
        if len(each) != self.num_envs:
            raise ValueError(f"seed: {len(each)} seeds were given for {self.num_envs} environments; give one for each")
        if self._accounts is not None and not any(s is not None for s in each):
            return self._accounts.key
        known = [int(self.np_random.integers(2**32)) if s is None else s for s in each]
        drawn = jax.vmap(jax.random.key)(wrapped(*known))
        if self._accounts is None:
            return drawn
        return jnp.where(jnp.asarray([s is None for s in each]), self._accounts.key, drawn)


def _told(info: Mapping[str, np.ndarray], where: np.ndarray) -> dict[str, Any]:
    """An info of N accounts as Gymnasium's vector environments give it: a mask `_NAME` says which have it; else 0."""
    told: dict[str, Any] = {}
    for name, x in info.items():
        known = where.reshape(-1, *(1 for _ in x.shape[1:]))
        told[name] = np.where(known, x, np.array(None) if x.dtype == object else np.zeros((), x.dtype))
        told[f"_{name}"] = where.copy()
    return told
