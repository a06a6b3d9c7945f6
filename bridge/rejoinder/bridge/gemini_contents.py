"""A conversation as Gemini's contents (provider-gemini.md §3 to §5, mapping.md §2 columns G).

Contents alternate between `user` and `model`, with one exception: what users say never shares a content with the
responses of functions. A model's content is made of the parts it came in, as far as its state is there to say so;
signatures stand in the part they came with and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec
from msgspec import Raw, Struct

from rejoinder.bridge.arguments import as_object
from rejoinder.bridge.dialect import Prompt
from rejoinder.bridge.envelope import Envelope
from rejoinder.bridge.gemini_media import Media, media
from rejoinder.bridge.gemini_models import Generation
from rejoinder.bridge.gemini_names import Names
from rejoinder.bridge.gemini_profile import GeminiProfile
from rejoinder.bridge.gemini_state import ENTRY, SIGNED, Continuation, Entry, Piece
from rejoinder.bridge.losses import Loss
from rejoinder.bridge.phrases import of_the_system, output_of, shown_later
from rejoinder.bridge.turns import (
    PICTURE,
    Audio,
    CallPart,
    File,
    Image,
    Refusal,
    Result,
    Text,
    Thought,
    Turn,
    leading,
    turns,
)
from rejoinder.bridge.turns import Piece as Said
from rejoinder.wire.items import Reasoning

SKIP_VALIDATION = "skip_thought_signature_validator"
"""Stands for a signature nobody has (§5)."""


def continuation(prompt: Prompt) -> Continuation | None:
    """Where the last answer stopped only to go on in another request; None when it did not."""
    last = prompt.items[-1].view if prompt.items else None
    if not isinstance(last, Reasoning) or last.encrypted_content is None:
        return None
    envelope = prompt.opened.get(last.encrypted_content)
    return ENTRY.decode(envelope.parts[-1]).continuation if envelope is not None and envelope.parts else None


@dataclass(frozen=True, slots=True)
class Conversation:
    """`system` are the texts that come before everything else, `contents` the encoded contents."""

    system: list[str]
    contents: list[bytes]


def conversation(prompt: Prompt, generation: Generation, profile: GeminiProfile, names: Names) -> Conversation:
    """Raises Unsupported for what has no words there."""
    goes_on = continuation(prompt)
    if goes_on is not None:
        # The same request again: what was answered so far is in the token (§7).
        prompt = replace(prompt, items=prompt.items[: goes_on.since])
    said = _with_pictures(turns(prompt.items, prompt.toolbox, prompt.opened))
    start = leading(said)
    writer = _Writer(prompt, generation, profile, names)
    writer.write(said[start:])
    return Conversation([turn.text for turn in said[:start]], writer.contents)


def _with_pictures(said: Sequence[Turn]) -> list[Turn]:
    """The turns, with pictures of the model's own in its own turns.

    A picture made elsewhere is shown by the user; one that Gemini made is followed by state that says so.
    """
    found: list[Turn] = []
    for turn in said:
        if found and _is_of_a_picture(turn.parts[0]) and found[-1].parts[0] == PICTURE:
            picture = found.pop().parts[-1]
            if found and found[-1].role == "assistant":
                turn = Turn("assistant", [*found.pop().parts, picture, *turn.parts])
            else:
                turn = Turn("assistant", [picture, *turn.parts])
        found.append(turn)
    return found


def _is_of_a_picture(part: object) -> bool:
    if not isinstance(part, Thought) or part.envelope is None or not part.envelope.parts:
        return False
    return ENTRY.decode(part.envelope.parts[0]).picture is not None


@dataclass(slots=True)
class _Writer:
    prompt: Prompt
    generation: Generation
    profile: GeminiProfile
    names: Names
    contents: list[bytes] = field(default_factory=list)
    _users: list[bytes] = field(default_factory=list)
    _called: "dict[str, _Called]" = field(default_factory=dict)

    def write(self, said: Sequence[Turn]) -> None:
        for turn in said:
            match turn.role:
                case "user":
                    self._users.extend(self._user_part(piece) for piece in turn.pieces)
                case "system":
                    self._users.append(_part(text=of_the_system(turn.text)))
                case "assistant":
                    model = _Model(self.prompt, self.profile, self.names, self._called)
                    # Only the turn that is not over is looked at (§5), but a turn is said in the same bytes when it is.
                    if parts := model.parts(turn, checked=self.generation.signatures):
                        self._flush(needed=not self.contents)
                        self._called = model.called
                        self._content("model", parts)
                case "tool":  # pragma: no branch  # nothing else is left
                    self._results(turn)
        self._flush()

    def _flush(self, *, needed: bool = False) -> None:
        if needed and not self._users:
            # A conversation starts with the user (§3), even one whose first message is the model's.
            self._users.append(_part(text=" "))
        if self._users:
            self._content("user", self._users)
            self._users = []

    def _content(self, role: str, parts: Sequence[bytes]) -> None:
        self.contents.append(b'{"role":"%b","parts":[%b]}' % (role.encode(), b",".join(parts)))

    def _user_part(self, piece: Said) -> bytes:
        match piece:
            case Text(text=text) | Refusal(text=text):
                return _part(text=text)
            case Image() | File() | Audio():  # pragma: no branch  # nothing else is left
                return _media_part(media(piece, self.profile.urls))

    def _results(self, turn: Turn) -> None:
        """All responses of one step, in the order of their calls (§3)."""
        self._flush()
        results = [part for part in turn.parts if isinstance(part, Result)]
        order = {call_id: place for place, call_id in enumerate(self._called)}
        results.sort(key=lambda result: order[result.call_id])
        self._content("user", [self._response(result) for result in results])

    def _response(self, result: Result) -> bytes:
        """What cannot be part of a response is shown by the user after all of them."""
        called = self._called[result.call_id]
        texts: list[str] = []
        beside: list[dict[str, dict[str, str]]] = []
        shown: list[bytes] = []
        for piece in result.pieces:
            match piece:
                case Text(text=text) | Refusal(text=text):
                    texts.append(text)
                case Image() | File() | Audio():  # pragma: no branch  # nothing else is left
                    found = media(piece, self.profile.urls)
                    if isinstance(found, str):
                        texts.append(found)
                    elif self._goes_beside(found):
                        beside.append(found.part)
                    else:
                        texts.append(shown_later(piece))
                        shown.append(_media_part(found))
        if shown:
            self._users += [_part(text=output_of(result)), *shown]
        response: dict[str, object] = {"id": called.id} if called.id is not None else {}
        response["name"] = called.name
        response["response"] = {"error" if result.failed else "output": "\n".join(filter(None, texts))}
        if beside:
            response["parts"] = beside
        return _part(functionResponse=response)

    def _goes_beside(self, found: Media) -> bool:
        return self.generation.mixed_tools and found.mime_type in _BESIDE


_BESIDE = frozenset(("application/pdf", "image/jpeg", "image/png", "image/webp"))
"""What a function's response may hold beside its text (§4)."""


