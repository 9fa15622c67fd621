"""Train on a market whose edge is known and play on fresh bars of it: is a signal found, and is none imagined?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import Params
from jaxppo.check.verdict import Check, Compute, as_table
from jaxppo.config.layers import replace_fields
from jaxppo.config.schema import Config
from jaxppo.env.account import StepRecord
from jaxppo.env.trading import EXPOSURE, EnvSpec
from jaxppo.market.asset_classes import class_fees, may_short
from jaxppo.market.bars import Bars
from jaxppo.market.dataset import build_evaluation
from jaxppo.market.features import FeatureTable
from jaxppo.market.planted import ar1_market, dp_oracle, oracle_positions
from jaxppo.market.synthetic import END
from jaxppo.market.tape import Tape
from jaxppo.play.deciders import choosing, play_policy
from jaxppo.play.oracle import reachable, table_positions, toward_exposure
from jaxppo.play.passes import lane, n_decisions, play
from jaxppo.ppo.program import TapeSpec, make_train, run_updates
from jaxppo.ppo.state import hyper_from

Draw = Callable[[int, int, int], tuple[list[Bars], np.ndarray]]
"""A made-up market: seed, symbols S and bars T to S `Bars` and the signal (S, T) that the policy is shown."""

SIGNAL = "planted_signal"
PHI = 0.95
NOISE = 0.005  # Deviation of a bar; less where stops are nearer, which it must not reach by itself within a few bars.
STOP_NOISE, TAKE_PROFIT_NOISE = 4.0, 8.0  # Deviations of a bar to the stop and to the take-profit, at least.
EDGE_SHARE = 0.4  # Expected log return of the next bar per unit of signal, as a share of the noise.
# A signal of 1 is worth edge / (1 - PHI) = 20 edges until it fades: four costs a side, at least.
COST_SHARE = 0.2
FRESH_SEED = 10_000
BLOCKS = 10
STANDARD_ERRORS = 4.0
PLANTED_SHARE = 0.5
"""Share of the oracle's net growth that the short budget must reach."""

# With the default features, encoder, actions and costs; a policy that is shown 53 features of noise beside the signal.
_TRAINING = {
    "n_envs": 512,
    "lanes": 8,
    "n_steps": 32,
    "minibatches": 8,
    "epochs": 4,
    "learning_rate": 2e-3,
    "env_steps": 0,
    "n_validations": 0,
}


@dataclass(frozen=True)
class ProbeSizes:
    """How much is trained on how much; the bars of features that warm up come on top."""

    n_updates: int = 40
    n_symbols: int = 4
    n_bars: int = 10_000
    fresh_symbols: int = 16
    fresh_bars: int = 2_000
    training: tuple[tuple[str, float | int], ...] = tuple(_TRAINING.items())


def log_growth(record: StepRecord) -> np.ndarray:
    """(S,) log growth a bar, in basis points, of accounts that start at 1; the record is (N, S)."""
    equity = np.asarray(record.equity, np.float64)
    return 1e4 * np.log(np.maximum(equity[-1], 1e-9)) / len(equity)


def whole_tape(bars: Sequence[Bars], config: Config, tables: Sequence[FeatureTable]) -> Tape:
    """All bars of a market as one Tape: every bar with a receptive field behind it decides."""
    market = build_evaluation(bars, config, receptive_field(config.agent), "all", None, tables)
    return market.splits["all"].tape


def decided(tape: Tape, rows: np.ndarray) -> np.ndarray:
    """(N, S) of values (S, T) that bars have, at the decisions of a `whole_tape` whose symbols are of one length."""
    begin = rows.shape[1] - int(tape.length[0]) + int(tape.first[0])
    return rows[:, begin : begin + n_decisions(tape)].T


def play_exposures(wanted: jax.Array, spec: EnvSpec, tape: Tape) -> StepRecord:
    """Play the actions that lead nearest to wanted exposures (N, S). Returns the record (N, S)."""
    allowed = jnp.expand_dims(tape.allow_short, -1)

    def choose(want: jax.Array, vector: jax.Array, mask: jax.Array) -> jax.Array:
        return toward_exposure(spec.actions, want, vector[..., EXPOSURE], allowed, spec.config.max_exposure)

    decider = choosing(choose, jnp.expand_dims(wanted, -1), spec, tape)
    return lane(play(decider, tape, wanted.shape[0]).record, 0)


