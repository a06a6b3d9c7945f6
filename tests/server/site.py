"""The application inside of a test: real services, a real socket, and the test's own loop.

    with ChatUpstream([answer(text("hi"))]) as upstream:
        services = services_in(tmp_path, upstream.base_url)
        async with site(services) as here:
            reply = await here.create(input="hello")

Signals and kills need a process: `tests.live` starts one.
"""

import asyncio
import hashlib
import io
import itertools
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import tomlkit
import uvicorn

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.envelope import Seal
from rejoinder.server import turn
from rejoinder.server.app import build_app
from rejoinder.server.assembly import assemble
from rejoinder.server.runs import Runs
from rejoinder.server.services import Services
from rejoinder.server.settings import Settings, load
from rejoinder.server.websocket_protocol import WebSocketProtocol
from rejoinder.store import Backend, Change, DiskBackend, Store
from rejoinder.wire.events import Event, encode
from rejoinder.wire.request import CreateRequest

Json = Any  # JSON as the standard library reads it: tests look at it from every side

NOW = 1_795_000_000
MODEL = "test-model"
TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
CODEX = {"originator": "codex_exec"}

WEATHER: Json = {
    "type": "function",
    "name": "weather",
    "description": "Says what the weather is.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def settings_in(
    directory: Path,
    base_url: str,
    *,
    names: Sequence[str] = ("test",),
    keys: Mapping[str, str] | None = None,
    server: Mapping[str, object] | None = None,
    chat: Mapping[str, object] | None = None,
    dialect: str = "chat",
    grammar: str = "pass",
    reasoning: str = "summary",
) -> Settings:
    """Settings with one upstream for each of `names`, all of them at `base_url`; the first serves every model.

    `keys` maps owners to the keys of their clients, `server` are entries of `[server]`, `chat` of `[upstream.chat]`.
    Nothing is asked twice unless `server` says so: a script has one answer for each request.
    """
    tables: dict[str, object] = {
        "server": {"store": f"disk:{directory / 'store'}", "retries": 0, **(server or {})},
        "key": [{"owner": owner, "sha256": hashlib.sha256(key.encode()).hexdigest()} for owner, key in _items(keys)],
        "upstream": [
            {
                "name": name,
                "dialect": dialect,
                "base_url": base_url,
                "models": ["*"],
                "grammar": grammar,
                **({"reasoning": reasoning} if reasoning != "summary" else {}),  # some dialects refuse to be told
                **({"chat": dict(chat)} if chat else {}),
            }
            for name in names
        ],
    }
    file = directory / "rejoinder.toml"
    file.write_text(tomlkit.dumps(tables))
    return load(file, {})


def services_in(
    directory: Path,
    base_url: str,
    *,
    names: Sequence[str] = ("test",),
    keys: Mapping[str, str] | None = None,
    server: Mapping[str, object] | None = None,
    chat: Mapping[str, object] | None = None,
    dialect: str = "chat",
    grammar: str = "pass",
    reasoning: str = "summary",
) -> Services:
    """Assembled services with a disk store in `directory`; the caller closes them, or a `site` does."""
    return assemble(
        settings_in(
            directory,
            base_url,
            names=names,
            keys=keys,
            server=server,
            chat=chat,
            dialect=dialect,
            grammar=grammar,
            reasoning=reasoning,
        )
    )


def exact(services: Services) -> Services:
    """The services with a clock that stands, random bytes that count, and a seal that always says the same."""
    numbers = itertools.count(1)
    return replace(
        services,
        clock=lambda: float(NOW),
        random=lambda size: next(numbers).to_bytes(size, "big"),
        seal=Seal([bytes(32)], random=bytes),
    )


@asynccontextmanager
async def closing(services: Services) -> AsyncIterator[Services]:
    try:
        yield services
    finally:
        await services.close()


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        return json.loads(self.body)

    @property
    def events(self) -> list[Json]:
        """The events of a stream that ended as it should."""
        assert self.headers["content-type"].startswith("text/event-stream"), self.body
        return events_of(self.body)

    @property
    def notes(self) -> list[str]:
        notes = json.loads(self.headers.get("x-rejoinder-notes", "[]"))
        assert isinstance(notes, list)
        return notes

    @property
    def losses(self) -> list[Json]:
        losses = json.loads(self.headers.get("x-rejoinder-losses", "[]"))
        assert isinstance(losses, list)
        return losses


