"""What a sweep searches: a dimension a field of the configuration, a range or categories that the schema allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jaxppo.config.layers import load_yaml
from jaxppo.config.schema import FIELD_GROUP, GROUPS, coerce_fields
from jaxppo.errors import ConfigError, nearest
from jaxppo.ppo.state import Hyper

Kind = Literal["categories", "uniform", "log", "int"]
RANGES = ("uniform", "log", "int")
FORMS = "'log LOW HIGH', 'uniform LOW HIGH [STEP]' or 'int LOW HIGH [STEP]', or categories"
_REFUSED = {
    "seed": "every trial has a seed of its own, --seed plus its number",
    "preset": "a preset sets many fields; search those",
    "seeds": "it is the same for all trials: --seeds",
    "choose_by": "trials are ranked by it, so it is the same for all",
    "early_stop": "it belongs to a walk-forward",
    "env_steps": "search n_updates",
    "passes": "search n_updates",
    "validate_every": "validations are where trials are compared and halted, so they are the same for all",
    "n_validations": "validations are where trials are compared and halted, so they are the same for all",
}
_COSTS = ("fee", "spread", "slippage", "borrow", "costs", "allow_short")


@dataclass(frozen=True)
class Dimension:
    """One field that is searched."""

    field: str
    kind: Kind
    values: tuple[Any, ...]  # the categories as the schema has them; of a range low, high and, where there is one, step
    whole: bool = False  # a range of whole numbers

    @property
    def step(self) -> float | None:
        """Of a range; None for every number of it."""
        return self.values[2] if self.kind != "categories" and len(self.values) > 2 else None

    @property
    def choices(self) -> tuple[Any, ...]:
        """Categories as plain values, which Optuna keeps: a list as its items with commas."""
        return tuple(_label(value) for value in self.values)

    @property
    def grid(self) -> list[Any] | None:
        """All values, plain; None for a range that has no end of them."""
        if self.kind == "categories":
            return list(self.choices)
        low, high = self.values[:2]
        if self.kind == "int":
            return list(range(low, high + 1, int(self.step or 1)))
        if self.kind == "uniform" and self.step:
            return [low + i * self.step for i in range(int((high - low) / self.step + 1e-9) + 1)]
        return None

    def value(self, plain: Any) -> Any:
        """What the schema has of a plain value."""
        if self.kind != "categories":
            return int(plain) if self.whole else float(plain)
        return self.values[self.choices.index(plain)]

    def extremes(self) -> list[Any]:
        """Values whose configurations are looked at before anything is trained: all categories, the ends of a range."""
        return list(self.values) if self.kind == "categories" else list(self.values[:2])

    def to_json(self) -> Any:
        """As a file of a space has it."""
        if self.kind == "categories":
            return [list(v) if isinstance(v, tuple) else v for v in self.values]
        return {self.kind: list(self.values)}

    def __str__(self) -> str:
        if self.kind == "categories":
            return " or ".join(str(choice) for choice in self.choices)
        low, high = (f"{x:g}" for x in self.values[:2])
        return f"{low} to {high}{', log' if self.kind == 'log' else ''}{f', step {self.step:g}' if self.step else ''}"


Space = Mapping[str, Dimension]


def _label(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def in_arrays(field: str) -> bool:
    """Whether trials that differ in a field are one population: the compiled program takes it as an array."""
    return field in Hyper._fields


def read_space(searched: Sequence[Sequence[str]] | Mapping[str, Any], file: Path | None) -> dict[str, Dimension]:
    """The space of the command line: of each `--search FIELD ...`, and of a YAML file that it goes over.

    From Python what is searched may be a mapping such as a file of a space holds.

    Raises:
      ConfigError: a field that is unknown or cannot be searched, or values that do not fit it.

    Example:
      >>> space = read_space([["learning_rate", "log", "1e-4", "3e-3"], ["encoder", "tcn", "none"]], None)
      >>> [str(dimension) for dimension in space.values()]
      ['0.0001 to 0.003, log', 'tcn or none']
    """
    space = _of_mapping(load_yaml(file), str(file)) if file is not None else {}
    flags = _of_mapping(searched, "search") if isinstance(searched, Mapping) else {}
    for words in searched if not isinstance(searched, Mapping) else ():
        if len(words) < 2:
            raise ConfigError(f"search: {' '.join(words)!r} is not a field with values; give FIELD and {FORMS}")
        field, *rest = words
        if field in flags:
            raise ConfigError(f"search: {field} is given twice; give all of its values at once")
        if rest[0] in RANGES or (_hint(field, f"search: {field}") in (int, float) and rest[0].isalpha()):
            flags[field] = _range(field, rest[0], rest[1:], f"search: {field}")
        else:
            flags[field] = _categories(field, [_parsed(field, text) for text in rest], f"search: {field}")
    space |= flags
    if not space:
        raise ConfigError("search: nothing to search; give --search FIELD VALUES or --space FILE")
    return space


def _of_mapping(raw: Any, source: str) -> dict[str, Dimension]:
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{source}: expected fields with their values, got {type(raw).__name__}")
    space = {}
    for field, values in raw.items():
        where = f"{source}: {field}"
        if isinstance(values, (list, tuple)):
            space[field] = _categories(str(field), values, where)
        elif (
            isinstance(values, dict)
            and len(values) == 1
            and isinstance(ends := next(iter(values.values())), (list, tuple))
        ):
            space[field] = _range(str(field), str(next(iter(values))), ends, where)
        else:
            raise ConfigError(f"{where}: expected a list of categories, or one of {{{'|'.join(RANGES)}: [low, high]}}")
    return space


def _hint(field: str, where: str) -> Any:
    """The type of a field that may be searched."""
    if field in FIELD_GROUP and FIELD_GROUP[field] in ("data", "gate"):
        what = "trials on other bars" if FIELD_GROUP[field] == "data" else "the gate judges after training, so trials"
        raise ConfigError(f"{where}: cannot be searched: {what} could not be compared by it")
    if field in _COSTS:
        raise ConfigError(f"{where}: cannot be searched: validations at other costs could not be compared")
    if field in _REFUSED:
        raise ConfigError(f"{where}: cannot be searched: {_REFUSED[field]}")
    if field not in FIELD_GROUP:
        raise ConfigError(f"{where}: unknown field; {nearest(field, FIELD_GROUP)}")
    hint = get_type_hints(GROUPS[FIELD_GROUP[field]])[field]
    if get_origin(hint) is dict:
        raise ConfigError(f"{where}: cannot be searched: it is a mapping, not one value")
    return hint


def _range(field: str, kind: str, ends: Sequence[Any], where: str) -> Dimension:
    hint = _hint(field, where)
    if kind not in RANGES:
        raise ConfigError(f"{where}: unknown kind {kind!r}; {nearest(kind, RANGES)}")
    if hint not in (int, float):
        raise ConfigError(f"{where}: has no numbers to range over; give its categories one by one")
    whole = hint is int
    if whole and kind == "uniform":
        raise ConfigError(f"{where}: takes whole numbers: give 'int' or 'log' in place of 'uniform'")
    if not whole and kind == "int":
        raise ConfigError(f"{where}: takes any number: give 'uniform' or 'log' in place of 'int'")
    most = 2 if kind == "log" else 3
    if not 2 <= len(ends) <= most:
        raise ConfigError(f"{where}: {kind} takes LOW HIGH{'' if most == 2 else ' [STEP]'}, got {len(ends)} values")
    numbers = tuple(_number(end, whole, where) for end in ends)
    low, high = numbers[:2]
    if not low < high:
        raise ConfigError(f"{where}: the low end must be below the high end, got {low:g} and {high:g}")
    if kind == "log" and low <= 0:
        raise ConfigError(f"{where}: a log range must begin above 0, got {low:g}; use a small number, or another kind")
    if len(numbers) > 2 and not 0 < numbers[2] <= high - low:
        raise ConfigError(f"{where}: the step must be above 0 and at most {high - low:g}, got {numbers[2]:g}")
    return Dimension(field, kind, numbers, whole)  # type: ignore[arg-type]


def _number(value: Any, whole: bool, where: str) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or (whole and number != int(number)):
        raise ConfigError(f"{where}: expected a {'whole ' if whole else ''}number, got {value!r}")
    return int(number) if whole else number


def _categories(field: str, values: Sequence[Any], where: str) -> Dimension:
    _hint(field, where)
    found = tuple(coerce_fields({field: value}, where.removesuffix(f": {field}"))[field] for value in values)
    if len(found) < 2:
        raise ConfigError(f"{where}: one value is no choice; give two or more, or --{field.replace('_', '-')} instead")
    labels = [_label(value) for value in found]
    for i, label in enumerate(labels):
        if label in labels[:i]:
            raise ConfigError(f"{where}: {label} is given twice")
    return Dimension(field, "categories", found)


def _parsed(field: str, text: str) -> Any:
    """A category of the command line as YAML would have it: the type of the field says how to read it."""
    hint = _hint(field, f"search: {field}")
    return _as(hint, text)


def _as(hint: Any, text: str) -> Any:
    if get_origin(hint) is tuple:
        return [_as(get_args(hint)[0], item) for item in text.split(",")]
    if type(None) in get_args(hint):
        return None if text.lower() == "none" else _as(get_args(hint)[0], text)
    if hint is bool:
        return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower(), text)
    if hint is int and text.lstrip("+-").isdigit():
        return int(text)
    return text  # a float's text is read as one where its type is checked