class _Called(Struct, frozen=True):
    """A call that waits for its response: its name on the wire, and Gemini's id for it."""

    name: str
    id: str | None


class _Model:
    """One content of the model."""

    def __init__(self, prompt: Prompt, profile: GeminiProfile, names: Names, called: "dict[str, _Called]") -> None:
        self._prompt = prompt
        self._profile = profile
        self._names = names
        self.called: dict[str, _Called] = {}
        self._parts: list[bytes] = []
        self._signed: dict[str, Raw] = {}
        self._ids_came = False
        self._text: str | None = None  # of the last part, while nothing came after it
        self._picture: Media | None = None  # the same

    def parts(self, turn: Turn, *, checked: bool) -> list[bytes]:
        """`checked`: the first call must be signed, with something or other (§5)."""
        state = [part.envelope for part in turn.parts if isinstance(part, Thought) and part.envelope is not None]
        # A signature may come on a later, empty part (§5); then the step has its own, though not on its first call.
        skips = checked and not any(_is_signed(envelope) for envelope in state)
        for part in turn.parts:
            assert not isinstance(part, Result), "results are turns of their own"
            match part:
                case Thought(envelope=None):
                    pass  # another's; what was lost of it is said elsewhere
                case Thought(envelope=Envelope() as envelope):
                    self._signed.update(envelope.calls)
                    for raw in envelope.parts:
                        self._entry(raw)
                case CallPart():
                    self._call(part, skips=skips and not self.called)
                case Text(text=text) | Refusal(text=text):
                    self._add(_part(text=text))
                    self._text = text
                case Image() | File() | Audio():  # pragma: no branch  # nothing else is left
                    found = media(part, self._profile.urls)
                    self._add(_media_part(found))
                    self._picture = found if isinstance(found, Media) else None
        return self._parts

    def _add(self, part: bytes) -> None:
        self._parts.append(part)
        self._text = self._picture = None

    def _entry(self, raw: Raw) -> None:
        match ENTRY.decode(raw):
            case Entry(said=list(pieces)):
                self._cut(pieces)
            case Entry(picture=picture) if picture is not None:
                if picture.signature is not None and self._picture is not None:
                    self._parts[-1] = _part(**self._picture.part, thoughtSignature=picture.signature)
            case Entry(continuation=None):
                self._add(bytes(raw))
            case _:
                pass  # it went on, and is over

    def _cut(self, pieces: list[Piece]) -> None:
        """The message before in the parts it came in."""
        text = self._text
        if text is None or sum(size for size, _ in pieces) != len(text):
            # Edited, or gone: a signature of other words would be a lie.
            self._prompt.lose(Loss("reasoning", None, "removed", "prefix_mismatch"))
            return
        del self._parts[-1]
        at = 0
        for size, signature in pieces:
            said = text[at : at + size]
            self._add(_part(text=said) if signature is None else _part(text=said, thoughtSignature=signature))
            at += size

    def _call(self, part: CallPart, *, skips: bool) -> None:
        sealed = self._signed.get(part.call_id)
        state = SIGNED.decode(sealed) if sealed is not None else None
        if state is not None:
            self._ids_came = state.id == part.call_id
        id_ = state.id if state is not None else part.call_id if self._ids_came else None
        name = self._names.on_wire(part.name)
        # A signature of the first call belongs to no other one (mapping.md §5, reading back, rule 1).
        fits = state is not None and (state.place > 0 or not self.called)
        signature = state.signature if state is not None and fits else None
        if signature is None and skips:
            signature = SKIP_VALIDATION
        call: dict[str, object] = {"id": id_} if id_ is not None else {}
        call["name"] = name
        call["args"] = self._arguments(part)
        self._add(
            _part(functionCall=call) if signature is None else _part(functionCall=call, thoughtSignature=signature)
        )
        self.called[part.call_id] = _Called(name, id_)

    def _arguments(self, part: CallPart) -> Raw:
        arguments, is_wrapped = as_object(part.arguments)
        if is_wrapped:
            self._prompt.note("input: arguments that are no JSON object are sent as '_raw'")
        return Raw(arguments.encode())


def _is_signed(envelope: Envelope) -> bool:
    if any(SIGNED.decode(raw).signature for raw in envelope.calls.values()):
        return True
    for raw in envelope.parts:
        said = ENTRY.decode(raw).said
        if any(signature for _, signature in said) if said is not None else b'"thoughtSignature"' in bytes(raw):
            return True
    return False


def _media_part(found: Media | str) -> bytes:
    return _part(text=found) if isinstance(found, str) else _part(**found.part)


def _part(**fields: object) -> bytes:
    return _ENCODER.encode(fields)


_ENCODER = msgspec.json.Encoder()
