"""Features of longer bars beside those of one's own: at every close those of the last longer bar that is complete."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxppo.config.schema import FeatureConfig
from jaxppo.errors import ConfigError, DataError
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import format_interval
from jaxppo.market.features import compute_features, feature_groups, feature_names, min_bars
from jaxppo.market.inputs import FeatureGroup, total_return
from jaxppo.market.resample import buckets, parse_longer, resample


@dataclass(frozen=True)
class Context:
    """Groups of features over bars of a longer interval."""

    seconds: int
    groups: tuple[FeatureGroup, ...]
    scale_window: int  # longer bars

    @property
    def names(self) -> tuple[str, ...]:
        """Such as 1d_rsi_14."""
        return tuple(f"{format_interval(self.seconds)}_{name}" for name in feature_names(self.groups))

    def features(self, bars: Bars) -> tuple[np.ndarray, int]:
        """Features (T, F) float32 of the last longer bar that is complete at each close, and the first bar with them.

        Raises:
          DataError: bars that are not shorter, or too few for a longer one's features.
        """
        if bars.interval >= self.seconds:
            have, want = format_interval(bars.interval), format_interval(self.seconds)
            raise DataError(f"{bars.source}: bars of {have} of {bars.symbol} are not shorter than --context {want}")
        bars = total_return(bars)
        table = compute_features(resample(bars, self.seconds), self.groups, self.scale_window)
        # Bars of which the longer one is made are all known when it is, so nothing of a later bar is in its row.
        row = np.searchsorted(buckets(bars, self.seconds).known, np.arange(len(bars.time)), side="right") - 1
        known = row >= table.min_bars - 1
        return np.where(known[:, None], table.values[np.maximum(row, 0)], np.float32(0.0)), int(np.argmax(known))


def contexts(config: FeatureConfig) -> tuple[Context, ...]:
    """The longer bars whose features a configuration asks for, in order.

    Raises:
      ConfigError: an interval that bars cannot be made into, an unknown group, or one of them twice.

    Example:
      >>> [c.names[5] for c in contexts(FeatureConfig(context=("4h", "1d")))]
      ['4h_rsi_14', '1d_rsi_14']
    """
    if not config.context:
        if config.context_features != FeatureConfig().context_features:
            raise ConfigError("context_features: are of the longer bars of --context; give that, or leave them out")
        return ()
    seconds = [parse_longer(text, "context") for text in config.context]
    if len(set(seconds)) < len(seconds):
        raise ConfigError(f"context: names an interval twice, {' '.join(config.context)}; give each once")
    groups = tuple(feature_groups(config, config.context_features))
    min_bars(groups, config.scale_window)  # refuses a window that is none
    return tuple(Context(s, groups, config.scale_window) for s in seconds)
