"""One turn, top to bottom: lineage, build, upstream, frames, events, save, emit.

Every transport runs this and nothing else; they differ in the sink that takes the events. A plain answer has a sink
that tells nobody, and reads the response off the last event.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import structlog
from msgspec import Raw

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.dialect import Prompt, Reader
from rejoinder.bridge.echo import echo
from rejoinder.bridge.envelope import Envelope, Issuer
from rejoinder.bridge.errors import UpstreamError
from rejoinder.bridge.toolbox import Toolbox
from rejoinder.bridge.truncation import shortened
from rejoinder.server.envelope import failure
from rejoinder.server.errors import StoreFailed
from rejoinder.server.ids import PREFIXES, Ids
from rejoinder.server.lineage import Lineage, lineage
from rejoinder.server.running import Waiting
from rejoinder.server.services import Provider, Services
from rejoinder.server.timers import after
from rejoinder.server.upstream import Answer
from rejoinder.store import Missing, Record, StoreError
from rejoinder.wire.errors import BadFrame
from rejoinder.wire.events import Event, Lifecycle
from rejoinder.wire.items import HostedCall, Reasoning, kept
from rejoinder.wire.request import CreateRequest

STATUS_WAIT = 10.0
"""Seconds a stream's status line waits for the upstream's, so that an early error is a real one (reliability.md §4)."""

STORE_TIMEOUT = 10.0
"""Seconds a commit may take at the end of a turn (reliability.md §4)."""

MAX_REFUSAL = 2**20
"""Bytes read of an upstream's error body."""

_logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)
_ENCODER = msgspec.json.Encoder()


class Sink(Protocol):
    """Where the events of a turn go."""

    def begin(self, outcome: "Outcome", out: Composer, events: Sequence[Event]) -> None:
        """The turn will be answered, and these are its first events."""

    async def send(self, events: Sequence[Event]) -> None:
        """Further events; returns when there is room for more (reliability.md F24)."""

    @property
    def live(self) -> bool:
        """Whether somebody reads along: then an error after the beginning is an event, not a status."""


class Discard:
    """The sink of a plain answer: nobody is told anything before the end."""

    live = False

    def begin(self, outcome: "Outcome", out: Composer, events: Sequence[Event]) -> None:
        pass

    async def send(self, events: Sequence[Event]) -> None:
        pass


@dataclass(slots=True)
class Outcome:
    """What a turn came to. `response` is the encoded object of its last event, `notes` what was left out and why."""

    response_id: str
    notes: list[str]
    response: Raw = field(default_factory=Raw)


async def run(request: CreateRequest, sink: Sink, services: Services, *, owner: str) -> Outcome:
    """Run one turn to its end, and store it before anybody hears of that end (reliability.md P1).

    Raises an error of this server, the wire, the bridge or the store while nothing has been sent; afterwards, towards
    a live sink, a failure is the turn's last event.
    """
    services.running.admit()
    services.condition.admit(store=request.store)
    route = services.routes.find(request.model)
    provider = services.providers[route.upstream.name]
    said = await lineage(request, services.store, owner=owner)
    issuer = provider.issuer(route.model)
    prompt = _prompt(request, said, route.model, issuer, services, owner)
    ids = Ids(services.random)
    outcome = Outcome(ids.response, prompt.notes)
    out = Composer(
        echo(request, response_id=ids.response, created_at=int(services.clock())),
        prompt.toolbox,
        mint=ids.mint,
        seal=lambda parts, calls: services.seal.close(Envelope(issuer, parts, calls), owner=owner),
        taken=said.conversation.call_ids,
        reasoning=route.upstream.profile.reasoning,
    )
    try:
        await _answered(prompt, provider, out, sink, outcome, services)
    except (UpstreamError, BadFrame) as error:
        if isinstance(error, UpstreamError):
            error.upstream = provider.name
        if not sink.live or not out.has_started:
            raise
        out.fail(*failure(error))
    prompt.notes.extend(out.notes)
    events = out.drain()
    if request.store:
        record = _record(request, said, out, events[-1], ids, provider, route.model)
        events = await _kept(record, events, sink, out, services, owner)
    last = events[-1]
    assert isinstance(last, Lifecycle)
    outcome.response = last.response
    if prompt.notes:
        _logger.info("left out", response=ids.response, upstream=provider.name, notes=prompt.notes)
    await sink.send(events)
    return outcome


