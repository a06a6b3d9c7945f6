"""The lanes of one WebSocket connection (websocket.md §4, §5).

Inside a lane one turn follows the other, in the order in which they were asked for; lanes run side by side. They share
the socket piece by piece, in turn, so that much to tell in one holds up none of the others. A lane that cannot write
does not read on: neither from its provider nor into memory.

What is not stored is kept here, one response a lane: the latest that can be continued.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog
from msgspec import Raw, structs

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.dialect import Identity
from rejoinder.bridge.errors import Steered
from rejoinder.bridge.pairing import unanswered
from rejoinder.server import sse, turn
from rejoinder.server.body import read_request
from rejoinder.server.envelope import describe, failure, frame
from rejoinder.server.notes import headers
from rejoinder.server.running import Interrupted, Stop
from rejoinder.server.services import Services
from rejoinder.server.sse import Pulse
from rejoinder.server.steering import MOST, Code, Said, failed, in_front
from rejoinder.server.whole import whole
from rejoinder.store import Record
from rejoinder.wire.events import Event, SteerAccepted, SteerFailed, SteerPending, encode
from rejoinder.wire.request import CreateRequest, unsupported

AT_ONCE = 16
"""Responses that are made at the same time for one connection."""

PIECE = 16 * 1024
"""Bytes a lane may write before it is another's turn."""

_logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)
_ENCODER = msgspec.json.Encoder()
_FIELDS = msgspec.json.Decoder(dict[str, Raw])


@dataclass(slots=True)
class Asked:
    """A create call that waits for its turn. `previous` is what it continues, `said` what was said to that one while it
    was made; `refused` is why it will not be carried out."""

    body: bytes
    previous: str | None = None
    said: list[Said] = field(default_factory=list)
    succeeds: bool = False
    """Whether nobody asked for it but the words that wait."""

    refused: Exception | None = None


class Writer:
    """The writing end of a connection. `write` takes text messages, encoded, and writes all of them or none; `most` is
    how many bytes of them it is given, the last message not counted."""

    def __init__(self, write: Callable[[Sequence[bytes]], Awaitable[None]], most: int = PIECE) -> None:
        self._write = write
        self._most = most
        self._turns = asyncio.Lock()  # first come, first served
        self.is_gone = False

    async def say(self, frame: bytes) -> None:
        """Write one message that is no lane's."""
        await self.write(deque((frame,)))

    async def write(self, pending: deque[bytes]) -> None:
        """Write what is pending, a piece at a time. Whatever is said to a client that is gone is lost."""
        while pending:
            async with self._turns:
                if self.is_gone:
                    pending.clear()
                    return
                size = 0
                piece: list[bytes] = []
                while pending and size < self._most:
                    piece.append(pending.popleft())
                    size += len(piece[-1])
                if piece:
                    try:
                        await self._write(piece)
                    except OSError:
                        # The end of the connection is told to its reader, which ends everything else.
                        self.is_gone = True
                    except asyncio.CancelledError:
                        # A turn that is told to end while its client does not read has more to say, after this.
                        pending.extendleft(reversed(piece))
                        raise


@dataclass(slots=True)
class Connection:
    """What the lanes of a connection have in common. `local` is what can be continued without a store."""

    services: Services
    owner: str
    caller: Identity
    codex: bool
    pulse: Pulse
    writer: Writer
    idle: Callable[[], None]
    """Called when a lane has nothing to do any more."""

    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    local: dict[str, Sequence[Record]] = field(default_factory=dict)


