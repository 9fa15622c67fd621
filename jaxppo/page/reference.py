"""The tables of numbers, rewards and rules in the documents, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jaxppo.config.rewards import REWARD_PRESETS
from jaxppo.env.rewards import REWARD_COMPONENTS
from jaxppo.play.metrics import METRICS
from jaxppo.play.rules import RULES
from jaxppo.store.columns import ACTION, COMPONENT, PROGRESS, TIMING, TRAINING, VALIDATION_ACTION, validation_columns


def columns_table() -> str:
    """Markdown of every column of metrics.csv, and of the metrics that only the tables of symbols have."""
    named = [(name, column.meaning) for name, column in validation_columns()]
    others = (VALIDATION_ACTION, *PROGRESS, *TRAINING, *COMPONENT, ACTION, *TIMING)
    named += [(column.name, column.meaning) for column in others]
    rest = [(m.column, m.meaning) for m in METRICS.values() if not m.validation]
    return _table("column of `metrics.csv`", named) + "\n" + _table("more in the tables of symbols", rest)


def _table(heading: str, rows: Iterable[tuple[str, str]]) -> str:
    return f"| {heading} | meaning |\n|---|---|\n" + "".join(f"| `{name}` | {text} |\n" for name, text in rows)


def _settings(values: Mapping[str, Any]) -> str:
    """What a preset brings with it, in a cell."""
    return ", ".join(
        f"{name} {value if not isinstance(value, dict) else _settings(value)}" for name, value in values.items()
    )


def rewards_table() -> str:
    """Markdown of every reward preset with what it brings along, and of every component."""
    presets = "".join(f"| `{p.name}` | {p.help} | {_settings(p.brings)} |\n" for p in REWARD_PRESETS.values())
    components = _table("component", ((c.name, c.help) for c in REWARD_COMPONENTS.values()))
    return f"| `--reward` | what it is | comes with |\n|---|---|---|\n{presets}\n{components}"


def rules_table() -> str:
    """Markdown of every rule."""
    return _table("rule", ((rule.name, rule.help) for rule in RULES.values()))


def between(text: str, begin: str, end: str, content: str) -> str:
    """`text` with `content` between two markers that stand in it; `ValueError` where one does not."""
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"no {begin.strip()} with {end.strip()} after it")
    return before + begin + content + end + after
