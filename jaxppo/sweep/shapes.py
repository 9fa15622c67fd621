"""Trials whose programs differ in arrays alone are of one shape: one market, one compilation, one population."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import Params
from jaxppo.config.layers import flat_fields, updates_for_passes
from jaxppo.config.schema import Config, to_dict
from jaxppo.env.trading import EnvSpec
from jaxppo.errors import ConfigError
from jaxppo.market.bars import Bars
from jaxppo.market.dataset import EvaluationSet, Market, build_market, evaluation_set, joint_calendar
from jaxppo.market.tape import REWARD_HORIZON
from jaxppo.members import SWEPT, CompiledMembers, compile_members
from jaxppo.play.members import play_members
from jaxppo.play.passes import n_decisions
from jaxppo.play.score import Figures, Score, validate
from jaxppo.ppo.checks import check_program
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.state import TrainSpec
from jaxppo.sweep.space import Space

_KEPT = 8
"""Programs and markets that are kept; another one replaces the oldest."""


def trial_config(resolve: Callable[[Mapping[str, Any]], Config], space: Space, params: Mapping[str, Any]) -> Config:
    """The configuration of a trial, which is that of a training run with its parameters as flags.

    Raises:
      ConfigError: the values do not fit together.
    """
    return check_program(resolve({name: space[name].value(plain) for name, plain in params.items()}))


def check_space(resolve: Callable[[Mapping[str, Any]], Config], space: Space) -> None:
    """Look at the configurations at every category and at both ends of every range, all else as it is.

    Raises:
      ConfigError: one of them cannot be run.
    """
    for name, dimension in space.items():
        for value in dimension.extremes():
            try:
                check_program(resolve({name: value}))
            except ConfigError as error:
                raise ConfigError(f"search: {name} {value}: {error}") from error


def common_purge(resolve: Callable[[Mapping[str, Any]], Config], space: Space) -> dict[str, int]:
    """The bars between splits that suit the encoder with the widest view, so that one period validates all trials.

    Returns:
      The field with its value; empty where no encoder is searched.
    """
    wide = [name for name in ("encoder", "window") if name in space]
    corners = itertools.product(*(space[name].extremes() for name in wide))
    configs = [resolve(dict(zip(wide, corner, strict=True))) for corner in corners]
    most = max(max(c.data.purge_bars, receptive_field(c.agent) + REWARD_HORIZON) for c in configs)
    return {"purge_bars": most} if wide else {}


def shape_key(config: Config) -> str:
    """The same for trials that one population may hold."""
    flat = {k: v for k, v in flat_fields(config).items() if k not in SWEPT}
    return json.dumps(flat, sort_keys=True, default=list)


class Played(NamedTuple):
    """One policy on one split, on the host."""

    figures: Figures
    portfolio: np.ndarray  # (D,) equity day by day, rebalanced daily
    score: Score | None  # all of its accounts, where they were asked for


class Program:
    """What is compiled for one shape, and the market of its trials."""

    def __init__(self, config: Config, market: Market, slots: int, devices: int):
        """
        Args:
          config: of any of its trials but for the swept fields, with its updates.
          market: of all.
          slots: most trials that are trained together.
          devices: that divide them.
        """
        self.config, self.market, self._slots, self._devices = config, market, slots, devices
        self.tape = market.splits["train"].tape
        self.data = {
            name: evaluation_set(market.splits[name]) for name in ("validation", "test") if name in market.splits
        }
        self._joint = {name: joint_calendar(market.splits[name]) for name in self.data}
        self.program = make_train(config, TapeSpec(self.tape.n_features, self.n_bars("validation")))
        self._compiled: dict[int, CompiledMembers] = {}
        self._jitted: dict[str, Any] = {}

    def compiled(self, trials: int) -> CompiledMembers:
        """The population's program for so many trials, compiled when it is first asked for."""
        # A CPU computes those that there are. An accelerator computes all that were compiled for, at once, so it is
        # worth another compilation where half of them have been halted.
        n = self._slots if jax.default_backend() == "cpu" else min(self._slots, 1 << (trials - 1).bit_length())
        if n not in self._compiled:
            self._compiled[n] = compile_members(self.config, self.market, n, devices=self._devices)
        return self._compiled[n]

    @property
    def spec(self) -> TrainSpec[EnvSpec]:
        return self.program.spec

    @property
    def labels(self) -> Sequence[str]:
        """Of the actions."""
        return self.spec.env.actions.labels

    @property
    def lengths(self) -> tuple[int, ...]:
        """Updates before each validation; the first is of untrained policies."""
        return (0, *self.config.segments)

    def days(self, split: str) -> np.ndarray:
        """UTC seconds of the days of a split's portfolio (D,); none where there is no such split."""
        return self._joint[split].day if split in self._joint else np.zeros(0, np.int64)

    def per_year(self, split: str) -> float:
        """Such days a year."""
        return self._joint[split].days_per_year if split in self._joint else math.nan

    def n_bars(self, split: str) -> int:
        """Decisions of the longest symbol of a split that there is."""
        return n_decisions(self.data[split].tape)

    def play(self, split: str, params: np.ndarray, whole: bool = False) -> Played | None:
        """Play a policy (N,), or an ensemble (K, N), over a split.

        Args:
          split: validation or test.
          params: of the policy.
          whole: keep the record of every account, which is large.

        Returns:
          None where there is no such split.
        """
        if split not in self.data:
            return None
        spec, n_bars = self.spec, self.n_bars(split)

        def play(params: Params, data: EvaluationSet) -> Any:
            score = validate(spec.agent, spec.env, params, data, n_bars, spec.receptive_field)
            return Played(score.figures, score.curves.portfolio, score if whole else None)  # type: ignore[arg-type]

        return self._run(f"{split} {whole}", play, params, self.data[split])

    def alone(self, split: str, params: np.ndarray) -> list[float]:
        """Sharpe ratio, rebalanced daily, of each member (K, N) of an ensemble by itself; none without such a split."""
        if split not in self.data:
            return []
        spec, n_bars = self.spec, self.n_bars(split)

        def play(params: Params, data: EvaluationSet) -> jax.Array:
            members = play_members(spec.agent, spec.env, params, data, n_bars, spec.receptive_field)
            return members.portfolio.sharpe

        found: list[float] = self._run(f"{split} alone", play, params, self.data[split]).tolist()
        return found

    def _run(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result on the host, of a function that is compiled once for its name."""
        return jax.device_get(self._jitted.setdefault(name, jax.jit(function))(*arguments))


class Programs:
    """The programs of a sweep, each compiled when its first trial comes."""

    def __init__(self, bars: Sequence[Bars], cutoffs: tuple[int, int] | None, slots: int, devices: int = 1):
        """
        Args:
          bars: of all trials.
          cutoffs: UTC seconds at which validation and test begin for all, whatever features need to warm up.
          slots: most trials that are trained together.
          devices: that divide them.
        """
        self._bars, self._cutoffs, self._slots, self._devices = bars, cutoffs, slots, devices
        self._markets: dict[str, Market] = {}
        self._programs: dict[str, Program] = {}

    def configured(self, config: Config) -> Config:
        """The configuration with its updates, where its passes over its bars set them."""
        return updates_for_passes(config, self._market(config).n_decided("train"))

    def of(self, config: Config) -> Program:
        """The program of a trial, whose configuration is `configured`."""
        key = shape_key(config)
        if key not in self._programs:
            if len(self._programs) >= _KEPT:
                self._programs.pop(next(iter(self._programs)))
            self._programs[key] = Program(config, self._market(config), self._slots, self._devices)
        return self._programs[key]

    def _market(self, config: Config) -> Market:
        wanted = {**to_dict(config), "reach": receptive_field(config.agent), "n_steps": config.budget.n_steps}
        key = json.dumps({k: wanted[k] for k in ("data", "features", "env", "reach", "n_steps")}, sort_keys=True)
        if key not in self._markets:
            if len(self._markets) >= _KEPT:
                self._markets.pop(next(iter(self._markets)))
            self._markets[key] = build_market(self._bars, config, wanted["reach"], cutoffs=self._cutoffs)
        return self._markets[key]
