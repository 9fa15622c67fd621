"""PPO for trading policies, from bars to a report, in one compiled JAX program.

Commands: `python -m jaxppo.train` and its like, or `jaxppo train` where the package is installed. From Python:

    import jaxppo

    run = jaxppo.train(preset="quick_test", n_updates=4, validate_every=2)  # the folder of the run
    policy = jaxppo.restore_policy(run)

The names below are the public ones; they are imported when first asked for, so that `import jaxppo` loads no JAX.
"""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING, Any

BEGAN = time.monotonic()
"""When the process began, as near as the package can tell: it is imported before what is slow to import."""

if TYPE_CHECKING:
    from jaxppo.api import act as act
    from jaxppo.api import backtest as backtest
    from jaxppo.api import build_market as build_market
    from jaxppo.api import decide as decide
    from jaxppo.api import export as export
    from jaxppo.api import make_config as make_config
    from jaxppo.api import make_env as make_env
    from jaxppo.api import make_train as make_train
    from jaxppo.api import paper as paper
    from jaxppo.api import replay as replay
    from jaxppo.api import sweep as sweep
    from jaxppo.api import train as train
    from jaxppo.api import walkforward as walkforward
    from jaxppo.check.lookahead import check_lookahead as check_lookahead
    from jaxppo.check.parity import check_parity as check_parity
    from jaxppo.config.schema import Config as Config
    from jaxppo.errors import JaxppoError as JaxppoError
    from jaxppo.live.account import Account as Account
    from jaxppo.live.features import Bar as Bar
    from jaxppo.market.bars import load_bars as load_bars
    from jaxppo.market.synthetic import synthetic_market as synthetic_market
    from jaxppo.plugins import load_plugin as load_plugin
    from jaxppo.plugins import register as register
    from jaxppo.store.checkpoint import restore_policy as restore_policy
    from jaxppo.version import __version__ as __version__

_HOMES = {
    "act": "act",
    "export": "export",
    "backtest": "backtest",
    "paper": "paper",
    "replay": "replay",
    "sweep": "sweep",
    "train": "train",
    "walkforward": "walkforward",
    "build_market": "api",
    "decide": "api",
    "make_config": "api",
    "make_env": "api",
    "make_train": "api",
    "check_lookahead": "check.lookahead",
    "check_parity": "check.parity",
    "Account": "live.account",
    "Bar": "live.features",
    "Config": "config.schema",
    "JaxppoError": "errors",
    "load_bars": "market.bars",
    "load_plugin": "plugins",
    "register": "plugins",
    "synthetic_market": "market.synthetic",
    "restore_policy": "store.checkpoint",
    "__version__": "version",
}
"""Module of each public name; a command's is the name's own package, which can be called."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxppo' has no attribute {name!r}; public are {', '.join(sorted(_HOMES))}")
    module = importlib.import_module(f"jaxppo.{_HOMES[name]}")
    return module if _HOMES[name] == name else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
