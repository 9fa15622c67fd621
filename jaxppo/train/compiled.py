"""The programs of a run, compiled, and the arrays that they read on the devices of the run.

They are the updates between two validations, a validation and the first state. Each is found in the cache where only
another has changed. XLA compiles them side by side for an accelerator, and one after another for a CPU, where it uses
all cores for each: a start of `quick_test` took 946 MiB at the peak so, and 1,789 MiB side by side.

On accelerators the updates are a scan whose length XLA knows: the device goes from one update to the next without
asking the host, and a run whose last segment is shorter has a second executable, compiled beside its first segments. On
a CPU one executable makes any number of updates: an update of `quick_test` took .44 s of CPU so and .45 s in a scan of
known length, and a second executable costs 11 s.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxppo.agent.policy import Params
from jaxppo.config.schema import Config
from jaxppo.device import Executable, begin_compiling, beside, compile_program, program_bytes, result_of
from jaxppo.market.dataset import EvaluationSet, Market, evaluation_set
from jaxppo.market.tape import Tape
from jaxppo.play.passes import n_decisions
from jaxppo.play.score import Score
from jaxppo.ppo.layout import place, shapes_at, shardings, state_specs
from jaxppo.ppo.program import Program, SegmentOutput, TapeSpec, make_train
from jaxppo.ppo.state import Hyper, TrainState, hyper_from

Rows = dict[str, jax.Array]
"""Metrics of updates, as of `run_updates`."""


class Updates:
    """The executables of a run's updates: one for any number of them, or one for each number that the run asks for.

    The first is compiled beside what goes on here; the others once the device is busy with the first updates.
    """

    def __init__(
        self, program: Program, arguments: tuple[Any, ...], numbers: Sequence[int], options: Mapping[str, Any]
    ):
        """
        Args:
          program: of the run.
          arguments: state, hyper and tape, or their shapes.
          numbers: of updates that will be asked for, in this order; none for one executable that makes any.
          options: of XLA.
        """
        self._program, self._arguments, self._options = program, arguments, options
        self._known, self._later = bool(numbers), [*dict.fromkeys(numbers)][1:]
        first = numbers[0] if numbers else 0
        self.first = begin_compiling(*self._call(first), donate=(0,), options=options)
        self._made = {self._which(first): self.first}

    def run(self, state: TrainState, hyper: Hyper, tape: Tape, n_updates: int) -> tuple[TrainState, Rows]:
        """Make so many updates. Uses `state` up."""
        made = result_of(self.executable(n_updates))
        count = () if self._known else (self._count(n_updates),)
        done: tuple[TrainState, Rows] = made.run(state, hyper, tape, *count)
        while self._later:
            self.executable(self._later.pop(0))
        return done

    def _which(self, n_updates: int) -> int | None:
        return n_updates if self._known else None

    def executable(self, n_updates: int) -> Future[Executable]:
        """What makes so many updates, compiled in a thread where it is not yet."""
        which = self._which(n_updates)
        if which not in self._made:
            function, *arguments = self._call(n_updates)
            make = partial(compile_program, function, *arguments, donate=(0,), options=self._options)
            self._made[which] = beside(make)
        return self._made[which]

    def _call(self, n_updates: int) -> tuple[Any, ...]:
        """The function to compile and its arguments."""
        if self._known:
            return lambda s, h, t: self._program.updates(s, h, t, n_updates), *self._arguments
        return self._program.updates, *self._arguments, self._count(n_updates)

    def _count(self, n_updates: int) -> jax.Array:
        return place(self._program.spec.mesh, jnp.int32(n_updates))


@dataclass(frozen=True)
class Compiled:
    """The executables of a run with the arrays that they read."""

    program: Program
    updates: Updates
    validation: jax.stages.Compiled
    init: Callable[[jax.Array, Hyper, Tape], TrainState]
    hyper: Hyper
    tape: Tape
    data: EvaluationSet
    compile_seconds: float
    memory_bytes: int  # that they take of a device, where the backend says
    options: Mapping[str, Any]  # of the compiler
    placed: tuple[Hyper, Tape, EvaluationSet]  # the same arrays on all devices of the run

    def advance(self, state: TrainState, n_updates: int) -> tuple[TrainState, SegmentOutput]:
        """One segment; of no updates it has no metrics. Uses `state` up, where there are updates."""
        hyper, tape, _ = self.placed
        state, rows = self.updates.run(state, hyper, tape, n_updates) if n_updates else (state, {})
        return state, SegmentOutput(rows, self.validate(state.params))

    def validate(self, params: Params) -> Score:
        """Play the validation split with parameters that lie as those of a state do."""
        score: Score = self.validation(params, self.placed[2])
        return score

    def place(self, state: TrainState) -> TrainState:
        """A state of this process's own on the devices of the run."""
        return place(self.program.spec.mesh, state, state_specs(state))


