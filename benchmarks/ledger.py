"""How often float32 decides a bar differently from the plain-Python reference of the account. Nothing here is a test.

    python benchmarks/ledger.py --bars 1000000
    python benchmarks/ledger.py --bars 1000000 --ticks

Random markets of three volatilities with gaps, flat bars and costs, random actions from five action tables, up to three
times leverage. Every bar on which a stop, take-profit, liquidation, ruin, round trip or win differs from the reference
is counted, whether or not the reference calls it too close to tell; then that account is left, since it holds another
position from there on. Largest errors are over the bars before.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # the reference lives among the tests

from tests.reference.compare import (
    EXACT,
    RANDOM,
    ROUNDING,
    TOLERANCE,
    Told,
    faults,
    first_faults,
    follow,
    play,
    random_case,
)

EXITS = ("none", "stop", "take-profit", "liquidation")


@dataclass
class Tally:
    """What one dtype got wrong."""

    bars: int = 0
    kinds: Counter = field(default_factory=Counter)  # bars, by what differed on them; one may count under several
    too_close: int = 0  # of them, those that the reference calls too close to tell
    error: Counter = field(default_factory=Counter)  # the largest, by field

    def add(self, accounts, records, told: Told, dtype: str) -> None:
        """Count one batch of accounts (L, N)."""
        wrong = faults(accounts, records, told, TOLERANCE[dtype])
        n = told.margin.shape[1]
        first = first_faults({k: wrong[k] for k in EXACT})
        before = np.arange(n) < first.reshape(-1, 1)
        self.bars += int(before.sum() + (first < n).sum())
        for lane in np.flatnonzero(first < n):
            at = lane, first[lane]
            kinds = {k for k in ("ruined", "closed", "won") if wrong[k][at]}
            if wrong["reason"][at]:
                kinds |= {EXITS[int(told.exact["reason"][at])], EXITS[int(records.reason[at])]} - {"none"}
            self.kinds.update({"any"} | kinds)
            self.too_close += bool(told.margin[at] < ROUNDING[dtype])
        solvent = before & (told.value["equity"] > 0.05)
        errors = {
            # An account of 1 that is down to a twentieth has lost 19 times what is left.
            "equity, of the equity": np.abs(accounts.equity / told.value["equity"] - 1)[solvent],
            "exit price": np.abs(records.exit_price / told.value["exit_price"] - 1)[before],
            "stop": np.abs(accounts.stop / told.value["stop"] - 1)[before],
        }
        for k in ("equity", "cash", "units"):
            gross = told.scale["cash"] if k != "units" else told.scale["units"]
            errors[f"{k}, of the money moved"] = (np.abs(getattr(accounts, k) - told.value[k]) / gross)[before]
        for k, values in errors.items():
            said = values[np.isfinite(values)]
            self.error[k] = max(self.error[k], said.max(initial=0.0))

    def report(self, dtype: str) -> None:
        """Print it."""
        share = self.kinds["any"] / self.bars
        print(f"{dtype}: {self.kinds['any']} of {self.bars:,} bars differ ({share:.1e}): {dict(self.kinds) or 'none'}")
        print(f"  too close to tell, within {ROUNDING[dtype]:g} of a boundary: {self.too_close} of them")
        print("  largest relative error: " + "; ".join(f"{k} {v:.1e}" for k, v in self.error.items()))


def on_ticks(prices: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Prices in whole cents from 20 on, so that levels 2 % or 4 % away are often touched exactly."""
    level = rng.uniform(20, 500, (prices[0].shape[0], 1)) / prices[0][:, :1]
    return [np.round(np.maximum(p * level, 0.01), 2) for p in prices]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bars", type=int, default=1_000_000, help="in all, over the action tables")
    parser.add_argument("--length", type=int, default=250, help="bars of one account")
    parser.add_argument("--lanes", type=int, default=64, help="accounts at a time")
    parser.add_argument("--ticks", action="store_true", help="prices in whole cents, no slippage")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cases = -(-args.bars // (args.lanes * args.length * len(RANDOM)))
    rng = np.random.default_rng(args.seed)
    tallies = {dtype: Tally() for dtype in TOLERANCE}
    events: Counter = Counter()
    began = time.perf_counter()
    for case in range(cases):
        for name in RANDOM:
            kind = rng.choice((0.002, 0.01, 0.05)), rng.choice((0.0, 0.1, 0.5)), rng.choice((0.0, 0.3)), bool(case % 2)
            seed = int(rng.integers(2**32))
            prices, actions, costs, short = random_case(name, seed, *kind, args.lanes, args.length)
            if args.ticks:
                prices, costs[1] = on_ticks(prices, rng), 0.0
            told = follow(name, prices, actions, costs, short)
            for dtype, tally in tallies.items():
                tally.add(*play(name, prices, actions, costs, short, dtype), told, dtype)
            events.update(EXITS[r] for r in told.exact["reason"].astype(int).ravel().tolist())
            events["round trips"] += int(told.exact["closed"].sum())
            events["ruined accounts"] += int(told.exact["ruined"].any(1).sum())
    del events["none"]
    print(f"{cases * len(RANDOM) * args.lanes} accounts in {time.perf_counter() - began:.0f} s: {dict(events)}")
    for dtype, tally in tallies.items():
        tally.report(dtype)


if __name__ == "__main__":
    main()
