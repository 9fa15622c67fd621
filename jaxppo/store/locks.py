"""A lock that processes and hosts hold on a file, and that the system lets go of however they end."""

from __future__ import annotations

import os
from pathlib import Path

from jaxppo.errors import RunDirectoryError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Lock:
    """One holder at a time, over all processes that see the file system; a second `Lock` in a process waits too."""

    def __init__(self, path: Path):
        """`path`: a file, which is made where it is not. No folder: NFS locks only what can be written to."""
        self._path = path
        self._held: int | None = None

    def take(self, wait: bool = True) -> bool:
        """Whether it is held now; False only where another holds it and `wait` is not set.

        Raises:
          RunDirectoryError: the file system has no locks.
        """
        if fcntl is None:
            return True
        opened = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(opened)
            return False
        except OSError as error:
            os.close(opened)
            raise RunDirectoryError(
                f"{self._path}: its file system has no locks ({error.strerror}), without which two processes could do"
                " the same work; choose a folder on another one"
            ) from error
        self._held = opened
        return True

    def release(self) -> None:
        """Let go; safe to call again."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    def acquire(self) -> bool:
        """`take`, as Optuna's journal calls it."""
        return self.take()

    def __enter__(self) -> Lock:
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
