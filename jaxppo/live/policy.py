"""What a policy that was trained can do with new bars."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from jaxppo.agent.policy import Agent, Params
from jaxppo.env.account import AccountState
from jaxppo.live.account import Account
from jaxppo.live.decision import Decider, Decision, Info
from jaxppo.live.stream import Stream
from jaxppo.market.bars import Bars
from jaxppo.market.tape import Costs


class Deciding:
    """Decisions of a policy that has `params`, `agent` and `info`, such as `restore_policy` gives."""

    if TYPE_CHECKING:

        @property
        def params(self) -> Params: ...
        @property
        def agent(self) -> Agent: ...
        @property
        def info(self) -> Info: ...

    @cached_property
    def decider(self) -> Decider:
        """The policy ready to decide: its program is compiled once, with the first decision."""
        return Decider(self)

    @overload
    def decide(
        self,
        bars: Bars,
        account: Account | AccountState | None = ...,
        *,
        price: float | None = ...,
        costs: Costs | None = ...,
        bars_per_year: float | None = ...,
    ) -> Decision: ...
    @overload
    def decide(
        self,
        bars: Mapping[str, Bars],
        account: Mapping[str, Account | AccountState] | None = ...,
        *,
        price: Mapping[str, float] | None = ...,
        costs: Mapping[str, Costs] | None = ...,
        bars_per_year: Mapping[str, float] | None = ...,
    ) -> dict[str, Decision]: ...
    def decide(
        self, bars: Any, account: Any = None, *, price: Any = None, costs: Any = None, bars_per_year: Any = None
    ) -> Any:
        """What the policy does at the close of the newest bar, by the training's own functions.

        Stateless; its time grows with the history, whose features it computes. `Stream` does so bar by bar.

        Args:
          bars: history of one symbol, at least as long as features, size and receptive field need, from the same first
            bar on as in the backtest where the last bit matters; or a mapping of symbols to theirs.
          account: plain facts (`jaxppo.Account`, in money), or an `AccountState` of the environment, of
            shape () and in units of its starting equity; by default a fresh one. Or a mapping of symbols to theirs.
          price: at which the order is expected to fill, by default the close; the order is reckoned at it.
          costs: of fills, () float32; by default what the run's configuration charges.
          bars_per_year: that annualise the forecast of a size by volatility; by default those of `bars`, of which there
            should be four weeks to tell what is usual.

        Returns:
          A `Decision`, or one for each symbol of `bars`.

        Raises:
          DataError: too few bars, or an account that cannot be.
          CheckpointError: features that are computed otherwise than the policy was trained with.

        Example:
          >>> import jaxppo
          >>> policy = jaxppo.restore_policy("runs/my-run")  # doctest: +SKIP
          >>> bars = jaxppo.load_bars("BTCUSDT.csv")[0]  # doctest: +SKIP
          >>> policy.decide(bars, jaxppo.Account(equity=10_000.0)).order  # doctest: +SKIP
          0.0917
        """
        return self.decider(bars, account, price=price, costs=costs, bars_per_year=bars_per_year)

    def stream(self, bars: Bars, *, costs: Costs | None = None, bars_per_year: float | None = None) -> Stream:
        """The policy fed bar by bar, beginning with a history: see `jaxppo.live.stream.Stream`."""
        return Stream(self.decider, bars, costs=costs, bars_per_year=bars_per_year)
