"""A page on this machine alone: what is asked for by its exact name is answered from memory, and nothing else is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from jaxppo.errors import ConfigError
from jaxppo.version import __version__

LOOPBACK = "127.0.0.1"
_SECONDS = 10.0  # that a request may take to be sent

Answers = Mapping[str, tuple[str, Callable[[], bytes]]]
"""By the path that is asked for, the kind of what is answered and what makes it."""


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of the answers. No path is ever opened, and nothing but this machine's own names may be asked for:
    a page from elsewhere whose name leads here (DNS rebinding) is refused."""

    server: _Server
    server_version, sys_version = f"jaxppo/{__version__}", ""
    timeout = _SECONDS  # and a connection a request, so that none outlives the server

    def do_GET(self) -> None:
        host = self.headers.get("Host", "")
        if host not in (f"{name}:{self.server.server_port}" for name in (LOOPBACK, "localhost")):
            return self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"asked for by another name than this machine's\n")
        if self.path not in self.server.answers:
            return self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"no such page\n")
        kind, make = self.server.answers[self.path]
        return self._answer(HTTPStatus.OK, kind, make())

    do_HEAD = do_GET

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, answers: Answers):
        self.answers = answers
        super().__init__((LOOPBACK, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is no error."""


@contextmanager
def served(port: int, answers: Answers) -> Iterator[str]:
    """Answer on a port of this machine in a thread, 0 for any that is free; gives the address of the page.

    Raises:
      ConfigError: the port is taken, or may not be had.
    """
    try:
        server = _Server(port, answers)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--serve: port {port} cannot be had ({reason}); choose another, or 0 for any") from error
    thread = threading.Thread(target=server.serve_forever, name="page", daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
