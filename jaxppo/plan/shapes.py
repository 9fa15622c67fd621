"""The shapes of a market that the program is compiled for: of a real one, or of one that is only counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.encoders import receptive_field
from jaxppo.config.schema import Config
from jaxppo.errors import ConfigError
from jaxppo.market.dataset import MIN_DECISIONS, Calendar, Days, EvaluationSet, Market, purge_gap, warm_up_bars
from jaxppo.market.recipe import feature_recipe
from jaxppo.market.splits import SPLITS, SplitRange, cutoff_times, split_ranges
from jaxppo.market.tape import REWARD_HORIZON, Tape, zero_tape
from jaxppo.play.passes import n_decisions


@dataclass(frozen=True)
class MarketShapes:
    """Arrays without content: `jax.ShapeDtypeStruct` in place of each."""

    tape: Tape
    data: EvaluationSet
    n_decisions: int  # of the longest symbol of the validation split
    n_trained: int  # decisions of all symbols of the training split
    beside_bytes: int  # on the device during a run, but no argument of the program: the test split
    words: tuple[str, str]  # what market, and how much of it lies on the device


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of a pytree, with or without content."""
    return sum(int(np.prod(x.shape)) * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def abstract(tree: Any) -> Any:
    """`tree` with shapes in place of its arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def shapes_of_market(market: Market, data: EvaluationSet, source: str) -> MarketShapes:
    """The shapes of a market that was read, and of the evaluation set of its validation split."""
    tape = market.splits["train"].tape
    test = market.splits.get("test")
    bars = sum(len(b.time) for b in market.bars)
    words = f"{source}: {len(market.bars)} symbols, {bars:,} bars"
    beside = tree_bytes(test.tape) if test else 0
    trained, told = market.n_decided("train"), _words(words, tape, data.tape)
    return MarketShapes(abstract(tape), abstract(data), n_decisions(data.tape), trained, beside, told)


def shapes_of_sizes(config: Config, n_symbols: int, n_bars: int) -> MarketShapes:
    """The shapes of a market of `n_bars` bars, split among `n_symbols` symbols that share one calendar.

    Raises:
      ConfigError: too few bars for the splits.
    """
    if n_symbols < 1 or n_bars < n_symbols:
        raise ConfigError(f"n_symbols {n_symbols}, n_bars {n_bars}: at least one symbol, and a bar for each")
    recipe = feature_recipe(config)
    width = len(recipe.names)
    warm_up = warm_up_bars(recipe.min_bars, config.env) - 1
    longest = -(-n_bars // n_symbols)
    ranges = _ranges(config, longest - warm_up)
    needed = {"train": config.budget.n_steps + REWARD_HORIZON, "validation": MIN_DECISIONS}
    for split, decisions in needed.items():
        if ranges[split].decisions < decisions:
            raise ConfigError(
                f"n_bars {n_bars:,}: {longest:,} bars a symbol, of which {warm_up} warm the features up, leave"
                f" {ranges[split].decisions} to decide on in the {split} split; at least {decisions} are needed"
            )
    sized = config.env.size_by == "volatility"
    tapes = {
        s: jax.eval_shape(lambda n=r.end - r.begin: zero_tape(n_symbols, n, width, sized)) for s, r in ranges.items()
    }
    decisions = ranges["validation"].decisions
    behind, valid = jnp.zeros((n_symbols, decisions), jnp.int32), jnp.ones(decisions, bool)
    days = Days(behind, valid, jnp.zeros(()))  # at most as many as bars
    calendar = jax.eval_shape(lambda: Calendar(behind, valid, jnp.zeros(()), days))
    data = EvaluationSet(tapes["validation"], calendar)
    words = (
        f"{n_symbols} symbols, {n_bars:,} bars in all (--n-symbols, --n-bars; --data takes the shapes of real files)"
    )
    beside = tree_bytes(tapes["test"]) if ranges["test"].decisions >= MIN_DECISIONS else 0
    trained, told = n_symbols * ranges["train"].decisions, _words(words, tapes["train"], tapes["validation"])
    return MarketShapes(tapes["train"], data, decisions, trained, beside, told)


def _ranges(config: Config, n_bars: int) -> dict[str, SplitRange]:
    """Where a symbol of `n_bars` usable bars is cut."""
    if n_bars < 1:
        return dict.fromkeys(SPLITS, SplitRange(0, 0, 0))
    time = np.arange(n_bars, dtype=np.int64)
    reach = receptive_field(config.agent)
    return split_ranges(time, cutoff_times([time], config.data), reach, purge_gap(config, reach))


def _words(start: str, train: Tape, validation: Tape) -> tuple[str, str]:
    return start, (
        f"{train.n_features} features; {train.n_symbols} x {train.n_bars:,} bars to train on,"
        f" {validation.n_symbols} x {validation.n_bars:,} to validate on"
    )
