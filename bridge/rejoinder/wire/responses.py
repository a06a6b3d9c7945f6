"""The response object and the items we make ourselves (objects.md §2 to §6, open-responses.md §4).

A response carries every key, with null where there is nothing; items and parts leave out what they do not have.
"""

from typing import Literal

from msgspec import UNSET, Raw, Struct, UnsetType, field

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class InputDetails(Struct, frozen=True):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(Struct, frozen=True):
    reasoning_tokens: int = 0


class Usage(Struct, frozen=True):
    """Tokens. Cached and cache-write tokens are part of the input, reasoning tokens part of the output."""

    input_tokens: int = 0
    input_tokens_details: InputDetails = InputDetails()
    output_tokens: int = 0
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int = 0


class Failure(Struct, frozen=True):
    code: str
    message: str


class IncompleteDetails(Struct, frozen=True):
    reason: str


class ReasoningEcho(Struct, frozen=True):
    effort: str | None = None
    summary: str | None = None


class TextEcho(Struct, frozen=True):
    format: Raw
    verbosity: str = "medium"


class UrlCitation(Struct, frozen=True, tag_field="type", tag="url_citation"):
    """Where in the text (code points, end exclusive) which page is cited."""

    url: str
    title: str
    start_index: int
    end_index: int


class FileCitation(Struct, frozen=True, tag_field="type", tag="file_citation"):
    """Which file is cited, and after which code point of the text."""

    file_id: str
    filename: str
    index: int


Citation = UrlCitation | FileCitation


class OutputText(Struct, tag_field="type", tag="output_text"):
    text: str
    annotations: list[Citation] = field(default_factory=list)
    logprobs: list[Raw] = field(default_factory=list)


class OutputRefusal(Struct, tag_field="type", tag="refusal"):
    refusal: str


class ReasoningText(Struct, tag_field="type", tag="reasoning_text"):
    text: str


class SummaryText(Struct, tag_field="type", tag="summary_text"):
    text: str


OutputPart = OutputText | OutputRefusal | ReasoningText


class OutputMessage(Struct, tag_field="type", tag="message"):
    id: str
    status: ItemStatus
    content: list[OutputText | OutputRefusal]
    role: Literal["assistant"] = "assistant"


class ReasoningItem(Struct, tag_field="type", tag="reasoning", omit_defaults=True):
    id: str
    status: ItemStatus
    summary: list[SummaryText]
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None


class FunctionCallItem(Struct, tag_field="type", tag="function_call", omit_defaults=True):
    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str
    namespace: str | None = None


class CustomCallItem(Struct, tag_field="type", tag="custom_tool_call", omit_defaults=True):
    id: str
    status: ItemStatus
    call_id: str
    name: str
    input: str
    namespace: str | None = None


class LocalShellCallItem(Struct, tag_field="type", tag="local_shell_call"):
    """`action` is the object of objects.md §6.2, already in its final form."""

    id: str
    status: ItemStatus
    call_id: str
    action: Raw


class ShellCallItem(Struct, tag_field="type", tag="shell_call"):
    id: str
    status: ItemStatus
    call_id: str
    action: Raw


class ApplyPatchCallItem(Struct, tag_field="type", tag="apply_patch_call"):
    id: str
    status: ItemStatus
    call_id: str
    operation: Raw


class ToolSearchCallItem(Struct, tag_field="type", tag="tool_search_call"):
    id: str
    status: ItemStatus
    call_id: str | None
    arguments: Raw
    execution: str


class ToolSearchOutputItem(Struct, tag_field="type", tag="tool_search_output"):
    id: str
    status: ItemStatus
    call_id: str | None
    tools: list[Raw]
    execution: str


class WebSearchCallItem(Struct, tag_field="type", tag="web_search_call"):
    """`action` is the object of objects.md §6.3, as far as it is known."""

    id: str
    status: Literal["in_progress", "searching", "completed", "failed"]
    action: Raw


class ImageCallItem(Struct, tag_field="type", tag="image_generation_call", omit_defaults=True):
    """`result` is base64; null while the picture is made."""

    id: str
    status: Literal["in_progress", "generating", "completed", "failed"]
    result: str | None
    output_format: str | None = None


class CompactionItem(Struct, tag_field="type", tag="compaction"):
    id: str
    encrypted_content: str


OutputItem = (
    OutputMessage
    | ReasoningItem
    | FunctionCallItem
    | CustomCallItem
    | LocalShellCallItem
    | ShellCallItem
    | ApplyPatchCallItem
    | ToolSearchCallItem
    | ToolSearchOutputItem
    | WebSearchCallItem
    | ImageCallItem
    | CompactionItem
)


class InputTransformation(Struct, frozen=True):
    """An item of the input that the model did not get (objects.md §2)."""

    id: str
    type: str
    action: str
    reason: str


class ConversationRef(Struct, frozen=True):
    id: str


class Response(Struct, kw_only=True):
    """The API object, all keys always present but `input_transformations`. An output item of a provider that speaks
    this API itself is kept as the bytes it came in."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status = "in_progress"
    background: bool = False
    error: Failure | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    model: str
    output: list[OutputItem | Raw] = field(default_factory=list)
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    conversation: ConversationRef | None = None
    prompt_cache_key: str | None = None
    reasoning: ReasoningEcho = ReasoningEcho()
    safety_identifier: str | None = None
    service_tier: str = "default"
    store: bool = True
    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    text: TextEcho = TextEcho(Raw(b'{"type":"text"}'))
    tool_choice: Raw = Raw(b'"auto"')
    tools: list[Raw] = field(default_factory=list)
    top_logprobs: int = 0
    truncation: str = "disabled"
    usage: Usage | None = None
    user: str | None = None
    input_transformations: list[InputTransformation] | UnsetType = UNSET
