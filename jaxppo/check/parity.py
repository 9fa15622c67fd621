"""Does live use see what training saw? One bar at a time from the history alone, against the whole history at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.policy import Distribution
from jaxppo.check.verdict import Check, Compute, Player, as_table, differing_bits
from jaxppo.config.schema import EnvConfig
from jaxppo.env.account import AccountState, open_account, settle
from jaxppo.env.actions import action_mask
from jaxppo.env.trading import ACCOUNT_FEATURES, EXPOSURE, observe_account
from jaxppo.market.bars import Bars, slice_bars
from jaxppo.market.dataset import build_evaluation
from jaxppo.market.quality import format_time
from jaxppo.market.tape import Quote, Tape, take_quotes, take_steps
from jaxppo.play.deciders import acting_policy, policy_units
from jaxppo.play.passes import play

Observe = Callable[[AccountState, Quote, EnvConfig], jax.Array]
"""Account state, quote and settings to account vectors, as `observe_account`."""

ENCODED_TOLERANCE = 1e-4
"""Largest difference of an encoded market. Matmuls of other shapes add in another order: 1e-6 in float32."""


class Seen(NamedTuple):
    """What a policy saw and did on N bars of one symbol."""

    features: np.ndarray  # (N, R, F): the window of each decision
    encoded: np.ndarray  # (N, H), or (N, M, H) of an ensemble
    vector: np.ndarray  # (N, A)
    action: np.ndarray  # (N,) int32
    equity: np.ndarray  # (N,) at the close after each decision


def _vectorised(player: Player, tape: Tape, n: int) -> Seen:
    """Training's and validation's way: the whole history encoded at once, the account in a scan."""

    def trace(params: Any, tape: Tape) -> tuple[jax.Array, ...]:
        decider = acting_policy(player.agent, player.spec, params, tape, n, player.receptive_field, observed=True)
        played = play(decider, tape, n)
        return (
            decider.inputs[:, 0],
            played.note.observation[:, 0, 0],
            played.note.action[:, 0, 0],
            played.equity[:, 0, 0],
        )

    seen = jax.device_get(jax.jit(trace)(player.params, tape))
    values, first, reach = np.asarray(tape.features[0]), int(tape.first[0]), player.receptive_field
    windows = np.stack([values[first + i - reach + 1 : first + i + 1] for i in range(n)])
    return Seen(windows, *seen)


def _live(compute: Compute, observe: Observe, bars: Bars, player: Player, tape: Tape, last: int, n: int) -> Seen:
    """A trader's way: at each close the features of the history so far, the last window encoded, one bar of account."""
    reach, first = player.receptive_field, int(tape.first[0])
    symbol, spec = jnp.zeros((), jnp.int32), player.spec
    costs = jax.tree.map(lambda c: c[0], tape.costs)

    @jax.jit
    def decide(params: Any, window: jax.Array, account: AccountState, t: jax.Array) -> tuple[jax.Array, ...]:
        vector = observe(account, take_quotes(tape, symbol, t), spec.config)
        encoded = player.agent.encode(params, jnp.expand_dims(window, 0))[0, -1]
        mask = action_mask(spec.actions, vector[EXPOSURE], tape.allow_short[0])
        policy, _ = player.agent.act(params, encoded, jnp.expand_dims(vector, 0), jnp.expand_dims(mask, 0))
        return encoded, vector, policy.mode()[0], policy.log_probs[0]

    @jax.jit
    def advance(account: AccountState, log_probs: jax.Array, t: jax.Array) -> AccountState:
        bar, ruin = take_steps(tape, symbol, t), jnp.asarray(spec.config.ruin_level, account.equity.dtype)
        units = policy_units(account, Distribution(log_probs), bar, costs, tape.allow_short[0], spec)
        return settle(account, units, bar, costs, ruin, spec.config)[0]

    account = open_account(jnp.ones((), tape.close.dtype))
    rows = []
    for i in range(n):
        history = slice_bars(bars, slice(last - n + i + 1))
        window = as_table(compute(history)).values[-reach:].astype(np.float32)
        t = jnp.int32(first + i)
        encoded, vector, action, log_probs = decide(player.params, jnp.asarray(window), account, t)
        account = advance(account, log_probs, t)
        rows.append((window, *jax.device_get((encoded, vector, action, account.equity))))
    return Seen(*(np.stack(column) for column in zip(*rows, strict=True)))


