"""What a model reads of a call's body, for whoever counts it.

Every dialect writes its own body, and what the provider makes of one before its model reads it is known of few. So this
does not know dialects either: it goes through the JSON, keeps what is said, and leaves out what is about the request.
What is no text is a number of tokens here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from rejoinder.bridge.compaction import IMAGE_TOKENS
from rejoinder.bridge.errors import Unsupported

MESSAGE_TOKENS = 4
"""Tokens around a message, a call or a result: where it begins and ends, and whose it is. So it is in OpenAI's models;
the chat templates of open ones take between three and five."""

REPLY_TOKENS = 3
"""Tokens after the last message, which make the model answer."""


@dataclass(frozen=True, slots=True)
class Words:
    """`texts` is what is said, in the order of the body, each text tokenized by itself; `beside` the tokens of all that
    is no text: pictures, files, and what stands around messages."""

    texts: tuple[str, ...]
    beside: int


def words(body: bytes) -> Words:
    """The words of a call's body, which is a JSON object of any dialect.

    Raises Unsupported for a number that is none of a computer's (`1e999`): what nobody reads goes out as it came in.
    """
    try:
        fields = _BODY.decode(body)
    except msgspec.ValidationError as error:
        raise Unsupported(f"the tokens cannot be counted: {error}") from error
    page = _Page()
    for name, value in fields.items():
        if name in _CONVERSATION:
            page.messages(value)
        elif name in _INSTRUCTIONS:
            page.message(value)
        elif name == "tools":
            page.json(value)
        elif name in _FORMATS:
            page.schema(value)
    return Words(tuple(page.texts), page.beside)


class _Page:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.beside = REPLY_TOKENS

    def messages(self, value: object) -> None:
        for one in value if isinstance(value, list) else [value]:
            self.message(one)

    def message(self, value: object) -> None:
        self.beside += MESSAGE_TOKENS
        self.said(value)

    def said(self, value: object) -> None:
        match value:
            case str():
                self.texts.append(value)
            case list():
                for one in value:
                    self.said(one)
            case {"type": "document", "source": {"type": "text", "data": str(text)}}:
                self.texts.append(text)
            case {"type": str(kind)} if kind in _MEDIA:
                self.beside += IMAGE_TOKENS
            case dict():
                self._fields(value)
            case _:
                pass  # null, or a number that says nothing by itself

    def _fields(self, fields: Mapping[str, object]) -> None:
        for name, value in fields.items():
            if name in _UNREAD:
                continue
            if name == "tool_calls":
                self.messages(value)
            elif name in _NESTED or not isinstance(value, dict | list):
                self.said(value)
            else:
                self.json(value)

    def json(self, value: object) -> None:
        # Templates write JSON anew, on one line with spaces, so the line breaks a client put in are not counted.
        self.texts.append(msgspec.json.format(msgspec.json.encode(value), indent=0).decode())

    def schema(self, value: object) -> None:
        """The schema of an answer, wherever in its format it is; the rest of it is an order to the provider."""
        match value:
            case {"schema": schema}:
                self.json(schema)
            case dict():
                for inner in value.values():
                    self.schema(inner)
            case _:
                pass


_CONVERSATION = frozenset(("input", "messages"))
_INSTRUCTIONS = frozenset(("instructions", "system"))
_FORMATS = frozenset(("output_config", "response_format", "text"))

_MEDIA = frozenset(
    (
        "computer_screenshot",
        "document",
        "file",
        "image",
        "image_generation_call",
        "image_url",
        "input_audio",
        "input_file",
        "input_image",
    )
)
"""Types of parts and items that are a picture or a file, and of which nothing but that is counted."""

_NESTED = frozenset(("content", "custom", "function", "output", "reasoning_details", "summary"))
"""Fields that hold parts. Everything else that has fields itself is data, such as the arguments of a call."""

_UNREAD = frozenset(
    (
        "annotations",
        "cache_control",
        "call_id",
        "data",
        "encrypted_content",
        "extra_content",
        "format",
        "id",
        "logprobs",
        "phase",
        "prompt_cache_breakpoint",
        "role",
        "signature",
        "status",
        "tool_call_id",
        "tool_use_id",
        "type",
    )
)
"""Fields that name, mark or seal something. How long sealed reasoning is for its model cannot be seen from outside."""

_BODY = msgspec.json.Decoder(dict[str, object])
