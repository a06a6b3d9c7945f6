"""Tool declarations and tool choices (objects.md §7 and §8)."""

from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from rejoinder.wire.errors import bad_request
from rejoinder.wire.items import Name


class FunctionTool(Struct, frozen=True):
    """`parameters` is a JSON schema, or null for none."""

    name: Name
    description: str | None = None
    parameters: Raw = Raw()
    strict: bool | None = None
    defer_loading: bool | None = None


class Grammar(Struct, frozen=True):
    """`{type: "text"}`, or a grammar the input must match."""

    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class CustomTool(Struct, frozen=True):
    name: Name
    description: str | None = None
    format: Grammar | None = None
    defer_loading: bool | None = None


class NamespaceTool(Struct, frozen=True):
    name: Name
    tools: list[Raw]
    description: str | None = None


class ToolSearchTool(Struct, frozen=True):
    """`execution: "client"` ends the turn with a call; `server`, the default, leaves the search to us."""

    execution: Literal["server", "client"] = "server"
    description: str | None = None
    parameters: Raw = Raw()


class LocalShellTool(Struct, frozen=True):
    pass


class ShellEnvironment(Struct, frozen=True):
    type: str


class ShellTool(Struct, frozen=True):
    environment: ShellEnvironment | None = None


class ApplyPatchTool(Struct, frozen=True):
    pass


class HostedTool(Struct, frozen=True):
    """A tool that runs on the provider's side, like `web_search` or `file_search`."""

    type: str


class OpaqueTool(Struct, frozen=True):
    """A tool of a type this code does not know."""

    type: str


ToolView = (
    FunctionTool
    | CustomTool
    | NamespaceTool
    | ToolSearchTool
    | LocalShellTool
    | ShellTool
    | ApplyPatchTool
    | HostedTool
    | OpaqueTool
)


class _Head(Struct, frozen=True):
    type: str


@dataclass(frozen=True, slots=True)
class Tool:
    """One declaration. `raw` is what is echoed and stored; `view` is what we read."""

    raw: bytes
    type: str
    view: ToolView

    @classmethod
    def parse(cls, raw: bytes, *, at: str) -> "Tool":
        """Read one declaration. Raises BadRequest with `at` in front of the path of what is wrong."""
        try:
            kind = _HEAD.decode(raw).type
            decoder = VIEWS.get(kind)
            if decoder is not None:
                return cls(raw, kind, decoder.decode(raw))
        except msgspec.MsgspecError as error:
            raise bad_request(error, at=at) from error
        return cls(raw, kind, HostedTool(kind) if kind in _HOSTED else OpaqueTool(kind))


_HEAD = msgspec.json.Decoder(_Head)


def _decoder(view: type[ToolView]) -> msgspec.json.Decoder[ToolView]:
    return msgspec.json.Decoder(view)


VIEWS: dict[str, msgspec.json.Decoder[ToolView]] = {
    "function": _decoder(FunctionTool),
    "custom": _decoder(CustomTool),
    "namespace": _decoder(NamespaceTool),
    "tool_search": _decoder(ToolSearchTool),
    "local_shell": _decoder(LocalShellTool),
    "shell": _decoder(ShellTool),
    "apply_patch": _decoder(ApplyPatchTool),
}

_HOSTED = frozenset(
    (
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
        "file_search",
        "code_interpreter",
        "image_generation",
        "mcp",
        "computer",
        "computer_use_preview",
        "programmatic_tool_calling",
    )
)


def shown(tool: Tool) -> Raw:
    """The declaration as a response echoes it: a function has all five keys (open-responses.md §4)."""
    view = tool.view
    if not isinstance(view, FunctionTool):
        return Raw(tool.raw)
    fields = _FIELDS.decode(tool.raw)
    # `strict` left out means "try": nothing is tried here, so the honest answer is false (objects.md §7).
    defaults = {"description": _NULL, "parameters": _NULL, "strict": _FALSE}
    missing = {key: value for key, value in defaults.items() if key not in fields}
    if view.strict is None:
        missing["strict"] = _FALSE
    return Raw(_ENCODER.encode({**fields, **missing})) if missing else Raw(tool.raw)


_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_ENCODER = msgspec.json.Encoder()
_NULL = Raw(b"null")
_FALSE = Raw(b"false")

Mode = Literal["none", "auto", "required"]


class NamedTool(Struct, frozen=True):
    """A reference to a declared tool, inside a tool choice."""

    type: str
    name: str | None = None
    namespace: str | None = None


class AllowedTools(Struct, frozen=True):
    """All tools stay in the prompt, only these may be called (objects.md §8)."""

    mode: Literal["auto", "required"]
    tools: tuple[NamedTool, ...]


Choice = Mode | NamedTool | AllowedTools


def tool_choice(raw: bytes) -> Choice:
    """Read a `tool_choice`. Raises BadRequest for anything that is not one."""
    try:
        if raw.startswith(b'"'):
            return _MODE.decode(raw)
        named = _NAMED.decode(raw)
        return _ALLOWED.decode(raw) if named.type == "allowed_tools" else named
    except msgspec.MsgspecError as error:
        raise bad_request(error, at="tool_choice") from error


_MODE: msgspec.json.Decoder[Mode] = msgspec.json.Decoder(Mode)
_NAMED = msgspec.json.Decoder(NamedTool)
_ALLOWED = msgspec.json.Decoder(AllowedTools)


def parse_tools(raws: list[Raw], *, at: str) -> list[Tool]:
    """Read a list of declarations. Raises BadRequest naming the first one that is wrong."""
    return [Tool.parse(bytes(raw), at=f"{at}[{index}]") for index, raw in enumerate(raws)]
