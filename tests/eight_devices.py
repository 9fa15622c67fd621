"""A process with eight fake devices: `eight_devices.py {} 1 8` prints what runs on 1 and on 8 did.

In a process of its own, since the number of fake devices is fixed when JAX begins.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from helpers import tiny_config, tiny_market

from jaxppo.config.schema import Config
from jaxppo.market.tape import Tape
from jaxppo.plan.collectives import collectives
from jaxppo.plan.counts import count_module
from jaxppo.plan.hlo import parse_module
from jaxppo.ppo.layout import fetch, make_mesh, place, state_specs
from jaxppo.ppo.program import begin_run, run_updates, train_spec
from jaxppo.ppo.state import hyper_from

UPDATES = 20
# 16 paths of 4 lanes; a learning rate at which the policies of the 20th update have little to do with the first.
SIZES = {"n_envs": 64, "n_updates": UPDATES, "blocks": 8, "learning_rate": 0.01, "target_kl": 0.5}


def run(config: Config, tape: Tape, devices: int) -> dict:
    """A whole run on the first `devices` devices, and what its compiled program says of itself."""
    mesh, hyper = make_mesh(jax.devices()[:devices], config.budget.seeds), hyper_from(config)
    spec = train_spec(config, tape.n_features, mesh)
    state = jax.jit(lambda: begin_run(spec, jax.random.key(3), hyper, tape))()
    state, (hyper, tape) = place(mesh, state, state_specs(state)), place(mesh, (hyper, tape))
    run = jax.jit(lambda s, h, t, n: run_updates(spec, s, h, t, n, UPDATES), donate_argnums=0)
    compiled = run.lower(state, hyper, tape, place(mesh, jnp.int32(UPDATES))).compile()
    lanes = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves((state.paths, state.lanes)))
    state, rows = compiled(state, hyper, tape, place(mesh, jnp.int32(UPDATES)))
    copies = [np.asarray(s.data) for s in state.params.addressable_shards]
    found = collectives(count_module(parse_module(compiled.as_text())))
    state = fetch(state)
    return {
        "parameters": int(state.params.shape[-1]),
        "path_bytes": lanes,
        "collectives": [(c.opcode, c.bytes, c.per_update) for c in found],
        "copies_equal": all((c == copies[0]).all() for c in copies) if config.budget.seeds == 1 else None,
        "params": state.params.tolist(),
        "paths": [x.tolist() for x in state.paths],
        "trades": state.lanes.account.trades.tolist(),
        "rows": {name: np.asarray(x).tolist() for name, x in rows.items()},
    }


def main(counts: list[int], **changes: object) -> None:
    config = tiny_config(**SIZES, **changes)
    tape = tiny_market(config).splits["train"].tape
    print(json.dumps({n: run(config, tape, n) for n in counts}))


if __name__ == "__main__":
    main([int(n) for n in sys.argv[2:]], **json.loads(sys.argv[1]))
