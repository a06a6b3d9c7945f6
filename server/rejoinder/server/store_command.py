"""`rejoinder store …`: what its commands do, and what they say."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from rejoinder.server.access import OPEN
from rejoinder.server.settings import Settings
from rejoinder.store import DamagedRecord, Store, StoreError, keys, lines, open_store, runs
from rejoinder.store.errors import InUse, Missing
from rejoinder.store.reading import ReadingBackend
from rejoinder.store.records import GRACE
from rejoinder.store.survey import Survey, survey
from rejoinder.store.verification import Damage, verify

Tell = Callable[[str], None]


def stats(settings: Settings, *, as_json: bool) -> str:
    """What the store holds. Raises StoreError."""
    _, backend = _reading(settings)
    now = time.time()
    found = asyncio.run(survey(backend, now=now))
    return _json(backend.location, found) if as_json else _table(backend.location, found)


def verified(settings: Settings, tell: Tell) -> bool:
    """Whether the store is whole; tells every damage. Raises StoreError."""
    _, backend = _reading(settings)
    names = _names(settings)
    damages, count = asyncio.run(verify(backend))
    for damage in damages:
        tell(_told(damage, names))
    tell(f"{count} rows in '{backend.location}': {f'{len(damages)} damages' if damages else 'nothing is wrong'}")
    return not damages


def prune(settings: Settings, *, dry_run: bool, at_once: bool) -> str:
    """Remove what has expired; says what went, or would go. Raises StoreError."""
    store, _ = _reading(settings)  # of a store that is not there, none is made
    grace = 0 if at_once else GRACE
    before = time.time() - runs.KEPT_ONCE
    if dry_run:
        return asyncio.run(_due(store, grace, before))
    return asyncio.run(_pruned(settings.server.store, grace, before))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be exported: a response with all it builds on, a conversation, or everything, of one owner or all."""

    response_id: str | None = None
    conversation_id: str | None = None
    owner: str | None = None


def export(settings: Settings, wanted: Wanted, output: Path | None, tell: Tell) -> bool:
    """Write records as JSON Lines, to the standard output or a new file; whether all of them could be read. Raises
    StoreError."""
    _, backend = _reading(settings)
    names = _names(settings)
    if wanted.owner is not None:
        names = {**names, keys.tenant_of(wanted.owner): wanted.owner}
    with ExitStack() as files:
        out = sys.stdout.buffer if output is None else files.enter_context(_private(output))
        return asyncio.run(_exported(backend, wanted, names, out, tell))


def _reading(settings: Settings) -> tuple[Store, ReadingBackend]:
    store = open_store(settings.server.store, read_only=True)
    assert isinstance(store.backend, ReadingBackend)
    return store, store.backend


def _names(settings: Settings) -> Mapping[str, str]:
    """The owners that the settings name, by what keys have for them."""
    return {keys.tenant_of(owner): owner for owner in (OPEN, *(key.owner for key in settings.keys))}


# Stats.


def _table(location: Path, found: Survey) -> str:
    rows = [(kind, f"{share.rows}", _size(share.bytes)) for kind, share in found.shares.items() if share.rows]
    told = [
        f"the store in '{location}'",
        "",
        f"{'':40}{'rows':>10}{'size':>12}",
        *(f"{kind:40}{count:>10}{size:>12}" for kind, count, size in rows),
        "",
        f"owners             {found.owners}",
        f"oldest response    {_date(found.oldest)}",
        f"newest response    {_date(found.newest)}",
        f"expired            {found.expired}",
        f"files              {', '.join(f'{name} {_size(size)}' for name, size in found.files.items())}",
    ]
    return "\n".join(told)


def _json(location: Path, found: Survey) -> str:
    kinds = {kind.replace(" ", "_"): share for kind, share in found.shares.items()}
    fields = {name: getattr(found, name) for name in ("owners", "oldest", "newest", "expired", "files")}
    return msgspec.json.encode({"location": str(location), "kinds": kinds, **fields}).decode()


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _date(at: int | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


# Verify.


def _told(damage: Damage, names: Mapping[str, str]) -> str:
    # What stands for an owner may be derived from a secret, so it is never told whole.
    whose = f"owner {names.get(damage.tenant, damage.tenant[:8])}: " if damage.tenant else ""
    return f"{whose}{damage.what}; {damage.breaks}"


# Prune.


async def _due(store: Store, grace: float, before: float) -> str:
    due, count = await store.due(grace=grace)
    old = [key async for key, _ in runs.old(store, before=before)]
    return f"would remove {len(due)} of {count} responses and {len(old)} idempotency keys"


async def _pruned(url: str, grace: float, before: float) -> str:
    try:
        store = open_store(url)
    except InUse as error:
        raise StoreError(f"{error}; it removes expired responses itself") from error
    try:
        removed = await store.sweep(grace=grace)
        forgotten = await runs.forget(store, before=before)
    finally:
        await store.close()
    return f"removed {removed} responses and {forgotten} idempotency keys"


# Export.


def _private(path: Path) -> BinaryIO:
    """A file that is not there yet, for this user alone."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except OSError as error:
        raise StoreError(f"cannot make '{path}': {error.strerror}") from error


async def _exported(
    backend: ReadingBackend, wanted: Wanted, names: Mapping[str, str], out: BinaryIO, tell: Tell
) -> bool:
    count = broken = 0
    async for one in await _wanted(backend, wanted, names):
        if isinstance(one, DamagedRecord):
            broken += 1
            tell(str(one))
        else:
            count += 1
            out.write(one + b"\n")
    out.flush()
    tell(f"{count} records{f', and {broken} that cannot be read' if broken else ''}")
    return not broken


async def _wanted(
    backend: ReadingBackend, wanted: Wanted, names: Mapping[str, str]
) -> AsyncIterator[bytes | DamagedRecord]:
    tenant = None if wanted.owner is None else keys.tenant_of(wanted.owner)
    if wanted.response_id is not None:
        tenant = tenant or await _only(backend, "response", wanted.response_id)
        return lines.lineage(backend, wanted.response_id, tenant=tenant, owner=names.get(tenant, tenant))
    if wanted.conversation_id is not None:
        tenant = tenant or await _only(backend, "conversation", wanted.conversation_id)
        return lines.conversation(backend, wanted.conversation_id, tenant=tenant, owner=names.get(tenant, tenant))
    return lines.everything(backend, names, only=tenant)


async def _only(backend: ReadingBackend, kind: str, id: str) -> str:
    """The one owner who has it. Raises StoreError."""
    found = await lines.owners_of(backend, f"{kind}/{id}")
    if not found:
        raise Missing(f"there is no {kind} {id!r} in '{backend.location}'")
    if len(found) > 1:
        raise StoreError(f"{len(found)} owners have a {kind} {id!r}; say whose with --owner NAME")
    return found[0]
