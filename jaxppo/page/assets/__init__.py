"""Files that are copied into every page, so that it needs nothing else: scripts, style sheets and their licences.

`echarts.min.js` is Apache ECharts 6.1.0, `tabulator.min.js` and `.css` are Tabulator 6.5.3, as their authors ship them
but for the address of a source map. LICENSES.md has their terms.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files

SCRIPTS = ("numbers.js", "theme.js", "charts.js", "symbols.js", "tables.js", "page.js")
"""Our own, in the order in which they must run: each uses what those before it put into `jaxppo`."""


@functools.cache
def text(name: str) -> str:
    """The file `name` of this folder."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


@functools.cache
def digest(name: str) -> str:
    """SHA-256 of a script as a content security policy has it: a page runs these very bytes and no others."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text(name).encode()).digest()).decode()
