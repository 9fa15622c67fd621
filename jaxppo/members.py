"""Populations on the host: compiled once, as many members at once as fit the device, the rest in passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jaxppo.agent.policy import Params
from jaxppo.config.layers import flat_fields, replace_fields
from jaxppo.config.schema import FIELD_GROUP, Config
from jaxppo.device import Executable, compile_program, detect_device, memory_limit
from jaxppo.errors import ConfigError, nearest
from jaxppo.market.dataset import EvaluationSet, Market, evaluation_set
from jaxppo.market.tape import Tape
from jaxppo.memory import Line, line_through
from jaxppo.play.passes import n_decisions
from jaxppo.ppo.layout import make_mesh, place, shardings
from jaxppo.ppo.population import MemberOutput, divide_members, members_segment
from jaxppo.ppo.program import Program, TapeSpec, make_train
from jaxppo.ppo.state import Hyper, TrainState, hyper_from

SWEPT = (*Hyper._fields, "seed")
"""Fields in which the members of one population may differ: the others change the program or its shapes."""
AIM = 0.95
"""Share of the device's memory that a pass is chosen for: its line is drawn through two compilations."""


def member_config(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration of one member: `config` with its own values of swept fields.

    Raises:
      ConfigError: a field that is not an array of the program, or an unknown one.

    Example:
      >>> member_config(Config(), {"learning_rate": 1e-3, "seed": 4}).seed
      4
    """
    for name in values:
        if name not in SWEPT:
            if name not in FIELD_GROUP:
                raise ConfigError(f"unknown field {name!r}; {nearest(name, SWEPT)}")
            raise ConfigError(
                f"{name}: a population varies arrays of one program only ({', '.join(SWEPT)}); python -m jaxppo.sweep"
                f" trains variants of {name} one after another"
            )
    return replace_fields(config, values)


def members_hyper(configs: Sequence[Config]) -> Hyper:
    """The hyperparameters of members, (M,) float32 each, on the host."""
    return jax.tree.map(lambda *x: np.stack([np.asarray(v) for v in x]), *map(hyper_from, configs))


class Passes(NamedTuple):
    """How members share a device."""

    at_once: int  # members of one pass
    executable: Executable  # of a segment of so many
    line: Line | None  # bytes over members at once, where it had to be drawn


@dataclass(frozen=True)
class CompiledMembers:
    """The executable of a population with the arrays that all members read."""

    config: Config  # of any member but for the swept fields
    program: Program  # of one member
    passes: Passes
    begin: Callable[[jax.Array, Hyper, Tape], TrainState]  # the state of one member before its first update
    tape: Tape
    data: EvaluationSet
    placed: tuple[Tape, EvaluationSet]  # the same on all devices


def choose_passes(n_members: int, limit: float, compile_at: Callable[[int], Executable]) -> Passes:
    """As many members at once as fit, in passes of the same size.

    Compiles once where all fit, else once more for the line and once where the line reaches.

    Args:
      n_members: M, of all.
      limit: bytes.
      compile_at: compiles for so many members.

    Raises:
      ConfigError: not even one fits.
    """
    whole = compile_at(n_members)
    if whole.memory_bytes <= limit or n_members == 1:
        _require_room(whole.memory_bytes, limit)
        return Passes(n_members, whole, None)
    few = max(1, n_members // 8)
    small = compile_at(few)
    line = line_through((few, small.memory_bytes), (n_members, whole.memory_bytes))
    most = min(n_members - 1, max(1, line.reach(limit, 1)))
    at_once = -(-n_members // -(-n_members // most))  # passes of the same size
    chosen = small if at_once == few else compile_at(at_once)
    if chosen.memory_bytes > limit and at_once > few:  # not quite a line
        at_once, chosen = few, small
    _require_room(chosen.memory_bytes, limit)
    return Passes(at_once, chosen, line)


def _require_room(wanted: int, limit: float) -> None:
    if wanted > limit:
        raise ConfigError(
            f"members_at_once: one member takes {wanted / 2**20:,.0f} MiB of the {limit / 2**20:,.0f} that there are;"
            " lower --n-envs or --n-steps"
        )


def compile_members(
    config: Config,
    market: Market,
    n_members: int,
    at_once: int = 0,
    options: Mapping[str, Any] = MappingProxyType({}),
    devices: int = 1,
) -> CompiledMembers:
    """Trace and compile the program of a population.

    Args:
      config: of the members, whose swept fields are not read. `updates_for_passes` has been applied.
      market: for all.
      n_members: M, of all; later ones may be fewer (`Population.keep`) without another compilation.
      at_once: members of one pass; 0 for as many as fit the device.
      options: of XLA.
      devices: that divide the members of a pass.
    """
    if at_once < 0:
        raise ConfigError(f"members_at_once: must be 0 (as many as fit) or above, got {at_once}")
    tape = market.splits["train"].tape
    data = evaluation_set(market.splits["validation"])
    program = make_train(config, TapeSpec(tape.n_features, n_decisions(data.tape)))
    segment, hyper = members_segment(program), hyper_from(config)
    state = jax.eval_shape(program.init, jax.random.key(0), hyper, tape)
    begin = jax.jit(program.init, compiler_options=dict(options))
    mesh = make_mesh(jax.devices()[:devices], devices)
    lies = None
    if mesh is not None:
        segment, lies = divide_members(segment, mesh), shardings(mesh, PartitionSpec(mesh.axis_names))
    there = place(mesh, (tape, data))

    def compile_at(n: int) -> Executable:
        """For n members a device."""
        many = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((n * devices, *x.shape), x.dtype, sharding=lies), (state, hyper)
        )
        count = jax.ShapeDtypeStruct((), jnp.dtype("int32"))
        return compile_program(segment, *many, *there, count, count, donate=(0,), options=options)

    a_device = -(-n_members // devices)
    if at_once:
        n = min(-(-at_once // devices), a_device)
        passes = Passes(n, compile_at(n), None)
    else:
        passes = choose_passes(a_device, memory_limit(detect_device(), AIM), compile_at)
    passes = passes._replace(at_once=passes.at_once * devices)
    return CompiledMembers(config, program, passes, begin, tape, data, there)


class Population:
    """M members between two segments. Their states lie on the host, where they can be counted, kept and saved.

    A pass moves as many onto the device as were compiled for: half a MiB a member of the default network, next to
    seconds of training.

    Example:
      >>> compiled = compile_members(config, market, len(configs))
      >>> population = Population(compiled, configs)
      >>> for n in (0, *config.segments):
      ...     out = population.segment(n)
      >>> population = population.keep(np.argsort(out.figures.portfolio.sharpe)[-4:])
    """

    def __init__(self, compiled: CompiledMembers, configs: Sequence[Config], state: TrainState | None = None):
        """
        Args:
          compiled: for members such as these.
          configs: of each member; they may differ in swept fields only.
          state: of all, (M, ...) on the host; by default that before the first update.

        Raises:
          ConfigError: two members differ in another field.
        """
        for config in configs:
            _require_same_program(compiled.config, config)
        self.compiled = compiled
        self.configs = tuple(configs)
        self._hyper = members_hyper(configs)
        self.state = self._first() if state is None else state

    def __len__(self) -> int:
        return len(self.configs)

    def _first(self) -> TrainState:
        each = [
            jax.device_get(self.compiled.begin(jax.random.key(config.seed), hyper_from(config), self.compiled.tape))
            for config in self.configs
        ]
        return _join(each, np.stack)

    def segment(self, n_updates: int) -> MemberOutput:
        """Train every member for `n_updates`, at most `validate_every`, and validate it.

        Returns:
          What the members leave, arrays (M, ...) on the host. 0 updates only validate.
        """
        passes, members = self.compiled.passes, np.arange(len(self))
        done = [self._pass(members[i : i + passes.at_once], n_updates) for i in range(0, len(self), passes.at_once)]
        self.state = _join([state for state, _ in done], np.concatenate)
        return _join([out for _, out in done], np.concatenate)

    def _pass(self, members: np.ndarray, n_updates: int) -> tuple[TrainState, MemberOutput]:
        compiled, n = self.compiled, len(members)
        filled = np.pad(members, (0, compiled.passes.at_once - n), mode="edge")  # the program's shape is fixed
        state, hyper = _rows((self.state, self._hyper), filled)  # a copy, so that what is donated is nobody else's
        counts = jnp.int32(n_updates), jnp.int32(n)
        done = jax.device_get(compiled.passes.executable.run(state, hyper, *compiled.placed, *counts))
        kept: tuple[TrainState, MemberOutput] = jax.tree.map(lambda x: x[:n], done)
        return kept

    def keep(self, members: Sequence[int] | np.ndarray) -> Population:
        """The population of some members, by their places here, as they are; nothing is compiled again."""
        chosen = np.asarray(members)
        return Population(self.compiled, [self.configs[i] for i in chosen], _rows(self.state, chosen))

    def state_of(self, member: int) -> TrainState:
        """The state of one member, as a run alone has it."""
        state: TrainState = jax.tree.map(lambda x: x[member].copy(), self.state)
        return state

    def params_of(self, member: int) -> Params:
        """The parameters of one member: (N,), or (K, N) where it is an ensemble."""
        return self.state.params[member].copy()


def _require_same_program(one: Config, other: Config) -> None:
    before, after = flat_fields(one), flat_fields(other)
    for name, value in after.items():
        if name not in SWEPT and value != before[name]:
            raise ConfigError(
                f"{name}: members of one population differ in {', '.join(SWEPT)} only, got {before[name]!r} and"
                f" {value!r}"
            )


def _rows(tree: Any, rows: np.ndarray) -> Any:
    return jax.tree.map(lambda x: x[rows], tree)


def _join(trees: Sequence[Any], how: Callable[[Sequence[Any]], np.ndarray]) -> Any:
    return jax.tree.map(lambda *x: how(x), *trees)
