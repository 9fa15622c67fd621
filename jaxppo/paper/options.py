"""What `python -m jaxppo.paper` can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxppo.config.schema import BarsFilter
from jaxppo.errors import ConfigError
from jaxppo.paper.limits import Limits

BrokerName = Literal["simulated", "alpaca", "ccxt"]


@dataclass(frozen=True, kw_only=True)
class PaperOptions(BarsFilter, Limits):
    """Whose decisions to trade, where, and within which limits."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Folder of the run whose policy decides."""
    which: str = "best"
    """Checkpoint: best (by validation fitness), latest, final, or the number of an update."""
    broker: BrokerName = "simulated"
    """simulated: the account of the environment, over bars of the past; alpaca: its paper account; ccxt: the sandbox of
    an exchange."""
    submit: bool = False
    """Send the orders. Without it the session is a dry run: it decides and journals, and sends nothing."""
    data: str | None = None
    """simulated: file or folder of bars to replay; by default the run's own. Other brokers: the bars to begin with, by
    default fetched."""
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """simulated: date, such as 2024-03-01, at which the replay begins; by default the run's test split."""
    to: str | None = None
    """simulated: date at which the replay ends; by default with the bars."""
    speed: float = 0.0
    """simulated: times as fast as it was; 3600 plays an hour a second, 0 as fast as it goes."""
    exchange: str | None = None
    """ccxt: the exchange, such as binance."""
    capital: float | None = None
    """Money to trade with, in equal parts for all symbols; by default 100,000 simulated, else the broker's equity."""
    on_difference: Literal["stop", "adjust"] = "stop"
    """Where the broker's position is not the journal's: stop, or take it over and go on."""
    kill_switch: Path | None = None
    """File whose presence cancels all open orders and ends the session; by default OUT/KILL."""
    out: Path | None = None
    """Folder of the session, which goes on where it stopped; by default RUN_DIR/paper/BROKER (dry: BROKER-dry)."""

    def check(self) -> None:
        """`ConfigError` for what does not fit together."""
        super().check()
        if not (math.isfinite(self.speed) and self.speed >= 0):
            raise ConfigError(f"--speed: {self.speed} given; it must be 0 or more")
        if self.capital is not None and not (math.isfinite(self.capital) and self.capital > 0):
            raise ConfigError(f"--capital: {self.capital} given; it must be above 0")
        replayed = {"--from": self.from_, "--to": self.to, "--speed": self.speed or None}
        for flag, value in replayed.items():
            if value is not None and self.broker != "simulated":
                raise ConfigError(f"{flag}: is of a replay; {self.broker} trades now, so leave it out")
        if (self.exchange is None) == (self.broker == "ccxt"):
            said = "names the exchange of --broker ccxt, such as binance"
            raise ConfigError(f"--exchange: {said}; {'give one' if self.broker == 'ccxt' else 'leave it out'}")

    def folder(self) -> Path:
        """Where the session is kept."""
        return self.out or self.run_dir / "paper" / (self.broker if self.submit else f"{self.broker}-dry")
