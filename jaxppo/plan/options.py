"""The planner's own flags; nothing here imports jax, which must not be loaded before its environment is set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LOCAL = "local"


@dataclass(frozen=True)
class PlanOptions:
    """What to plan for."""

    gpu: str = "a100-40gb"
    """GPU to compile for, such as a100-40gb, a100-80gb, h100-80gb or l4-24gb; `local` compiles and measures here."""
    n_symbols: int = 20
    """Symbols of the market to plan for where no --data is given."""
    n_bars: int = 670_417
    """Bars of all its symbols together; they are split among them evenly."""
    devices: int = 1
    """Devices to plan for, each with the work of the run that is described: what they lose to telling each other."""
    hosts: int = 1
    """Hosts that have these devices, as many each."""
    largest: bool = True
    """Look for the largest env count that fits: two more compilations."""
    deterministic: bool = False
    """Plan the program of a run with --deterministic."""
    measure_updates: int = 3
    """Updates to time with --gpu local."""
    out: Path | None = None
    """JSON file to write every figure to, which must not exist yet."""
