"""Turns that belong to no connection: background responses, and requests with an idempotency key.

A run is an ordinary turn with a sink of its own. Its record is in the store from the beginning, unfinished; how many
follow its stream, and whether anybody does, makes no difference to it. Its last events and its record are one commit.

    queued ── in_progress ── completed | incomplete | failed | cancelled

What a crash left unfinished is found when the server starts: it is made again if nothing was told of it and the
settings allow that, else it ends as `failed` (reliability.md F22).
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import structlog
from msgspec import Raw

from rejoinder.bridge.composer import Composer, encoded
from rejoinder.bridge.dialect import Identity
from rejoinder.server import turn
from rejoinder.server.envelope import failure
from rejoinder.server.errors import Gone, InvalidRequest, KeyReused, TooMany
from rejoinder.server.journal import Journal, pieces
from rejoinder.server.running import Cancelled, ShuttingDown
from rejoinder.server.services import Services
from rejoinder.store import Change, DamagedRecord, Missing, Record, Refused, Store, StoreError
from rejoinder.store import runs as rows
from rejoinder.wire import sse
from rejoinder.wire.events import Created, Event, Failed, InProgress
from rejoinder.wire.request import CreateRequest
from rejoinder.wire.responses import Failure

AT_ONCE = 64
"""Background responses that are made at the same time; the others are queued."""

PER_OWNER = 1000
"""Unfinished background responses of one owner (reliability.md P7)."""

_logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)
_ENCODER = msgspec.json.Encoder()


class HandedOver(Exception):
    """Raised to end a run without an end: the server stops, and makes the response after its next start."""


class Run:
    """A turn under way that no connection owns: the sink of its events, and what is kept of it meanwhile."""

    live = True

    def __init__(self, request: CreateRequest, services: Services, prepared: turn.Turn) -> None:
        place = prepared.place
        self.id = prepared.out.response.id
        self.request = request
        self.owner = place.owner
        self.stop = place.stop
        self.store = services.shelf(store=request.store)
        self.outcome = prepared.outcome
        self.answered = asyncio.Event()
        """There is something to tell: the turn has begun to be answered, or is over."""

        self.over = asyncio.Event()
        self.error: Exception | None = None
        """Why there is no response, where the turn was refused before there was one."""

        self.handed_over = False
        """Whether this process is done with it, and it is not over."""

        self.journal: Journal | None = None
        self.first = b""
        """The response as it was before anything was done for it."""

        self._services = services
        self._turn = prepared
        self._waiting = 0
        self._finishes = services.settings.server.on_disconnect == "finish"
        self._has_place = False
        self._is_kept = False

    async def open(self, beside: Change) -> None:
        """Put the response into the store, unfinished, before anybody hears of it."""
        out = self._turn.out
        frames: list[bytes] = []
        if self.request.background:
            out.queue()
            frames = [sse.frame(event) for event in out.drain()]
        if self.request.stream:
            self._keep_journal(0, 0)
        caller = msgspec.structs.asdict(self._turn.prompt.identity)
        known = {name: value for name, value in caller.items() if value}
        begun = rows.begun(rows.Run(self.owner, self.id, _ENCODER.encode(self.request.raw), known))
        record = self._record(self._turn.record(encoded(out.response)))
        self.first = record.response
        if self.journal is None:
            await self.store.save(record, owner=self.owner, beside=rows.together(begun, beside))
        else:
            told = self.journal.change(frames)
            await self.store.save(record, owner=self.owner, beside=rows.together(begun, beside, told))
            self.journal.written(frames)

    def reopen(self, pieces: int, frames: int) -> None:
        """Go on with a response that is in the store already, and of whose stream so much."""
        self._turn.out.go_on(max(frames, 1))
        if self.request.stream:
            self._keep_journal(pieces, frames)

    async def answer(self, places: asyncio.Semaphore) -> None:
        """Make the response; one in the background as soon as there is a place for it."""
        ready = self._ready(places) if self.request.background else None
        sink = turn.Discard() if ready is None and self.journal is None else self
        try:
            await self._turn.answer(sink, self._keep, ready=ready)
        finally:
            if self._has_place:
                places.release()
        if self.journal is not None:
            # What could not be written is told all the same: a stream has to end.
            self.journal.written(await self.journal.settle())

    @contextmanager
    def attended(self) -> Iterator[None]:
        """A connection waits for the run. One that is no background response ends with the last of them, unless it is
        over or the settings say otherwise (reliability.md F1)."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            if not (self._waiting or self.request.background or self._finishes):
                self.stop.now(Cancelled())

    # The sink.

    def begin(self, outcome: turn.Outcome, out: Composer, events: Sequence[Event]) -> None:
        self._add(events)
        self.answered.set()

    async def send(self, events: Sequence[Event]) -> None:
        if self.journal is not None and not self._is_kept:
            self._add(events)
            await self.journal.room()

    # Inside.

    async def _ready(self, places: asyncio.Semaphore) -> None:
        try:
            async with asyncio.timeout(None) as timeout:
                with self.stop.waiting(timeout) as waiting:
                    await places.acquire()
        except TimeoutError as error:
            raise waiting.error() from error
        self._has_place = True
        out = self._turn.out
        out.proceed()
        events = out.drain()
        await self.store.replace(self._record(self._turn.record(encoded(out.response))), owner=self.owner)
        self.begin(self.outcome, out, events)

    async def _keep(self, record: Record, events: Sequence[Event]) -> None:
        """The last commit: the record, and what is not written yet of the stream."""
        if record.status == "failed" and isinstance(self.stop.error, ShuttingDown) and self._is_handed_over():
            raise HandedOver
        journal = self.journal
        if journal is None:
            await self._replace(record, Change())
            return
        rest = await journal.settle()
        frames = [*rest, *map(sse.frame, events)]
        try:
            await self._replace(record, journal.change(frames))
        except BaseException:
            journal.add(rest)
            raise
        self._is_kept = True
        journal.written(frames)

    def _is_handed_over(self) -> bool:
        """Whether the next start makes this response again: nothing of its answer was told."""
        goes_on = self._services.settings.server.background_recovery == "continue"
        return goes_on and self.request.background and not self._turn.out.response.output

    async def _replace(self, record: Record, beside: Change) -> None:
        record = self._record(record)
        conversation = self.request.conversation
        if conversation is not None and record.continues and self.request.store:
            append = self._services.conversations.kept.append
            await append(conversation, record, owner=self.owner, beside=beside, begun=True)
        else:
            await self.store.replace(record, owner=self.owner, beside=beside)

    def _record(self, record: Record) -> Record:
        # In memory there is nothing that it could continue.
        parent = record.parent if self.request.store else None
        return msgspec.structs.replace(record, journaled=self.request.stream, parent=parent)

    def _keep_journal(self, pieces: int, frames: int) -> None:
        condition = self._services.condition
        self.journal = Journal(
            self.store, self.id, owner=self.owner, stop=self.stop, condition=condition, pieces=pieces, frames=frames
        )

    def _add(self, events: Sequence[Event]) -> None:
        if self.journal is not None:
            self.journal.add([*map(sse.frame, events)])


