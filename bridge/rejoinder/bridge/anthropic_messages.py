"""Anthropic Messages: how turns become messages (provider-anthropic.md §3, §4, §5, §7, §9; mapping.md §2, §5, §7).

A message is a list of blocks. What the provider once gave and wants back stands in the reasoning items as raw blocks,
and goes where it was: thinking and searches in front of what followed them, cited text in the place of its plain form.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from rejoinder.bridge.anthropic_models import Traits
from rejoinder.bridge.anthropic_profile import AnthropicProfile
from rejoinder.bridge.arguments import as_object
from rejoinder.bridge.data_url import DataUrl, sniffed
from rejoinder.bridge.dialect import Prompt
from rejoinder.bridge.envelope import Envelope
from rejoinder.bridge.errors import cannot_take
from rejoinder.bridge.losses import Loss, Reason
from rejoinder.bridge.phrases import named, of_the_system
from rejoinder.bridge.turns import Audio, CallPart, File, Image, Piece, Refusal, Result, Text, Thought, Turn, mark_of
from rejoinder.wire.items import Reasoning

Role = Literal["user", "assistant", "system"]

THINKING = ("thinking", "redacted_thinking")


@dataclass(slots=True)
class Block:
    """One block, encoded without its mark for the cache: `cached` is how long the provider is to keep the prompt up to
    here (`5m`, `1h`). `text` is that of a block of text; `prefix` names the conversation that a block of thinking is
    bound to, `item` is the id of the item it came in."""

    kind: str
    data: bytes
    text: str | None = None
    cached: str | None = None
    prefix: str | None = None
    item: str | None = None


@dataclass(slots=True)
class Message:
    role: Role
    blocks: list[Block] = field(default_factory=list)


class Writing:
    """Writes the messages of one request, turn by turn."""

    def __init__(self, prompt: Prompt, profile: AnthropicProfile, traits: Traits) -> None:
        self._prompt = prompt
        self._profile = profile
        self._traits = traits
        self._ids = _Ids()
        self._held: list[Block] = []
        self._origins = {
            id(prompt.opened[item.view.encrypted_content]): item.id
            for item in prompt.items
            if isinstance(item.view, Reasoning) and item.view.encrypted_content in prompt.opened
        }
        self.messages: list[Message] = []

    def turn(self, turn: Turn) -> None:
        match turn.role:
            case "user":
                self._say("user", [self._piece(piece) for piece in turn.pieces if _has_content(piece)])
                self._release("system")
            case "system":
                self._system(text_blocks(turn))
            case "assistant":
                self._release("user")
                self._assistant(turn)
            case "tool":  # pragma: no branch  # nothing else is left
                self._release("user")
                self._say("user", [self._result(part) for part in turn.parts if isinstance(part, Result)])

    def end(self) -> list[Message]:
        """The messages; only `ask` may follow."""
        self._release("user")
        self._cut_thoughts()
        messages = self.messages
        if messages and messages[0].role == "assistant":
            messages.insert(0, Message("user", [text_block(_BEGINNING)]))
            self._prompt.note("input: a conversation cannot begin with the assistant, so a user's words stand before")
        if messages and messages[-1].role == "assistant":
            _trim(messages[-1])
        return messages

    def ask(self, hint: str) -> None:
        """A last word to the model, behind everything that was said."""
        self._system([text_block(hint)])
        self._release("user")

    def _say(self, role: Role, blocks: list[Block]) -> None:
        """The provider would join neighbours of one role itself, but not every server does."""
        if not blocks:
            return
        if self.messages and self.messages[-1].role == role:
            self.messages[-1].blocks.extend(blocks)
        else:
            self.messages.append(Message(role, blocks))

    def _system(self, blocks: list[Block]) -> None:
        """A later system message belongs behind the user's message (§3): that before it, else the next one."""
        if self._traits.system_messages and self.messages and self.messages[-1].role != "assistant":
            self._say("system", blocks)
        elif self._traits.system_messages:
            self._held.extend(blocks)
        else:
            self._say("user", [_tagged(block) for block in blocks])

    def _release(self, role: Literal["system", "user"]) -> None:
        held, self._held = self._held, []
        # Where no user's message came for it, it is the user's message itself.
        self._say(role, held if role == "system" else [_tagged(block) for block in held])

    # Users.

    def _piece(self, piece: Piece) -> Block:
        match piece:
            case Text(text=text):
                return text_block(text, _kept(piece))
            case Refusal(text=text):
                return text_block(text)
            case Image():
                return _block("image", _Image(_image_source(piece, self._profile)), _kept(piece))
            case File(name=name):
                return self._file(piece, name, _kept(piece))
            case Audio():  # pragma: no branch  # nothing else is left
                raise cannot_take("audio", "it has no input for it")

    def _file(self, file: File, name: str | None, cached: str | None) -> Block:
        title = name or UNSET
        if file.data is None:
            self._needs_documents()
            source = _remote(file.url, file.file_id, self._profile)
            return _block("document", _Document(source, title), cached)
        url = DataUrl.parse(file.data)
        data = url.data
        kind = sniffed(data)
        if kind == "application/pdf":
            self._needs_documents()
            return _block("document", _Document(_Base64(kind, _base64(data)), title), cached)
        if kind in _IMAGES:
            return _block("image", _Image(_Base64(kind, _base64(data))), cached)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise cannot_take(
                f"a file of type '{url.media_type or 'unknown'}'", "it takes PDF, images and text"
            ) from None
        if self._profile.documents and text.strip():
            return _block("document", _Document(_PlainText(text), title), cached)
        return text_block(named(text, name) or "(an empty file)", cached)

    def _needs_documents(self) -> None:
        if not self._profile.documents:
            raise cannot_take("documents", "it takes text and images only")

    def _result(self, result: Result) -> Block:
        pieces = [piece for piece in result.pieces if _has_content(piece)]
        content: str | list[Raw] | UnsetType = UNSET
        match pieces:
            case []:
                pass  # a block of text may not be empty, but a result may
            case [Text(text=text)]:
                content = text
            case _:
                content = [Raw(self._piece(piece).data) for piece in pieces]
        cached = next((kept for piece in reversed(pieces) if (kept := _kept(piece))), None)
        failed = True if result.failed else UNSET
        return _block("tool_result", _Result(self._ids.of_result(result.call_id), content, failed), cached)

    # The assistant.

    def _assistant(self, turn: Turn) -> None:
        message = Message("assistant")
        calls: dict[str, Raw] = {}
        for part in turn.parts:
            assert not isinstance(part, Result), "results are turns of their own"
            match part:
                case Thought(envelope=envelope):
                    if envelope is not None:
                        calls.update(envelope.calls)
                        self._recall(message, envelope)
                case CallPart():
                    message.blocks.append(self._call(part, calls.get(part.call_id)))
                case Text(text=text):
                    if text.strip():
                        message.blocks.append(text_block(text, _kept(part)))
                case Refusal(text=text):
                    if text.strip():
                        message.blocks.append(text_block(text))
                case Image() | File() | Audio():  # pragma: no branch  # nothing else is left
                    raise cannot_take("images, files or audio in an assistant message", "only users may send them")
        self._say("assistant", message.blocks)

    def _call(self, part: CallPart, others: Raw | None) -> Block:
        arguments, is_wrapped = as_object(part.arguments)
        if is_wrapped:
            self._prompt.note("input: arguments of a call that are no JSON object went as text")
        call = _encoded(_Call(self._ids.of_call(part.call_id), part.name, Raw(arguments.strip().encode())))
        if others is not None and len(others) > 2:
            call = call[:-1] + b"," + bytes(others)[1:]
        return Block("tool_use", call)

    def _recall(self, message: Message, envelope: Envelope) -> None:
        """Put back what the provider gave: text it had cited in the place of the same text, the rest as it came."""
        prefix: str | None = None
        texts: list[Block] = []
        for raw in envelope.parts:
            head = _HEAD.decode(raw)
            match head.type:
                case "prefix":
                    prefix = head.sha256
                case "refused":
                    message.blocks.clear()
                case "text":
                    texts.append(Block("text", bytes(raw), head.text))
                case kind:
                    self._restore(message, texts)
                    texts = []
                    message.blocks.append(Block(kind, bytes(raw), prefix=prefix, item=self._origins.get(id(envelope))))
        self._restore(message, texts)

    def _restore(self, message: Message, texts: list[Block]) -> None:
        if not texts:
            return
        wanted = "".join(block.text or "" for block in texts)
        start, said = len(message.blocks), ""
        while start and message.blocks[start - 1].text is not None and len(said) < len(wanted):
            start -= 1
            said = (message.blocks[start].text or "") + said
        if said != wanted:
            self._prompt.note("input: a message was changed, and what it cites no longer goes with it")
            return
        texts[-1].cached = message.blocks[-1].cached
        # A block of nothing but spaces is refused (§3), even one the provider made.
        message.blocks[start:] = [block for block in texts if (block.text or "").strip()]

    def _cut_thoughts(self) -> None:
        """An answer that was cut while it thought ends in thinking, which no message may."""
        for message in self.messages:
            while message.role == "assistant" and message.blocks and message.blocks[-1].kind in THINKING:
                lose(self._prompt, message.blocks.pop(), "no_words")
        self.messages = [message for message in self.messages if message.blocks]


