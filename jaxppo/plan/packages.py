"""What compiling for a GPU without one needs: XLA's CUDA compiler, and variables set before jax is loaded."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from importlib import metadata

from jaxppo.errors import ConfigError

INSTALL = "`pip install -e '.[plan]'` in the checkout of jaxppo"
# Module, and the package that brings it.
_NEEDED = {"jax_plugins.xla_cuda12": "jax-cuda12-plugin", "nvidia.cuda_nvcc": "nvidia-cuda-nvcc-cu12"}

_VARIABLES = {
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # the plugin is loaded though there is no CUDA
    "JAX_PLATFORMS": "cpu",  # what is not compiled for the GPU runs here
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # a program that was kept cannot be read back without its GPU
}
# Autotuning times kernels on the GPU.
_XLA_FLAG = "--xla_gpu_autotune_level=0"


def require_packages() -> None:
    """`ConfigError` with the command that installs them, where the packages are missing or do not match jax."""
    missing = [package for module, package in _NEEDED.items() if not _found(module)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(
            f"gpu: {' and '.join(missing)} {verb} not installed, without which no GPU is compiled for: run {INSTALL}"
        )
    jax, plugin = metadata.version("jax"), metadata.version("jax-cuda12-plugin")
    if jax != plugin:
        raise ConfigError(
            f"gpu: jax-cuda12-plugin {plugin} does not match jax {jax}: run {INSTALL}, which installs one that does"
        )


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the folder that it would be in
        return False


def is_ready(environment: Mapping[str, str]) -> bool:
    """Whether a process with this environment can compile for a GPU that is not there."""
    return prepared(environment) == dict(environment)


def prepared(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with what jax must find in it before it is loaded."""
    flags = environment.get("XLA_FLAGS", "")
    flags = flags if _XLA_FLAG in flags.split() else f"{flags} {_XLA_FLAG}".strip()
    return {**environment, **_VARIABLES, "XLA_FLAGS": flags}


def is_noise(line: str) -> bool:
    """Whether a line of stderr only says that there is no GPU; XLA prints these whatever its log level."""
    return "before absl::InitializeLog()" in line or "Could not find cuda drivers" in line


def current() -> dict[str, str]:
    """The environment of this process."""
    return dict(os.environ)
