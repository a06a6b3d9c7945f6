"""The body of a create call (objects.md §1)."""

from functools import cached_property
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from rejoinder.wire.errors import BadRequest, bad_request
from rejoinder.wire.formats import TextFormat
from rejoinder.wire.items import Item
from rejoinder.wire.tools import Choice, parse_tools, tool_choice

MAX_ITEMS = 10_000
"""Input items of one request (reliability.md S8)."""

Include = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"]


class ReasoningSettings(Struct, frozen=True):
    """`ultra` is in no schema, but Codex's metadata names it (codex.md §2)."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed", "none"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: str | None = None
    mode: str | None = None


class TextSettings(Struct, frozen=True):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class StreamOptions(Struct, frozen=True):
    """Obfuscation may always be left out (events.md §1), so the option is read and changes nothing here."""

    include_obfuscation: bool | None = None


class CacheOptions(Struct, frozen=True, omit_defaults=True):
    mode: Literal["implicit", "explicit"] | None = None
    ttl: Literal["30m", "12h"] | None = None
    prewarm: bool | None = None
    comparison_response_id: str | None = None


class MultiAgent(Struct, frozen=True):
    enabled: bool


class ContextManagement(Struct, frozen=True):
    """Compact the conversation when it is longer than so many tokens (semantics.md §8)."""

    type: Literal["compaction"]
    compact_threshold: Annotated[int, Meta(ge=1000)] | None = None


Limit = Annotated[int, Meta(ge=1, le=2**53)]
"""A number of things; one that no JSON reader can be expected to take is refused here (reliability.md S8)."""

Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]


class CreateFields(Struct, frozen=True, kw_only=True):
    """The body of a create call, as objects.md §1 types it; null means left out."""

    model: Annotated[str, Meta(min_length=1)] | None = None
    input: Raw = Raw()
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: Raw = Raw()
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    include: list[Include] | None = None
    max_output_tokens: Limit | None = None
    max_tool_calls: Limit | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    parallel_tool_calls: bool | None = None
    tools: list[Raw] | None = None
    tool_choice: Raw = Raw()
    text: TextSettings | None = None
    reasoning: ReasoningSettings | None = None
    truncation: Literal["auto", "disabled"] | None = None
    context_management: Annotated[list[ContextManagement], Meta(min_length=1)] | None = None
    metadata: Metadata | None = None
    prompt: Raw = Raw()
    prompt_cache_key: Annotated[str, Meta(max_length=1024)] | None = None
    prompt_cache_options: CacheOptions | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    safety_identifier: Annotated[str, Meta(max_length=128)] | None = None
    user: str | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    moderation: Raw = Raw()
    access_programs: Raw = Raw()
    image: Raw = Raw()
    multi_agent: MultiAgent | None = None
    generate: bool | None = None
    client_metadata: dict[str, Raw] | None = None


_KNOWN = frozenset(CreateFields.__struct_fields__)
_FIELDS = msgspec.json.Decoder(CreateFields)
_KEYS = msgspec.json.Decoder(dict[str, Raw])
_INPUT = msgspec.json.Decoder(str | list[Raw])
_ENCODER = msgspec.json.Encoder()

REFUSED = {
    "prompt": "prompt templates live at OpenAI and are not served here",
}
"""Fields that demand behaviour nobody has, here or at a provider: without it the request means something else."""

_NATIVE = {
    "moderation": "moderation is not served by this upstream",
}
"""The same, where only a provider that speaks this API itself can have it."""

_OF_A_MESSAGE = frozenset(("type", "stream_id", "stream", "stream_options"))
"""Members of a `response.create` message that are no parameters of a response (websocket.md §2)."""

_WITHOUT_EFFECT = ("access_programs", "image")


class CreateRequest:
    """A create call that passed every check that needs no provider and no history.

    `fields` are the typed parameters, `raw` all of them as they came, `input` the items in the order given, `tools` and
    `tool_choice` the parsed declarations, `conversation` the id of the one it is a turn of. `generates`: whether a
    model is to answer; else the response only stands for what was said (websocket.md §2, warm-up).
    """

    def __init__(self, fields: CreateFields, raw: dict[str, Raw], items: list[Item]) -> None:
        self.fields = fields
        self.raw = raw
        self.input = items
        self.tools = parse_tools(fields.tools or [], at="tools")
        self.tool_choice: Choice = tool_choice(bytes(fields.tool_choice)) if given(fields.tool_choice) else "auto"
        self.conversation = _conversation(fields)

    @property
    def model(self) -> str:
        assert self.fields.model is not None
        return self.fields.model

    @property
    def stream(self) -> bool:
        return bool(self.fields.stream)

    @property
    def background(self) -> bool:
        return bool(self.fields.background)

    @property
    def store(self) -> bool:
        return self.fields.store is not False

    @property
    def generates(self) -> bool:
        options = self.fields.prompt_cache_options
        return self.fields.generate is not False and not (options is not None and options.prewarm)

    @cached_property
    def include(self) -> frozenset[str]:
        return frozenset(self.fields.include or ())

    @classmethod
    def parse(cls, body: bytes, *, message: bool = False) -> "CreateRequest":
        """Read a body, or a `response.create` message, whose answer is a stream whatever it says.

        Raises BadRequest naming the parameter that is wrong, missing or not served.
        """
        try:
            keys = _KEYS.decode(body)
            fields = _FIELDS.decode(body)
        except msgspec.MsgspecError as error:
            raise bad_request(error) from error
        if message:
            keys = {name: value for name, value in keys.items() if name not in _OF_A_MESSAGE}
            fields = msgspec.structs.replace(fields, stream=True)
        _refuse(fields)
        if fields.model is None:
            raise BadRequest("Missing required parameter: 'model'.", param="model", code="missing_required_parameter")
        goes_on = fields.previous_response_id is not None or given(fields.conversation)
        if not (goes_on or given(fields.input)):
            raise BadRequest("Missing required parameter: 'input'.", param="input", code="missing_required_parameter")
        return cls(fields, keys, _items(bytes(fields.input)))

    def ignored(self) -> list[str]:
        """The parameters that have no effect at a provider which does not speak this API itself.

        Raises BadRequest naming one that would change what the request means.
        """
        for name, why in _NATIVE.items():
            if given(getattr(self.fields, name)):
                raise unsupported(name, why)
        return [*_unknown(self.raw), *(name for name in _WITHOUT_EFFECT if given(getattr(self.fields, name)))]


def given(value: object) -> bool:
    """Whether a field was sent with a value: null means left out (objects.md, Receiving)."""
    return value is not None and (not isinstance(value, Raw) or bytes(value) not in (b"", b"null"))


def _unknown(keys: dict[str, Raw]) -> list[str]:
    # OpenAI answers 400 to any unknown key. A scalar one is a knob we lack: the turn can do without it, and says so.
    # A structured one may change what the request means, so it is refused by name (mapping.md §0.4).
    unknown = [key for key in keys if key not in _KNOWN]
    for key in unknown:
        if bytes(keys[key]).startswith((b"{", b"[")) and bytes(keys[key]) not in (b"{}", b"[]"):
            raise BadRequest(f"Unknown parameter: '{key}'.", param=key, code="unknown_parameter")
    return unknown


def _refuse(fields: CreateFields) -> None:
    for name, why in REFUSED.items():
        if given(getattr(fields, name)):
            raise unsupported(name, why)
    if fields.multi_agent is not None and fields.multi_agent.enabled:
        raise unsupported("multi_agent", "multi-agent runs are not served here")


class _ConversationRef(Struct, frozen=True):
    id: str


_CONVERSATION = msgspec.json.Decoder(str | _ConversationRef)


def _conversation(fields: CreateFields) -> str | None:
    """Its id or an object with it (objects.md §1); a conversation and a previous response exclude each other."""
    if not given(fields.conversation):
        return None
    try:
        named = _CONVERSATION.decode(fields.conversation)
    except msgspec.MsgspecError as error:
        raise bad_request(error, at="conversation") from error
    if fields.previous_response_id is not None:
        raise BadRequest(
            "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. Send one of them.",
            param="previous_response_id",
            code="mutually_exclusive_parameters",
        )
    return named if isinstance(named, str) else named.id


def unsupported(name: str, why: str) -> BadRequest:
    """The error for a parameter that asks for something nobody has here."""
    return BadRequest(f"Unsupported parameter: '{name}': {why}.", param=name, code="unsupported_parameter")


def _items(raw: bytes) -> list[Item]:
    if raw in (b"", b"null"):
        return []
    try:
        value = _INPUT.decode(raw)
    except msgspec.MsgspecError as error:
        raise bad_request(error, at="input") from error
    if isinstance(value, str):
        # A string is one user message (objects.md §1).
        return [Item.parse(b'{"type":"message","role":"user","content":%b}' % _ENCODER.encode(value))]
    if len(value) > MAX_ITEMS:
        raise BadRequest(
            f"Invalid 'input': array too long. Expected at most {MAX_ITEMS} items, but got {len(value)} instead.",
            param="input",
            code="array_above_max_length",
        )
    items = [Item.parse(bytes(item), at=f"input[{index}]") for index, item in enumerate(value)]
    for index, item in enumerate(items[:-1]):
        if item.type == "compaction_trigger":
            raise BadRequest("Invalid 'input': a 'compaction_trigger' must be the last item.", param=f"input[{index}]")
    return items
