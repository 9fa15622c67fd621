"""Packages that are commands and functions at once: `python -m jaxppo.train`, and `jaxppo.train(...)` from Python.

Importing a sub-package sets its name on `jaxppo` to the module, whatever stood there, so the module itself is what can
be called: `jaxppo.train` is one thing, whichever was imported first.
"""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any


class Room(ModuleType):
    """A command's package that calls the function of its name in `jaxppo.api`, imported with the first call."""

    @property
    def _function(self) -> Any:
        from jaxppo import api

        return getattr(api, self.__name__.rpartition(".")[2])

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._function(*arguments, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)
