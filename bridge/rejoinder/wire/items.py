"""Conversation items, as clients send them and as the store keeps them (objects.md §5 and §6).

An item is kept as the bytes it came in. `view` is only for reading: it names the fields the bridge needs, and whatever
else the item holds (a new field, another key order, a type nobody here knows) stays in `raw`.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from rejoinder.wire.errors import BadRequest, bad_request
from rejoinder.wire.formats import TextFormat


class Audio(Struct, frozen=True):
    data: str
    format: str


class CacheBreakpoint(Struct, frozen=True, gc=False):
    """The prompt up to here, this part included, is worth keeping in the provider's cache (objects.md §5)."""

    mode: Literal["explicit"]
    ttl: Literal["30m", "12h"] | UnsetType | None = UNSET


class Part(Struct, frozen=True):
    """One part of a content list. Which fields mean something follows from `type` (objects.md §5)."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: Audio | None = None
    encrypted_content: str | None = None
    prompt_cache_breakpoint: CacheBreakpoint | None = None

    def __post_init__(self) -> None:
        needed = NEEDED.get(self.type)
        if needed is not None and getattr(self, needed) is None:
            # msgspec turns this into a validation error with the part's path.
            raise ValueError(f"Object missing required field `{needed}`")


NEEDED = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
    "input_audio": "input_audio",
    "encrypted_content": "encrypted_content",
}

TEXT_TYPES = frozenset(("input_text", "output_text", "text", "summary_text", "reasoning_text"))

Content = str | tuple[Part, ...]


CallId = Annotated[str, Meta(min_length=1, max_length=64)]
Name = Annotated[str, Meta(min_length=1)]


class Message(Struct, frozen=True):
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    phase: str | None = None


class Reasoning(Struct, frozen=True):
    """`summary` and `content` are for people; `encrypted_content` is what goes back to its issuer."""

    summary: tuple[Part, ...] = ()
    content: tuple[Part, ...] | None = None
    encrypted_content: str | None = None
    id: str | None = None

    @property
    def text(self) -> str:
        """What the reasoning says, raw where it is shown raw, else its summary."""
        return "\n\n".join(part.text for part in self.content or self.summary if part.text is not None)


class FunctionCall(Struct, frozen=True):
    call_id: CallId
    name: Name
    arguments: str
    namespace: str | None = None
    status: str | None = None


class FunctionCallOutput(Struct, frozen=True):
    """`call_id` may be missing since SDK 3.52; `name` then says whose output it is (objects.md §6.1)."""

    output: Content
    call_id: CallId | None = None
    name: str | None = None
    status: str | None = None


class CustomToolCall(Struct, frozen=True):
    call_id: CallId
    name: Name
    input: str
    namespace: str | None = None
    status: str | None = None


class CustomToolCallOutput(Struct, frozen=True):
    call_id: CallId
    output: Content
    status: str | None = None


class LocalShellAction(Struct, frozen=True, omit_defaults=True):
    command: list[str]
    env: dict[str, str] = {}
    timeout_ms: int | None = None
    user: str | None = None
    working_directory: str | None = None


class LocalShellCall(Struct, frozen=True):
    call_id: CallId
    action: LocalShellAction


class LocalShellCallOutput(Struct, frozen=True):
    """`id` is the id of the call (objects.md §6.2); the agents SDK says `call_id` instead. One of them is there."""

    output: str
    id: str | None = None
    call_id: CallId | None = None

    def __post_init__(self) -> None:
        if self.id is None and self.call_id is None:
            raise ValueError("Object missing required field `id`")


class ShellAction(Struct, frozen=True, omit_defaults=True):
    commands: list[str]
    timeout_ms: int | None = None
    max_output_length: int | None = None


class ShellCall(Struct, frozen=True):
    call_id: CallId
    action: ShellAction


class ShellOutcome(Struct, frozen=True):
    type: Literal["exit", "timeout"]
    exit_code: int | None = None


class ShellOutput(Struct, frozen=True):
    stdout: str
    stderr: str
    outcome: ShellOutcome


class ShellCallOutput(Struct, frozen=True):
    call_id: CallId
    output: list[ShellOutput]


class PatchOperation(Struct, frozen=True, omit_defaults=True):
    """`diff` is in the V4A format; a deletion has none."""

    type: Literal["create_file", "update_file", "delete_file"]
    path: str
    diff: str | None = None


class ApplyPatchCall(Struct, frozen=True):
    call_id: CallId
    operation: PatchOperation


class ApplyPatchCallOutput(Struct, frozen=True):
    call_id: CallId
    status: Literal["completed", "failed"]
    output: str | None = None


class ToolSearchCall(Struct, frozen=True):
    """`arguments` is any JSON, not a string; `call_id` is null when the server searched itself."""

    arguments: Raw
    call_id: CallId | None = None
    execution: str | None = None


class ToolSearchOutput(Struct, frozen=True):
    tools: list[Raw]
    call_id: CallId | None = None
    execution: str | None = None


class AdditionalTools(Struct, frozen=True):
    """Tools that join the request's own from here on."""

    tools: list[Raw]


