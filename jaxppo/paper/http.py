"""JSON over HTTP for a broker: every failure is one of the loop's errors, and no message carries a secret.

By urllib: four requests a bar need no library, and what a broker's own client brings need not be installed.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxppo.errors import ConfigError
from jaxppo.paper.broker import BrokerError, Unreachable

MOST = 2**25  # bytes of an answer: 10,000 bars of Alpaca have 1.3 MB
TIMEOUT = 10.0  # seconds


class Answer(NamedTuple):
    """A status below 500, and what came with it."""

    status: int
    value: Any  # JSON; None where there is none

    @property
    def message(self) -> str:
        """What the server says of an error."""
        said = self.value.get("message") if isinstance(self.value, dict) else None
        return str(said or f"status {self.status}")[:300]


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect would take the keys to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Http:
    """One server, with the headers that it knows us by."""

    def __init__(self, name: str, base: str, headers: Mapping[str, str], timeout: float = TIMEOUT):
        self._name, self._base, self._headers, self._timeout = name, base.rstrip("/"), dict(headers), timeout
        self._open = urllib.request.build_opener(_Stay).open

    def ask(self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None) -> Answer:
        """Send a request.

        Raises:
          Unreachable: no answer in time, none that is JSON, a status of 429 or of 500 and above.
          BrokerError: a status of 401: the keys are wrong.
        """
        url = f"{self._base}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        headers = {
            **self._headers,
            "Accept": "application/json",
            **({"Content-Type": "application/json"} if data else {}),
        }
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with self._open(request, timeout=self._timeout) as response:
                status, text = response.status, response.read(MOST + 1)
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, _read(error)
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            reason = getattr(error, "reason", None) or error
            raise Unreachable(f"{self._name}: no answer to {method} {path} ({self.hide(str(reason))})") from None
        return self._answer(method, path, status, text)

    def _answer(self, method: str, path: str, status: int, text: bytes) -> Answer:
        try:
            value = json.loads(text) if text.strip() else None
            readable = len(text) <= MOST
        except (ValueError, RecursionError):
            value, readable = None, False
        answer = Answer(status, value)
        if status in (401, 407):
            raise BrokerError(f"{self._name}: the keys were refused ({self.hide(answer.message)}); check them")
        if status == 429 or status >= 500:
            raise Unreachable(
                f"{self._name}: {method} {path} failed with status {status} ({self.hide(answer.message)})"
            )
        if 300 <= status < 400 or (status < 400 and not readable):
            raise Unreachable(f"{self._name}: {method} {path} was answered with no JSON, status {status}")
        return answer

    def hide(self, text: str) -> str:
        """`text` without what identifies us."""
        return hidden(text, self._headers.values())


def _read(error: urllib.error.HTTPError) -> bytes:
    try:
        return error.read(MOST + 1)
    except (OSError, http.client.HTTPException):
        return b""


def hidden(text: str, secrets: Any) -> str:
    """`text` with every secret in it replaced."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return text


def setting(name: str) -> str:
    """A variable of the environment, the only place where secrets are looked for; empty where it is not set."""
    return os.environ.get(name, "").strip()


def secret(name: str, where: str) -> str:
    """A `setting` that is needed; `ConfigError` where it is not set."""
    value = setting(name)
    if not value:
        raise ConfigError(f"{where}: the environment has no {name}; set it to trade there")
    return value
