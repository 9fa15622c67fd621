"""A session of paper trading against the same decisions in the account of the environment, difference by difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.config.schema import EnvConfig, RewardConfig
from jaxppo.env.account import StepRecord
from jaxppo.env.actions import ActionTable
from jaxppo.env.rewards import reward_preset
from jaxppo.env.trading import EnvSpec
from jaxppo.market.tape import Costs, Tape, price_tape
from jaxppo.play.deciders import Told, told_policy
from jaxppo.play.passes import play
from jaxppo.store.sessions import DECISION, Played, Session

CAUSES = {
    "fees": "fees other than the account's",
    "borrow": "borrow cost other than the account's",
    "dividends": "dividends other than the account's: a broker's are no part of a journal",
    "fills": "prices of fills beyond spread and slippage of the account, from when the order came in",
    "latency": "how the price had moved from the open until the order came in",
    "sizing": "positions other than the account's: sized at the close before, in steps, or from another equity",
    "limits": "what limits kept back",
    "unsent": "what a dry run did not send",
    "unfilled": "what was refused, cancelled, lost or filled late",
    "exits": "stops and take-profits that filled elsewhere",
    "adjusted": "positions that were taken over from the broker",
}
"""Why a session's money is not the account's."""
_POSITIONS = ("sizing", "limits", "unsent", "unfilled", "exits", "adjusted")  # differences in what is held


class Parted(NamedTuple):
    """A bar on which a session traded otherwise than the account; units are signed, and 0 where none were traded."""

    time: int  # UTC seconds: start of the bar that was filled on
    symbol: str
    decided: int  # start of the bar at whose close it was decided
    cause: str  # of CAUSES: what most of it is due to
    live_units: float  # of orders and exits
    account_units: float
    live_price: float  # of them, on average; nan without any
    account_price: float


class Compared(NamedTuple):
    """One symbol of a session beside the account, money in the session's."""

    symbol: str
    time: list[int]  # (N,) starts of the bars that were filled on
    live: np.ndarray  # (N,) equity at their closes, by the journal
    account: np.ndarray  # (N,) of the account
    items: dict[str, float]  # money, live less account, by cause, and `rounding`: they add up to the difference
    same: bool  # equity and units of every bar, bit for bit
    first: int | None  # bar (index in `time`) of the first difference
    parted: tuple[Parted, ...] = ()

    @property
    def ends(self) -> tuple[float, float]:
        """Equity of the session and of the account at the last bar that the session knows its own of."""
        known = self.live[~np.isnan(self.live)]
        return float(known[-1]) if len(known) else float(self.account[-1]), float(self.account[-1])

    @property
    def difference(self) -> float:
        """Money, live less account."""
        return self.ends[0] - self.ends[1]


def spec_of(head: Mapping[str, Any]) -> EnvSpec:
    """The environment of a session, as far as its account goes."""
    actions: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in head["actions"].items()}
    return EnvSpec(EnvConfig(**head["env"]), ActionTable(**actions), reward_preset(RewardConfig()))


def replay_session(session: Session) -> list[Compared]:
    """Every symbol of a session beside its account."""
    record = _play(session)
    share, simulated = float(session.head["share"]), session.head["broker"] == "simulated"
    found = []
    for i, of in enumerate(session.symbols):
        own = jax.tree.map(lambda x, i=i, n=len(of.lines) - 1: x[:n, i], record)
        found.append(_compare(of, own, share, simulated))
    return found


def _play(session: Session) -> StepRecord:
    """The decisions through the account, (N, S), one account of 1.0 a symbol."""
    spec, symbols = spec_of(session.head), session.symbols
    longest = max(len(s.lines) for s in symbols)

    def rows(of: list[np.ndarray]) -> jax.Array:
        padded = [np.concatenate([x, np.repeat(x[-1:], longest - len(x), axis=0)]) for x in of]
        return jnp.asarray(np.stack(padded))

    open_, high, low, close = (rows([s.prices(name) for s in symbols]) for name in ("open", "high", "low", "close"))
    costs = Costs(*(jnp.asarray([s.terms[k] for s in symbols], jnp.float32) for k in ("fee", "impact", "borrow")))
    tape = price_tape(open_, high, low, close, costs, jnp.ones(len(symbols)))
    sizes = [np.asarray([line.get("size") or 1.0 for line in s.lines], np.float32) for s in symbols]
    tape = tape._replace(
        length=jnp.asarray([len(s.lines) for s in symbols], jnp.int32),
        allow_short=jnp.asarray([bool(s.terms["allow_short"]) for s in symbols]),
        dividend=rows([s.prices("dividend") for s in symbols]) if any(s.pays for s in symbols) else None,
        size=None if spec.config.size_by == "equity" else rows(sizes),
    )
    told = Told(
        jnp.swapaxes(rows([_log_probs(s, spec) for s in symbols]), 0, 1)[:-1],
        rows([np.asarray([line["kind"] == DECISION for line in s.lines]) for s in symbols]).T[:-1],
    )
    played = jax.jit(partial(_played, spec=spec, n=longest - 1))(told, tape)
    record: StepRecord = jax.device_get(jax.tree.map(lambda x: x[:, 0], played))
    return record


