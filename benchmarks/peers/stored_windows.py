"""A trainer as purejaxrl writes one, on jaxppo's env: every step stores its window, minibatches are shuffled samples.

Differences from purejaxrl are in its favour: the env's bars are looked up in a shared array, and a window is gathered
once a step, after the auto-reset has been decided.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.peers import settings
from benchmarks.peers.ours import auto_reset, config_for, tape_of
from benchmarks.peers.settings import Peer, Setting, random_market
from jaxppo.agent.policy import distribution
from jaxppo.config.schema import Config
from jaxppo.env.actions import action_table
from jaxppo.env.trading import ACCOUNT_FEATURES, BoundEnv, EnvState, Observation, make_env
from jaxppo.market.tape import Tape, take_windows

Params = dict[str, Any]


class Transition(NamedTuple):
    """(T, N) steps as the loss needs them."""

    observation: jax.Array  # (T, N, D)
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array


class Runner(NamedTuple):
    """Everything between two updates."""

    params: Params
    opt_state: optax.OptState
    states: EnvState  # (N,)
    observation: jax.Array  # (N, D)
    key: jax.Array
    update: jax.Array  # () int32


def init_params(key: jax.Array, sizes: tuple[int, ...], n_actions: int = settings.N_ACTIONS) -> Params:
    """Hidden layers of `sizes` (input first) and two heads, orthogonal with gains sqrt 2, .01 and 1."""
    keys = jax.random.split(key, len(sizes) + 1)

    def layer(k: jax.Array, n_in: int, n_out: int, gain: float) -> tuple[jax.Array, jax.Array]:
        return jax.nn.initializers.orthogonal(gain)(k, (n_in, n_out)), jnp.zeros(n_out)

    hidden = [layer(k, i, o, 2.0**0.5) for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=False)]
    return {
        "hidden": hidden,
        "policy": layer(keys[-2], sizes[-1], n_actions, 0.01),
        "value": layer(keys[-1], sizes[-1], 1, 1.0),
    }


def forward(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits (B, K) and values (B,) of observations (B, D)."""
    for w, b in params["hidden"]:
        x = jax.nn.relu(x @ w + jnp.expand_dims(b, 0))
    (wp, bp), (wv, bv) = params["policy"], params["value"]
    return x @ wp + jnp.expand_dims(bp, 0), (x @ wv + jnp.expand_dims(bv, 0))[:, 0]


def flat(tape: Tape, seen: Observation, window: int) -> jax.Array:
    """Observations (N, window * F + A): the bars up to the decision's, and the account."""
    bars = take_windows(tape, seen.symbol, seen.t - (window - 1), window)
    return jnp.concatenate([bars.reshape(bars.shape[0], -1), seen.account], axis=-1)


def observation_size(tape: Tape, window: int) -> int:
    return window * tape.n_features + len(ACCOUNT_FEATURES)


def _loss(
    params: Params, batch: Transition, advantage: jax.Array, target: jax.Array, entropy: jax.Array, n_actions: int
) -> jax.Array:
    logits, value = forward(params, batch.observation)
    policy = distribution(logits, jnp.ones((1, n_actions), bool))
    ratio = jnp.exp(policy.log_prob(batch.action) - batch.log_prob)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 1.0 - settings.CLIP, 1.0 + settings.CLIP)
    surrogate = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    critic = 0.5 * jnp.square(value - target).mean()
    return surrogate + settings.VALUE_WEIGHT * critic - entropy * policy.entropy().mean()


def _advantages(steps: Transition, last: jax.Array) -> tuple[jax.Array, jax.Array]:
    def back(carry: tuple[jax.Array, jax.Array], x: tuple) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        following, next_value = carry
        reward, value, done = x
        go = 1.0 - done.astype(jnp.float32)
        delta = reward + settings.GAMMA * next_value * go - value
        following = delta + settings.GAMMA * settings.GAE_LAMBDA * go * following
        return (following, value), following

    xs = (steps.reward, steps.value, steps.done)
    _, advantage = jax.lax.scan(back, (jnp.zeros_like(last), last), xs, reverse=True, unroll=16)
    return advantage, advantage + steps.value


