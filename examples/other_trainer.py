"""Stable-Baselines3's masked PPO on jaxppo's environment: pip install 'jaxppo[gym]' sb3-contrib."""

import sys

import gymnasium
from sb3_contrib import MaskablePPO

import jaxppo.gym

config = jaxppo.make_config(actions="targets", features=("base", "trend"))
market = jaxppo.build_market(jaxppo.synthetic_market(27), config)
env = gymnasium.make("jaxppo/Trading-v0", market=market, config=config)
model = MaskablePPO("MlpPolicy", env, device="cpu")
model.learn(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)

tested = gymnasium.make("jaxppo/Trading-v0", market=market, config=config, split="test")
observation, info = tested.reset(seed=0)
over = False
while not over:
    action, _ = model.predict(observation, action_masks=info["action_mask"], deterministic=True)
    observation, reward, terminated, truncated, info = tested.step(action)
    over = terminated or truncated
print(info["symbol"], "equity", info["equity"])
