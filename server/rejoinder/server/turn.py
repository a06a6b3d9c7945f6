"""One turn, top to bottom: lineage, build, upstream, frames, events, save, emit.

Every transport runs this and nothing else; they differ in the sink that takes the events. A plain answer has a sink
that tells nobody, and reads the response off the last event.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec
import structlog
from msgspec import UNSET, Raw, UnsetType

from rejoinder.bridge.compaction import (
    expanded,
    sealed_summary,
    summary_items,
    summary_of,
    summary_request,
    triggered,
    wanted,
)
from rejoinder.bridge.composer import Composer
from rejoinder.bridge.dialect import NOBODY, Identity, Prompt, Reader
from rejoinder.bridge.echo import echo
from rejoinder.bridge.errors import Steered, UpstreamError
from rejoinder.bridge.losses import Loss
from rejoinder.bridge.truncation import shortened
from rejoinder.server.attempts import Attempts
from rejoinder.server.envelope import failure, public
from rejoinder.server.errors import StoreFailed
from rejoinder.server.ids import Ids
from rejoinder.server.lineage import NOWHERE, Lineage, Local, lineage
from rejoinder.server.prompting import Place, kept_by, prompt_of, toolbox_of
from rejoinder.server.running import Cancelled, Interrupted, Stop, Waiting
from rejoinder.server.services import Provider, Services
from rejoinder.server.timers import after
from rejoinder.server.upstream import whole
from rejoinder.store import Missing, Record, StoreError
from rejoinder.wire.errors import BadFrame
from rejoinder.wire.events import Event, Lifecycle
from rejoinder.wire.items import Item, Kept
from rejoinder.wire.request import CreateRequest
from rejoinder.wire.responses import InputTransformation, Usage

STATUS_WAIT = 10.0
"""Seconds a stream's status line waits for the upstream's, so that an early error is a real one (reliability.md §4)."""

STORE_TIMEOUT = 10.0
"""Seconds a commit may take at the end of a turn (reliability.md §4)."""

END_WAIT = 1.0
"""Seconds an upstream may keep the connection open behind a whole answer (reliability.md P8)."""

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
    """What a turn came to. `response` is the encoded object of its last event, `notes` which parameters had no effect,
    `losses` what of the conversation the upstream did not get."""

    response_id: str
    notes: list[str]
    losses: list[Loss] = field(default_factory=list)
    response: Raw = field(default_factory=Raw)


Keep = Callable[[Record, Sequence[Event]], Awaitable[None]]
"""Makes a finished turn durable, before its last events are told."""


async def run(
    request: CreateRequest, sink: Sink, services: Services, *, owner: str, caller: Identity = NOBODY
) -> Outcome:
    """Run one turn to its end, and store it before anybody hears of that end (reliability.md P1).

    `caller` is what the request's headers say of its session. Raises an error of this server, the wire, the bridge or
    the store while nothing has been sent; afterwards, towards a live sink, a failure is the turn's last event.
    """
    services.running.admit()
    with services.running.turn() as stop, services.conversations.turn(request, owner):
        turn = await prepare(request, services, owner=owner, caller=caller, stop=stop)
        return await turn.answer(sink, turn.save if request.store else None)


class Begun(NamedTuple):
    """A response that is made again: its id and when it was made, in unix seconds."""

    id: str
    created_at: int


async def prepare(
    request: CreateRequest,
    services: Services,
    *,
    owner: str,
    caller: Identity,
    stop: Stop,
    kept: bool = False,
    begun: Begun | None = None,
    local: Local = NOWHERE,
) -> "Turn":
    """Everything up to the moment the provider is asked; whatever is wrong with the request is found here.

    `kept` says that the turn is kept in some way though the request does not want it stored, `begun` what response it
    is if that exists already, `local` what can be continued beside what is stored.
    """
    services.condition.admit(store=request.store)
    route = services.routes.find(request.model)
    provider = services.providers[route.upstream.name]
    said = await lineage(request, services.store, owner=owner, local=local)
    ids = Ids(services.random) if begun is None else Ids.of(begun.id)
    place = Place(services, provider, provider.issuer(route.model), owner, ids, stop)
    keeps = request.store or kept or provider.dialect.native
    inputs = kept_by(place.ids, said.conversation.coming) if keeps else []
    prompt = prompt_of(request, said, inputs, place, caller)
    created_at = int(services.clock()) if begun is None else begun.created_at
    response = echo(request, response_id=place.ids.response, created_at=created_at)
    outcome = Outcome(response.id, prompt.notes, prompt.losses)
    out = place.composer(prompt, response, said.conversation.call_ids, raw=provider.shows_raw_reasoning)
    attempts = Attempts(services.settings.server.retries, services.settings.server.retry_budget)
    return Turn(prompt, place, out, outcome, inputs, attempts, said)


@dataclass(slots=True)
class Turn:
    """A turn that can be answered. `inputs` are its own items as they are kept, `said` is what it continues."""

    prompt: Prompt
    place: Place
    out: Composer
    outcome: Outcome
    inputs: Sequence[Kept]
    attempts: Attempts
    said: Lineage

    async def answer(self, sink: Sink, keep: Keep | None, *, ready: Awaitable[None] | None = None) -> Outcome:
        """Ask the provider once it is `ready`, tell the sink, and keep what came of it before its end is told."""
        prompt, out, provider, outcome = self.prompt, self.out, self.place.provider, self.outcome
        try:
            if ready is not None:
                await ready
            await _answered(prompt, self.place, out, sink, outcome, self.attempts)
        except Cancelled:
            if keep is None or not out.has_started:
                raise
            out.cancel()
        except (Interrupted, Steered) as end:
            out.break_off("steered" if isinstance(end, Steered) else "interrupted")
        except (UpstreamError, BadFrame) as error:
            if isinstance(error, UpstreamError):
                error.upstream = provider.name
            if not sink.live or not out.has_started:
                raise
            out.fail(*failure(error))
        prompt.notes.extend(public(note) for note in out.notes)  # they may quote the provider (reliability.md S11)
        # A request that is made twice says the same twice.
        prompt.notes[:] = dict.fromkeys(prompt.notes)
        prompt.losses[:] = dict.fromkeys(prompt.losses)
        events = out.drain()
        if keep is not None:
            try:
                events = await self._kept(events, sink, keep)
            except Exception:
                out.take_back(events)  # whoever answers for it goes on from there
                raise
        last = events[-1]
        assert isinstance(last, Lifecycle)
        outcome.response = last.response
        if prompt.notes or prompt.losses:
            _logger.info(
                "left out",
                response=out.response.id,
                upstream=provider.name,
                notes=prompt.notes,
                losses=[msgspec.to_builtins(loss) for loss in prompt.losses],
            )
        await sink.send(events)
        return outcome

    async def save(self, record: Record, last: Sequence[Event]) -> None:
        """Keep a turn of which nothing is kept yet."""
        owner, services = self.place.owner, self.place.services
        conversation = self.prompt.request.conversation
        if conversation is not None and record.continues:
            await services.conversations.kept.append(conversation, record, owner=owner)
        else:
            await services.store.save(record, owner=owner)

    def record(self, response: Raw) -> Record:
        """The turn as it is now; `response` is its object as it is told."""
        out, prompt = self.out, self.prompt
        status = out.response.status
        # What fails in a conversation is no part of it (semantics.md §4): it has no place there, then or later.
        apart = prompt.request.conversation is not None and status not in ("completed", "incomplete")
        before, parent = self._before()
        added = [flags for record in before for flags in (*record.flags, *bytes(len(record.output)))]
        return Record(
            id=out.response.id,
            parent=None if apart else parent,
            created_at=out.response.created_at,
            status=status,
            response=bytes(response),
            input=[
                *(item for record in before for item in (*record.input, *record.output)),
                *(one.raw for one in self.inputs),
            ],
            output=[_ENCODER.encode(item) for item in out.response.output],
            model=prompt.model,
            upstream=self.place.provider.name,
            upstream_id=out.provider_id or "",
            added=bytes((*added, *(one.added for one in self.inputs))),
            identity=_named(prompt.identity),
            attempts=tuple(self.attempts.failed),
            background=prompt.request.background,
        )

    def _before(self) -> tuple[Sequence[Record], str | None]:
        """What the record has to hold of the turns before it, and the one it can refer to instead.

        A response that is stored and continues one that is not holds the whole conversation itself: what it builds on
        is gone with the connection, and a continuation replays every ancestor (reliability.md P4).
        """
        records = self.said.records
        if not records:
            return (), None
        if self.said.is_local and self.prompt.request.store:
            return records, None
        return (), records[-1].id

    async def _kept(self, events: list[Event], sink: Sink, keep: Keep) -> list[Event]:
        """Keep the turn before its last event goes; what cannot be kept is a failed response (reliability.md F12)."""
        last = events[-1]
        assert isinstance(last, Lifecycle)
        record = self.record(last.response)
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                await keep(record, events)
        except (StoreError, TimeoutError) as error:
            gone = isinstance(error, Missing)
            self.place.services.condition.saw(error)
            _logger.error("response not stored", response=record.id, exc_info=error)
            message = (
                f"Previous response with id '{record.parent}' was deleted while this response was generated."
                if gone
                else "The response was generated but could not be stored."
            )
            if not sink.live:
                raise StoreFailed(message) from error
            self.out.fail_unstored(message)
            return [*events[:-1], *self.out.drain()]
        return events


_TRANSFORMED = ("model_mismatch", "organization_mismatch", "end_user_mismatch", "prefix_mismatch")


def _transformations(losses: Sequence[Loss]) -> list[InputTransformation] | UnsetType:
    """The losses OpenAI has a word for: reasoning that was taken out because it was sealed for somebody else."""
    if not losses:
        return UNSET
    return [
        InputTransformation(loss.id, loss.type, loss.action, loss.reason)
        for loss in losses
        if loss.type == "reasoning" and loss.id and loss.reason in _TRANSFORMED
    ] or UNSET


async def _answered(
    prompt: Prompt, place: Place, out: Composer, sink: Sink, outcome: Outcome, attempts: Attempts
) -> None:
    """Ask until there is an answer: compacted first where that is wanted, again where a refusal can be met with less or
    with patience, and on from where an answer paused."""

    def begin() -> None:
        if not out.has_started:
            out.start()
            sink.begin(outcome, out, out.drain())

    if not prompt.request.generates:
        begin()
        out.register(at=int(place.services.clock()))
        return
    with after(STATUS_WAIT, begin):
        if not place.provider.dialect.compacts:
            if triggered(prompt.items):
                await _compacted(prompt, place, out, sink, begin, attempts)
                out.finish("completed", usage=Usage(), at=int(place.services.clock()))
                return
            if wanted(prompt.request, prompt.items):
                prompt = await _compacted(prompt, place, out, sink, begin, attempts)
        await _asked_on(prompt, place, out, sink, begin, attempts)


async def _asked_on(
    prompt: Prompt, place: Place, out: Composer, sink: Sink, begin: Callable[[], None], attempts: Attempts
) -> None:
    """Ask until the answer is over, each time on from where it paused."""
    while True:
        prompt = await _asked_again(prompt, place, out, sink, begin, attempts)
        if not out.paused:
            return
        prompt = _after(prompt, [*prompt.items, *out.resume()], place.provider, out)


def _after(prompt: Prompt, items: Sequence[Item], provider: Provider, out: Composer) -> Prompt:
    """The prompt that goes on after these items: a search among them may have found further tools."""
    toolbox = toolbox_of(prompt.request, items, provider)
    out.offer(toolbox)
    return dataclasses.replace(prompt, items=items, toolbox=toolbox, parent=None)


async def _asked_again(
    prompt: Prompt, place: Place, out: Composer, sink: Sink, begin: Callable[[], None], attempts: Attempts
) -> Prompt:
    """One answer, and the prompt it was an answer to. Nothing is asked twice once something was shown."""
    while True:
        try:
            await _asked(prompt, place, out, sink, begin)
        except UpstreamError as error:
            if not out.is_idle:
                raise
            lighter = _lighter(prompt, place.provider, error)
            if lighter is None:
                if (wait := attempts.wait_after(error)) is None:
                    raise
                _logger.info("asking again", upstream=place.provider.name, status=error.status, wait=round(wait, 3))
                await _rest(wait, place.stop)
            else:
                prompt = lighter
        else:
            return prompt


def _lighter(prompt: Prompt, provider: Provider, error: UpstreamError) -> Prompt | None:
    """The prompt without what was refused, where the client allows it (mapping.md §1, `truncation`) or loses nothing it
    was promised."""
    if error.code == "context_length_exceeded":
        return shortened(prompt) if prompt.request.fields.truncation == "auto" else None
    return provider.dialect.relent(prompt, error) if error.status == 400 else None


async def _rest(seconds: float, stop: Stop) -> None:
    """Wait, unless the turn is told to stop."""
    waiting: Waiting | None = None
    try:
        async with asyncio.timeout(None) as timeout:
            with stop.waiting(timeout) as waiting:
                await asyncio.sleep(seconds)
    except TimeoutError as error:
        assert waiting is not None
        raise waiting.error() from error


async def _compacted(
    prompt: Prompt, place: Place, out: Composer, sink: Sink, begin: Callable[[], None], attempts: Attempts
) -> Prompt:
    """The prompt with a summary in the place of what was said: written by the model itself, reported as an item."""
    request = summary_request(prompt.request)
    asking = dataclasses.replace(
        prompt,
        request=request,
        items=summary_items(prompt.items),
        toolbox=toolbox_of(request, prompt.items, place.provider),
        parent=None,
    )
    begin()
    out.compacting()
    await sink.send(out.drain())
    listener = place.composer(asking, echo(asking.request, response_id="", created_at=0))
    await _asked_on(asking, place, listener, Discard(), lambda: None, attempts)
    assert listener.response.usage is not None, "an answer that is over is counted"
    out.spend(listener.response.usage)
    for said in listener.notes:
        out.note(said)
    if (cut := listener.response.incomplete_details) is not None:
        # Half a summary says more than none, and without it a conversation that has become too long is stuck.
        out.note(f"compaction: the summary was cut off ({cut.reason})")
    sealed = place.seal(sealed_summary(summary_of(listener.response)))
    out.compacted(sealed)
    items = expanded([*prompt.items, *out.resume()], place.unseal, native=place.provider.dialect.native)
    return _after(prompt, items, place.provider, out)


async def _asked(prompt: Prompt, place: Place, out: Composer, sink: Sink, begin: Callable[[], None]) -> None:
    """Ask the provider and report its answer: to the composer, and event by event to the sink."""
    provider, services = place.provider, place.services
    call = provider.dialect.call(prompt)
    out.response.input_transformations = _transformations(prompt.losses)  # the request may have added to them
    reader = provider.dialect.reader(prompt, out)
    waiting: Waiting | None = None
    try:
        async with asyncio.timeout(None) as timeout:
            with place.stop.waiting(timeout) as waiting:
                waiting.at_most(provider.first_byte_timeout, "the provider did not answer in time")
                async with provider.upstream.open(call) as answer:
                    if not 200 <= answer.status < 300:
                        raise provider.dialect.rejection(answer.status, answer.headers, await whole(answer))
                    begin()
                    await _read(answer.chunks, reader, provider, out, sink, waiting)
    except TimeoutError as error:
        assert waiting is not None
        if not reader.is_over:
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
        patience = END_WAIT if reader.is_over else provider.stall_timeout
        waiting.at_most(patience, "the provider stopped in the middle of its answer")


def _named(who: Identity) -> dict[str, str] | None:
    return {name: value for name, value in msgspec.structs.asdict(who).items() if value} if who != NOBODY else None
