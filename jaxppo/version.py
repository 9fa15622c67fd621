"""The version of the package, installed or not."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path


def _find() -> str:
    """From the installed distribution, else from the pyproject.toml of the checkout, else unknown."""
    try:
        return metadata.version("jaxppo")
    except metadata.PackageNotFoundError:
        pass
    try:
        return tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return "unknown"


__version__: str = _find()
