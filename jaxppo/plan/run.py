"""Planning a run: the program compiled for a GPU that need not be there, or timed on the device at hand."""

from __future__ import annotations

import statistics
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxppo.agent.encoders import receptive_field
from jaxppo.cli import Request
from jaxppo.config.checks import check_config
from jaxppo.config.layers import replace_fields, updates_for_passes
from jaxppo.config.schema import Config
from jaxppo.device import begin_compiling, detect_device, enable_compilation_cache, result_of, xla_options
from jaxppo.errors import ConfigError
from jaxppo.market.dataset import Market, build_market, evaluation_set
from jaxppo.market.source import load_market_bars
from jaxppo.market.synthetic import synthetic_market
from jaxppo.memory import Line, line_through
from jaxppo.plan.counts import Region, count_module, join_regions
from jaxppo.plan.gpus import Gpu, find_gpu
from jaxppo.plan.hlo import parse_module
from jaxppo.plan.memory import Memory
from jaxppo.plan.options import LOCAL, PlanOptions
from jaxppo.plan.result import Fit, GpuPlan, LocalPlan, Point, Timing, gpu_plan, local_plan
from jaxppo.plan.scale import predict, scaled_config
from jaxppo.plan.shapes import MarketShapes, abstract, shapes_of_market, shapes_of_sizes, tree_bytes
from jaxppo.plan.text import gpu_lines, local_lines
from jaxppo.ppo.checks import check_program
from jaxppo.ppo.layout import make_mesh, shapes_at, shardings, state_specs
from jaxppo.ppo.program import Program, TapeSpec, make_train
from jaxppo.ppo.state import hyper_from
from jaxppo.store.directory import require_new_file
from jaxppo.store.json import write_json

Say = Callable[[str], None]
# Share of the memory there is to aim at, and how near the line the last compilation must come. Production for an A100
# came within 0.1 % in float32 and 4.4 % in bfloat16, where its slope falls a little above a million envs.
AIM = 0.999
NEAR = 0.05


@dataclass(frozen=True)
class CompiledSegment:
    """The programs of a configuration, compiled for some device."""

    program: Program
    updates: jax.stages.Compiled
    length: int | None  # updates that it makes; None for as many as it is told
    validation: jax.stages.Compiled
    region: Region  # counted: the two after each other
    memory: Memory
    seconds: float


def plan_run(request: Request[PlanOptions]) -> int:
    """Plan from the command line's values and print it; 0 when the run fits, 1 when it does not."""
    options = request.options
    if options.gpu == LOCAL and (options.devices, options.hosts) != (1, 1):
        raise ConfigError("devices: are planned for by the name of a GPU; --gpu local measures one")
    if options.measure_updates < 1:
        raise ConfigError(f"measure_updates: must be at least 1, got {options.measure_updates}")
    if options.out is not None:
        require_new_file(options.out)

    def say(line: str) -> None:
        print(line, flush=True)

    if options.gpu == LOCAL:
        local = plan_local(request, say)
        lines, plan, fits = local_lines(local), asdict(local), True
    else:
        there = plan_absent(request, say)
        lines, plan, fits = gpu_lines(there), asdict(there), there.fits
    for line in lines:
        say(line)
    if options.out is not None:
        write_json(options.out, plan)
        say(f"written to {options.out}")
    return 0 if fits else 1


def plan_absent(request: Request[PlanOptions], say: Say) -> GpuPlan:
    """Compile for a GPU that need not be there, count the program, and look for the largest env count."""
    options = request.options
    gpu = find_gpu(options.gpu)
    limit = gpu.device.memory_bytes or 0
    config = request.resolve(gpu.device).config
    check_program(config)  # before anything is read
    shapes = _absent_shapes(options, config)
    config = updates_for_passes(config, shapes.n_trained)
    say(f"market: {shapes.words[0]}")
    say(f"on the device: {shapes.words[1]}")
    devices, hosts, xla = options.devices, options.hosts, xla_options(options.deterministic)
    there = gpu_devices(gpu, devices, hosts)

    def run_at(n_envs: int) -> Config:
        """The run of all devices, of n_envs each."""
        alone = replace_fields(config, {"n_envs": n_envs})
        return alone if devices == 1 else scaled_config(alone, devices)

    def compile_at(n_envs: int) -> tuple[Point, CompiledSegment]:
        say(f"compiling for {n_envs:,} envs on {gpu.title}")
        compiled = compile_segment(run_at(n_envs), shapes, xla, there)
        return _point(n_envs, compiled, shapes), compiled

    point, compiled = compile_at(config.budget.n_envs)
    fit = find_largest(config, point, limit, lambda n: compile_at(n)[0]) if options.largest else None
    scale = None
    if devices > 1:
        scale = predict(run_at(config.budget.n_envs), gpu, hosts, devices, compiled.region)
    market, bars = "; ".join(shapes.words), shapes.n_decisions
    return gpu_plan(config, gpu, market, bars, limit, point, compiled.region, fit, scale)


