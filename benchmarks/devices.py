"""One run on 1, 2, 4 and 8 fake devices of this machine: what they tell each other, what each holds, what differs.

    python -m benchmarks.devices 1 2 4 8
    python -m benchmarks.devices 1 8 --fields '{"seeds": 4}' --json

Fake devices share the cores, so nothing is timed. The collectives are those of the compiled program.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

# Before anything loads JAX; of a flag that is given twice the last one holds.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.encoders import receptive_field
from jaxppo.api import make_config
from jaxppo.config.schema import Config
from jaxppo.device import program_bytes
from jaxppo.market.dataset import build_market
from jaxppo.market.synthetic import synthetic_market
from jaxppo.market.tape import Tape
from jaxppo.plan.collectives import collectives
from jaxppo.plan.counts import count_module
from jaxppo.plan.hlo import parse_module
from jaxppo.ppo.layout import fetch, make_mesh, place, state_specs
from jaxppo.ppo.program import begin_run, run_updates, train_spec
from jaxppo.ppo.state import hyper_from

UPDATES = 20
# 64 paths of 8 lanes, in 4 minibatches of 8 blocks.
FIELDS: dict[str, Any] = {"n_envs": 512, "lanes": 8, "minibatches": 4, "blocks": 8, "learning_rate": 0.003}


def run(config: Config, tape: Tape, devices: int) -> dict[str, Any]:
    """All updates of a run on the first `devices` devices, and what its compiled program says of itself."""
    mesh, hyper = make_mesh(jax.devices()[:devices], config.budget.seeds), hyper_from(config)
    spec, n = train_spec(config, tape.n_features, mesh), config.budget.n_updates
    state = jax.jit(lambda: begin_run(spec, jax.random.key(config.seed), hyper, tape))()
    state, (hyper, tape) = place(mesh, state, state_specs(state)), place(mesh, (hyper, tape))
    learn = jax.jit(lambda s, h, t, updates: run_updates(spec, s, h, t, updates, n), donate_argnums=0)
    compiled = learn.lower(state, hyper, tape, place(mesh, jnp.int32(n))).compile()
    lanes = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves((state.paths, state.lanes)))
    state, rows = compiled(state, hyper, tape, place(mesh, jnp.int32(n)))
    alike = config.budget.seeds > 1 or len({np.asarray(s.data).tobytes() for s in state.params.addressable_shards}) == 1
    found = collectives(count_module(parse_module(compiled.as_text() or "")))
    state = fetch(state)
    return {
        "parameters": int(state.params.shape[-1]),
        "path_bytes": lanes,
        "program_bytes": program_bytes(compiled),
        "collectives": [(c.opcode, c.bytes, c.per_update) for c in found],
        "copies_equal": alike,
        "params": state.params.tolist(),
        "paths": [x.tolist() for x in state.paths],
        "trades": state.lanes.account.trades.tolist(),
        "rows": {name: np.asarray(x).tolist() for name, x in rows.items()},
    }


def table(runs: dict[int, dict[str, Any]]) -> list[str]:
    """A line a number of devices, compared with the first."""
    first = next(iter(runs.values()))
    lines = [
        "| devices | all-reduces of a minibatch | others an update | other collectives | paths and lanes a device"
        " | program a device | same paths | largest difference of a figure: first update | all | of a parameter |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for devices, of in runs.items():
        steps = [f"{size:,} bytes" for opcode, size, times in of["collectives"] if times > 1]
        small = [size for _, size, times in of["collectives"] if times == 1]
        other = sum(opcode != "all-reduce" for opcode, _, _ in of["collectives"])
        apart = np.stack([np.abs(np.subtract(x, first["rows"][name])) for name, x in of["rows"].items()])
        params = np.abs(np.subtract(of["params"], first["params"])).max()
        same = "yes" if of["paths"] == first["paths"] else "NO"
        lines.append(
            f"| {devices} | {', '.join(steps) or 'none'} | {len(small)}, {sum(small)} bytes | {other}"
            f" | {of['path_bytes'] / 2**10:,.1f} KiB | {of['program_bytes'] / 2**20:,.2f} MiB | {same}"
            f" | {np.nanmax(apart[:, 0]):.1e} | {np.nanmax(apart):.1e} | {params:.1e} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devices", nargs="+", type=int)
    parser.add_argument("--fields", type=json.loads, default={}, help="of the configuration, as JSON")
    parser.add_argument("--json", action="store_true", help="print everything that is compared")
    options = parser.parse_args()
    fields = {**FIELDS, "n_updates": UPDATES, **options.fields}
    config = make_config("quick_test", **fields)
    market = build_market(synthetic_market(0, 2, 1800), config, receptive_field(config.agent))
    runs = {n: run(config, market.splits["train"].tape, n) for n in options.devices}
    print(json.dumps(runs) if options.json else "\n".join(table(runs)))


if __name__ == "__main__":
    main()
