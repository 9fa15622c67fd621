"""What a resumed run may change: nothing that it computes, but the number of updates when asked to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxppo.config.checks import check_config
from jaxppo.config.layers import flat_fields, replace_fields
from jaxppo.config.schema import FIELD_GROUP, FILES, Config
from jaxppo.env.trading import env_spec
from jaxppo.errors import CheckpointError, ConfigError
from jaxppo.market.dataset import Market
from jaxppo.ppo.schedule import cost_share, entropy_coefficient, warmup_cosine
from jaxppo.ppo.state import hyper_from
from jaxppo.store.checkpoint import require_match
from jaxppo.store.checkpoint_info import CheckpointInfo
from jaxppo.store.directory import CONFIG, costs_hash

# The gate judges what was computed, and what is read from files is compared by its hash, wherever it lies.
HARMLESS = frozenset({*FILES, *(name for name, group in FIELD_GROUP.items() if group == "gate")})
# The others are other ways to give a number of updates.
EXTENT = frozenset({"n_updates", "env_steps", "passes", "n_validations"})


def changed_fields(saved: Config, wanted: Mapping[str, Any]) -> dict[str, str]:
    """Fields of `wanted` that differ from `saved`, each with both values as text."""
    flat = flat_fields(saved)
    return {k: f"{k} (saved {flat[k]!r}, given {v!r})" for k, v in wanted.items() if flat[k] != v}


def resumed_config(saved: Config, given: Mapping[str, Any], extend_to: int) -> Config:
    """The configuration to go on with.

    Args:
      saved: of the run.
      given: fields on the command line, flat.
      extend_to: updates to train to; 0 for those of `saved`.

    Raises:
      ConfigError: a field would change what the run computes, or `extend_to` is no extension.
    """
    changed = changed_fields(saved, given)
    refused = [text for name, text in changed.items() if name not in HARMLESS]
    if refused:
        more = "; to train on after the last update, give --extend-to" if EXTENT & changed.keys() else ""
        raise ConfigError(
            f"--resume goes on with the saved configuration, which differs in {', '.join(refused)}: start a new run"
            f" for what changes the training{more}"
        )
    config = replace_fields(saved, {k: given[k] for k in changed})
    n_updates = saved.budget.n_updates
    if extend_to and extend_to < n_updates:
        raise ConfigError(f"extend_to: the run has {n_updates} updates already, got {extend_to}; give more")
    if extend_to > n_updates:
        config = replace_fields(config, {"n_updates": extend_to, "env_steps": 0, "passes": 0.0, "n_validations": 0})
    return check_config(config)


def require_same_program(trained: Config, config: Config, update: int, run_dir: Path) -> None:
    """Refuse to go on from a checkpoint of another configuration, as a changed config.yaml would.

    Raises:
      CheckpointError: it names the fields that differ.
    """
    wanted = {k: v for k, v in flat_fields(config).items() if k not in HARMLESS | EXTENT}
    fewer = config.budget.n_updates < max(trained.budget.n_updates, update)
    changed = changed_fields(trained, wanted | ({"n_updates": config.budget.n_updates} if fewer else {}))
    if changed:
        raise CheckpointError(
            f"{run_dir / CONFIG}: was changed since the checkpoint of update {update}, in"
            f" {', '.join(changed.values()).replace(', given ', ', now ')}; put the saved values back"
        )


def require_same_inputs(
    run_dir: Path, info: CheckpointInfo, manifest: Mapping[str, Any], config: Config, market: Market
) -> None:
    """Refuse to go on from a checkpoint with another program, other features, bars or costs.

    Raises:
      CheckpointError: it names what differs.
    """
    require_same_program(info.config, config, info.update, run_dir)
    actions = env_spec(config.env, config.reward).actions
    require_match(info, market.feature_names, actions, market.feature_hash)
    require_same_data(run_dir, info.data_hash, market)
    require_same_costs(run_dir, manifest, market)


def require_same_data(run_dir: Path, data_hash: str | None, market: Market) -> None:
    """Refuse other bars than a run was trained on; without a hash nothing is known of them."""
    if data_hash is not None and data_hash != market.data_hash:
        raise CheckpointError(
            f"{run_dir}: the data changed since the run began (hash {data_hash[:12]}, now"
            f" {market.data_hash[:12]}); resume with the same bars, or start a new run"
        )


def require_same_costs(run_dir: Path, manifest: Mapping[str, Any], market: Market) -> None:
    """Refuse other costs by symbol than the run's manifest tells of; one that is damaged tells nothing."""
    before, now = costs_hash(manifest), market.costs.hash
    if "data" in manifest and before != now:
        was, is_ = (f"hash {x[:12]}" if x else "no file" for x in (before, now))
        raise CheckpointError(
            f"{run_dir}: the costs by symbol changed since the run began ({was}, now {is_}); resume with the same file"
            " (--costs says where it lies), or start a new run"
        )


def describe_resume(trained: Config | None, config: Config, update: int) -> list[str]:
    """Where a run goes on, and what is not as it was, a line each. `trained`: of the checkpoint; None without one."""
    if trained is None:
        return ["the run has no checkpoint yet: it begins again from the start"]
    lines = [f"resumed at update {update} of {config.budget.n_updates}"]
    harmless = changed_fields(trained, {k: v for k, v in flat_fields(config).items() if k in HARMLESS})
    lines += [f"changed, without effect on the training: {text}" for text in harmless.values()]
    before, after = trained.budget.n_updates, config.budget.n_updates
    if after != before:
        was, now = scheduled(config, before, update), scheduled(config, after, update)
        end = scheduled(config, after, after - 1)
        lines.append(
            f"extended from {before} to {after} updates: the schedules are functions of that number, so from here the"
            f" learning rate goes on at {now.learning_rate:.3g} (with {before} it would be {was.learning_rate:.3g}),"
            f" the entropy coefficient at {now.entropy:.3g} ({was.entropy:.3g}) and training's share of the costs at"
            f" {now.costs:.0%} ({was.costs:.0%}), to {end.learning_rate:.3g}, {config.ppo.entropy_end:.3g} and"
            f" {end.costs:.0%} at the end; validations go on every {config.budget.validate_every} updates"
        )
    return lines


def describe_change(changed: Mapping[str, tuple[str, str]]) -> list[str]:
    """What differs from the software and hardware that a run began with, and what that takes back; a line or none."""
    if not changed:
        return []
    told = ", ".join(f"{name} {after} (before {before})" for name, (before, after) in changed.items())
    return [
        f"warning: goes on with {told}: what is computed from here on need not have the same bits as a run that was"
        " never stopped"
    ]


class Scheduled(NamedTuple):
    """What the schedules say of one update."""

    learning_rate: float
    entropy: float  # coefficient
    costs: float  # share charged


def scheduled(config: Config, n_updates: int, update: int) -> Scheduled:
    """What the schedules say of update number `update`, from 0, in a run of `n_updates`."""
    hyper, k = hyper_from(config), jnp.int32(update)
    return Scheduled(
        config.ppo.learning_rate * float(warmup_cosine(n_updates)(k)),
        float(entropy_coefficient(k, n_updates, hyper.entropy_start, hyper.entropy_end, hyper.entropy_anneal)),
        float(cost_share(k, n_updates, hyper.cost_anneal)),
    )
