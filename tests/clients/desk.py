"""A place to run Codex at, with a provider behind the server that does what the test says."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import msgspec

from rejoinder.conformance.upstreams.chat import ChatUpstream, Script
from rejoinder.conformance.upstreams.script import ToolCall, call
from rejoinder.conformance.upstreams.sent import SentCall, SentChat, SentMessage, SentRequest
from tests.clients.codex import Codex, CodexRun, Shape
from tests.clients.relay import Line, Relay
from tests.live import LiveServer

KEY = "codex-key"
UPSTREAM_KEY = "upstream-key"

OPENING = ["system", "user", "user"]
"""Every developer message at the start in one, the environment, the prompt."""


class LeftOut(TypedDict):
    """A line of the server's log: what a turn did without."""

    event: str
    notes: list[str]
    losses: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Desk:
    """A place to run Codex at, with a provider that does what the test says."""

    directory: Path
    home: Path
    server: LiveServer
    relay: Relay | None
    """What stands in front of the server when it is to be reached over WebSockets."""

    upstream: ChatUpstream
    log_start: int

    @property
    def workdir(self) -> Path:
        work = self.directory / "work"
        work.mkdir(exist_ok=True)
        return work

    def codex(self, shape: Shape = "plain") -> Codex:
        front = self.relay or self.server
        return Codex(self.home, front.base_url, shape=shape, key=KEY, websocket=self.relay is not None)

    def run(
        self,
        codex: Codex,
        script: Script,
        *,
        prompt: str = "do it",
        resume: str | None = None,
        images: Sequence[Path] = (),
        arguments: Sequence[str] = (),
    ) -> CodexRun:
        self.upstream.follow(script)
        return codex.exec(prompt, workdir=self.workdir, resume=resume, images=images, arguments=arguments)

    def sent(self) -> list[SentRequest]:
        """What the provider was asked so far, in order. It had no objections."""
        assert self.upstream.objections == []
        return self.upstream.requests

    def chats(self) -> list[SentChat]:
        return [request.chat for request in self.sent()]

    @property
    def sockets(self) -> Sequence[Line]:
        """The WebSockets that Codex opened, in order."""
        assert self.relay is not None
        return self.relay.sockets

    def retries(self, run: CodexRun) -> list[str]:
        """Why Codex asked again. Over a WebSocket it does not say so the first time, so this is what it was told."""
        if self.relay is None:
            return run.retries
        assert run.retries == []
        return [fault for socket in self.sockets for fault in socket.faults]

    def notes(self) -> list[str]:
        """Which parameters the server's log says had no effect, turn after turn."""
        return [note for line in self._left_out() for note in line["notes"]]

    def losses(self) -> list[str]:
        """The types of the items the server's log says the provider did not get, turn after turn."""
        return [loss["type"] for line in self._left_out() for loss in line["losses"]]

    def _left_out(self) -> list[LeftOut]:
        lines = self.server.log.read_bytes()[self.log_start :].splitlines()
        told = [json.loads(line) for line in lines if line.startswith(b"{")]
        return [line for line in told if line["event"] == "left out"]


def called(name: str, arguments: Mapping[str, str], *, id: str | None = None) -> ToolCall:
    """A call whose arguments come in pieces that cut escapes in two."""
    return in_pieces(name, json.dumps(arguments), id=id)


def in_pieces(name: str, arguments: str, *, id: str | None = None) -> ToolCall:
    return call(name, *(arguments[at : at + 7] for at in range(0, len(arguments), 7)), id=id)


def shell(shape: Shape, command: str, *, id: str | None = None) -> ToolCall:
    """How a model runs a command: by a tool of its own, or by a program that calls the tool (codex.md §4, lite)."""
    if shape == "lite":
        return script_of(f"const r = await tools.exec_command({{cmd: {json.dumps(command)}}}); text(r.output)", id=id)
    return called("exec_command", {"cmd": command}, id=id)


def script_of(program: str, *, id: str | None = None) -> ToolCall:
    return called("exec", {"input": program}, id=id)


def answered(run: CodexRun) -> str:
    """The final answer of a run in which nothing went wrong."""
    assert (run.exit_code, run.failure, run.retries) == (0, "", []), run.stdout + run.stderr
    # Codex complains here of a delta without its item, of items it cannot read, and of failing tools.
    assert "ERROR" not in run.stderr, run.stderr
    return run.last_message


def reason(run: CodexRun) -> str:
    """What a failed run says. Codex prints the body of a 400 as it is (codex.md §9)."""
    if not run.failure.startswith("{"):
        return run.failure
    message = json.loads(run.failure)["error"]["message"]
    assert isinstance(message, str)
    return message


def roles(chat: SentChat) -> list[str]:
    return [message.role for message in chat.messages]


def tool_names(chat: SentChat) -> list[str]:
    return [tool.function.name for tool in chat.tools]


def made(message: SentMessage) -> list[tuple[str, str]]:
    """The calls of an assistant message: their ids and the names of their functions."""
    assert message.role == "assistant"
    return [(one.id, one.function.name) for one in message.tool_calls]


def arguments_of(sent: SentCall) -> Mapping[str, str]:
    return msgspec.json.decode(sent.function.arguments, type=dict[str, str])


def goes_on(earlier: SentRequest, later: SentRequest) -> bool:
    """Whether the later body begins with the earlier one, up to the end of its last message (mapping.md §0.2)."""
    return later.body.startswith(earlier.body.removesuffix(b"]}") + b",")
