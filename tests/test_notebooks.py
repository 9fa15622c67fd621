"""The notebooks run from top to bottom, at sizes of seconds."""

from __future__ import annotations

import nbformat
import pytest
from documents import ROOT, SMALL
from nbclient import NotebookClient

SIZES = SMALL | {"n_updates": 2, "validate_every": 1}


@pytest.mark.parametrize("name", ["first_policy", "own_reward_and_feature"])
def test_a_notebook_runs(name, tmp_path):
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert "SYMBOLS, BARS, SIZES = 4, 12_000, {}" in first.source
    first.source = first.source.replace("= 4, 12_000, {}", f"= 2, 1_600, {SIZES!r}")
    first.source = first.source.replace("SEEDS = (0, 1)", "SEEDS = (1,)")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