def _first(differs: np.ndarray, names: Sequence[str]) -> tuple[int, str]:
    """Decision and column of the first difference of (N, ..., C)."""
    flat = differs.reshape(len(differs), -1)
    n = int(np.argmax(flat.any(axis=1)))
    return n, names[int(np.argmax(flat[n])) % len(names)]


def check_parity(
    compute: Compute,
    bars: Sequence[Bars],
    player: Player,
    *,
    n_bars: int = 48,
    live: Compute | None = None,
    observe: Observe = observe_account,
) -> Check:
    """Do bar-by-bar live use and the vectorised path see and do the same?

    Passes when every feature of every window, every account vector, action and equity agree bit for bit, and the
    encoded market to `ENCODED_TOLERANCE`: its matmuls have other shapes, whose sums may round another way.

    Args:
      compute: features of one symbol, as training uses them.
      bars: symbols to try it on; the last `n_bars` + 1 bars of each are played.
      player: the policy; it must take the features of `compute`.
      n_bars: decisions a symbol.
      live: features as one's live code computes them from the history up to a bar; by default `compute`.
      observe: account vector as one's live code computes it; by default the environment's own.
    """
    problems: list[str] = []
    largest, decisions, moved = 0.0, 0, 0
    for b in bars:
        table = as_table(compute(b))
        split = build_evaluation([b], player.config, player.receptive_field, "all", None, [table]).splits["all"]
        n = min(n_bars, int(split.tape.length[0]) - 1 - int(split.tape.first[0]))
        tape = split.tape._replace(first=split.tape.length - 1 - n)
        whole = _vectorised(player, tape, n)
        step = _live(live or compute, observe, b, player, tape, len(b.time) - 1, n)
        decisions += n
        moved += len(np.unique(whole.action)) > 1
        times = split.times[0][int(tape.first[0]) :]
        for what, names in (
            ("features", table.names),
            ("vector", ACCOUNT_FEATURES),
            ("action", ("action",)),
            ("equity", ("equity",)),
        ):
            x, y = getattr(whole, what), getattr(step, what)
            if what == "equity":
                x, y = x[:-1], y[:-1]  # the vectorised path sells at the last close
            differs = differing_bits(x, y)
            if differs.any():
                i, name = _first(differs, names)
                gap = float(np.nanmax(np.abs(x.astype(np.float64) - y)))
                problems.append(
                    f"{name} of {b.symbol} differs first at {format_time(int(times[i]))} ({what}, by up to {gap:.3g})"
                )
        largest = max(largest, float(np.abs(whole.encoded.astype(np.float64) - step.encoded).max()))
    if largest > ENCODED_TOLERANCE:
        problems.append(f"the encoded market differs by up to {largest:.3g}")
    said = (
        f"First: {problems[0]}."
        if problems
        else "Features, account vectors, actions and equity are the same bit for bit, live and vectorised."
    )
    return Check(
        "parity",
        not problems,
        f"{len(problems)} differences" if problems else f"0 bits, encoder {largest:.0e}",
        f"0, {ENCODED_TOLERANCE:.0e}",
        f"{said} Compared: {decisions} decisions of {len(bars)} symbols; the encoded market differs by at most"
        f" {largest:.1e}, from matmuls of other shapes.",
        {"problems": problems, "decisions": decisions, "largest_encoded_difference": largest, "varied": moved},
    )
