"""The notebooks run from top to bottom, at sizes of seconds."""

from __future__ import annotations

import nbformat
import pytest
from documents import ROOT
from nbclient import NotebookClient

SMALL = {
    "n_envs": 16,
    "lanes": 4,
    "n_steps": 4,
    "n_updates": 2,
    "validate_every": 1,
    "episode_steps": 16,
    "epochs": 1,
    "minibatches": 1,
    "window": 8,
    "channels": 4,
    "trunk_width": 8,
    "trunk_layers": 1,
}


@pytest.mark.parametrize("name", ["first_policy", "own_reward_and_feature"])
def test_a_notebook_runs(name, tmp_path):
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert "SYMBOLS, BARS, SIZES = 4, 12_000, {}" in first.source
    first.source = first.source.replace("= 4, 12_000, {}", f"= 2, 1_600, {SMALL!r}")
    first.source = first.source.replace("SEEDS = (0, 1)", "SEEDS = (1,)")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