_BEGINNING = "(The conversation begins with the assistant.)"


def begins_without_thinking(messages: Sequence[Message]) -> bool:
    """Whether tools were called in a turn, still going on, that has lost the thinking it began with: with a budget of
    thinking that is refused (§5.2)."""
    last = next((message for message in reversed(messages) if message.role != "system"), None)
    if last is None or last.role != "user" or not _answers_calls(last):
        return False
    since = takewhile(lambda message: message.role != "user" or _answers_calls(message), reversed(messages))
    *_, first = (message for message in since if message.role == "assistant")
    return first.blocks[0].kind not in THINKING


def _answers_calls(message: Message) -> bool:
    return message.blocks[0].kind == "tool_result"


def unbind(prompt: Prompt, system: Sequence[Block], tools: Sequence[Raw], messages: list[Message]) -> None:
    """Leave out thinking that is bound to another conversation than this one (§5.5). What came after it fell with it,
    and does not fit either, unless it was given when that was left out already."""
    if not any(block.prefix is not None for message in messages for block in message.blocks):
        return
    prefix = Prefix(system, tools)
    for message in messages:
        # An answer may have come in several parts, each asked for where the one before it stopped.
        beginnings: set[str] = set()
        kept: list[Block] = []
        for block in message.blocks:
            beginnings.add(prefix.name)
            if block.prefix is not None and block.kind in THINKING and block.prefix not in beginnings:
                lose(prompt, block, "prefix_mismatch")
                continue
            prefix.add(message.role, block)
            kept.append(block)
        message.blocks = kept
    messages[:] = [message for message in messages if message.blocks]


