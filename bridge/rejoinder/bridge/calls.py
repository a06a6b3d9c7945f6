"""Calls while they are written: one class for each item kind a call can become (mapping.md §3).

An upstream knows only functions with JSON arguments. A function call streams them as they are; a free-form call
streams the text inside them; the others wait for the whole, since their items have no deltas for a part of it.
"""

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Raw

from rejoinder.bridge.errors import UpstreamError
from rejoinder.bridge.freetext import FreeText
from rejoinder.bridge.grammar import mismatch
from rejoinder.bridge.toolbox import Target
from rejoinder.wire import events, responses
from rejoinder.wire.items import LocalShellAction, PatchOperation, ShellAction
from rejoinder.wire.responses import ItemStatus
from rejoinder.wire.tools import Grammar

if TYPE_CHECKING:
    from rejoinder.bridge.composer import Composer


class CallWriter(Protocol):
    """Writes one call: argument text as it comes, then the end. `is_open`: its item was announced, or never will be."""

    is_open: bool

    def arguments(self, delta: str) -> None: ...

    def settle(self) -> None:
        """Something else begins: a call that is whole takes its place in the output before it."""

    def close(self, status: ItemStatus) -> None:
        """Raises UpstreamError when the arguments are not those of the tool."""


def writer_for(target: Target, call_id: str, out: "Composer") -> CallWriter:
    """The writer for the kind of item the client expects."""
    match target.kind:
        case "function":
            return _FunctionCall(target, call_id, out)
        case "custom":
            return _CustomCall(target, call_id, out)
        case "local_shell":
            return _LocalShellCall(target, call_id, out)
        case "shell":
            return _ShellCall(target, call_id, out)
        case "apply_patch":
            return _ApplyPatchCall(target, call_id, out)
        case "tool_search":
            return _ToolSearchCall(target, call_id, out)
        case "server_search":  # pragma: no branch  # nothing else is left
            return ServerSearch(target, call_id, out)


class _FunctionCall:
    is_open = True

    def __init__(self, target: Target, call_id: str, out: "Composer") -> None:
        self._out = out
        self._item = responses.FunctionCallItem(
            out.mint("fc"), "in_progress", call_id, target.name, "", target.namespace
        )
        self._pieces: list[str] = []
        self._index = out.open_item(self._item)

    def arguments(self, delta: str) -> None:
        if delta:
            self._pieces.append(delta)
            out = self._out
            out.emit(events.ArgumentsDelta(out.number(), self._item.id, self._index, delta))

    def settle(self) -> None:
        pass

    def close(self, status: ItemStatus) -> None:
        out, item = self._out, self._item
        if not self._pieces and status == "completed":
            # A tool without parameters: some servers send no arguments at all (provider-chat.md §7).
            self.arguments("{}")
        text = "".join(self._pieces)
        out.emit(events.ArgumentsDone(out.number(), item.id, self._index, item.name, text))
        out.close_item(self._index, msgspec.structs.replace(item, status=status, arguments=text))


class _CustomCall:
    is_open = True

    def __init__(self, target: Target, call_id: str, out: "Composer") -> None:
        self._out = out
        self._item = responses.CustomCallItem(
            out.mint("ctc"), "in_progress", call_id, target.name, "", target.namespace
        )
        self._text = FreeText()
        self._index = out.open_item(self._item)

    def arguments(self, delta: str) -> None:
        self._emit(self._text.feed(delta))

    def settle(self) -> None:
        pass

    def close(self, status: ItemStatus) -> None:
        out, item = self._out, self._item
        self._emit(self._text.close())
        text = self._text.value
        out.emit(events.InputDone(out.number(), item.id, self._index, text))
        out.close_item(self._index, msgspec.structs.replace(item, status=status, input=text))

    def _emit(self, delta: str) -> None:
        if delta:
            out = self._out
            out.emit(events.InputDelta(out.number(), self._item.id, self._index, delta))


class CheckedCall(_CustomCall):
    """A free-form call whose text is compared with its grammar once it is whole."""

    def __init__(self, target: Target, call_id: str, out: "Composer", grammar: Grammar) -> None:
        super().__init__(target, call_id, out)
        self._grammar = grammar

    def close(self, status: ItemStatus) -> None:
        super().close(status)
        if status == "completed" and (wrong := mismatch(self._grammar, self._text.value)) is not None:
            self._out.note(not_matching(self._item.name, wrong))


class HeldCall:
    """A free-form call that reaches the client when its text is whole and matches, or when nothing more can be done."""

    def __init__(self, target: Target, call_id: str, out: "Composer", grammar: Grammar) -> None:
        self.target = target
        self.call_id = call_id
        self._out = out
        self._grammar = grammar
        self._pieces: list[str] = []
        self.is_open = False

    def arguments(self, delta: str) -> None:
        self._pieces.append(delta)

    @property
    def text(self) -> str:
        inside = FreeText()
        inside.feed("".join(self._pieces))
        inside.close()
        return inside.value

    @property
    def wrong(self) -> str | None:
        """Where the text leaves the grammar, if it does."""
        return mismatch(self._grammar, self.text)

    def settle(self) -> None:
        # Calls may be written side by side, but to a whole object nothing can be added; and once something followed
        # it, it is too late for another try.
        with suppress(msgspec.MsgspecError):
            _OBJECT.decode("".join(self._pieces))
            self.close("completed")

    def close(self, status: ItemStatus) -> None:
        if self.is_open:
            return
        self.is_open = True
        call = _CustomCall(self.target, self.call_id, self._out)
        call.arguments("".join(self._pieces))
        call.close(status)
        if status == "completed" and (wrong := self.wrong) is not None:
            self._out.note(not_matching(self.target.name, wrong))


