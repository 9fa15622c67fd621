"""Checksums of a folder: written when all else in it is, and compared before any of it is believed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxppo.store.files import sync_folder
from jaxppo.store.json import read_json, write_json

CHECKSUMS = "checksums.json"
_LARGEST = 2**20  # bytes; a checkpoint has some twenty files of a hundred bytes each


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Regular files below `folder` by their relative names; links are not followed."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(folder).as_posix(), path


def _measure(path: Path, flush: bool = False) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if flush:
            os.fsync(file.fileno())
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def seal(folder: Path) -> None:
    """Flush every file of `folder` to the disk and write their sizes and SHA-256 beside them."""
    found = {name: _measure(path, flush=True) for name, path in sorted(_files(folder)) if name != CHECKSUMS}
    write_json(folder / CHECKSUMS, found)
    for parent, _, _ in os.walk(folder):
        sync_folder(Path(parent))


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder, as a phrase; None when every file is as it was sealed.

    Nothing outside `folder` is opened, whatever its checksums file names.
    """
    try:
        files = dict(_files(folder))
        if not files:
            return "it is empty"
        if CHECKSUMS not in files:
            return f"{CHECKSUMS} is missing, so it was never finished"
        if files[CHECKSUMS].stat().st_size > _LARGEST:
            return f"{CHECKSUMS} is too large to be one"
        wanted = read_json(files[CHECKSUMS])
        if not isinstance(wanted, dict) or not wanted:
            return f"{CHECKSUMS} names no files"
        for name, told in wanted.items():
            if name not in files:
                return f"{name} is missing"
            size, before = files[name].stat().st_size, told["bytes"]
            if size != before:
                return f"{name} has {size:,} bytes and had {before:,}"
            if _measure(files[name])["sha256"] != told["sha256"]:
                return f"{name} is not what was saved (its checksum differs)"
    except (ValueError, TypeError, KeyError):
        return f"{CHECKSUMS} cannot be read"
    except OSError as error:
        return f"{error.filename or folder} cannot be read ({error.strerror})"
    return None
