"""The tools of one request, as functions of an upstream that knows nothing but functions (mapping.md §3).

Every tool a client may execute becomes one function with a name the upstream accepts; a call to that function becomes
the item kind the client expects. Both directions read the same table.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import msgspec
from msgspec import Raw

from rejoinder.bridge.errors import Unsupported
from rejoinder.bridge.tool_search import Deferred, declared, deferred, search
from rejoinder.wire.items import AdditionalTools, Item, ToolSearchOutput
from rejoinder.wire.tools import (
    AllowedTools,
    ApplyPatchTool,
    Choice,
    CustomTool,
    FunctionTool,
    Grammar,
    HostedTool,
    LocalShellTool,
    Mode,
    NamedTool,
    NamespaceTool,
    ShellTool,
    Tool,
    ToolSearchTool,
    parse_tools,
)

Kind = Literal["function", "custom", "local_shell", "shell", "apply_patch", "tool_search", "server_search"]

MAX_NAME = 64
"""Characters of a function name (provider-chat.md §4)."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which of the client's tools a call means."""

    kind: Kind
    name: str
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """One function offered upstream. `parameters` is a JSON schema; `custom` is set for free-form tools, so that a
    dialect which has them can declare the original."""

    name: str
    description: str | None
    parameters: bytes
    strict: bool
    target: Target
    custom: CustomTool | None = None


class Toolbox:
    """Functions in the order of their declaration, and the way back from a function's name to the client's tool.

    `withheld` are those the client declared and does not allow this time: not offered, but their names are taken.
    `hosted` are the tools that run at the provider, by kind (`web_search`), `deferred` those a search of ours may find.
    """

    def __init__(
        self,
        functions: Sequence[Function],
        choice: Choice,
        notes: Sequence[str],
        withheld: Sequence[Function] = (),
        hosted: Mapping[str, Tool] = MappingProxyType({}),
        deferred: Sequence[tuple[Function, Deferred]] = (),
    ) -> None:
        self.functions = tuple(functions)
        self.hosted = hosted
        self._deferred = tuple(tool for _, tool in deferred)
        # A model may call by a name it knows from before, or has guessed.
        self._later = {function.name: function.target for function, _ in deferred}
        self.choice = choice
        self.notes = tuple(notes)
        self._by_name = {function.name: function for function in functions}
        known = (*functions, *withheld, *(function for function, _ in deferred))
        self._by_target = {function.target: function.name for function in known}
        self._withheld = frozenset(function.name for function in withheld)

    @classmethod
    def of(
        cls, tools: Sequence[Tool], items: Sequence[Item], choice: Choice, hosted: Set[str] = frozenset()
    ) -> "Toolbox":
        """Gather what may be called: the request's own tools, then those its history adds, in order. `hosted` are the
        kinds of tools the provider runs on its own side.

        Raises Unsupported for a tool nobody here can run.
        """
        if not tools and isinstance(choice, str) and not any(_adds_tools(item) for item in items):
            return _WITHOUT_TOOLS[choice]
        gathering = _Gathering(hosted)
        gathering.add(tools)
        for item in items:
            match item.view:
                case AdditionalTools(tools=raws) | ToolSearchOutput(tools=raws):
                    gathering.add(parse_tools(raws, at="tools"), again=True)
                case _:
                    pass
        # The choice narrows the functions, so it is made before they are read.
        chosen = gathering.chosen(choice)
        gathering.defer()
        return cls(
            gathering.functions, chosen, gathering.notes, gathering.withheld, gathering.hosted, gathering.deferred
        )

    def function(self, name: str) -> Function | None:
        return self._by_name.get(name)

    def offers(self, name: str) -> bool:
        """Whether a call by this name can be answered. Where tools are on offer the client answers a name it does not
        know, and the model tries again; where none are, and to a tool that is withheld, there is no answer
        (mapping.md §4)."""
        if name in self._by_name:
            return True
        return self.choice != "none" and bool(self.functions) and name not in self._withheld

    def name_of(self, target: Target) -> str:
        """The upstream name of a client's tool, declared or (in an old history) no longer."""
        if target.namespace == target.name and target not in self._by_target:
            # OpenAI gives a function that a search found a namespace of its own name (semantics.md §7).
            target = Target(target.kind, target.name)
        return self._by_target.get(target) or flat_name(target.name, target.namespace)

    def target_of(self, name: str) -> Target:
        """What a call by this name means; a name nobody declared is passed on as a plain function."""
        function = self._by_name.get(name)
        return function.target if function is not None else self._later.get(name) or Target("function", name)

    def found(self, query: str) -> list[Raw]:
        """The declarations of deferred tools that fit."""
        return declared(search(query, self._deferred))

    def free_name(self, name: str) -> str:
        """The name, or the first like it that no function has."""
        while name in self._by_name:
            name += "_"
        return name

    def grammar_of(self, name: str) -> Grammar | None:
        """The grammar the text of a free-form call must match."""
        function = self._by_name.get(name)
        form = function.custom.format if function is not None and function.custom is not None else None
        return form if form is not None and form.type == "grammar" else None

    def named(self, tool: NamedTool) -> Function:
        """The function a tool choice names. Raises Unsupported when it is not among the tools."""
        name = tool.name if tool.type in ("function", "custom") else tool.type
        if name is not None:
            # A search is called the same whoever runs it.
            kinds = ("tool_search", "server_search") if tool.type == "tool_search" else (tool.type,)
            fitting = [one for one in self.functions if one.target.kind in kinds and one.target.name == name]
            # A bare name means the tool outside any namespace, if there is one.
            for function in sorted(fitting, key=lambda one: one.target.namespace is not None):
                if tool.namespace in (None, function.target.namespace):
                    return function
        raise Unsupported(
            f"Tool choice '{tool.name or tool.type}' not found in 'tools' parameter.",
            param="tool_choice",
            code="invalid_value",
        )


