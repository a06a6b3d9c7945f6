"""Many who follow one response and have nothing to do: what each costs.

`REJOINDER_FOLLOWERS` says how many; the figures are printed with `-s`.
"""

import os
import socket
from contextlib import ExitStack
from pathlib import Path
from time import sleep

import pytest

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import Trouble, answer, text
from tests.live import LiveServer, LiveUpstream, running
from tests.server.client import ask, resident, streaming

FOLLOWERS = int(os.environ.get("REJOINDER_FOLLOWERS", "200"))
WATCHED = 5.0
"""Seconds for which they are watched doing nothing."""

MOST_BYTES = 120_000
MOST_CPU = 0.1
"""Seconds of CPU per second for a thousand of them."""


@pytest.mark.alone
@pytest.mark.slow
def test_followers_that_wait_cost_little(tmp_path: Path) -> None:
    stalls = answer(text("Half ", "a story"), trouble=Trouble("stall", 3))
    with (
        ChatUpstream([stalls]) as upstream,
        running(tmp_path, upstreams=[LiveUpstream(upstream.base_url)], covered=False) as server,
        ExitStack() as open_sockets,
    ):
        with streaming(server, background=True) as stream:
            stream.until("response.output_text.delta")
            response_id = stream.id
        before = resident(server)
        followers = [open_sockets.enter_context(follower(server, response_id)) for _ in range(FOLLOWERS)]
        for one in followers:
            read_until(one, b"a story")
        each = (resident(server) - before) / FOLLOWERS
        spent = cpu(server)
        sleep(WATCHED)
        busy = (cpu(server) - spent) / WATCHED * 1000 / FOLLOWERS
        print(f"{FOLLOWERS} followers: {each / 1000:.1f} KB each, {busy * 1000:.1f} ms of CPU per second and thousand")
        assert ask(server, "POST", f"/v1/responses/{response_id}/cancel").response.status == "cancelled"
        for one in followers:
            read_until(one, b"data: [DONE]\n\n")
        assert each < MOST_BYTES
        assert busy < MOST_CPU


def follower(server: LiveServer, response_id: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.sendall(f"GET /v1/responses/{response_id}?stream=true HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
    return connection


def read_until(connection: socket.socket, end: bytes) -> None:
    read = b""
    while end not in read:
        data = connection.recv(65536)
        assert data, f"the stream ended before {end!r}"
        read = read[-len(end) :] + data


def cpu(server: LiveServer) -> float:
    """Seconds of CPU the server's process has used."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