class Lane:
    """One sequence of turns. `name` is its `stream_id`, None for the one that has none."""

    def __init__(self, name: str | None, connection: Connection) -> None:
        self.name = name
        self._connection = connection
        self._end = b"}" if name is None else b',"stream_id":%b}' % _ENCODER.encode(name)
        self._queue: deque[Asked] = deque()
        self._pending: deque[bytes] = deque()
        self._latest: str | None = None
        self._waiting: tuple[str, list[Said]] | None = None
        """A response that waits for results of tools, and what was said to it."""

        self._sending: set[asyncio.Task[None]] = set()
        self._work: asyncio.Task[None] | None = None
        self.turn: LaneTurn | None = None
        self.last = ""
        """The id of the response that was begun last."""

    @property
    def is_busy(self) -> bool:
        return self._work is not None

    def add(self, asked: Asked) -> None:
        self._queue.append(asked)
        if self._work is None:
            self._work = asyncio.create_task(self._answer_all())

    def waiting(self) -> tuple[int, int]:
        """How many calls wait in this lane, and their bytes."""
        return len(self._queue), sum(len(asked.body) for asked in self._queue)

    def close(self) -> Collection[asyncio.Task[None]]:
        """The client is gone: nobody wants what is made or waits, unless the settings say that it is finished. Returns
        what has been told to end."""
        self._queue.clear()
        ending = [*self._sending]
        work, services = self._work, self._connection.services
        if work is not None:
            if self.turn is not None and self.turn.is_kept and services.settings.server.on_disconnect == "finish":
                services.running.let_go(work)
            else:
                ending.append(work)
        for task in ending:
            task.cancel()
        return ending

    # Telling.

    async def tell(self, events: Sequence[Event]) -> None:
        """Returns when they are written, and with them whatever was put before."""
        self.put(events)
        await self._connection.writer.write(self._pending)

    def put(self, events: Sequence[Event], extra: bytes = b"") -> None:
        """Add events to what is to be told. `extra` are further members of the first one: `,"name":value`."""
        end = self._end
        if self._connection.codex and events:
            events = whole(events)
        for event in events:
            data = encode(event)
            if extra:
                data, extra = data[:-1] + extra + b"}", b""
            self._pending.append(data if end == b"}" else data[:-1] + end)

    def push(self) -> None:
        """Write what was put, without waiting for it."""
        task = asyncio.create_task(self._connection.writer.write(self._pending))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def refuse(self, error: BaseException) -> None:
        """Tell an error that is no response's."""
        body = describe(error, codex=self._connection.codex)
        self._pending.append(frame(body)[:-1] + self._end)
        await self._connection.writer.write(self._pending)

    async def refuse_words(self, said: Said, code: Code, message: str, number: int = 0) -> None:
        """Give back what was said to a response and comes to nothing."""
        await self.tell([SteerFailed(number, *failed(said, code, message))])

    # Working.

    async def _answer_all(self) -> None:
        connection = self._connection
        try:
            while self._queue:
                async with connection.places:
                    # Whoever closes a lane empties its queue, also while it waits here.
                    if self._queue:
                        await self._answer(self._queue.popleft())
                # A turn need not have waited for anything, and other lanes and the reader have work too.
                await asyncio.sleep(0)
        finally:
            self._work = None
            connection.idle()

    async def _answer(self, asked: Asked) -> None:
        """One turn, and what follows from how it ended."""
        said, told = asked.said, None
        if self._waiting is not None:
            parent, words = self._waiting
            self._waiting = None
            if parent == asked.previous:
                said = words
            else:
                for one in words:
                    await self.refuse_words(one, "response_not_active", "The conversation went on without it.")
        try:
            told = await self._made(asked, said)
        except Exception as error:
            # The last frame of this turn: whatever it was, the client hears of it, and the lane goes on.
            await self._failed(asked, said, error)
        finally:
            self.turn = None
        if told is not None:
            await self._ended(told)

    async def _made(self, asked: Asked, said: Sequence[Said]) -> "LaneTurn":
        connection = self._connection
        services, owner = connection.services, connection.owner
        if asked.refused is not None:
            raise asked.refused
        services.running.admit()
        request = await self._request(asked.body, said)
        with services.running.turn() as stop, services.conversations.turn(request, owner):
            prepared = await turn.prepare(
                request, services, owner=owner, caller=connection.caller, stop=stop, kept=True, local=connection.local
            )
            self.turn = made = LaneTurn(self, connection, request, prepared, stop)
            if connection.codex:
                connection.pulse.add(made)
            try:
                await prepared.answer(made, made.keep)
            finally:
                connection.pulse.remove(made)
        if made.out.response.status == "failed":
            self._evict(asked.previous)
        return made

    async def _request(self, body: bytes, said: Sequence[Said]) -> CreateRequest:
        if said:
            body = _ENCODER.encode(in_front(said, _FIELDS.decode(body)))
        request = await read_request(body, message=True)
        if request.background:
            raise unsupported("background", "a WebSocket is the foreground")
        return request

    async def _failed(self, asked: Asked, said: Sequence[Said], error: Exception) -> None:
        """The turn raised: before it began that is an error, afterwards the end of a response (reliability.md P8)."""
        made, number = self.turn, 0
        self._evict(asked.previous)
        if made is not None and made.has_begun:
            made.out.fail(*failure(error))
            await self.tell(made.out.drain())
            said, number = made.said, made.out.number()
        elif not asked.succeeds:
            await self.refuse(error)
        for one in said:
            await self.refuse_words(one, "successor_creation_failed", describe(error).message, number)

    async def _ended(self, made: "LaneTurn") -> None:
        """What was said to a response while it was made is now said in the next one."""
        said, out = made.said, made.out
        if not said or self._connection.writer.is_gone:
            return
        if out.response.status == "failed":
            for one in said:
                await self.refuse_words(one, "successor_creation_failed", "The response failed.", out.number())
        elif wanted := unanswered(out.said()):
            self._waiting = (out.response.id, said)
            await self.tell(
                [SteerPending(out.number(), "waiting_for_required_input", wanted, one.steer) for one in said]
            )
        else:
            parent = Raw(_ENCODER.encode(out.response.id))
            fields = {**made.request.raw, "previous_response_id": parent, "input": Raw(b"[]")}
            self._queue.appendleft(Asked(_ENCODER.encode(fields), out.response.id, said, succeeds=True))

    # What is kept for whoever goes on.

    def hold(self, record: Record, before: Sequence[Record]) -> None:
        """Keep a response that is in no store; the one before it in this lane has had its time."""
        self.let_go()
        # What its provider was told not to keep cannot be referred to there.
        self._connection.local[record.id] = [*before, structs.replace(record, upstream_id="")]
        self._latest = record.id

    def let_go(self) -> None:
        if self._latest is not None:
            self._connection.local.pop(self._latest, None)
            self._latest = None

    def _evict(self, previous: str | None) -> None:
        """A turn that failed takes what it continued with it, where that was this lane's own (websocket.md §5)."""
        if previous is not None and previous == self._latest:
            self.let_go()


