"""A plain client for the tests of the scripted providers: it sends what it is told, well-formed or not."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any  # the bodies here are broken in every way, so they have no type

from rejoinder.conformance.upstreams.provider import ScriptedUpstream

Body = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> list[Any]:
        """The data of every event; `[DONE]` is an empty object."""
        lines = [line for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [{} if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


def ask(
    upstream: ScriptedUpstream[Any],
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    method: str | None = None,
) -> Reply:
    """POST a body, or GET without one."""
    payload = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    with closing(http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=5)) as connection:
        sent = {"content-type": "application/json", **(headers or {})}
        connection.request(method or ("GET" if body is None else "POST"), path, payload, sent)
        with connection.getresponse() as response:
            found = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status, found, response.read())


@contextmanager
def asking(
    upstream: ScriptedUpstream[Any], path: str, body: object, headers: Mapping[str, str] | None = None
) -> Iterator[socket.socket]:
    """A request whose answer is not waited for."""
    payload = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(payload)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    with socket.create_connection(("127.0.0.1", upstream.port), timeout=5) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode() + payload)
        upstream.wait(1)
        yield client
