"""jaxppo on the GPU at hand: first whether it is right, then how fast it is.

    python -m benchmarks.gpu                         # every part while the time lasts, in order
    python -m benchmarks.gpu variants --variants bfloat16 steps_32
    python -m benchmarks.gpu --tiny                  # everything at tiny sizes on the CPU: does it work?

Works in a checkout that is not installed, or in a copy of one, where what jaxppo needs can be imported. Prints one
table; `gpu.json` in the folder of `--out` has all of it, also of a run that was cut short, and `parts/` a log of each.
Ends with status 1 where a part failed or a check did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.run import FAILED, Runner
from benchmarks.gpu.steps import PARTS, VARIANTS, groups
from benchmarks.gpu.table import table, wrong

SECONDS = 470.0
JSON = "gpu.json"


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The flags; unknown names end the process with the known ones."""
    described = "\n".join(f"  {name:11} {what}" for name, what in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=f"{__doc__}\nparts:\n{described}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="all when none is given")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME",
                        help=f"of {', '.join(VARIANTS)}")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=SECONDS, help="stop after so many (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder (default %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="at tiny sizes on the CPU")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.parts) - set(PARTS)):
        parser.error(f"unknown part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts; returns the exit status."""
    began = time.monotonic()
    args = arguments(sys.argv[1:] if argv is None else argv)
    folder = args.out.resolve()
    shutil.rmtree(folder / "parts", ignore_errors=True)  # of an earlier run
    (folder / "parts").mkdir(parents=True)
    platform = "cpu" if args.tiny else os.environ.get("JAX_PLATFORMS", "")
    runner = Runner(folder / "parts", args.seconds, args.tiny, platform, lambda text: print(text, flush=True))
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    status = 0
    try:
        for steps, side_by_side in groups(
            args.parts or list(PARTS), args.variants, folder / "parts", args.tiny, platform
        ):
            runner.run(steps, side_by_side)
            write(folder, runner, began)
            if not args.tiny and runner.results().get("card", {}).get("platform") == "cpu":
                print("JAX finds no GPU here: install the extra cuda12 or cuda13, or try everything out with --tiny")
                return 2
    except KeyboardInterrupt:
        status = 130
    finally:
        signal.signal(signal.SIGTERM, before)
    results = write(folder, runner, began)
    print("", *table(results, runner.took), sep="\n")
    print(f"\n{time.monotonic() - began:.0f} s; {folder / JSON}")
    bad = wrong(results) or any(of.status == FAILED for of in runner.took.values())
    return status or int(bool(bad))


def write(folder: Path, runner: Runner, began: float) -> dict[str, Any]:
    """What there is so far, into one file."""
    results = runner.results()
    parts = {name: of._asdict() for name, of in runner.took.items()}
    data = {"seconds": time.monotonic() - began, "parts": parts, "wrong": wrong(results), **results}
    (folder / JSON).write_text(json.dumps(data, indent=1) + "\n")
    return results


if __name__ == "__main__":
    sys.exit(main())
