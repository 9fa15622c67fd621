"""The process that trains: its heaps, and what it knows of its device."""

from __future__ import annotations

import platform
import subprocess
import sys

import jax
import pytest

from jaxppo.config.layers import DeviceInfo
from jaxppo.device import MEMORY_FRACTION, cuda_capability, describe_device, take_memory
from jaxppo.errors import ConfigError

COUNT = """
import ctypes, sys, tempfile, threading
from jaxppo.device import share_heaps
if sys.argv[1] == "shared":
    share_heaps()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(12)
def allocate():
    libc.malloc(2000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
with tempfile.NamedTemporaryFile() as file:
    handle = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, handle)
    libc.fclose(handle)
    print(file.read().count(b"<heap nr="))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps are glibc's")
@pytest.mark.parametrize(("how", "at_most"), [("shared", 2), ("as it is", None)])
def test_threads_share_two_heaps(how, at_most):
    heaps = int(subprocess.run([sys.executable, "-c", COUNT, how], check=True, capture_output=True, text=True).stdout)
    if at_most is None:
        assert heaps > 2  # 12 threads at once; else the other half of this test could not fail
    else:
        assert heaps <= at_most


@pytest.mark.parametrize(
    ("told", "found"), [("9.0", (9, 0)), ("12.1", (12, 1)), ("gfx942", None), ("", None), (None, None)]
)
def test_a_cuda_capability_is_read_as_jax_tells_it(told, found):
    assert cuda_capability(told) == found


def test_a_share_of_the_gpu_is_set_before_jax_starts():
    environ = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9", "HOME": "/"}  # JAX refuses the two together
    take_memory(0.25, environ, lambda: False)
    assert environ == {MEMORY_FRACTION: "0.25", "HOME": "/"}
    take_memory(0.0, environ, lambda: False)  # not asked for: what was set by hand holds
    assert environ[MEMORY_FRACTION] == "0.25"


def test_once_jax_has_a_gpu_its_share_is_fixed(monkeypatch):
    environ = {MEMORY_FRACTION: "0.25"}
    take_memory(0.5, environ, lambda: True)  # on this CPU nothing was taken
    assert environ == {MEMORY_FRACTION: "0.25"}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    take_memory(0.25, environ, lambda: True)
    with pytest.raises(ConfigError, match=r"JAX has taken the GPU's memory by now; set XLA_CLIENT_MEM_FRACTION=0\.5"):
        take_memory(0.5, environ, lambda: True)
    assert environ == {MEMORY_FRACTION: "0.25"}


@pytest.mark.parametrize("share", [-0.1, 1.0, 75.0, float("nan")])
def test_what_is_no_share_of_memory_is_refused(share):
    environ: dict[str, str] = {}
    with pytest.raises(ConfigError, match="gpu_memory: must be a share of the GPU's memory above 0 and below 1"):
        take_memory(share, environ, lambda: False)
    assert environ == {}


def test_the_share_of_memory_is_told():
    assert describe_device(0.0, "plain", DeviceInfo("gpu", "H100", 1, 2**33)) == []
    assert describe_device(0.1, "plain", DeviceInfo("gpu", "H100", 1, 2**33)) == [
        "gpu_memory 0.1: of each GPU's memory, 8,192 MiB; the rest is for others"
    ]
    assert describe_device(0.1, "plain", DeviceInfo("cpu", "cpu", 1, None)) == [
        "gpu_memory 0.1: there is no GPU here, and a CPU's memory is not taken beforehand"
    ]


def test_fused_kernels_without_an_nvidia_gpu_are_told():
    (said,) = describe_device(0.0, "fused", DeviceInfo("cpu", "cpu", 1, None))
    assert said == "kernels fused: there is no NVIDIA GPU here, so the plain path is taken"
    assert describe_device(0.0, "fused", DeviceInfo("gpu", "H100", 1, 2**33, (9, 0))) == []