class Prefix:
    """Names a conversation by what it is made of, without the marks for the cache, which mean nothing to the model."""

    def __init__(self, system: Sequence[Block], tools: Sequence[Raw]) -> None:
        self._digest = hashlib.sha256()
        for block in system:
            self.add("system", block)
        for tool in tools:
            self._digest.update(b"tool\x1f%b\n" % bytes(tool))

    def add(self, role: Role, block: Block) -> None:
        self._digest.update(b"%b\x1f%b\n" % (role.encode(), block.data))

    @property
    def name(self) -> str:
        return self._digest.hexdigest()


def without_thinking(envelope: Envelope) -> Envelope:
    """What an envelope holds beside thinking."""
    kinds = (*THINKING, "prefix")
    return Envelope(
        envelope.issuer, [raw for raw in envelope.parts if _HEAD.decode(raw).type not in kinds], envelope.calls
    )


MAX_MARKS = 4
"""Cache breakpoints of one request (§9)."""


def mark(prompt: Prompt, blocks: Sequence[Block], *, automatic: str | None) -> None:
    """Settle the marks for the cache: only so many, the newest, and those that hold longer in front (§9).

    `automatic` is how long the provider keeps the whole, where it does.
    """
    marked = [block for block in blocks if block.cached is not None]
    room = MAX_MARKS - (automatic is not None)
    if len(marked) > room:
        prompt.note(f"input: only the last {room} prompt_cache_breakpoints are passed on")
    for block in marked[:-room]:
        block.cached = None
    is_long = automatic == "1h"
    for block in reversed(marked[-room:]):
        is_long = is_long or block.cached == "1h"
        block.cached = "1h" if is_long else "5m"


def time_to_live(ttl: str | UnsetType | None) -> str:
    """How long the provider is to keep what it read, in its own terms (§9)."""
    return "1h" if isinstance(ttl, str) else "5m"


def _kept(piece: Piece) -> str | None:
    marked = mark_of(piece)
    return time_to_live(marked.ttl) if marked is not None else None