def _played(told: Told, tape: Tape, spec: EnvSpec, n: int) -> StepRecord | None:
    return play(told_policy(told, spec, tape), tape, n, close_at_end=False).record


def _log_probs(of: Played, spec: EnvSpec) -> np.ndarray:
    none = [0.0] * spec.actions.n_actions
    return np.asarray([[float(x) for x in line.get("log_probs", none)] for line in of.lines], np.float32)


class _Side(NamedTuple):
    """What one of the two did on a bar; units signed, money."""

    order: float  # units filled of orders
    price: float  # of them, on average; anything where there are none
    exit: float
    exit_price: float
    fees: float
    borrow: float
    dividend: float


def _compare(of: Played, record: StepRecord, share: float, simulated: bool) -> Compared:
    """The differences of N bars; line i + 1 tells what filled on the bar after decision i."""
    money = {k: np.asarray(x, np.float64) * share for k, x in record._asdict().items() if k in _MONEY}
    rows = of.lines[1:]
    orders = (money["order_units"], record.order_price, money["exit_units"], record.exit_price)
    paid = np.zeros(len(rows)) if record.dividend is None else np.asarray(record.dividend, np.float64) * share
    columns = zip(*(x.tolist() for x in (*orders, money["fees"], money["borrow"], paid)), strict=True)
    items, parted = _items(of, [_Side(*row) for row in columns], simulated)
    live = np.asarray([(r.get("account") or {}).get("equity", np.nan) for r in rows], np.float64) * share
    held = np.asarray([(r.get("account") or {}).get("units", np.nan) for r in rows], np.float64)
    alike = (live == money["equity"]) & (held == np.asarray(record.units, np.float64))
    differs = np.flatnonzero(~alike & ~np.isnan(live))
    first = int(differs[0]) if len(differs) else None
    times = [int(r["time"]) for r in rows]
    found = Compared(of.symbol, times, live, money["equity"], items, first is None, first, tuple(parted))
    items["rounding"] = found.difference - sum(items.values())
    return found


def _items(of: Played, sides: Sequence[_Side], simulated: bool) -> tuple[dict[str, float], list[Parted]]:
    """Money by cause over N bars: what the session made of each more than the account did in `sides`; and the bars on
    which it traded otherwise.

    On a bar a side earns held * (close - close before) + order * (close - its price), and so for an exit, less fees and
    borrow cost. What is held more by the session is kept by cause, so the items add up to the difference.
    """
    open_, close = (of.prices(k).astype(np.float64).tolist() for k in ("open", "close"))
    items, more = dict.fromkeys(CAUSES, 0.0), dict.fromkeys(_POSITIONS, 0.0)
    parted: list[Parted] = []
    held = more["adjusted"] = float(of.lines[0].get("units", 0.0))  # what it begins with was taken over
    # Of a broker's own borrow cost and dividends the journal has nothing; the simulated one has the account's.
    borrow, paid = of.terms["borrow"] * simulated, of.prices("dividend").astype(np.float64) * simulated
    for i, (row, account) in enumerate(zip(of.lines[1:], sides, strict=True)):
        fills, now = row.get("fills", []), close[i + 1]
        live = _live(fills, row.get("exit"), held, borrow * now, held * float(paid[i + 1]))
        # Where the account has no fill, its price is what a fill would have had.
        impact = float(np.sign(live.order)) * of.terms["impact"]
        price = account.price if account.order else open_[i + 1] * (1.0 + impact)
        for cause in _POSITIONS:
            items[cause] += more[cause] * (now - close[i])
        changed = _causes(of.lines[i], live, account, more)
        parted += _parted(of, i, live, account, changed)
        for cause, units in changed.items():
            items[cause] += units * (now - price)
            more[cause] += units
        items["exits"] += live.exit * (now - live.exit_price) - account.exit * (now - account.exit_price)
        more["exits"] += live.exit - account.exit
        for fill in fills:
            came = open_[i + 1] if fill["arrival"] is None else fill["arrival"]
            items["latency"] -= fill["units"] * (came - open_[i + 1])
            items["fills"] -= fill["units"] * (fill["price"] - came - price + open_[i + 1])
        items["fees"] -= live.fees - account.fees
        items["borrow"] -= live.borrow - account.borrow
        items["dividends"] += live.dividend - account.dividend
        gap = row.get("adjusted")
        taken, kept = (0.0, 0.0) if gap is None else (gap["to"] - gap["from"], gap["fee"])
        items["fees"] -= kept
        more["adjusted"] += taken
        held += live.order + live.exit + taken
    return items, parted


