"""`python -m jaxppo.train`, and `jaxppo.train(...)`: see `jaxppo.api.train`."""

import sys

from jaxppo.rooms import Room

sys.modules[__name__].__class__ = Room
