"""The neutral conversation between both sides: items grouped into turns (mapping.md §0.1 and §2).

Every dialect writes turns in its own words and none of them reads items, so grouping, pairing and the emulation of
tools are decided once, here.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from rejoinder.bridge.envelope import Envelope
from rejoinder.bridge.errors import Unsupported
from rejoinder.bridge.toolbox import CustomArguments, Target, Toolbox
from rejoinder.wire.items import (
    TEXT_TYPES,
    AdditionalTools,
    AgentMessage,
    ApplyPatchCall,
    ApplyPatchCallOutput,
    CacheBreakpoint,
    Compaction,
    CompactionTrigger,
    ConfigurationUpdate,
    Content,
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    HostedCall,
    ImageCall,
    Item,
    ItemReference,
    LocalShellCall,
    LocalShellCallOutput,
    Message,
    Opaque,
    Part,
    Reasoning,
    ShellCall,
    ShellCallOutput,
    ToolSearchCall,
    ToolSearchOutput,
)

Role = Literal["system", "user", "assistant", "tool"]


class Text(Struct, frozen=True, gc=False):
    """`cached` says that the prompt up to here is worth keeping in the provider's cache."""

    text: str
    cached: CacheBreakpoint | None = None


class Image(Struct, frozen=True, gc=False):
    """`url` is `https:` or `data:`."""

    url: str | None
    file_id: str | None
    detail: str | None
    cached: CacheBreakpoint | None = None


class File(Struct, frozen=True, gc=False):
    """`data` is a data URL."""

    data: str | None
    file_id: str | None
    url: str | None
    name: str | None
    cached: CacheBreakpoint | None = None


class Audio(Struct, frozen=True, gc=False):
    data: str
    format: str


class Refusal(Struct, frozen=True, gc=False):
    text: str


class Thought(Struct, frozen=True):
    """Reasoning that came before what follows it. `envelope` is there when it may go back to this upstream."""

    text: str
    envelope: Envelope | None


class CallPart(Struct, frozen=True, gc=False):
    """A call of a function of the toolbox. `arguments` is JSON text, as the model wrote it or as we would offer it."""

    call_id: str
    name: str
    arguments: str


PICTURE = Text("[the picture the assistant made]")
"""What goes before a picture that a model made and that is shown to it by the user."""

Piece = Text | Image | File | Audio | Refusal


class Result(Struct, frozen=True):
    """`failed`: the client says that the call did not do what it should."""

    call_id: str
    pieces: tuple[Piece, ...]
    failed: bool = False


class Turn(Struct):
    role: Role
    parts: list[Piece | Thought | CallPart | Result]

    @property
    def pieces(self) -> list[Piece]:
        """All of a turn of the user's or the system's."""
        found: list[Piece] = []
        for part in self.parts:
            assert not isinstance(part, Thought | CallPart | Result)
            found.append(part)
        return found

    @property
    def texts(self) -> list[Text | Refusal]:
        """All of a turn of the system's. Raises Unsupported when it holds anything else."""
        texts: list[Text | Refusal] = []
        for piece in self.pieces:
            if not isinstance(piece, Text | Refusal):
                raise Unsupported("system and developer messages may hold text only", param="input")
            texts.append(piece)
        return texts

    @property
    def text(self) -> str:
        """The same as one text."""
        return "\n\n".join(piece.text for piece in self.texts)


def leading(conversation: Sequence[Turn]) -> int:
    """How many turns of the system's come before every other one."""
    return next((place for place, turn in enumerate(conversation) if turn.role != "system"), len(conversation))


def mark_of(piece: Piece | Thought | CallPart | Result) -> CacheBreakpoint | None:
    """The mark of a piece up to which the prompt is worth keeping in the provider's cache."""
    return piece.cached if isinstance(piece, Text | Image | File) else None


def turns(items: Sequence[Item], toolbox: Toolbox, opened: Mapping[str, Envelope]) -> list[Turn]:
    """The conversation as turns. `opened` maps the `encrypted_content` values this upstream issued to what they hold.

    Raises Unsupported for an item no dialect that is built on turns can say.
    """
    found: list[Turn] = []
    searches = _Searches(items)
    for item in _after_open_calls(items):
        role, parts = _said(item, toolbox, opened, searches)
        if not parts:
            continue
        # A turn is a maximal run of one role, but user and system messages stay one by one.
        if found and found[-1].role == role and role in ("assistant", "tool"):
            found[-1].parts.extend(parts)
        else:
            found.append(Turn(role, list(parts)))
    return found


CALLS = frozenset(
    (
        "function_call",
        "custom_tool_call",
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
        "tool_search_call",
    )
)
"""Types of items that wait for an output."""

OUTPUTS = frozenset(
    (
        "function_call_output",
        "custom_tool_call_output",
        "local_shell_call_output",
        "shell_call_output",
        "apply_patch_call_output",
        "tool_search_output",
    )
)
"""Types of items that answer a call."""


def call_id_of(item: Item) -> str | None:
    """The id that pairs a call with its output; None for anything else, and for searches a server ran itself."""
    match item.view:
        case LocalShellCallOutput(id=id_, call_id=call_id):
            return call_id or id_
        case ToolSearchCall(execution="server") | ToolSearchOutput(execution="server"):
            return None
        case (
            FunctionCall(call_id=call_id)
            | FunctionCallOutput(call_id=call_id)
            | CustomToolCall(call_id=call_id)
            | CustomToolCallOutput(call_id=call_id)
            | LocalShellCall(call_id=call_id)
            | ShellCall(call_id=call_id)
            | ShellCallOutput(call_id=call_id)
            | ApplyPatchCall(call_id=call_id)
            | ApplyPatchCallOutput(call_id=call_id)
            | ToolSearchCall(call_id=call_id)
            | ToolSearchOutput(call_id=call_id)
        ):
            return call_id
        case _:
            return None


MAX_REORDERINGS = 100
"""Times the items of one conversation may be put back in order; more is no conversation but an attack."""


def _after_open_calls(items: Sequence[Item]) -> Iterable[Item]:
    """The items in an order providers accept: all results of a turn come directly after its calls.

    That is what every provider wants (provider-chat.md §3). A client may put a message, or the next call, between
    them; such items wait until the calls before them are answered.
    """
    if not any(item.type in CALLS for item in items):
        return items
    return _reordered(items)


def _reordered(items: Sequence[Item]) -> Iterator[Item]:
    coming = deque(items)
    waiting: list[Item] = []
    unanswered: set[str] = set()
    answering = False
    reorderings = 0
    while coming:
        item = coming.popleft()
        is_output = item.type in OUTPUTS
        call_id = call_id_of(item) if is_output or item.type in CALLS else None
        if is_output and call_id in unanswered:
            yield item
            unanswered.remove(call_id)
            answering = bool(unanswered)
            if waiting and not unanswered:
                reorderings += 1
                if reorderings > MAX_REORDERINGS:
                    raise Unsupported("calls and their outputs are too far out of order", param="input")
                coming.extendleft(reversed(waiting))
                waiting.clear()
        elif unanswered and (answering or is_output or _ends_a_turn(item)):
            waiting.append(item)
        else:
            if call_id is not None and not is_output:
                unanswered.add(call_id)
            yield item
    yield from waiting


def _ends_a_turn(item: Item) -> bool:
    view = item.view
    return isinstance(view, AgentMessage | ImageCall) or (isinstance(view, Message) and view.role != "assistant")


