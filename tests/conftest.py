"""Two fake CPU devices and JAX's strict modes, set before anything imports JAX, and what makes compiling cheap."""

import atexit
import os
import random
import shutil
import tempfile
from importlib import metadata

flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
# Compilation is most of what tests take, and most of it is LLVM's optimisations and the newer code generator of XLA's
# fused loops. The segment of the tiny run takes 15.4 s of a core with both; 8.3 s with the older generator, whose code
# is 12 % slower; and 3.5 s without the optimisations either, whose code takes twice as long: less than a second of what
# a test trains. `make test-slow` has both, as users do. XLA ends a process that gives a flag it does not know: the
# older generator is chosen with jaxlib 0.10 only.
if os.environ.get("COMPILED_AS_USERS_DO", "false") != "true":
    flags += " --xla_backend_optimization_level=0"
    if metadata.version("jaxlib").startswith("0.10."):
        flags += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = flags
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests that jit the same tiny program compile it once a session, whichever process they are in.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxppo-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

from collections.abc import Iterator  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from jaxppo.plugins import unload_plugins  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# How fast examples come says how busy the machine is, and nothing of what is tested.
settings.register_profile("jaxppo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("jaxppo")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--random-order", type=int, metavar="SEED", help="files, and the tests of each, as SEED draws them"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """No test may need another before it. Those of a file stay together: they share what its fixtures compile."""
    seed = config.getoption("--random-order")
    if seed is not None:
        draw = random.Random(seed).random
        files = {path: draw() for path in dict.fromkeys(item.path for item in items)}
        items.sort(key=lambda item: (files[item.path], draw()))


@pytest.fixture(autouse=True, scope="module")
def no_plugins_left() -> Iterator[None]:
    """What the tests of a file have loaded is not there for those of the next, whose runs would be trained with it."""
    yield
    unload_plugins()