def written(blocks: Sequence[Block]) -> bytes:
    """A list of blocks, with their marks."""
    return b"[%b]" % b",".join(
        block.data
        if block.cached is None
        else b'%b,"cache_control":%b}' % (block.data[:-1], _encoded(cache_control(block.cached)))
        for block in blocks
    )


def cache_control(ttl: str) -> Mapping[str, str]:
    return {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}


def text_block(text: str, cached: str | None = None) -> Block:
    return Block("text", _encoded(_Text(text)), text, cached)


def text_blocks(turn: Turn) -> list[Block]:
    """The texts of a system message. Raises Unsupported when it holds anything else."""
    return [text_block(piece.text, _kept(piece)) for piece in turn.texts if piece.text.strip()]


def lose(prompt: Prompt, block: Block, reason: Reason) -> None:
    prompt.lose(Loss("reasoning", block.item, "removed", reason))


def _tagged(block: Block) -> Block:
    return text_block(of_the_system(block.text or ""), block.cached)


def _trim(message: Message) -> None:
    """The last words of an assistant that is to go on may not end in spaces (§3)."""
    last = message.blocks[-1]
    if last.text is not None and last.data == text_block(last.text).data and last.text != last.text.rstrip():
        message.blocks[-1] = text_block(last.text.rstrip(), last.cached)


def _has_content(piece: Piece) -> bool:
    return not isinstance(piece, Text | Refusal) or bool(piece.text.strip())


class _Ids:
    """Ids of calls as the provider takes them: the client's own where they are legal and not used before (§4)."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._current: dict[str, str] = {}

    def of_call(self, call_id: str) -> str:
        legal = call_id if _LEGAL.fullmatch(call_id) else _hashed(call_id)
        again = 0
        while (given := legal if not again else _hashed(f"{call_id}\x1f{again}")) in self._taken:
            again += 1
        self._taken.add(given)
        self._current[call_id] = given
        return given

    def of_result(self, call_id: str) -> str:
        return self._current[call_id]


_LEGAL = re.compile(r"[a-zA-Z0-9_-]+")


def _hashed(call_id: str) -> str:
    # The same id every time, so that calls and results pair and the prefix stays what it was.
    return "toolu_" + hashlib.sha256(call_id.encode()).hexdigest()[:24]


# Sources of images and documents.


class _Base64(Struct, tag_field="type", tag="base64"):
    media_type: str
    data: str


class _Url(Struct, tag_field="type", tag="url"):
    url: str


class _FileId(Struct, tag_field="type", tag="file"):
    file_id: str


class _PlainText(Struct, tag_field="type", tag="text"):
    data: str
    media_type: str = "text/plain"


_Source = _Base64 | _Url | _FileId | _PlainText


class _Text(Struct, tag_field="type", tag="text"):
    text: str


class _Image(Struct, tag_field="type", tag="image"):
    source: _Source


class _Document(Struct, tag_field="type", tag="document"):
    source: _Source
    title: str | UnsetType = UNSET


class _Call(Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: Raw


class _Result(Struct, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | list[Raw] | UnsetType = UNSET
    is_error: bool | UnsetType = UNSET


class _Head(Struct):
    """What must be known of a raw block to put it back, and of what else stands beside it."""

    type: str
    text: str | None = None
    sha256: str | None = None


def _image_source(image: Image, profile: AnthropicProfile) -> _Source:
    if image.url is None or not image.url.startswith("data:"):
        return _remote(image.url, image.file_id, profile)
    url = DataUrl.parse(image.url)
    data = url.data
    kind = sniffed(data)
    if kind not in _IMAGES:
        raise cannot_take(f"an image of type '{url.media_type or 'unknown'}'", "it takes JPEG, PNG, GIF and WebP")
    return _Base64(kind, _base64(data))


def _remote(url: str | None, file_id: str | None, profile: AnthropicProfile) -> _Source:
    if url is not None:
        return _Url(url)
    if file_id is not None and profile.file_ids:
        return _FileId(file_id)
    raise cannot_take("a file by 'file_id'", "there is no file store here; send it as data or by its URL")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""What it takes. A wrong name for them is refused, and clients name them wrongly (§3)."""


def _block(kind: str, value: Struct, cached: str | None = None) -> Block:
    return Block(kind, _encoded(value), cached=cached)


def _encoded(value: object) -> bytes:
    return _ENCODER.encode(value)


_ENCODER = msgspec.json.Encoder()
_HEAD = msgspec.json.Decoder(_Head)
