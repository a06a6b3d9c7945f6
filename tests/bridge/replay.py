"""Recorded answers fed to the bridge, and recorded conversations led through it, as a turn of the server would."""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw

from rejoinder.bridge.chat import ChatDialect
from rejoinder.bridge.chat_reader import ChatReader
from rejoinder.bridge.composer import Composer
from rejoinder.bridge.dialect import Prompt
from rejoinder.bridge.echo import echo
from rejoinder.bridge.envelope import Envelope, Issuer, Seal
from rejoinder.bridge.errors import UpstreamError
from rejoinder.bridge.pairing import paired
from rejoinder.bridge.profile import ChatProfile
from rejoinder.bridge.toolbox import Toolbox
from rejoinder.wire.events import Event, encode
from rejoinder.wire.items import Item, Reasoning
from rejoinder.wire.request import CreateRequest
from tests.bridge.reading import said
from tests.bridge.recordings import Asked, Json, Object, Recording, asked, objects

CREATED_AT = 1_795_000_000
"""Unix seconds at which every response is created; they end one second later."""

_ISSUER = Issuer("chat", "recorded", "model")
_OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of an answer: all its events, the last one included, and the error that broke it off, if one did."""

    events: list[Event]
    error: UpstreamError | None
    notes: list[str]

    @property
    def encoded(self) -> list[bytes]:
        return [encode(event) for event in self.events]


class Listener:
    """One response in the making."""

    def __init__(self, request: CreateRequest, toolbox: Toolbox, profile: ChatProfile, seal: Seal | None = None,
                 taken: Iterable[str] = (), ids: "Ids | None" = None) -> None:  # fmt: skip
        self._out = Composer(
            echo(request, response_id="resp_1", created_at=CREATED_AT),
            toolbox,
            mint=ids or Ids(),
            seal=lambda parts, calls: _sealed(seal, parts, calls),
            taken=frozenset(taken),
            reasoning=profile.reasoning,
        )
        self._reader = ChatReader(self._out, profile)

    def hear(self, pieces: Iterable[bytes]) -> Answered:
        """Everything these pieces of an answer come to."""
        out, error = self._out, None
        out.start()
        try:
            for piece in pieces:
                self._reader.feed(piece)
            self._reader.close(CREATED_AT + 1)
        except UpstreamError as broken:
            error = broken
            out.fail(broken.code, str(broken))
        return Answered(out.drain(), error, out.notes)


class Ids:
    """`msg_1`, `fc_2`, …"""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def __call__(self, prefix: str, /) -> str:
        return f"{prefix}_{next(self._numbers)}"


def _sealed(seal: Seal | None, parts: list[Raw], calls: dict[str, Raw]) -> str:
    envelope = Envelope(_ISSUER, parts, calls)
    return seal.close(envelope, owner=_OWNER) if seal is not None else msgspec.json.encode(envelope).decode()


def listeners(recording: Recording) -> Callable[[], Listener]:
    """Makes listeners for the answer of a recording, with the tools that were on offer, or else those it calls."""
    if recording.request is not None:
        body = asked(recording.said, lambda message: []).body([_NOBODY])
    else:
        names = dict.fromkeys(call.name for call in said(recording).calls)
        offered: Json = [{"type": "function", "name": name} for name in names]
        body = Asked({"model": "model", "tools": offered}, [], {}).body([_NOBODY])
    request = CreateRequest.parse(body)
    toolbox = Toolbox.of(request.tools, (), request.tool_choice)
    return lambda: Listener(request, toolbox, recording.profile)


_NOBODY: Object = {"role": "user", "content": "…"}


@dataclass(slots=True)
class Conversation:
    """A conversation with one upstream: what is asked, what it answers, what is asked then."""

    profile: ChatProfile
    seal: Seal = field(default_factory=lambda: Seal([bytes(32)], random=bytes))
    ids: Ids = field(default_factory=Ids)

    def call(self, request: Asked, items: Sequence[Object]) -> bytes:
        """The body sent upstream for these items."""
        prompt = self._prompt(request, items)
        profile = msgspec.structs.replace(
            self.profile, extra={name: Raw(json.dumps(value).encode()) for name, value in request.extra.items()}
        )
        return ChatDialect(profile).call(prompt).body

    def answer(self, request: Asked, items: Sequence[Object], body: bytes) -> list[Object]:
        """The items of an answer, as a client has them and sends them back."""
        prompt = self._prompt(request, items)
        taken = paired((), prompt.items).call_ids
        heard = Listener(prompt.request, prompt.toolbox, self.profile, self.seal, taken, self.ids).hear([body])
        assert heard.error is None, heard.error
        [last] = objects([json.loads(heard.encoded[-1])])
        [response] = objects([last["response"]])
        return objects(response["output"])

    def read(self, message: Object) -> list[Object]:
        """The items of an assistant message that a provider once gave as an answer."""
        names = dict.fromkeys(objects([call["function"]])[0]["name"] for call in objects(message.get("tool_calls", [])))
        offered: Json = [{"type": "function", "name": name} for name in names]
        choice: Json = [{"index": 0, "message": message, "finish_reason": "stop"}]
        request = Asked({"model": "model", "tools": offered}, [], {})
        return self.answer(request, [_NOBODY], json.dumps({"choices": choice}).encode())

    def _prompt(self, asked: Asked, items: Sequence[Object]) -> Prompt:
        request = CreateRequest.parse(asked.body(items))
        said = paired((), request.input).items
        toolbox = Toolbox.of(request.tools, said, request.tool_choice)
        return Prompt(request.model, request, said, toolbox, dict(self._opened(said)), [])

    def _opened(self, items: Sequence[Item]) -> Iterable[tuple[str, Envelope]]:
        for item in items:
            if isinstance(item.view, Reasoning) and item.view.encrypted_content is not None:
                envelope = self.seal.open(item.view.encrypted_content, owner=_OWNER)
                assert envelope is not None
                yield item.view.encrypted_content, envelope
