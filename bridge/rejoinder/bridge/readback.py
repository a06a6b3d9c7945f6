"""What goes back to an upstream of what was sealed for one: to its issuer everything, to anybody else nothing
(mapping.md §5, reading back; lessons.md S-091, S-092)."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from msgspec import Raw

from rejoinder.bridge.envelope import PREFIX, Envelope, Issuer
from rejoinder.bridge.losses import Loss
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.items import Compaction, HostedCall, ImageCall, Item, Reasoning


@dataclass(slots=True)
class ReadBack:
    """The items this upstream may have, what their seals hold, and what was taken out."""

    items: list[Item] = field(default_factory=list)
    opened: dict[str, Envelope] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)


class Keys(Protocol):
    """What opens sealed state for one owner and one reader."""

    def unseal(self, text: str) -> Envelope | None: ...

    def unsign(self, text: str) -> str | None:
        """State in a provider's own form as the reader gave it; None when somebody else did."""


def read_back(items: Sequence[Item], reader: Issuer, keys: Keys, *, native: bool) -> ReadBack:
    """Open what `reader` issued. `native`: it speaks this API itself, so state in its own form is its own.

    Raises BadRequest for a compaction item of another provider.
    """
    back = ReadBack()
    records: list[Item] = []
    for item in items:
        if item.view.__class__ not in _LOOKED_AT:
            back.items.append(item)
            continue
        match item.view:
            case Reasoning(encrypted_content=str(sealed)) if sealed:
                if (kept := _kept(item, sealed, reader, keys, back, native=native)) is not None:
                    back.items.append(kept)
            case Reasoning() as view:
                if not native and view.text:
                    back.losses.append(Loss(item.type, item.id, "removed", "not_sealed"))
                back.items.append(item)
            case Compaction(encrypted_content=sealed) if native:
                original = keys.unsign(sealed)
                if original is None:
                    raise unverifiable()
                back.items.append(_with(item, sealed, original))
            case _:
                if _is_record(item):
                    records.append(item)
                back.items.append(item)
    if records and not native:
        # A record of a search that is there, raw, in what was sealed beside it is no loss.
        covered = {id_ for envelope in back.opened.values() for id_ in envelope.calls}
        back.losses.extend(
            Loss(item.type, item.id, "removed", "no_words") for item in records if item.id not in covered
        )
    return back


_LOOKED_AT = frozenset((Compaction, HostedCall, ImageCall, Reasoning))


def unverifiable() -> BadRequest:
    """What is said of a compaction item nobody here can read."""
    return BadRequest(
        "The encrypted content of a compaction item could not be verified. It was made by another provider, or for "
        "another API key.",
        param="input",
        code="invalid_encrypted_content",
    )


def _is_record(item: Item) -> bool:
    """Whether the item says what another provider did, with nothing in it that could be shown to this one."""
    return isinstance(item.view, HostedCall) or (isinstance(item.view, ImageCall) and item.view.result is None)


def _kept(item: Item, sealed: str, reader: Issuer, keys: Keys, back: ReadBack, *, native: bool) -> Item | None:
    """The item, where the upstream may have it: without its state a foreign one is nothing this API could take either
    (provider-responses.md §4), and other dialects say what it says to people in words of their own."""
    if not sealed.startswith(PREFIX):
        original = keys.unsign(sealed) if native else None
        if original is not None:
            return _with(item, sealed, original)
        back.losses.append(Loss(item.type, item.id, "removed", "organization_mismatch" if native else "model_mismatch"))
    elif (envelope := keys.unseal(sealed)) is None:
        back.losses.append(Loss(item.type, item.id, "removed", "end_user_mismatch"))
    elif (mismatch := envelope.issuer.mismatch(reader)) is not None:
        back.losses.append(Loss(item.type, item.id, "removed", mismatch, envelope.issuer.dialect))
    else:
        back.opened[sealed] = envelope
    return None if native else item


def _with(item: Item, sealed: str, original: str) -> Item:
    """The item with its state as the provider gave it."""
    if sealed == original:
        return item
    fields = _FIELDS.decode(item.raw)
    fields["encrypted_content"] = Raw(_ENCODER.encode(original))
    return dataclasses.replace(item, raw=_ENCODER.encode(fields))


_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_ENCODER = msgspec.json.Encoder()
