"""What a file of your own can add: name it on the command line, and use what it registers by name.

    python -m jaxppo.train --plugin examples/plugin.py \\
        --features base weekday --encoder mean --actions half --reward steady

Manifest and checkpoint keep the file's hash, and the policy is restored with the same file alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxppo import register
from jaxppo.agent.encoders import EncoderKind, dense, on_rows
from jaxppo.config.rewards import RewardPreset
from jaxppo.env.actions import ActionKind, ActionTable
from jaxppo.env.rewards import Memory, RewardComponent
from jaxppo.market.asset_classes import AssetClass
from jaxppo.market.calendar import local_fields
from jaxppo.market.inputs import FeatureGroup
from jaxppo.play.rules import Rule
from jaxppo.store.trackers import Tracker


def is_monday_or_friday(m):
    """One column a name, one row a bar, from bars up to that row alone (`jaxppo.check lookahead` looks)."""
    weekday = local_fields(m.bars.time, m.bars.timezone)["weekday"]
    return [(weekday == 0).astype(np.float64), (weekday == 4).astype(np.float64)]


register(FeatureGroup("weekday", "Mondays and Fridays", ("monday", "friday"), is_monday_or_friday, lookback=1))


class Mean(nnx.Module):
    """The mean of the last bars' features, projected: (B, R - 1 + n, F) to (B, n, width)."""

    def __init__(self, config, n_features, rngs):
        self.receptive_field = config.window
        self.width = config.channels
        self.project = dense(n_features, config.channels, 1.0, jnp.dtype(config.compute_dtype), rngs)

    def __call__(self, x):
        total = jnp.cumsum(jnp.pad(x, ((0, 0), (1, 0), (0, 0))), axis=1)
        window = self.receptive_field
        mean = (total[:, window:] - total[:, :-window]) / window
        return jax.nn.relu(on_rows(self.project, mean))


register(EncoderKind("mean", "the mean of a window", Mean, lambda config: config.window))


def half(env):
    """Keep, go flat, or put half of the largest exposure to work."""
    exposure = (0.0, 0.0, env.max_exposure / 2)
    return ActionTable("half", ("hold", "flat", "half"), (True, False, False), (0.0,) * 3, exposure)


register(ActionKind("half", "keep, flat, or half long", half))


def surprise(outcome, preset, memory):
    """The net return of the bar over its own moving mean, in percent."""
    return 100 * (outcome.record.net_return - memory)


def remember(memory, outcome):
    """What the reward keeps of the past, moved on by a bar; every account has its own."""
    return 0.99 * memory + 0.01 * outcome.record.net_return


register(RewardComponent("surprise", surprise, "return over its moving mean", memory=Memory(jnp.zeros_like, remember)))
register(RewardPreset("steady", {"surprise": 0.5, "log_return": 50.0}, "half of it for returns above the usual"))


def at_the_top(m):
    """The side in [-1, 1] at each bar, (T, 1), from bars up to it alone: long where the close is the highest so far."""
    return np.where(m.close >= np.maximum.accumulate(m.close), 1.0, 0.0)[:, None]


register(Rule("at_the_top", "At the top", "long at the highest close so far, else flat", at_the_top))

register(
    AssetClass(
        "future",
        help="exchange-traded futures: nearly round the clock, five days a week",
        fee=0.00005,
        short=True,
        trading_days=252.0,
        timezone="America/New_York",
        hours="week",
        recognise=lambda symbol: symbol.upper() in ("ES", "NQ", "CL", "GC", "ZN"),
    )
)


class Lines:
    """What a run tells a tracker, a line each: `--track lines`. `id` is by which a resumed run finds it again."""

    def __init__(self, run):
        self.id = run.id or run.name
        self.file = (run.folder / "lines.txt").open("a")

    def log(self, step, values):
        self.file.writelines(f"{step} {name} {value}\n" for name, value in values.items())

    def close(self, status):
        self.file.write(f"{status}\n")
        self.file.close()


register(Tracker("lines", "a line a value", Lines))
