"""The device at hand, and the persistent compilation cache."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import jax
from jax._src.xla_bridge import backends_are_initialized  # JAX has no public word for it

from jaxppo.config.layers import DeviceInfo
from jaxppo.errors import ConfigError

MEMORY_FRACTION = "XLA_CLIENT_MEM_FRACTION"
"""Variable that JAX reads when it starts: the share of each GPU's memory that it takes at once and for good."""
_OLD_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # its former name; JAX refuses both together


@dataclass(frozen=True)
class GpuMemory:
    """How much of a GPU is taken by a command that trains."""

    gpu_memory: float = 0.0
    """Share of the GPU's memory to take, such as 0.1, where others use it too. 0: three quarters, as JAX does, or what
    XLA_CLIENT_MEM_FRACTION says. A CPU's memory is not taken beforehand."""


def take_memory(
    share: float,
    environ: MutableMapping[str, str] = os.environ,
    started: Callable[[], bool] = backends_are_initialized,
) -> None:
    """Let JAX take this share of each GPU's memory when it starts; 0 leaves it to JAX. Call it before any array.

    Args:
      share: of `GpuMemory`.
      environ: that JAX reads.
      started: whether it has read it already.

    Raises:
      ConfigError: not a share, or JAX has started on a GPU with another.

    Example:
      >>> found: dict[str, str] = {}
      >>> take_memory(0.1, found, lambda: False)
      >>> found
      {'XLA_CLIENT_MEM_FRACTION': '0.1'}
    """
    if share == 0:
        return
    if not 0 < share < 1:
        raise ConfigError(
            f"gpu_memory: must be a share of the GPU's memory above 0 and below 1, such as 0.1, got {share:g}"
        )
    told = f"{share:g}"
    if started():
        if jax.default_backend() != "cpu" and environ.get(MEMORY_FRACTION) != told:
            raise ConfigError(
                f"gpu_memory: JAX has taken the GPU's memory by now; set {MEMORY_FRACTION}={told} before Python starts"
            )
        return
    environ.pop(_OLD_FRACTION, None)
    environ[MEMORY_FRACTION] = told


def describe_device(share: float, kernels: str, device: DeviceInfo) -> list[str]:
    """What comes of `GpuMemory` and of the kernels that were asked for, on this device: a line each."""
    return [*_describe_memory(share, device), *_describe_kernels(kernels, device)]


def _describe_memory(share: float, device: DeviceInfo) -> list[str]:
    if share == 0:
        return []
    if device.platform == "cpu":
        return [f"gpu_memory {share:g}: there is no GPU here, and a CPU's memory is not taken beforehand"]
    taken = "" if device.memory_bytes is None else f", {device.memory_bytes / 2**20:,.0f} MiB"
    return [f"gpu_memory {share:g}: of each GPU's memory{taken}; the rest is for others"]


def _describe_kernels(kernels: str, device: DeviceInfo) -> list[str]:
    if kernels == "plain" or device.capability is not None:
        return []
    return [f"kernels {kernels}: there is no NVIDIA GPU here, so the plain path is taken"]


T = TypeVar("T")


def detect_device() -> DeviceInfo:
    """Kind and memory of the default device, and how many there are on all hosts."""
    here = jax.local_devices()[0]
    stats = here.memory_stats() or {}
    capability = cuda_capability(getattr(here, "compute_capability", None))
    return DeviceInfo(here.platform, here.device_kind, jax.device_count(), stats.get("bytes_limit"), capability)


def cuda_capability(told: str | None) -> tuple[int, int] | None:
    """A CUDA compute capability as JAX tells it, such as "7.5"; None for other devices and AMD's names."""
    major, _, minor = (told or "").partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


HOST_SHARE = 0.5
"""Share of the machine's memory that programs on a CPU take for all there is: other processes live there too."""


def memory_limit(device: DeviceInfo, share: float) -> float:
    """Bytes that a program may take: a share of the accelerator's memory, or on a CPU `HOST_SHARE` of the machine's.

    Args:
      device: of `detect_device`.
      share: of what the accelerator's allocator may take.
    """
    if device.memory_bytes:
        return share * device.memory_bytes
    try:
        return HOST_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # a system that does not say
        return float("inf")


class Executable(NamedTuple):
    """A compiled program; `run` takes arguments of the shapes that it was compiled for."""

    run: jax.stages.Compiled
    seconds: float  # that tracing and compiling took
    memory_bytes: int  # see `program_bytes`


def compile_program(
    function: Callable[..., Any],
    *arguments: Any,
    donate: tuple[int, ...] = (),
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Executable:
    """Trace and compile a program ahead of time.

    Args:
      function: pure; static values are bound.
      arguments: arrays, or their shapes as `jax.ShapeDtypeStruct`.
      donate: arguments whose memory the outputs take over.
      options: of XLA.
    """
    began = time.perf_counter()
    return _compile(jax.jit(function, donate_argnums=donate).lower(*arguments), options, began)


def begin_compiling(
    function: Callable[..., Any],
    *arguments: Any,
    donate: tuple[int, ...] = (),
    options: Mapping[str, Any] = MappingProxyType({}),
    after: Future[Any] | None = None,
) -> Future[Executable]:
    """`compile_program` of which only the tracing is waited for: XLA compiles beside what goes on here.

    What goes wrong in it is raised by `result_of` it. `after`: XLA begins when this is done.
    """
    began = time.perf_counter()
    lowered = jax.jit(function, donate_argnums=donate).lower(*arguments)

    def work() -> Executable:
        if after is not None:
            wait([after])
        return _compile(lowered, options, began)

    return beside(work)


def beside(work: Callable[[], T]) -> Future[T]:
    """Do `work` in a thread of its own, which ends with it; the interpreter waits for it before it ends."""
    thread = ThreadPoolExecutor(1)
    done = thread.submit(work)
    thread.shutdown(wait=False)
    return done


def result_of(work: Future[T]) -> T:
    """The result of `beside`, waited for.

    It is asked for again and again: once polars is imported, an interrupt wakes no thread that waits for another.
    """
    while not work.done():
        wait([work], timeout=0.1)
    return work.result()


def _compile(lowered: jax.stages.Lowered, options: Mapping[str, Any], began: float) -> Executable:
    run = lowered.compile(compiler_options=dict(options))
    return Executable(run, time.perf_counter() - began, program_bytes(run))


def program_bytes(compiled: jax.stages.Compiled) -> int:
    """Memory that an executable takes: arguments, outputs and temporaries; 0 where the backend does not say.

    Args:
      compiled: donated arguments are counted once, since their outputs take their place.
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
    """Keep compiled programs in the user's cache folder, so that the same run compiles once a machine.

    All of them: JAX leaves out what compiled in under a second, and a run has some thirty such, which together took as
    long as reading its large one does.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or base / "jaxppo" / "xla")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder
