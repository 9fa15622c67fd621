"""Validation: every symbol against the plain-Python reference, pooling, padding, ruin, the end, and its callers."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import kept, random_tape, tiny_config, tiny_program
from jax.flatten_util import ravel_pytree

from jaxppo.agent.policy import init_params
from jaxppo.config.layers import replace_fields
from jaxppo.config.schema import Config
from jaxppo.env.account import REASON_END, open_account
from jaxppo.env.trading import EnvState, observe, step, valid_actions
from jaxppo.market.dataset import Calendar, Days, EvaluationSet, Split, device_calendar, joint_calendar
from jaxppo.market.tape import Costs, Tape, take_windows
from jaxppo.play.deciders import acting_policy, given_actions
from jaxppo.play.passes import lane, n_decisions, play
from jaxppo.play.score import score, validate
from jaxppo.ppo.program import train_spec
from jaxppo.ppo.state import hyper_from
from tests.reference.compare import reference_account

WINDOW, FEATURES = 4, 3
FIRST, LENGTHS = (5, 9, 3), (60, 41, 30)
DECISIONS = tuple(n - 1 - f for n, f in zip(LENGTHS, FIRST, strict=True))  # 54, 31, 26
N, PRICES = max(DECISIONS), ("open", "high", "low", "close")
LEVERAGED = tiny_config(
    actions="sized_close", max_exposure=3.0, stop_loss=0.01, take_profit=0.015, ruin_level=0.7, window=WINDOW
)
UNLEVERAGED = tiny_config(actions="targets", stop_loss=0.0, take_profit=0.0, window=WINDOW)


@kept
def market(seed: int = 0, fee: float = 0.002) -> Tape:
    """Three symbols of unequal starts, lengths, rules and costs. Padding is NaN: nothing may ever touch it."""
    tape = random_tape(seed, 3, max(LENGTHS), FEATURES, first=0)
    padding = np.arange(max(LENGTHS)) >= np.array(LENGTHS)[:, None]
    prices = {name: jnp.where(padding, jnp.nan, getattr(tape, name)) for name in PRICES}
    return tape._replace(
        features=jnp.where(padding[:, :, None], jnp.nan, tape.features),
        **prices,
        first=jnp.asarray(FIRST, jnp.int32),
        length=jnp.asarray(LENGTHS, jnp.int32),
        costs=Costs(*(jnp.float32(x) for x in ([fee, fee, 0.0], [0.0005, 0.0, 0.001], [1e-4, 0.0, 1e-4]))),
        allow_short=jnp.array([True, False, True]),
        bars_per_year=jnp.float32([8766.0, 1764.0, 8766.0]),
    )


def bar_times() -> tuple[np.ndarray, ...]:
    """Every hour from 0; seven hours a day; and every hour of the last day and a bit."""
    hours = (np.arange(60), 24 * (np.arange(41) // 7) + np.arange(41) % 7 + 9, 31 + np.arange(30))
    return tuple((3600 * h).astype(np.int64) for h in hours)


def calendar_of(behind, per_year: float) -> Calendar:
    """Every time is a date of its own."""
    behind, per_year = jnp.asarray(behind, jnp.int32), jnp.float32(per_year)
    valid = jnp.ones(behind.shape[1], bool)
    return Calendar(behind, valid, per_year, Days(behind, valid, per_year))


@kept
def dataset(seed: int = 0) -> EvaluationSet:
    joint = joint_calendar(Split(market(seed), ("A", "B", "C"), bar_times()))
    return EvaluationSet(market(seed), device_calendar(joint))


def spec_of(config: Config):
    return train_spec(config, FEATURES)


def script(config: Config, seed: int = 0) -> np.ndarray:
    """Random actions (N, S); half of them hold where there is such an action."""
    table = spec_of(config).env.actions
    rng = np.random.default_rng(seed)
    actions = rng.integers(0, table.n_actions, (N, 3))
    return np.where(rng.random((N, 3)) < 0.5, 0, actions) if table.keep[0] else actions


def played(config: Config, actions, tape: Tape):
    """Record, action and validity of scripted actions, as NumPy arrays."""

    def scripted(actions, tape):
        return play(given_actions(actions, spec_of(config).env, tape), tape, len(actions))

    done = jax.tree.map(np.asarray, jax.jit(scripted)(jnp.asarray(actions, jnp.int32), tape))
    return *lane((done.record, done.note.action), 0), done.valid


def play_policy(agent, env, params, tape: Tape, n: int, window: int):
    """Record, action and validity of the argmax policy."""
    done = play(acting_policy(agent, env, params, tape, n, window), tape, n)
    return *lane((done.record, done.note.action), 0), done.valid


def measured(config: Config, actions, data: EvaluationSet):
    """Figures of scripted actions, and all else that is said of them."""
    env = spec_of(config).env

    def scripted(actions, data):
        return score(play(given_actions(actions, env, data.tape), data.tape, len(actions)), data, env.actions.n_actions)

    done = jax.jit(scripted)(jnp.asarray(actions, jnp.int32), data)
    return done.figures, done


# --- against the reference, symbol by symbol ---


def referenced(config: Config, tape: Tape, symbol: int, actions):
    """Events of the reference account over one symbol, one for each decision; what is open is sold at the end."""
    account = reference_account(config.env, (c[symbol] for c in tape.costs), tape.allow_short[symbol])
    labels = spec_of(config).env.actions.labels
    events = []
    for i in range(DECISIONS[symbol]):
        bar = FIRST[symbol] + i + 1
        prices = [float(getattr(tape, name)[symbol, bar]) for name in PRICES]
        events.append(account.step(labels[actions[i, symbol]], *prices))
    account.close_out(prices[-1], events[-1])
    return events


EXACT = ("reason", "closed", "wins", "ruined")
MONEY = ("equity", "net_return", "units", "order_units", "exit_units", "fees", "borrow", "cost", "traded", "exposure")


@pytest.mark.parametrize("config", [LEVERAGED, UNLEVERAGED], ids=["sized_close", "targets"])
def test_a_scripted_policy_earns_what_the_reference_account_earns(config):
    tape, actions = market(), script(config)
    record, action, valid = played(config, actions, tape)
    np.testing.assert_array_equal(action, actions)
    for s in range(3):
        n = DECISIONS[s]
        events = referenced(config, tape, s, actions)
        assert valid[:, s].tolist() == [True] * n + [False] * (N - n)
        for name in EXACT:
            expected = [getattr(e, name) for e in events]
            np.testing.assert_array_equal(getattr(record, name)[:n, s], expected, err_msg=name)
        for name in (*MONEY, "gain", "loss"):
            expected = [getattr(e, name) for e in events]
            got = getattr(record, name)[:n, s]
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-5, err_msg=f"{name}, symbol {s}")
    assert record.closed.sum() > 10
    if config is LEVERAGED:
        assert {1, 2} <= set(record.reason.ravel().tolist())  # stops and take-profits


def test_figures_are_those_of_the_reference_accounts():
    config, tape, actions = UNLEVERAGED, market(), script(UNLEVERAGED)
    validation, _ = measured(config, actions, dataset())
    figures = validation.symbols
    for s in range(3):
        events = referenced(config, tape, s, actions)
        before = [1.0, *(e.equity for e in events[:-1])]
        closes = np.asarray(tape.close, np.float64)[s, FIRST[s] + 1 : FIRST[s] + 1 + DECISIONS[s]]
        turnover = np.mean([e.traded / b for e, b in zip(events, before, strict=True)])
        expected = {
            "net_return": events[-1].equity - 1,
            "trades": sum(e.closed for e in events),
            "win_rate": sum(e.wins for e in events) / sum(e.closed for e in events),
            "profit_factor": -sum(e.gain for e in events) / sum(e.loss for e in events),
            "turnover": turnover * float(tape.bars_per_year[s]),
            "exposure": np.mean([abs(e.units) * c / e.equity for e, c in zip(events, closes, strict=True)]),
            "bars": DECISIONS[s],
        }
        for name, value in expected.items():
            assert float(getattr(figures, name)[s]) == pytest.approx(value, rel=1e-4, abs=1e-6), name
    share = np.array(DECISIONS) / sum(DECISIONS)  # of the pooled figures that are means over bars
    assert float(validation.pooled.turnover) == pytest.approx(float((figures.turnover * share).sum()), rel=1e-5)
    assert float(validation.pooled.exposure) == pytest.approx(float((figures.exposure * share).sum()), rel=1e-5)
    assert float(validation.pooled.trades) == float(figures.trades.sum())
    wins = (figures.win_rate * figures.trades).sum() / figures.trades.sum()
    assert float(validation.pooled.win_rate) == pytest.approx(float(wins), rel=1e-5)


def test_action_shares_count_the_decisions_that_were_taken():
    actions = script(UNLEVERAGED)
    validation, _ = measured(UNLEVERAGED, actions, dataset())
    counts = np.stack([np.bincount(actions[: DECISIONS[s], s], minlength=3) for s in range(3)])
    np.testing.assert_allclose(validation.symbol_action_share, counts / np.array(DECISIONS)[:, None], rtol=1e-6)
    np.testing.assert_allclose(validation.action_share, counts.sum(0) / sum(DECISIONS), rtol=1e-5)
    np.testing.assert_allclose(validation.symbol_action_share.sum(-1), 1.0, rtol=1e-6)
    assert float(validation.action_share.sum()) == pytest.approx(1.0, rel=1e-6)


# --- the pooled curve and buy-and-hold ---


def pooled_by_hand(equity: np.ndarray) -> list[float]:
    """At the close of every bar that fills some decision: the mean over symbols of the last known equity, else 1."""
    known = []
    for s, time in enumerate(bar_times()):
        known.append({int(time[FIRST[s] + 1 + i]): float(equity[i, s]) for i in range(DECISIONS[s])})
    current, curve = [1.0] * 3, []
    for now in sorted({t for k in known for t in k}):
        current = [k.get(now, c) for k, c in zip(known, current, strict=True)]
        curve.append(sum(current) / 3)
    return curve


def test_pooled_curves_are_the_mean_of_the_symbols_in_real_time():
    data = dataset()
    validation, ledger = measured(UNLEVERAGED, script(UNLEVERAGED), data)
    curve = pooled_by_hand(np.asarray(ledger.record.equity))
    assert len(curve) > max(DECISIONS)  # no symbol trades at all of these times
    np.testing.assert_allclose(ledger.curves.pooled, curve, rtol=1e-5)
    np.testing.assert_allclose(ledger.curves.hold, pooled_by_hand(np.asarray(ledger.curves.symbol_hold)), rtol=1e-5)
    ends = [float(ledger.record.equity[DECISIONS[s] - 1, s]) for s in range(3)]
    assert float(validation.pooled.net_return) == pytest.approx(np.mean(ends) - 1, rel=1e-4)
    assert float(validation.hold) == pytest.approx(float(validation.symbol_hold.mean()), rel=1e-4)
    peak = np.maximum.accumulate([1.0, *curve])[1:]
    assert float(validation.pooled.max_drawdown) == pytest.approx(float((1 - curve / peak).max()), rel=1e-3)


def test_buy_and_hold_is_bought_at_the_first_open_and_sold_at_the_last_close():
    tape = market()
    validation, ledger = measured(UNLEVERAGED, script(UNLEVERAGED), dataset())
    for s in range(3):
        fee, impact = float(tape.costs.fee[s]), float(tape.costs.impact[s])
        units = 1 / (float(tape.open[s, FIRST[s] + 1]) * (1 + impact) * (1 + fee))
        close = np.asarray(tape.close[s, FIRST[s] + 1 : LENGTHS[s]], np.float64)
        expected = units * close
        expected[-1] *= (1 - impact) * (1 - fee)
        n = DECISIONS[s]
        np.testing.assert_allclose(ledger.curves.symbol_hold[:n, s], expected, rtol=1e-5)
        np.testing.assert_array_equal(ledger.curves.symbol_hold[n:, s], ledger.curves.symbol_hold[n - 1, s])
        assert float(validation.symbol_hold[s]) == pytest.approx(expected[-1] - 1, abs=1e-5)


def test_an_account_that_always_buys_earns_buy_and_hold():
    validation, ledger = measured(UNLEVERAGED, np.full((N, 3), 2), dataset())  # target +1
    np.testing.assert_allclose(ledger.record.equity, ledger.curves.symbol_hold, rtol=1e-5)
    np.testing.assert_allclose(validation.symbols.net_return, validation.symbol_hold, atol=1e-5)
    assert validation.symbols.trades.tolist() == [1.0] * 3


# --- the end, ruin, padding ---


def hand_market(closes, fee: float) -> Tape:
    """One symbol that opens where it closed; its first decision is at bar 0."""
    tape = random_tape(0, 1, len(closes), FEATURES, first=0, fee=fee)
    close = jnp.float32([closes])
    open_ = jnp.concatenate([close[:, :1], close[:, :-1]], axis=1)
    return tape._replace(open=open_, close=close, high=jnp.maximum(open_, close), low=jnp.minimum(open_, close))


def test_what_is_open_at_the_last_close_is_sold_there_at_cost():
    # Bought at 100 with a fee of 1 %: 1 / 101 units. Marked at 110 and 120; sold at 120 less 1 %: 118.8 / 101.
    record, _, _ = played(UNLEVERAGED, np.full((2, 1), 2), hand_market([100.0, 110.0, 120.0], 0.01))
    np.testing.assert_allclose(record.equity[:, 0], [110 / 101, 118.8 / 101], rtol=1e-6)
    np.testing.assert_allclose(record.gain[:, 0], [0.0, 17.8 / 101], rtol=1e-5)
    np.testing.assert_allclose(record.fees[:, 0], [1 / 101, 1.2 / 101], rtol=1e-5)
    assert record.units[:, 0].tolist() == [pytest.approx(1 / 101), 0.0]
    assert record.closed[:, 0].tolist() == [0, 1]
    assert record.reason[:, 0].tolist() == [0, REASON_END]


def test_a_ruined_account_stays_ruined():
    # Three times long from 100: .03 units on 2 of debt. Equity .7 at (.7 + 2) / .03 = 90: ruined on the second bar,
    # and flat while the market trebles. The second symbol never falls.
    config = replace_fields(UNLEVERAGED, {"targets": (0.0, 3.0), "max_exposure": 3.0, "ruin_level": 0.7})
    closes = ([100.0, 100.0, 80.0, 160.0, 240.0, 240.0], [100.0, 100.0, 101.0, 102.0, 103.0, 104.0])
    tape = jax.tree.map(lambda *x: jnp.concatenate(x), *(hand_market(c, 0.0) for c in closes))
    data = EvaluationSet(tape, calendar_of([[1, 2, 3, 4, 5]] * 2, 8766.0))
    validation, (record, *_) = measured(config, np.ones((5, 2)), data)
    np.testing.assert_allclose(record.equity[:, 0], [1.0] + [0.7] * 4, rtol=1e-5)
    assert record.ruined[:, 0].tolist() == [False] + [True] * 4
    assert (record.order_units[2:, 0] == 0).all()
    assert record.closed[:, 0].tolist() == [0, 1, 0, 0, 0]
    np.testing.assert_allclose(record.equity[-1, 1], 1 + 3 * 0.04, rtol=0.01)
    assert not record.ruined[:, 1].any()
    assert int(validation.ruined) == 1
    assert validation.symbols.trades.tolist() == [1.0, 1.0]


def test_what_a_ruined_account_still_holds_is_sold_at_the_next_open():
    # Short .01 units from 100, cash 2; 35 % of borrow a bar leaves .65, below .7. The next bar opens at 50, where the
    # units cost .5 of 1.65: with 1.15 no longer ruin, and yet no more orders, however much the policy sells.
    tape = hand_market([100.0, 100.0, 50.0, 40.0, 30.0], 0.0)
    gap = {name: getattr(tape, name).at[0, 2].set(50.0) for name in ("open", "high")}
    tape = tape._replace(**gap, costs=tape.costs._replace(borrow=jnp.full(1, 0.35, jnp.float32)))
    config = replace_fields(UNLEVERAGED, {"ruin_level": 0.7})
    record, _, _ = played(config, np.zeros((4, 1)), tape)  # target -1
    np.testing.assert_allclose(record.equity[:, 0], [0.65, 1.15, 1.15, 1.15], rtol=1e-5)
    np.testing.assert_allclose(record.order_units[:, 0], [-0.01, 0.01, 0.0, 0.0], rtol=1e-5)
    assert record.ruined[0, 0]


def pad(tape: Tape, more: int) -> Tape:
    def longer(x: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2), constant_values=jnp.nan)

    names = ("features", *PRICES, "forward_return", "volatility")
    return tape._replace(**{name: longer(getattr(tape, name)) for name in names})


@kept
def policy(seed: int = 4):
    """A spec, and parameters whose actions depend on what they see: the policy head is a hundred times as large."""
    spec = spec_of(LEVERAGED)
    params = jax.jit(init_params, static_argnums=0)(spec.agent.spec, jax.random.key(seed))
    network = spec.agent.unravel(params)
    return spec, ravel_pytree(network | {"policy_head": jax.tree.map(lambda x: 100 * x, network["policy_head"])})[0]


@functools.cache
def validator(n: int):
    """Jitted (params, data) to the figures of `n` decisions, and the whole score."""
    spec = spec_of(LEVERAGED)

    def figures(params, data):
        done = validate(spec.agent, spec.env, params, data, n, WINDOW)
        return done.figures, done

    return jax.jit(figures)


def test_padding_changes_nothing():
    _, params = policy()
    data = dataset()
    validation, ledger = validator(N)(params, data)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(ledger))
    longer = data._replace(tape=pad(data.tape, 13))
    assert n_decisions(longer.tape) == n_decisions(data.tape) == N
    padded, other = validator(N + 13)(params, longer)
    chex.assert_trees_all_close(padded, validation, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(other.action[:N], ledger.action)
    np.testing.assert_allclose(other.record.equity[:N], ledger.record.equity, rtol=1e-6)
    assert not other.valid[N:].any()


@pytest.mark.parametrize("symbol", [1, 2])
def test_a_symbol_is_played_as_if_alone(symbol):
    spec, params = policy()
    play = jax.jit(lambda p, t, n: play_policy(spec.agent, spec.env, p, t, n, WINDOW), static_argnums=2)
    record, action, _ = play(params, market(), N)
    n, length = DECISIONS[symbol], LENGTHS[symbol]
    alone = jax.tree.map(lambda x: x[symbol : symbol + 1], market())
    alone = jax.tree.map(lambda x: x[:, :length] if x.ndim > 1 else x, alone)
    only, only_action, valid = play(params, alone, n)
    assert valid.all()
    np.testing.assert_array_equal(only_action[:, 0], action[:n, symbol])
    np.testing.assert_allclose(only.equity[:, 0], record.equity[:n, symbol], rtol=1e-5)


# --- the policy, and who validates it ---


def test_the_policy_is_the_argmax_of_what_a_single_environment_shows():
    """Decision by decision with the environment's own `observe` and `step`, until the account is ruined or data end."""
    spec, params = policy()
    tape, agent, env = market(), spec.agent, spec.env

    @jax.jit
    def decide(state: EnvState):
        observation = observe(tape, env, state)
        window = take_windows(tape, state.symbol[None], state.t[None] - (WINDOW - 1), WINDOW)
        logits, _ = agent.decide(params, agent.encode(params, window)[0, 0], observation.account[None])
        action = jnp.argmax(jnp.where(valid_actions(tape, env, observation), logits[0], -jnp.inf)).astype(jnp.int32)
        after, _, result, terminated, _ = step(tape, env, state, action)
        return after, action, result.record.equity, terminated

    record, action, _ = jax.jit(lambda: play_policy(agent, env, params, tape, N, WINDOW))()
    assert len(np.unique(action)) > 2
    for s in range(3):
        state = EnvState(jnp.int32(s), tape.first[s], jnp.int32(0), open_account(jnp.ones(())), {})
        for i in range(DECISIONS[s] - 1):  # the last record is that of a closed account
            state, chosen, equity, terminated = decide(state)
            assert int(action[i, s]) == int(chosen), (s, i)
            assert float(record.equity[i, s]) == pytest.approx(float(equity), rel=1e-5), (s, i)
            if terminated:
                break