class LaneTurn:
    """A turn of a lane: the sink of its events, and what its client says to it meanwhile."""

    live = True

    def __init__(
        self, lane: Lane, connection: Connection, request: CreateRequest, prepared: turn.Turn, stop: Stop
    ) -> None:
        self.id = prepared.out.response.id
        self.request = request
        self.out = prepared.out
        self.said: list[Said] = []
        self._lane = lane
        self._connection = connection
        self._turn = prepared
        self._stop = stop
        self._most_bytes = connection.services.settings.server.max_body_bytes
        self._since = 0.0  # of the last event, on the loop's clock
        self.has_begun = False

    @property
    def is_kept(self) -> bool:
        return self.request.store

    @property
    def is_open(self) -> bool:
        """Whether the client knows of it and it is not over."""
        return self.has_begun and self.out.response.status == "in_progress"

    def begin(self, outcome: turn.Outcome, out: Composer, events: Sequence[Event]) -> None:
        if self._connection.codex:
            out.spell_out_refusals()
        # What an answer over HTTP says in its head.
        said = headers(outcome.notes, outcome.losses)
        self._lane.put(events, b',"headers":%b' % _ENCODER.encode(said) if said else b"")
        self._lane.push()
        self._lane.last = self.id
        self.has_begun = True
        self._since = asyncio.get_running_loop().time()

    async def send(self, events: Sequence[Event]) -> None:
        await self._lane.tell(events)
        self._since = asyncio.get_running_loop().time()

    async def keep(self, record: Record, events: Sequence[Event]) -> None:
        """Keep the turn, in the store or for as long as the connection lasts."""
        if self.request.store:
            await self._turn.save(record, events)
            if record.continues:
                self._lane.let_go()
        elif record.continues:
            self._lane.hold(record, self._turn.said.records)

    def beat(self, now: float) -> None:
        """Codex waits for events, and what keeps the connection alive is none (codex.md §5)."""
        if self.has_begun and now - self._since > sse.KEEP_ALIVE:
            self._since = now
            self.out.keep_alive()
            self._lane.put(self.out.drain())
            self._lane.push()

    def _said_bytes(self) -> int:
        return sum(len(bytes(one.given)) for one in self.said)

    def interrupt(self) -> None:
        """The client wants no more of this answer."""
        self._stop.now(Interrupted())

    async def hear(self, said: Said) -> None:
        """The client says something to the response. Some have no place for it: where a conversation is appended to,
        or a summary would be written of what is not said yet (websocket.md §7)."""
        out = self.out
        if self.request.conversation is not None or self.request.fields.context_management:
            why = "A response of a conversation, or with automatic compaction, cannot be steered."
            await self._lane.refuse_words(said, "steering_not_supported", why, out.number())
        elif len(self.said) >= MOST or self._said_bytes() + len(bytes(said.given)) > self._most_bytes:
            why = f"There are {len(self.said)} steers waiting for this response already."
            await self._lane.refuse_words(said, "too_many_pending_steers", why, out.number())
        else:
            self.said.append(said)
            out.end_early()
            if out.is_idle:
                # There is nothing to finish first.
                self._stop.now(Steered())
            await self._lane.tell([SteerAccepted(out.number(), said.steer)])
