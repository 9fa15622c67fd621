"""The package's account and the plain-Python reference over the same bars, compared field by field."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.config.schema import EnvConfig, RewardConfig
from jaxppo.env.account import open_account
from jaxppo.env.trading import env_spec, step_account
from jaxppo.market.tape import Costs, MarketStep
from tests.reference.account import ReferenceAccount

LANES, BARS = 32, 64
# Rounding that a comparison of prices may suffer: a few units in the last place of a number near the price.
ROUNDING = {"float32": 4e-6, "float64": 1e-12}
TOLERANCE = {"float32": 1e-5, "float64": 1e-9}

ENVS = {
    "hold_buy_sell": EnvConfig(),
    "tight_stops": EnvConfig(max_exposure=1.5, stop_loss=0.003, take_profit=0.002, rebalance_band=0.0),
    "sized": EnvConfig(actions="sized", max_exposure=3.0, take_profit_gap="limit", ruin_level=0.3),
    "sized_close": EnvConfig(actions="sized_close", max_exposure=2.0, stop_loss=0.0, take_profit=0.03),
    "targets": EnvConfig(
        actions="targets",
        targets=(-3.0, -1.0, -0.4, 0.0, 0.3, 1.0, 2.5),
        max_exposure=3.0,
        stop_loss=0.1,
        take_profit=0.0,
    ),
    # Same-side orders never go out, so that with dyadic prices and no impact every level is an exact number.
    "grid": EnvConfig(stop_loss=1 / 64, take_profit=1 / 32, rebalance_band=1.0, take_profit_gap="limit"),
}
SPECS = {name: env_spec(env, RewardConfig()) for name, env in ENVS.items()}
RANDOM = [name for name in ENVS if name != "grid"]


@functools.cache
def player(name: str):
    """(account, actions, market, costs, allow_short) of L lanes to stacked accounts and records (L, N)."""
    spec = SPECS[name]

    def bar(costs, allow_short, carry, x):
        account, ruined = carry
        action, market = x
        account, result = step_account(account, action, market, costs, allow_short, spec, alive=~ruined)
        return (account, ruined | result.record.ruined), (account, result.record)

    def lane(account, actions, market, costs, allow_short):
        run = functools.partial(bar, costs, allow_short)
        return jax.lax.scan(run, (account, jnp.zeros((), bool)), (actions, market))[1]

    return jax.jit(jax.vmap(lane))


def play(name, prices, actions, costs, allow_short, dtype="float64"):
    """Run the package on L lanes; returns (accounts, records) of NumPy arrays (L, N)."""
    lanes, bars = actions.shape
    with jax.enable_x64(dtype == "float64"):
        cast = functools.partial(jnp.asarray, dtype=dtype)
        zero = cast(np.zeros((lanes, bars)))
        out = player(name)(
            open_account(cast(np.ones(lanes))),
            jnp.asarray(actions, jnp.int32),
            MarketStep(*(cast(p) for p in prices), zero, zero),
            Costs(*(cast(c) for c in costs)),
            jnp.asarray(allow_short),
        )
        return jax.tree.map(np.asarray, out)


def reference_account(env: EnvConfig, costs, allow_short) -> ReferenceAccount:
    """A fresh account of the reference under the settings of `env` and costs (fee, impact, borrow)."""
    fee, impact, borrow = (float(c) for c in costs)
    return ReferenceAccount(
        fee=fee,
        impact=impact,
        borrow=borrow,
        stop_loss=env.stop_loss,
        take_profit=env.take_profit,
        take_profit_gap=env.take_profit_gap,
        ruin=env.ruin_level,
        band=env.rebalance_band,
        max_exposure=env.max_exposure,
        allow_short=bool(allow_short),
    )


def disagreement(account, record, i, reference, events, tolerance) -> str | None:
    """The first field in which bar i of a lane differs from the reference; None when all agree."""
    exact = {
        "reason": (record.reason[i], events.reason),
        "ruined": (record.ruined[i], events.ruined),
        "closed": (record.closed[i], events.closed),
        "won": (record.wins[i], events.wins),
        "trades": (account.trades[i], reference.trades),
        "wins": (account.wins[i], reference.wins),
        "bars_held": (account.bars_held[i], reference.bars_held),
        "holding": (account.units[i] != 0, reference.units != 0),
    }
    for name, (got, want) in exact.items():
        if got != want:
            return f"{name}: {got} instead of {want}"
    price = events.order_price or events.exit_price or reference.average_cost or 1.0
    # Cash and P&L are differences of sums as large as the money moved, which is the scale of their rounding; what a
    # leveraged account lost in its ruin is such a sum too.
    gross = reference.largest
    # Of a leveraged position's rounding, leverage times as much shows in what is left.
    leverage = max(1.0, reference.max_exposure)
    money = {
        "equity": (account.equity[i], reference.equity, gross if reference.ruined else leverage * reference.equity),
        "cash": (account.cash[i], reference.cash, gross),
        "units": (account.units[i], reference.units, gross / price),
        "average_cost": (account.average_cost[i], reference.average_cost, price),
        "peak": (account.peak[i], reference.peak, reference.peak),
        "order_units": (record.order_units[i], events.order_units, gross / price),
        "exit_units": (record.exit_units[i], events.exit_units, gross / price),
        "exposure": (record.exposure[i], events.exposure, 1.0 + events.exposure**2),
    }
    for field in ("fees", "borrow", "cost", "traded", "gain", "loss"):
        money[field] = (getattr(record, field)[i], getattr(events, field), gross)
    if events.order_price is not None and abs(events.order_units) * price > 1e-6:
        money["order_price"] = (record.order_price[i], events.order_price, price)
    if events.exit_price is not None:
        money["exit_price"] = (record.exit_price[i], events.exit_price, leverage * price)
    if reference.stop is not None:
        money["stop"] = (account.stop[i], reference.stop, reference.stop)
    if reference.limit is not None:
        money["take_profit"] = (account.take_profit[i], reference.limit, reference.limit)
    for name, (got, want, scale) in money.items():
        if not abs(got - want) <= tolerance * scale:
            return f"{name}: {got} instead of {want}"
    return None


def compare(name, prices, actions, costs, allow_short, dtype) -> int:
    """Assert agreement lane by lane and bar by bar; returns how many lanes a knife-edge decision cut short.

    A lane may part from the reference only on a bar whose outcome rounding can turn, which the reference itself tells.
    """
    accounts, records = play(name, prices, actions, costs, allow_short, dtype)
    labels = SPECS[name].actions.labels
    parted = 0
    for lane in range(actions.shape[0]):
        reference = reference_account(ENVS[name], (c[lane] for c in costs), allow_short[lane])
        account = jax.tree.map(lambda x, lane=lane: x[lane], accounts)
        record = jax.tree.map(lambda x, lane=lane: x[lane], records)
        for i in range(actions.shape[1]):
            events = reference.step(labels[actions[lane, i]], *(float(p[lane, i]) for p in prices))
            wrong = disagreement(account, record, i, reference, events, TOLERANCE[dtype])
            if wrong:
                assert reference.margin < ROUNDING[dtype], f"{name}, lane {lane}, bar {i}, {dtype}: {wrong}"
                parted += 1
                break
    return parted


def random_case(name, seed, volatility, gaps, flats, costly, lanes=LANES, bars=BARS):
    """Prices (open, high, low, close) (L, N), actions (L, N), costs (L,) and allow_short (L,), all exact in float32."""
    rng = np.random.default_rng(seed)
    flat = rng.random((lanes, bars)) < flats
    gap = np.where(rng.random((lanes, bars)) < gaps, 6 * volatility, 0.1 * volatility) * rng.standard_normal(
        (lanes, bars)
    )
    move = volatility * rng.standard_normal((lanes, bars))
    reach = volatility * np.abs(rng.standard_normal((2, lanes, bars)))
    gap, move, reach = np.where(flat, 0, gap), np.where(flat, 0, move), np.where(flat, 0, reach)
    close = np.cumsum(gap + move, axis=1) + rng.uniform(-5, 10, (lanes, 1))
    open_ = close - move
    high, low = np.maximum(open_, close) + reach[0], np.minimum(open_, close) - reach[1]
    prices = [np.exp(x).astype(np.float32).astype(np.float64) for x in (open_, high, low, close)]
    n_actions = SPECS[name].actions.n_actions
    actions = rng.integers(0, n_actions, (lanes, bars))
    if "hold" in SPECS[name].actions.labels:  # action 0; held positions see more bars
        actions = np.where(rng.random((lanes, bars)) < 0.5, 0, actions)
    some = rng.random((3, lanes)) < 0.8
    top = np.array([[0.05], [0.02], [0.002]]) if costly else np.array([[0.003], [0.001], [0.0001]])
    costs = (some * top * rng.random((3, lanes))).astype(np.float32).astype(np.float64)
    return prices, actions, costs, rng.random(lanes) < 0.7


def trade(env: EnvConfig, orders, *, fee=0.0, impact=0.0, borrow=0.0, allow_short=True):
    """Play `orders`, pairs of an action label and a bar (open, high, low, close), in float64, checked on the reference.

    Returns the accounts and the records, one a bar.
    """
    spec = env_spec(env, RewardConfig())
    reference = reference_account(env, (fee, impact, borrow), allow_short)
    accounts, records = [], []
    with jax.enable_x64(True):
        account, alive = open_account(jnp.ones(())), True
        costs = Costs(*(jnp.asarray(c, jnp.float64) for c in (fee, impact, borrow)))
        for i, (label, bar) in enumerate(orders):
            market = MarketStep(*(jnp.asarray(p, jnp.float64) for p in (*bar, 0.0, 0.0)))
            action = jnp.int32(spec.actions.labels.index(label))
            account, result = step_account(
                account, action, market, costs, jnp.bool_(allow_short), spec, alive=jnp.bool_(alive)
            )
            alive = alive and not bool(result.record.ruined)
            accounts.append(jax.tree.map(lambda x: x.item(), account))
            records.append(jax.tree.map(lambda x: x.item(), result.record))
            events = reference.step(label, *bar)
            as_lane = jax.tree.map(lambda x: [x], (accounts[-1], records[-1]))
            wrong = disagreement(*as_lane, 0, reference, events, 1e-9)
            assert wrong is None, f"bar {i}: {wrong}"
    return accounts, records
