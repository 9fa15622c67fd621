"""The program of a run, compiled, and the arrays that it reads on the devices of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxppo.config.schema import Config
from jaxppo.device import compile_program
from jaxppo.market.dataset import EvaluationSet, Market, evaluation_set
from jaxppo.market.tape import Tape
from jaxppo.play.passes import n_decisions
from jaxppo.ppo.layout import place, shapes_at, shardings, state_specs
from jaxppo.ppo.program import Program, SegmentOutput, TapeSpec, make_train
from jaxppo.ppo.state import Hyper, TrainState, hyper_from

Segment = Callable[..., tuple[TrainState, SegmentOutput]]


@dataclass(frozen=True)
class Compiled:
    """The executable of a run with the arrays that it reads."""

    program: Program
    segment: Segment
    hyper: Hyper
    tape: Tape
    data: EvaluationSet
    compile_seconds: float
    memory_bytes: int  # of the program's arguments, outputs and temporaries on a device, where the backend says
    options: Mapping[str, Any]  # of the compiler
    placed: tuple[Hyper, Tape, EvaluationSet]  # the same arrays on all devices of the run

    def advance(self, state: TrainState, n_updates: int) -> tuple[TrainState, SegmentOutput]:
        """One segment. Uses `state` up."""
        return self.segment(state, *self.placed, place(self.program.spec.mesh, jnp.int32(n_updates)))

    def place(self, state: TrainState) -> TrainState:
        """A state of this process's own on the devices of the run."""
        return place(self.program.spec.mesh, state, state_specs(state))


def compile_run(
    config: Config, market: Market, options: Mapping[str, Any] = MappingProxyType({}), mesh: Mesh | None = None
) -> Compiled:
    """Trace and compile the program of a run, once.

    Args:
      config: of the run.
      market: what is traded.
      options: of XLA.
      mesh: of the devices that the run is divided over; None for one.
    """
    tape = market.splits["train"].tape
    data = evaluation_set(market.splits["validation"])
    program = make_train(config, TapeSpec(tape.n_features, n_decisions(data.tape)), mesh)
    hyper = hyper_from(config)
    placed = place(mesh, (hyper, tape, data))
    state = jax.eval_shape(program.init, jax.random.key(0), hyper, tape)
    if mesh is not None:
        state = shapes_at(state, shardings(mesh, state_specs(state)))
    count = place(mesh, jnp.int32(0))
    done = compile_program(program.segment, state, *placed, count, donate=(0,), options=options)
    return Compiled(program, done.run, hyper, tape, data, done.seconds, done.memory_bytes, options, placed)


def first_state(
    compiled: Compiled, seed: int, begin: Callable[[TrainState], TrainState] = lambda state: state
) -> TrainState:
    """The state before the first update; `begin` puts what an earlier run has learned in place of what was drawn."""
    init = jax.jit(compiled.program.init, compiler_options=dict(compiled.options))
    return compiled.place(begin(init(jax.random.key(seed), compiled.hyper, compiled.tape)))