class AgentMessage(Struct, frozen=True):
    """What one agent of a client said to another (codex.md §3)."""

    author: str
    recipient: str
    content: Content


class ItemReference(Struct, frozen=True):
    id: str


class Compaction(Struct, frozen=True):
    encrypted_content: str


class CompactionTrigger(Struct, frozen=True):
    pass


class EffortUpdate(Struct, frozen=True):
    effort: str | None = None


class FormatUpdate(Struct, frozen=True):
    format: TextFormat | None = None


class ConfigurationUpdate(Struct, frozen=True):
    """Settings that hold from this point of the conversation on; the last one before the end wins."""

    reasoning: EffortUpdate | None = None
    text: FormatUpdate | None = None


class HostedCall(Struct, frozen=True):
    """Something a provider did on its own side: a record of it, with nothing left to answer."""

    type: str


class ImageCall(Struct, frozen=True):
    """A picture a provider made on its own side. `result` is base64."""

    result: str | None = None
    output_format: str | None = None


class Opaque(Struct, frozen=True):
    """An item of a type this code does not know."""

    type: str


View = (
    Message
    | Reasoning
    | FunctionCall
    | FunctionCallOutput
    | CustomToolCall
    | CustomToolCallOutput
    | LocalShellCall
    | LocalShellCallOutput
    | ShellCall
    | ShellCallOutput
    | ApplyPatchCall
    | ApplyPatchCallOutput
    | ToolSearchCall
    | ToolSearchOutput
    | AdditionalTools
    | AgentMessage
    | ItemReference
    | Compaction
    | CompactionTrigger
    | ConfigurationUpdate
    | HostedCall
    | ImageCall
    | Opaque
)


class Head(Struct, frozen=True):
    """The fields that say what an item is."""

    type: str | None = None
    id: str | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Item:
    """One conversation item. `raw` is what we store and send on; `view` is what we read."""

    raw: bytes
    type: str
    id: str | None
    view: View

    @classmethod
    def parse(cls, raw: bytes, *, at: str = "item") -> "Item":
        """Read one item. Raises BadRequest with `at` in front of the path of what is wrong."""
        try:
            head = _HEAD.decode(raw)
            kind = head.type or _implied_type(head)
            if kind is None:
                raise BadRequest(f"Missing required parameter: '{at}.type'.", param=f"{at}.type",
                                 code="missing_required_parameter")  # fmt: skip
            return cls(raw, kind, head.id, _view(kind, raw))
        except msgspec.MsgspecError as error:
            raise bad_request(error, at=at) from error


def _implied_type(head: Head) -> str | None:
    # An object with a role is a message, one with nothing but an id refers to a stored item (objects.md §6.1).
    if head.role is not None:
        return "message"
    return "item_reference" if head.id is not None else None


def _view(kind: str, raw: bytes) -> View:
    decoder = VIEWS.get(kind)
    if decoder is not None:
        return decoder.decode(raw)
    return HostedCall(kind) if kind in _HOSTED else Opaque(kind)


def _decoder(view: type[View]) -> msgspec.json.Decoder[View]:
    return msgspec.json.Decoder(view)


_HEAD = msgspec.json.Decoder(Head)

