"""How the site reads our docstrings.

`Example:`, with or without a remark in brackets, is a section of code; fields of a class are a table of their types and
the comments behind them, such as a shape.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_COMMENT = re.compile(r"\s# (.+)$")
_HEADING = re.compile(r"^(?P<indent> *)Example(?: \((?P<remark>.+)\))?:$", re.MULTILINE)


def _heading(found: re.Match[str]) -> str:
    heading = f"{found['indent']}Examples:"
    remark = found["remark"]
    return heading if remark is None else f"{heading}\n{found['indent']}  {remark[0].upper()}{remark[1:]}.\n"


class Conventions(griffe.Extension):  # type: ignore[misc]
    """Named in mkdocs.yml."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _HEADING.sub(_heading, obj.docstring.value)

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        fields = [a for a in cls.members.values() if a.is_attribute and a.annotation and a.docstring is None]
        said = {a.name: found[1] for a in fields if (found := _COMMENT.search(a.source))}
        if said and cls.docstring is not None:
            rows = "".join(f"  {a.name}: {said.get(a.name, '-')}\n" for a in fields if not a.name.startswith("_"))
            cls.docstring.value += f"\n\nAttributes:\n{rows}"
