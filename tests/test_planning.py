"""Counting a program from its text, worked out by hand; seconds and memory from the counts."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from helpers import tiny_config

from jaxppo.agent.encoders import receptive_field
from jaxppo.cli import Request
from jaxppo.errors import ConfigError
from jaxppo.market.dataset import build_market, evaluation_set
from jaxppo.market.synthetic import synthetic_market
from jaxppo.memory import Line, line_through
from jaxppo.plan.counts import count_module, host_transfers, join_regions, unknown_loops, update_loops
from jaxppo.plan.gpus import GPUS, find_gpu
from jaxppo.plan.hlo import Array, parse_arrays, parse_module
from jaxppo.plan.hotspots import find_hotspots
from jaxppo.plan.memory import Memory
from jaxppo.plan.options import PlanOptions
from jaxppo.plan.packages import is_noise, is_ready, prepared
from jaxppo.plan.result import Point, count_work, gpu_plan, plain_work
from jaxppo.plan.roofline import Work, kernel_seconds, kernel_work, run_rows, sum_work
from jaxppo.plan.run import find_largest, plan_run
from jaxppo.plan.shapes import abstract, shapes_of_market, shapes_of_sizes
from jaxppo.plan.text import MIB

# A loop of 5 turns around a matmul, in a loop of unknown length; a slice, an update in place, a copy, a gather, a sort.
PROGRAM = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[4,8]{1,0})->f32[4,16]{1,0}}

FileNames
1 "/somewhere/ppo/rollout.py"
2 "/somewhere/ppo/update.py"

FunctionNames
1 "collect.<locals>.play"
2 "update"

FileLocations
1 {file_name_id=2 function_name_id=2 line=1 end_line=1 column=1 end_column=2}
2 {file_name_id=1 function_name_id=1 line=2 end_line=2 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}


%fused_matmul (p0: f32[4,8], p1: f32[8,16]) -> f32[4,16] {
  %p0 = f32[4,8]{1,0} parameter(0)
  %p1 = f32[8,16]{1,0} parameter(1)
  ROOT %dot.1 = f32[4,16]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%fused_slice (p.1: f32[100,4], p.2: s32[], p.3: f32[100,4]) -> (f32[4], f32[100,4]) {
  %p.1 = f32[100,4]{1,0} parameter(0)
  %p.2 = s32[] parameter(1)
  %p.3 = f32[100,4]{1,0} parameter(2)
  %zero = s32[] constant(0)
  %slice = f32[1,4]{1,0} dynamic-slice(%p.1, %p.2, %zero), dynamic_slice_sizes={1,4}
  %flat = f32[4]{0} bitcast(%slice)
  %negated = f32[4]{0} negate(%flat)
  %row = f32[1,4]{1,0} bitcast(%negated)
  %placed = f32[100,4]{1,0} dynamic-update-slice(%p.3, %row, %p.2, %zero)
  ROOT %both = (f32[4]{0}, f32[100,4]{1,0}) tuple(%negated, %placed)
}

%inner_condition (a: (s32[], f32[4,8])) -> pred[] {
  %a = (s32[], f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%a), index=0
  %five = s32[] constant(5)
  ROOT %less = pred[] compare(%i, %five), direction=LT
}

%inner_body (b: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %b = (s32[], f32[4,8]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%b), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%b), index=1
  %w = f32[8,16]{1,0} constant({...})
  %matmul = f32[4,16]{1,0} fusion(%x, %w), kind=kCustom, calls=%fused_matmul, metadata={op_name="dot" stack_frame_id=2}
  ROOT %t = (s32[], f32[4,8]{1,0}) tuple(%i.1, %x)
}

%outer_condition (c: (s32[], f32[4,8])) -> pred[] {
  %c = (s32[], f32[4,8]{1,0}) parameter(0)
  %i.2 = s32[] get-tuple-element(%c), index=0
  ROOT %less.1 = pred[] compare(%i.2, %i.2), direction=LT
}

%outer_body (d: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %d = (s32[], f32[4,8]{1,0}) parameter(0)
  ROOT %while.1 = (s32[], f32[4,8]{1,0}) while(%d), condition=%inner_condition, body=%inner_body, \
metadata={op_name="jit(f)/updates/while/body/rollout/while" stack_frame_id=2}, \
backend_config={"known_trip_count":{"n":"5"}}
}

ENTRY %main (x.1: f32[4,8], y: f32[100,4], z: f32[100,4]) -> (s32[], f32[4,8]) {
  %x.1 = f32[4,8]{1,0} parameter(0)
  %y = f32[100,4]{1,0} parameter(1)
  %z = f32[100,4]{1,0} parameter(2)
  %start = s32[] constant(0)
  %copy.1 = f32[4,8]{0,1} copy(%x.1)
  %sliced = (f32[4]{0}, f32[100,4]{1,0}) fusion(%y, %start, %z), kind=kLoop, calls=%fused_slice
  %t.1 = (s32[], f32[4,8]{1,0}) tuple(%start, /*index=1*/%copy.1)
  ROOT %while.2 = (s32[], f32[4,8]{1,0}) while(%t.1), condition=%outer_condition, body=%outer_body, \
metadata={op_name="jit(f)/updates/while" stack_frame_id=1}
}
"""
A100 = GPUS["a100-40gb"]
H100 = GPUS["h100-80gb"]