def not_matching(name: str, wrong: str) -> str:
    """What to say of a text that is not what its tool wants."""
    return f"tools.{name}: the text of a call does not match its grammar: {wrong}"


class LeftOut:
    """A call beyond the one the client allows: it never reaches the client, nor any later request."""

    is_open = True

    def arguments(self, delta: str) -> None:
        pass

    def settle(self) -> None:
        pass

    def close(self, status: ItemStatus) -> None:
        pass


class _Whole(ABC):
    """A call whose item is known only when all its arguments are there."""

    def __init__(self, target: Target, call_id: str, out: "Composer") -> None:
        self._target = target
        self._call_id = call_id
        self._out = out
        self._pieces: list[str] = []
        self.is_open = False

    def arguments(self, delta: str) -> None:
        self._pieces.append(delta)

    def settle(self) -> None:
        # Arguments are an object, and to a whole object nothing can be added.
        if "".join(self._pieces).rstrip().endswith("}"):
            with suppress(UpstreamError):
                self.close("completed")

    def close(self, status: ItemStatus) -> None:
        if self.is_open:
            return
        text = "".join(self._pieces)
        try:
            self._write(text.encode(), status)
            self.is_open = True
        except msgspec.MsgspecError as error:
            if status == "incomplete":
                return  # cut off before it meant anything, and never announced
            raise UpstreamError(
                f"the model called '{self._target.name}' with arguments that do not fit the tool: {error}"
            ) from error

    @abstractmethod
    def _write(self, arguments: bytes, status: ItemStatus) -> None: ...


class _LocalShellCall(_Whole):
    def _write(self, arguments: bytes, status: ItemStatus) -> None:
        action = _LOCAL_SHELL.decode(arguments)
        # `env` is required on the item and optional for the model (objects.md §6.2).
        said = {"type": "exec", "command": action.command, "env": action.env, **_set(action, _LOCAL_SHELL_OPTIONS)}
        item = responses.LocalShellCallItem(self._out.mint("lsh"), "in_progress", self._call_id, _raw(said))
        index = self._out.open_item(item)
        self._out.close_item(index, msgspec.structs.replace(item, status=status))


class _ShellCall(_Whole):
    def _write(self, arguments: bytes, status: ItemStatus) -> None:
        out = self._out
        action = _SHELL.decode(arguments)
        options = _set(action, ("timeout_ms", "max_output_length"))
        item = responses.ShellCallItem(out.mint("sh"), "in_progress", self._call_id, _raw({"commands": [], **options}))
        index = out.open_item(item)
        for number, command in enumerate(action.commands):
            out.emit(events.CommandAdded(out.number(), index, number, ""))
            out.emit(events.CommandDelta(out.number(), index, number, command))
            out.emit(events.CommandDone(out.number(), index, number, command))
        done = _raw({"commands": action.commands, **options})
        out.close_item(index, msgspec.structs.replace(item, status=status, action=done))


class _ApplyPatchCall(_Whole):
    def _write(self, arguments: bytes, status: ItemStatus) -> None:
        operation = _PATCH.decode(arguments)
        said = {"type": operation.type, "path": operation.path}
        if operation.type != "delete_file":
            said["diff"] = operation.diff or ""
        item = responses.ApplyPatchCallItem(self._out.mint("apc"), "in_progress", self._call_id, _raw(said))
        index = self._out.open_item(item)
        self._out.close_item(index, msgspec.structs.replace(item, status=status))


class _ToolSearchCall(_Whole):
    def _write(self, arguments: bytes, status: ItemStatus) -> None:
        raw = _OBJECT.decode(arguments or b"{}")
        item = responses.ToolSearchCallItem(self._out.mint("tsc"), "in_progress", self._call_id, _raw(raw), "client")
        index = self._out.open_item(item)
        self._out.close_item(index, msgspec.structs.replace(item, status=status))


class ServerSearch(_Whole):
    """A search for tools that is ours to run: the call and what it found are both in the answer, and the model goes on
    (semantics.md §7)."""

    def _write(self, arguments: bytes, status: ItemStatus) -> None:
        out = self._out
        query = _QUERY.decode(arguments or b"{}").query
        said = _raw({"query": query})
        call = responses.ToolSearchCallItem(out.mint("tsc"), "in_progress", None, said, "server")
        index = out.open_item(call)
        out.close_item(index, msgspec.structs.replace(call, status="completed"))
        found = responses.ToolSearchOutputItem(out.mint("tso"), "completed", None, out.found(query), "server")
        out.close_item(out.open_item(msgspec.structs.replace(found, status="in_progress")), found)


class _Query(msgspec.Struct):
    query: str = ""


_QUERY = msgspec.json.Decoder(_Query)
_LOCAL_SHELL = msgspec.json.Decoder(LocalShellAction)
_LOCAL_SHELL_OPTIONS = ("timeout_ms", "user", "working_directory")
_SHELL = msgspec.json.Decoder(ShellAction)
_PATCH = msgspec.json.Decoder(PatchOperation)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_ENCODER = msgspec.json.Encoder()


def _raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))


def _set(action: LocalShellAction | ShellAction, names: tuple[str, ...]) -> dict[str, str | int]:
    """The options the model gave, by name."""
    return {name: value for name in names if (value := getattr(action, name)) is not None}
