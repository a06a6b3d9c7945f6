"""From a request and what it continues to the prompt an upstream is asked with."""

import dataclasses
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from msgspec import Raw

from rejoinder.bridge.compaction import expanded
from rejoinder.bridge.composer import Composer
from rejoinder.bridge.dialect import Identity, Prompt
from rejoinder.bridge.envelope import Envelope, Issuer
from rejoinder.bridge.errors import Unsupported
from rejoinder.bridge.grammar import flaw
from rejoinder.bridge.readback import read_back
from rejoinder.bridge.toolbox import Toolbox
from rejoinder.bridge.turns import OUTPUTS
from rejoinder.server.identity import carried, identity
from rejoinder.server.ids import PREFIXES, Ids
from rejoinder.server.lineage import Lineage
from rejoinder.server.running import Stop
from rejoinder.server.services import Provider, Services
from rejoinder.wire.items import Item, Kept, as_sent, kept, unnamed
from rejoinder.wire.request import CreateRequest
from rejoinder.wire.responses import Response


@dataclass(frozen=True, slots=True)
class Place:
    """Where a turn runs, and for whom."""

    services: Services
    provider: Provider
    issuer: Issuer
    owner: str
    ids: Ids
    stop: Stop = field(default_factory=Stop)

    def unseal(self, text: str) -> Envelope | None:
        return self.services.seal.open(text, owner=self.owner)

    def unsign(self, text: str) -> str | None:
        return self.services.seal.unsign(text, self.issuer, owner=self.owner)

    def seal(self, envelope: Envelope) -> str:
        return self.services.seal.close(envelope, owner=self.owner)

    def composer(
        self, prompt: Prompt, response: Response, taken: Set[str] = frozenset(), *, raw: bool = False
    ) -> Composer:
        """A composer whose sealed state is open to the requests that follow in the same turn."""
        opened = prompt.opened

        def seal(parts: list[Raw], calls: dict[str, Raw]) -> str:
            envelope = Envelope(self.issuer, parts, calls)
            sealed = self.seal(envelope)
            opened[sealed] = envelope
            return sealed

        return Composer(
            response,
            prompt.toolbox,
            mint=self.ids.mint,
            seal=seal,
            sign=lambda text: self.services.seal.sign(text, self.issuer, owner=self.owner),
            taken=taken,
            reasoning="raw" if raw else "summary",
            grammar=self.provider.grammar,
        )


def kept_by(ids: Ids, items: Sequence[Item]) -> list[Kept]:
    """Input items in the form in which they are stored."""
    return [kept(item, ids.mint(PREFIXES.get(item.type, "item"))) for item in items]


def prompt_of(request: CreateRequest, said: Lineage, inputs: Sequence[Kept], place: Place, caller: Identity) -> Prompt:
    dialect = place.provider.dialect
    conversation: Sequence[Item] = said.conversation.items
    if dialect.native:
        # Whoever takes items as they are gets the same bytes now as when they come out of the store.
        normal = {
            id(item): dataclasses.replace(item, raw=as_sent(one.raw, one.added))
            for item, one in zip(said.conversation.coming, inputs, strict=True)
        }
        conversation = [normal.get(id(item), item) for item in conversation]
        if any(record.without for record in said.records):
            # An id binds an item to those its provider gave with it, and one of them was taken out (§3 of
            # provider-responses.md): by its words alone each can still be said.
            conversation = [item if item.type in OUTPUTS else unnamed(item) for item in conversation]
    items = expanded(conversation, place.unseal, native=dialect.native)
    back = read_back(items, place.issuer, place, native=dialect.native)
    parent = said.records[-1] if said.records else None
    known = next((record.identity for record in reversed(said.records) if record.identity), {})
    # A response the upstream keeps itself can be referred to, as long as it holds all there is to say.
    whole = parent is not None and parent.upstream == place.provider.name and len(back.items) == len(conversation)
    toolbox = toolbox_of(request, back.items, place.provider)
    notes: list[str] = []
    if not dialect.native:
        if place.provider.grammar != "pass":
            _check_grammars(toolbox)
        notes.extend(f"{name}: unknown or without effect here" for name in request.ignored())
        notes.extend(toolbox.notes)
    return Prompt(
        model=place.issuer.model,
        request=request,
        items=back.items,
        toolbox=toolbox,
        opened=back.opened,
        notes=notes,
        losses=back.losses,
        parent=parent.upstream_id or None if parent is not None and whole else None,
        coming=len(said.conversation.coming),
        identity=(
            identity(request, caller, known, conversation, owner=place.owner)
            if dialect.native
            else carried(request, caller, known)
        ),
    )


def toolbox_of(request: CreateRequest, items: Sequence[Item], provider: Provider) -> Toolbox:
    """The tools of a request, and of what was said, as the upstream is offered them; one that speaks this API itself
    reads them as they are."""
    dialect = provider.dialect
    return _NO_TOOLS if dialect.native else Toolbox.of(request.tools, items, request.tool_choice, dialect.hosted)


_NO_TOOLS = Toolbox((), "auto", ())


def _check_grammars(toolbox: Toolbox) -> None:
    """Raises Unsupported for a grammar nothing can be compared with."""
    for function in toolbox.functions:
        grammar = toolbox.grammar_of(function.name)
        if grammar is not None and (wrong := flaw(grammar)) is not None:
            raise Unsupported(f"the grammar of tool '{function.target.name}' cannot be read: {wrong}", param="tools")
