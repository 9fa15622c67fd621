"""The accelerator against the CPU: one gradient and one whole update from the same state and samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.part import made_up, parser, sized, write
from jaxppo.config.layers import replace_fields
from jaxppo.config.schema import Config
from jaxppo.market.tape import Tape
from jaxppo.ppo.loss import Samples
from jaxppo.ppo.noise import PathNoise
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.rollout import RolloutStart, collect
from jaxppo.ppo.state import Hyper, TrainSpec, TrainState, hyper_from
from jaxppo.ppo.update import learn, rollout_advantages, update

B1 = 0.9  # of optax's Adam: after one step its mean is (1 - B1) times the gradient


class Limits(NamedTuple):
    """The largest differences that pass, about ten times what an H100 showed on 2026-11-26."""

    gradient: float  # of the CPU's, both as vectors
    weights: float  # of what an update moved on the CPU
    lanes: float  # share of the accounts that differ after the update's rollout: another action was drawn


MODES = {
    "float32": Limits(1e-5, 1e-2, 1e-3),
    "tf32": Limits(3e-2, 1e-1, 1e-2),
    "bfloat16": Limits(5e-2, 3e-1, 5e-2),
    "fused": Limits(3e-2, 1e-1, 1e-2),
}
"""Arithmetic of the matmuls; `fused` is the network's own kernels, which must be as near as TF32's."""


class Outcome(NamedTuple):
    """What one device computed, on the host."""

    gradient: np.ndarray  # (N,)
    weights: np.ndarray  # (N,), what an update of all epochs moved
    lanes: Any  # arrays (P, L)


def configuration(mode: str, tiny: bool) -> Config:
    """The default network at few envs, as `mode` has it."""
    sizes = {} if tiny else {"n_envs": 4_096, "n_steps": 8}
    network = {"bfloat16": {"compute_dtype": "bfloat16"}, "fused": {"kernels": "fused"}}.get(mode, {})
    return sized("quick_test", tiny, {**sizes, "advantages": "gae", **network})


def draw(spec: TrainSpec, hyper: Hyper) -> Callable[[TrainState, Tape], tuple[Samples, jax.Array]]:
    """A rollout's samples, and which paths are clean."""

    def run(state: TrainState, tape: Tape) -> tuple[Samples, jax.Array]:
        start = RolloutStart(state.paths, state.lanes, jax.random.wrap_key_data(state.key))
        _, rollout, _ = collect(spec, state.params, tape, start, hyper.gamma)
        advantage, target = rollout_advantages(rollout, hyper)
        s = rollout.steps
        return Samples(s.observation, s.action, s.log_prob, s.value, advantage, target), rollout.clean

    return run


def both(spec: TrainSpec, whole: TrainSpec, hyper: Hyper) -> Callable[..., tuple[jax.Array, jax.Array, Any]]:
    """The gradient at a policy other than the one that sampled, over all samples at once, and a whole update."""

    def run(
        state: TrainState, moved: TrainState, samples: Samples, clean: jax.Array, tape: Tape
    ) -> tuple[jax.Array, jax.Array, Any]:
        loose = hyper._replace(max_grad_norm=jnp.float32(1e9))  # nothing is clipped
        key = jax.random.key(3)
        learner, _ = learn(moved, samples, PathNoise(), tape, key, spec, loose, clean)
        after, _ = update(state, tape, whole, hyper)
        return learner.learned.moments.mean / (1.0 - B1), after.params - state.params, after.lanes

    return run


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """Norm of the difference over that of `b`; infinite where anything is not finite."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


def lanes_that_differ(a: Any, b: Any, tolerance: float = 1e-3) -> float:
    """Share of accounts of which any figure differs by more than `tolerance`, relative or absolute."""
    off = [
        ~np.isclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True).reshape(*x.shape[:2], -1).all(-1)
        for x, y in zip(map(np.asarray, jax.tree.leaves(a)), map(np.asarray, jax.tree.leaves(b)), strict=True)
    ]
    return float(np.any(off, axis=0).mean())


def judged(here: Outcome, there: Outcome, limits: Limits) -> dict[str, Any]:
    """Differences of the accelerator from the CPU, the limits, and whether all are within."""
    found = Limits(
        relative(here.gradient, there.gradient),
        relative(here.weights, there.weights),
        lanes_that_differ(here.lanes, there.lanes),
    )
    passed = all(x <= limit for x, limit in zip(found, limits, strict=True))
    return {**found._asdict(), "limits": limits._asdict(), "passed": passed}


def compare(tiny: bool) -> dict[str, dict[str, Any]]:
    """`judged` of every mode."""
    # The last device: the accelerator, or the second of two CPU devices that a test pretends to have.
    cpu, accelerator = jax.devices("cpu")[0], jax.devices()[-1]
    config = configuration("float32", tiny)
    tape = jax.device_put(jax.device_get(made_up(config, tiny, 3_000).splits["train"].tape), cpu)
    hyper = jax.tree.map(np.asarray, hyper_from(config))  # of no device
    shape = TapeSpec(tape.n_features, 1)

    def specs(mode: str) -> tuple[TrainSpec, TrainSpec]:
        whole = configuration(mode, tiny)
        one_step = replace_fields(whole, {"epochs": 1, "minibatches": 1})
        return make_train(one_step, shape).spec, make_train(whole, shape).spec

    def run(mode: str, device: Any, *given: Any) -> Outcome:
        given = jax.device_put(jax.device_get(given), device)
        precision = "highest" if mode == "float32" else "default"
        with jax.default_matmul_precision(precision):
            return Outcome(*jax.device_get(jax.jit(both(*specs(mode), hyper))(*given)))

    with jax.default_device(cpu), jax.default_matmul_precision("highest"):
        program = make_train(config, shape)
        state = jax.jit(program.init)(jax.random.key(0), hyper, tape)
        samples, clean = jax.jit(draw(program.spec, hyper))(state, tape)
        # Away from the policy that sampled, so that ratios are not all 1.
        away = 0.01 * jax.random.normal(jax.random.key(7), state.params.shape)
    given = (state, state._replace(params=state.params + away), samples, clean, tape)
    reference = run("float32", cpu, *given)
    return {mode: judged(run(mode, accelerator, *given), reference, limits) for mode, limits in MODES.items()}


def main() -> None:
    args = parser(__doc__).parse_args()
    write(args.out, {"devices": [str(jax.devices()[-1]), "cpu"], "modes": compare(args.tiny)})


if __name__ == "__main__":
    main()