def _said(
    item: Item, toolbox: Toolbox, opened: Mapping[str, Envelope], searches: "_Searches"
) -> tuple[Role, Sequence[Piece | Thought | CallPart | Result]]:
    match item.view:
        case Message(role=role, content=content):
            said = pieces(content)
            if role == "assistant":
                return "assistant", [piece for piece in said if piece != _NOTHING]
            return ("user" if role == "user" else "system"), said
        case AgentMessage(author=author, recipient=recipient, content=content):
            return "user", (Text(f"Message from {author} to {recipient}:"), *pieces(content))
        case Reasoning() as reasoning:
            envelope = opened.get(reasoning.encrypted_content) if reasoning.encrypted_content else None
            return "assistant", [Thought(reasoning.text, envelope)]
        case FunctionCall(call_id=call_id, name=name, arguments=arguments, namespace=namespace):
            return "assistant", [CallPart(call_id, toolbox.name_of(Target("function", name, namespace)), arguments)]
        case CustomToolCall(call_id=call_id, name=name, input=text, namespace=namespace):
            name = toolbox.name_of(Target("custom", name, namespace))
            return "assistant", [CallPart(call_id, name, _json(CustomArguments(text)))]
        case LocalShellCall(call_id=call_id, action=action):
            return "assistant", [CallPart(call_id, _fixed(toolbox, "local_shell"), _json(action))]
        case ShellCall(call_id=call_id, action=shell_action):
            return "assistant", [CallPart(call_id, _fixed(toolbox, "shell"), _json(shell_action))]
        case ApplyPatchCall(call_id=call_id, operation=operation):
            return "assistant", [CallPart(call_id, _fixed(toolbox, "apply_patch"), _json(operation))]
        case ToolSearchCall(call_id=str(call_id), arguments=raw) if call_id_of(item) is not None:
            return "assistant", [CallPart(call_id, _fixed(toolbox, "tool_search"), bytes(raw).decode())]
        case (
            FunctionCallOutput(call_id=str(call_id), output=output, status=status)
            | CustomToolCallOutput(call_id=call_id, output=output, status=status)
        ):
            return "tool", [Result(call_id, pieces(output), status == "incomplete")]
        case LocalShellCallOutput(output=output):
            answered = call_id_of(item)
            assert answered is not None
            return "tool", [Result(answered, (Text(output),))]
        case ShellCallOutput(call_id=call_id, output=outputs):
            return "tool", [Result(call_id, (Text(_json(outputs)),))]
        case ApplyPatchCallOutput(call_id=call_id, status=status, output=text):
            return "tool", [Result(call_id, (Text(text if text is not None else status),), status == "failed")]
        case ToolSearchOutput(call_id=str(call_id), tools=tools) if call_id_of(item) is not None:
            return "tool", [Result(call_id, (Text(_json(tools)),))]
        case ToolSearchCall(arguments=raw):
            if (asked := searches.asked()) is None:
                return "assistant", ()
            return "assistant", [CallPart(asked, _fixed(toolbox, "server_search"), bytes(raw).decode())]
        case ToolSearchOutput(tools=tools):
            if (answered := searches.answered()) is None:
                return "assistant", ()
            return "tool", [Result(answered, (Text(_json(tools)),))]
        case AdditionalTools() | ConfigurationUpdate() | HostedCall():
            # Settings are read by the prompt, and a record of something another provider did on its own side has no
            # words in this dialect (mapping.md §2).
            return "assistant", ()
        case ImageCall(result=str(result)) as image:
            # No protocol but Gemini's lets a model say a picture, so it is shown to it (mapping.md §7).
            url = f"data:image/{image.output_format or 'png'};base64,{result}"
            return "user", (PICTURE, Image(url, None, None))
        case ImageCall():
            return "assistant", ()
        case FunctionCallOutput() | ItemReference():
            raise AssertionError("lineage pairs every output and resolves every reference")
        case Compaction() | CompactionTrigger() | Opaque():  # pragma: no branch  # nothing else is left
            raise Unsupported(
                f"item type '{item.type}' cannot be sent to this upstream", param="input", code="invalid_value"
            )


class _Searches:
    """Searches a server ran have no call id, so they are paired by their order, and numbered by it. In a history that
    was put together one may be there without the other: then it is not said."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._count = 0
        self._open: deque[str] = deque()
        asked = answered = 0
        for item in items:
            match item.view:
                case ToolSearchCall(call_id=None):
                    asked += 1
                case ToolSearchOutput(call_id=None) if answered < asked:
                    answered += 1
                case _:
                    pass
        self._answered = answered

    def asked(self) -> str | None:
        if self._count == self._answered:
            return None
        self._count += 1
        self._open.append(f"search_{self._count}")
        return self._open[-1]

    def answered(self) -> str | None:
        return self._open.popleft() if self._open else None


Fixed = Literal["local_shell", "shell", "apply_patch", "tool_search", "server_search"]


def _fixed(toolbox: Toolbox, kind: Fixed) -> str:
    return toolbox.name_of(Target(kind, "tool_search" if kind == "server_search" else kind))


def pieces(content: Content) -> tuple[Piece, ...]:
    """A content list in neutral words. Raises Unsupported for a part of an unknown type."""
    if isinstance(content, str):
        return (Text(content),)
    return tuple([_piece(part) for part in content])


def _piece(part: Part) -> Piece:
    if part.type in TEXT_TYPES:
        return Text(part.text or "", part.prompt_cache_breakpoint)
    match part.type:
        case "input_image" | "image" | "computer_screenshot":
            return Image(part.image_url, part.file_id, part.detail, part.prompt_cache_breakpoint)
        case "input_file":
            return File(part.file_data, part.file_id, part.file_url, part.filename, part.prompt_cache_breakpoint)
        case "input_audio" if part.input_audio is not None:
            return Audio(part.input_audio.data, part.input_audio.format)
        case "refusal":
            return Refusal(part.refusal or "")
        case "encrypted_content":
            # Codex sends back what the model itself wrote to a sub-agent; nothing here encrypted it (codex.md §3).
            return Text(part.encrypted_content or "")
        case kind:
            raise Unsupported(
                f"content part type '{kind}' cannot be sent to this upstream", param="input", code="invalid_value"
            )


def _json(value: Struct | Sequence[object]) -> str:
    return _ENCODER.encode(value).decode()


_NOTHING = Text("")
_ENCODER = msgspec.json.Encoder()
