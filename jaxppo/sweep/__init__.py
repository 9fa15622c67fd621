"""`python -m jaxppo.sweep`, and `jaxppo.sweep(...)`: see `jaxppo.api.sweep`."""

import sys

from jaxppo.rooms import Room

sys.modules[__name__].__class__ = Room
