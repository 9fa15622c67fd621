"""How long a decision takes once everything is warm, and whether features streamed bar by bar keep their bits.

    taskset -c 0 python benchmarks/live.py
    taskset -c 0 python benchmarks/live.py --exports
    python benchmarks/live.py --bits 20

The networks are untrained, which does not change the work. Bits: so many made-up symbols of 20,000 bars each, a third
of them smooth, a third in two decimals with stretches that stand still, a third with holes and jumps.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

if len(os.sched_getaffinity(0)) == 1:  # before JAX is imported
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import AgentSpec, init_params, make_agent
from jaxppo.api import make_config
from jaxppo.config.schema import Config, FeatureConfig
from jaxppo.env.trading import ACCOUNT_FEATURES, env_spec
from jaxppo.export.networks import FILES
from jaxppo.export.run import write_export
from jaxppo.export.standalone import MARKET, NUMBERS
from jaxppo.export.standalone import Policy as Alone
from jaxppo.export.vectors import drawn_account
from jaxppo.live.account import Account
from jaxppo.live.features import STREAMS, Bar, Features
from jaxppo.market.bars import Bars
from jaxppo.market.dataset import build_evaluation
from jaxppo.market.features import compute_features, feature_groups
from jaxppo.market.synthetic import synthetic_market
from jaxppo.store.checkpoint import RestoredPolicy
from jaxppo.store.checkpoint_info import final_info

SETTINGS = {
    "quick_test: 53 features, tcn of 64 bars": make_config(),
    "the same, 5 seeds": make_config(seeds=5),
    "trend: 9 features of the current bar, 5 seeds": make_config("trend"),
}


def rows(bars: Bars) -> list[Bar]:
    """Its bars one by one."""
    columns = (bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return [Bar(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def untrained(config: Config, bars: Bars) -> RestoredPolicy:
    """A policy of a configuration."""
    market = build_evaluation([bars], config, receptive_field(config.agent), "all", None)
    spec = env_spec(config.env, config.reward)
    agent = make_agent(
        AgentSpec(config.agent, len(market.feature_names), len(ACCOUNT_FEATURES), spec.actions.n_actions)
    )
    params = [init_params(agent.spec, jax.random.key(i)) for i in range(config.budget.seeds)]
    return RestoredPolicy(
        params[0] if len(params) == 1 else jnp.stack(params), agent, final_info(config, market, spec.actions, 1, 0.0)
    )


def microseconds(seconds: list[float]) -> str:
    """Median and 99 of 100."""
    return f"median {1e6 * np.median(seconds):,.0f} us, 99 % {1e6 * np.quantile(seconds, 0.99):,.0f} us"


def latency(name: str, config: Config, n: int) -> None:
    """Bars fed and decided on, one after another, after as many to warm up; and one decision on a whole history."""
    bars = synthetic_market(27, 1, 3000 + 2 * n)[0]
    policy, every = untrained(config, bars), rows(bars)
    history = dataclasses.replace(bars, **{k: getattr(bars, k)[:3000] for k in ("time", *Bar._fields[1:])})
    stream = policy.stream(history)
    took: list[float] = []
    fed: list[float] = []
    for bar in every[3000:]:
        account = Account(equity=10_000.0, units=12.5, average_price=bar.open)
        began = time.perf_counter()
        stream.feed(bar)
        between = time.perf_counter()
        stream.decide(account)
        fed.append(between - began)
        took.append(time.perf_counter() - began)
    whole = []
    for _ in range(50):
        began = time.perf_counter()
        policy.decide(history, account)
        whole.append(time.perf_counter() - began)
    print(
        f"{name}\n  a bar fed and decided on: {microseconds(took[n:])}, of which features {microseconds(fed[n:])}\n"
        f"  decide(history of 3,000 bars): {microseconds(whole[10:])}"
    )


def exports(name: str, config: Config, n: int) -> None:
    """Each format on n bars of accounts that are made up, beside the policy itself."""
    bars = synthetic_market(27, 1, 3000 + n)[0]
    policy, rng = untrained(config, bars), np.random.default_rng(0)
    decider, env = policy.decider, config.env
    newest, values, labels = decider.see(bars), decider.recipe(bars).values, policy.info.actions.labels
    asked = []
    for t in range(2999, 2999 + n):
        window, close = values[t - decider.reach + 1 : t + 1], float(bars.close[t])
        account = drawn_account(rng, close, (0, 1, -1)[t % 3], env)
        seen = newest._replace(window=window, close=close)
        asked.append((seen, account, decider.decide(seen, account, float(bars.open[t + 1]))))
    for form in FILES:
        with tempfile.TemporaryDirectory() as folder:
            write_export(Path(folder), decider, [bars], form)
            alone = Alone(folder)
        off, others, took = 0.0, 0, []
        for seen, account, decision in asked:
            one = {k: np.asarray(getattr(account, k), np.float32).reshape(1) for k in NUMBERS}
            told = (seen.close, decision.size, decision.price, seen.allow_short, seen.costs.fee, seen.costs.impact)
            market = {
                k: np.array([x], bool if k == "allow_short" else np.float32) for k, x in zip(MARKET, told, strict=True)
            }
            began = time.perf_counter()
            found = alone.run(seen.window[None], one, market)
            took.append(time.perf_counter() - began)
            shares = np.array([decision.probabilities[label] for label in labels])
            off = max(off, float(np.abs(np.exp(found["log_probs"][0]) - shares).max()))
            others += labels[int(found["action"][0])] != decision.action
        said = f"{n} bars, {others} other actions, probabilities within {off:.1e}"
        print(f"{name}, {form}: {said}, {microseconds(took[n // 2 :])}")


def markets(n: int) -> Iterator[Bars]:
    """Made-up symbols, smooth and broken up in turn."""
    for seed in range(n):
        bars, rng = synthetic_market(100 + seed, 1, 20_000)[0], np.random.default_rng(seed)
        prices = {k: getattr(bars, k).copy() for k in ("open", "high", "low", "close")}
        volume, t = bars.volume.copy(), bars.time
        if seed % 3 == 1:
            for k in prices:
                prices[k] = np.round(prices[k], 2)
            for start, length in zip(rng.integers(0, 19_000, 6), rng.integers(30, 400, 6), strict=True):
                for k in prices:
                    prices[k][start : start + length] = prices["close"][start]
                volume[start : start + length] = 0
        if seed % 3 == 2:
            t = t[0] + 3600 * np.cumsum(1 + (rng.random(20_000) < 0.03) * rng.integers(1, 60, 20_000))
            close = prices["close"] * np.exp(np.cumsum((rng.random(20_000) < 0.001) * rng.normal(0, 0.3, 20_000)))
            open_ = close * np.exp(rng.normal(0, 0.002, 20_000))
            high, low = np.maximum(open_, close) * 1.001, np.minimum(open_, close) * 0.999
            prices = {"open": open_, "high": high, "low": low, "close": close}
        yield dataclasses.replace(bars, time=t, volume=volume, timezone="America/New_York", **prices)


def bits(n: int) -> None:
    """Values of all groups that differ in any bit from those of a whole history."""
    config = FeatureConfig(features=tuple(STREAMS))
    values = bars_seen = 0
    found: list[str] = []
    for bars in markets(n):
        table = compute_features(bars, feature_groups(config), config.scale_window)
        stream = Features(
            config.features, config.scale_window, bars.interval, bars.timezone, config.trend_returns, config.trend_macd
        )
        fed = np.stack([stream.push(bar) for bar in rows(bars)])[table.min_bars - 1 :]
        whole = table.values[table.min_bars - 1 :]
        for i, j in np.argwhere(fed != whole):
            found.append(f"{table.names[j]} by {abs(float(fed[i, j]) - float(whole[i, j])):.1e}")
        values, bars_seen = values + fed.size, bars_seen + len(bars.time)
    print(f"{bars_seen:,} bars, {values:,} values: {len(found)} differ{': ' if found else ''}{', '.join(found[:20])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decisions", type=int, default=1000)
    parser.add_argument("--bits", type=int, default=0, help="symbols to compare bits on, in place of timing")
    parser.add_argument("--exports", action="store_true", help="compare and time exported policies")
    args = parser.parse_args()
    if args.bits:
        bits(args.bits)
        return
    print(f"{len(os.sched_getaffinity(0))} core(s)")
    for name, config in SETTINGS.items():
        (exports if args.exports else latency)(name, config, args.decisions)


if __name__ == "__main__":
    main()