@dataclass(frozen=True, slots=True)
class Told:
    """What a create call led to: a run if it is under way, else its record. `replayed`: an earlier call began it, with
    the same key."""

    run: Run | None
    record: Record | None
    replayed: bool = False


class Runs:
    """All runs of this process, by owner and id."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._runs: dict[tuple[str, str], Run] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._resuming: dict[tuple[str, str], asyncio.Event] = {}
        self._opening: dict[tuple[str, str], asyncio.Event] = {}
        self._in_background: Counter[str] = Counter()

    def get(self, response_id: str, owner: str) -> Run | None:
        return self._runs.get((owner, response_id))

    async def create(
        self, request: CreateRequest, body: bytes, *, owner: str, caller: Identity, key: str | None
    ) -> Told:
        """Begin a run, or find the one that this key has begun (reliability.md F14).

        Raises what is wrong with the request, and KeyReused when the key came with another body before.
        """
        if key is None:
            return Told(await self._begin(request, owner, caller), None)
        place = (owner, key)
        while (other := self._opening.get(place)) is not None:
            await other.wait()
        opening = self._opening[place] = asyncio.Event()
        try:
            return await self._once(request, hashlib.sha256(body).digest(), owner, caller, key)
        finally:
            del self._opening[place]
            opening.set()

    async def find(self, response_id: str, *, owner: str) -> tuple[Store, Record]:
        """A response, stored or not, as it is now. Raises Missing, DamagedRecord."""
        store = self._services.volatile
        try:
            record = await store.get(response_id, owner=owner)
        except Missing:
            store = self._services.store
            record = await store.get(response_id, owner=owner)
        if record.is_unfinished and (resuming := self._resuming.get((owner, response_id))) is not None:
            await resuming.wait()
            record = await store.get(response_id, owner=owner)
        if record.is_unfinished and self.get(response_id, owner) is None:
            # Its end could not be written when it came; nobody makes it any more.
            record = await self._end(store, record, owner)
        return store, record

    async def cancel(self, response_id: str, *, owner: str) -> Record:
        """End a background response; what it came to, if it was over already (F19). Raises Missing, and InvalidRequest
        for one whose client waits for it."""
        _, record = await self.find(response_id, owner=owner)
        if not record.background:
            raise InvalidRequest("Cannot cancel a synchronous response.", param="response_id")
        await self._stopped(response_id, owner)
        _, record = await self.find(response_id, owner=owner)
        return record

    async def delete(self, response_id: str, *, owner: str) -> None:
        """Remove a response; one that is still made is ended first (F21). Raises Missing."""
        store, record = await self.find(response_id, owner=owner)
        await self._stopped(response_id, owner)
        try:
            await store.delete(response_id, owner=owner)
        except Missing:
            # One that was ended before it began to be answered leaves nothing.
            if not record.is_unfinished:
                raise

    async def recover(self) -> None:
        """Deal with what an earlier process left unfinished; to be called before the first request."""
        services = self._services
        goes_on = services.settings.server.background_recovery == "continue"
        async for left in rows.unfinished(services.store):
            if isinstance(left, DamagedRecord):
                _logger.error("damaged record", exc_info=left)
                continue
            try:
                record = await services.store.get(left.id, owner=left.owner)
                if goes_on and record.background and await self._is_untold(record, left.owner):
                    await self._resume(left, record)
                else:
                    await self._end(services.store, record, left.owner)
            except (Missing, DamagedRecord) as error:
                _logger.error("an unfinished response cannot be ended", response=left.id, exc_info=error)

    # Beginning.

    async def _once(self, request: CreateRequest, digest: bytes, owner: str, caller: Identity, key: str) -> Told:
        services = self._services
        was = {}
        fresh: list[rows.Once] = []
        for store in (services.store, services.volatile):
            known, was[store] = await rows.known(store, key, owner=owner)
            if known is not None and known.at > services.clock() - rows.KEPT_ONCE:
                fresh.append(known)
        for known in fresh:
            if known.digest != digest:
                raise KeyReused("This idempotency key was used before, with another body.")
            if (run := self.get(known.response_id, owner)) is not None:
                if run.stop.error is None:
                    return Told(run, None, replayed=True)
                await run.over.wait()  # it is being ended, and what it comes to decides
            try:
                _, record = await self.find(known.response_id, owner=owner)
            except Missing:
                pass  # deleted: then it is made again
            else:
                if not _is_worth_another_try(record):
                    return Told(None, record, replayed=True)
        entry = rows.Once(digest, "", int(services.clock()))
        row = was[services.shelf(store=request.store)]
        return Told(await self._begin(request, owner, caller, key=key, entry=entry, was=row), None)

    async def _begin(
        self,
        request: CreateRequest,
        owner: str,
        caller: Identity,
        *,
        key: str | None = None,
        entry: rows.Once | None = None,
        was: bytes | None = None,
    ) -> Run:
        services = self._services
        services.running.admit()
        if request.background and self._in_background[owner] >= PER_OWNER:
            raise TooMany(f"There are {PER_OWNER} unfinished background responses. Please try again in 10s.")
        self._in_background[owner] += request.background
        begun: asyncio.Future[Run] = asyncio.get_running_loop().create_future()

        async def made() -> None:
            try:
                with services.running.turn() as stop, services.conversations.turn(request, owner):
                    prepared = await turn.prepare(request, services, owner=owner, caller=caller, stop=stop, kept=True)
                    run = Run(request, services, prepared)
                    beside = Change()
                    if key is not None and entry is not None:
                        named = msgspec.structs.replace(entry, response_id=run.id)
                        beside = rows.once(key, named, was=was, owner=owner)
                    await run.open(beside)
                    await self._made(run, begun)
            except Exception as error:  # the last frame of this task; who asked for the run raises it
                if begun.done():
                    _logger.error("a run ended badly", exc_info=error)
                else:
                    begun.set_exception(error)
            finally:
                self._in_background[owner] -= request.background

        services.running.begin(made())
        return await asyncio.shield(begun)

    async def _made(self, run: Run, begun: asyncio.Future[Run] | None = None) -> None:
        """Make a response that is in the store, unfinished, and see to it that it does not stay so."""
        place = (run.owner, run.id)
        self._runs[place] = run
        if begun is not None and not begun.cancelled():
            begun.set_result(run)
        try:
            await run.answer(self._places)
        except HandedOver:
            run.handed_over = True
        except Exception as error:
            # The last frame of a turn that nobody else answers for.
            await self._give_up(run, error)
        finally:
            del self._runs[place]
            run.over.set()
            run.answered.set()
            if run.journal is not None:
                run.journal.written(())

    async def _give_up(self, run: Run, error: Exception) -> None:
        """The turn came to nothing that it could say itself: in the background that is a failed response, and for a
        client that waits it is the answer, as if there had been none."""
        try:
            if run.request.background:
                rest = await run.journal.settle() if run.journal is not None else ()
                await self._end(run.store, await run.store.get(run.id, owner=run.owner), run.owner, error, rest)
            else:
                run.error = Gone() if isinstance(error, Cancelled) else error
                await run.store.delete(run.id, owner=run.owner)
        except Missing:
            pass  # deleted meanwhile
        except StoreError as broken:
            # Whoever looks at it later ends it, or the next start does.
            _logger.error("a run could not be ended", response=run.id, exc_info=broken)

    async def _stopped(self, response_id: str, owner: str) -> None:
        run = self.get(response_id, owner)
        if run is not None:
            run.stop.now(Cancelled())
            await run.over.wait()

    # After a crash.

    async def _is_untold(self, record: Record, owner: str) -> bool:
        """Whether nobody can have seen anything of the answer."""
        async for piece in pieces(self._services.store, record.id, owner=owner):
            if any(not frame.startswith(_BEFORE_THE_ANSWER) for frame in piece.frames):
                return False
        return True

    async def _resume(self, left: rows.Run, record: Record) -> None:
        services = self._services
        written = [piece async for piece in pieces(services.store, record.id, owner=left.owner)]
        self._in_background[left.owner] += 1
        # Whoever looks for it before it is under way waits, and does not take it for one that nobody makes.
        place = (left.owner, record.id)
        resuming = self._resuming[place] = asyncio.Event()

        async def made() -> None:
            request = CreateRequest.parse(left.request)
            begun = turn.Begun(record.id, record.created_at)
            try:
                with services.running.turn() as stop, services.conversations.turn(request, left.owner):
                    prepared = await turn.prepare(
                        request,
                        services,
                        owner=left.owner,
                        caller=Identity(**left.caller),
                        stop=stop,
                        kept=True,
                        begun=begun,
                    )
                    run = Run(request, services, prepared)
                    run.reopen(len(written), written[-1].following if written else 0)
                    self._runs[place] = run
                    resuming.set()
                    await self._made(run)
            except Exception as error:  # the last frame of this task: what can no longer be made has failed
                await self._end(services.store, record, left.owner, error)
            finally:
                del self._resuming[place]
                resuming.set()
                self._in_background[left.owner] -= 1

        _logger.info("a background response is made again", response=record.id)
        services.running.begin(made())

    async def _end(
        self, store: Store, record: Record, owner: str, error: Exception | None = None, rest: Sequence[bytes] = ()
    ) -> Record:
        """The end of a response that nobody makes any more; how it ended, if somebody was faster. `rest` are frames
        that were not written yet."""
        written = [piece async for piece in pieces(store, record.id, owner=owner)]
        ended = _failed(record, [*(frame for piece in written for frame in piece.frames), *rest], error)
        beside = Change()
        if record.journaled:
            number = written[-1].following if written else 0
            frames = [*rest]
            if not (written or rest):
                response = Raw(record.response)
                frames += map(sse.frame, (Created(0, response), InProgress(1, response)))
            frames.append(sse.frame(Failed(number + len(frames), Raw(ended.response))))
            beside = rows.told(record.id, len(written), number, frames, owner=owner)
        try:
            await store.replace(ended, owner=owner, beside=beside)
        except Refused:
            return await store.get(record.id, owner=owner)
        return ended


_BEFORE_THE_ANSWER = (b"event: response.created\n", b"event: response.queued\n", b"event: response.in_progress\n")
_ITEM_DONE = b"event: response.output_item.done\n"
_INTERRUPTED = "The server stopped while this response was generated."


class _Done(msgspec.Struct):
    item: Raw


class _Error(msgspec.Struct):
    code: str


class _Ended(msgspec.Struct):
    error: _Error | None = None


_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_DONE = msgspec.json.Decoder(_Done)
_ENDED = msgspec.json.Decoder(_Ended)


def _failed(record: Record, told: Sequence[bytes], error: Exception | None) -> Record:
    """The record of a response that broke off, with the items that were told to be done (reliability.md F5)."""
    done = [frame for frame in told if frame.startswith(_ITEM_DONE)]
    output = [_DONE.decode(frame.partition(b"\ndata: ")[2]).item for frame in done]
    code, message = failure(error) if error is not None else ("server_error", _INTERRUPTED)
    fields = _FIELDS.decode(record.response)
    said = {"status": "failed", "error": Failure(code, message), "output": output}
    response = _ENCODER.encode({**fields, **said})
    return msgspec.structs.replace(record, status="failed", response=response, output=[*map(bytes, output)])


def _is_worth_another_try(record: Record) -> bool:
    """Whether a call with the same key is a second attempt, and not a second question (reliability.md F14)."""
    if record.status == "cancelled":
        return not record.background  # its client had left, and comes back for it
    error = _ENDED.decode(record.response).error
    return error is not None and error.code in ("server_error", "rate_limit_exceeded")
