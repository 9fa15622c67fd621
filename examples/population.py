"""Four seeds at two learning rates, trained side by side in one program.

python examples/population.py
python examples/population.py 1    # one update, to try it
"""

import sys

import jax
import jax.numpy as jnp

import jaxppo

updates = int(sys.argv[1]) if len(sys.argv) > 1 else 10
config = jaxppo.make_config(n_envs=256, n_updates=updates, validate_every=updates)
training = jaxppo.make_train(config, jaxppo.build_market(jaxppo.synthetic_market(27), config))


def member(key, rate):
    return training.train(key, training.hyper._replace(learning_rate=rate))


keys = jnp.repeat(jax.random.split(jax.random.key(0), 4), 2)  # 4 seeds x 2 learning rates
rates = jnp.tile(jnp.asarray([3e-4, 1e-3]), 4)
states, figures = jax.jit(jax.vmap(member))(keys, rates)
print(figures.pooled.fitness)  # (8, 2): before the first update and at the end
