"""JSON schemas (2020-12, the dialect of OpenAPI 3.1) of the types that are decoded and encoded here.

Shapes and limits are read from the types themselves, by `msgspec.inspect`: the schemas that msgspec writes stop at a
default that is `Raw`, and say of raw JSON that it may be anything. Three tables hold what no annotation says: what a
field with raw JSON means, what a `__post_init__` or a parser checks beyond the types, and which items and tools are
known by name. Objects are open throughout, since what nobody here knows passes through.
"""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TypeAlias, get_args

import msgspec
from msgspec import NODEFAULT, Struct, inspect

from rejoinder.server.conversation_types import MAX_ADDED, CompactedResponse, ConversationBody, ItemsBody
from rejoinder.server.listing import MAX_LIMIT, ItemList, Page
from rejoinder.wire import events, items, responses, tools
from rejoinder.wire.formats import TextFormat
from rejoinder.wire.request import MAX_ITEMS, REFUSED, CreateFields, MultiAgent

Schema: TypeAlias = Mapping[str, object]


Views: TypeAlias = Mapping[str, msgspec.json.Decoder[items.View]] | Mapping[str, msgspec.json.Decoder[tools.ToolView]]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_ANY: Schema = {}
_NULL: Schema = {"type": "null"}
_OBJECT: Schema = {"type": "object"}
_TEXT: Schema = {"type": "string"}
_SOME: Schema = {"not": _NULL}


def _list(of: Schema, **keywords: object) -> Schema:
    return {"type": "array", "items": of, **keywords}


def _given(**fields: Schema) -> Schema:
    """These fields are there, with these schemas."""
    return {"required": list(fields), "properties": fields}


_DECLARED: Schema = {"description": "Tools as a request declares them, looked at when they are used.", "type": "array"}
_LISTED: Schema = {"allOf": [ref("Item"), {"required": ["id", "type"]}]}

