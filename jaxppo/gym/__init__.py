"""The environment for other trainers, by Gymnasium's interface: `TradingEnv`, and `TradingVectorEnv` of N accounts.

    import gymnasium
    import jaxppo.gym  # registers the id

    env = gymnasium.make("jaxppo/Trading-v0", data="bars/", interval="1h", features=("base",))
    envs = gymnasium.make_vec("jaxppo/Trading-v0", num_envs=64)  # one compiled call a step

The account, its rewards and its ends are those of training: the same bits. It needs the extra `gym`.
"""

try:
    import gymnasium
except ImportError as error:
    raise ImportError("jaxppo.gym needs Gymnasium: pip install 'jaxppo[gym]'") from error

from jaxppo.gym.env import TradingEnv
from jaxppo.gym.vector import TradingVectorEnv

__all__ = ["ID", "TradingEnv", "TradingVectorEnv"]

ID = "jaxppo/Trading-v0"

gymnasium.register(ID, "jaxppo.gym.env:TradingEnv", vector_entry_point="jaxppo.gym.vector:TradingVectorEnv")
