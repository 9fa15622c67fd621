"""The table of faults in RESULTS.md.

python -m benchmarks.robustness              # every part
python -m benchmarks.robustness kills        # one
python -m benchmarks.robustness --quick      # a few of each
"""

from __future__ import annotations

import argparse
from importlib import import_module

PARTS = ("kills", "checkpoints", "loaders", "numbers", "long_runs")
"""Modules beside this one, each with `rows(quick: bool) -> Iterator[Row]`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all when none is given")
    parser.add_argument("--quick", action="store_true", help="a few of each, to see that everything works")
    args = parser.parse_args()
    if unknown := sorted(set(args.parts) - set(PARTS)):
        parser.error(f"unknown part {unknown[0]!r}; there are {', '.join(PARTS)}")
    print("| what | tried | withstood | that is |\n|---|---|---|---|")
    for part in args.parts or PARTS:
        for row in import_module(f"benchmarks.robustness.{part}").rows(args.quick):
            print(f"| {row.what} | {row.tried:,} | {row.withstood:,} | {row.check} |", flush=True)


if __name__ == "__main__":
    main()
