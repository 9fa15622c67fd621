"""A session of paper trading as its journal has it: who writes and who reads it share this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxppo.errors import DataError
from jaxppo.store.journal import JOURNAL, read_journal

SESSION, DECISION, ACK, REJECT, NEVER, SKIPPED, NOTE = (
    *("session", "decision", "ack", "reject", "never", "skipped", "note"),
)
"""Kinds of lines: the terms of the session; a decision with the order that is about to be sent; the broker has it; he
refused it; he never had it; a bar without a decision, since the broker was silent; a sentence that was said."""
ENV_FIELDS = (
    *("act_by", "size_by", "max_exposure", "rebalance_band", "stop_loss", "take_profit", "take_profit_gap"),
    "ruin_level",
)
"""What the account step looks at, of `EnvConfig`: the first line of a journal has it."""


@dataclass(frozen=True, eq=False)
class Played:
    """What happened to one symbol: a line a bar, the first that of the first decision."""

    symbol: str
    terms: Mapping[str, Any]  # asset_class, allow_short, fee, impact, borrow a bar
    lines: list[dict[str, Any]]

    def prices(self, name: str) -> np.ndarray:
        """(N,) float32, as the account has them: open, high, low, close or dividend (0 where none is told)."""
        return np.asarray([line["bar"].get(name, 0.0) for line in self.lines], np.float32)

    @property
    def pays(self) -> bool:
        """Whether its bars tell of dividends."""
        return any("dividend" in line["bar"] for line in self.lines)


@dataclass(frozen=True, eq=False)
class Session:
    """A journal in parts."""

    head: Mapping[str, Any]  # its first line
    symbols: list[Played]  # those with two bars or more, since an order fills at the next


def read_session(folder: Path) -> Session:
    """The session in a folder.

    Raises:
      DataError: there is no journal, or none of a session in which a bar followed a decision.
    """
    path = folder / JOURNAL if folder.is_dir() else folder
    return as_session(read_journal(path), str(path))


def as_session(lines: Iterable[Mapping[str, Any]], where: str) -> Session:
    """The session of these lines; `DataError` as of `read_session`."""
    found = iter(lines)
    head = next(found, None)
    if head is None or head["kind"] != SESSION or head.get("version") != 1:
        raise DataError(f"{where}: begins with no session of a journal of version 1")
    of: dict[str, list[dict[str, Any]]] = {symbol: [] for symbol in head["symbols"]}
    for number, line in enumerate(found, 2):
        if line["kind"] not in (DECISION, SKIPPED):
            continue
        try:
            of[line["symbol"]].append(_slim(line))
        except (KeyError, TypeError) as error:
            raise DataError(f"{where}, line {number}: not as a session writes it ({error!r})") from error
    played = [Played(symbol, head["symbols"][symbol], rows) for symbol, rows in of.items() if len(rows) > 1]
    if not played:
        raise DataError(f"{where}: no bar followed a decision yet, so nothing can be compared")
    return Session(head, played)


_KEPT = (
    *("kind", "time", "bar", "fills", "exit", "adjusted", "units", "log_probs", "size", "wanted", "limits", "order"),
    "dry",
)


def _slim(line: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared of a line, without what else it tells."""
    account = line.get("account")
    own = {} if account is None else {"account": {k: account[k] for k in ("units", "equity")}}
    return {"time": line["time"]} | {k: line[k] for k in _KEPT if k in line} | own
