"""One account as a `gymnasium.Env`."""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import numpy as np

from jaxppo.config.schema import Config
from jaxppo.env.trading import EnvState
from jaxppo.gym.accounts import Accounts, Host, require_actions, wrapped
from jaxppo.market.dataset import Market


class TradingEnv(gymnasium.Env[np.ndarray, np.int64]):
    """The trading environment, one account; registered as `jaxppo/Trading-v0`.

    An observation is float32 of shape (window * F + 8,): the F market features of the last `window` bars, oldest first,
    then the account vector (`observation_names` names each). An action is an index into the action table
    (`action_labels`). `terminated` is ruin, `truncated` the end of `episode_steps` or of the data. `info` has
    `action_mask` (int8, as `action_space.sample(mask)` takes it), `symbol`, `time` of the bar (UTC seconds), `equity`,
    `cash` and `units`, and after a step every field of `jaxppo.env.account.StepRecord`. Money is in units of the
    starting equity; costs are charged in full from the first step.

    Args:
      market: of `jaxppo.build_market`, to be shared by environments; by default made of the configuration's bars.
      config: that the market was built with.
      split: `train`, `validation` or `test`. An episode begins at a bar of it drawn uniformly.
      window: bars of features in an observation. A feature already looks back over many bars; 1 is the current bar.
      fields: in place of a configuration, what `jaxppo.make_config` takes: a `preset`, `data`, `actions` and so on.

    Raises:
      ConfigError: what does not fit together.
      DataError: bars that cannot be used.

    Example:
      >>> import gymnasium, jaxppo.gym
      >>> env = gymnasium.make("jaxppo/Trading-v0", features=("base",), episode_steps=64)
      >>> observation, info = env.reset(seed=0)
      >>> observation.shape, env.unwrapped.action_labels
      ((15,), ('target_-1', 'target_+0', 'target_+1'))
      >>> observation, reward, terminated, truncated, info = env.step(1)  # stay flat
      >>> info["equity"], info["units"]
      (1.0, 0.0)
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        market: Market | None = None,
        config: Config | None = None,
        split: str = "train",
        window: int = 1,
        render_mode: None = None,
        **fields: Any,
    ):
        self.host = Host(market, config, split, window, render_mode, fields)
        self.observation_space = self.host.observation_space
        self.action_space = self.host.action_space
        self.action_labels = self.host.spec.action_labels
        self.observation_names = self.host.observation_names
        self._accounts: Accounts | None = None
        self._mask = np.ones(len(self.action_labels), bool)
        self._over = True

    @property
    def state(self) -> EnvState:
        """State of the pure environment (`jaxppo.make_env`), of shape ()."""
        if self._accounts is None:
            raise gymnasium.error.ResetNeeded("no episode has begun: call reset() first")
        return self._accounts.state

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A fresh account at a bar drawn by the seed, or by what follows from the last seed. No options are known."""
        super().reset(seed=seed)
        if seed is not None or self._accounts is None:
            (wrap,) = wrapped(int(self.np_random.integers(2**32)) if seed is None else seed)
            key = jax.random.key(wrap)
        else:
            key = self._accounts.key
        self._accounts = self.host.programs.begin_one(self.host.tape, key)
        self._over = False
        return self._shown(self._accounts.state)

    def step(self, action: int | np.integer | np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One bar: the order fills at the next open, the account is marked at its close."""
        if self._over or self._accounts is None:
            raise gymnasium.error.ResetNeeded("the episode is over, or none has begun: call reset()")
        given = require_actions(self.host.action_space, action, ())
        state, _, *told = self.host.programs.step_one(self.host.tape, self._accounts.state, given)
        self._accounts = self._accounts._replace(state=state)
        observation, info = self._shown(state)
        result, terminated, truncated = jax.device_get(told)
        self._over = bool(terminated or truncated)
        record = {name: x.item() for name, x in result.record._asdict().items() if x is not None}
        return observation, float(result.reward), bool(terminated), bool(truncated), {**record, **info}

    def action_masks(self) -> np.ndarray:
        """(K,) bool, of the last observation, as sb3-contrib's MaskablePPO asks for it."""
        return self._mask

    def _shown(self, state: EnvState) -> tuple[np.ndarray, dict[str, Any]]:
        """Observation and info of a state, in objects of their own."""
        seen = jax.device_get(self.host.programs.see_one(self.host.tape, state))
        self._mask = np.array(seen.mask[0])
        told = {name: x[0] for name, x in self.host.info(seen).items()}
        info = {n: x.copy() if n == "action_mask" else x if n == "symbol" else x.item() for n, x in told.items()}
        return np.array(seen.observation[0]), info
