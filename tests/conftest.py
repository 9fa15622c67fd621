"""Two fake CPU devices and JAX's strict modes, set before anything imports JAX, and what makes compiling cheap."""

import os
import tempfile
from importlib import metadata

flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
# Compilation is most of what tests take, and half of it is the newer code generator of XLA's fused loops: the segment
# of the tiny run takes 15.4 s of a core with it, 7.7 s with the older one, whose code is 12 % slower. `make test-slow`
# has the newer one, as users do. XLA ends a process that gives a flag it does not know: other versions are left alone.
if metadata.version("jaxlib").startswith("0.10."):
    flags += f" --xla_cpu_use_fusion_emitters={os.environ.get('FUSION_EMITTERS', 'false')}"
os.environ["XLA_FLAGS"] = flags
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests that jit the same tiny program compile it once a session, whichever process they are in.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="jaxppo-tests-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
