"""What a sweep needs before anything is asked for or written: its configuration, bars and space, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jaxppo.agent.encoders import receptive_field
from jaxppo.cli import Request
from jaxppo.config.checks import require_from_scratch
from jaxppo.config.layers import Resolved, flat_fields, with_updates
from jaxppo.config.schema import FIELD_GROUP, FILES, Config
from jaxppo.device import detect_device
from jaxppo.errors import ConfigError
from jaxppo.market.dataset import Market, build_market, market_warnings
from jaxppo.market.source import load_market_bars
from jaxppo.plugins import loaded_plugins
from jaxppo.ppo.layout import check_devices
from jaxppo.store.directory import RunInputs
from jaxppo.sweep.batches import Trial
from jaxppo.sweep.options import SweepOptions, check_options
from jaxppo.sweep.shapes import Programs, check_space, common_purge, trial_config
from jaxppo.sweep.space import Space, read_space
from jaxppo.sweep.study import check_sampler, grid_size, require_optuna


@dataclass(frozen=True)
class Setup:
    """Everything that a sweep needs before anything is asked for or written."""

    options: SweepOptions
    out: Path
    inputs: RunInputs  # of the configuration that trials are variants of
    space: Space
    facts: Mapping[str, Any]  # that all processes have in common
    overrides: Mapping[str, Any]  # of every trial's configuration
    request: Request[SweepOptions]
    programs: Programs

    @property
    def config(self) -> Config:
        return self.inputs.resolved.config

    @property
    def wanted(self) -> int:
        """Trials in all."""
        options = self.options
        return min(options.trials, grid_size(self.space)) if options.sampler == "grid" else options.trials

    def resolve(self, values: Mapping[str, Any]) -> Config:
        """The configuration of a training run with these values as flags."""
        given = {**self.request.given, **values, **self.overrides}
        return Request(None, self.request.preset, given, self.request.file).resolve(self.inputs.device).config

    def config_of(self, trial: Trial) -> Config:
        """The configuration of a trial; `ConfigError` where its values do not fit together."""
        return trial_config(lambda v: self.resolve({**v, "seed": trial.seed}), self.space, trial.params)


def prepare(request: Request[SweepOptions]) -> Setup:
    """Everything that can go wrong before anything is computed or written."""
    options = request.options
    require_optuna()
    check_options(options)
    space = read_space(options.search, options.space)
    check_sampler(options.sampler, space)
    device = detect_device()
    for name in space:
        if name in request.given:
            raise ConfigError(f"{name}: is given and searched; leave one out")
    if request.given.get("early_stop"):
        raise ConfigError("early_stop: belongs to a walk-forward; a trial hands over the policy of its best validation")

    # What is searched has no value of its own: the first to try stands in for it wherever one is needed.
    first = {name: dimension.extremes()[0] for name, dimension in space.items()}

    def resolve(values: Mapping[str, Any]) -> Config:
        given = {**request.given, **first, **values}
        return Request(None, request.preset, given, request.file).resolve(device).config

    base = Request(None, request.preset, {**request.given, **first}, request.file).resolve(device)
    require_from_scratch(base.config, "the trials of a sweep begin from scratch")
    check_space(resolve, space)
    overrides = common_purge(resolve, space)
    bars, source = load_market_bars(base.config.data)
    market = build_market(bars, resolve(overrides), receptive_field(base.config.agent))
    resolved = _with(base, resolve(overrides), market, space)
    inputs = RunInputs(resolved, market, source, market_warnings(market), device)
    segments = len(inputs.resolved.config.segments)
    if options.halve_at and options.halve_at[-1] >= segments:
        raise ConfigError(
            f"halve_at: {options.halve_at[-1]} is not before the end: a trial has {segments} validations that follow"
            " updates"
        )
    devices = device.count if options.devices == "all" else options.devices
    check_devices(inputs.resolved.config, devices, device.count, members=True)
    programs = Programs(bars, market.cutoffs, options.batch, devices)
    out = options.out or Path("runs") / f"sweep-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    facts = sweep_facts(inputs.resolved.config, market, space, options)
    return Setup(options, out, inputs, space, facts, overrides, request, programs)


def _with(base: Resolved, config: Config, market: Market, space: Space) -> Resolved:
    """The configuration with what all trials have in common, and its sources."""
    changed = [k for k, v in flat_fields(config).items() if v != flat_fields(base.config)[k]]
    sources = {**base.sources, **dict.fromkeys(changed, "the widest encoder of the sweep")}
    sources |= {name: "the first that is searched" for name in space if name in sources}
    return with_updates(Resolved(config, sources), market.n_decided("train"))


def sweep_facts(config: Config, market: Market, space: Space, options: SweepOptions) -> dict[str, Any]:
    """What all processes of a sweep have in common, flat: configuration, bars, costs, space and halving."""
    harmless = {*FILES, *(name for name, group in FIELD_GROUP.items() if group == "gate"), *space}
    facts = {k: v for k, v in flat_fields(config).items() if k not in harmless}
    return {
        **facts,
        "bars": market.data_hash,
        "costs by symbol": market.costs.hash,
        **{f"search {name}": dimension.to_json() for name, dimension in space.items()},
        "halve_at": list(options.halve_at),
        "eta": options.eta if options.halve_at else None,
        "plugins": [plugin.sha256 for plugin in loaded_plugins()],
    }