def find_largest(config: Config, point: Point, limit: int, compile_at: Callable[[int], Point]) -> Fit:
    """Two compilations for a line through memory over envs, one more where it reaches the limit.

    Memory is the larger of what an update and what a validation holds at once: where that is the validation's, the line
    comes out too flat, and is drawn again through the last two points.
    """
    n_envs = config.budget.n_envs
    step = config.budget.lanes * config.ppo.minibatches
    points = [point, compile_at(8 * n_envs if _valid(config, 8 * n_envs) else step)]
    line = _line(points[0], points[1])
    for _ in range(3):
        largest = _valid_below(config, line.reach(AIM * limit, step), step)
        if largest <= _fitting(points, limit):
            break
        points.append(compile_at(largest))
        if points[-1].needed <= limit and abs(points[-1].needed / line.at(largest) - 1.0) < NEAR:
            break
        line = _line(points[-2], points[-1])
    return Fit(line, _fitting(points, limit), tuple(sorted(points, key=lambda p: p.n_envs)))


def _fitting(points: Sequence[Point], limit: int) -> int:
    return max((p.n_envs for p in points if p.needed <= limit), default=0)


def _line(one: Point, two: Point) -> Line:
    return line_through((one.n_envs, one.needed), (two.n_envs, two.needed))


def _valid(config: Config, n_envs: int) -> bool:
    try:
        check_config(replace_fields(config, {"n_envs": n_envs}))
    except ConfigError:
        return False
    return True


def _valid_below(config: Config, n_envs: int, step: int) -> int:
    """The largest multiple of `step` up to `n_envs` that a configuration may have; 0 where there is none."""
    counts = range(step, n_envs + 1, step)
    return counts[n - 1] if (n := bisect_left(counts, True, key=lambda c: not _valid(config, c))) else 0


def gpu_devices(gpu: Gpu, devices: int, hosts: int) -> list[jax.Device]:
    """GPUs of a topology that only its description makes."""
    if devices < 1 or hosts < 1 or devices % hosts:
        raise ConfigError(f"hosts: {devices} devices are not so many on each of {hosts} hosts; give a divisor")
    topology = topologies.get_topology_desc(
        platform="cuda",
        topology_name=gpu.name,
        target_config=gpu.target_config(),
        topology=f"1x{hosts}x{devices // hosts}",
    )
    return list(topology.devices)


def compile_segment(
    config: Config, shapes: MarketShapes, options: Mapping[str, Any], devices: Sequence[jax.Device] = ()
) -> CompiledSegment:
    """Compile the programs of a run, its updates and a validation: for these devices, or for the default one.

    `options` are XLA's.
    """
    mesh = make_mesh(devices, config.budget.seeds) if len(devices) > 1 else None
    program = make_train(config, TapeSpec(shapes.tape.n_features, shapes.n_decisions), mesh)
    hyper = abstract(hyper_from(config))
    state = jax.eval_shape(program.init, jax.random.key(0), hyper, shapes.tape)
    given = (state, hyper, shapes.tape, shapes.data, jax.ShapeDtypeStruct((), jnp.dtype("int32")))
    # Everything on each device, but for the state of many.
    over = mesh or (Mesh(np.array(devices), ("gpu",)) if devices else None)
    places = jax.tree.map(lambda _: NamedSharding(over, PartitionSpec()) if over else None, given)
    state, hyper, tape, data, count = shapes_at(given, places) if over else given
    if mesh is not None:
        state = shapes_at(state, shardings(mesh, state_specs(state)))
    function: Callable[..., Any] = program.updates
    counts: tuple[Any, ...] = (count,)
    length = None
    if devices or jax.default_backend() != "cpu":  # as a run does, but of one update XLA would make no loop
        length = max(config.budget.validate_every, 2)
        function, counts = lambda s, h, t: program.updates(s, h, t, length), ()
    began = time.perf_counter()
    # From jax 0.11 on a kernel of Pallas asks the mesh around it which GPU it is for.
    with jax.sharding.use_abstract_mesh(over.abstract_mesh) if over else nullcontext():
        updates = begin_compiling(function, state, hyper, tape, *counts, donate=(0,), options=options)
        validating = begin_compiling(program.validation, state.params, data, options=options)
    validation = result_of(validating).run
    trained = result_of(updates).run
    seconds = time.perf_counter() - began
    region = join_regions(*(count_module(parse_module(made.as_text() or "")) for made in (trained, validation)))
    there = jax.tree.map(_on_a_device, state)
    memory = _memory(trained, validation, tree_bytes(there), tree_bytes(there.params), shapes)
    return CompiledSegment(program, trained, length, validation, region, memory, seconds)


