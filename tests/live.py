"""The real server as a process of its own, with the settings a test wants.

with running(tmp_path, upstreams=[LiveUpstream(upstream.base_url)]) as server:
    ...
    server.kill9()
    server.restart()
"""

import hashlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Literal

import tomlkit

SERVER = (sys.executable, "-m", "rejoinder.server")

Setting = str | int | float | bool


@dataclass(frozen=True, slots=True)
class LiveUpstream:
    """One `[[upstream]]`. `key` goes into a variable of the server's environment; `options` are further entries."""

    base_url: str = ""
    name: str = "test"
    dialect: Literal["chat", "anthropic", "gemini", "responses", "demo"] = "chat"
    models: Sequence[str] = ("*",)
    key: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def key_variable(self) -> str:
        return f"LIVE_{self.name.upper().replace('-', '_').replace('.', '_')}_KEY"

    def table(self) -> dict[str, object]:
        table: dict[str, object] = {"name": self.name, "dialect": self.dialect, "models": list(self.models)}
        if self.base_url:
            table["base_url"] = self.base_url
        if self.key is not None:
            table["api_key_env"] = self.key_variable
        return table | dict(self.options)


class LiveServer:
    """A server process, started and stopped by the test. It keeps its port and its store when it starts again."""

    def __init__(
        self, command: Sequence[str], directory: Path, port: int, environment: Mapping[str, str], deadline: float
    ) -> None:
        self.log = directory / "server.log"
        self.port = port
        self._command = command
        self._directory = directory
        self._environment = environment
        self._deadline = deadline
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Start the process and wait until it is healthy.

        Raises RuntimeError, with the log, when it exits first, and TimeoutError when the deadline passes.
        """
        assert self._process is None, "the server is running"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._directory,
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = monotonic() + self._deadline
        while not self._healthy():
            if (status := self._process.poll()) is not None:
                self._process = None
                raise RuntimeError(f"the server ended with status {status}:\n{self.log.read_text()}")
            if monotonic() > deadline:
                self.kill9()
                raise TimeoutError(f"the server is not healthy after {self._deadline} s:\n{self.log.read_text()}")
            sleep(0.02)

    def restart(self) -> None:
        """Start it again, stopping it politely first if it runs."""
        if self._process is not None:
            self.terminate()
        self.start()

    def terminate(self, *, timeout: float = 30) -> int:
        """Ask the process to end, wait for it, and give its exit status. Raises TimeoutError, after killing it."""
        process = self._running()
        process.terminate()
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise TimeoutError(f"the server did not end within {timeout} s:\n{self.log.read_text()}") from None
        self._process = None
        return status

    def kill9(self) -> None:
        """End the process at once, as a power cut would."""
        process = self._running()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._process = None

    def stop(self) -> None:
        """End the process if there is one."""
        if self._process is not None:
            self.kill9()

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server is not running"
        return self._process

    def _healthy(self) -> bool:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)) as connection:
            try:
                connection.request("GET", "/health")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False


@contextmanager
def running(
    directory: Path,
    *,
    upstreams: Sequence[LiveUpstream] = (),
    store: str | None = None,
    keys: Mapping[str, str] | None = None,
    settings: Mapping[str, Setting] | None = None,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = SERVER,
    deadline: float = 15,
    covered: bool = True,
) -> Iterator[LiveServer]:
    """A healthy server. Its settings, log and store lie in `directory`; it is killed at the end if it still runs.

    `keys` maps owners to the keys their clients use, `settings` are entries of `[server]`. Nothing is asked twice
    unless they say so: a script has one answer for each request. The server sees nothing of the caller's environment
    but the way to programs, so no provider's key leaks in; `environment` adds to that. Where the server's own cost is
    measured it is not `covered`, or that of measuring coverage would be.
    """
    port = free_port()
    server = {"host": "127.0.0.1", "port": port, "store": store or f"disk:{directory / 'store'}", "retries": 0}
    tables: dict[str, object] = {"server": server | dict(settings or {})}
    if keys:
        tables["key"] = [
            {"owner": owner, "sha256": hashlib.sha256(key.encode()).hexdigest()} for owner, key in keys.items()
        ]
    if upstreams:
        tables["upstream"] = [upstream.table() for upstream in upstreams]
    file = directory / "rejoinder.toml"
    file.write_text(tomlkit.dumps(tables))
    live = LiveServer(
        [*command, "serve", "--config", str(file)],
        directory,
        port,
        _environment(upstreams, covered=covered) | dict(environment or {}),
        deadline,
    )
    try:
        live.start()
        yield live
    finally:
        live.stop()


def _environment(upstreams: Sequence[LiveUpstream], *, covered: bool) -> dict[str, str]:
    # Coverage measures the server through variables of its own.
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "PATH" or (covered and name.startswith("COVERAGE_"))
    }
    return kept | {upstream.key_variable: upstream.key for upstream in upstreams if upstream.key is not None}


def free_port() -> int:
    """A port nobody listens on, and nobody is given before the test listens there itself, however long that takes.

    The system gives no port below 32768 to who asks for any, and each worker of pytest has a thousand of its own.
    """
    for port in _ports:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("this process has had a thousand ports; let what needs fewer choose any (port 0)")


def _ports_of(worker: int) -> Iterator[int]:
    first = 20_000 + worker % 12 * 1_000
    # Two runs of the tests at once begin at two places.
    start = os.getpid() % 1_000
    return (first + (start + step) % 1_000 for step in range(1_000))


_ports = _ports_of(int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")))
