"""The process that trains: its heaps, and what it knows of its device."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from jaxppo.device import cuda_capability

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
