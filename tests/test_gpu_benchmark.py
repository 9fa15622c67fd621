"""`python -m benchmarks.gpu` at tiny sizes on the CPU, and what it makes of what it measures."""

import json
import os
import signal
import subprocess
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import agree, command, steps, suite, trace
from benchmarks.gpu.run import CLOSING, FAILED, NOT_RUN, OK, STOPPED, Runner, Step, Took
from benchmarks.gpu.table import table, wrong

HLO = """
%loop_fusion.3 = f32[8]{0} fusion(%a), kind=kLoop, metadata={op_name="jit(segment)/learn/encode/mul"}
%custom-call.7 = f32[8]{0} custom-call(%a), metadata={op_name="jit(segment)/rollout/decide/dot_general"}
%while.1 = (f32[8]) while(%t), condition=%c, body=%b
"""


def ended(capsys, tmp_path, *arguments):
    """Status, results and what was printed, of a run at tiny sizes."""
    status = gpu.main([*arguments, "--tiny", "--out", str(tmp_path)])
    return status, json.loads((tmp_path / "gpu.json").read_text()), capsys.readouterr().out


def test_card_and_program_at_tiny_sizes(capsys, tmp_path):
    status, found, text = ended(capsys, tmp_path, "card", "program")
    assert status == 0, text
    assert [(name, of["status"]) for name, of in found["parts"].items()] == [("card", OK), ("program", OK)]
    assert found["card"]["copy_tb_s"] > 0
    assert found["card"]["versions"]["jaxppo"]
    program = found["program"]
    assert program["run_steps"] == 64 * 4 * 40
    assert program["run_s"] == pytest.approx(40 * program["update_ms"] / 1e3 + 3 * program["validation_ms"] / 1e3)
    assert program["finite"]
    assert program["compile_s"] > 0
    assert program["counts"]["update_kernels"] > 0
    profile = program["profile"]
    assert {"rollout / account", "learn / encode, backward", "learn / optimizer"} <= set(profile["updates"]["stages"])
    assert "learn / optimizer" not in profile["validation"]["stages"]
    assert {"account", "decide"} <= set(profile["validation"]["stages"])
    for words in ("as it is", "chained kernel", "learn / optimizer", "profile of 20 updates"):
        assert words in text


@pytest.mark.slow
def test_everything_at_tiny_sizes(capsys, tmp_path):
    status, found, text = ended(capsys, tmp_path, "--seconds", "1800")
    assert status == 0, text
    assert {of["status"] for of in found["parts"].values()} == {OK}
    assert set(found["parts"]) == {
        "card", "agree", "bits_1", "bits_2", "tests", "program", "quick_test", "envs", "production", *steps.VARIANTS
    }  # fmt: skip
    assert found["wrong"] == []
    assert set(found["agree"]["modes"]) == set(agree.MODES)
    assert found["agree"]["modes"]["bfloat16"]["gradient"] > 1e-4  # it is another arithmetic
    assert found["bits_1"] == found["bits_2"]
    assert found["tests"]["passed"] > 5
    assert [row["envs"] for row in found["envs"]["rows"]] == [64] * 3 + [128] * 3
    assert found["production"]["steps"] == found["quick_test"]["steps"] == 64 * 4 * 40
    assert found["no_graphs"]["xla_flags"].endswith("--xla_gpu_enable_command_buffer=")
    assert "the same bits in" in text


def test_without_time_nothing_is_begun(capsys, tmp_path):
    status, found, text = ended(capsys, tmp_path, "card", "variants", "--variants", "bfloat16", "--seconds", "0")
    assert status == 0
    assert {of["status"] for of in found["parts"].values()} == {NOT_RUN}
    assert "not run for want of time: card, bfloat16" in text


def test_unknown_part_is_named(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["cards"])
    assert "unknown part 'cards'; there are card, agree" in capsys.readouterr().err


def runner(tmp_path, seconds, said):
    return Runner(tmp_path, seconds, tiny=False, platform="", say=said.append)


