"""Hashes of what a deterministic run of a few updates ends with: two processes must agree to the bit."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

from benchmarks.gpu.part import made_up, parser, sized, write
from jaxppo.device import xla_options
from jaxppo.train.compiled import compile_run, first_state


def ended(tiny: bool) -> dict[str, str]:
    """SHA-256 of every array of the state, the metrics and the validation after four updates of quick_test."""
    config = sized("quick_test", tiny, {"n_updates": 4, "validate_every": 2, "seed": 5})
    compiled = compile_run(config, made_up(config, tiny), xla_options(deterministic=True))
    state, told = first_state(compiled, config.seed), []
    for length in config.segments:
        state, out = compiled.advance(state, length)
        told.append(jax.device_get(out))
    return hashes({"state": jax.device_get(state), "told": told})


def hashes(tree: Any) -> dict[str, str]:
    """By the place of each array in `tree`."""
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(where): hashlib.sha256(np.asarray(x).tobytes()).hexdigest() for where, x in leaves}


def main() -> None:
    args = parser(__doc__).parse_args()
    write(args.out, ended(args.tiny))


if __name__ == "__main__":
    main()
