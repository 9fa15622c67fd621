"""The members of a population from the command line: every combination of some values of some fields."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from jaxppo.config.layers import parse_yaml
from jaxppo.config.schema import Config, coerce_fields
from jaxppo.errors import ConfigError, JaxppoError, nearest
from jaxppo.members import SWEPT, member_config
from jaxppo.ppo.checks import check_program

Grid = Mapping[str, tuple[Any, ...]]
"""Values of each field, in the order in which they were given."""


def parse_grid(given: Sequence[Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
    """What `--grid FIELD VALUE VALUE ...` say, each as its words; from Python values may be numbers.

    Raises:
      ConfigError: no value, a value given twice, a field given twice, unknown, or not one of a population.

    Example:
      >>> parse_grid([["learning-rate", "1e-4", "3e-4"], ["seed", "0", "1"]])
      {'learning_rate': (0.0001, 0.0003), 'seed': (0, 1)}
    """
    grid: dict[str, tuple[Any, ...]] = {}
    for words in given:
        name = str(words[0]).replace("-", "_") if words else ""
        if len(words) < 2:
            raise ConfigError(f"--grid {name}: needs a field and its values, such as --grid learning_rate 1e-4 3e-4")
        if name in grid:
            raise ConfigError(f"--grid {name}: is given twice; give all of its values after one --grid")
        member_config(Config(), {name: None})  # refuses what is no field of a population
        values = tuple(coerce_fields({name: _plain(str(word))}, "--grid")[name] for word in words[1:])
        twice = [v for i, v in enumerate(values) if v in values[:i]]
        if twice:
            raise ConfigError(f"--grid {name}: has {twice[0]} twice, which would be the same run twice")
        grid[name] = values
    return grid


def _plain(word: str) -> Any:
    try:
        return parse_yaml(word)
    except yaml.YAMLError:
        return word


def grid_values(grid: Grid) -> list[dict[str, Any]]:
    """The swept fields of each member: every combination, the last field the fastest.

    Example:
      >>> grid_values({"gamma": (0.9, 0.99), "seed": (0, 1)})[1]
      {'gamma': 0.9, 'seed': 1}
    """
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def member_configs(config: Config, members: Sequence[Mapping[str, Any]]) -> list[Config]:
    """The checked configuration of each member; `ConfigError` names the member whose values do not fit."""
    found = []
    for values in members:
        try:
            found.append(check_program(member_config(config, values)))
        except JaxppoError as error:
            raise ConfigError(f"--grid {values_text(values)}: {error}") from error
    return found


def values_text(values: Mapping[str, Any]) -> str:
    """The swept values of a member in a phrase.

    Example:
      >>> values_text({"learning_rate": 1e-4, "seed": 0})
      'learning_rate 0.0001, seed 0'
    """
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def grid_text(grid: Grid) -> str:
    """A grid in a phrase."""
    return " x ".join(f"{name} {' '.join(f'{v:g}' for v in values)}" for name, values in grid.items())


def require_grid(raw: Any, where: str) -> dict[str, tuple[Any, ...]]:
    """A grid as a population's folder keeps it, checked."""
    if not isinstance(raw, dict) or not raw or not all(isinstance(v, list) and v for v in raw.values()):
        raise ConfigError(f"{where}: holds no grid; expected fields with lists of values")
    for name in raw:
        if name not in SWEPT:
            raise ConfigError(f"{where}: unknown field {name!r}; {nearest(str(name), SWEPT)}")
    return {name: tuple(coerce_fields({name: v}, where)[name] for v in values) for name, values in raw.items()}
