"""What things look like, field by field: the strict half of reading.

A field without a default has to be there, `| None` may be null, and `UnsetType` may be left out but is never null.
Fields and types that are not named here may come as they like: servers may add to the protocol.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from rejoinder.conformance.answer import read

ItemStatus = Literal["in_progress", "completed", "incomplete"]
_Count = Annotated[int, Meta(ge=0)]


class _Error(Struct):
    code: str
    message: str


class _Reason(Struct):
    reason: str


class _Conversation(Struct):
    id: str


class _InputDetails(Struct):
    cached_tokens: _Count
    cache_write_tokens: _Count | UnsetType = UNSET  # OpenAI has it in every answer, Open Responses does not know it


class _OutputDetails(Struct):
    reasoning_tokens: _Count


class _Usage(Struct):
    input_tokens: _Count
    input_tokens_details: _InputDetails
    output_tokens: _Count
    output_tokens_details: _OutputDetails
    total_tokens: _Count


class _Format(Struct):
    type: Literal["text", "json_schema", "json_object"]


class _Text(Struct):
    format: _Format


class FunctionTool(Struct):
    """A function tool as it is echoed: all five keys, whatever the client left out."""

    type: Literal["function"]
    name: str
    description: str | None
    parameters: dict[str, Raw] | None
    strict: bool | None


class ResponseShape(Struct):
    """The response object (API reference, The response object; objects.md §2)."""

    # Whatever it begins with: it has to be a valid `previous_response_id` (http.md §6.2).
    id: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]+$")]
    object: Literal["response"]
    created_at: float
    completed_at: float | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool | None
    error: _Error | None
    incomplete_details: _Reason | None
    instructions: str | list[Raw] | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str] | None
    model: str
    output: list[Raw]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, Raw] | None
    safety_identifier: str | None
    service_tier: str | None
    store: bool
    temperature: float | None
    top_p: float | None
    text: _Text
    tool_choice: str | dict[str, Raw]
    tools: list[Raw]
    top_logprobs: int | None
    truncation: Literal["auto", "disabled"] | None
    usage: _Usage | None
    # OpenAI's own responses have it only when there is a conversation.
    conversation: _Conversation | UnsetType | None = UNSET


class _OpenReasoning(Struct):
    effort: Literal["none", "low", "medium", "high", "xhigh"] | None
    summary: Literal["auto", "concise", "detailed"] | None


class _OpenText(Struct):
    verbosity: Literal["low", "medium", "high"] | UnsetType = UNSET


class OpenShape(Struct):
    """What Open Responses asks beyond that: two more keys, and no null where OpenAI has one (open-responses.md §4)."""

    presence_penalty: float
    frequency_penalty: float
    created_at: int | UnsetType = UNSET
    completed_at: int | UnsetType | None = UNSET
    background: bool | UnsetType = UNSET
    instructions: str | UnsetType | None = UNSET
    reasoning: _OpenReasoning | UnsetType | None = UNSET
    service_tier: str | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    text: _OpenText | UnsetType = UNSET
    top_logprobs: int | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    truncation: str | UnsetType = UNSET


class _TextPart(Struct, tag_field="type", tag="output_text"):
    text: str
    annotations: list[Raw]
    logprobs: list[Raw] | UnsetType | None = UNSET


class _RefusalPart(Struct, tag_field="type", tag="refusal"):
    refusal: str


class _SummaryPart(Struct):
    type: Literal["summary_text"]
    text: str


class _ReasoningPart(Struct):
    type: Literal["reasoning_text"]
    text: str


class _Item(Struct):
    type: str
    id: Annotated[str, Meta(min_length=1)]


class _Message(_Item):
    role: Literal["assistant"]
    status: ItemStatus
    content: list[_TextPart | _RefusalPart]
    phase: Literal["commentary", "final_answer"] | UnsetType | None = UNSET


class _FunctionCall(_Item):
    call_id: Annotated[str, Meta(min_length=1, max_length=64)]
    name: str
    arguments: str
    status: ItemStatus


class _Reasoning(_Item):
    summary: list[_SummaryPart]
    content: list[_ReasoningPart] | UnsetType | None = UNSET
    encrypted_content: str | UnsetType | None = UNSET


class ListedItem(_Item):
    """An item of a list; there every item has these three."""

    status: str


_ITEMS: dict[str, type[_Item]] = {"message": _Message, "function_call": _FunctionCall, "reasoning": _Reasoning}


class ListShape(Struct):
    object: Literal["list"]
    data: list[Raw]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ModelShape(Struct):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelListShape(Struct):
    object: Literal["list"]
    data: list[ModelShape]


class DeletionShape(Struct):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


class _ErrorShape(Struct):
    message: Annotated[str, Meta(min_length=1)]
    type: str
    param: str | None
    code: str | None


class EnvelopeShape(Struct):
    error: _ErrorShape


def output_items(response: bytes | Raw) -> list[Raw]:
    """The items of a response, as they came. Raises Broken when it has none to look at."""
    return read(_Output, response, "a response").output


class _Output(Struct):
    output: list[Raw]


def read_item(raw: Raw) -> None:
    """Raises Broken when an output item lacks a field of its type, or has one of the wrong kind."""
    kind = read(_Item, raw, "an output item").type
    read(_ITEMS.get(kind, _Item), raw, f"a '{kind}' item")


def nulls(raw: Raw) -> Iterator[str]:
    """The paths of null values in an item that clients know well: it leaves out what it lacks."""
    fields = msgspec.json.decode(raw)
    if isinstance(fields, dict) and fields.get("type") in _ITEMS:
        yield from _nulls(fields, str(fields["type"]))


_NULLABLE = ("phase", "caller", "encrypted_content")
"""OpenAI may say null in these, though Open Responses may not (objects.md §6, open-responses.md §4.1)."""


def _nulls(value: object, at: str) -> Iterator[str]:
    match value:
        case None:
            yield at
        case list():
            for index, inner in enumerate(value):
                yield from _nulls(inner, f"{at}[{index}]")
        case dict():
            for key, inner in value.items():
                if key not in _NULLABLE:
                    yield from _nulls(inner, f"{at}.{key}")
