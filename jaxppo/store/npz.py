"""Named arrays in one file: written whole or not at all, read without executing anything."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxppo.errors import CheckpointError
from jaxppo.store.files import write_atomic


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of any shapes by their names."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's own annotation takes the names for flags
    write_atomic(path, buffer.getvalue())


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of `write_npz`; `CheckpointError` where there is no such file, or it is not what was written."""
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}  # each is compared with its checksum
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise CheckpointError(f"{path}: cannot be read ({(str(error).splitlines() or ['?'])[0][:200]})") from error