_FIELDS: Mapping[tuple[type[Struct], str], Schema] = {
    (CreateFields, "model"): {"type": "string", "minLength": 1},
    (CreateFields, "input"): {
        "description": "A string is one user message. May be left out where a conversation goes on.",
        "anyOf": [_TEXT, _list(ref("Item"), maxItems=MAX_ITEMS), _NULL],
    },
    (CreateFields, "conversation"): {
        "description": "Its id, or an object with it. Excludes `previous_response_id`.",
        "anyOf": [_TEXT, {"type": "object", **_given(id=_TEXT)}, _NULL],
    },
    (CreateFields, "tools"): {"type": ["array", "null"], "items": ref("Tool")},
    (CreateFields, "tool_choice"): {"anyOf": [ref("ToolChoice"), _NULL]},
    (CreateFields, "moderation"): _ANY,
    (CreateFields, "access_programs"): _ANY,
    (CreateFields, "image"): _ANY,
    (CreateFields, "client_metadata"): {"type": ["object", "null"]},
    (CreateFields, "generate"): {"enum": [True, None], "description": "A WebSocket takes `false`, too."},
    **{(CreateFields, name): {"type": "null", "description": f"Not served: {why}."} for name, why in REFUSED.items()},
    (MultiAgent, "enabled"): {"const": False},
    (TextFormat, "schema"): {"description": "A JSON schema."},
    (tools.FunctionTool, "parameters"): {"description": "A JSON schema, or null for none."},
    (tools.ToolSearchTool, "parameters"): {"description": "A JSON schema, or null for none."},
    (tools.NamespaceTool, "tools"): _DECLARED,
    (items.ToolSearchCall, "arguments"): _ANY,
    (items.ToolSearchOutput, "tools"): _DECLARED,
    (items.AdditionalTools, "tools"): _DECLARED,
    (responses.Response, "output"): _list(ref("OutputItem")),
    (responses.Response, "tools"): _list(ref("Tool")),
    (responses.Response, "tool_choice"): ref("ToolChoice"),
    (responses.TextEcho, "format"): ref("TextFormat"),
    (responses.OutputText, "logprobs"): _list(_OBJECT),
    (responses.LocalShellCallItem, "action"): ref("LocalShellAction"),
    (responses.ShellCallItem, "action"): ref("ShellAction"),
    (responses.ApplyPatchCallItem, "operation"): ref("PatchOperation"),
    (responses.ToolSearchCallItem, "arguments"): _ANY,
    (responses.ToolSearchOutputItem, "tools"): _DECLARED,
    (responses.WebSearchCallItem, "action"): _OBJECT,
    (events.Lifecycle, "response"): ref("Response"),
    (events.ItemAdded, "item"): ref("OutputItem"),
    (events.ItemDone, "item"): ref("OutputItem"),
    (events.TextDelta, "logprobs"): _list(_OBJECT),
    (events.TextDone, "logprobs"): _list(_OBJECT),
    (Page, "after"): _TEXT,
    (Page, "limit"): {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
    (ItemList, "data"): _list(_LISTED),
    (ConversationBody, "items"): {"type": ["array", "null"], "items": ref("Item"), "maxItems": MAX_ADDED},
    (ItemsBody, "items"): _list(ref("Item"), maxItems=MAX_ADDED),
    (CompactedResponse, "output"): _list(_LISTED),
}
"""What a field may hold where its annotation says less, most of all where it is raw JSON. A field that is raw and not
listed here has no schema at all: whoever adds one says what it means."""


def _kinds_by_need() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind, needed in items.NEEDED.items():
        found.setdefault(needed, []).append(kind)
    return found


_RULES: Mapping[type[Struct], Schema] = {
    CreateFields: {
        "required": ["model"],
        "if": {"properties": {"previous_response_id": _NULL, "conversation": _NULL}},
        "then": _given(input=_SOME),
        "not": _given(previous_response_id=_SOME, conversation=_SOME),
    },
    items.Part: {
        "allOf": [
            {"if": _given(type={"enum": kinds}), "then": _given(**{needed: _SOME})}
            for needed, kinds in _kinds_by_need().items()
        ]
    },
    items.LocalShellCallOutput: {"if": {"properties": {"id": _NULL}}, "then": _given(call_id=_SOME)},
    # Without a type, a role makes it a message.
    items.ItemReference: {"if": _given(role=_SOME), "then": _given(type={"const": "item_reference"})},
    TextFormat: {"if": _given(type={"const": "json_schema"}), "then": _given(name=_SOME, schema=_SOME)},
}
"""What is checked beyond the types of the fields."""

_IMPLIED = (items.Message, items.ItemReference)
"""Items that may come without a `type` (objects.md §6.1)."""


class Schemas:
    """The schemas by name, each written once; `named` holds whatever the references given out lead to."""

    def __init__(self) -> None:
        self.named: dict[str, Schema] = {}
        self._structs: dict[str, tuple[type[Struct], bool]] = {}
        self._items()
        self._tools()
        self._output()
        self._stream()

    def decoded(self, struct: type[Struct]) -> Schema:
        """A reference to the schema of what is read: fields with a default may be left out."""
        return self._reference(struct, sent=False)

    def encoded(self, struct: type[Struct]) -> Schema:
        """A reference to the schema of what is written: every field is there unless its struct omits defaults."""
        return self._reference(struct, sent=True)

    def narrowed(self, struct: type[Struct], kept: Set[str], *, name: str) -> Schema:
        """A reference to the schema of what is read where only these of its fields are taken, and no others."""
        self.decoded(struct)
        whole = self.named[struct.__name__.lstrip("_")]
        properties = whole["properties"]
        assert isinstance(properties, dict)
        taken = {field: schema for field, schema in properties.items() if field in kept}
        self.named[name] = {**whole, "properties": taken, "additionalProperties": False}
        return ref(name)

    def field(self, struct: type[Struct], name: str) -> Schema:
        """The schema of one field of what is read."""
        [field] = (field for field in _info(struct).fields if field.name == name)
        return self._field(struct, field, sent=False)

    # What is told apart by its `type`, and open

    def _items(self) -> None:
        for view, kinds in _by_view(items.VIEWS).items():
            implied = view in _IMPLIED
            tag: Schema = {"enum": [*kinds, None] if implied else kinds}
            first: dict[str, Schema] = {"type": tag, "id": {"type": ["string", "null"]}}
            self._add(view, first, [] if implied else ["type"])
        self._open("Item", items.VIEWS, "An item of any other type is kept and sent on as it came.")

    def _tools(self) -> None:
        for view, kinds in _by_view(tools.VIEWS).items():
            self._add(view, {"type": {"enum": kinds}}, ["type"])
        self._open("Tool", tools.VIEWS, "A tool of any other type is for a provider that has it.")
        self._add(tools.AllowedTools, {"type": {"const": "allowed_tools"}}, ["type"])
        mode: Schema = {"type": "string", "enum": list(get_args(tools.Mode))}
        other = {"type": {"not": {"const": "allowed_tools"}}}
        named: Schema = {"allOf": [self.decoded(tools.NamedTool), {"properties": other}]}
        self.named["ToolChoice"] = {"anyOf": [mode, ref("AllowedTools"), named]}

    def _output(self) -> None:
        known = [self.encoded(struct) for struct in get_args(responses.OutputItem)]
        other: Schema = {"description": "An item as its provider made it.", "type": "object", **_given(type=_TEXT)}
        self.named["OutputItem"] = {"anyOf": [*known, other]}

    def _stream(self) -> None:
        self.named["StreamEvent"] = {"anyOf": [self.encoded(event) for event in _told(events.Event)]}
        data: Schema = {"type": "string", "contentMediaType": "application/json", "contentSchema": ref("StreamEvent")}
        self.named["ServerSentEvent"] = {
            "description": "One event of a stream. The data of the last one is `[DONE]`.",
            "type": "object",
            "required": ["data"],
            "properties": {"event": _TEXT, "data": {"anyOf": [{"const": "[DONE]"}, data]}},
        }

    def _open(self, name: str, views: Views, otherwise: str) -> None:
        unknown: Schema = {"type": "string", "minLength": 1, "not": {"enum": list(views)}}
        other: Schema = {"description": otherwise, "type": "object", **_given(type=unknown)}
        self.named[name] = {"anyOf": [*(self.decoded(view) for view in _by_view(views)), other]}

    # Structs

    def _reference(self, struct: type[Struct], *, sent: bool) -> Schema:
        name = struct.__name__.lstrip("_")
        if name not in self.named:
            self._add(struct, {}, [], sent=sent)
        assert self._structs[name] == (struct, sent), f"two schemas would be called '{name}'"
        return ref(name)

    def _add(self, struct: type[Struct], first: dict[str, Schema], required: list[str], *, sent: bool = False) -> None:
        """Write the schema of a struct. `first` are properties that are told before its own."""
        name = struct.__name__.lstrip("_")
        self._structs[name] = (struct, sent)
        self.named[name] = {}  # a struct may hold itself
        info = _info(struct)
        properties = dict(first)
        required = list(required)
        if info.tag_field is not None:
            properties[info.tag_field] = {"const": info.tag}
            required.append(info.tag_field)
        always = sent and not struct.__struct_config__.omit_defaults
        for field in info.fields:
            properties[field.encode_name] = self._field(struct, field, sent=sent)
            # A field that may be unset has no default.
            if field.required or (always and (field.default, field.default_factory) != (NODEFAULT, NODEFAULT)):
                required.append(field.encode_name)
        shape: dict[str, object] = {"type": "object", "properties": properties, "required": required}
        if info.forbid_unknown_fields and not sent:
            shape["additionalProperties"] = False
        self.named[name] = {**_description(struct), **shape, **_RULES.get(struct, {})}

    def _field(self, struct: type[Struct], field: inspect.Field, *, sent: bool) -> Schema:
        meant = (_FIELDS[base, field.name] for base in struct.__mro__ if (base, field.name) in _FIELDS)
        schema = next(meant, None)
        if schema is None:
            schema = self._schema(field.type, sent=sent)
        shown = not sent and isinstance(field.default, bool | int | float | str)
        return {**schema, "default": field.default} if shown else schema

    def _schema(self, kind: inspect.Type, *, sent: bool) -> Schema:
        match kind:
            case inspect.NoneType():
                return _NULL
            case inspect.BoolType():
                return {"type": "boolean"}
            case inspect.IntType():
                return {"type": "integer", **_limits(kind)}
            case inspect.FloatType():
                return {"type": "number", **_limits(kind)}
            case inspect.StrType():
                return {"type": "string", **_limits(kind, "Length")}
            case inspect.LiteralType(values=values):
                return {"type": "string", "enum": list(values)}
            case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
                return _list(self._schema(item, sent=sent), **_limits(kind, "Items"))
            case inspect.DictType(key_type=key, value_type=value):
                names: Schema = {"propertyNames": limits} if (limits := _limits(key, "Length")) else {}
                free = self._schema(value, sent=sent)
                return {"type": "object", "additionalProperties": free, **names, **_limits(kind, "Properties")}
            case inspect.UnionType(types=types):
                return _any_of([self._schema(one, sent=sent) for one in types])
            case inspect.StructType(cls=struct):
                return self._reference(struct, sent=sent)
            case _:
                raise TypeError(f"nothing says what a {type(kind).__name__} holds")


def _info(struct: type[Struct]) -> inspect.StructType:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return info


_LIMITS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}


