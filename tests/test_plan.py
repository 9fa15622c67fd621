"""The planner's command: measured on this machine, and compiled for a GPU where XLA's CUDA compiler is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from helpers import TINY

from jaxppo.errors import ConfigError
from jaxppo.plan.__main__ import main
from jaxppo.plan.packages import require_packages

SIZES = ["--n-symbols", "2", "--n-bars", "1800"]
SMALL = [
    *SIZES,
    *(f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "features"),
    "--features",
    "base",
]


def missing_packages() -> str:
    try:
        require_packages()
    except ConfigError as error:
        return str(error)
    return ""


def test_local_measures_this_machine(tmp_path, capsys):
    out = tmp_path / "plan.json"
    assert main(["--gpu", "local", *SMALL, "--measure-updates", "2", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "quick_test: 16 envs x 4 steps x 3 updates = 0.0M env steps, 3 validations, float32" in said
    assert "host transfers: 0" in said
    plan = json.loads(out.read_text())
    memory = plan["point"]["memory"]
    assert 0 < memory["aliased"] <= memory["outputs"]
    # What the program reads is all in its arguments.
    assert memory["arguments"] <= memory["state"] + memory["tape"] + memory["evaluation"] + 1024
    timing = plan["timing"]
    assert timing["n_updates"] == 2
    whole = 3 * timing["update_seconds"] + 3 * timing["validation_seconds"]
    assert plan["run_seconds"] == pytest.approx(whole)
    assert plan["steps_per_second"] == pytest.approx(16 * 4 / timing["update_seconds"])
    # A minibatch is 2 paths x 4 lanes x 4 steps = 32 samples, 4 of them an update; a sample meets 8 x 8 weights
    # at least three times, once forwards and twice backwards, at 2 operations each.
    assert plan["counts"]["update"]["matmul_flops"]["f32"] > 4 * 32 * 3 * 2 * 64
    assert plan["counts"]["host_transfers"] == 0


def test_a_gpu_is_compiled_for_or_the_missing_packages_are_named(tmp_path, capsys):
    out = tmp_path / "plan.json"
    arguments = ["--gpu", "l4-24gb", *SMALL, "--no-largest", "--out", str(out)]
    missing = missing_packages()
    if missing:
        assert main(arguments) == 2
        assert capsys.readouterr().err == f"error: {missing}\n"
        assert "run `pip install -e '.[plan]'` in the checkout" in missing
        assert not out.exists()
        return
    command = [sys.executable, "-m", "jaxppo.plan", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr
    assert "fits: " in done.stdout
    plan = json.loads(out.read_text())
    assert plan["counts"]["host_transfers"] == 0
    assert plan["counts"]["host_reads_per_update"] == 0  # XLA knows how many updates there are
    assert plan["counts"]["env_step_kernels"] > 5
    assert plan["counts"]["update_kernels"] > 4 * plan["counts"]["env_step_kernels"]
    memory = plan["point"]["memory"]
    assert memory["temporaries"] > 0
    assert memory["state"] <= memory["aliased"] + 1024  # all of the state is donated
    assert 0 < plan["run_work"]["seconds"] < 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "a100-40"], "error: gpu: unknown GPU 'a100-40'; did you mean 'a100-40gb' or"),
        (
            ["--gpu", "local", "--n-bars", "100"],
            "error: n_bars 100: 5 bars a symbol, of which 388 warm the features up",
        ),
        (["--gpu", "local", "--measure-updates", "0"], "error: measure_updates: must be at least 1, got 0"),
        (
            ["--gpu", "local", "--out", "nowhere/plan.json"],
            "error: nowhere/plan.json: there is no folder nowhere; create it first",
        ),
        (["--gpu", "l4-24gb", "--n-envs", "1001"], "error: n_envs 1,001 is not a multiple of lanes 8"),
        (
            ["--gpu", "l4-24gb", "--symbols", "A"],
            "error: symbols: describes --data; without --data the bars",
        ),
        (["--gpu", "local", "--n-envs", "1001"], "error: n_envs 1,001 is not a multiple of lanes 8"),
    ],
)
def test_wrong_values_are_refused_in_a_sentence(arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1
