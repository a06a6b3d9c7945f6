"""Codex as its own interfaces drive it: `codex app-server`, JSON-RPC over pipes, one JSON a line.

Unlike `codex exec` it keeps a conversation over several turns, and its user may say something in the middle of one.

    with conversation(desk.codex("lite"), desk.workdir) as talk:
        talk.start("do it")
        talk.hear("I will")
        talk.steer("but quickly")
        assert talk.finish() == "completed"
"""

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Raw

from tests.clients.codex import Codex, binary

PATIENCE = 20.0
"""Seconds a test waits for what has to come."""


class _Line(msgspec.Struct, frozen=True):
    """An answer has an id and a result or an error, a notification a method and no id."""

    id: int | None = None
    method: str = ""
    params: Raw = Raw(b"{}")
    result: Raw = Raw(b"null")
    error: Raw = Raw(b"null")


class _Turn(msgspec.Struct, frozen=True):
    id: str
    status: str


class _OfTurn(msgspec.Struct, frozen=True):
    turn: _Turn


class _Thread(msgspec.Struct, frozen=True):
    id: str


class _OfThread(msgspec.Struct, frozen=True):
    thread: _Thread


class _Delta(msgspec.Struct, frozen=True):
    delta: str


class _Item(msgspec.Struct, frozen=True):
    type: str
    text: str = ""


class _OfItem(msgspec.Struct, frozen=True):
    item: _Item


class Conversation:
    """One thread of Codex, and everything it was heard to say."""

    def __init__(self, process: "subprocess.Popen[bytes]", workdir: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        self._lines: queue.Queue[_Line | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), name="codex app-server")
        self._reader.start()
        self._asked = 0
        self._heard: list[_Line] = []
        self._looked_at = 0
        self._turn = ""
        # The name becomes the `originator`, by which a server knows Codex (codex.md §2).
        self._ask("initialize", {"clientInfo": {"name": "codex_test", "version": "0"}})
        self._tell({"method": "initialized"})
        where = {"cwd": str(workdir), "approvalPolicy": "never", "sandbox": "danger-full-access"}
        self._thread = msgspec.json.decode(self._ask("thread/start", where), type=_OfThread).thread.id

    def start(self, words: str, **settings: str) -> None:
        """Begin a turn. `settings` are further parameters of it, for example `effort`."""
        where = {"threadId": self._thread, "input": _said(words), **settings}
        self._turn = msgspec.json.decode(self._ask("turn/start", where), type=_OfTurn).turn.id

    def steer(self, words: str) -> None:
        """Say something in the middle of a turn."""
        where = {"threadId": self._thread, "expectedTurnId": self._turn}
        self._ask("turn/steer", {**where, "input": _said(words)})

    def interrupt(self) -> None:
        """End the turn, as the escape key does."""
        self._ask("turn/interrupt", {"threadId": self._thread, "turnId": self._turn})

    def hear(self, words: str) -> None:
        """Wait until these words are shown of a message that is not finished."""
        shown = ""
        while words not in shown:
            shown += msgspec.json.decode(self._next("item/agentMessage/delta"), type=_Delta).delta

    def finish(self) -> str:
        """Wait for the end of the turn, and give its status."""
        return msgspec.json.decode(self._next("turn/completed"), type=_OfTurn).turn.status

    @property
    def messages(self) -> list[str]:
        """The finished messages of the model, of all turns."""
        items = [msgspec.json.decode(params, type=_OfItem).item for params in self._params("item/completed")]
        return [item.text for item in items if item.type == "agentMessage"]

    @property
    def errors(self) -> list[str]:
        """What Codex says went wrong."""
        return [bytes(params).decode() for params in self._params("error")]

    def close(self) -> None:
        """Say that there is nothing more to say, which ends the program."""
        self._stdin.close()
        self._reader.join(PATIENCE)

    def _params(self, method: str) -> list[Raw]:
        return [line.params for line in self._heard if line.method == method]

    def _ask(self, method: str, params: Mapping[str, object]) -> Raw:
        self._asked += 1
        self._tell({"id": self._asked, "method": method, "params": params})
        while True:
            line = self._hear()
            if line.id == self._asked and not line.method:
                assert bytes(line.error) == b"null", bytes(line.error)
                return line.result

    def _tell(self, message: Mapping[str, object]) -> None:
        self._stdin.write(msgspec.json.encode(message) + b"\n")
        self._stdin.flush()

    def _next(self, method: str) -> Raw:
        """The parameters of the next notification of this kind, of those nobody waited for yet."""
        while True:
            while self._looked_at < len(self._heard):
                line = self._heard[self._looked_at]
                self._looked_at += 1
                if line.method == method:
                    return line.params
            self._hear()

    def _hear(self) -> _Line:
        line = self._lines.get(timeout=PATIENCE)
        assert line is not None, "codex has ended"
        self._heard.append(line)
        return line

    def _read(self, stdout: IO[bytes]) -> None:
        for line in stdout:
            self._lines.put(msgspec.json.decode(line, type=_Line))
        self._lines.put(None)


def _said(words: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": words}]


@contextmanager
def conversation(codex: Codex, workdir: Path) -> Iterator[Conversation]:
    """A thread that is open until the end of the block."""
    codex.configure()
    with (
        (codex.home / "app-server.log").open("ab") as log,
        subprocess.Popen(
            [binary(), "app-server", "--disable", "plugins"],
            cwd=workdir,
            env=codex.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # A session of its own: Codex starts the commands of the model, and they have to go with it.
            start_new_session=True,
        ) as process,
    ):
        try:
            talk = Conversation(process, workdir)
            yield talk
            talk.close()
            process.wait(PATIENCE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
