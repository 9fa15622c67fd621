"""`python -m jaxppo.export`, and `jaxppo.export(...)`: see `jaxppo.api.export`."""

import sys

from jaxppo.rooms import Room

sys.modules[__name__].__class__ = Room
