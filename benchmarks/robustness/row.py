"""One line of the table."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """What was done to jaxppo, how often, and what came of it."""

    what: str  # such as "SIGKILL at a random moment, then --resume"
    tried: int
    withstood: int  # of `tried`: ended as the check says it must
    check: str  # what had to hold, such as "ends bit-identical"
