"""`python -m jaxppo.paper`, and `jaxppo.paper(...)`: see `jaxppo.api.paper`."""

import sys

from jaxppo.rooms import Room

sys.modules[__name__].__class__ = Room