@dataclass(frozen=True)
class Kind:
    """What the made-up symbols have in common with the user's."""

    asset_class: str
    interval: int  # seconds

    @staticmethod
    def of(bars: Sequence[Bars]) -> Kind:
        """The most common class of `bars`, and their interval."""
        classes = [b.asset_class for b in bars]
        return Kind(max(sorted(set(classes)), key=classes.count), bars[0].interval)


def side_cost(config: Config, kind: Kind) -> float:
    """Cost of a side, as a fraction of the notional."""
    return class_fees(config.env)[kind.asset_class] + config.env.spread / 2 + config.env.slippage


def planted_sizes(config: Config, kind: Kind) -> tuple[float, float]:
    """Edge and noise of a signal that is worth trading at the configured costs, stops and take-profit."""
    env = config.env
    near = [d / n for d, n in ((env.stop_loss, STOP_NOISE), (env.take_profit, TAKE_PROFIT_NOISE)) if d > 0]
    noise = min([NOISE, *near])
    return max(EDGE_SHARE * noise, COST_SHARE * side_cost(config, kind)), noise


def planted_draw(edge: float, noise: float, kind: Kind) -> Draw:
    """Markets with this edge in an observed signal; with an edge of 0, driftless ones whose signal says nothing."""

    def draw(seed: int, n_symbols: int, n_bars: int) -> tuple[list[Bars], np.ndarray]:
        bars, signal = ar1_market(seed, n_symbols, n_bars, phi=PHI, edge=edge, noise=noise)
        time = END + kind.interval * np.arange(-n_bars, 0)
        return [replace(b, asset_class=kind.asset_class, interval=kind.interval, time=time) for b in bars], signal

    return draw


class Drawn(NamedTuple):
    """A made-up market as the policy sees it."""

    tape: Tape
    signal: np.ndarray  # (N, S) at each decision