_WITHOUT_TOOLS: Mapping[Mode, Toolbox] = {mode: Toolbox((), mode, ()) for mode in get_args(Mode)}


def _adds_tools(item: Item) -> bool:
    return isinstance(item.view, AdditionalTools | ToolSearchOutput)


def hosted_kind(kind: str) -> str:
    """The kind of a hosted tool without the date of its version."""
    return "web_search" if kind.startswith("web_search") else kind


class _Gathering:
    def __init__(self, at_provider: Set[str]) -> None:
        self.hosted: dict[str, Tool] = {}
        self._at_provider = at_provider
        self.functions: list[Function] = []
        self.withheld: list[Function] = []
        self.notes: list[str] = []
        self._names: set[str] = set()
        self._targets: set[Target] = set()
        self._missing: set[str] = set()
        self._again = False
        self._found: set[Target] = set()
        self._deferrable: dict[Target, Deferred] = {}
        self.deferred: list[tuple[Function, Deferred]] = []

    def add(self, tools: Sequence[Tool], *, again: bool = False) -> None:
        """Offer these. `again`: a tool that is there already is no mistake, histories repeat what they added."""
        self._again = again
        for tool in tools:
            self._add(tool)

    def _add(self, tool: Tool) -> None:
        match tool.view:
            case FunctionTool() as view:
                self._function(tool, view, None)
            case CustomTool() as view:
                self._custom(tool, view, None)
            case NamespaceTool(name=namespace, tools=raws) as around:
                for inner in parse_tools(raws, at=f"tools[{namespace!r}].tools"):
                    match inner.view:
                        case FunctionTool() as view:
                            self._function(inner, view, around)
                        case CustomTool() as view:
                            self._custom(inner, view, around)
                        case _:
                            raise Unsupported(
                                f"namespace '{namespace}' holds a tool of type '{inner.type}'; "
                                "only 'function' and 'custom' are allowed there",
                                param="tools",
                            )
            case ToolSearchTool(execution="client") as view:
                self._offer(
                    Target("tool_search", "tool_search"),
                    view.description or _SEARCH,
                    _schema(view.parameters) or _SEARCH_SCHEMA,
                )
            case ToolSearchTool() as view:
                self._offer(_SEARCH_TARGET, view.description or _SEARCH, _QUERY_SCHEMA)
            case LocalShellTool():
                self._offer(Target("local_shell", "local_shell"), _LOCAL_SHELL, _LOCAL_SHELL_SCHEMA)
            case ShellTool(environment=environment):
                if environment is not None and environment.type != "local":
                    raise Unsupported(
                        f"a 'shell' tool with environment '{environment.type}' runs at OpenAI; "
                        "only 'local' can be served here",
                        param="tools",
                    )
                self._offer(Target("shell", "shell"), _SHELL, _SHELL_SCHEMA)
            case ApplyPatchTool():
                self._offer(Target("apply_patch", "apply_patch"), _APPLY_PATCH, _APPLY_PATCH_SCHEMA)
            case HostedTool(type=kind) if hosted_kind(kind) in self._at_provider:
                self.hosted.setdefault(hosted_kind(kind), tool)
            case HostedTool(type=kind) if kind.startswith("web_search"):
                # Codex declares it in every request (codex.md §4); refusing it would refuse Codex.
                self._missing.add(kind)
                self._note(f"tools.{kind}: this upstream has no web search, the tool is not offered")
            case HostedTool(type=kind):
                raise Unsupported(
                    f"tool '{kind}' runs on the provider's side and this upstream does not have it",
                    param="tools",
                    code="unsupported_value",
                )
            case unknown:
                raise Unsupported(f"tool type '{unknown.type}' is not known here", param="tools", code="invalid_value")

    def _function(self, tool: Tool, view: FunctionTool, around: NamespaceTool | None) -> None:
        target = Target("function", view.name, around.name if around is not None else None)
        self._offer(
            target,
            _described(view.description, around.description if around is not None else None),
            _schema(view.parameters) or _NO_PARAMETERS,
            strict=view.strict is True,
        )
        if view.defer_loading and not self._again:
            self._deferrable[target] = deferred(tool, view.name, view.description, around)

    def _custom(self, tool: Tool, view: CustomTool, around: NamespaceTool | None) -> None:
        target = Target("custom", view.name, around.name if around is not None else None)
        self._offer(
            target,
            _described(free_text(view), around.description if around is not None else None),
            _CUSTOM_SCHEMA,
            custom=view,
        )
        if view.defer_loading and not self._again:
            self._deferrable[target] = deferred(tool, view.name, view.description, around)

    def defer(self) -> None:
        """Hold back what is only to be found, and was not found yet. Without a search of ours it is all on offer: then
        the client searches, or nobody does."""
        offered = {function.target for function in self.functions}
        if _SEARCH_TARGET not in offered:
            return
        found = self._found
        self.deferred = [
            (function, self._deferrable[function.target])
            for function in self.functions
            if function.target in self._deferrable and function.target not in found
        ]
        hidden = {function.target for function, _ in self.deferred}
        self.functions = [function for function in self.functions if function.target not in hidden]

    def _offer(
        self,
        target: Target,
        description: str | None,
        parameters: bytes,
        *,
        strict: bool = False,
        custom: CustomTool | None = None,
    ) -> None:
        if self._again:
            self._found.add(target)
        if target in self._targets:
            if self._again:
                return
            raise Unsupported(f"tool '{target.name}' is declared twice", param="tools", code="invalid_value")
        name = flat_name(target.name, target.namespace)
        if name in self._names:
            name = _with_hash(name, f"{target.kind}\x1f{target.namespace}\x1f{target.name}")
        self._targets.add(target)
        self._names.add(name)
        self.functions.append(Function(name, description, parameters, strict, target, custom))

    def chosen(self, choice: Choice) -> Choice:
        match choice:
            case NamedTool(type=kind) if kind in self._missing:
                raise Unsupported(
                    f"tool choice '{kind}' names a tool this upstream does not have",
                    param="tool_choice",
                    code="unsupported_value",
                )
            case AllowedTools(tools=tools):
                kinds = {hosted_kind(tool.type) for tool in tools}
                allowed = [
                    self._find(tool)
                    for tool in tools
                    if tool.type not in self._missing and hosted_kind(tool.type) not in self.hosted
                ]
                self.hosted = {kind: tool for kind, tool in self.hosted.items() if kind in kinds}
                # Only what may be called is offered: the one form of the rule every server keeps to (mapping.md §4).
                self.withheld = [function for function in self.functions if function not in allowed]
                self.functions = [function for function in self.functions if function in allowed]
                self._note("tool_choice.allowed_tools: only the allowed tools are offered")
                return choice.mode if self.functions or self.hosted else "none"
            case _:
                return choice

    def _find(self, tool: NamedTool) -> Function:
        return Toolbox(self.functions, "auto", ()).named(tool)

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def flat_name(name: str, namespace: str | None) -> str:
    """A function name for a tool inside a namespace: `mcp__files` and `read` make `mcp__files__read`.

    Codex's namespace `functions` is its default one and may be left out (codex.md §4), which spares the model a prefix.
    """
    flat = name if namespace in (None, "functions") else f"{namespace}__{name}"
    legal = _ILLEGAL.sub("_", flat)
    return legal if legal == flat and len(flat) <= MAX_NAME else _with_hash(legal, flat)


