"""One export: a run's policy, and what it needs to know of its symbols, as a folder that decides without jaxppo."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from jaxppo.config.checks import require_data
from jaxppo.config.schema import BarsFilter
from jaxppo.device import enable_compilation_cache
from jaxppo.env.trading import ACCOUNT_FEATURES
from jaxppo.errors import DataError
from jaxppo.export import formats, networks, standalone
from jaxppo.export.networks import FILES
from jaxppo.export.standalone import content_hash
from jaxppo.export.vectors import streams, vectors
from jaxppo.live import features, indicators
from jaxppo.live.decision import Decider
from jaxppo.market.asset_classes import may_short
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import bars_per_year, format_interval
from jaxppo.market.costs import market_costs
from jaxppo.market.source import load_market_bars, load_other_bars
from jaxppo.store.checkpoint import parse_which, restore_policy
from jaxppo.store.directory import trained_interval, whole_folder
from jaxppo.store.files import write_atomic
from jaxppo.version import __version__

POLICY, VECTORS, DECIDE = "policy.json", "vectors.npz", "decide.py"
SOURCES = {DECIDE: standalone, "networks.py": networks, "features.py": features, "indicators.py": indicators}
"""Files of the folder, and the modules whose text they are."""
_SETTINGS = (
    *("max_exposure", "size_by", "target_volatility", "volatility_span", "act_by", "rebalance_band"),
    *("ruin_level", "stop_loss", "take_profit"),
)
"""Of the environment, those that a decision looks at."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions(BarsFilter):
    """Which policy, in which format, where to."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Folder of the run whose policy is exported."""
    format: Literal["numpy", "onnx", "stablehlo"] = "numpy"
    """What computes the network: NumPy, onnxruntime, or jax by `jax.export`."""
    out: Path | None = None
    """Folder to write, which must not hold anything yet; by default RUN_DIR/export-FORMAT."""
    which: str = "best"
    """Checkpoint: best (by validation fitness), latest, final, or the number of an update."""
    data: str | None = None
    """File or folder of bars of the symbols to trade; by default the run's own. Fees, time zones and bars a year are
    theirs, and the self-test decides on them."""


def export_run(options: ExportOptions) -> Path:
    """Write the folder; returns its path.

    Raises:
      JaxppoError: what the command line would print as one sentence.
    """
    which = parse_which(options.which)
    require_data(options, options.data, "the run's own bars are used")
    policy = restore_policy(options.run_dir, which)
    config = policy.info.config
    if options.data is None:
        bars, _ = load_market_bars(config.data)
    else:
        bars, _ = load_other_bars(options.data, options, config.data)
        interval, mine = trained_interval(options.run_dir, config.data.interval), format_interval(bars[0].interval)
        if interval is not None and interval != mine:
            raise DataError(
                f"{options.data}: bars of {mine}, and the policy was trained on bars of {interval}; give such"
            )
    decider = policy.decider
    for b in bars:
        decider.require_bars(b, decider.min_bars + 1)
    out = options.out or options.run_dir / f"export-{options.format}"
    enable_compilation_cache()
    with whole_folder(out) as folder:
        write_export(folder, decider, bars, options.format)
    print(f"export: {out} (python {out / DECIDE} --self-test)")
    return out


def write_export(folder: Path, decider: Decider, bars: Sequence[Bars], form: str) -> None:
    """Write all files of an export of a policy and the symbols of `bars` into a folder."""
    made = formats.FORMATS[form](decider.policy)
    facts = policy_facts(decider, bars, form)
    facts["hash"] = content_hash(facts, made)
    tests = io.BytesIO()
    np.savez_compressed(tests, **vectors(decider, bars))  # type: ignore[arg-type]
    write_atomic(folder / FILES[form], made)
    write_atomic(folder / POLICY, json.dumps(facts, indent=2, allow_nan=False) + "\n")
    write_atomic(folder / VECTORS, tests.getvalue())
    for name, module in SOURCES.items():
        text = inspect.getsource(module)
        write_atomic(folder / name, text.replace("from jaxppo.live.", "from ").replace("from jaxppo.export.", "from "))


def policy_facts(decider: Decider, bars: Sequence[Bars], form: str) -> dict[str, Any]:
    """What policy.json says, without the hash."""
    info, recipe = decider.policy.info, decider.recipe
    config, actions = info.config, info.actions
    made = config.features
    return {
        "format": form,
        "jaxppo": __version__,
        "update": info.update,
        "encoder": config.agent.encoder,
        "members": len(params) if (params := decider.policy.params).ndim == 2 else 1,
        "receptive_field": decider.reach,
        "min_bars": decider.min_bars,
        "interval": bars[0].interval,
        "features": {
            "names": list(recipe.names),
            "hash": recipe.hash,
            "scale_window": made.scale_window,
            "groups": [group.name for group in recipe.groups] if streams(decider, bars) else None,
            "trend_returns": list(made.trend_returns),
            "trend_macd": list(made.trend_macd),
        },
        "observation": list(ACCOUNT_FEATURES),
        "actions": {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(actions).items()},
        "env": {name: getattr(config.env, name) for name in _SETTINGS},
        "symbols": _symbols(decider, bars),
    }


def _symbols(decider: Decider, bars: Sequence[Bars]) -> dict[str, dict[str, Any]]:
    """What each symbol is traded at: fee a side, impact (half spread and slippage), shorts, its time, bars a year."""
    env = decider.spec.config
    charged = market_costs(bars, env)
    return {
        b.symbol: {
            "fee": (own := charged.by_symbol[b.symbol]).fee,
            "impact": own.half_spread + charged.slippage,
            "allow_short": may_short(b.asset_class, env),
            "timezone": b.timezone,
            "bars_per_year": bars_per_year(b.time, b.interval, b.asset_class, b.timezone),
        }
        for b in bars
    }
