"""Docstrings' `Example:`, with or without a remark in brackets, as the examples that the site shows as code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_HEADING = re.compile(r"^(?P<indent> *)Example(?: \((?P<remark>.+)\))?:$", re.MULTILINE)


def _heading(found: re.Match[str]) -> str:
    heading = f"{found['indent']}Examples:"
    remark = found["remark"]
    return heading if remark is None else f"{heading}\n{found['indent']}  {remark[0].upper()}{remark[1:]}.\n"


class Examples(griffe.Extension):  # type: ignore[misc]
    """Named in mkdocs.yml."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _HEADING.sub(_heading, obj.docstring.value)