def test_a_part_that_fails_is_told_in_a_line_and_the_next_one_runs(tmp_path):
    said: list[str] = []
    of = runner(tmp_path, 60, said)
    of.run([Step("x", "one", "no_such_part"), Step("x", "two", "no_such_part_either")])
    assert [took.status for took in of.took.values()] == ["failed", "failed"]
    assert said[0].startswith("one: failed")
    assert "No module named benchmarks.gpu.no_such_part (all of it in" in said[0]
    assert said[1].startswith("two: failed")


@pytest.fixture
def endless(monkeypatch):
    """Parts that would run for a minute."""
    real = subprocess.Popen
    monkeypatch.setattr("benchmarks.gpu.run.subprocess.Popen", lambda _, **options: real(["sleep", "60"], **options))


def test_a_part_that_takes_too_long_is_stopped(tmp_path, endless):
    said: list[str] = []
    of = runner(tmp_path, 30, said)
    of.run([Step("x", "one", "card", least=0, most=0.1)])  # longer than any run of it should take
    assert of.took["one"].status == FAILED
    assert of.took["one"].seconds < 30
    assert said[0].startswith("one: failed, 0 s: after 0 s")
    assert any(text.startswith("FAILED one") for text in table({}, of.took))


def test_a_part_that_the_time_left_cuts_off_did_not_fail(tmp_path, endless):
    of = runner(tmp_path, CLOSING + 0.5, [])
    of.run([Step("x", "one", "card", least=0), Step("x", "two", "card")])
    assert [took.status for took in of.took.values()] == [STOPPED, NOT_RUN]
    assert table({}, of.took)[-2:] == ["stopped before the end: one", "not run for want of time: two"]


def test_an_interrupt_stops_the_part_and_leaves_what_there_is(capsys, tmp_path, endless):
    handler = signal.getsignal(signal.SIGTERM)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    status, found, _ = ended(capsys, tmp_path, "card", "program")
    assert status == 130
    assert found["seconds"] < 30
    assert found["parts"]["card"]["status"] == STOPPED
    assert "program" not in found["parts"]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_every_part_has_a_step_and_variants_change_what_they_say(tmp_path):
    planned = [
        s for group, _ in steps.groups(list(steps.PARTS), list(steps.VARIANTS), tmp_path, False, "") for s in group
    ]
    assert {s.part for s in planned} == set(steps.PARTS)
    by_name = {s.name: s for s in planned}
    assert len(by_name) == len(planned)
    assert by_name["no_graphs"].environment == {"XLA_FLAGS": "--xla_gpu_enable_command_buffer="}
    assert json.loads(by_name["bfloat16_minibatches_4"].arguments[1]) == {"compute_dtype": "bfloat16", "minibatches": 4}
    assert (
        by_name["bits_1"].environment["JAX_COMPILATION_CACHE_DIR"]
        != by_name["bits_2"].environment["JAX_COMPILATION_CACHE_DIR"]
    )
    assert by_name["agree"].environment["JAX_PLATFORMS"] == "cuda,cpu"


def outcome(gradient, weights, equity):
    return agree.Outcome(np.array(gradient), np.array(weights), {"equity": np.array(equity)})


def test_differences_are_relative_and_judged_by_the_limits():
    cpu = outcome([3.0, 4.0], [0.0, 2.0], [[1.0, 1.0], [1.0, 1.0]])
    # Off by (0, .5) of 5, by (0, .1) of 2, and in one account of four.
    found = agree.judged(outcome([3.0, 4.5], [0.0, 2.1], [[1.0, 1.0], [1.0, 1.01]]), cpu, agree.Limits(0.1, 0.06, 0.2))
    assert (found["gradient"], found["weights"], found["lanes"]) == pytest.approx((0.1, 0.05, 0.25))
    assert not found["passed"]
    assert agree.judged(cpu, cpu, agree.Limits(0.0, 0.0, 0.0))["passed"]
    assert agree.relative([np.nan, 1.0], [0.0, 1.0]) == float("inf")