class Probe:
    """Small training runs of one configuration on made-up markets of one shape: compiled once, whatever the market."""

    def __init__(self, config: Config, compute: Compute, kind: Kind, sizes: ProbeSizes = ProbeSizes()):
        """The user's features, encoder, actions, costs and reward; budget and learning rate are the probe's own."""
        own = {**dict(sizes.training), "n_updates": sizes.n_updates, "validate_every": sizes.n_updates, "seeds": 1}
        own["episode_steps"] = max(1, config.env.episode_steps // int(own["n_steps"])) * int(own["n_steps"])
        self.config = replace_fields(config, own)
        self.kind = kind
        self.sizes = sizes
        self._compute = compute
        self._functions: tuple[EnvSpec, Callable[..., Any], Callable[..., Any], Callable[..., Any]] | None = None

    @property
    def steps(self) -> int:
        """Env steps of one training run."""
        return self.sizes.n_updates * self.config.batch_steps

    def draw(self, market: Draw, seed: int, *, fresh: bool) -> Drawn:
        """A market to train on, or a fresh one to play on."""
        s = self.sizes
        n_symbols, n_bars = (s.fresh_symbols, s.fresh_bars) if fresh else (s.n_symbols, s.n_bars)
        warm_up = as_table(self._compute(market(0, 1, 20_000)[0][0])).min_bars + receptive_field(self.config.agent) - 1
        bars, signal = market(seed + FRESH_SEED if fresh else seed, n_symbols, n_bars + warm_up)
        tables = []
        for b, row in zip(bars, signal, strict=True):
            own = as_table(self._compute(b))
            values = np.concatenate([own.values.astype(np.float32), row[:, None].astype(np.float32)], axis=1)
            tables.append(FeatureTable(values, (*own.names, SIGNAL), own.min_bars))
        tape = whole_tape(bars, self.config, tables)
        return Drawn(tape, decided(tape, signal))

    def train(self, market: Drawn, seed: int, costs: bool = True) -> Params:
        """Parameters after the probe's updates; with `costs` False trading is free."""
        tape = market.tape if costs else free(market.tape)
        return self._build(market.tape)[1](jax.random.key(seed), tape)

    def play(self, params: Params, fresh: Drawn) -> StepRecord:
        """The argmax policy over a fresh market: (N, S) host arrays."""
        return jax.device_get(self._build(fresh.tape)[2](params, fresh.tape))

    def follow(self, wanted: np.ndarray, fresh: Drawn) -> StepRecord:
        """Exposures (N, S) over a fresh market, by the actions nearest to them: (N, S) host arrays."""
        return jax.device_get(self._build(fresh.tape)[3](jnp.asarray(wanted, jnp.float32), fresh.tape))

    def _build(self, tape: Tape) -> tuple[EnvSpec, Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
        if self._functions is None:
            config = self.config
            program = make_train(config, TapeSpec(tape.n_features, 1))
            spec, hyper, n = program.spec, hyper_from(config), self.sizes.fresh_bars

            def train(key: jax.Array, tape: Tape) -> Params:
                state = program.init(key, hyper, tape)
                return run_updates(spec, state, hyper, tape, config.budget.n_updates)[0].params

            def played(params: Params, tape: Tape) -> StepRecord:
                done = play_policy(spec.agent, spec.env, params, tape, n, spec.receptive_field)
                return lane(done.record, 0)

            def followed(wanted: jax.Array, tape: Tape) -> StepRecord:
                return play_exposures(wanted, spec.env, tape)

            self._functions = (spec.env, jax.jit(train), jax.jit(played), jax.jit(followed))
        return self._functions

    def oracle(self, fresh: Drawn, edge: float, noise: float) -> np.ndarray:
        """(N, S) exposures of the best policy that sees the signal, over what the action table can reach."""
        env, short = self.config.env, may_short(self.kind.asset_class, self.config.env)
        table = self._build(fresh.tape)[0].actions
        positions = table_positions(table, env.max_exposure, short)
        reach = reachable(table, positions, env.max_exposure, short)
        cost = side_cost(self.config, self.kind)
        best = dp_oracle(phi=PHI, edge=edge, cost=cost, noise=noise, positions=positions, reach=reach)
        return np.stack([oracle_positions(row, best) for row in fresh.signal.T], axis=1)


def free(tape: Tape) -> Tape:
    """The same market without costs."""
    return tape._replace(costs=jax.tree.map(jnp.zeros_like, tape.costs))


class Estimate(NamedTuple):
    """A mean a bar in basis points and its standard error over blocks of bars of every symbol."""

    mean: float
    error: float

    @property
    def deviations(self) -> float:
        """The mean in standard errors; 0 for an account that never moved."""
        return 0.0 if self.mean == 0.0 else self.mean / self.error if self.error > 0 else float("inf")


def block_estimate(x: np.ndarray) -> Estimate:
    """Mean of (N, S) values a bar and its error over `BLOCKS` equal blocks of every symbol, in basis points."""
    n = max(len(x) // BLOCKS, 1) * min(BLOCKS, len(x))
    blocks = 1e4 * x[len(x) - n :].reshape(min(BLOCKS, len(x)), -1, x.shape[1]).mean(axis=1).ravel()
    return Estimate(float(blocks.mean()), float(blocks.std(ddof=1) / np.sqrt(len(blocks))))


class Placebo(NamedTuple):
    """What a policy earned where nothing is to be earned, a bar and over the equity before."""

    gross: Estimate  # before costs
    excess: Estimate  # net, plus the costs that the notional it traded should have cost
    net: Estimate
    trades: int


def placebo_figures(record: StepRecord, cost: float) -> Placebo:
    """Gross and net of a played record (N, S) at `cost` a side."""
    equity = np.asarray(record.equity, np.float64)
    before = np.maximum(np.concatenate([np.ones_like(equity[:1]), equity[:-1]]), 1e-9)
    net = equity / before - 1.0
    borrow = np.asarray(record.borrow, np.float64) / before
    gross = net + np.asarray(record.cost, np.float64) / before + borrow
    excess = net + cost * np.asarray(record.traded, np.float64) / before + borrow
    return Placebo(block_estimate(gross), block_estimate(excess), block_estimate(net), int(np.sum(record.closed)))


def check_placebo(probe: Probe, seed: int = 0, market: Draw | None = None) -> Check:
    """Where prices have no drift, does a trained policy earn nothing before costs and lose its costs?

    Three policies are played on fresh bars at the configured costs: one trained where trading was free (so it trades),
    one trained at the costs, and random exposures. A standard error is over `BLOCKS` blocks of each fresh symbol.

    Args:
      probe: the configuration, its features and sizes.
      seed: of training, bars and random exposures.
      market: another market than the driftless one, to see the check fail.
    """
    draw = market or planted_draw(0.0, planted_sizes(probe.config, probe.kind)[1], probe.kind)
    train, fresh = probe.draw(draw, seed, fresh=False), probe.draw(draw, seed, fresh=True)
    cost = side_cost(probe.config, probe.kind)
    largest = probe.config.env.max_exposure
    rng = np.random.default_rng(seed)
    wishes = largest * rng.choice([-1.0, 0.0, 1.0], size=fresh.signal.shape)
    records = {
        "trained without costs": probe.play(probe.train(train, seed, costs=False), fresh),
        "trained at the costs": probe.play(probe.train(train, seed), fresh),
        "random": probe.follow(wishes, fresh),
    }
    figures = {name: placebo_figures(record, cost) for name, record in records.items()}
    worst_gross = max(figures, key=lambda n: abs(figures[n].gross.deviations))
    worst_excess = max(figures, key=lambda n: abs(figures[n].excess.deviations))
    gross, excess = figures[worst_gross].gross, figures[worst_excess].excess
    passed = max(abs(gross.deviations), abs(excess.deviations)) <= STANDARD_ERRORS
    lines = [
        f"{name}: {f.trades:,} trades, before costs {f.gross.mean:+.2f} (error {f.gross.error:.2f}),"
        f" net {f.net.mean:+.2f}"
        for name, f in figures.items()
    ]
    if not passed and abs(gross.deviations) > STANDARD_ERRORS:
        said = f"Something is earned where nothing is ({worst_gross}): a feature, a price or a fill knows too much."
    elif not passed:
        said = f"What is lost is not what trading should have cost ({worst_excess})."
    else:
        said = "Without drift nothing is earned before costs, and the costs are lost."
        idle = [name for name, f in figures.items() if f.trades == 0]
        said += f" Without a trade, and so not tested: {', '.join(idle)}." if idle else ""
    return Check(
        "placebo",
        passed,
        f"gross {gross.deviations:+.1f}, net {excess.deviations:+.1f} s.e.",
        f"{STANDARD_ERRORS:g} s.e.",
        f"{said} Basis points a bar on {probe.sizes.fresh_symbols} fresh symbols of {probe.sizes.fresh_bars:,} bars;"
        f" {'; '.join(lines)}.",
        {
            "policies": {
                name: {
                    "trades": f.trades,
                    **{k: {"mean_bp": e.mean, "error_bp": e.error} for k, e in f._asdict().items() if k != "trades"},
                }
                for name, f in figures.items()
            },
            "train_steps": probe.steps,
            "cost_a_side": cost,
        },
    )


def check_planted(probe: Probe, seed: int = 0, share: float = PLANTED_SHARE) -> Check:
    """Is a signal that is there found, next to the user's own features and under the configured reward?

    The policy is shown the signal as one more feature. Its net log growth on fresh bars is held against that of the
    policy that a dynamic program finds, played through the same actions, stops and costs.

    Args:
      probe: the configuration, its features and sizes.
      seed: of training and bars.
      share: of the oracle's growth that passes.
    """
    edge, noise = planted_sizes(probe.config, probe.kind)
    draw = planted_draw(edge, noise, probe.kind)
    train, fresh = probe.draw(draw, seed, fresh=False), probe.draw(draw, seed, fresh=True)
    record = probe.play(probe.train(train, seed), fresh)
    own = log_growth(record)
    best = log_growth(probe.follow(probe.oracle(fresh, edge, noise), fresh))
    error = float(own.std(ddof=1) / np.sqrt(len(own)))
    reached = float(own.mean() / best.mean()) if best.mean() > 0 else float("nan")
    passed = reached >= share
    trades = int(np.sum(record.closed))
    said = (
        "The signal is found."
        if passed
        else "The signal is not found: the reward, the costs or the sizes keep this policy from what is there."
    )
    if not best.mean() > 0:
        said = "Not even the oracle earns anything at these stops and costs; the check says nothing."
    return Check(
        "planted",
        passed,
        f"{100 * reached:.0f} % of the oracle" if best.mean() > 0 else "the oracle earns nothing",
        f"{100 * share:.0f} %",
        f"{said} Net {own.mean():.2f} basis points a bar (error {error:.2f}) on fresh bars, the oracle"
        f" {best.mean():.2f}; {trades:,} trades; trained {probe.steps:,} steps on {probe.sizes.n_symbols} symbols of"
        f" {probe.sizes.n_bars:,} bars.",
        {
            "share": reached,
            "growth_bp": float(own.mean()),
            "error_bp": error,
            "oracle_bp": float(best.mean()),
            "trades": trades,
            "edge": edge,
            "noise": noise,
            "phi": PHI,
            "train_steps": probe.steps,
        },
    )
