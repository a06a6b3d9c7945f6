"""Which session and thread a turn belongs to, for upstreams that keep a cache by it (lessons.md S-110 to S-113).

The caller's own names come first, then those its conversation went by, then names derived from how the conversation
begins: the same ones whenever the whole history is sent again. Nothing is invented per request, and what a client says
of itself (its program, its version) is not passed off as ours.
"""

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from rejoinder.bridge.dialect import Identity
from rejoinder.wire.items import Item
from rejoinder.wire.request import CreateRequest

_HEADERS = {b"session-id": "session", b"session_id": "session", b"thread-id": "thread", b"thread_id": "thread"}
_LONGEST = 256
"""Characters of a name."""

_STRING = msgspec.json.Decoder(str)


def named(headers: Iterable[tuple[bytes, bytes]]) -> Identity:
    """What the headers of a request say (codex.md §2)."""
    found: dict[str, str] = {}
    for name, value in headers:
        if (field := _HEADERS.get(name)) is not None and _can_be_a_name(said := value.decode("latin-1")):
            found.setdefault(field, said)
    return Identity(**found)


def identity(
    request: CreateRequest, caller: Identity, kept: Mapping[str, str], items: Sequence[Item], *, owner: str
) -> Identity:
    """The names a turn goes by: `caller` are those of its headers, `kept` those its conversation went by before."""
    names = carried(request, caller, kept)
    if all((names.session, names.thread, names.cache_key)):
        return names
    session = names.session or names.thread or _derived(request, items, owner)
    thread = names.thread or session
    return Identity(session, thread, names.cache_key or thread)


def carried(request: CreateRequest, caller: Identity, kept: Mapping[str, str]) -> Identity:
    """The names that were given, now or before: to remember where the upstream has no use for them, since a later turn
    may go to one that has."""
    said = _metadata(request)
    return Identity(
        caller.session or said.get("session_id", "") or kept.get("session", ""),
        caller.thread or said.get("thread_id", "") or kept.get("thread", ""),
        request.fields.prompt_cache_key or kept.get("cache_key", ""),
    )


def _metadata(request: CreateRequest) -> dict[str, str]:
    """The names in `client_metadata`, which Codex repeats there."""
    metadata = request.fields.client_metadata
    found: dict[str, str] = {}
    if not metadata:
        return found
    for name in ("session_id", "thread_id"):
        raw = bytes(metadata.get(name, b"null"))
        if raw.startswith(b'"') and _can_be_a_name(said := _STRING.decode(raw)):
            found[name] = said
    return found


def _can_be_a_name(said: str) -> bool:
    """Whether this may go into a header of ours (reliability.md S10)."""
    return 0 < len(said) <= _LONGEST and said.isascii() and said.isprintable()


def _derived(request: CreateRequest, items: Sequence[Item], owner: str) -> str:
    """A name that stays as long as the conversation begins the same way. The owner is in it, so that two of them who
    say the same share nothing."""
    digest = hashlib.sha256(owner.encode())
    for part in ((request.fields.instructions or "").encode(), items[0].raw if items else b""):
        digest.update(b"\x1f%d\x1f" % len(part) + part)
    # In the form of a name-based id; Python 3.11 knows no version for one made with this hash.
    return str(uuid.UUID(bytes=digest.digest()[:16], version=5))
