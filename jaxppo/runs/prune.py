"""Checkpoints that nothing needs: everything but the best and the newest of a run, and what killed saves left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxppo.play.best import best_update
from jaxppo.runs.found import find_folders
from jaxppo.store.checkpoint import FOLDER, LEFT_BEHIND
from jaxppo.store.checkpoint_info import survey
from jaxppo.store.directory import SNAPSHOTS, held
from jaxppo.store.tables import MEMBERS


class Spare(NamedTuple):
    """Something that may go."""

    path: Path
    size: int  # bytes
    why: str


def spare_checkpoints(run_dir: Path) -> list[Spare]:
    """What may go of a run: nothing where no checkpoint is sound.

    Kept are the newest sound checkpoint, which the run goes on from and which holds a copy of the best policy, and the
    one with the highest fitness.
    """
    folder = run_dir / FOLDER
    if not folder.is_dir():
        return []
    found = [_spare(p, "left by a save that was cut off") for p in folder.iterdir() if LEFT_BEHIND.fullmatch(p.name)]
    sound, damaged = survey(folder)
    if not sound:
        return found
    newest, best = max(sound), best_update({step: info.fitness for step, info in sound.items()})
    for step in sorted(sound):
        if step not in (newest, best):
            found.append(_spare(folder / str(step), f"neither the best (update {best}) nor the newest ({newest})"))
    found += [_spare(folder / str(step), f"damaged: {text}") for step, text in sorted(damaged.items())]
    return found


def _spare(path: Path, why: str) -> Spare:
    return Spare(path, sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and not p.is_symlink()), why)


def find_spares(folder: Path) -> Iterator[tuple[Path, list[Spare]]]:
    """Every run in `folder` with what may go of it, where there is something."""
    for path, kind in find_folders(folder):
        spares = spare_checkpoints(path) if kind == "run" else []
        if kind == "population" and (path / MEMBERS).is_file() and (path / SNAPSHOTS).is_dir():
            spares = [_spare(path / SNAPSHOTS, "of a population that is done")]
        if spares:
            yield path, spares


def remove(run_dir: Path, spares: list[Spare]) -> None:
    """Delete them, each renamed first so that what is removed by half is never taken for a damaged checkpoint.

    Raises:
      RunDirectoryError: another process is training in the folder.
    """
    with held(run_dir):
        for spare in spares:
            gone = spare.path
            if gone.name.isdecimal():
                gone = gone.rename(gone.with_name(f"{gone.name}.removing"))
            shutil.rmtree(gone)
