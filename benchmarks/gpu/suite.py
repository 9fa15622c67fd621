"""The tests that matter on the accelerator: the account, the rollout, the loss, fused kernels, an update's guard."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.part import parser, write

ROOT = Path(__file__).resolve().parents[2]
FILES = ("account", "trading", "rollout", "advantages", "loss", "guard", "fused_trunk", "fused_tcn")
TINY_FILES = ("advantages",)
NEEDED = ("pytest", "hypothesis")
CORES_EACH = 2  # of a test process


def run(tiny: bool) -> dict[str, Any]:
    """How many passed, and the names of those that did not."""
    files = [ROOT / "tests" / f"test_{name}.py" for name in (TINY_FILES if tiny else FILES)]
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    missing += [str(file.relative_to(ROOT)) for file in files if not file.exists()]
    if missing:
        return {"missing": missing}
    command = [sys.executable, "-m", "pytest", *map(str, files), "-p", "no:cacheprovider", "--tb=short"]
    workers = min(8, (os.cpu_count() or 1) // CORES_EACH)
    if workers > 1 and importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(workers), "--dist", "loadfile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout, done.stderr, sep="\n", flush=True)
    return {"status": done.returncode, **outcome(done.stdout)}


def outcome(text: str) -> dict[str, Any]:
    """Of pytest's last lines."""
    count = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)\b", text)}
    return {"passed": count.get("passed", 0), "failed": re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)}


def main() -> None:
    args = parser(__doc__).parse_args()
    write(args.out, run(args.tiny))


if __name__ == "__main__":
    main()
