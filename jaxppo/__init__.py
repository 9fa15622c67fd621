"""PPO for trading policies, from bars to a report, in one compiled JAX program."""

import time

BEGAN = time.monotonic()
"""When the process began, as near as the package can tell: it is imported before what is slow to import."""
