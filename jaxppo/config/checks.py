"""Checks of a whole configuration: every number that does not fit is named, with one that would."""

from __future__ import annotations

import dataclasses
import math
import re

from jaxppo.config.rewards import REWARD_PRESETS
from jaxppo.config.schema import AgentConfig, BarsFilter, Config
from jaxppo.errors import ConfigError

# Of the layers of fused kernels: Triton's arrays are powers of two, its matmuls contract at least 16, and wider layers
# leave the registers: a trunk's at 128 (10 KiB a thread spilled), a tcn's at 64 (2 KiB on an H100, 80 on an A100).
FUSED_WIDTHS = {"trunk_width": [16, 32, 64], "channels": [16, 32]}


def _divisors_near(n: int, wanted: int, how_many: int = 2) -> list[int]:
    """The divisors of `n` nearest to `wanted`, ascending."""
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    divisors = sorted({*small, *(n // d for d in small)})
    return sorted(sorted(divisors, key=lambda d: abs(d - wanted))[:how_many])


def _either(values: list[int]) -> str:
    return " or ".join(f"{v:,}" for v in values)


def _multiples_near(n: int, wanted: int) -> list[int]:
    low = max(1, wanted // n) * n
    return [low] if low >= wanted else [low, low + n]


def refuse_url(path: str, field: str) -> None:
    """`ConfigError` for an address; it is not repeated in the message, since it may hold a password."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", path)  # one letter is a drive
    if scheme:
        raise ConfigError(f"{field}: addresses ({scheme[1]}:) are not read; download the files and give their folder")


def _require_positive(config: Config) -> None:
    groups = {
        "budget": ("n_envs", "lanes", "n_steps", "n_updates", "validate_every", "seeds"),
        "ppo": ("epochs", "minibatches", "blocks", "learning_rate", "clip", "max_grad_norm"),
        "env": ("episode_steps", "max_exposure", "target_volatility"),
        "agent": ("channels", "trunk_width", "trunk_layers"),
        "features": ("scale_window",),
    }
    for group, names in groups.items():
        for name in names:
            value = getattr(getattr(config, group), name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name}: must be above 0, got {value}")


def _require_in(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name}: must be from {low:g} to {high:g}, got {value:g}")


def _require_ranges(config: Config) -> None:
    ppo, env = config.ppo, config.env
    for name in ("gamma", "gae_lambda", "entropy_anneal", "cost_anneal"):
        _require_in(name, getattr(ppo, name), 0.0, 1.0)
    for name in (
        "clip_value",
        "value_weight",
        "entropy_start",
        "entropy_end",
        "target_kl",
        "weight_decay",
        "feature_noise",
    ):
        _require_in(name, getattr(ppo, name), 0.0, math.inf)
    _require_in("dropout", ppo.dropout, 0.0, 0.9)
    _require_in("rollback_after", ppo.rollback_after, 0, math.inf)
    _require_in("rollback_factor", ppo.rollback_factor, 0.0, 1.0)
    _require_in("stop_loss", env.stop_loss, 0.0, 0.99)
    _require_in("take_profit", env.take_profit, 0.0, 0.99)
    _require_in("ruin_level", env.ruin_level, 0.0, 0.99)
    _require_in("rebalance_band", env.rebalance_band, 0.0, 1.0)
    _require_in("volatility_span", env.volatility_span, 2, math.inf)
    _require_in("spread", env.spread, 0.0, 0.5)
    _require_in("slippage", env.slippage, 0.0, 0.5)
    _require_in("borrow", env.borrow, 0.0, math.inf)
    for name in ("env_steps", "n_validations", "passes"):
        _require_in(name, getattr(config.budget, name), 0, math.inf)
    if not 0 <= config.budget.early_stop < 0.5:
        raise ConfigError(f"early_stop: must be from 0 to under 0.5, got {config.budget.early_stop:g}")
    if not 0 <= config.budget.flat_below < 1:
        raise ConfigError(f"flat_below: must be from 0 to under 1, got {config.budget.flat_below:g}")
    _require_in("purge_bars", config.data.purge_bars, 0, math.inf)
    train, validation = config.data.train_fraction, config.data.validation_fraction
    if not (0 < train < 1 and 0 < validation < 1 and train + validation <= 1):
        raise ConfigError(
            f"train_fraction {train} and validation_fraction {validation} must be above 0 and sum to at most 1"
        )
    for name, value in vars(config.gate).items():
        least = -math.inf if name in ("gate_excess_review", "gate_excess_rules_review") else 0.0
        share = any(word in name for word in ("drawdown", "consistency", "excess_probability", "deflated"))
        _require_in(name, value, least, 1.0 if share else math.inf)
    if not 0 <= config.seed < 2**31:
        raise ConfigError(f"seed: must be from 0 to 2147483647, got {config.seed}")


def require_data(given: BarsFilter, data: str | None, otherwise: str) -> None:
    """`ConfigError` where bars are described and none are given; `otherwise` says which are used then."""
    if data is None:
        named = [f.name for f in dataclasses.fields(BarsFilter) if getattr(given, f.name)]
        if named:
            flag = named[0].replace("_", "-")
            raise ConfigError(
                f"{named[0]}: describes --data; without --data {otherwise}: give --data, or leave --{flag} out"
            )


def require_from_scratch(config: Config, why: str) -> None:
    """`ConfigError` where a configuration begins from an earlier run, and what is done begins from scratch."""
    if config.start.init_from is not None:
        raise ConfigError(f"init_from: {why}; leave --init-from out")


def require_validations(config: Config) -> None:
    """`ConfigError` where there are more validations than updates to take them after."""
    budget = config.budget
    if budget.n_validations > budget.n_updates:
        raise ConfigError(
            f"n_validations {budget.n_validations:,} do not fit into n_updates {budget.n_updates:,}, since a validation"
            f" is taken after an update: give at most {budget.n_updates:,}"
        )


def _require_fused_widths(agent: AgentConfig) -> None:
    for name in ("trunk_width", "channels") if agent.encoder == "tcn" else ("trunk_width",):
        width, widths = getattr(agent, name), FUSED_WIDTHS[name]
        if width not in widths:
            raise ConfigError(f"{name}: with kernels fused it must be {_either(widths)}, got {width}")


def check_config(config: Config) -> Config:
    """Return `config`, or raise `ConfigError` with the first thing that does not fit and what would."""
    refuse_url(config.data.data or "", "data")
    refuse_url(config.env.costs or "", "costs")
    refuse_url(config.data.corporate_actions or "", "corporate_actions")
    refuse_url(config.features.extra_features or "", "extra_features")
    refuse_url(config.start.init_from or "", "init_from")
    if config.start.init_from is None and config.start.init_what != "policy":
        raise ConfigError("init_what: says what to take of --init-from; give that, or leave --init-what out")
    require_data(config.data, config.data.data, "the bars are made up")
    REWARD_PRESETS.find(config.reward.reward, "reward")
    _require_positive(config)
    _require_ranges(config)
    budget, ppo, env, agent = config.budget, config.ppo, config.env, config.agent
    if agent.kernels == "fused":
        _require_fused_widths(agent)
    if budget.n_envs % budget.lanes:
        near = _multiples_near(budget.lanes, budget.n_envs)
        raise ConfigError(
            f"n_envs {budget.n_envs:,} is not a multiple of lanes {budget.lanes}:"
            f" try n_envs {_either(near)}, or lanes {_either(_divisors_near(budget.n_envs, budget.lanes))}"
        )
    if config.n_paths % ppo.minibatches:
        near = _divisors_near(config.n_paths, ppo.minibatches)
        raise ConfigError(
            f"minibatches {ppo.minibatches} does not divide the {config.n_paths:,} paths (n_envs {budget.n_envs:,} /"
            f" lanes {budget.lanes}), and a minibatch holds whole paths: try minibatches {_either(near)}"
        )
    if config.n_paths % (ppo.blocks * ppo.minibatches):
        near = _divisors_near(config.n_paths // ppo.minibatches, ppo.blocks)
        raise ConfigError(
            f"blocks {ppo.blocks} do not divide the {config.n_paths:,} paths into {ppo.minibatches} minibatches each,"
            f" and a minibatch holds as many whole paths of every block: try blocks {_either(near)}"
        )
    if env.episode_steps % budget.n_steps:
        near = _multiples_near(budget.n_steps, env.episode_steps)
        raise ConfigError(
            f"episode_steps {env.episode_steps} is not a multiple of n_steps {budget.n_steps}, and episodes end on"
            f" rollout boundaries: try episode_steps {_either(near)}"
        )
    if budget.passes > 0 and budget.env_steps > 0:
        raise ConfigError(f"passes {budget.passes:g} and env_steps {budget.env_steps:,} are two budgets: give one")
    if budget.passes == 0:  # else the updates are not known yet
        require_validations(config)
    if config.batch_steps * config.gradient_steps >= 2**31 * 8:
        raise ConfigError(f"n_envs {budget.n_envs:,} x n_steps {budget.n_steps} is beyond any device; lower one")
    return config
