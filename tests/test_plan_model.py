"""The planner's model against what was measured, worked out by hand."""

from __future__ import annotations

import pytest

from jaxppo.config.layers import replace_fields, resolve
from jaxppo.config.measured import (
    BFLOAT16,
    COMBINING_SECONDS,
    COPY_BANDWIDTH,
    FLOAT32,
    FOUR_MINIBATCHES,
    KERNEL_SECONDS,
    LONG_ROLLOUT,
    NO_GRAPHS,
    RUNS,
)
from jaxppo.config.schema import Config
from jaxppo.plan.counts import Kernel, Region
from jaxppo.plan.gpus import GPUS
from jaxppo.plan.memory import Memory
from jaxppo.plan.model import find_measured, model_of, part_seconds, residuals, run_seconds
from jaxppo.plan.result import Point, gpu_plan
from jaxppo.plan.roofline import Work
from jaxppo.plan.text import gpu_lines

PRODUCTION = resolve("production").config


def sizes(**fields) -> Config:
    return replace_fields(PRODUCTION, {**FLOAT32.sizes, **fields})


def test_what_the_model_says_of_a_run_that_was_measured():
    # 46.514 GB at 3 TB/s are 15.505 ms; 5,449 kernels of 2.9 us are 15.802 ms, 2,893 of 0.75 us 2.170 ms; 8 turns wait
    # for 7.1 - 3.3 us, 0.030 ms.
    assert part_seconds(FLOAT32, FLOAT32.update) == pytest.approx(33.507e-3, abs=1e-6)
    # 0.123 + 16,792 x 2.9 us, 48.697 + 110,472 x 0.75 us, 82.854 ms.
    assert part_seconds(FLOAT32, FLOAT32.validation) == pytest.approx(131.674e-3, abs=1e-6)
    # 477 x 33.507 + 13 x (131.674 + 0.037) ms.
    assert run_seconds(FLOAT32) == pytest.approx(17.695, abs=1e-3)
    # The host takes 5 us for each of 8,342 and 127,264 kernels, longer than the card.
    assert part_seconds(NO_GRAPHS, NO_GRAPHS.update) == pytest.approx(41.71e-3)
    assert part_seconds(NO_GRAPHS, NO_GRAPHS.validation) == pytest.approx(636.32e-3)


def test_the_runs_that_were_measured_add_up():
    """The whole is what updates and validations took, as it was published to a tenth of a second."""
    for run in RUNS:
        parts = run.n_updates * run.update.seconds + run.n_validations * run.validation.seconds
        assert parts == pytest.approx(run.seconds, abs=0.1), run.title
    # 2 updates and a validation, of which a profile on the card saw 144,026 kernels.
    assert 2 * FLOAT32.update.kernels + FLOAT32.validation.kernels == 143_948


def test_the_constant_that_was_set_by_the_runs_is_their_least_squares():
    above = below = 0.0
    for run in (r for r in RUNS if r.graphs):
        for part in (run.update, run.validation):
            rest = 1e9 * part.gigabytes / COPY_BANDWIDTH + (part.kernels - part.combining) * KERNEL_SECONDS
            slope = part.combining / part.seconds
            above += slope * (1.0 - rest / part.seconds)
            below += slope**2
    assert pytest.approx(above / below, abs=0.05e-6) == COMBINING_SECONDS


def test_the_range_is_that_of_the_residuals():
    # The lowest is 32.1 / 33.507 = 0.958; the highest 14.8 over what the model says of an update of 4 minibatches:
    # 8.107 + 1,481 x 2.9 us, 4.295 + 1,046 x 0.75 us, 0.785 + 0.030 = 13.217 ms.
    assert residuals() == pytest.approx((0.958, 1.120), abs=1e-3)