def entry_of(*lines: str) -> str:
    """A module whose entry has `lines`."""
    return "\n".join(["ENTRY %main () -> f32[] {", *(f"  {line}" for line in lines), "}"])


def kernels_of(*lines: str):
    return count_module(parse_module(entry_of(*lines))).kernels


@pytest.fixture(scope="module")
def program():
    return count_module(parse_module(PROGRAM))


def test_shapes_are_read_with_layouts_tuples_and_memory_spaces():
    assert parse_arrays("f32[8,64]{1,0}") == (Array("f32", (8, 64)),)
    # (s32[], bf16[4]) on the host: 4 + 8 bytes.
    arrays = parse_arrays("(s32[], /*index=1*/bf16[4]{0:T(256)S(5)})")
    assert arrays == (Array("s32", ()), Array("bf16", (4,), on_host=True))
    assert [a.bytes for a in arrays] == [4, 8]
    with pytest.raises(ValueError, match="no ENTRY computation"):
        parse_module("HloModule nothing")


def test_loops_are_found_with_their_turns_and_the_functions_they_came_from(program):
    (outer,) = program.loops
    (inner,) = outer.loops
    # XLA prints a parent's number plus one: frame 2 lies in frame 1, which lies in none.
    assert (outer.label, outer.trips) == ("update.py:update", None)
    assert (inner.label, inner.trips) == ("rollout.py:play", 5)
    assert inner.kernels[0].functions == ("rollout.py:play", "update.py:update")
    assert unknown_loops(program) == update_loops(program) == [outer]


def test_a_loop_over_updates_is_known_by_its_scope():
    """Also where members of an ensemble are side by side, and where XLA knows how many updates there are."""
    text = PROGRAM.replace("jit(f)/updates/while", "jit(f)/vmap(updates)/while").replace(
        "stack_frame_id=1}", 'stack_frame_id=1}, backend_config={"known_trip_count":{"n":"40"}}'
    )
    known = count_module(parse_module(text))
    assert [(r.trips, r.label) for r in update_loops(known)] == [(40, "update.py:update")]
    assert [r.turns for r in run_rows(known, plain_work, 12, 477)] == [12, 477, 5 * 477]
    counts = count_work(known, 5, plain_work)
    assert (counts.update_kernels, counts.validation_kernels, counts.host_reads_per_update) == (5, 2, 0)


def test_programs_run_after_each_other_are_counted_as_one(program):
    alone = count_module(parse_module(entry_of("%x = f32[2]{0} parameter(0)", "%twice = f32[2]{0} add(%x, %x)")))
    both = join_regions(program, alone)
    assert [k.name for k in both.kernels] == ["copy.1", "sliced", "twice"]
    assert both.loops == program.loops


def test_a_kernel_is_counted_once_a_launch(program):
    assert [k.name for k in program.kernels] == ["copy.1", "sliced"]
    # Its condition runs each turn, since the host must learn of it; that of a known loop never does.
    assert [k.name for k in program.loops[0].kernels] == ["less.1"]
    assert [k.name for k in program.loops[0].loops[0].kernels] == ["matmul"]


def test_flops_and_bytes_of_a_matmul(program):
    (matmul,) = program.loops[0].loops[0].kernels
    # 2 x 4 x 16 x 8 operations; 32 and 128 floats in, 64 out.
    assert matmul.matmul_flops == {"f32": 1024.0}
    assert (matmul.bytes_read, matmul.bytes_written) == (640, 256)
    assert matmul.vector_ops == 0