def _limits(kind: inspect.Type, counted: str = "") -> Schema:
    """The keywords for what an annotation bounds. `counted` is how JSON Schema calls what has a least and a most."""
    keywords = {**_LIMITS, "min_length": f"min{counted}", "max_length": f"max{counted}"}
    values = ((keyword, getattr(kind, name, None)) for name, keyword in keywords.items())
    return {keyword: value for keyword, value in values if value is not None}


def _any_of(options: Sequence[Schema]) -> Schema:
    """One of these. A plain type that may be null is written shorter, which is how people read it."""
    first, rest = options[0], options[1:]
    if list(rest) != [_NULL] or "type" not in first:
        return {"anyOf": list(options)}
    enum = first.get("enum")
    values: Schema = {"enum": [*enum, None]} if isinstance(enum, list) else {}
    return {**first, "type": [first["type"], "null"], **values}


def _by_view(views: Views) -> dict[type[Struct], list[str]]:
    """Which types of an item or a tool are read by which struct."""
    found: dict[type[Struct], list[str]] = {}
    for kind, decoder in views.items():
        found.setdefault(decoder.type, []).append(kind)
    return found


def _told(event: type[events.Event]) -> Iterator[type[events.Event]]:
    """The kinds of an event that have a type of their own, and are told over HTTP."""
    for kind in event.__subclasses__():
        if kind.__struct_config__.tag:
            yield kind
        if kind is not events.Steering:
            yield from _told(kind)


_NOTE = re.compile(r"\s*\([^()]*\.md[^()]*\)")


def _description(struct: type[Struct]) -> Schema:
    """What the struct says of itself, without its sources: they are not where the reader of the page is."""
    said = _NOTE.sub("", " ".join((struct.__doc__ or "").split()))
    return {"description": said} if said and ".md" not in said else {}
