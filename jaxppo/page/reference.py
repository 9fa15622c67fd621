"""README's tables of what each number means: `python -m jaxppo.page.reference README.md` writes them anew."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from jaxppo.play.metrics import METRICS
from jaxppo.store.columns import ACTION, COMPONENT, PROGRESS, TIMING, TRAINING, VALIDATION_ACTION, validation_columns
from jaxppo.store.files import write_atomic

BEGIN, END = "<!-- columns: written by jaxppo.page.reference -->\n", "<!-- end of columns -->\n"


def columns_table() -> str:
    """Markdown of every column of metrics.csv, and of the metrics that only the tables of symbols have."""
    named = [(name, column.meaning) for name, column in validation_columns()]
    others = (VALIDATION_ACTION, *PROGRESS, *TRAINING, *COMPONENT, ACTION, *TIMING)
    named += [(column.name, column.meaning) for column in others]
    rest = [(m.column, m.meaning) for m in METRICS.values() if not m.validation]
    return _table("column of `metrics.csv`", named) + "\n" + _table("more in the tables of symbols", rest)


def _table(heading: str, rows: Iterable[tuple[str, str]]) -> str:
    return f"| {heading} | meaning |\n|---|---|\n" + "".join(f"| `{name}` | {text} |\n" for name, text in rows)


def with_columns(text: str) -> str:
    """`text`, with the tables of today between its two markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + columns_table() + END + after


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write_atomic(path, with_columns(path.read_text(encoding="utf-8")))
