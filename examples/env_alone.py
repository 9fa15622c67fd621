"""The environment without the trainer: 1,024 accounts take one random step each."""

import jax

import jaxppo

config = jaxppo.make_config()
env = jaxppo.make_env(jaxppo.build_market(jaxppo.synthetic_market(27), config), config)
states, observations = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 1024))
actions = jax.random.randint(jax.random.key(1), (1024,), 0, 3)
states, observations, result, terminated, truncated = jax.jit(jax.vmap(env.step))(states, actions)
print(observations.account.shape, result.reward.mean(), result.record.fees.sum())
