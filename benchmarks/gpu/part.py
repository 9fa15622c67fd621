"""What the parts share: a file of results each, the sizes, a market, and clocks."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxppo.agent.encoders import receptive_field
from jaxppo.config.layers import resolve
from jaxppo.config.schema import Config
from jaxppo.market.dataset import Market, build_market
from jaxppo.market.synthetic import synthetic_market

TINY: dict[str, Any] = {
    "n_envs": 64, "lanes": 4, "n_steps": 4, "n_updates": 40, "validate_every": 20, "episode_steps": 16, "epochs": 2,
    "minibatches": 2, "window": 8, "channels": 16, "trunk_width": 16, "features": ["base"], "scale_window": 32,
}  # fmt: skip
"""Every part in seconds on a CPU."""


def parser(doc: str) -> argparse.ArgumentParser:
    """Flags that every part has."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    made.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    made.add_argument("--tiny", action="store_true")
    return made


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Whole or not at all: a part may be stopped at any moment, and what it had measured is kept."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=1, default=float))
    part.replace(path)


def sized(preset: str, tiny: bool, changes: Mapping[str, Any]) -> Config:
    """A preset with changes, of tiny sizes where asked for."""
    return resolve(preset, {**(TINY if tiny else {}), **changes}).config


def made_up(config: Config, tiny: bool, n_bars: int = 24_000) -> Market:
    """The embedded market, or two short symbols."""
    bars = synthetic_market(config.data.market_seed, *((2, 900) if tiny else (8, n_bars)))
    return build_market(bars, config, receptive_field(config.agent))


def seconds_each(run: Callable[[int], Any], seconds: float, least: int = 3) -> float:
    """Of one of many repeats: the better of two stretches of about `seconds`. `run(k)` returns when k are done."""
    run(1)
    once = clocked(lambda: run(1))
    k = max(least, min(2_000, int(seconds / max(once, 1e-6))))
    return min(clocked(lambda: run(k)) for _ in range(2)) / k


def clocked(run: Callable[[], Any]) -> float:
    """Wall seconds of a call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
