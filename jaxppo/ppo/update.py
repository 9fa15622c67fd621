"""One PPO update: rollout, advantages, epochs of minibatches of whole paths."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxppo.config.schema import Config
from jaxppo.env.protocol import Env
from jaxppo.market.tape import Tape
from jaxppo.packed import packed_scan
from jaxppo.ppo.advantages import gae
from jaxppo.ppo.guard import guard_update, stand_ins, where
from jaxppo.ppo.loss import AdvantageScale, Batch, Samples, ppo_loss
from jaxppo.ppo.noise import PathNoise, draw_noise, noisy
from jaxppo.ppo.rollout import Rollout, RolloutStart, advance_paths, collect, path_terms, path_windows
from jaxppo.ppo.schedule import cost_share, entropy_coefficient, per_gradient_step, warmup_cosine
from jaxppo.ppo.shard import Shard
from jaxppo.ppo.state import Guard, Hyper, Learned, Moments, PathState, TrainSpec, TrainState
from jaxppo.shapes import check_fields

ADAM_EPS = 1e-5
_NOISE = 1_000  # folded into the key of an update: a stream of its own beside those that the key is split into


class Chosen(NamedTuple):
    """The paths of a minibatch that a device has."""

    paths: jax.Array  # (p,) int32, among this device's
    scale: AdvantageScale | None  # of the minibatch, where advantages are normalised


class Learner(NamedTuple):
    """What a gradient step moves."""

    learned: Learned
    steps: jax.Array  # () int32: gradient steps tried
    stopped: jax.Array  # () bool: the KL limit of this update was passed
    skipped: jax.Array  # () int32: gradient steps with a non-finite gradient


@jax.named_scope("optimizer")
def adam_step(
    learned: Learned, grads: jax.Array, steps: jax.Array, config: Config, hyper: Hyper
) -> tuple[Learned, jax.Array]:
    """Global-norm clipping, Adam with decoupled weight decay, and a step size that moves once per PPO update.

    The decay is scaled by the learning rate, as in PyTorch and optax: theta <- theta - rate * (direction + decay *
    theta); Loshchilov and Hutter (2019), algorithm 2, with their eta_t * lambda as rate * decay.

    It works on one vector: a leaf at a time it is 17 times as many operations to compile and to launch.

    Args:
      learned: before the step.
      grads: (N,).
      steps: () int32, gradient steps before this one.
      config, hyper: of the run.

    Returns:
      What is learned after the step, and the steps with it.
    """
    clip, none = optax.clip_by_global_norm(hyper.max_grad_norm), optax.EmptyState()
    schedule = optax.scale_by_schedule(per_gradient_step(warmup_cosine(config.budget.n_updates), config.gradient_steps))
    moments = learned.moments
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer counts
        clipped, _ = clip.update(grads, none)
        adam = optax.ScaleByAdamState(moments.gradients, moments.mean, moments.square)
        direction, adam = optax.scale_by_adam(eps=ADAM_EPS).update(clipped, adam)
        direction = direction + hyper.weight_decay * learned.params
        scaled, tried = schedule.update(direction, optax.ScaleByScheduleState(steps))
        move, _ = optax.scale(-hyper.learning_rate).update(scaled, none)
    return Learned(learned.params + move, Moments(adam.mu, adam.nu, adam.count)), tried.count


def gradient_step(
    learner: Learner, batch: Batch, spec: TrainSpec[Env], hyper: Hyper, coefficient: jax.Array
) -> tuple[Learner, dict[str, jax.Array]]:
    """One optimizer step. Non-finite gradients and steps past the KL limit change nothing but the count of steps."""
    loss = jax.value_and_grad(ppo_loss, argnums=2, has_aux=True)
    (_, aux), grads = loss(spec.agent, spec.env, learner.learned.params, batch, hyper, coefficient)
    grads, aux = spec.shard.mean((grads, aux))  # devices have equal shares of a minibatch, so means of means are exact
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(norm)
    stopped = learner.stopped | ((hyper.target_kl > 0) & (aux.approx_kl > hyper.target_kl))
    after, steps = adam_step(learner.learned, grads, learner.steps, spec.config, hyper)
    learned = where(finite & ~stopped, after, learner.learned)
    skipped = learner.skipped + (~finite).astype(jnp.int32)
    return Learner(learned, steps, stopped, skipped), {**aux._asdict(), "grad_norm": norm}


@jax.named_scope("look_up")
def minibatch(
    tape: Tape, paths: PathState, samples: Samples, noise: PathNoise, chosen: Chosen, spec: TrainSpec[Env]
) -> Batch:
    """The chosen paths of a rollout; features are looked up again, and their noise drawn again, never stored."""
    some, noise = jax.tree.map(lambda x: x[chosen.paths], (paths, noise))
    features = path_windows(tape, some, spec.receptive_field, spec.config.budget.n_steps)
    return Batch(
        features=noisy(features, noise, features.shape[1] + 1, spec.config.ppo.feature_noise),
        terms=path_terms(tape, some),
        samples=jax.tree.map(lambda x: x[:, chosen.paths], samples),
        kept=noise.kept,
        scale=chosen.scale,
    )


def shuffle_paths(key: jax.Array, clean: jax.Array, config: Config, shard: Shard) -> jax.Array:
    """The paths of each minibatch of an update, as many of each block.

    With one block every minibatch is drawn from all paths. With more, which paths share a minibatch does not depend on
    how many devices the blocks are divided over.

    Args:
      key: of the update.
      clean: (P,) bool, of this device's paths; those that are not give their places to others of their block.
      config: of the run.
      shard: which paths these are.

    Returns:
      (epochs * minibatches, p) int32 places among this device's paths.
    """
    ppo, blocks = config.ppo, config.ppo.blocks // shard.count
    keys, n_paths = jax.random.split(key, ppo.epochs), clean.shape[0]
    if ppo.blocks == 1:
        shuffles = jax.vmap(lambda k: jax.random.permutation(k, n_paths))(keys)
        return stand_ins(clean)[shuffles].reshape(config.gradient_steps, n_paths // ppo.minibatches)
    size = n_paths // blocks

    def one(key: jax.Array, block: jax.Array, places: jax.Array) -> jax.Array:
        shuffled = places[jax.random.permutation(jax.random.fold_in(key, block), size)]
        return shuffled.reshape(ppo.minibatches, size // ppo.minibatches)

    first = size * jnp.arange(blocks, dtype=jnp.int32).reshape(-1, 1)
    places = jax.vmap(stand_ins)(clean.reshape(blocks, size)) + first
    of_block = jax.vmap(one, (None, 0, 0), out_axes=1)
    chosen = jax.vmap(of_block, (0, None, None))(
        keys, shard.own(ppo.blocks), places
    )  # (epochs, minibatches, blocks, p)
    return chosen.reshape(config.gradient_steps, n_paths // ppo.minibatches)


def advantage_scales(samples: Samples, chosen: jax.Array, shard: Shard) -> AdvantageScale:
    """Mean and deviation of the advantages of every minibatch (epochs * minibatches,), over all devices.

    Advantages do not move while the policy learns from them, so those of all minibatches are told once an update, and
    a minibatch needs no all-reduce but that of its gradients.
    """
    advantage = samples.advantage
    weight = jnp.ones_like(advantage) if samples.action is not None else jnp.exp(samples.log_prob)
    lanes = (0, *range(2, advantage.ndim))
    n = samples.value.shape[0] * samples.value.shape[2]
    about = shard.mean((weight * advantage).sum() / samples.value.size)  # so that squares keep their digits
    centred = advantage - about
    first, second = ((weight * x).sum(lanes) / n for x in (centred, jnp.square(centred)))  # (P,)
    mean, square = shard.mean((first[chosen].mean(1), second[chosen].mean(1)))
    return AdvantageScale(mean + about, jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0.0)))


@jax.named_scope("learn")
def learn(
    state: TrainState,
    samples: Samples,
    noise: PathNoise,
    tape: Tape,
    key: jax.Array,
    spec: TrainSpec[Env],
    hyper: Hyper,
    clean: jax.Array,
) -> tuple[Learner, dict[str, jax.Array]]:
    """Epochs of minibatches over one rollout. Whole paths are shuffled: 4,096 indices, not a million samples.

    Paths that are not `clean`, (P,) bool, give their places to others: no weight silences a NaN in a gradient.
    """
    paths = shuffle_paths(key, clean, spec.config, spec.shard)
    scales = None
    if spec.config.ppo.normalize_advantages:
        scales = advantage_scales(samples, paths, spec.shard)
    coefficient = entropy_coefficient(
        state.update, spec.config.budget.n_updates, hyper.entropy_start, hyper.entropy_end, hyper.entropy_anneal
    )

    def step(learner: Learner, chosen: Chosen) -> tuple[Learner, dict[str, jax.Array]]:
        batch = minibatch(tape, state.paths, samples, noise, chosen, spec)
        return gradient_step(learner, batch, spec, hyper, coefficient)

    learned = Learned(state.params, state.moments)
    learner = Learner(learned, state.steps, jnp.zeros((), bool), jnp.zeros((), jnp.int32))
    learner, metrics = packed_scan(step, learner, Chosen(paths, scales))
    finite = jnp.isfinite(metrics["grad_norm"])  # the skipped steps are counted, and would hide what the others did
    means = jax.tree.map(lambda x: jnp.mean(x, where=finite), metrics)
    means["skipped_steps"] = learner.skipped.astype(jnp.float32)
    means["entropy_coefficient"] = coefficient
    return learner, means


def explained_variance(value: jax.Array, target: jax.Array, shard: Shard = Shard()) -> jax.Array:
    """1 - Var(target - value) / Var(target); 0 where the target does not vary. Any shape to a scalar."""
    variance = shard.variance(target)
    return jnp.where(variance > 0, 1.0 - shard.variance(target - value) / jnp.maximum(variance, 1e-12), 0.0)


@jax.named_scope("advantages")
def rollout_advantages(rollout: Rollout, hyper: Hyper) -> tuple[jax.Array, jax.Array]:
    """Advantages and value targets (T, P, L). Episodes are truncated only where a rollout ends, which bootstraps.

    After a bad step nothing is known, so nothing is bootstrapped: with its value for a reward its advantage is 0.
    """
    steps = rollout.steps
    next_value = jnp.concatenate([steps.value[1:], jnp.expand_dims(rollout.last_value, 0)])
    never = jnp.zeros_like(steps.terminated)
    return gae(
        steps.reward, steps.value, next_value, steps.terminated | steps.bad, never, hyper.gamma, hyper.gae_lambda
    )


def judge(
    state: TrainState, learned: Learned, metrics: dict[str, jax.Array], config: Config
) -> tuple[Learned, Guard, dict[str, jax.Array]]:
    """What to keep of an update that began with `state` and ended with `learned`."""
    before = Learned(state.params, state.moments)
    # Bad samples leave nothing but the entropy bonus: where most are bad, that would be all there is to learn.
    void = 2 * metrics["bad_samples"] >= config.batch_steps
    skipped = jnp.where(void, float(config.gradient_steps), metrics["skipped_steps"])
    bad = 2 * skipped >= config.gradient_steps
    kept, guard, back = guard_update(
        state.guard, before, where(void, before, learned), bad, config.ppo.rollback_after, config.ppo.rollback_factor
    )
    told = {"skipped_steps": skipped, "rollbacks": back.astype(jnp.float32), "learning_rate_scale": guard.scale}
    return kept, guard, metrics | told


def update(
    state: TrainState, tape: Tape, spec: TrainSpec[Env], hyper: Hyper
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One PPO update: the next state and its scalar metrics."""
    check_fields(state)
    check_fields(hyper)
    budget, episode = spec.config.budget, spec.config.env.episode_steps
    hyper = hyper._replace(learning_rate=hyper.learning_rate * state.guard.scale)
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.update)
    act, shuffle, restart = jax.random.split(key, 3)
    charged = cost_share(state.update, budget.n_updates, hyper.cost_anneal)
    tape = tape._replace(costs=jax.tree.map(lambda x: charged * x, tape.costs))
    noise = draw_noise(spec.agent, state.params, jax.random.fold_in(key, _NOISE), spec.config, spec.shard)
    start = RolloutStart(state.paths, state.lanes, act, noise)
    lanes, rollout, metrics = collect(spec, state.params, tape, start, hyper.gamma)
    advantage, target = rollout_advantages(rollout, hyper)
    steps = rollout.steps
    if steps.every is None:
        samples = Samples(steps.observation, steps.action, steps.log_prob, steps.value, advantage, target)
    else:  # the lambda-return stays the value's target
        samples = Samples(steps.observation, None, steps.every.log_prob, steps.value, steps.every.advantage, target)
    learner, means = learn(state, samples, noise, tape, shuffle, spec, hyper, rollout.clean)
    metrics |= means | {"explained_variance": explained_variance(steps.value, target, spec.shard)}
    kept, guard, metrics = judge(state, learner.learned, metrics, spec.config)
    paths, ended = advance_paths(tape, state.paths, restart, budget.n_steps, episode, spec.shard)
    lanes = spec.env.restart(lanes, jnp.expand_dims(ended, -1))
    metrics["cost_share"] = charged
    metrics["learning_rate"] = hyper.learning_rate * warmup_cosine(budget.n_updates)(state.update)
    return TrainState(*kept, learner.steps, paths, lanes, state.key, state.update + 1, guard), metrics
