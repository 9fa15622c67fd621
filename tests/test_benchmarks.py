"""The benchmark scripts still run; what they print is nobody's test."""

import pytest

from benchmarks import throughput


@pytest.mark.parametrize("stage", ["env", "policy"])
def test_throughput_measures_a_stage(stage):
    row = throughput.measure("quick_test", stage, n_envs=256, repetitions=1, n_bars=2_000)
    assert row["steps_per_second"] > 0
    assert row["compile_seconds"] > 0
    assert row["n_steps"] == 32
