"""One PPO update: rollout, advantages, epochs of minibatches of whole paths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxppo.agent.policy import Agent, Params
from jaxppo.config.schema import Config
from jaxppo.env.account import AccountState
from jaxppo.env.trading import EnvSpec
from jaxppo.market.tape import Tape
from jaxppo.ppo.advantages import gae
from jaxppo.ppo.guard import Guard, Learned, guard_update, restart_accounts, stand_ins, where
from jaxppo.ppo.loss import Batch, Hyper, Samples, ppo_loss
from jaxppo.ppo.rollout import PathState, Rollout, advance_paths, collect, path_windows
from jaxppo.ppo.schedule import entropy_coefficient, per_gradient_step, warmup_cosine

ADAM_EPS = 1e-5
ADAM = 1  # its place in the chain, and so in the optimizer's state


class TrainState(NamedTuple):
    """Everything that a run is, between two updates."""

    params: Params
    opt_state: optax.OptState
    paths: PathState  # (P,)
    accounts: AccountState  # (P, L)
    key: jax.Array  # key data; draws are functions of (key, update, env), so it never changes
    update: jax.Array  # () int32: updates done; env steps would overflow int32 at 2.1e9
    guard: Guard  # the last good parameters, to go back to


@dataclass(frozen=True)
class TrainSpec:
    """Static half of a run: what is traced, not what is computed with."""

    config: Config
    agent: Agent
    env: EnvSpec
    receptive_field: int


def hyper_from(config: Config) -> Hyper:
    """The configured hyperparameters as float32 scalars."""
    return Hyper(**{name: jnp.float32(getattr(config.ppo, name)) for name in Hyper._fields})


def make_optimizer(config: Config, hyper: Hyper) -> optax.GradientTransformation:
    """Global-norm clipping, Adam, and a step size that moves once per PPO update."""
    schedule = per_gradient_step(warmup_cosine(config.budget.n_updates), config.gradient_steps)
    return optax.chain(
        optax.clip_by_global_norm(hyper.max_grad_norm),
        optax.scale_by_adam(eps=ADAM_EPS),
        optax.scale_by_schedule(schedule),
        optax.scale(-hyper.learning_rate),
    )


class Learner(NamedTuple):
    """What a gradient step moves."""

    params: jax.Array  # (N,), all parameters as one vector
    opt_state: Any
    stopped: jax.Array  # bool: the KL limit of this update was passed
    skipped: jax.Array  # int32: gradient steps with a non-finite gradient


def gradient_step(
    learner: Learner,
    batch: Batch,
    spec: TrainSpec,
    hyper: Hyper,
    coefficient: jax.Array,
    unravel: Callable[[jax.Array], Params],
) -> tuple[Learner, dict[str, jax.Array]]:
    """One optimizer step. Non-finite gradients and steps past the KL limit change nothing but the schedule's count.

    The optimizer works on one vector: a leaf at a time it is 17 times as many operations to compile and to launch.
    """
    loss = jax.value_and_grad(ppo_loss, argnums=2, has_aux=True)
    (_, aux), leaves = loss(
        spec.agent,
        spec.env.actions,
        unravel(learner.params),
        batch,
        hyper,
        coefficient,
        spec.config.ppo.normalize_advantages,
    )
    grads, _ = ravel_pytree(leaves)
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(norm)
    stopped = learner.stopped | ((hyper.target_kl > 0) & (aux.approx_kl > hyper.target_kl))
    apply = finite & ~stopped
    # optax raises floats to integer counts
    with jax.numpy_dtype_promotion("standard"), jax.named_scope("optimizer"):
        updates, after = make_optimizer(spec.config, hyper).update(grads, learner.opt_state, learner.params)
    params = learner.params + updates

    clip, _, schedule, scale = after
    kept = (clip, where(apply, after[ADAM], learner.opt_state[ADAM]), schedule, scale)
    skipped = learner.skipped + (~finite).astype(jnp.int32)
    metrics = {**aux._asdict(), "grad_norm": norm}
    return Learner(where(apply, params, learner.params), kept, stopped, skipped), metrics


@jax.named_scope("look_up")
def minibatch(tape: Tape, paths: PathState, samples: Samples, chosen: jax.Array, spec: TrainSpec) -> Batch:
    """The paths `chosen` (p,) of a rollout; features are looked up again, never stored."""
    some = PathState(*(x[chosen] for x in paths))
    return Batch(
        features=path_windows(tape, some, spec.receptive_field, spec.config.budget.n_steps),
        allow_short=tape.allow_short[some.symbol],
        samples=jax.tree.map(lambda x: x[:, chosen], samples),
    )


@jax.named_scope("learn")
def learn(
    state: TrainState,
    samples: Samples,
    tape: Tape,
    key: jax.Array,
    spec: TrainSpec,
    hyper: Hyper,
    clean: jax.Array,
) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    """Epochs of minibatches over one rollout. Whole paths are shuffled: 4,096 indices, not a million samples.

    Paths that are not `clean`, (P,) bool, give their places to others: no weight silences a NaN in a gradient.
    """
    ppo, n_paths = spec.config.ppo, spec.config.n_paths
    shuffles = jax.vmap(lambda k: jax.random.permutation(k, n_paths))(jax.random.split(key, ppo.epochs))
    chosen = stand_ins(clean)[shuffles].reshape(ppo.epochs * ppo.minibatches, n_paths // ppo.minibatches)
    coefficient = entropy_coefficient(
        state.update, spec.config.budget.n_updates, hyper.entropy_start, hyper.entropy_end, hyper.entropy_anneal
    )

    def step(learner: Learner, index: jax.Array) -> tuple[Learner, dict[str, jax.Array]]:
        batch = minibatch(tape, state.paths, samples, index, spec)
        return gradient_step(learner, batch, spec, hyper, coefficient, unravel)

    params, unravel = ravel_pytree(state.params)
    learner = Learner(params, state.opt_state, jnp.zeros((), bool), jnp.zeros((), jnp.int32))
    learner, metrics = jax.lax.scan(step, learner, chosen)
    finite = jnp.isfinite(metrics["grad_norm"])  # the skipped steps are counted, and would hide what the others did
    means = jax.tree.map(lambda x: jnp.mean(x, where=finite), metrics)
    means["skipped_steps"] = learner.skipped.astype(jnp.float32)
    means["entropy_coefficient"] = coefficient
    return learner.params, learner.opt_state, means


def explained_variance(value: jax.Array, target: jax.Array) -> jax.Array:
    """1 - Var(target - value) / Var(target); 0 where the target does not vary. Any shape to a scalar."""
    variance = target.var()
    return jnp.where(variance > 0, 1.0 - (target - value).var() / jnp.maximum(variance, 1e-12), 0.0)


@jax.named_scope("advantages")
def rollout_advantages(rollout: Rollout, hyper: Hyper) -> tuple[jax.Array, jax.Array]:
    """Advantages and value targets (T, P, L). Episodes are truncated only where a rollout ends, which bootstraps."""
    steps = rollout.steps
    next_value = jnp.concatenate([steps.value[1:], jnp.expand_dims(rollout.last_value, 0)])
    never = jnp.zeros_like(steps.terminated)
    return gae(steps.reward, steps.value, next_value, steps.terminated, never, hyper.gamma, hyper.gae_lambda)


def judge(
    state: TrainState, params: jax.Array, opt_state: Any, metrics: dict[str, jax.Array], spec: TrainSpec
) -> tuple[Params, Any, Guard, dict[str, jax.Array]]:
    """What to keep of an update that began with `state` and has learnt `params`, (N,), and `opt_state`."""
    config = spec.config
    first, unravel = ravel_pytree(state.params)
    before, after = Learned(first, state.opt_state[ADAM]), Learned(params, opt_state[ADAM])
    # Bad samples leave nothing but the entropy bonus: where most are bad, that would be all there is to learn.
    void = 2 * metrics["bad_samples"] >= config.batch_steps
    skipped = jnp.where(void, float(config.gradient_steps), metrics["skipped_steps"])
    bad = 2 * skipped >= config.gradient_steps
    kept, guard, back = guard_update(
        state.guard, before, where(void, before, after), bad, config.ppo.rollback_after, config.ppo.rollback_factor
    )
    told = {"skipped_steps": skipped, "rollbacks": back.astype(jnp.float32), "learning_rate_scale": guard.scale}
    return unravel(kept.params), (*opt_state[:ADAM], kept.moments, *opt_state[ADAM + 1 :]), guard, metrics | told


def update(state: TrainState, tape: Tape, spec: TrainSpec, hyper: Hyper) -> tuple[TrainState, dict[str, jax.Array]]:
    """One PPO update: the next state and its scalar metrics."""
    budget, episode = spec.config.budget, spec.config.env.episode_steps
    hyper = hyper._replace(learning_rate=hyper.learning_rate * state.guard.scale)
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.update)
    act, shuffle, restart = jax.random.split(key, 3)
    accounts, rollout, metrics = collect(
        spec.agent,
        spec.env,
        state.params,
        tape,
        state.paths,
        state.accounts,
        act,
        budget.n_steps,
        spec.receptive_field,
        hyper.gamma if spec.config.ppo.advantages == "counterfactual" else None,
    )
    advantage, target = rollout_advantages(rollout, hyper)
    steps = rollout.steps
    if steps.every is None:
        samples = Samples(steps.account, steps.action, steps.log_prob, steps.value, advantage, target)
    else:  # the lambda-return stays the value's target
        samples = Samples(steps.account, None, steps.every.log_prob, steps.value, steps.every.advantage, target)
    params, opt_state, learned = learn(state, samples, tape, shuffle, spec, hyper, rollout.clean)
    metrics |= learned | {"explained_variance": explained_variance(steps.value, target)}
    params, opt_state, guard, metrics = judge(state, params, opt_state, metrics, spec)
    paths, ended = advance_paths(tape, state.paths, restart, budget.n_steps, episode)
    accounts = restart_accounts(accounts, jnp.expand_dims(ended, -1))
    metrics["learning_rate"] = hyper.learning_rate * warmup_cosine(budget.n_updates)(state.update)
    return TrainState(params, opt_state, paths, accounts, state.key, state.update + 1, guard), metrics