def test_a_run_is_compared_with_the_one_of_its_sizes_alone():
    assert find_measured(sizes(), "h100-80gb") is FLOAT32
    assert find_measured(sizes(compute_dtype="bfloat16"), "h100-80gb") is BFLOAT16
    assert find_measured(sizes(compute_dtype="bfloat16", minibatches=4), "h100-80gb") is FOUR_MINIBATCHES
    assert find_measured(sizes(n_steps=32, learning_rate=1e-3, n_updates=119), "h100-80gb") is LONG_ROLLOUT
    assert find_measured(sizes(minibatches=8), "h100-80gb") is None
    assert find_measured(sizes(trunk_layers=1), "h100-80gb") is None
    assert find_measured(sizes(), "h200-141gb") is None


def test_a_plan_has_model_and_measurement_of_as_many_updates_and_bars():
    config = sizes(n_updates=100)
    update, validation = Work(1_000, seconds=5e-3, combining=400), Work(2_000, seconds=1e-3)
    model = model_of(config, "h100-80gb", update, validation, 4, 6_692)
    # 5 + 400 x 2.9 us + 600 x 0.75 us = 6.61 ms; 1 + 2,000 x 0.75 us = 2.5 ms; 4 calls of 37 us.
    assert model.update_seconds == pytest.approx(6.61e-3)
    assert model.validation_seconds == pytest.approx(2.5e-3)
    assert model.run_seconds == pytest.approx(0.661 + 0.010 + 0.000148)
    low, high = residuals()
    assert (model.low, model.high) == (low * model.run_seconds, high * model.run_seconds)
    # Without graphs 5 us for each of 1,000 kernels are less than 6.61 ms, of 2,000 more than 2.5 ms.
    assert model.no_graphs_seconds == pytest.approx(0.661 + 4 * 10e-3 + 0.000148)
    # Twice the bars of the validation that was measured.
    assert model.compared.validation_seconds == pytest.approx(2 * 131e-3)
    assert model.compared.run_seconds == pytest.approx(3.21 + 4 * 0.262)


def test_cards_that_were_not_measured_reach_the_same_share_of_their_peaks():
    h100, a100 = GPUS["h100-80gb"].reached, GPUS["a100-40gb"].reached
    assert (h100.bandwidth, h100.matmul["f32"], h100.vector) == pytest.approx((3.0e12, 378e12, 26e12))
    assert a100.bandwidth == pytest.approx(1.5552e12 * 3.0 / 3.35232)
    assert a100.matmul["bf16"] == pytest.approx(312e12 * 754 / 989)
    assert a100.vector == pytest.approx(9.75e12 * 52 / 67)


def test_a_plan_prints_the_model_beside_what_was_measured():
    kernel = Kernel("fusion.1", "fusion", {}, 0.0, 3e9, 3e9, frozenset(), (), False)  # 2 ms
    program = Region("program", 1, (kernel,), (Region("update", None, (kernel,) * 16, (), over_updates=True),))
    point = Point(131_072, Memory(0, 0, 0, 0, 0, 0, 1), 0, 0.0)

    def said(gpu: str, config: Config) -> str:
        plan = gpu_plan(config, GPUS[gpu], "made up", 3_346, 10, point, program, None)
        return " ".join("\n".join(gpu_lines(plan)).split())

    text = said("h100-80gb", sizes(n_updates=477, validate_every=40))
    assert "by what was measured on this card on 2026-11-26" in text
    assert "measured on 2026-11-26: float32, with 8,342 kernels and 46.5 GB an update and 38.0 kernels a bar" in text
    assert "the program that is planned has 16, 96.0 GB" in text
    # 16 x 2.00075 ms against 32.1, 2.00075 against 131, 477 and 13 of them.
    assert "model measured ratio an update, ms 32.0 32.1 1.00 a validation of 3,346 bars, ms 2.0 131.0 0.02" in text
    assert "the run, s 15.3 17.0 0.90" in text
    assert "no run of these sizes was measured on NVIDIA H100 80GB HBM3" in said("h100-80gb", sizes(minibatches=8))
    absent = said("l4-24gb", sizes())
    assert "NVIDIA L4 was not measured: its peaks (NVIDIA L4 datasheet) times the share of them" in absent
    assert "89% of the memory's" in absent
    assert "model measured ratio" not in absent
