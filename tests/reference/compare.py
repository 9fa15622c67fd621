"""The package's account and the plain-Python reference over the same bars, compared field by field."""

import functools
import math
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.config.schema import EnvConfig, RewardConfig
from jaxppo.env.account import AccountState, StepRecord, open_account
from jaxppo.env.trading import env_spec, trade_bar
from jaxppo.market.tape import Costs, MarketStep
from jaxppo.play.trades import Trade, round_trips
from tests.reference.account import Events, ReferenceAccount

LANES, BARS = 32, 64
# Rounding that a comparison of prices may suffer: a few units in the last place of a number near the price.
ROUNDING = {"float32": 4e-6, "float64": 1e-12}
TOLERANCE = {"float32": 1e-5, "float64": 1e-9}

BRACKETED = EnvConfig(actions="hold_buy_sell", stop_loss=0.02, take_profit=0.04)
ENVS = {
    "hold_buy_sell": BRACKETED,
    "tight_stops": replace(BRACKETED, max_exposure=1.5, stop_loss=0.003, take_profit=0.002, rebalance_band=0.0),
    "sized": replace(BRACKETED, actions="sized", max_exposure=3.0, take_profit_gap="limit", ruin_level=0.3),
    "sized_close": replace(BRACKETED, actions="sized_close", max_exposure=2.0, stop_loss=0.0, take_profit=0.03),
    "targets": replace(
        BRACKETED,
        actions="targets",
        targets=(-3.0, -1.0, -0.4, 0.0, 0.3, 1.0, 2.5),
        max_exposure=3.0,
        stop_loss=0.1,
        take_profit=0.0,
    ),
    # Same-side orders never go out, so that with dyadic prices and no impact every level is an exact number.
    "grid": replace(BRACKETED, stop_loss=1 / 64, take_profit=1 / 32, rebalance_band=1.0, take_profit_gap="limit"),
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
        account, record = trade_bar(account, action, market, costs, allow_short, spec, ruined)
        return (account, ruined | record.ruined), (account, record)

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


EXACT = ("reason", "ruined", "closed", "won", "trades", "wins", "bars_held", "holding")
# Compared to a tolerance, each times a scale of its own.
MONEY = (
    "equity",
    "cash",
    "units",
    "average_cost",
    "peak",
    "order_units",
    "exit_units",
    "exposure",
    "fees",
    "borrow",
    "cost",
    "traded",
    "gain",
    "loss",
    "order_price",
    "exit_price",
    "stop",
    "take_profit",
)


def told(reference: ReferenceAccount, events: Events) -> tuple[float, ...]:
    """One bar of the reference: EXACT, then a value for each of MONEY, then a scale for each; nan where it has none."""
    none = math.nan
    price = events.order_price or events.exit_price or reference.average_cost or 1.0
    # Cash and P&L are differences of sums as large as the money moved, which is the scale of their rounding; what a
    # leveraged account lost in its ruin is such a sum too.
    gross = reference.largest
    # Of a leveraged position's rounding, leverage times as much shows in what is left.
    leverage = max(1.0, reference.max_exposure)
    filled = events.order_price is not None and abs(events.order_units) * price > 1e-6
    exact = (
        events.reason,
        events.ruined,
        events.closed,
        events.wins,
        reference.trades,
        reference.wins,
        reference.bars_held,
        reference.units != 0,
    )
    values = (
        reference.equity,
        reference.cash,
        reference.units,
        reference.average_cost,
        reference.peak,
        events.order_units,
        events.exit_units,
        events.exposure,
        events.fees,
        events.borrow,
        events.cost,
        events.traded,
        events.gain,
        events.loss,
        events.order_price if filled else none,
        none if events.exit_price is None else events.exit_price,
        none if reference.stop is None else reference.stop,
        none if reference.limit is None else reference.limit,
    )
    scales = (
        gross if reference.ruined else leverage * reference.equity,
        gross,
        gross / price,
        price,
        reference.peak,
        gross / price,
        gross / price,
        1.0 + events.exposure**2,
        *(gross,) * 6,
        price,
        leverage * price,
        reference.stop or none,
        reference.limit or none,
    )
    return exact + values + scales


@dataclass(frozen=True)
class Told:
    """What the reference says of L lanes and N bars."""

    exact: dict[str, np.ndarray]  # (L, N) by name of EXACT
    value: dict[str, np.ndarray]  # (L, N) by name of MONEY
    scale: dict[str, np.ndarray]  # (L, N)
    margin: np.ndarray  # (L, N): how near the bar came to turning out otherwise
    accounts: list[ReferenceAccount]  # (L,) at the end


def gather(rows: list[list[tuple[float, ...]]], margin: list[list[float]], accounts: list[ReferenceAccount]) -> Told:
    """Rows of `told`, a list a lane, as arrays."""
    table = np.moveaxis(np.array(rows, float), -1, 0)
    e, m = len(EXACT), len(MONEY)
    parts = table[:e], table[e : e + m], table[e + m :]
    named = (dict(zip(names, part, strict=True)) for names, part in zip((EXACT, MONEY, MONEY), parts, strict=True))
    return Told(*named, np.array(margin), accounts)


def faults(account: AccountState, record: StepRecord, told: Told, tolerance: float) -> dict[str, np.ndarray]:
    """Where each field of the package, (L, N), differs from the reference: bool (L, N) by name."""
    got = account._asdict() | record._asdict()
    got |= {"won": record.wins, "wins": account.wins, "holding": account.units != 0, "cash": account.cash}
    wrong = {name: got[name] != told.exact[name] for name in EXACT}
    # `<=` is false of a nan that the package came up with, and of fields that the reference has nothing to say on.
    for name in MONEY:
        unsaid = np.isnan(told.value[name])
        wrong[name] = ~(np.abs(got[name] - told.value[name]) <= tolerance * told.scale[name]) & ~unsaid
    return wrong


def follow(name, prices, actions, costs, allow_short) -> Told:
    """The reference over L lanes of the environment `name`."""
    labels = SPECS[name].actions.labels
    rows, margin, accounts = [], [], []
    for lane in range(actions.shape[0]):
        reference = reference_account(ENVS[name], (c[lane] for c in costs), allow_short[lane])
        bars = zip(actions[lane].tolist(), *(p[lane].tolist() for p in prices), strict=True)
        rows.append([])
        margin.append([])
        for action, *bar in bars:
            rows[-1].append(told(reference, reference.step(labels[action], *bar)))
            margin[-1].append(reference.margin)
        accounts.append(reference)
    return gather(rows, margin, accounts)


def first_faults(wrong: dict[str, np.ndarray]) -> np.ndarray:
    """(L,) first bar of each lane on which any field differs; N where none does."""
    some = np.any(list(wrong.values()), axis=0)
    return np.where(some.any(1), some.argmax(1), some.shape[1])


def assert_agreement(what, accounts, records, said: Told, dtype, fees) -> int:
    """Assert agreement lane by lane and bar by bar; returns how many lanes a knife-edge decision cut short.

    A lane may part from the reference only on a bar whose outcome rounding can turn, which the reference itself tells.
    Of the others the trades agree too.
    """
    wrong = faults(accounts, records, said, TOLERANCE[dtype])
    first = first_faults(wrong)
    n = said.margin.shape[1]
    for lane, bar in enumerate(first):
        if bar < n:
            fields = [k for k, v in wrong.items() if v[lane, bar]]
            assert said.margin[lane, bar] < ROUNDING[dtype], f"{what}, lane {lane}, bar {bar}, {dtype}: {fields}"
        else:
            record = jax.tree.map(lambda x, lane=lane: x[lane], records)
            fault = trade_fault(round_trips(record, fees[lane]), said.accounts[lane], TOLERANCE[dtype])
            assert fault is None, f"{what}, lane {lane}, {dtype}: {fault}"
    return int((first < n).sum())


def trade_fault(trades: list[Trade], reference: ReferenceAccount, tolerance: float) -> str | None:
    """The first field in which a trade list differs from the reference's; None when all agree."""
    if len(trades) != len(reference.round_trips):
        return f"{len(trades)} trades instead of {len(reference.round_trips)}"
    leverage = max(1.0, reference.max_exposure)
    for i, (got, want) in enumerate(zip(trades, reference.round_trips, strict=True)):
        for field in ("side", "entry_bar", "exit_bar", "reason"):
            if getattr(got, field) != getattr(want, field):
                return f"trade {i}: {field} is {getattr(got, field)} instead of {getattr(want, field)}"
        entry, exit_ = want.entered_for / want.entered, want.exited_for / want.exited
        gross = reference.largest
        money = {
            "units": (want.entered, gross / entry),
            "entry_price": (entry, entry),
            "exit_price": (exit_, leverage * exit_),
            "fees": (want.fees, gross),
            "borrow": (want.borrow, gross),
            "pnl": (want.pnl, gross),
            "return_": (want.pnl / want.entered_for, max(1.0, gross / want.entered_for)),
        }
        # Of a sliver of a position, rounded in a sum as large as the account, the prices' average means little.
        if want.entered_for < 1e-3 * gross:
            del money["entry_price"], money["exit_price"]
        for field, (value, scale) in money.items():
            if not abs(getattr(got, field) - value) <= tolerance * scale:
                return f"trade {i}: {field} is {getattr(got, field)} instead of {value}"
    return None


def compare(name, prices, actions, costs, allow_short, dtype) -> int:
    """`assert_agreement` of the environment `name` on given bars and actions."""
    accounts, records = play(name, prices, actions, costs, allow_short, dtype)
    said = follow(name, prices, actions, costs, allow_short)
    return assert_agreement(name, accounts, records, said, dtype, costs[0])


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
            account, record = trade_bar(
                account, action, market, costs, jnp.bool_(allow_short), spec, jnp.bool_(not alive)
            )
            alive = alive and not bool(record.ruined)
            accounts.append(jax.tree.map(lambda x: x.item(), account))
            records.append(jax.tree.map(lambda x: x.item(), record))
            events = reference.step(label, *bar)
            said = gather([[told(reference, events)]], [[reference.margin]], [reference])
            one = jax.tree.map(lambda x: np.array([[x]]), (accounts[-1], records[-1]))
            wrong = [k for k, v in faults(*one, said, 1e-9).items() if v.any()]
            assert not wrong, f"bar {i}: {wrong}"
    return accounts, records
