"""gate.json: the gate's verdict on what a policy did on a split."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from jaxppo.play.gate import Gate
from jaxppo.store.json import write_json

GATE = "gate.json"


def write_gate(folder: Path, gate: Gate) -> None:
    """Write FOLDER/gate.json."""
    write_json(folder / GATE, asdict(gate))
