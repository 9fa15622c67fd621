"""When the process began, as near as the package can tell: commands import this before what is slow to import."""

import time

BEGAN = time.monotonic()
