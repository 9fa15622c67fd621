"""A connection from every process to process 0, which the system closes however a process ends."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable

_BEAT, _BYE, _GONE = b".", b"q", b"x"  # the last is followed by a process's number, 4 bytes


def _listen() -> socket.socket:
    """A port of this machine, for both versions of the protocol where it has both."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


class Lifeline:
    """Watches the other processes from a thread and calls `gone` with the number of the first that is lost.

    A process that is killed is noticed at once, by its connection; a machine that lost its power after `SILENCE`.

    Example:
      >>> line = Lifeline(0, 1, print)
      >>> line.open(f"localhost:{line.port}")
      >>> line.close()
    """

    BEAT = 1.0  # seconds between signs of life
    SILENCE = 30.0  # seconds without one after which a process is taken for lost

    def __init__(self, index: int, count: int, gone: Callable[[int], object]):
        self._index, self._count, self._gone = index, count, gone
        self._sockets: dict[int, socket.socket] = {}
        self._heard: dict[int, float] = {}
        self._done: set[int] = set()
        self._closing = threading.Event()
        self._server = _listen() if index == 0 else None
        self.port = self._server.getsockname()[1] if self._server else 0
        self._thread = threading.Thread(target=self._watch, name="lifeline", daemon=True)

    def open(self, address: str) -> None:
        """Connect everyone to process 0, which listens at `address`, HOST:PORT; all must call it.

        Raises:
          OSError: process 0 cannot be reached.
        """
        if self._server is not None:
            while len(self._sockets) < self._count - 1:
                other, _ = self._server.accept()
                number = int.from_bytes(other.recv(4, socket.MSG_WAITALL))
                if 0 < number < self._count and number not in self._sockets:
                    self._sockets[number] = other
                else:  # of something that looks at ports
                    other.close()
        else:
            host, _, port = address.rpartition(":")
            self._sockets[0] = socket.create_connection((host, int(port)))
            self._sockets[0].sendall(self._index.to_bytes(4))
        self._heard = dict.fromkeys(self._sockets, time.monotonic())
        self._thread.start()

    def close(self) -> None:
        """Say goodbye: from now on nobody is missed."""
        self._closing.set()
        self._send(_BYE)
        self._thread.join()
        for s in (*self._sockets.values(), *([self._server] if self._server else [])):
            s.close()

    def _send(self, data: bytes) -> None:
        for s in self._sockets.values():
            with contextlib.suppress(OSError):  # gone, which reading tells
                s.sendall(data)

    def _watch(self) -> None:
        with selectors.DefaultSelector() as ready:
            for number, s in self._sockets.items():
                ready.register(s, selectors.EVENT_READ, number)
            sent = 0.0
            while not self._closing.is_set():
                for key, _ in ready.select(self.BEAT / 4):
                    if not self._hear(key.data):
                        ready.unregister(key.fileobj)
                now = time.monotonic()
                if now - sent >= self.BEAT:
                    self._send(_BEAT)
                    sent = now
                for number in self._heard.keys() - self._done:
                    if now - self._heard[number] > self.SILENCE:
                        self._lose(number)

    def _hear(self, number: int) -> bool:
        """Read what a process says; whether it will say more."""
        try:
            data = self._sockets[number].recv(4096)
        except OSError:
            data = b""
        self._heard[number] = time.monotonic()
        if _GONE in data:
            self._lose(int.from_bytes(data.partition(_GONE)[2][:4]))
        if _BYE in data:
            self._done.add(number)
        elif not data and number not in self._done:
            self._lose(number)
        return bool(data) and number not in self._done

    def _lose(self, number: int) -> None:
        if self._closing.is_set():
            return
        self._send(_GONE + number.to_bytes(4))  # process 0 tells the others who it was
        self._done.add(number)
        self._gone(number)