def test_of_a_sliced_operand_and_a_result_updated_in_place_the_part_that_is_touched(program):
    sliced = program.kernels[1]
    # Read: one row of 4 floats and the index; the other buffer is only written into. Written: 4 floats, and one row.
    assert (sliced.bytes_read, sliced.bytes_written) == (16 + 4, 16 + 16)
    assert sliced.vector_ops == 4  # the negation


def test_a_copy_reads_and_writes(program):
    assert (program.kernels[0].bytes_read, program.kernels[0].bytes_written) == (128, 128)


def test_what_is_started_asynchronously_is_counted_where_it_starts():
    text = """\
%taken (p.1: f32[100,4], p.2: s32[]) -> f32[1,4] {
  %p.1 = f32[100,4]{1,0} parameter(0)
  %p.2 = s32[] parameter(1)
  ROOT %slice = f32[1,4]{1,0} dynamic-slice(%p.1, %p.2, %p.2), dynamic_slice_sizes={1,4}
}
ENTRY %main (x: f32[100,4], i: s32[]) -> f32[1,4] {
  %x = f32[100,4]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %fusion-start = ((f32[100,4]{1,0}, s32[]), f32[1,4]{1,0}, u32[]) fusion-start(%x, %i), kind=kLoop, calls=%taken
  ROOT %fusion-done = f32[1,4]{1,0} fusion-done(%fusion-start)
}
"""
    (kernel,) = count_module(parse_module(text)).kernels
    assert (kernel.bytes_read, kernel.bytes_written) == (16 + 4, 16)


def test_work_outside_matmuls():
    reduce, sort = kernels_of(
        "%x = f32[3,8]{1,0} parameter(0)",
        "%zero = f32[] constant(0)",
        "%sum = f32[3]{0} reduce(%x, %zero), dimensions={1}, to_apply=%add",
        "%order = f32[3,8]{1,0} sort(%x), dimensions={1}, to_apply=%less",
    )
    assert reduce.vector_ops == 24
    assert sort.vector_ops == 24 * 3  # log2 of 8
    assert "sort" in sort.holds


def test_library_matmuls_and_full_precision():
    gemm, full = kernels_of(
        "%a = bf16[4,8]{1,0} parameter(0)",
        "%b = bf16[8,2]{1,0} parameter(1)",
        '%gemm = (bf16[4,2]{1,0}, s8[64]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm",'
        ' backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}',
        "%c = f32[4,8]{1,0} parameter(2)",
        "%d = f32[4]{0} dot(%c, %c), lhs_contracting_dims={1}, operand_precision={highest,highest}",
    )
    assert gemm.matmul_flops == {"bf16": 2 * 4 * 2 * 8}
    assert full.matmul_flops == {"f32_highest": 2 * 4 * 8}


def test_a_pallas_kernel_has_the_matmuls_that_it_says():
    (kernel,) = kernels_of(
        "%x = f32[4,8]{1,0} parameter(0)",
        '%p = bf16[4]{0} custom-call(%x), custom_call_target="__gpu$xla.gpu.triton", '
        r'backend_config={ir = "ML\0D%x", serialized_metadata = "{\22matmul_flops\22: \22bf16 640\22}"}',
    )
    assert (kernel.matmul_flops, kernel.bytes_read, kernel.bytes_written) == ({"bf16": 640.0}, 128, 8)


def test_of_a_branch_the_heavier_side_and_of_a_call_its_body():
    text = """\
%light (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %light_copy = f32[2]{0} copy(%p)
}
%heavy (q: f32[2]) -> f32[2] {
  %q = f32[2]{0} parameter(0)
  %heavy_copy = f32[2]{0} copy(%q)
  ROOT %again = f32[2]{0} copy(%heavy_copy)
}
ENTRY %main (x: f32[2]) -> f32[2] {
  %x = f32[2]{0} parameter(0)
  %which = s32[] constant(0)
  %called = f32[2]{0} call(%x), to_apply=%light
  ROOT %either = f32[2]{0} conditional(%which, %x, %x), branch_computations={%light, %heavy}
}
"""
    assert [k.name for k in count_module(parse_module(text)).kernels] == ["light_copy", "heavy_copy", "again"]


