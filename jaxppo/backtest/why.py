"""Why a policy acts as it does, over a whole split: what matters to it, what it does where, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.policy import Agent, Params
from jaxppo.device import compile_program
from jaxppo.env.trading import EXPOSURE, EnvSpec
from jaxppo.market.calendar import DAY
from jaxppo.market.dataset import EvaluationSet, Split, evaluation_set
from jaxppo.play.action_map import Axes, draw_map, make_axes
from jaxppo.play.confidence import gather, summarize_confidence
from jaxppo.play.decisions import what_was_said
from jaxppo.play.importance import Effect, Shifts, draw_shifts, play_shifted
from jaxppo.play.score import Score

Explain = Literal["auto", "yes", "no"]

PERMUTATIONS = 4
MOST_FEATURES = 20
"""Up to so many are looked at one by one; of more, `SOME_FEATURES` of the groups that change most decisions."""
SOME_FEATURES = 16
LEAST_DECISIONS = 2_000
"""Fewer say nothing: on 2,000 hourly decisions a Sharpe ratio has a standard error of 2."""
MOST_PLAYED = 5_000_000
"""Decisions that are played again unless it is asked for: some seconds on two cores with the default network."""
LANES = 16
"""Played side by side: .04 CPU seconds a lane of 27,000 decisions of the default network. The last batch is filled up,
so more would waste more."""
LANE_BYTES = 256 * 2**20
"""Of encoded markets that are played side by side, at most."""
ALL, ACCOUNT = "all features", "account"


class Policy(NamedTuple):
    """A policy, its environment, and what it was played over."""

    agent: Agent
    spec: EnvSpec
    params: Params
    split: Split
    groups: Mapping[str, Sequence[str]]  # names of the features, in their order, by group
    n_bars: int  # N
    receptive_field: int  # R

    @property
    def names(self) -> list[str]:
        return [name for names in self.groups.values() for name in names]

    @property
    def members(self) -> int:
        return self.params.shape[0] if self.params.ndim == 2 else 1


@dataclass(frozen=True)
class Why:
    """What `explain` found, as plain values for files."""

    importance: list[dict[str, Any]]
    """One row an input: a group, a single feature, the account, or, where there are several groups, all features."""
    facts: dict[str, Any]
    """Everything else."""


def _n_single(policy: Policy) -> int:
    """Features that are looked at one by one."""
    n = len(policy.names)
    return n if n <= MOST_FEATURES else SOME_FEATURES


def played_again(policy: Policy, decisions: int) -> int:
    """Decisions that `explain` plays: each of the inputs that it looks at, some times over."""
    n = len(policy.groups)
    rows = n + (n > 1) + 1 + _n_single(policy)
    return decisions * rows * PERMUTATIONS * policy.members


def why_not(asked: Explain, policy: Policy, decisions: int) -> str | None:
    """Why nothing is explained; None where it is."""
    again = played_again(policy, decisions)
    how = "--explain yes does it"
    if asked == "yes" or (asked == "auto" and decisions >= LEAST_DECISIONS and again <= MOST_PLAYED):
        return None
    if asked == "no":
        return "why it acts was not looked at: --explain no"
    if decisions < LEAST_DECISIONS:
        return f"why it acts was not looked at: {decisions:,} decisions, under {LEAST_DECISIONS:,}, say little; {how}"
    return (
        f"why it acts was not looked at: {again:,} decisions would be played again, over {MOST_PLAYED:,}; {how} (in"
        f" about {again / MOST_PLAYED:.0f} times the time that so many take)"
    )


class _Input(NamedTuple):
    """An input that may be shifted."""

    name: str
    kind: str  # "group", "feature", "account" or "all"
    columns: np.ndarray  # (F,) bool
    group: str = ""


class _Player:
    """Plays inputs shifted, compiled once: so many lanes at once as fit, the first of which shifts nothing."""

    def __init__(self, policy: Policy, data: EvaluationSet, observation: jax.Array, seed: int):
        self._bars = np.asarray(data.tape.length) - 1
        self._shifts = draw_shifts(seed, PERMUTATIONS, self._bars)
        self._fixed = (policy.params, data, observation)
        width = policy.agent.spec.config.trunk_width
        lane = 4 * width * policy.members * policy.n_bars * data.tape.n_symbols
        self._lanes = 1 + int(np.clip(LANE_BYTES // max(lane, 1), 1, LANES))

        def play(params: Params, data: EvaluationSet, observation: jax.Array, shifts: Shifts) -> Effect:
            agent, spec = policy.agent, policy.spec
            return play_shifted(agent, spec, params, data, observation, shifts, policy.n_bars, policy.receptive_field)

        nothing = np.zeros((self._lanes, len(policy.names)), bool)
        shape = self._batch(nothing, np.zeros(self._lanes, bool), np.zeros((self._lanes, len(self._bars)), np.int32))
        self._run = compile_program(play, *self._fixed, shape).run

    @staticmethod
    def _batch(columns: np.ndarray, account: np.ndarray, bars: np.ndarray) -> Shifts:
        return Shifts(jnp.asarray(columns), jnp.asarray(account), jnp.asarray(bars))

    def effects(self, inputs: Sequence[_Input]) -> tuple[Effect, Effect]:
        """Of each input and permutation (I, P), and of the policy as it is ()."""
        columns = np.repeat(np.stack([i.columns for i in inputs]), PERMUTATIONS, axis=0)
        account = np.repeat([i.kind == "account" for i in inputs], PERMUTATIONS)
        bars = np.tile(self._shifts, (len(inputs), 1))
        found, each = [], self._lanes - 1
        for begin in range(0, len(account), each):
            part = slice(begin, begin + each)
            own = len(account[part])

            def lanes(x: np.ndarray, own: int = own) -> np.ndarray:
                """The first lane, and those left over, shift nothing."""
                return np.concatenate([np.zeros_like(x[:1]), x, np.zeros((each - own, *x.shape[1:]), x.dtype)])

            batch = self._batch(lanes(columns[part]), lanes(account[part]), lanes(bars[part]))
            done = jax.device_get(self._run(*self._fixed, batch))
            found.append(jax.tree.map(lambda x, own=own: np.asarray(x[: own + 1], np.float64), done))
        base: Effect = jax.tree.map(lambda x: x[0], found[0])
        joined = jax.tree.map(lambda *x: np.concatenate([y[1:] for y in x]), *found)
        effects: Effect = jax.tree.map(lambda x: x.reshape(len(inputs), PERMUTATIONS), joined)
        return effects, base


def _inputs(policy: Policy) -> tuple[list[_Input], list[_Input]]:
    """What is shifted as a whole, and the single features."""
    names = policy.names
    place = {name: i for i, name in enumerate(names)}

    def columns(of: Sequence[str]) -> np.ndarray:
        found = np.zeros(len(names), bool)
        found[[place[name] for name in of]] = True
        return found

    groups = [_Input(name, "group", columns(of)) for name, of in policy.groups.items()]
    whole = [_Input(ACCOUNT, "account", columns([]))]
    if len(groups) > 1:
        whole.insert(0, _Input(ALL, "all", columns(names)))
    single = [_Input(n, "feature", columns([n]), group) for group, of in policy.groups.items() for n in of]
    return [*whole, *groups], single


def _rows(inputs: Sequence[_Input], effects: Effect, base: Effect) -> list[dict[str, Any]]:
    """Drops are what the policy has less what is left: above 0, the input is worth something."""
    rows = []
    for i, of in enumerate(inputs):
        row: dict[str, Any] = {"input": of.name, "kind": of.kind, "group": of.group, "features": int(of.columns.sum())}
        drops = {
            "sharpe_drop": base.sharpe - effects.sharpe[i],
            "return_drop": base.net_return - effects.net_return[i],
            "costs_added": effects.costs[i] - base.costs,
            "changed": effects.changed[i],
        }
        for name, x in drops.items():
            row |= {name: float(x.mean()), f"{name}_sd": float(x.std(ddof=1))}
            row |= {f"{name}_low": float(x.min()), f"{name}_high": float(x.max())}
        rows.append(row)
    return rows


def _importance(policy: Policy, player: _Player) -> tuple[list[dict[str, Any]], Effect]:
    """Rows of all inputs, and the policy as it is. Of many features those of the groups that change most decisions."""
    whole, single = _inputs(policy)
    effects, base = player.effects(whole)
    rows = _rows(whole, effects, base)
    order = {row["input"]: row["changed"] for row in rows if row["kind"] == "group"}
    single = sorted(single, key=lambda i: -order[i.group])[: _n_single(policy)]
    effects, _ = player.effects(single)
    return rows + _rows(single, effects, base), base


def _draw(
    policy: Policy, rows: Sequence[Mapping[str, Any]], observation: jax.Array, valid: np.ndarray, seed: int
) -> dict[str, Any]:
    """The action map over the two single features that change most decisions."""
    tape = policy.split.tape
    single = sorted((r for r in rows if r["kind"] == "feature"), key=lambda r: -r["changed"])[:2]
    names = [r["input"] for r in single]
    columns = [policy.names.index(name) for name in names]
    flat = np.flatnonzero(valid.reshape(-1))
    at, symbol = np.divmod(flat, valid.shape[1])
    decided = np.asarray(tape.features)[symbol, np.asarray(tape.first)[symbol] + at][:, columns]
    held = np.asarray(observation)[at, symbol, EXPOSURE]
    axes = make_axes(decided, held, columns, flat, seed)

    def draw(params: Params, observation: jax.Array, axes: Axes) -> Any:
        agent, spec = policy.agent, policy.spec
        return draw_map(agent, spec, params, tape, observation, axes, policy.n_bars, policy.receptive_field)

    found = jax.device_get(jax.jit(draw)(policy.params, observation, jax.tree.map(jnp.asarray, axes)))
    shape = (len(axes.exposure), *(axes.values.shape[1],) * len(names))
    labels = policy.spec.action_labels
    each = np.asarray(found.probabilities, np.float64)
    return {
        "features": names,
        "values": {n: np.asarray(v, np.float64).tolist() for n, v in zip(names, axes.values, strict=True)},
        "exposure": np.asarray(axes.exposure, np.float64).tolist(),
        "decisions": len(axes.base),
        "probabilities": {k: each[..., i].reshape(shape).tolist() for i, k in enumerate(labels)},
        "asked": np.asarray(found.exposure, np.float64).reshape(shape).tolist(),
    }


def _confidence(policy: Policy, score: Score, observation: jax.Array) -> dict[str, Any]:
    """How sure the decisions were, and what they earned."""
    tape = policy.split.tape

    def say(params: Params, observation: jax.Array) -> Any:
        return what_was_said(
            policy.agent, policy.spec, params, tape, observation, policy.n_bars, policy.receptive_field
        )

    said = jax.device_get(jax.jit(say)(policy.params, observation))
    valid, record = np.asarray(score.valid), score.record
    at, symbol = np.nonzero(valid)
    first = np.asarray(tape.first)
    time = np.concatenate([policy.split.times[s][first[s] + 1 + at[symbol == s]] for s in range(valid.shape[1])])
    order = np.concatenate([np.flatnonzero(symbol == s) for s in range(valid.shape[1])])
    day = np.empty(len(time), np.int64)
    day[order] = time // DAY
    agreeing = None if said.agreeing is None else said.agreeing[valid] / policy.members
    held = np.asarray(record.exposure)[valid] != 0
    of = gather(said.log_probs[valid], said.allowed[valid], np.asarray(record.net_return)[valid], held, day, agreeing)
    return summarize_confidence(of, policy.spec.actions.n_actions)


def explain(policy: Policy, score: Score, observation: np.ndarray, seed: int) -> Why:
    """Look at why a policy acts as it does. `score` and `observation` (N, S, A) are host arrays of its own play."""
    data, seen = evaluation_set(policy.split), jnp.asarray(observation)
    rows, base = _importance(policy, _Player(policy, data, seen, seed))
    facts = {
        "permutations": PERMUTATIONS,
        "seed": seed,
        "features": len(policy.names),
        "single_features": sum(r["kind"] == "feature" for r in rows),
        "sharpe": float(base.sharpe),
        "return": float(base.net_return),
        "costs": float(base.costs),
        "act_by": policy.spec.config.act_by,
        "members": policy.members,
        "sized": policy.split.tape.size is not None,
        "confidence": _confidence(policy, score, seen),
        "action_map": _draw(policy, rows, seen, np.asarray(score.valid), seed),
    }
    return Why(rows, facts)
