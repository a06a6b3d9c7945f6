"""What the little server is asked and what it tells, and how a fault gets between the two."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from aiohttp import web
from multidict import MultiMapping

Json = Any  # JSON as dicts and lists: faults reach for it at every depth

Wire = Literal["http", "socket"]

MODEL = "little"
NOW = 1_795_000_000


@dataclass(slots=True)
class Exchange:
    """`asked` is the body of the request, `told` that of the answer, or `events` if the answer is a stream.

    `key` is the Authorization header, `came_with` are the others, and `made` is what a create call has made. The others
    belong to sockets: `lane` is where a create call waits, and `local` what the connection remembers, by the ids of
    responses.
    """

    method: str
    path: str
    query: dict[str, str]
    asked: Json
    key: str | None = None
    over_a_socket: bool = False
    status: int = 200
    told: Json = None
    events: list[Json] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    came_with: Mapping[str, str] = field(default_factory=dict)
    made: Json = None
    lane: Json = None
    local: dict[str, Json] = field(default_factory=dict)

    @property
    def place(self) -> list[str]:
        return self.path.strip("/").split("/")

    @property
    def body(self) -> Json:
        """The body of the request if it is an object, or an empty one."""
        return self.asked if isinstance(self.asked, dict) else {}

    @property
    def said(self) -> str:
        """The input of a request, if it is a text."""
        given = self.body.get("input")
        return given if isinstance(given, str) else ""

    @property
    def plain(self) -> list[Json]:
        """The response object in the answer to a create call that is no stream, if it is one."""
        return [self.told] if (self.method, self.path) == ("POST", "/responses") and self._is_told else []

    @property
    def kept(self) -> list[Json]:
        """The response object in the answer to a question for it, if it is one."""
        return [self.told] if self.method == "GET" and self._is_told and "output" in self.told else []

    @property
    def cancelled(self) -> list[Json]:
        """The response object in the answer to a cancel, if it is one."""
        return [self.told] if self.place[-1] == "cancel" and self._is_told else []

    @property
    def responses(self) -> list[Json]:
        """All response objects in the answer, those of events included."""
        in_events = [event["response"] for event in self.events if "response" in event]
        return [*self.plain, *self.kept, *self.cancelled, *in_events]

    @property
    def listed(self) -> list[Json]:
        """The page of input items in the answer, if it is one."""
        return [self.told] if self.place[-1] == "input_items" and self._is_told else []

    @property
    def compacted(self) -> list[Json]:
        """The compacted response in the answer, if it is one."""
        return [self.told] if self.path == "/responses/compact" and self._is_told else []

    @property
    def counted(self) -> list[Json]:
        """The count of tokens in the answer, if it is one."""
        return [self.told] if self.path == "/responses/input_tokens" and self._is_told else []

    @property
    def conversation(self) -> list[Json]:
        """The conversation in the answer, if it is one."""
        is_one = self._is_told and self.told.get("object") == "conversation"
        return [self.told] if is_one else []

    @property
    def spoken(self) -> list[Json]:
        """The page of items of a conversation in the answer, if it is one."""
        is_one = self.place[0] == "conversations" and self.place[-1] == "items" and self._is_told
        return [self.told] if is_one else []

    @property
    def error(self) -> list[Json]:
        """The error in the answer, if it is one."""
        return [self.told["error"]] if self.status >= 400 else []

    def of(self, *kinds: str) -> list[Json]:
        """The events of these types."""
        return [event for event in self.events if event["type"].removeprefix("response.") in kinds]

    @property
    def _is_told(self) -> bool:
        return self.status == 200 and not self.events


def _nothing(it: Exchange) -> None:
    pass


def _as_they_are(chunks: list[bytes]) -> list[bytes]:
    return chunks


@dataclass(frozen=True, slots=True)
class Fault:
    """`asked` and `told` see what goes over HTTP, `heard` and `said` what goes over a socket."""

    asked: Callable[[Exchange], object] = _nothing
    told: Callable[[Exchange], object] = _nothing
    sent: Callable[[list[bytes]], list[bytes]] = _as_they_are
    heard: Callable[[Exchange], object] = _nothing
    said: Callable[[Exchange], object] = _nothing

    @property
    def wires(self) -> set[Wire]:
        """Where anything can be seen of it."""
        seen: dict[Wire, bool] = {
            "http": (self.asked, self.told, self.sent) != (_nothing, _nothing, _as_they_are),
            "socket": (self.heard, self.said) != (_nothing, _nothing),
        }
        return {wire for wire, is_seen in seen.items() if is_seen}


class Refused(Exception):
    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}


def exchange(
    method: str, path: str, query: Iterable[tuple[str, str]], body: bytes, headers: MultiMapping[str]
) -> Exchange:
    """A request. What comes several times has commas between."""
    several: dict[str, str] = {}
    for name, value in query:
        several[name] = f"{several[name]},{value}" if name in several else value
    key = ", ".join(headers.getall("authorization", [])) or None
    return Exchange(method, path.removeprefix("/v1"), several, body, key, came_with=headers)


def exchange_of(request: web.Request, body: bytes) -> Exchange:
    return exchange(request.method, request.path, request.query.items(), body, request.headers)


def parsed(body: bytes) -> Json:
    try:
        asked = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused("no JSON") from None
    if not isinstance(asked, dict):
        raise Refused("no object")
    return asked


def copied(value: Json) -> Json:
    """A copy that shares nothing, also not within itself: a fault changes one place only."""
    return msgspec.json.decode(msgspec.json.encode(value))


class Numbers:
    """Ids, by their prefixes."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def __call__(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers):032}"


def given_in(mapping: Mapping[str, Json]) -> dict[str, Json]:
    """What is not null: null means left out."""
    return {name: value for name, value in mapping.items() if value is not None}