def _parted(of: Played, i: int, live: _Side, account: _Side, changed: Mapping[str, float]) -> list[Parted]:
    """Whether a bar differs, beyond what float32 leaves; `changed` are units by cause."""

    def both(side: _Side) -> tuple[float, float]:
        """Units, and what they were filled at on average: an order and the stop of its own bar may add up to none."""
        size = abs(side.order) + abs(side.exit)
        paid = abs(side.order) * side.price + abs(side.exit) * side.exit_price
        return side.order + side.exit, paid / size if size else math.nan

    def same(a: float, b: float) -> bool:
        return math.isclose(a, b, rel_tol=_EXACT, abs_tol=1e-9)

    orders, exits = same(live.order, account.order), same(live.exit, account.exit)
    prices = (same(live.price, account.price) or not (live.order and account.order)) and (
        same(live.exit_price, account.exit_price) or not (live.exit and account.exit)
    )
    if orders and exits and prices:
        return []
    cause = max(changed, key=lambda name: abs(changed[name])) if not orders else "fills" if exits else "exits"
    own, others = both(live), both(account)
    after, before = of.lines[i + 1], of.lines[i]
    return [Parted(int(after["time"]), of.symbol, int(before["time"]), cause, own[0], others[0], own[1], others[1])]


_EXACT = 1e-6  # relative: float32 has 7 digits


_MONEY = ("equity", "order_units", "exit_units", "fees", "borrow")


def _live(
    fills: list[dict[str, Any]], exit_: Mapping[str, Any] | None, before: float, borrow: float, dividend: float
) -> _Side:
    """What the session did on a bar, from `before` units; `borrow` is the cost of a short unit."""
    units = sum(f["units"] for f in fills)
    paid = sum(f["units"] * f["price"] for f in fills)
    out = 0.0 if exit_ is None else exit_["units"]
    after = before + units + out
    return _Side(
        order=units,
        price=paid / units if units else 0.0,
        exit=out,
        exit_price=0.0 if exit_ is None else exit_["price"],
        fees=sum(f["fee"] for f in fills) + (0.0 if exit_ is None else exit_["fee"]),
        borrow=borrow * max(-after, 0.0),
        dividend=dividend,
    )


def _causes(line: Mapping[str, Any], live: _Side, account: _Side, held: Mapping[str, float]) -> dict[str, float]:
    """How the orders of a decision change what is held more than in the account, in units by cause."""
    order = line.get("order")
    meant = 0.0  # without an order and a limit the decision asked for none
    if order is not None or line.get("limits"):
        meant = line["wanted"] - line["units"] if order is None or order["reason"] == "policy" else -line["units"]
    sent = 0.0 if order is None else order["units"]
    dry = bool(line.get("dry"))
    if order is not None and order["by_policy"] and not dry:
        meant = sent = live.order  # its size is known once it fills
    total = live.order - account.order
    if meant == 0:
        return {"unfilled": live.order, "sizing": -account.order}
    fresh = {
        "limits": sent - meant,
        "unsent": -sent if dry else 0.0,
        "unfilled": live.order - (0.0 if dry else sent),
        "exits": 0.0,
        "adjusted": 0.0,
    }
    # An order sets the whole position, so what was held more or less before is now due to how this order went.
    change = {cause: units - held[cause] for cause, units in fresh.items()}
    return change | {"sizing": total - sum(change.values())}
