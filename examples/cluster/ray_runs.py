"""Many separate runs on a Ray cluster, one a GPU: python examples/cluster/ray_runs.py runs/spread --seeds 8

Each run is `python -m jaxppo.train` in a process of its own with a run directory of its own; one that was lost with its
machine goes on from its last checkpoint. Unknown flags are passed on: --preset standard --learning-rate 1e-3.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import ray


def train(run_dir: str, flags: list[str]) -> tuple[str, int]:
    """One run to its end; its folder and exit status."""
    begun = (Path(run_dir) / "config.yaml").exists()
    more = ["--resume"] if begun else flags
    done = subprocess.run([sys.executable, "-m", "jaxppo.train", "--run-dir", run_dir, *more], check=False)
    if done.returncode:
        raise RuntimeError(f"{run_dir}: ended with status {done.returncode}")  # which makes Ray try again
    return run_dir, done.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the run directories; all machines must see it")
    parser.add_argument("--seeds", type=int, default=4, help="runs, with seeds 0, 1, ...")
    parser.add_argument("--gpus", type=float, default=1.0, help="of a run; 0 on CPUs, .5 for two runs a GPU")
    parser.add_argument("--address", default=None, help="of the cluster; by default one is started here")
    options, flags = parser.parse_known_args()
    ray.init(address=options.address, log_to_driver=False)
    run = ray.remote(num_gpus=options.gpus, num_cpus=1, max_retries=3, retry_exceptions=True)(train)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [run.remote(str(folder / f"seed_{i}"), [*flags, "--seed", str(i)]) for i in range(options.seeds)]
    while waiting:
        done, waiting = ray.wait(waiting)
        for path, _ in ray.get(done):
            print(f"{path}: done, {len(waiting)} left", flush=True)
    print(f"compare them with: python -m jaxppo.runs compare {' '.join(str(p) for p in sorted(folder.glob('seed_*')))}")


if __name__ == "__main__":
    main()