def test_what_does_not_hold_is_a_sentence():
    limits = agree.Limits(0.1, 0.1, 0.1)._asdict()
    results = {
        "agree": {
            "modes": {"tf32": {"gradient": 0.2, "weights": 0.0, "lanes": 0.0, "limits": limits, "passed": False}}
        },
        "bits_1": {"a": "0", "b": "1"},
        "bits_2": {"a": "0", "b": "2"},
        "tests": {"status": 1, "passed": 3, "failed": ["tests/test_loss.py::test_it"]},
        "program": {"finite": False},
    }
    assert wrong(results) == [
        "agree: in tf32 the GPU is off the CPU by gradient 2.0e-01 (at most 1e-01)",
        "bits: 1 arrays differ, the first is b",
        "tests: 1 failed: tests/test_loss.py::test_it",
        "program: gradient or parameters are not finite",
    ]
    assert wrong({}) == []
    text = "\n".join(table(results, {"envs": Took("failed", 2.0, "no memory")}))
    assert "WRONG  bits: 1 arrays differ" in text
    assert "FAILED envs: failed, 2 s: no memory" in text


def event(name, microseconds, **stats):
    return SimpleNamespace(name=name, duration_ns=1e3 * microseconds, stats=list(stats.items()))


def line(name, *events):
    return SimpleNamespace(name=name, events=events)


def test_kernels_of_a_gpu_are_those_of_its_streams_by_the_scope_of_their_instruction():
    planes = [
        SimpleNamespace(name="/host:CPU", lines=[line("python", event("loop_fusion.3", 50))]),
        SimpleNamespace(
            name="/device:GPU:0",
            lines=[
                line("Stream #13(Compute)", event("loop_fusion_3", 10), event("loop_fusion_3", 2),
                     event("sm90_gemm", 1, hlo_op="custom-call.7"), event("MemcpyD2D", 1)),
                line("XLA Ops", event("loop_fusion.3", 99)),
            ],
        ),
    ]  # fmt: skip
    found = trace.summed(trace.launches(planes, trace.instructions(HLO)), trace.scopes(HLO))
    assert found["launches"] == 4
    assert found["busy_ms"] == pytest.approx(14e-3)
    assert found["short"] == 2  # the fusion takes 6 us on average
    assert {name: (s["launches"], s["ms"]) for name, s in found["stages"].items()} == {
        "learn / encode": (2, pytest.approx(12e-3)),
        "rollout / decide": (1, pytest.approx(1e-3)),
        "rest": (1, pytest.approx(1e-3)),
    }
    assert found["heaviest"][0]["kernel"] == "loop_fusion_3"


def test_without_a_gpu_the_kernels_are_the_programs_instructions():
    planes = [
        SimpleNamespace(
            name="/host:CPU", lines=[line("t", event("loop_fusion.3", 5), event("while.1", 9), event("other", 1))]
        )
    ]
    found = trace.summed(trace.launches(planes, trace.instructions(HLO)), trace.scopes(HLO))
    assert found["launches"] == 1
    assert list(found["stages"]) == ["learn / encode"]


def test_a_validation_has_the_scopes_that_it_plays_in():
    assert trace.stage("jit(validation)/while/body/account/add") == "account"
    assert trace.stage("jit(updates)/rollout/while/body/account/add") == "rollout / account"
    assert trace.stage("jit(validation)/sort") == "rest"


def test_card_while_busy_leaves_idle_samples_and_cut_lines_out():
    found = command.card_while_busy(
        "0, 70.0, 600, 345\n90, 260.0, 900, 1900\n100, 280.0, 1000, 2000\n97, [N/A], 1, 1\n50, 2"
    )
    assert found == {"utilisation_percent": 95.0, "watts": 270.0, "taken_mib": 1000.0, "clock_mhz": 1950.0}
    assert command.card_while_busy("0, 70.0, 600, 345") == {}


def test_outcome_of_the_tests_is_read_from_their_last_lines():
    text = "..F\nFAILED tests/test_loss.py::test_it - assert 1 == 2\n1 failed, 12 passed, 1 skipped in 3.21s\n"
    assert suite.outcome(text) == {"passed": 12, "failed": ["tests/test_loss.py::test_it"]}
