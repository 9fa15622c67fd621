"""Several processes that train one run together: how they meet, agree on what the host decides, and end together.

JAX's own distributed runtime carries the program. What it does not do well is ending: where a process dies, the others
wait in a collective for it, or are aborted with a stack trace. So each keeps a connection to process 0, which the
system closes however a process ends, and says in one sentence who is gone.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import NoReturn, Self

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxppo.errors import ConfigError, Interrupted
from jaxppo.lifeline import Lifeline

LOST = 75
"""Exit status where another process is gone: EX_TEMPFAIL of sysexits.h, try again later."""
_TEXT = 512  # bytes that a text to agree on may have


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a run meet; all of them are asked for the same but for `process`."""

    coordinator: str | None = None
    """HOST:PORT of process 0, where several processes train one run. Not needed under Slurm's srun and Open MPI 4's
    mpirun, whose variables tell."""
    processes: int = 0
    """How many processes train the run; 0 for one, or for what Slurm's or Open MPI's variables say."""
    process: int | None = None
    """Number of this process, from 0; process 0 alone writes metrics, pages and lines."""
    join_timeout: float = 300.0
    """Seconds to wait for all processes before giving up."""


@dataclass
class Hosts:
    """The processes of a run. `ALONE` is one process, for which nothing here does anything."""

    count: int = 1
    index: int = 0
    advice: str = "begin again"  # what to do when another is gone
    _line: Lifeline | None = field(default=None, repr=False)

    @property
    def lead(self) -> bool:
        """Whether this process writes."""
        return self.index == 0

    def any(self, mine: bool) -> bool:
        """Whether any process says so; all must ask."""
        return mine if self.count == 1 else self.most(int(mine)) > 0

    def all(self, mine: bool) -> bool:
        """Whether all processes say so; all must ask."""
        return not self.any(not mine)

    def most(self, mine: int) -> int:
        """The largest number that a process has; all must ask."""
        if self.count == 1:
            return mine
        return int(np.max(multihost_utils.process_allgather(np.int32(mine))))

    def agree(self, text: str) -> str:
        """What process 0 says, of at most 512 bytes; all must ask."""
        if self.count == 1:
            return text
        data = np.zeros(_TEXT, np.uint8)
        mine = text.encode()[:_TEXT]
        data[: len(mine)] = np.frombuffer(mine, np.uint8)
        told = multihost_utils.broadcast_one_to_all(data)
        return bytes(np.asarray(told)).rstrip(b"\0").decode()

    def wait(self) -> None:
        """Until all processes are here."""
        self.most(0)

    def gone(self, process: int) -> NoReturn:
        """End, since another process is gone: its devices are, and nothing can be computed without them."""
        sys.stdout.flush()
        told = f"error: process {process} of {self.count} is gone, and none can do without it: {self.advice}"
        print(told, file=sys.stderr, flush=True)
        os._exit(LOST)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._line is None:
            return
        stopped = isinstance(error, Interrupted) and not isinstance(error.__context__, KeyboardInterrupt)
        if error is None or stopped:  # which all agreed on
            self.wait()
            self._line.close()
            jax.distributed.shutdown()
        elif isinstance(error, jax.errors.JaxRuntimeError):
            time.sleep(Lifeline.SILENCE)  # a collective failed, so another process is gone: the line will say which


ALONE = Hosts()


def _detected(environ: Mapping[str, str]) -> int:
    """Processes that Slurm or Open MPI started together, this one among them, by variables that JAX looks at too."""
    for needed, count in (
        ("SLURM_STEP_NODELIST", "SLURM_NTASKS"),
        ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE"),
    ):
        if needed in environ and environ.get(count, "").isdecimal():
            return int(environ[count])
    return 1


def check_meeting(meeting: Meeting) -> None:
    """`ConfigError` where flags about processes do not fit together."""
    told = {"coordinator": meeting.coordinator, "processes": meeting.processes or None, "process": meeting.process}
    missing = [name for name, value in told.items() if value is None]
    if 0 < len(missing) < len(told):
        raise ConfigError(f"{missing[0]}: --coordinator, --processes and --process belong together: give all or none")
    if meeting.join_timeout <= 0:
        raise ConfigError(f"join_timeout: must be above 0, got {meeting.join_timeout:g}")
    if meeting.coordinator is None or meeting.process is None:
        return
    if not meeting.coordinator.rpartition(":")[2].isdecimal() or not meeting.coordinator.rpartition(":")[0]:
        raise ConfigError(f"coordinator: must be HOST:PORT, such as node1:29400, got {meeting.coordinator!r}")
    if not 0 <= meeting.process < meeting.processes:
        last = meeting.processes - 1
        raise ConfigError(f"process: must be from 0 to {last} of {meeting.processes} processes, got {meeting.process}")


def join(meeting: Meeting, environ: Mapping[str, str] = os.environ) -> Hosts:
    """Meet the other processes of a run, before anything else is asked of JAX.

    Args:
      meeting: where, checked here.
      environ: whose Slurm's or Open MPI's variables count where nothing is given.

    Raises:
      ConfigError: the flags do not fit, or JAX has been used already.

    Where not all come in time the process says so in one sentence and ends with status 2: JAX's own client can only
    abort.
    """
    check_meeting(meeting)
    count = meeting.processes or _detected(environ)
    if count == 1:
        return ALONE
    where = meeting.coordinator or "the address that Slurm or Open MPI tells"
    late = threading.Timer(meeting.join_timeout, _nobody, (where, meeting.join_timeout, count))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            meeting.coordinator,
            meeting.processes or None,
            meeting.process,
            initialization_timeout=int(meeting.join_timeout) + 60,
            cluster_detection_method="deactivate" if meeting.coordinator else None,
        )
    except (RuntimeError, ValueError) as error:
        late.cancel()
        raise ConfigError(f"processes: could not join the others at {where} ({str(error).splitlines()[0]})") from error
    hosts = Hosts(jax.process_count(), jax.process_index())
    line = Lifeline(hosts.index, hosts.count, hosts.gone)
    name = (meeting.coordinator or "").rpartition(":")[0] or socket.gethostname()
    address = hosts.agree(f"{name}:{line.port}")
    try:
        line.open(address)
    except OSError as error:
        raise ConfigError(f"processes: process 0 cannot be reached at {address} ({error.strerror or error})") from error
    finally:
        late.cancel()
    hosts._line = line
    return hosts


def _nobody(where: str, seconds: float, count: int) -> NoReturn:
    told = f"error: processes: not all {count} met at {where} within {seconds:g} s (--join-timeout); see that each runs"
    print(f"{told} and reaches that address", file=sys.stderr, flush=True)
    os._exit(2)