def compile_run(
    config: Config,
    market: Market,
    options: Mapping[str, Any] = MappingProxyType({}),
    segments: Sequence[int] = (),
) -> Compiled:
    """`begin_run` on one device, waited for."""
    return begin_run(config, market, options, None, segments)()


def begin_run(
    config: Config,
    market: Market,
    options: Mapping[str, Any] = MappingProxyType({}),
    mesh: Mesh | None = None,
    segments: Sequence[int] = (),
    *,
    fresh: bool = True,
) -> Callable[[], Compiled]:
    """Trace the programs of a run, and compile them beside what goes on here.

    Args:
      config: of the run.
      market: what is traded.
      options: of XLA.
      mesh: of the devices that the run is divided over; None for one.
      segments: numbers of updates between the validations that are left; by default those of a whole run.
      fresh: whether a first state will be asked for.

    Returns:
      What waits for them.
    """
    tape = market.splits["train"].tape
    data = evaluation_set(market.splits["validation"])
    program = make_train(config, TapeSpec(tape.n_features, n_decisions(data.tape)), mesh)
    hyper = hyper_from(config)
    placed = place(mesh, (hyper, tape, data))
    drawn = (jax.random.key(0), hyper, tape)
    state = jax.eval_shape(program.init, *drawn)
    if mesh is not None:
        state = shapes_at(state, shardings(mesh, state_specs(state)))
    on_cpu = jax.default_backend() == "cpu"
    numbers = () if on_cpu else [n for n in segments or config.segments if n]
    began = time.perf_counter()
    updates = Updates(program, (state, *placed[:2]), numbers, options)  # first, as they take longest
    begun = [(updates.first, began)]
    for function, *arguments in ((program.validation, state.params, placed[2]), (program.init, *drawn))[: 1 + fresh]:
        since = time.perf_counter()
        after = begun[-1][0] if on_cpu else None
        begun.append((begin_compiling(function, *arguments, options=options, after=after), since))

    def wait() -> Compiled:
        made = [(result_of(future), since - began) for future, since in begun]
        seconds = max(ahead + done.seconds for done, ahead in made)
        trained, validation, *first = (done.run for done, _ in made)
        init = first[0] if first else jax.jit(program.init, compiler_options=dict(options))
        memory = _memory(trained, validation, state.params)
        return Compiled(program, updates, validation, init, hyper, tape, data, seconds, memory, options, placed)

    return wait


def _memory(updates: jax.stages.Compiled, validation: jax.stages.Compiled, params: jax.ShapeDtypeStruct) -> int:
    """Bytes of a device: what either program reads and leaves lies there, and one of them runs."""
    made, played = updates.memory_analysis(), validation.memory_analysis()
    if made is None or played is None:
        return 0
    both = math.prod(params.sharding.shard_shape(params.shape) if params.sharding else params.shape)
    held = program_bytes(updates) + program_bytes(validation) - both * params.dtype.itemsize  # read by both
    return held - min(made.temp_size_in_bytes, played.temp_size_in_bytes)


def first_state(
    compiled: Compiled, seed: int, begin: Callable[[TrainState], TrainState] = lambda state: state
) -> TrainState:
    """The state before the first update; `begin` puts what an earlier run has learned in place of what was drawn."""
    return compiled.place(begin(compiled.init(jax.random.key(seed), compiled.hyper, compiled.tape)))
