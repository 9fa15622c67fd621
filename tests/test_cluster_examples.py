"""The examples for clusters: parsed, and the Ray driver run where Ray is installed."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.robustness.runs import flags, write_bars
from jaxppo.train.__main__ import parse

CLUSTER = Path(__file__).resolve().parent.parent / "examples" / "cluster"


def accepted(text: str) -> None:
    """Flags of a command in an example, of which shell variables are numbers or paths, are ours."""
    words = re.sub(r'"?\$\{?\w+(\[@\])?\}?"?', "1", text).split()
    parse([w.strip('"') for w in words if not w.startswith("#")])


def test_the_slurm_script_is_one_that_bash_reads_and_its_flags_are_ours():
    script = CLUSTER / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    directives = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, re.MULTILINE))
    assert directives["ntasks-per-node"] == directives["gpus-per-node"] == "4"  # a process a GPU, as JAX takes it
    assert directives["signal"] == "TERM@30"
    fields = re.search(r"^fields=\((.*)\)$", text, re.MULTILINE)
    accepted(fields[1] + " --run-dir $RUN_DIR")


def test_the_kubernetes_job_gives_each_pod_its_number():
    service, job = yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"  # else there is no JOB_COMPLETION_INDEX
    assert spec["completions"] == spec["parallelism"] == 2  # all at once, or none can begin
    pod = spec["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (container,) = pod["containers"]
    (script,) = container["args"]
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert f"--coordinator {job['metadata']['name']}-0.{service['metadata']['name']}:29400" in script
    assert f"--processes {spec['completions']} " in script
    accepted(re.search(r'else fields="([^"]*)"', script)[1])
    accepted(re.search(r"--coordinator[^\n]*", script)[0])
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_the_ray_driver_is_python():
    tree = ast.parse((CLUSTER / "ray_runs.py").read_text())
    assert {"train", "main"} <= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_the_ray_driver_trains_separate_runs(tmp_path):
    data = f"--data={write_bars(tmp_path / 'bars')}"
    root = str(CLUSTER.parent.parent)
    path = os.pathsep.join([root, *(os.environ["PYTHONPATH"].split(os.pathsep) if "PYTHONPATH" in os.environ else [])])
    driver = [sys.executable, str(CLUSTER / "ray_runs.py"), str(tmp_path / "runs"), "--seeds=2", "--gpus=0"]
    small = [f for f in flags() if not f.startswith("--seed=")]
    env = {**os.environ, "PYTHONPATH": path, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    done = subprocess.run([*driver, data, *small], env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(": done, ") == 2
    for i in range(2):
        assert (tmp_path / "runs" / f"seed_{i}" / "report.html").is_file()
    shutil.rmtree(tmp_path / "runs")
