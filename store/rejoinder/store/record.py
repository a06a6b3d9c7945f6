"""One response as it is kept, and how it is written down."""

from collections.abc import Iterable

import msgspec
from msgspec import structs

from rejoinder.store.errors import DamagedRecord
from rejoinder.store.values import unseal

UNFINISHED = ("queued", "in_progress")
"""The statuses of a response that is still made."""

ITEMS = "items"
"""The status of a record that is no response: items a client put into a conversation, or took out of it."""


class Attempt(msgspec.Struct, frozen=True):
    """A request to an upstream that failed before the one that was answered. `waited` is in seconds."""

    status: int
    code: str
    waited: float


class Record(msgspec.Struct, frozen=True, eq=False, weakref=True, omit_defaults=True):
    """One response and what it was asked. Records only grow: a new field has a default."""

    id: str  # resp_…
    parent: str | None  # the record it continues: previous_response_id, or where its conversation stood
    created_at: int  # Unix seconds
    status: str  # completed | incomplete | failed | cancelled | UNFINISHED | ITEMS
    response: bytes  # the Response object as JSON, exactly as it is sent
    input: list[bytes]  # this turn's own input items, JSON each, in order, every one with an id
    output: list[bytes]  # the output items, JSON each
    model: str = ""  # the model's name at the upstream
    upstream: str = ""  # which upstream answered
    upstream_id: str = ""  # what that upstream calls the response, where it keeps it
    added: bytes = b""  # for each input item, one byte of flags: what the client did not send (wire.items.as_sent)
    identity: dict[str, str] | None = None  # session, thread and cache key its client goes by
    attempts: tuple[Attempt, ...] = ()  # what was tried before
    expires_at: int = 0  # Unix seconds; 0: never. It may have been put off since (`keys.until`)
    background: bool = False  # whether its client let go of it, so that it can be cancelled
    journaled: bool = False  # whether the events it was told in are kept
    without: tuple[str, ...] = ()  # ids of items said before that are no longer part of the history from here on

    @property
    def flags(self) -> bytes:
        """`added`, for every input item."""
        return self.added.ljust(len(self.input), b"\0")

    @property
    def continues(self) -> bool:
        """Whether a turn may follow: it has an answer, and so a place in its conversation."""
        return self.status in ("completed", "incomplete")

    @property
    def is_unfinished(self) -> bool:
        return self.status in UNFINISHED


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """A record as it is written. `derived`: its output is left out, since it stands, byte for byte, in the response."""

    record: Record
    derived: bool


class _Answer(msgspec.Struct):
    output: list[msgspec.Raw]


class _Named(msgspec.Struct):
    id: str


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)
_answer = msgspec.json.Decoder(_Answer)
_named = msgspec.json.Decoder(_Named)


def encoded(record: Record) -> bytes:
    derived = _outputs(record.response) == record.output
    return _encoder.encode(_Stored(structs.replace(record, output=[]) if derived else record, derived))


def decoded(key: str, value: bytes) -> Record:
    """The record a value holds. Raises DamagedRecord."""
    try:
        stored = _decoder.decode(unseal(key, value))
    except (ValueError, msgspec.DecodeError) as exc:
        raise DamagedRecord(str(exc)) from exc
    if stored.derived:
        return structs.replace(stored.record, output=_outputs(stored.record.response))
    return stored.record


def item_id(item: bytes) -> str:
    """Raises msgspec.DecodeError for an item without an id."""
    return _named.decode(item).id


def without_hidden(records: Iterable[Record]) -> list[Record]:
    """The records of a history, oldest first, without the items that a later one took out of it."""
    hidden: set[str] = set()
    shown: list[Record] = []
    for record in reversed([*records]):
        shown.append(without(record, hidden) if hidden else record)
        hidden.update(record.without)
    return shown[::-1]


def without(record: Record, hidden: set[str]) -> Record:
    """The record without these items; the same one if it has none of them."""
    if hidden.isdisjoint(map(item_id, (*record.input, *record.output))):
        return record
    given = zip(record.input, record.flags, strict=True)
    stays = [(item, flags) for item, flags in given if item_id(item) not in hidden]
    return structs.replace(
        record,
        input=[item for item, _ in stays],
        added=bytes(flags for _, flags in stays),
        output=[item for item in record.output if item_id(item) not in hidden],
        # What the upstream keeps under this name still has them.
        upstream_id="",
    )


def _outputs(response: bytes) -> list[bytes] | None:
    """The output items inside a Response object, byte for byte; None when there is no such list."""
    try:
        return [bytes(item) for item in _answer.decode(response).output]
    except msgspec.DecodeError:
        return None
