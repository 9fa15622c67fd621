"""The device at hand, and the persistent compilation cache."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Any

import jax

from jaxppo.config.layers import DeviceInfo


def detect_device() -> DeviceInfo:
    """Kind, number and memory of the default devices."""
    devices = jax.devices()
    stats = devices[0].memory_stats() or {}
    return DeviceInfo(devices[0].platform, devices[0].device_kind, len(devices), stats.get("bytes_limit"))


def program_bytes(compiled: Any) -> int:
    """Memory that an executable takes: arguments, outputs and temporaries; 0 where the backend does not say.

    Args:
      compiled: `jax.stages.Compiled`. Donated arguments are counted once: their outputs take their place.
    """
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    held = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return int(held - memory.alias_size_in_bytes)


def xla_options(deterministic: bool) -> dict[str, Any]:
    """Options of XLA for the program of a run.

    Args:
      deterministic: a GPU is to give the same bits in every run: no kernel that adds in whatever order its threads
        finish, and none chosen by timing the candidates. Other backends know the option and it changes nothing there.
    """
    return {"xla_gpu_deterministic_ops": True} if deterministic else {}


M_ARENA_MAX = -8  # of glibc's malloc.h


def share_heaps() -> None:
    """Let the threads of this process allocate from two heaps, where glibc makes up to eight a core.

    Every save begins and ends threads, and each heap is left with holes of what they held: in 6,000 updates with 3,000
    checkpoints a process grew from 624 to 648 MiB, and with two heaps from 560 to 570 (less to begin with, since its
    program came from the cache). Neither compilation nor training was slower. Does nothing with other C libraries. Call
    it before threads begin.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def enable_compilation_cache() -> Path:
    """Keep compiled programs in the user's cache folder, so that the same run compiles once a machine."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or base / "jaxppo" / "xla")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    return folder
