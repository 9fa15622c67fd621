"""Features of longer bars: at every close those of the last one that is complete, as a trader would have them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import tiny_config, tiny_market

from jaxppo.check.lookahead import check_lookahead
from jaxppo.errors import ConfigError, DataError
from jaxppo.market.bars import Bars, slice_bars
from jaxppo.market.calendar import DAY, HOUR
from jaxppo.market.context import contexts
from jaxppo.market.features import compute_features
from jaxppo.market.recipe import feature_recipe
from jaxppo.market.resample import resample
from jaxppo.market.synthetic import synthetic_market
from jaxppo.ppo.checks import check_program

CONFIG = tiny_config(context=("4h", "1d"), context_features=("base", "calendar"), scale_window=3)


def market(asset_class: str) -> Bars:
    """240 days of hours: of crypto, or of New York's sessions from 09:30 to 16:30."""
    (bars,) = synthetic_market(4, 1, 240 * 24)
    if asset_class == "crypto":
        return replace(bars, asset_class="crypto", timezone="UTC")
    days = [d for d in range(19_690, 19_690 + 240) if (d + 3) % 7 < 5]
    time = np.concatenate([d * DAY + 14 * HOUR + 1800 + HOUR * np.arange(7) for d in days])
    time -= HOUR * (time >= int(np.datetime64("2024-03-10", "s").astype(np.int64)))  # daylight saving
    short = slice_bars(bars, slice(len(time)))
    return replace(short, time=time, asset_class="equity", timezone="America/New_York")


@pytest.mark.parametrize("asset_class", ["crypto", "equity"])
def test_every_row_is_that_of_the_bars_up_to_there(asset_class: str) -> None:
    bars, recipe = market(asset_class), feature_recipe(CONFIG)
    table = recipe(bars)
    assert table.names[7:9] == ("4h_price_z", "4h_return")
    assert table.names == recipe.names
    assert len(table.names) == 7 + 2 * 14
    assert not table.values[: table.min_bars - 1].any()
    assert np.isfinite(table.values).all()
    for t in range(table.min_bars - 1, len(bars.time), 41):
        history = slice_bars(bars, slice(t + 1))
        np.testing.assert_array_equal(recipe(history).values[-1], table.values[t])
        for part, begin in zip(contexts(CONFIG.features), (7, 21), strict=True):
            longer = resample(history, part.seconds)  # whose last bar is complete
            own = compute_features(longer, part.groups, 3).values[-1]
            np.testing.assert_array_equal(table.values[t, begin : begin + 14], own)


def test_a_longer_bar_is_seen_from_its_close_on_and_not_before() -> None:
    bars, recipe = market("crypto"), feature_recipe(CONFIG)
    values = recipe(bars).values[:, recipe.names.index("4h_log_return")]
    changes = np.flatnonzero(np.diff(values[recipe(bars).min_bars :])) + recipe(bars).min_bars + 1
    # Bars of hours that begin at 3, 7, 11, ... close with the longer one.
    assert set(bars.time[changes] // HOUR % 24 % 4) == {3}
    equity = market("equity")
    values = recipe(equity).values[:, recipe.names.index("1d_log_return")]
    changes = np.flatnonzero(np.diff(values[recipe(equity).min_bars :])) + recipe(equity).min_bars + 1
    # Of an exchange's day in summer the bar of 15:30 New York, 19:30 UTC, is the last.
    assert set(equity.time[changes] // 1800 % 48) == {39}


def test_the_look_ahead_check_covers_them_and_catches_one_that_is_early(monkeypatch: pytest.MonkeyPatch) -> None:
    bars, recipe = market("equity"), feature_recipe(CONFIG)
    assert check_lookahead(recipe, [bars], cuts=3).passed
    from jaxppo.market import context

    known = context.buckets

    def early(bars: Bars, seconds: int):
        found = known(bars, seconds)
        return found._replace(known=found.first)  # as if it were known when it begins

    monkeypatch.setattr(context, "buckets", early)
    caught = check_lookahead(recipe, [bars], cuts=3)
    assert not caught.passed
    assert all(name.startswith(("4h_", "1d_")) for name in caught.details["features"])


def test_they_are_features_of_a_market_like_any_other() -> None:
    config = tiny_config(context=("4h",))
    built, plain = tiny_market(config), tiny_market(tiny_config())
    assert built.feature_names[:7] == plain.feature_names
    assert built.feature_names[7] == "4h_price_z"
    assert built.feature_hash != plain.feature_hash
    assert built.data_hash == plain.data_hash
    first = built.splits["train"].times[0][0]
    # 115 bars of four hours warm the features up.
    assert (first - built.bars[0].time[0]) // HOUR in range(4 * 115 - 4, 4 * 115 + 4)
    assert np.asarray(built.splits["train"].tape.features)[0, :, 7:].std(axis=0).min() > 0


def test_what_cannot_be_is_refused() -> None:
    for changes, message in (
        ({"context": ("5h",)}, "context: '5h' is no even part of a day"),
        ({"context": ("4h", "240m")}, "context: names an interval twice, 4h 240m"),
        ({"context": ("4h",), "context_features": ("bas",)}, "unknown feature group 'bas'"),
        ({"context_features": ("trend",)}, "context_features: are of the longer bars of --context"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_program(tiny_config(**changes))
    bars = market("crypto")
    with pytest.raises(DataError, match="bars of 1h of SYN_A are not shorter than --context 1h"):
        feature_recipe(tiny_config(context=("1h",)))(bars)
    with pytest.raises(DataError, match=r"SYN_A: 20 bars in synthetic market, seed 4 \(1h made into 1d\), but"):
        feature_recipe(tiny_config(context=("1d",)))(slice_bars(bars, slice(490)))