def test_the_policy_does_not_choose_what_the_mask_forbids():
    spec, params = policy()
    sell = spec.env.actions.labels.index("sell_75")
    network = spec.agent.unravel(jnp.zeros_like(params))
    network["policy_head"]["bias"] = network["policy_head"]["bias"].at[sell].set(1.0)
    params, _ = ravel_pytree(network)
    tape = market()
    _, action, valid = jax.jit(lambda p: play_policy(spec.agent, spec.env, p, tape, N, WINDOW))(params)
    for s in range(3):  # the second symbol may not be sold short, and is never bought
        chosen = np.unique(np.asarray(action)[np.asarray(valid)[:, s], s])
        assert chosen.tolist() == ([0] if s == 1 else [sell])


def test_playing_a_policys_actions_again_is_playing_the_policy():
    spec, params = policy()
    tape = market()
    record, action, valid = jax.jit(lambda p: play_policy(spec.agent, spec.env, p, tape, N, WINDOW))(params)
    again, same, still = played(LEVERAGED, action, market())
    np.testing.assert_array_equal(action, same)
    np.testing.assert_array_equal(valid, still)
    chex.assert_trees_all_close(again, jax.tree.map(np.asarray, record), rtol=1e-6, atol=1e-7)


def test_validation_vmaps_over_parameters():
    params, other = policy()[1], policy(8)[1]
    both = jax.tree.map(lambda *x: jnp.stack(x), params, other)
    many, _ = jax.jit(jax.vmap(validator(N), in_axes=(0, None)))(both, dataset())
    assert many.symbols.sharpe.shape == (2, 3)
    for i, p in enumerate((params, other)):
        alone, _ = validator(N)(p, dataset())
        chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], many), alone, rtol=1e-3, atol=1e-5)
    assert float(many.pooled.net_return[0]) != float(many.pooled.net_return[1])


def test_the_programs_validation_is_validate():
    config = tiny_config()
    program, tape, data = tiny_program(config)
    hyper, spec = hyper_from(config), program.spec
    state = jax.jit(program.init)(jax.random.key(0), hyper, tape)
    state, out = jax.jit(program.segment)(state, hyper, tape, data, jnp.int32(2))
    n = n_decisions(data.tape)
    check = jax.jit(lambda p, d: validate(spec.agent, spec.env, p, d, n, spec.receptive_field))
    alone = check(state.params, data)
    np.testing.assert_array_equal(out.score.action, alone.action)
    chex.assert_trees_all_close(out.score.figures, alone.figures, rtol=1e-4, atol=1e-5)
