"""How the features of a configuration are made: groups over bars, longer bars, and what is known from elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxppo.config.schema import Config
from jaxppo.errors import ConfigError, DataError
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import format_interval
from jaxppo.market.context import Context, contexts
from jaxppo.market.features import FeatureTable, compute_features, feature_groups, feature_hash, feature_names, min_bars
from jaxppo.market.inputs import FeatureGroup
from jaxppo.market.outside import Outside, read_outside


@dataclass(frozen=True, eq=False)
class Recipe:
    """The features of a configuration as a function of one symbol's bars, row t from what is known at close t."""

    groups: tuple[FeatureGroup, ...]
    scale_window: int
    contexts: tuple[Context, ...] = ()
    outside: Outside | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features, in their order."""
        longer = tuple(name for context in self.contexts for name in context.names)
        return feature_names(self.groups) + longer + (self.outside.columns if self.outside else ())

    @property
    def by_group(self) -> dict[str, tuple[str, ...]]:
        """The names by the group that they are of; those from elsewhere are one group, `extra`.

        Example:
          >>> [f"{name}: {len(of)}" for name, of in feature_recipe(Config()).by_group.items()][:2]
          ['base: 7', 'intraday: 4']
        """
        found = {group.name: group.names for group in self.groups}
        for context in self.contexts:
            longer = format_interval(context.seconds)
            found |= {f"{longer} {g.name}": tuple(f"{longer}_{name}" for name in g.names) for g in context.groups}
        return found | ({"extra": self.outside.columns} if self.outside else {})

    @property
    def bars_alone(self) -> bool:
        """Whether groups over the bars themselves are all there is, such as can be fed bar by bar."""
        return not self.contexts and self.outside is None

    @property
    def hash(self) -> str:
        """What a checkpoint keeps of names, scaling and joining."""
        return feature_hash(self.names, self.scale_window, self.outside.facts if self.outside else ())

    @property
    def min_bars(self) -> int:
        """Bars of history that the groups need for one row; longer bars, or what is known elsewhere, may need more."""
        return min_bars(self.groups, self.scale_window)

    def __call__(self, bars: Bars) -> FeatureTable:
        """Features of one symbol; rows before its own `min_bars - 1` are 0.

        Raises:
          DataError: too few bars, a value that is no price, or bars without any row from elsewhere.
        """
        table = compute_features(bars, self.groups, self.scale_window)
        if self.bars_alone:
            return table
        parts, needed = [table.values], table.min_bars
        for part in self.contexts:
            values, first = part.features(bars)
            parts, needed = [*parts, values], max(needed, first + 1)
        if self.outside is not None:
            values, first = self._outside_features(self.outside, bars)
            parts, needed = [*parts, values], max(needed, first + 1)
        joined = np.concatenate(parts, axis=1)
        joined[: needed - 1] = 0.0
        return FeatureTable(joined, self.names, needed)

    def _outside_features(self, outside: Outside, bars: Bars) -> tuple[np.ndarray, int]:
        values, first = outside.features(bars)
        if first >= len(bars.time):
            raise DataError(
                f"{bars.symbol}: {len(bars.time)} bars in {bars.source}, but features from {outside.file} are first"
                f" known at bar {outside.join(bars).first} (0-based) and need {first + 1} bars with --scale-window"
                f" {self.scale_window}; give earlier rows, or --extra-scale none"
            )
        return values.astype(np.float32), first

    def without_outside(self) -> Recipe:
        """The groups alone: of made-up bars nothing is known from elsewhere."""
        return dataclasses.replace(self, outside=None)

    def changed_after(self, bars: Sequence[Bars], cuts: Sequence[int], rng: np.random.Generator) -> Recipe:
        """The same features where all that became known elsewhere after each symbol's bar `cut` is another."""
        if self.outside is None:
            return self
        return dataclasses.replace(self, outside=self.outside.changed_after(bars, cuts, rng))

    def data_hash(self, bars: Sequence[Bars], own: str) -> str:
        """The hash `own` of bars, with what is known from elsewhere of their symbols."""
        if self.outside is None:
            return own
        return hashlib.sha256(f"{own} {self.outside.hash(bars)}".encode()).hexdigest()

    def lines(self, bars: Sequence[Bars]) -> tuple[str, ...]:
        """What was made of files of features, a line each."""
        return tuple(self.outside.lines(bars)) if self.outside else ()

    def warnings(self, bars: Sequence[Bars]) -> tuple[str, ...]:
        """What is doubtful about them."""
        return tuple(self.outside.warnings(bars)) if self.outside else ()


def feature_recipe(config: Config) -> Recipe:
    """The features that a configuration names; reads its file of features from elsewhere, if it has one.

    Raises:
      ConfigError: an unknown group, or a name that two features have.
      DataError: a file that cannot be used.

    Example:
      >>> feature_recipe(Config()).min_bars
      389
    """
    features = config.features
    groups, outside = tuple(feature_groups(features)), read_outside(features, config.data.timezone)
    recipe = Recipe(groups, features.scale_window, contexts(features), outside)
    if recipe.outside:
        own = dataclasses.replace(recipe, outside=None).names
        twice = [name for name in recipe.outside.columns if name in own]
        if twice:
            raise ConfigError(
                f"{recipe.outside.file}: column {twice[0]!r} has the name of a feature of --features; rename it"
            )
    return recipe
