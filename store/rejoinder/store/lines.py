"""Records as JSON Lines: one object in each, with the items and the response byte for byte as they are kept."""

from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec
from msgspec import Raw

from rejoinder.store import conversations, keys
from rejoinder.store.errors import DamagedRecord, Missing
from rejoinder.store.reading import ReadingBackend
from rejoinder.store.record import ITEMS, Record, decoded, without_hidden
from rejoinder.store.verification import kind_of


class _Line(msgspec.Struct, omit_defaults=True):
    id: str
    owner: str
    parent: str | None
    created_at: int
    status: str
    model: str
    upstream: str
    input: list[Raw]
    output: list[Raw]
    response: Raw | None
    deleted: bool = False
    without: tuple[str, ...] = ()


_encoder = msgspec.json.Encoder()
_PAGE = 50
_KEYS = 5000
# Between the tokens of JSON a line break means nothing, and within them it cannot be.
_BREAKS = bytes.maketrans(b"\n\r", b"  ")


def line(record: Record, *, owner: str, deleted: bool = False) -> bytes:
    """A record as one line. `deleted`: it cannot be found any more, and is part of the history of others."""
    return _encoder.encode(
        _Line(
            id=record.id,
            owner=owner,
            parent=record.parent,
            created_at=record.created_at,
            status=record.status,
            model=record.model,
            upstream=record.upstream,
            input=[*map(_raw, record.input)],
            output=[*map(_raw, record.output)],
            response=_raw(record.response) if record.response else None,
            deleted=deleted,
            without=record.without,
        )
    )


def _raw(json: bytes) -> Raw:
    return Raw(json.translate(_BREAKS))


async def lineage(
    backend: ReadingBackend, response_id: str, *, tenant: str, owner: str
) -> AsyncIterator[bytes | DamagedRecord]:
    """A record and all it builds on, oldest first; an error before them where there is more that cannot be read.

    Raises `Missing` when there is no such record.
    """
    found: list[tuple[Record, bool]] = []
    seen: set[str] = set()
    wanted: str | None = response_id

    def follow(key: str, value: bytes) -> Sequence[str]:
        nonlocal wanted
        assert wanted is not None
        record = decoded(key, value)
        found.append((record, key == keys.ghost(tenant, wanted) and record.status != ITEMS))
        seen.add(wanted)
        wanted = record.parent
        if wanted is None:
            return ()
        if wanted in seen:
            raise DamagedRecord("its history leads back to itself")
        return keys.living(tenant, wanted), keys.ghost(tenant, wanted)

    try:
        await backend.walk([keys.living(tenant, response_id), keys.ghost(tenant, response_id)], follow)
    except DamagedRecord as error:
        yield DamagedRecord(f"'{wanted}' cannot be read, so what it builds on is missing too: {error}")
    else:
        if wanted == response_id:
            raise Missing(f"no response {response_id!r}")
        if wanted is not None:
            yield DamagedRecord(f"'{wanted}', which '{found[-1][0].id}' builds on, is not there")
    found.reverse()
    shown = without_hidden(record for record, _ in found)
    for record, (_, deleted) in zip(shown, found, strict=True):
        yield line(record, owner=owner, deleted=deleted)


async def conversation(
    backend: ReadingBackend, conversation_id: str, *, tenant: str, owner: str
) -> AsyncIterator[bytes | DamagedRecord]:
    """All that was said in a conversation, as `lineage` has it. Raises `Missing`, `DamagedRecord`."""
    key = keys.conversation(tenant, conversation_id)
    [row] = await backend.get([key])
    if row is None:
        raise Missing(f"no conversation {conversation_id!r}")
    head = conversations.read(conversation_id, key, row).head
    if head is not None:
        async for one in lineage(backend, head, tenant=tenant, owner=owner):
            yield one


async def owners_of(backend: ReadingBackend, name: str) -> list[str]:
    """Who has a row of this name, like 'response/resp_…': as keys have them."""
    found: list[str] = []
    first = ""
    while page := await backend.keys(first, keys.behind(""), _KEYS):
        found += [tenant for tenant, _, rest in (key.partition("/") for key in page) if rest == name]
        first = f"{page[-1]}\x00"
    return found


async def everything(
    backend: ReadingBackend, names: Mapping[str, str], *, only: str | None = None
) -> AsyncIterator[bytes | DamagedRecord]:
    """Every record there is, an error in the place of one that cannot be read.

    `names` are those of owners by what keys have for them; `only` is one of the latter, to leave out all others.
    """
    first, end = ("", None) if only is None else (f"{only}/", keys.behind(f"{only}/"))
    while rows := await backend.page(first, _PAGE, end=end):
        for row in rows:
            kind = kind_of(row.key)
            if kind in ("response", "ghost"):
                tenant = row.key.partition("/")[0]
                try:
                    if isinstance(row.value, DamagedRecord):
                        raise row.value
                    record = decoded(row.key, row.value)
                except DamagedRecord as error:
                    yield DamagedRecord(f"{keys.told(row.key)} cannot be read: {error}")
                else:
                    owner = names.get(tenant, tenant)
                    yield line(record, owner=owner, deleted=kind == "ghost" and record.status != ITEMS)
        first = f"{rows[-1].key}\x00"
