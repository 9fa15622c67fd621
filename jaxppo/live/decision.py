"""What a policy does with the newest bar: the decision of the backtest, for one account at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import Agent, Distribution, Params
from jaxppo.config.schema import Config
from jaxppo.env.account import AccountState, exposure_at, fill_order, gone_at, open_account
from jaxppo.env.actions import ActionTable, action_mask, asked_exposures
from jaxppo.env.trading import EXPOSURE, EnvSpec, env_spec, observe_account
from jaxppo.errors import CheckpointError, DataError, nearest
from jaxppo.live.account import Account
from jaxppo.market.asset_classes import may_short
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import bars_per_year
from jaxppo.market.costs import market_costs
from jaxppo.market.dataset import warm_up_bars
from jaxppo.market.inputs import total_return
from jaxppo.market.recipe import feature_recipe
from jaxppo.market.tape import Costs, MarketStep, Quote
from jaxppo.market.volatility import volatility_sizes
from jaxppo.play.deciders import policy_units


class Decision(NamedTuple):
    """What a policy does at the close of the newest bar; its order is for the next open.

    Money and units are those of the account that was given: of a fresh or an environment's one, in starting equities.
    """

    symbol: str
    time: int  # start of the bar, UTC seconds
    action: str  # label of the most probable action
    probabilities: Mapping[str, float]  # by label
    value: float  # of the state, in discounted reward
    size: float  # exposure that an action's 1 stands for: 1, or what volatility gives
    exposure: float  # wanted: of the most probable action, or of all on average (`act_by`)
    price: float  # at which the order is reckoned: as given, or the close
    equity: float  # at the close
    units: float  # signed units to hold after the order; those held where it is not worth one
    order: float  # signed units to trade now, 0 for none
    stop: float | None  # price in force once the order has filled at `price`; None for none
    take_profit: float | None  # likewise
    min_bars: int  # bars of history that a decision needs


class Info(Protocol):
    """What a checkpoint says of its policy, as far as deciding needs it."""

    @property
    def config(self) -> Config: ...
    @property
    def actions(self) -> ActionTable: ...
    @property
    def feature_names(self) -> tuple[str, ...]: ...
    @property
    def feature_hash(self) -> str: ...
    @property
    def update(self) -> int: ...


class Policy(Protocol):
    """A policy that can decide, such as `restore_policy` gives."""

    @property
    def params(self) -> Params: ...
    @property
    def agent(self) -> Agent: ...
    @property
    def info(self) -> Info: ...


class Answer(NamedTuple):
    """What the compiled program says of one account, in starting equities."""

    log_probs: jax.Array  # (K,)
    numbers: jax.Array  # (len(NUMBERS),) float32, packed: an array that comes back takes as long as a small matmul


NUMBERS = ("action", "value", "exposure", "equity", "units", "order", "stop", "take_profit")


class Seen(NamedTuple):
    """What is decided on: the newest bar of a symbol, and what it is traded at. Host numbers."""

    window: np.ndarray  # (R, F) float32: features of the bars that the encoder sees
    symbol: str
    time: int
    close: float
    size: float | None
    allow_short: bool
    costs: Costs  # () float32
    times: Sequence[int] | np.ndarray  # UTC seconds of the bars up to it, ascending, or of some thousand of them
    min_bars: int  # of history that a decision needs


def answer(agent: Agent, spec: EnvSpec) -> Callable[..., Answer]:
    """The decision as one pure function of (params, window, account, quote, price, costs, allow_short).

    It is what `jaxppo.play.deciders.acting_policy` does at a bar, in the same functions; `price` is the open to come.
    """
    config = spec.config

    def decide(
        params: Params,
        window: jax.Array,
        account: AccountState,
        quote: Quote,
        price: jax.Array,
        costs: Costs,
        allow_short: jax.Array,
    ) -> Answer:
        observation = observe_account(account, quote, config)  # (A,)
        market = agent.encode(params, jnp.expand_dims(window, 0))[0, -1]  # (H,), or (M, H) of an ensemble
        mask = action_mask(spec.actions, observation[EXPOSURE], allow_short)  # (K,)
        found, value = agent.act(params, market, jnp.expand_dims(observation, 0), jnp.expand_dims(mask, 0))
        policy = Distribution(found.log_probs[0])
        held = exposure_at(account, price)
        asked = asked_exposures(spec.actions, held, allow_short, config.max_exposure, quote.size)  # (K,)
        chosen = policy.mode()
        mean = config.act_by == "mean"
        wanted = (asked * jnp.exp(policy.log_probs)).sum() if mean else asked[chosen]
        bar = MarketStep(price, price, price, price, price, price, quote.size)
        units = policy_units(account, policy, bar, costs, allow_short, spec)
        units = jnp.where(gone_at(account, price, config.ruin_level), account.units, units)
        filled, _ = fill_order(account, units, price, costs, config)
        order = units - account.units
        numbers = (chosen, value[0], wanted, account.equity, units, order, filled.stop, filled.take_profit)
        return Answer(policy.log_probs, jnp.stack([x.astype(jnp.float32) for x in numbers]))

    return decide


class Decider:
    """A policy that is ready to decide: compiled with the first decision, and the same for every symbol and account."""

    def __init__(self, policy: Policy):
        """Raises `CheckpointError` where the features are computed otherwise than the policy was trained with."""
        config = policy.info.config
        self.policy = policy
        self.recipe = feature_recipe(config)
        self.groups = self.recipe.groups
        self.spec = EnvSpec(config.env, policy.info.actions, env_spec(config.env, config.reward).reward)
        self.reach = receptive_field(config.agent)
        warm_up = warm_up_bars(self.recipe.min_bars, config.env)
        self.min_bars = warm_up + self.reach - 1  # else the encoder would see rows before the features are known
        self._check_features()
        self._answer = jax.jit(answer(policy.agent, self.spec))
        self._charged: dict[tuple[str, str], Costs] = {}
        self.fresh: AccountState = jax.device_get(open_account(jnp.ones(())))  # one that has not traded

    def _check_features(self) -> None:
        info, names = self.policy.info, self.recipe.names
        if names != info.feature_names:
            pairs = zip_longest(info.feature_names, names)
            of, here = next((a, b) for a, b in pairs if a != b)
            raise CheckpointError(
                f"the policy was trained with {len(info.feature_names)} features, of which its groups"
                f" {[g.name for g in self.groups]} do not compute {of!r} here (they give {len(names)}, {here!r} in its"
                " place); use the plugin, the file or the version that it was trained with"
            )
        if (found := self.recipe.hash) != info.feature_hash:
            raise CheckpointError(
                f"the policy's features have the hash {info.feature_hash[:12]} and those computed here {found[:12]}:"
                " the names agree, but not how they are computed; use the version of jaxppo that it was trained with"
            )

    def costs(self, bars: Bars) -> Costs:
        """What the run's configuration charges for fills of this symbol; () float32, the borrow not needed here."""
        of = bars.symbol, bars.asset_class
        if of not in self._charged:  # a file of costs is read once
            charged = market_costs([bars], self.spec.config)
            own = charged.by_symbol[bars.symbol]
            # The sum in float64, as the Tape has it: rounded apart, a size can differ in its last bit.
            numbers = (own.fee, own.half_spread + charged.slippage, 0.0)
            self._charged[of] = Costs(*(np.float32(x) for x in numbers))  # type: ignore[arg-type]
        return self._charged[of]

    def see(self, bars: Bars, costs: Costs | None = None, per_year: float | None = None) -> Seen:
        """The newest bar of a history; by default at the costs of the configuration and the bars a year of the bars."""
        self.require_bars(bars)
        config = self.policy.info.config
        # A file of features from elsewhere is read again once it has changed, as it does with every new bar.
        table = (self.recipe if self.recipe.outside is None else feature_recipe(config))(bars)
        needed = warm_up_bars(table.min_bars, config.env) + self.reach - 1
        self.require_bars(bars, needed)
        size = None
        if config.env.size_by == "volatility":
            if per_year is None:  # those of 24,000 bars take .8 ms to count
                per_year = bars_per_year(bars.time, bars.interval, bars.asset_class, bars.timezone)
            sizes = volatility_sizes(total_return(bars).close, per_year, config.env)
            size = None if sizes is None else float(np.float32(sizes[-1]))  # as the Tape has it
        return Seen(
            table.values[-self.reach :],
            bars.symbol,
            int(bars.time[-1]),
            float(bars.close[-1]),
            size,
            may_short(bars.asset_class, config.env),
            self.costs(bars) if costs is None else costs,
            bars.time,
            needed,
        )

    def require_bars(self, bars: Bars, needed: int | None = None) -> None:
        """`DataError` for fewer bars than `needed`, by default what features of bars and sizes need."""
        needed = self.min_bars if needed is None else needed
        if len(bars.time) < needed:
            raise DataError(
                f"{bars.symbol}: {len(bars.time)} bars in {bars.source}, but a decision needs at least {needed}:"
                f" those of the features and of the size, and {self.reach - 1} before the last that the encoder sees"
            )

    def decide(self, seen: Seen, account: AccountState | Account | None, price: float | None = None) -> Decision:
        """The decision on what is seen.

        Args:
          seen: of `see`, or of a stream.
          account: at the close; None is a fresh one.
          price: at which the order is expected to fill; by default the close.
        """
        state, start = self.fresh if account is None else account, 1.0
        if isinstance(account, Account):
            try:
                state, start = account.state(seen.close, self.spec.config, seen.times)
            except DataError as error:
                raise DataError(f"{seen.symbol}: {error}") from None
        price = seen.close if price is None else price
        quote = Quote(np.float32(seen.close), None if seen.size is None else np.float32(seen.size))  # type: ignore[arg-type]
        arguments = (seen.window, state, quote, np.float32(price), seen.costs, np.bool_(seen.allow_short))
        log_probs, numbers = jax.device_get(self._answer(self.policy.params, *arguments))
        if not np.isfinite(numbers[:6]).all():
            raise DataError(
                f"{seen.symbol}: the policy's answer is no number; an amount of the account is none, or too large"
            )
        _, value, exposure, equity, units, order, stop, take = map(float, numbers)
        held = account.units if isinstance(account, Account) else float(state.units)
        # Reckoned from what is held as it was told: the program has it in float32, over the start.
        after = units * start if order else held
        labels = self.spec.actions.labels
        return Decision(
            symbol=seen.symbol,
            time=seen.time,
            action=labels[int(numbers[0])],
            probabilities=dict(zip(labels, np.exp(log_probs).tolist(), strict=True)),
            value=value,
            size=1.0 if seen.size is None else seen.size,
            exposure=exposure,
            price=price,
            equity=equity * start,
            units=after,
            order=after - held,
            stop=_level(stop, units),
            take_profit=_level(take, units),
            min_bars=seen.min_bars,
        )

    def __call__(
        self, bars: Any, account: Any = None, *, price: Any = None, costs: Any = None, bars_per_year: Any = None
    ) -> Any:
        """A decision of one symbol, or of each in a mapping: see `RestoredPolicy.decide`."""
        if isinstance(bars, Bars):
            seen = self.see(bars, costs, bars_per_year)
            return self.decide(seen, account, price)
        given = {"account": account, "price": price, "costs": costs, "bars_per_year": bars_per_year}
        given = {name: values or {} for name, values in given.items()}
        for name, values in given.items():
            for symbol in values:
                if symbol not in bars:
                    raise DataError(f"{name} of {symbol!r}, of which there are no bars; {nearest(symbol, bars)}")
        return {s: self(b, **{name: values.get(s) for name, values in given.items()}) for s, b in bars.items()}


def _level(price: float, units: float) -> float | None:
    """A level in force: none of a flat account, nor one that no price can reach."""
    return price if units != 0 and 0 < price < np.inf else None