def make_update(tape: Tape, config: Config, optimizer: optax.GradientTransformation, window: int) -> tuple:
    """`init(key, width) -> Runner` and `update(Runner, tape, entropy) -> Runner` of a configuration's sizes."""
    budget, ppo = config.budget, config.ppo
    n_actions = action_table(config.env).n_actions

    def init(key: jax.Array, width: int) -> Runner:
        env = make_env(tape, config.env, config.reward)
        for_params, for_env, for_run = jax.random.split(key, 3)
        params = init_params(for_params, (observation_size(tape, window), width, width), n_actions)
        states, seen = jax.vmap(env.reset)(jax.random.split(for_env, budget.n_envs))
        return Runner(params, optimizer.init(params), states, flat(tape, seen, window), for_run, jnp.int32(0))

    def collect(runner: Runner, env: BoundEnv, tape: Tape) -> tuple[Runner, Transition]:
        def step(carry: tuple[EnvState, jax.Array, jax.Array], _: None) -> tuple[tuple, Transition]:
            states, seen, key = carry
            key, for_action, for_reset = jax.random.split(key, 3)
            logits, value = forward(runner.params, seen)
            policy = distribution(logits, jnp.ones((1, n_actions), bool))
            action = policy.sample(jax.random.uniform(for_action, value.shape))
            states, following, result, done = auto_reset(env, states, action, for_reset)
            kept = Transition(seen, action, policy.log_prob(action), value, result.reward, done)
            return (states, flat(tape, following, window), key), kept

        carry = (runner.states, runner.observation, runner.key)
        (states, seen, key), steps = jax.lax.scan(step, carry, None, length=budget.n_steps)
        return runner._replace(states=states, observation=seen, key=key), steps

    def update(runner: Runner, tape: Tape, entropy: jax.Array) -> Runner:
        runner, steps = collect(runner, make_env(tape, config.env, config.reward), tape)
        _, last = forward(runner.params, runner.observation)
        advantage, target = _advantages(steps, last)
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (steps, advantage, target))

        def minibatch(carry: tuple, part: tuple) -> tuple[tuple, None]:
            params, opt_state = carry
            grads = jax.grad(_loss)(params, *part, entropy, n_actions)
            with jax.numpy_dtype_promotion("standard"):
                changes, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, changes), opt_state), None

        def epoch(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
            order = jax.random.permutation(key, config.batch_steps)
            shuffled = jax.tree.map(lambda x: x[order].reshape(ppo.minibatches, -1, *x.shape[1:]), batch)
            return jax.lax.scan(minibatch, carry, shuffled)

        key, shuffle = jax.random.split(runner.key)
        start = (runner.params, runner.opt_state)
        (params, opt_state), _ = jax.lax.scan(epoch, start, jax.random.split(shuffle, ppo.epochs))
        return runner._replace(params=params, opt_state=opt_state, key=key, update=runner.update + 1)

    return init, update


def optimizer_for(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    clip = optax.clip_by_global_norm(settings.MAX_GRAD_NORM)
    return optax.chain(clip, optax.adam(learning_rate, eps=settings.ADAM_EPS))


def make_peer(setting: Setting) -> Peer:
    """Whole PPO updates with stored windows."""
    config = config_for(setting, lanes=1)
    tape = tape_of(random_market(setting.n_bars, setting.n_features), setting.window - 1)
    init, update = make_update(tape, config, optimizer_for(settings.LEARNING_RATE), setting.window)
    runner = jax.jit(init, static_argnums=1)(jax.random.key(0), setting.width)
    entropy = jnp.float32(settings.ENTROPY)
    run = jax.jit(update, donate_argnums=0).lower(runner, tape, entropy).compile()

    def unit() -> int:
        nonlocal runner
        runner = jax.block_until_ready(run(runner, tape, entropy))
        return setting.batch_steps

    return Peer(unit, f"window of {setting.window} x {setting.n_features} into 2 layers of {setting.width}")