VIEWS: dict[str, msgspec.json.Decoder[View]] = {
    "message": _decoder(Message),
    "reasoning": _decoder(Reasoning),
    "function_call": _decoder(FunctionCall),
    "function_call_output": _decoder(FunctionCallOutput),
    "custom_tool_call": _decoder(CustomToolCall),
    "custom_tool_call_output": _decoder(CustomToolCallOutput),
    "local_shell_call": _decoder(LocalShellCall),
    "local_shell_call_output": _decoder(LocalShellCallOutput),
    "shell_call": _decoder(ShellCall),
    "shell_call_output": _decoder(ShellCallOutput),
    "apply_patch_call": _decoder(ApplyPatchCall),
    "apply_patch_call_output": _decoder(ApplyPatchCallOutput),
    "tool_search_call": _decoder(ToolSearchCall),
    "tool_search_output": _decoder(ToolSearchOutput),
    "additional_tools": _decoder(AdditionalTools),
    "agent_message": _decoder(AgentMessage),
    "item_reference": _decoder(ItemReference),
    "compaction": _decoder(Compaction),
    # An alias Codex accepts on reading, so it may echo it (objects.md §6.1).
    "compaction_summary": _decoder(Compaction),
    "compaction_trigger": _decoder(CompactionTrigger),
    "configuration_update": _decoder(ConfigurationUpdate),
    "image_generation_call": _decoder(ImageCall),
}

_HOSTED = frozenset(
    (
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "mcp_list_tools",
        "mcp_call",
        "mcp_approval_request",
        "mcp_approval_response",
    )
)

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_ENCODER = msgspec.json.Encoder()
_STATUS = Raw(b'"completed"')


@dataclass(frozen=True, slots=True)
class Kept:
    """An item as it is stored and listed, and which of its fields the client did not send: flags, one bit each."""

    raw: bytes
    added: int


_WITHOUT_STATUS = (
    "additional_tools",
    "compaction",
    "configuration_update",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_list_tools",
)
"""Types of items that have none (objects.md §6)."""

_ID, _TYPE, _WITH_STATUS, _CONTENT = 1, 2, 4, 8


def kept(item: Item, new_id: str) -> Kept:
    """The form in which an item is stored and listed: with an `id`, a `type`, a `status`, and parts for its content.

    Lists promise `id` and `status` on every item (http.md §3, objects.md §6.4); everything else stays as it came.
    """
    fields = _FIELDS.decode(item.raw)
    added = 0
    for name in ("id", "type", "status"):
        if name in fields and bytes(fields[name]) == b"null":
            del fields[name]  # null means left out (objects.md, Receiving)
    if item.id is None:
        fields = {"id": _raw(new_id), **fields}
        added |= _ID
    if "type" not in fields:
        fields["type"] = _raw(item.type)
        added |= _TYPE
    if "status" not in fields and item.type not in _WITHOUT_STATUS:
        fields["status"] = _STATUS
        added |= _WITH_STATUS
    if isinstance(item.view, Message) and isinstance(item.view.content, str):
        kind = "output_text" if item.view.role == "assistant" else "input_text"
        part = {"type": kind, "text": item.view.content, **({"annotations": []} if kind == "output_text" else {})}
        fields["content"] = _raw([part])
        added |= _CONTENT
    return Kept(_ENCODER.encode(fields), added)


def listed(raw: bytes) -> bytes:
    """An output item as lists show it: some providers give it no `status`, which lists promise (http.md §3)."""
    fields = _FIELDS.decode(raw)
    if "status" in fields or _HEAD.decode(raw).type in _WITHOUT_STATUS:
        return raw
    return _ENCODER.encode({**fields, "status": _STATUS})


def as_sent(raw: bytes, added: int) -> bytes:
    """A stored item without what was added to it: the same bytes in every turn for whoever takes items as they are."""
    if not added:
        return raw
    fields = _FIELDS.decode(raw)
    for flag, name in ((_ID, "id"), (_TYPE, "type"), (_WITH_STATUS, "status")):
        if added & flag:
            del fields[name]
    if added & _CONTENT:
        [part] = _PARTS.decode(fields["content"])
        fields["content"] = _raw(part.text)
    return _ENCODER.encode(fields)


def unnamed(item: Item) -> Item:
    """The item without its id, which may have been given to it here: then its bytes never had it."""
    if item.id is None:
        return item
    fields = _FIELDS.decode(item.raw)
    fields.pop("id", None)
    return replace(item, raw=_ENCODER.encode(fields), id=None)


class _TextPart(Struct):
    text: str


_PARTS = msgspec.json.Decoder(list[_TextPart])


def _raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))