class Site:
    """A running application and a client for it. What a call does not say is `model`, and no key."""

    def __init__(self, port: int, client: aiohttp.ClientSession, runs: Runs, stop: Callable[[], None]) -> None:
        self.port = port
        self.client = client
        self.runs = runs
        self.stop = stop

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        named = dict(headers or {})
        if key is not None:
            named["authorization"] = f"Bearer {key}"
        url = f"http://127.0.0.1:{self.port}{path}"
        data = io.BytesIO(body) if body is not None else None
        async with self.client.request(method, url, data=data, headers=named, allow_redirects=False) as response:
            names = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status, names, await response.read())

    async def create(
        self, *, key: str | None = None, headers: Mapping[str, str] | None = None, **fields: object
    ) -> Reply:
        return await self.ask("POST", "/v1/responses", body_of(**fields), key=key, headers=headers)

    async def get(self, path: str, *, key: str | None = None) -> Reply:
        return await self.ask("GET", f"/v1/responses/{path}", key=key)

    async def delete(self, path: str, *, key: str | None = None) -> Reply:
        return await self.ask("DELETE", f"/v1/responses/{path}", key=key)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    def stop(self) -> None:
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they belong to the test run


@asynccontextmanager
async def site(services: Services) -> AsyncIterator[Site]:
    """The application over these services, listening; it closes them at the end."""
    # By its protocol asyncio knows a socket that must not wait for acknowledgements.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    runs = Runs(services)
    settings = services.settings.server
    config = uvicorn.Config(
        build_app(services, runs),
        access_log=False,
        log_config=None,
        ws=WebSocketProtocol,
        ws_max_size=settings.max_body_bytes,
        ws_per_message_deflate=settings.websocket_compression,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    await server.up.wait()
    async with aiohttp.ClientSession() as client:
        try:
            yield Site(listener.getsockname()[1], client, runs, server.stop)
        finally:
            server.should_exit = True
            await serving


NOWHERE = "http://127.0.0.1:9/v1"
"""The address of an upstream that is never asked."""


def body_of(**fields: object) -> bytes:
    return json.dumps({"model": MODEL, **fields}).encode()


def request_of(**fields: object) -> CreateRequest:
    return CreateRequest.parse(body_of(**fields))


def user(content: str) -> Json:
    return {"type": "message", "role": "user", "content": content}


def output_of(call_id: str, output: str) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


@dataclass(slots=True)
class Listener:
    """A sink that keeps what it is told. `live` says whether it counts as somebody who reads along."""

    live: bool = True
    begun: turn.Outcome | None = None
    sent: list[Event] = field(default_factory=list)
    acts: list[tuple[Set[str], Callable[[], None]]] = field(default_factory=list)

    def on(self, types: Set[str], act: Callable[[], None]) -> None:
        """Do something when an event of one of these types comes."""
        self.acts.append((types, act))

    def begin(self, outcome: turn.Outcome, out: Composer, events: Sequence[Event]) -> None:
        assert self.begun is None, "a turn begins once"
        self.begun = outcome
        self._take(events)

    async def send(self, events: Sequence[Event]) -> None:
        self._take(events)

    @property
    def events(self) -> list[Json]:
        return [json.loads(encode(event)) for event in self.sent]

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            self.sent.append(event)
            for types, act in self.acts:
                if event.type in types:
                    act()


async def said(services: Services, *, owner: str = "local", **fields: object) -> Json:
    """The response object of one turn that nobody reads along."""
    outcome = await turn.run(request_of(**fields), turn.Discard(), services, owner=owner)
    return json.loads(bytes(outcome.response))


class Gate:
    """A backend that does what the one inside of it does, and what a test wants before a commit."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.before: Callable[[Change], object] | None = None
        """Called before each commit but a probe's; an awaitable it gives is waited for, what it raises is raised."""

        self.on_probe: Callable[[], object] | None = None
        self.commits = 0

    @property
    def location(self) -> Path:
        return self._inner.location

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._inner.get(keys)

    async def walk(self, keys: Sequence[str], follow: Callable[[str, bytes], Sequence[str]]) -> None:
        await self._inner.walk(keys, follow)

    async def keys(self, first: str, end: str, limit: int) -> list[str]:
        return await self._inner.keys(first, end, limit)

    async def commit(self, change: Change) -> None:
        await _waited(self.before and self.before(change))
        await self._inner.commit(change)
        self.commits += 1

    async def probe(self) -> None:
        await _waited(self.on_probe and self.on_probe())
        await self._inner.probe()

    async def close(self) -> None:
        await self._inner.close()


async def gated(services: Services) -> tuple[Services, Gate]:
    """The services with their store, opened again, behind a gate."""
    await services.store.close()
    gate = Gate(DiskBackend(services.store.location))
    return replace(services, store=Store(gate)), gate


async def _waited(value: object) -> None:
    if asyncio.iscoroutine(value):
        await value


def events_of(body: bytes) -> list[Json]:
    """The events of a stream: each frame whole and named as it is typed, `[DONE]` at the end (events.md §1)."""
    *frames, rest = body.split(b"\n\n")
    assert rest == b"", f"half a frame at the end: {rest!r}"
    assert frames[-1] == b"data: [DONE]"
    events: list[Json] = []
    for frame in frames[:-1]:
        if frame.startswith(b":"):
            continue
        head, _, data = frame.partition(b"\n")
        event = json.loads(data.removeprefix(b"data: "))
        assert head == f"event: {event['type']}".encode()
        events.append(event)
    return events


def folded(events: Sequence[Json]) -> Json:
    """The response a client builds from a stream by its deltas alone.

    Asserts the grammar of events.md §4 on the way: numbers without a gap, everything opened once and closed once, and
    every sum of deltas the same as its `done` value, its item and its place in the terminal response.
    """
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert [event["type"] for event in events if event["type"] in TERMINAL] == [events[-1]["type"]]
    fold = _Fold()
    for event in events:
        if "response" in event:
            assert event["response"]["id"] == events[0]["response"]["id"]
        else:
            fold.take(event)
    last = events[-1]["response"]
    assert fold.closed == list(range(len(fold.items)))
    assert last["output"] == fold.items
    return {**last, "output": fold.items}


class _Fold:
    def __init__(self) -> None:
        self.items: list[Json] = []
        self._done: set[int] = set()

    @property
    def closed(self) -> list[int]:
        return sorted(self._done)

    def take(self, event: Json) -> None:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(self.items)
            assert event["item"]["status"] == "in_progress"
            self.items.append(event["item"])
            return
        assert event["output_index"] not in self._done
        item = self.items[event["output_index"]]
        if kind == "output_item.done":
            done = event["item"]
            late = {name: done[name] for name in ("status", "encrypted_content") if name in done}
            assert done == item | late
            item.update(late)
            self._done.add(event["output_index"])
            return
        assert event["item_id"] == item["id"]
        self._part(kind, event, item)

    def _part(self, kind: str, event: Json, item: Json) -> None:
        match kind:
            case "content_part.added":
                assert len(item.setdefault("content", [])) == event["content_index"]
                item["content"].append(event["part"])
            case "reasoning_summary_part.added":
                assert len(item["summary"]) == event["summary_index"]
                item["summary"].append(event["part"])
            case "content_part.done":
                assert event["part"] == item["content"][event["content_index"]]
            case "reasoning_summary_part.done":
                assert event["part"] == item["summary"][event["summary_index"]]
            case "output_text.delta" | "reasoning_text.delta":
                item["content"][event["content_index"]]["text"] += event["delta"]
            case "output_text.done" | "reasoning_text.done":
                assert event["text"] == item["content"][event["content_index"]]["text"]
            case "refusal.delta":
                item["content"][event["content_index"]]["refusal"] += event["delta"]
            case "refusal.done":
                assert event["refusal"] == item["content"][event["content_index"]]["refusal"]
            case "reasoning_summary_text.delta":
                item["summary"][event["summary_index"]]["text"] += event["delta"]
            case "reasoning_summary_text.done":
                assert event["text"] == item["summary"][event["summary_index"]]["text"]
            case "function_call_arguments.delta":
                item["arguments"] += event["delta"]
            case "function_call_arguments.done":
                assert event["arguments"] == item["arguments"]
            case "custom_tool_call_input.delta":
                item["input"] += event["delta"]
            case "custom_tool_call_input.done":
                assert event["input"] == item["input"]
            case _:
                raise AssertionError(f"an event this fold does not know: {kind}")


def _items(table: Mapping[str, str] | None) -> Sequence[tuple[str, str]]:
    return list((table or {}).items())