def _prompt(
    request: CreateRequest, said: Lineage, model: str, issuer: Issuer, services: Services, owner: str
) -> Prompt:
    items = said.conversation.items
    toolbox = Toolbox.of(request.tools, items, request.tool_choice)
    notes = [f"{name}: unknown or without effect here" for name in request.ignored]
    notes.extend(toolbox.notes)
    if any(b'"prompt_cache_breakpoint"' in item.raw for item in said.coming):
        notes.append("input: prompt_cache_breakpoint is not passed on")
    opened: dict[str, Envelope] = {}
    for item in items:
        if isinstance(item.view, Reasoning) and (sealed := item.view.encrypted_content):
            envelope = services.seal.open(sealed, owner=owner)
            if envelope is not None and envelope.issuer == issuer:
                opened[sealed] = envelope
            else:
                # Opaque state goes back to its issuer only (mapping.md §5, reading back, rules 2 to 4).
                notes.append(f"input: reasoning {item.id or ''} belongs to another model and was left out")
        elif isinstance(item.view, HostedCall):
            notes.append(f"input: {item.type} {item.id or ''} ran at another provider and was left out")
        elif isinstance(item.view, Reasoning) and item.view.text:
            notes.append(f"input: reasoning {item.id or ''} has no 'encrypted_content' and was left out")
    return Prompt(model, request, items, toolbox, opened, notes)


async def _answered(
    prompt: Prompt, provider: Provider, out: Composer, sink: Sink, outcome: Outcome, services: Services
) -> None:
    """Ask, and where the client allows it ask again with less of the past (mapping.md §1, `truncation`)."""
    while True:
        try:
            return await _asked(prompt, provider, out, sink, outcome, services)
        except UpstreamError as error:
            if error.code != "context_length_exceeded" or not out.is_empty:
                raise
            shorter = shortened(prompt) if prompt.request.fields.truncation == "auto" else None
            if shorter is None:
                raise
            prompt = shorter


async def _asked(
    prompt: Prompt, provider: Provider, out: Composer, sink: Sink, outcome: Outcome, services: Services
) -> None:
    """Ask the provider and report its answer: to the composer, and event by event to the sink."""
    call = provider.dialect.call(prompt)
    reader = provider.dialect.reader(prompt, out)

    def begin() -> None:
        if not out.has_started:
            out.start()
            sink.begin(outcome, out, out.drain())

    waiting: Waiting | None = None
    try:
        async with asyncio.timeout(None) as timeout:
            with services.running.waiting(timeout) as waiting, after(STATUS_WAIT, begin):
                waiting.at_most(provider.first_byte_timeout, "the provider did not answer in time")
                async with provider.upstream.open(call) as answer:
                    if not 200 <= answer.status < 300:
                        raise provider.dialect.rejection(answer.status, answer.headers, await _refusal(answer))
                    begin()
                    await _read(answer.chunks, reader, provider, out, sink, waiting)
    except TimeoutError as error:
        assert waiting is not None
        raise waiting.error() from error
    reader.close(int(services.clock()))


async def _read(
    chunks: AsyncIterator[bytes], reader: Reader, provider: Provider, out: Composer, sink: Sink, waiting: Waiting
) -> None:
    async for chunk in chunks:
        reader.feed(chunk)
        events = out.drain()
        if events:
            waiting.freely()
            await sink.send(events)
        waiting.at_most(provider.stall_timeout, "the provider stopped in the middle of its answer")


async def _refusal(answer: Answer) -> bytes:
    body = bytearray()
    async for chunk in answer.chunks:
        body += chunk
        if len(body) > MAX_REFUSAL:
            break
    return bytes(body[:MAX_REFUSAL])


def _record(
    request: CreateRequest, said: Lineage, out: Composer, last: Event, ids: Ids, provider: Provider, model: str
) -> Record:
    assert isinstance(last, Lifecycle)
    response = out.response
    inputs = [kept(item, ids.mint(PREFIXES.get(item.type, "item"))).raw for item in said.coming]
    return Record(
        id=response.id,
        parent=response.previous_response_id,
        created_at=response.created_at,
        status=response.status,
        response=bytes(last.response),
        input=inputs,
        output=[_ENCODER.encode(item) for item in response.output],
        model=model,
        upstream=provider.name,
    )


async def _kept(
    record: Record, events: list[Event], sink: Sink, out: Composer, services: Services, owner: str
) -> list[Event]:
    """Store the turn before its last event goes; what cannot be stored is a failed response (reliability.md F12)."""
    try:
        async with asyncio.timeout(STORE_TIMEOUT):
            await services.store.save(record, owner=owner)
    except (StoreError, TimeoutError) as error:
        gone = isinstance(error, Missing)
        services.condition.saw(error)
        _logger.error("response not stored", response=record.id, exc_info=error)
        message = (
            f"Previous response with id '{record.parent}' was deleted while this response was generated."
            if gone
            else "The response was generated but could not be stored."
        )
        if not sink.live:
            raise StoreFailed(message) from error
        out.fail_unstored(message)
        return [*events[:-1], *out.drain()]
    return events
