"""Does the PyTorch peer do the same work? Random orders through its accounts and jaxppo's, compared step by step.

python -m benchmarks.peers.verify
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.peers import settings, torch_windows
from benchmarks.peers.ours import config_for, tape_of
from benchmarks.peers.settings import SETTINGS, random_market
from jaxppo.env.trading import env_spec
from jaxppo.market.tape import Quote, Terms, take_steps


def main() -> None:
    setting, n, n_steps = SETTINGS["64x16"], 2048, 256
    market = random_market(setting.n_bars, 1)
    tape, config = tape_of(market, 0), config_for(setting)
    spec = env_spec(config.env, config.reward)
    rng = np.random.default_rng(0)
    t = rng.integers(0, setting.n_bars - n_steps - 1, n)
    bars = torch_windows.Bars(*(torch.from_numpy(getattr(market, x)) for x in torch_windows.Bars._fields))
    step = jax.jit(lambda s, a, m: spec.step(s, a, m, Terms(tape.costs, tape.allow_short)))
    theirs, state = torch_windows.open_accounts(n), spec.begin((n,))
    worst, differ = np.zeros(3), 0
    for i in range(n_steps):
        action = rng.integers(0, settings.N_ACTIONS, n)
        after = torch_windows.Bars(*(x[t + i + 1] for x in bars))
        theirs, reward, ruined = torch_windows.step_accounts(theirs, torch.from_numpy(action), after)
        now = take_steps(tape, jnp.zeros(n, jnp.int32), jnp.int32(t + i))
        state, result = step(state, jnp.int32(action), now)
        ours, seen = state.account, spec.observe(state, Quote(now.close))
        differ += int((np.asarray(ours.trades) != theirs.trades.numpy()).sum())
        errors = (
            np.abs(theirs.equity.numpy() / np.asarray(ours.equity) - 1.0),
            np.abs(reward.numpy() - np.asarray(result.reward)),
            np.abs(torch_windows.observe_accounts(theirs, after.close).numpy() - np.asarray(seen)),
        )
        worst = np.maximum(worst, [e.max() for e in errors])
        assert (ruined.numpy() == np.asarray(result.record.ruined)).all()
    print(
        f"{n * n_steps:,} steps; largest differences: equity {worst[0]:.1e} (relative), reward {worst[1]:.1e} percent,"
    )
    print(f"account feature {worst[2]:.1e}; closed trades counted otherwise: {differ}")


if __name__ == "__main__":
    main()