def test_host_transfers_are_seen(program):
    assert host_transfers(program) == []
    moved = count_module(
        parse_module(
            entry_of(
                "%x = f32[2]{0} parameter(0)",
                '%call = () custom-call(%x), custom_call_target="xla_ffi_python_gpu_callback"',
                "%there = (f32[2]{0:S(5)}, f32[2]{0}, u32[]) copy-start(%x)",
                "%back = f32[2]{0} copy-done(%there)",
                '%here = f32[2]{0} custom-call(%x), custom_call_target="__cub$Sort"',
            )
        )
    )
    assert [k.name for k in host_transfers(moved)] == ["call", "there"]


def test_a_jitted_program_as_xla_writes_it():
    def f(x, n):
        x = jax.lax.fori_loop(0, 6, lambda _, x: jnp.tanh(x @ x), x)
        with jax.named_scope("updates"):
            return jax.lax.fori_loop(0, n, lambda _, x: x @ x, x)

    text = jax.jit(f).lower(jnp.ones((16, 16)), jnp.int32(3)).compile().as_text()
    program = count_module(parse_module(text))
    known, unknown = sorted(program.loops, key=lambda r: r.trips is None)
    assert (known.trips, unknown.trips) == (6, None)
    # A matmul of 16 x 16 x 16 is 8,192 operations, 6 times, and 4 times in the loop that takes 4 turns.
    rows = run_rows(program, plain_work, 1, 4)
    assert sum_work(r.total for r in rows).flops == 8192 * (6 + 4)
    # Its tanh is 256 operations, the loop's counter one and its test another.
    vector = sum(k.vector_ops for k in known.kernels)
    assert 256 <= vector <= 256 + 2
    assert {f for k in known.kernels for f in k.functions} >= {"test_planning.py:f"}


def test_a_program_in_turns_of_a_run(program):
    # 3 segments, 10 updates in all, 5 steps each.
    rows = run_rows(program, plain_work, 3, 10)
    assert [(r.label, r.depth, r.turns) for r in rows] == [
        ("program", 0, 3),
        ("update.py:update", 1, 10),
        ("rollout.py:play", 2, 50),
    ]
    total = sum_work(r.total for r in rows)
    assert total.launches == 3 * 2 + 10 + 50
    assert total.copies == 3
    assert total.flops == 50 * 1024
    counts = count_work(program, 5, plain_work)
    assert (counts.env_step_kernels, counts.update_kernels, counts.validation_kernels) == (1, 6, 2)
    assert (counts.host_transfers, counts.host_reads_per_update) == (0, 1)
    assert count_work(program, 4, plain_work).env_step_kernels is None
    twice = dataclasses.replace(program, loops=program.loops * 2)
    with pytest.raises(ValueError, match=r"^loops over updates: update.py:update, update.py:update; expected one"):
        run_rows(twice, plain_work, 1, 1)
    endless = dataclasses.replace(program.loops[0], over_updates=False)
    more = dataclasses.replace(program, loops=(*program.loops, endless))
    with pytest.raises(ValueError, match=r"without a known trip count: update.py:update; expected none but"):
        run_rows(more, plain_work, 1, 1)


def test_work_of_a_kernel_at_the_rates_that_were_measured(program):
    kernel = program.loops[0].loops[0].kernels[0]
    nothing = dataclasses.replace(kernel, matmul_flops={}, bytes_read=0.0, bytes_written=0.0)
    # 3 TB/s: 6 GB take 2 ms.
    memory = dataclasses.replace(nothing, bytes_read=4e9, bytes_written=2e9)
    assert kernel_seconds(memory, H100) == pytest.approx(2e-3)
    # 754 and 378 TFLOP/s, one after the other: 2 + 1 ms, longer than the memory's.
    both = dataclasses.replace(memory, matmul_flops={"bf16": 1.508e12, "f32": 0.378e12})
    assert kernel_seconds(both, H100) == pytest.approx(3e-3)
    # 52 TFLOP/s of fused multiply-adds are 26 T other operations.
    vector = dataclasses.replace(nothing, vector_ops=26e9)
    assert kernel_seconds(vector, H100) == pytest.approx(1e-3)
    assert kernel_seconds(dataclasses.replace(nothing, matmul_flops={"f64": 52e9}), H100) == pytest.approx(1e-3)

    # A copy of 6 GB, and three matmuls of next to no work: 2 ms + 0.75 us, and 3 x 2.9 us.
    small = dataclasses.replace(kernel, bytes_read=0.0, bytes_written=0.0, matmul_flops={"f32": 0.0})
    work = sum_work([kernel_work(memory, H100), kernel_work(small, H100) * 3])
    assert (work.launches, work.small, work.combining) == (4, 3, 3)
    assert work.model_seconds == pytest.approx(2e-3 + 0.75e-6 + 3 * 2.9e-6)
    assert kernel_work(dataclasses.replace(nothing, holds=frozenset({"reduce"})), H100).model_seconds == 2.9e-6
    assert kernel_work(dataclasses.replace(nothing, opcode="custom-call"), H100).model_seconds == 2.9e-6
    # The host takes 5 us for each of 4 kernels, and would need 500 of them to be as long as the copy.
    assert work.no_graphs_seconds == work.model_seconds
    assert (work + Work(launches=500)).no_graphs_seconds == pytest.approx(504 * 5e-6)


