"""How much of what a store holds."""

from collections import defaultdict
from dataclasses import dataclass, field

from rejoinder.store.errors import DamagedRecord
from rejoinder.store.reading import ReadingBackend, Row
from rejoinder.store.record import ITEMS, Record, decoded
from rejoinder.store.records import opened
from rejoinder.store.verification import kind_of

KINDS = (
    "responses",
    "unfinished responses",
    "deleted responses that others build on",
    "items put into conversations",
    "conversations",
    "stream pieces",
    "idempotency keys",
    "bookkeeping",
    "unreadable",
)
"""Of which a row is one."""

_PAGE = 200
_KINDS = {"conversation": "conversations", "event": "stream pieces", "once": "idempotency keys"}


@dataclass(slots=True)
class Share:
    """How many rows, and how large their values are, as they lie on the disk."""

    rows: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Survey:
    """What was counted. The times are those at which responses were made, in Unix seconds, None where there are none;
    `expired` responses can no longer be seen, and their bytes are there until they are swept."""

    shares: dict[str, Share] = field(default_factory=lambda: {kind: Share() for kind in KINDS})
    owners: int = 0
    oldest: int | None = None
    newest: int | None = None
    expired: int = 0
    files: dict[str, int] = field(default_factory=dict)


async def survey(backend: ReadingBackend, *, now: float) -> Survey:
    """Raises `StoreError`; rows that cannot be read are counted as such."""
    found = Survey(files=backend.sizes())
    owners: set[str] = set()
    # Those whose own time is over, until a later row says that it was put off.
    over: defaultdict[str, set[str]] = defaultdict(set)
    first = ""
    while rows := await backend.page(first, _PAGE):
        for row in rows:
            tenant, _, rest = row.key.partition("/")
            kind = _counted(found, row, now, over[tenant])
            share = found.shares[kind]
            share.rows += 1
            share.bytes += 0 if isinstance(row.value, DamagedRecord) else len(row.value)
            if rest and tenant != "run":
                owners.add(tenant)
        first = f"{rows[-1].key}\x00"
    found.owners = len(owners)
    found.expired = sum(map(len, over.values()))
    return found


def _counted(found: Survey, row: Row, now: float, over: set[str]) -> str:
    """What the row is. Looks into those that say more."""
    kind = kind_of(row.key)
    id = row.key.rpartition("/")[2]
    if isinstance(row.value, DamagedRecord):
        return "unreadable"
    try:
        if kind in ("response", "ghost"):
            record = decoded(row.key, row.value)
            if kind == "response":
                _dated(found, record)
                if 0 < record.expires_at <= now:
                    over.add(id)
            return _record_kind(record, kind)
        if kind == "until" and int(opened(row.key, row.value)) > now:
            over.discard(id)
    except (DamagedRecord, ValueError):
        return "unreadable"
    return _KINDS.get(kind, "bookkeeping")


def _record_kind(record: Record, kind: str) -> str:
    if record.status == ITEMS:
        return "items put into conversations"
    if kind == "ghost":
        return "deleted responses that others build on"
    return "unfinished responses" if record.is_unfinished else "responses"


def _dated(found: Survey, record: Record) -> None:
    at = record.created_at
    found.oldest = at if found.oldest is None else min(found.oldest, at)
    found.newest = at if found.newest is None else max(found.newest, at)
