"""The device at hand, and the persistent compilation cache."""

from __future__ import annotations

import os
from pathlib import Path

import jax

from jaxppo.config.presets import DeviceInfo


def detect_device() -> DeviceInfo:
    """Kind, number and memory of the default devices."""
    devices = jax.devices()
    stats = devices[0].memory_stats() or {}
    return DeviceInfo(devices[0].platform, devices[0].device_kind, len(devices), stats.get("bytes_limit"))


def enable_compilation_cache() -> Path:
    """Keep compiled programs in the user's cache folder, so that the same run compiles once a machine."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or base / "jaxppo" / "xla")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    return folder
