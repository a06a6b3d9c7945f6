import http.client
import json
import os
import socket
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

from tests import live
from tests.live import LiveServer, LiveUpstream, free_port, running

STAND_IN = """
import json, os, signal, sys, tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer

mode = os.environ.get("STAND_IN", "")
if mode == "refuse":
    sys.exit("cannot start")
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
settings = tomllib.load(open(sys.argv[sys.argv.index("--config") + 1], "rb"))
print("started", flush=True)

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if mode == "sick" else 200)
        self.end_headers()
        self.wfile.write(json.dumps(dict(os.environ)).encode())

HTTPServer(("127.0.0.1", settings["server"]["port"]), Handler).serve_forever()
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Something that is started like the server and answers /health with the environment it sees."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    return [sys.executable, str(script)]


def seen(server: LiveServer) -> dict[str, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)) as connection:
        connection.request("GET", "/health")
        environment: dict[str, str] = json.loads(connection.getresponse().read())
        return environment


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_settings_are_written_as_the_server_reads_them(tmp_path: Path, command: list[str]) -> None:
    upstreams = [
        LiveUpstream("http://127.0.0.1:1/v1", key="k", options={"chat": {"merge_turns": True}}),
        LiveUpstream(name="toy", dialect="demo", models=["demo"]),
    ]
    with running(
        tmp_path, upstreams=upstreams, keys={"alice": "a"}, settings={"drain_timeout": 1}, command=command
    ) as it:
        written = tomllib.loads((tmp_path / "rejoinder.toml").read_text())
    assert written == {
        "server": {
            "host": "127.0.0.1",
            "port": it.port,
            "store": f"disk:{tmp_path / 'store'}",
            "retries": 0,
            "drain_timeout": 1,
        },
        "key": [{"owner": "alice", "sha256": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}],
        "upstream": [
            {
                "name": "test",
                "dialect": "chat",
                "models": ["*"],
                "base_url": "http://127.0.0.1:1/v1",
                "api_key_env": "LIVE_TEST_KEY",
                "chat": {"merge_turns": True},
            },
            {"name": "toy", "dialect": "demo", "models": ["demo"]},
        ],
    }


def test_the_server_sees_only_what_it_is_given(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "leaked")
    upstream = LiveUpstream("http://127.0.0.1:1/v1", name="a-b", key="given")
    with running(tmp_path, upstreams=[upstream], environment={"EXTRA": "1"}, command=command) as server:
        environment = seen(server)
    assert environment["LIVE_A_B_KEY"] == "given"
    assert environment["EXTRA"] == "1"
    assert "OPENAI_API_KEY" not in environment
    assert "HOME" not in environment


def test_it_can_be_killed_and_started_again_on_the_same_port(tmp_path: Path, command: list[str]) -> None:
    with running(tmp_path, command=command) as server:
        before, address = server.pid, server.base_url
        server.kill9()
        assert gone(before)
        server.restart()
        assert server.base_url == address
        again = server.pid
        assert again != before
        server.restart()
        assert gone(again)
        last = server.pid
    assert gone(last)
    assert server.log.read_text().count("started") == 3


def test_terminating_gives_the_exit_status(tmp_path: Path, command: list[str]) -> None:
    with running(tmp_path, command=command) as server:
        assert server.terminate() == -15


def test_a_server_that_does_not_end_is_killed_and_reported(tmp_path: Path, command: list[str]) -> None:
    with running(tmp_path, command=command, environment={"STAND_IN": "stubborn"}) as server:
        pid = server.pid
        with pytest.raises(TimeoutError, match="did not end"):
            server.terminate(timeout=0.1)
        assert gone(pid)


def test_a_server_that_cannot_start_is_reported_with_its_log(tmp_path: Path, command: list[str]) -> None:
    with (
        pytest.raises(RuntimeError, match="status 1:\ncannot start"),
        running(tmp_path, command=command, environment={"STAND_IN": "refuse"}),
    ):
        pytest.fail("the server cannot have started")


def test_a_server_that_stays_unhealthy_is_killed_and_reported(tmp_path: Path, command: list[str]) -> None:
    with (
        pytest.raises(TimeoutError, match="not healthy after"),
        running(tmp_path, command=command, environment={"STAND_IN": "sick"}, deadline=0.5),
    ):
        pytest.fail("the server cannot be healthy")


def test_a_test_that_fails_leaves_no_process_behind(tmp_path: Path, command: list[str]) -> None:
    pids: list[int] = []

    def fail() -> None:
        with running(tmp_path, command=command) as server:
            pids.append(server.pid)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert gone(pids[0])


def test_a_port_is_not_of_those_the_system_gives_to_who_asks_for_any() -> None:
    ports = {free_port() for _ in range(3)}
    assert len(ports) == 3
    assert all(20_000 <= port < 32_000 for port in ports)


def test_a_port_where_somebody_listens_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_port(), free_port()
    monkeypatch.setattr(live, "_ports", iter([taken, free]))
    with socket.create_server(("127.0.0.1", taken)):
        assert free_port() == free
    with pytest.raises(RuntimeError, match="had a thousand ports"):
        free_port()