def _on_a_device(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.sharding.shard_shape(x.shape), x.dtype) if x.sharding else x


def _memory(
    updates: jax.stages.Compiled, validation: jax.stages.Compiled, state: int, params: int, shapes: MarketShapes
) -> Memory:
    """What the two take of a device together: what either reads and leaves lies there, and one of them runs."""
    made, played = updates.memory_analysis(), validation.memory_analysis()
    if made is None or played is None:
        raise ConfigError("gpu: this version of jax tells nothing of a compiled program; jax 0.10 to 0.12 do")
    return Memory(
        state=state,
        tape=tree_bytes(shapes.tape),
        evaluation=tree_bytes(shapes.data),
        arguments=made.argument_size_in_bytes + played.argument_size_in_bytes - params,  # which both read
        outputs=made.output_size_in_bytes + played.output_size_in_bytes,
        aliased=made.alias_size_in_bytes,
        temporaries=max(made.temp_size_in_bytes, played.temp_size_in_bytes),
    )


def _point(n_envs: int, compiled: CompiledSegment, shapes: MarketShapes) -> Point:
    memory = compiled.memory
    # The host still holds what the last segment left while the next one runs.
    beside = shapes.beside_bytes + memory.outputs - memory.aliased
    return Point(n_envs, memory, beside, compiled.seconds)


def _absent_shapes(options: PlanOptions, config: Config) -> MarketShapes:
    if config.data.data is None:
        return shapes_of_sizes(config, options.n_symbols, options.n_bars)
    bars, source = load_market_bars(config.data)
    market = build_market(bars, config, receptive_field(config.agent))
    return shapes_of_market(market, evaluation_set(market.splits["validation"]), source)


# On the device at hand.


def plan_local(request: Request[PlanOptions], say: Say) -> LocalPlan:
    """Compile and run a few updates and a validation on the device at hand."""
    enable_compilation_cache()
    device = detect_device()
    options, config = request.options, request.resolve(device).config
    check_program(config)
    market, source = _local_market(options, config)
    data = evaluation_set(market.splits["validation"])
    shapes = shapes_of_market(market, data, source)
    config = updates_for_passes(config, shapes.n_trained)
    say(f"market: {shapes.words[0]}")
    say(f"on the device: {shapes.words[1]}")
    say(f"compiling for {config.budget.n_envs:,} envs on {device.kind}")
    compiled = compile_segment(config, shapes, xla_options(options.deterministic))
    say(f"running {options.measure_updates} updates and 2 validations")
    timing = time_segments(config, compiled, market, data, options.measure_updates)
    point = _point(config.budget.n_envs, compiled, shapes)
    return local_plan(config, device, "; ".join(shapes.words), shapes.n_decisions, point, compiled.region, timing)


def _local_market(options: PlanOptions, config: Config) -> tuple[Market, str]:
    if config.data.data is None:
        shapes_of_sizes(config, options.n_symbols, options.n_bars)  # refuses what is too small, in the flags' words
        bars = synthetic_market(config.data.market_seed, options.n_symbols, -(-options.n_bars // options.n_symbols))
        source = "made up to the size of --n-symbols and --n-bars"
    else:
        bars, source = load_market_bars(config.data)
    return build_market(bars, config, receptive_field(config.agent)), source


def time_segments(config: Config, compiled: CompiledSegment, market: Market, data: Any, n_updates: int) -> Timing:
    """Seconds of one validation and of one update: medians, after a first validation that is not counted."""
    hyper, tape = hyper_from(config), market.splits["train"].tape
    state = jax.jit(compiled.program.init)(jax.random.key(config.seed), hyper, tape)
    counts = () if compiled.length else (jnp.int32(1),)

    def seconds(run: jax.stages.Compiled, *arguments: Any) -> tuple[Any, float]:
        began = time.perf_counter()
        done = jax.block_until_ready(run(*arguments))
        return done, time.perf_counter() - began

    for _ in range(2):
        _, validation = seconds(compiled.validation, state.params, data)
    each = []
    for _ in range(-(-n_updates // (compiled.length or 1))):
        (state, _), took = seconds(compiled.updates, state, hyper, tape, *counts)
        each.append(took / (compiled.length or 1))
    return Timing(statistics.median(each), validation, len(each) * (compiled.length or 1))
