"""`python -m jaxppo.act`, and `jaxppo.act(...)`: see `jaxppo.api.act`."""

import sys

from jaxppo.rooms import Room

sys.modules[__name__].__class__ = Room