def test_a_turn_of_a_loop_takes_at_least_what_its_graph_takes_to_start(program):
    # 5 turns of one matmul of 1,024 operations and 896 bytes: 2.9 us and 0.3 ns, where a turn takes 7.1 us.
    rows = run_rows(program, lambda k: kernel_work(k, H100), 1, 1)
    assert rows[2].turn.idle == pytest.approx(7.1e-6 - 2.9e-6 - 896 / 3e12)
    assert rows[2].total.model_seconds == pytest.approx(5 * 7.1e-6)
    assert [r.turn.idle for r in rows[:2]] == [0, 0]  # entered once; what is in it is longer


def test_findings_name_what_stands_out(program):
    gpu = lambda k: kernel_work(k, H100)  # noqa: E731
    found = find_hotspots(program, run_rows(program, gpu, 2, 10))
    assert found[0].startswith("100% of the launches")
    # The copy moves 256 bytes, twice; in all 2 x (256 + 20 + 32) + 10 x (4 + 4 + 1) + 50 x 896: 1.1 %.
    assert any(f.startswith("copies and transposes move 1.1% of the bytes, most of them in copy.1") for f in found)
    assert any("one predicate each turn of update.py:update" in f for f in found)
    assert not any("host:" in f for f in found)
    long = count_module(parse_module(PROGRAM.replace('"n":"5"', '"n":"500000"')))
    (serial,) = [f for f in find_hotspots(long, run_rows(long, gpu, 2, 10)) if "one after another" in f]
    # 10 x 500,000 turns of 7.1 us.
    assert serial.startswith("rollout.py:play takes 500,000 turns")
    assert serial.endswith("10 times: 35.5 s of the run")


def test_memory_of_a_program_and_the_line_over_envs():
    memory = Memory(state=40, tape=50, evaluation=10, arguments=100, outputs=60, aliased=40, temporaries=200)
    assert memory.total == 100 + 60 - 40 + 200
    line = line_through((100, 1500), (300, 3500))
    assert line == Line(500.0, 10.0)
    assert line.at(1000) == 10_500
    assert line.reach(10_999, 64) == 1024  # 1,049 envs, in whole 64s
    assert line.reach(400, 64) == 0
    with pytest.raises(ValueError, match="does not grow"):
        line_through((100, 5), (200, 5)).reach(1000, 1)


def test_the_largest_env_count_is_compiled_and_fits():
    # Validation takes 1 MB whatever the envs, an update 1 kB an env: the first line, drawn from 256 envs, is too flat.
    config = tiny_config(n_envs=256)
    asked = []

    def compile_at(n_envs: int) -> Point:
        asked.append(n_envs)
        update = max(1_000_000, 1_000 * n_envs)
        return Point(n_envs, Memory(0, 0, 0, 0, 0, 0, update), 0, 0.0)

    fit = find_largest(config, compile_at(256), 10_000_000, compile_at)
    step = config.budget.lanes * config.ppo.minibatches
    assert fit.largest % step == 0
    assert 9_500_000 <= 1_000 * fit.largest <= 10_000_000
    assert fit.largest in asked
    assert len(asked) <= 5
    assert [p.n_envs for p in fit.points] == sorted(asked)


def test_the_largest_env_count_is_one_that_a_configuration_may_have():
    # 4 steps an env and 4 gradient steps an update: 2^34 / 16 envs are the bound of a configuration, 1,073,741,824.
    def compile_at(n_envs: int) -> Point:
        return Point(n_envs, Memory(0, 0, 0, 0, 0, 0, n_envs), 0, 0.0)

    fit = find_largest(tiny_config(), compile_at(16), 10**12, compile_at)
    assert fit.largest == 2**30 - 8


