"""A trained policy that decides by itself: this folder, Python and NumPy (or onnxruntime, or jax).

    python decide.py --self-test
    python decide.py bars.csv --symbol BTCUSDT --account account.json

    from decide import Policy
    policy = Policy(".")
    decision = policy.decide(window, {"equity": 10000.0}, symbol="BTCUSDT", close=61250.0)

`policy.json` says what the policy is: features in their order, action table, account settings, symbols, least bars.
A window is float32 of shape (receptive field, features), oldest bar first, as `Stream` computes it from raw bars. An
account is a dict of equity or cash, and where known units, average_price, bars_held, start, peak, trades, wins, stop,
take_profit, in money. `bars.csv` has timestamp (epoch seconds, or ISO 8601 with an offset), open, high, low, close and
optionally volume.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import sys
import zipfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from jaxppo.export.networks import FILES, FLOAT, load_network
from jaxppo.live.features import Bar, Features, Size

DUST = FLOAT(1e-6)
LARGEST = float(np.finfo(FLOAT).max)
BARS_HELD_SCALE = math.log1p(256)
FACTS = (
    *("equity", "cash", "units", "average_price", "bars_held", "start", "peak"),
    *("trades", "wins", "stop", "take_profit"),
)
"""Of an account, as it is told in money."""
POSITIVE = ("equity", "start", "average_price", "peak", "stop", "take_profit")
COUNTS = ("bars_held", "trades", "wins")
NUMBERS = ("equity", "peak", "units", "average_cost", "stop", "take_profit", "bars_held", "trades", "wins")
"""Of an account in starting equities."""
MARKET = ("close", "size", "price", "allow_short", "fee", "impact")
"""What an account is decided at."""


class Refused(Exception):
    """Why there is no decision, in a sentence."""


def content_hash(facts: Mapping[str, Any], network: bytes) -> str:
    """SHA-256 (hex) of the network's file and of all that policy.json says but this."""
    rest = {k: v for k, v in facts.items() if k != "hash"}
    return hashlib.sha256(network + json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """The value of a JSON file; `Refused` where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path}: not JSON ({error})") from error


class Policy:
    """The policy of a folder."""

    def __init__(self, folder: str | Path = "."):
        folder = Path(folder)
        self.facts: dict[str, Any] = read_json(folder / "policy.json")
        if not isinstance(self.facts, dict) or self.facts.get("format") not in FILES or "hash" not in self.facts:
            raise Refused(f"{folder / 'policy.json'}: not what was exported; export the policy again")
        path = folder / FILES[self.facts["format"]]
        if content_hash(self.facts, path.read_bytes()) != self.facts["hash"]:
            raise Refused(f"{folder}: {path.name} or policy.json is not what was exported: the hash differs")
        self.actions, self.env = self.facts["actions"], self.facts["env"]
        self.network = load_network(path, self.facts["format"], self.facts["encoder"])
        self.labels = tuple(self.actions["labels"])
        self._keep = np.array(self.actions["keep"])
        self._scale, self._offset = (np.array(self.actions[k], FLOAT) for k in ("scale", "offset"))

    def terms(self, symbol: str | None) -> dict[str, Any]:
        """What a symbol is traded at."""
        symbols = self.facts["symbols"]
        if symbol is None and len(symbols) == 1:
            return dict(next(iter(symbols.values())))
        if symbol not in symbols:
            raise Refused(f"symbol: {symbol!r} given; the policy knows {', '.join(sorted(symbols))}")
        return dict(symbols[symbol])

    def account(self, facts: Mapping[str, Any] | None, close: float) -> tuple[dict[str, np.floating], float]:
        """An account in starting equities, and the money that its 1 stands for."""
        if facts is not None and not isinstance(facts, Mapping):
            raise Refused(f"account: must be an object with the fields {', '.join(FACTS)}")
        told = {k: v for k, v in ({"equity": 1.0} if facts is None else facts).items() if v is not None}
        for name, value in told.items():
            if name not in FACTS:
                raise Refused(f"account: unknown field {name!r}; known are {', '.join(FACTS)}")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise Refused(f"account: {name} must be a finite number, got {value!r}")
            if name in POSITIVE and value <= 0:
                raise Refused(f"account: {name} must be above 0, got {value!r}")
            if name in COUNTS and (value < 0 or value != int(value)):
                raise Refused(f"account: {name} must be a whole number of at least 0, got {value!r}")
        if ("equity" in told) == ("cash" in told):
            raise Refused("account: give one of equity and cash")
        units = told.get("units", 0.0)
        equity = told["equity"] if "equity" in told else told["cash"] + units * close
        if equity <= 0:
            raise Refused(f"account: its equity is {equity:g} at a close of {close:g}; nothing can be decided for it")
        start = told.get("start", equity)
        cost = told.get("average_price", close) if units else 0.0
        side = 1.0 if units > 0 else -1.0
        off = self.env["stop_loss"], self.env["take_profit"]
        stop = cost * (1.0 - side * off[0]) if off[0] > 0 else (0.0 if units >= 0 else math.inf)
        take = cost * (1.0 + side * off[1]) if off[1] > 0 else (math.inf if units >= 0 else 0.0)
        peak = max(told.get("peak", max(equity, start)), equity)
        held = told.get("bars_held", 1) if units else 0
        levels = told.get("stop", stop), told.get("take_profit", take)
        counts = held, told.get("trades", 0), told.get("wins", 0)
        values = (equity / start, peak / start, units / start, cost, *levels, *counts)
        if not all(abs(v) <= LARGEST or v == math.inf for v in values):
            raise Refused("account: an amount is too large beside the start to be reckoned with")
        return dict(zip(NUMBERS, (FLOAT(v) for v in values), strict=True)), start

    def exposure(self, a: Mapping[str, Any], close: Any, price: Any) -> Any:
        """Signed notional over equity at `price`, of an account marked at `close`."""
        equity = a["equity"] + a["units"] * (price - close)
        return np.where(equity > 0, a["units"] * price / np.where(equity > 0, equity, FLOAT(1)), FLOAT(0))

    def observe(self, a: Mapping[str, Any], close: Any, size: Any) -> np.ndarray:
        """Account vectors (N, 8), in the order of `observation` in policy.json."""
        held, side = a["units"] != 0, np.sign(a["units"])
        entry = np.where(held, a["average_cost"], FLOAT(1))
        win_rate = np.where(a["trades"] > 0, a["wins"] / np.maximum(a["trades"], FLOAT(1)), FLOAT(0.5))
        unrealised = np.where(held, side * (close / entry - FLOAT(1)), FLOAT(0)) * size

        def distance(level: Any, width: float) -> Any:
            if width == 0:
                return np.zeros_like(entry)
            near = np.where(held, np.abs(close - np.where(held, level, close)), FLOAT(0)) / (entry * FLOAT(width))
            return np.where(held, np.clip(near, FLOAT(0), FLOAT(4)), FLOAT(0))

        columns = [
            np.tanh(FLOAT(10) * (a["equity"] - FLOAT(1))),
            win_rate,
            np.clip(FLOAT(1) - a["equity"] / a["peak"], FLOAT(0), FLOAT(1)),
            self.exposure(a, close, close) / size,
            np.tanh(FLOAT(10) * unrealised),
            np.log1p(a["bars_held"]) / FLOAT(BARS_HELD_SCALE),
            distance(a["stop"], self.env["stop_loss"]),
            distance(a["take_profit"], self.env["take_profit"]),
        ]
        return np.stack([np.broadcast_to(c, np.shape(a["equity"])) for c in columns], axis=-1).astype(FLOAT)

    def mask(self, exposure: Any, allow_short: Any) -> np.ndarray:
        """Which actions mean something, (N, K): a sale where no short is allowed needs a long."""
        selling = ~self._keep & (self._offset < 0)
        return ~((~np.asarray(allow_short) & (exposure <= 0))[..., None] & selling)

    def asked(self, exposure: Any, allow_short: Any, size: Any) -> np.ndarray:
        """The exposure that each action asks for, (N, K)."""
        most = FLOAT(self.env["max_exposure"])
        now, unit = np.asarray(exposure)[..., None], np.asarray(size)[..., None]
        lowest = np.where(allow_short, -most, FLOAT(0))[..., None]
        target = np.clip(self._scale * now + self._offset * unit, lowest, most)
        return np.where(self._keep, now, np.where(np.abs(target) < DUST, FLOAT(0), target))

    def run(
        self, window: np.ndarray, a: Mapping[str, np.ndarray], market: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Decisions of N accounts in starting equities: arrays (N, ...), all of float32 but `allow_short`."""
        close, size, price, allow_short, fee, impact = (market[name] for name in MARKET)
        observation = self.observe(a, close, size)
        log_probs, value = self.network(window, observation, self.mask(observation[..., 3], allow_short))
        mode = log_probs.argmax(axis=-1)
        now = self.exposure(a, close, price)
        asked, band = self.asked(now, allow_short, size), FLOAT(self.env["rebalance_band"]) * size
        if self.env["act_by"] == "mean":
            wanted = (asked * np.exp(log_probs)).sum(axis=-1)
            stays = np.abs(wanted - now) < band
        else:
            wanted = np.take_along_axis(asked, mode[..., None], axis=-1)[..., 0]
            stays = self._keep[mode] | ((wanted * now > 0) & (np.abs(wanted - now) < band))
        equity, notional = a["equity"] + a["units"] * (price - close), a["units"] * price
        gap = wanted * equity - notional
        side = np.sign(gap)
        cost = impact + fee + side * impact * fee
        order = gap / (FLOAT(1) + wanted * cost * side)
        stays = stays | (equity <= FLOAT(self.env["ruin_level"]))
        units = np.where(stays, a["units"], wanted * (equity - cost * np.abs(order)) / price)
        stop, take = self.levels(a, units, price, impact)
        told = {"log_probs": log_probs, "value": value, "action": mode, "exposure": wanted, "units": units}
        return {**told, "stop": stop, "take_profit": take}

    def levels(self, a: Mapping[str, Any], units: Any, price: Any, impact: Any) -> tuple[np.ndarray, np.ndarray]:
        """Stop and take-profit (N,) in force once an order to `units` has filled at `price`; those of before where it
        opens nothing."""
        held, order = a["units"], units - a["units"]
        size, fill = np.abs(order), price * (FLOAT(1) + np.sign(order) * impact)
        reducing = held * order < 0
        closed = reducing & (size >= np.abs(held))
        opening = size - np.where(reducing, np.minimum(size, np.abs(held)), FLOAT(0))
        adding = (opening > 0) & (held != 0) & ~closed
        share = size / np.where(adding, np.abs(units), FLOAT(1))
        cost = np.where(adding, a["average_cost"] + (fill - a["average_cost"]) * share, fill)
        long, found = units > 0, []
        for name, side, before in (("stop_loss", -1, a["stop"]), ("take_profit", 1, a["take_profit"])):
            off = self.env[name]
            level = cost * np.where(long, FLOAT(1 + side * off), FLOAT(1 - side * off))
            none = np.where(long, FLOAT(0 if side < 0 else np.inf), FLOAT(np.inf if side < 0 else 0))
            found.append(np.where(opening > 0, level if off > 0 else none, before))
        return found[0], found[1]

    def decide(
        self,
        window: np.ndarray,
        account: Mapping[str, Any] | None = None,
        *,
        close: float,
        symbol: str | None = None,
        size: float = 1.0,
        price: float | None = None,
    ) -> dict[str, Any]:
        """The decision at a bar's close, as of `jaxppo.decide`, levels included.

        Args:
          window: (receptive field, features) float32, the newest bar last.
          account: plain facts in money; None is one that holds nothing, with an equity of 1.
          close: of the newest bar.
          symbol: for fee, spread and whether it may be sold short; not needed where the policy knows one.
          size: exposure that an action's 1 stands for, of `Stream`; 1 where positions are sized by the equity.
          price: at which the order is expected to fill; by default the close.
        """
        terms = self.terms(symbol)
        state, start = self.account(account, close)
        one = {k: v.reshape(1) for k, v in state.items()}
        price = close if price is None else price
        told = (close, size, price, terms["allow_short"], terms["fee"], terms["impact"])
        market = {k: np.array([x], bool if k == "allow_short" else FLOAT) for k, x in zip(MARKET, told, strict=True)}
        found = self.run(np.asarray(window, FLOAT)[None], one, market)
        after, held = float(found["units"][0]), float((account or {}).get("units") or 0.0)
        units = held if found["units"][0] == one["units"][0] else after * start
        return {
            "action": self.labels[int(found["action"][0])],
            "probabilities": dict(zip(self.labels, np.exp(found["log_probs"][0]).tolist(), strict=True)),
            "value": float(found["value"][0]),
            "exposure": float(found["exposure"][0]),
            "size": size,
            "price": price,
            "units": units,
            "order": units - held,
            **{k: self._level(float(found[k][0]), units) for k in ("stop", "take_profit")},
        }

    @staticmethod
    def _level(price: float, units: float) -> float | None:
        return price if units != 0 and 0 < price < math.inf else None


class Stream:
    """Windows and sizes from raw bars, one after another."""

    def __init__(self, policy: Policy, symbol: str | None = None):
        made, terms = policy.facts["features"], policy.terms(symbol)
        if made["groups"] is None:
            raise Refused("features: those of this policy cannot be computed here; give windows to Policy.decide")
        horizons = made["trend_returns"], made["trend_macd"]
        about = made["scale_window"], policy.facts["interval"], terms["timezone"]
        self.features = Features(made["groups"], *about, *horizons)
        env = policy.env
        sized = env["size_by"] == "volatility"
        given = (env["volatility_span"], env["target_volatility"], env["max_exposure"], terms["bars_per_year"])
        self._size = Size(*given) if sized else None
        self.window = np.zeros((policy.facts["receptive_field"], len(made["names"])), FLOAT)
        self.size, self.close, self.bars, self.needed = 1.0, 0.0, 0, int(policy.facts["min_bars"])
        self.interval: int = policy.facts["interval"]
        self.time, self.closest = 0, math.inf  # of the last bar, and the least time between two

    def feed(self, bar: Bar) -> None:
        """Take a new bar in, oldest first; `Refused` for one that no market can have."""
        if self.bars and bar.time <= self.time:
            raise Refused(f"bars: one of {bar.time} after one of {self.time}; give every bar once, oldest first")
        low, high = min(bar.open, bar.close), max(bar.open, bar.close)
        if not (all(map(math.isfinite, bar)) and 0 < bar.low <= low <= high <= bar.high and bar.volume >= 0):
            raise Refused(
                f"bars: that of {bar.time} has open {bar.open:g}, high {bar.high:g}, low {bar.low:g}, close"
                f" {bar.close:g}, volume {bar.volume:g}, which no market can have"
            )
        self.closest = min(self.closest, bar.time - self.time) if self.bars else math.inf
        self.time = bar.time
        self.window[:-1] = self.window[1:]
        self.window[-1] = self.features.push(bar)
        self.size = 1.0 if self._size is None else float(FLOAT(self._size.push(bar.close)))
        self.close, self.bars = bar.close, self.bars + 1

    def decide(
        self,
        policy: Policy,
        account: Mapping[str, Any] | None = None,
        symbol: str | None = None,
        price: float | None = None,
    ) -> dict[str, Any]:
        """The decision at the newest bar."""
        if self.bars < self.needed:
            raise Refused(f"bars: {self.bars} given, but a decision needs at least {self.needed}")
        if not self.interval / 2 < self.closest < self.interval * 2:  # a day is 23 hours long where clocks change
            raise Refused(f"bars: {self.closest} s apart, and the policy was trained on bars of {self.interval} s")
        return policy.decide(self.window, account, close=self.close, symbol=symbol, size=self.size, price=price)


def read_bars(path: str) -> Iterable[Bar]:
    """Bars of a CSV file; dates alone are midnights UTC."""
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.DictReader(file)
        for row in rows:
            try:
                open_, high, low, close = (float(row[k]) for k in ("open", "high", "low", "close"))
                yield Bar(_seconds(row["timestamp"]), open_, high, low, close, float(row.get("volume") or 0.0))
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                why = f"{error} is missing" if isinstance(error, KeyError) else error
                raise Refused(
                    f"{path}, line {rows.line_num}: no row of timestamp, open, high, low, close ({why})"
                ) from error


def _seconds(text: str) -> int:
    """UTC seconds of a time."""
    if text.isdigit():
        if int(text) > 32_503_680_000:  # the year 3000: milliseconds, or less
            raise ValueError(f"{text} is too late for epoch seconds")
        return int(text)
    time = datetime.fromisoformat(text)
    if time.tzinfo is None and len(text) > len("2024-01-31"):
        raise ValueError(f"{text} has no offset, such as +00:00")
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def self_test(folder: Path) -> int:
    """Decide again what was decided when the policy was exported; the exit status."""
    policy = Policy(folder)
    path = folder / "vectors.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            v = {name: file[name] for name in file.files}
        account = {name: v[f"account/{name}"] for name in NUMBERS}
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise Refused(f"{path}: damaged ({error}); export the policy again") from error
    found = policy.run(v["window"], account, v)
    off = float(np.abs(np.exp(found["log_probs"]) - v["probabilities"]).max())
    same = bool((found["action"] == v["action"]).all())
    scale = np.maximum(np.abs(v["units"]), FLOAT(1e-9))
    units = float((np.abs(found["units"] - v["units"]) / scale).max())
    good = same and off <= 1e-6 and units <= 1e-5
    if "bars" in v:
        stream = Stream(policy, str(v["bars_symbol"]))
        for row in v["bars"].tolist():
            stream.feed(Bar(int(row[0]), *row[1:]))
        gap = float(np.abs(stream.window - v["bars_window"]).max())
        good = good and gap <= 1e-6
        print(f"features of {len(v['bars'])} bars within {gap:.1e}")
    print(
        f"self-test {'passed' if good else 'FAILED'}: {len(v['action'])} decisions, actions"
        f" {'the same' if same else 'differ'}, probabilities within {off:.1e}, units within {units:.1e}"
    )
    return 0 if good else 1


def main(argv: list[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(description="Decide with an exported policy.")
    parser.add_argument("bars", nargs="?", help="CSV file of bars of one symbol, oldest first")
    parser.add_argument("--symbol", help="whose fee, spread and time zone hold")
    parser.add_argument("--account", help="JSON file of the account")
    parser.add_argument("--price", type=float, help="at which the order is expected to fill; by default the close")
    parser.add_argument("--self-test", action="store_true", help="decide again what was decided at the export")
    args = parser.parse_args(argv)
    folder = Path(__file__).resolve().parent
    try:
        if args.self_test:
            return self_test(folder)
        if args.price is not None and not 0 < args.price < math.inf:
            parser.error(f"--price: {args.price} given; it must be above 0")
        if args.bars is None:
            parser.error("give a file of bars, or --self-test")
        policy = Policy(folder)
        stream = Stream(policy, args.symbol)
        for bar in read_bars(args.bars):
            stream.feed(bar)
        account = None if args.account is None else read_json(Path(args.account))
        print(json.dumps(stream.decide(policy, account, args.symbol, args.price), allow_nan=False))
    except (Refused, OSError, ValueError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
