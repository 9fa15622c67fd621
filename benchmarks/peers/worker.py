"""One peer in a process of its own, which runs a stretch whenever it is told to: `python -m benchmarks.peers.worker`.

Reads a line of JSON with the seconds to run at least, answers with a line of JSON. A waiting worker takes no time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TextIO

from benchmarks.peers.rows import Row
from benchmarks.peers.settings import Setting


def main() -> None:
    # The peers print; the answers go to where stdout was.
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        serve(answers)


def serve(answers: TextIO) -> None:
    """Build the peer that the first line names, then answer every further line."""
    task = json.loads(sys.stdin.readline())
    began = time.perf_counter()
    try:
        peer = Row(**task["row"]).make(Setting(**task["setting"]))
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=answers)
        return
    peer.unit()
    print(json.dumps({"held": peer.held, "seconds": time.perf_counter() - began}), file=answers)
    for line in sys.stdin:
        least, steps = float(json.loads(line)), 0
        began = time.perf_counter()
        while steps == 0 or time.perf_counter() - began < least:
            steps += peer.unit()
        print(json.dumps({"steps": steps, "seconds": time.perf_counter() - began}), file=answers)


if __name__ == "__main__":
    main()