def test_nothing_fits_where_the_market_alone_is_too_large():
    def compile_at(n_envs: int) -> Point:
        return Point(n_envs, Memory(0, 0, 0, 5_000, 0, 0, n_envs), 0, 0.0)

    assert find_largest(tiny_config(), compile_at(16), 4_000, compile_at).largest == 0


def test_a_run_that_does_not_fit_says_so_and_fails(program, monkeypatch, capsys):
    # 20 MiB needed of 10; 3 updates and 3 validations of TINY, on the program above.
    point = Point(16, Memory(0, 0, 0, 5 * MIB, 0, 0, 14 * MIB), 1 * MIB, 0.0)
    plan = gpu_plan(tiny_config(), A100, "made up", 100, 10 * MIB, point, program, None)
    assert not plan.fits
    # 2 kernels a validation; an update turns once: a condition, and 5 matmuls.
    assert plan.run_work.launches == 3 * 2 + 3 * (1 + 5)
    assert plan.run_work.flops == 3 * 5 * 1024
    monkeypatch.setattr("jaxppo.plan.run.plan_absent", lambda *_: plan)
    assert plan_run(Request(PlanOptions())) == 1
    said = capsys.readouterr().out
    assert "DOES NOT FIT: 20 of 10 MiB (200.0%)" in said
    assert "6 an update, 2 a validation; host transfers: 0" in said
    assert "NVIDIA A100-SXM4-40GB was not measured" in said
    assert "no run of these sizes was measured" in said
    roomy = gpu_plan(tiny_config(), A100, "made up", 100, 30 * MIB, point, program, None)
    monkeypatch.setattr("jaxppo.plan.run.plan_absent", lambda *_: roomy)
    assert plan_run(Request(PlanOptions())) == 0


def test_shapes_from_sizes_are_those_of_a_market_of_that_size():
    config = tiny_config()
    bars = synthetic_market(0, 1, 900)
    market = build_market(bars, config, receptive_field(config.agent))
    real = shapes_of_market(market, evaluation_set(market.splits["validation"]), "made up")
    counted = shapes_of_sizes(config, 1, 900)
    assert jax.tree.structure(real.tape) == jax.tree.structure(counted.tape)
    assert abstract(real.tape) == counted.tape
    # How many dates there are follows from times; bars are no fewer.
    counted_days, days = counted.data.calendar.days, real.data.calendar.days
    assert days.behind.shape[1] <= counted_days.behind.shape[1]
    assert real.data._replace(calendar=real.data.calendar._replace(days=counted_days)) == counted.data
    assert (real.n_decisions, real.beside_bytes) == (counted.n_decisions, counted.beside_bytes)
    assert "--n-bars" in counted.words[0]
    assert counted.words[1] == real.words[1]
    with pytest.raises(ConfigError, match=r"n_bars 60: 60 bars a symbol, of which \d+ warm the features up"):
        shapes_of_sizes(config, 1, 60)
    with pytest.raises(ConfigError, match="at least one symbol"):
        shapes_of_sizes(config, 0, 60)


def test_gpus_are_described_for_the_compiler_and_found_by_name():
    for gpu in GPUS.values():
        text = gpu.target_config()
        assert f'device_description_str: "{gpu.title}"' in text
        assert text.count("{") == text.count("}")
        assert gpu.matmul_peak["bf16"] > gpu.matmul_peak["f32"] >= gpu.matmul_peak["f32_highest"]
        assert math.isclose(gpu.vector_peak, gpu.cores * gpu.fpus_per_core * gpu.clock_ghz * 1e9, rel_tol=0.2), gpu.name
    assert find_gpu("a100-40gb").bandwidth == 1.5552e12
    with pytest.raises(ConfigError, match="did you mean 'a100-40gb' or"):
        find_gpu("a100-40")


def test_the_environment_is_prepared_once_and_keeps_what_is_there():
    before = {"PATH": "/bin", "XLA_FLAGS": "--xla_foo=1"}
    after = prepared(before)
    assert after["PATH"] == "/bin"
    assert after["XLA_FLAGS"].split() == ["--xla_foo=1", "--xla_gpu_autotune_level=0"]
    assert not is_ready(before)
    assert is_ready(after)
    assert prepared(after) == after
    assert is_noise("I0000 cudart_stub.cc:31] Could not find cuda drivers on your machine\n")
    assert not is_noise("error: gpu: unknown GPU\n")
