"""A warm start: a new run that begins with the policy of an earlier one, and what is new to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.policy import Params
from jaxppo.config.schema import Config
from jaxppo.env.trading import env_spec
from jaxppo.errors import CheckpointError
from jaxppo.market.bars import Bars
from jaxppo.market.dataset import Market
from jaxppo.market.quality import format_time
from jaxppo.ppo.state import Learned, Moments, TrainState
from jaxppo.store.checkpoint import require_match, restore_policy, restore_train_state
from jaxppo.store.checkpoint_info import CheckpointInfo
from jaxppo.store.directory import earlier_manifest, iso, sweep_tried

_SHAPES = ("encoder", "window", "channels", "trunk_width", "trunk_layers")
_SHOWN = 8  # symbols whose new bars are told on the terminal; the manifest has all


@dataclass(frozen=True)
class WarmStart:
    """What a run begins with, and what is known of where it comes from."""

    run: Path
    info: CheckpointInfo
    params: Params  # (N,), or (M, N) of an ensemble
    moments: Moments | None  # of the optimizer; None to begin with none
    facts: Mapping[str, Any]  # for the manifest
    lines: tuple[str, ...]
    warnings: tuple[str, ...]

    def begin(self, state: TrainState) -> TrainState:
        """`state`, of a run before its first update, with what is taken over in place of what was drawn."""
        moments = state.moments if self.moments is None else self.moments
        learned = Learned(jnp.asarray(self.params), moments)
        good = jax.tree.map(jnp.copy, learned)  # a buffer of its own: the state is donated
        return state._replace(params=learned.params, moments=moments, guard=state.guard._replace(good=good))


def read_warm_start(config: Config, market: Market) -> WarmStart | None:
    """What the run that a configuration begins from hands over; None for one that begins from scratch.

    Raises:
      CheckpointError: nothing to begin from, or a policy of other features, actions, sizes or members.
    """
    if config.start.init_from is None:
        return None
    run, whole = Path(config.start.init_from), config.start.init_what == "all"
    if whole and sweep_tried(run).trials:
        raise CheckpointError(
            f"init_from: {run} holds the policy of a sweep, averaged from trials without an optimizer of its own; give"
            " --init-what policy"
        )
    moments = None
    if whole:
        state, info = restore_train_state(run)
        params, moments = state.params, state.moments
    else:
        policy = restore_policy(run)
        params, info = policy.params, policy.info
    _require_same_policy(run, info, config, market)
    manifest = earlier_manifest(run)
    new = new_bars(manifest, market.bars)
    facts = {
        "run": run.resolve().name,
        "path": str(run),
        "created": manifest.get("created"),
        "what": config.start.init_what,
        "update": info.update,
        "sha256": hashlib.sha256(np.ascontiguousarray(jax.device_get(params)).tobytes()).hexdigest(),
        "data_hash": info.data_hash,
        "seen_until": _seen_until(manifest),
        "new_bars": new,
    }
    return WarmStart(run, info, params, moments, facts, _lines(run, info, config, new), _warnings(run, facts, market))


def require_same_start(run_dir: Path, warm: WarmStart) -> None:
    """Refuse to begin a run again, which was killed before its first checkpoint, from another policy than at first."""
    before = (earlier_manifest(run_dir).get("init") or {}).get("sha256")
    if before is not None and before != warm.facts["sha256"]:
        raise CheckpointError(
            f"{warm.run}: its policy changed since {run_dir} began with it (hash {before[:12]}, now"
            f" {warm.facts['sha256'][:12]}); start a new run"
        )


def _require_same_policy(run: Path, info: CheckpointInfo, config: Config, market: Market) -> None:
    try:
        require_match(info, market.feature_names, env_spec(config.env, config.reward).actions, market.feature_hash)
    except CheckpointError as error:
        raise CheckpointError(f"init_from: {run}: {error}") from error
    wrong = {name: (getattr(info.config.agent, name), getattr(config.agent, name)) for name in _SHAPES}
    wrong["seeds"] = (info.config.budget.seeds, config.budget.seeds)
    told = [(name, a, b) for name, (a, b) in wrong.items() if a != b]
    if told:
        differs = ", ".join(f"{name} {a} where this run has {b}" for name, a, b in told)
        flags = " ".join(f"--{name.replace('_', '-')} {a}" for name, a, _ in told)
        raise CheckpointError(
            f"init_from: {run}: its policy has {differs}; give {flags}, or --config {run / 'config.yaml'}"
        )


def new_bars(manifest: Mapping[str, Any], bars: tuple[Bars, ...]) -> dict[str, dict[str, Any]]:
    """Bars of each symbol after the last one that a run had of it, by its manifest: how many, from when to when.

    A symbol that the run did not have is all new; one without new bars is left out.
    """
    had = {}
    for of in (manifest.get("data") or {}).get("symbols") or []:
        had[of["symbol"]] = int(datetime.fromisoformat(of["end"]).timestamp())
    found = {}
    for b in bars:
        new = b.time[b.time > had.get(b.symbol, -np.inf)]
        if len(new):
            whole = {} if b.symbol in had else {"new_symbol": True}
            found[b.symbol] = {"bars": len(new), "start": iso(int(new[0])), "end": iso(int(new[-1])), **whole}
    return found


def _seen_until(manifest: Mapping[str, Any]) -> str | None:
    """When the bars end that a run, or one that it began from, was trained or chosen on; None where that is unknown."""
    own = (manifest.get("data") or {}).get("cutoffs")
    before = (manifest.get("init") or {}).get("seen_until")
    return max((end for end in (own[1] if own else None, before) if end), default=None)


def _lines(run: Path, info: CheckpointInfo, config: Config, new: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    what = "parameters and optimizer" if config.start.init_what == "all" else "policy"
    ppo = config.ppo
    lines = [
        f"begins with the {what} of {run}, update {info.update}; the schedules begin anew: learning rate"
        f" {ppo.learning_rate:g}, entropy coefficient {ppo.entropy_start:g}, costs "
        + (f"from none to all over {ppo.cost_anneal:.0%} of the updates" if ppo.cost_anneal else "in full")
    ]
    total = sum(of["bars"] for of in new.values())
    shown = [
        f"{symbol}{' (a new symbol)' if 'new_symbol' in of else ''} {of['bars']:,} ({of['start'][:10]} to"
        f" {of['end'][:10]})"
        for symbol, of in list(new.items())[:_SHOWN]
    ]
    more = f", and {len(new) - _SHOWN} more symbols (manifest.json has all)" if len(new) > _SHOWN else ""
    lines.append(f"new to it: {total:,} bars" + (f": {', '.join(shown)}{more}" if new else ""))
    return tuple(lines)


def _warnings(run: Path, facts: Mapping[str, Any], market: Market) -> tuple[str, ...]:
    seen = facts["seen_until"]
    if seen is None or market.cutoffs is None:
        return (f"which bars {run} was trained on is not known by date, so validation and test may not be new to it",)
    end = int(datetime.fromisoformat(seen).timestamp())
    for split, begin in zip(("test", "validation"), reversed(market.cutoffs), strict=True):
        if end > begin:
            return (
                f"{run} was trained and chosen on bars up to {format_time(end)}, and this run's {split} split begins at"
                f" {format_time(begin)}: its figures there flatter it; a larger --train-fraction moves the cut-off",
            )
    return ()
