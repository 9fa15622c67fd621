"""`python -m jaxppo.replay`, and `jaxppo.replay(...)`: see `jaxppo.api.replay`."""

import sys

from jaxppo.rooms import Room

sys.modules[__name__].__class__ = Room