_ILLEGAL = re.compile(r"[^A-Za-z0-9_-]")


def _with_hash(name: str, origin: str) -> str:
    suffix = "_" + hashlib.sha256(origin.encode()).hexdigest()[:8]
    return name[: MAX_NAME - len(suffix)] + suffix


def _described(description: str | None, about: str | None) -> str | None:
    return "\n\n".join(filter(None, (about, description))) or None


def _schema(parameters: Raw) -> bytes | None:
    raw = bytes(parameters)
    return raw if raw not in (b"", b"null", b"{}") else None


def free_text(tool: CustomTool) -> str:
    """The description of a free-form tool where it has to travel as a function (mapping.md §3)."""
    lines = [tool.description or "", "The `input` argument is free text, not JSON: write it as it is."]
    if tool.format is not None and tool.format.type == "grammar":
        lines.append(f"It must match this {tool.format.syntax} grammar:\n{tool.format.definition}")
    return "\n\n".join(filter(None, lines))


class CustomArguments(msgspec.Struct):
    """The arguments of a free-form tool that travels as a function."""

    input: str


_NO_PARAMETERS = b'{"type":"object","properties":{}}'
_CUSTOM_SCHEMA = (
    b'{"type":"object","properties":{"input":{"type":"string","description":"The free text of the call."}},'
    b'"required":["input"],"additionalProperties":false}'
)
_LOCAL_SHELL = "Runs a command on the user's machine and returns its output."
_LOCAL_SHELL_SCHEMA = (
    b'{"type":"object","properties":{'
    b'"command":{"type":"array","items":{"type":"string"},"description":"The program and its arguments."},'
    b'"working_directory":{"type":"string"},"timeout_ms":{"type":"integer"},'
    b'"env":{"type":"object","additionalProperties":{"type":"string"}},"user":{"type":"string"}},"required":["command"]}'
)
_SHELL = "Runs commands in a shell on the user's machine, at the same time, and returns their outputs."
_SHELL_SCHEMA = (
    b'{"type":"object","properties":{'
    b'"commands":{"type":"array","items":{"type":"string"},"description":"Command lines."},'
    b'"timeout_ms":{"type":"integer"},"max_output_length":{"type":"integer"}},"required":["commands"]}'
)
_APPLY_PATCH = (
    "Creates, updates or deletes one file. `diff` is in the V4A format: lines that begin with a space are context, "
    "with `-` are removed, with `+` are added; `@@ <line>` before a hunk names an enclosing line where the context "
    "is not unique; no line numbers. For create_file every line begins with `+`; delete_file has no diff."
)
_APPLY_PATCH_SCHEMA = (
    b'{"type":"object","properties":{'
    b'"type":{"type":"string","enum":["create_file","update_file","delete_file"]},'
    b'"path":{"type":"string"},"diff":{"type":"string"}},"required":["type","path"]}'
)
_SEARCH_TARGET = Target("server_search", "tool_search")
_SEARCH = "Searches for further tools. The tools it finds can be called afterwards."
_QUERY_SCHEMA = (
    b'{"type":"object","properties":{"query":{"type":"string","description":"What the tool should be able to do."}},'
    b'"required":["query"]}'
)
_SEARCH_SCHEMA = (
    b'{"type":"object","properties":{"query":{"type":"string"},"limit":{"type":"integer"}},"required":["query"]}'
)
