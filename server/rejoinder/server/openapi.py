"""The OpenAPI 3.1 description of this server: one row per operation, and what all of them have in common.

Bodies are named by the types that are decoded and encoded, so their schemas follow the code (`server/schemas.py`).
"""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from rejoinder.server.asked import MOST_DIGITS
from rejoinder.server.compacting import TAKEN
from rejoinder.server.conversation_types import (
    CompactedResponse,
    Conversation,
    ConversationBody,
    ConversationDeleted,
    ConversationUpdate,
    ItemsBody,
)
from rejoinder.server.counting import COUNTED_BY, InputTokens
from rejoinder.server.health import Report
from rejoinder.server.http import LONGEST_KEY
from rejoinder.server.listing import ItemList, Page
from rejoinder.server.models import Model, ModelList
from rejoinder.server.notes import LOSSES, NAME
from rejoinder.server.schemas import Schema, Schemas, ref
from rejoinder.server.stored import Deleted
from rejoinder.wire.items import Item
from rejoinder.wire.request import CreateFields, Include
from rejoinder.wire.responses import Response


class Error(Struct, frozen=True):
    """`param` is the path of what is wrong with the request, `code` says it for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(Struct, frozen=True):
    """The body of every answer that is an error."""

    error: Error


@dataclass(frozen=True, slots=True)
class Operation:
    """One row. `answer` is the body of a 200, or its media type where no type stands behind it; `fails` are the
    statuses and `tells` the headers beside those of every route."""

    method: Literal["get", "post", "delete"]
    path: str
    name: str
    summary: str
    answer: type[Struct] | type[Item] | Literal["text/html", "application/json"]
    body: type[Struct] | None = None
    parameters: Sequence[str] = ()
    fails: Sequence[int] = ()
    tells: Sequence[str] = ()
    streams: bool = False
    keyed: bool = True
    takes: Set[str] = frozenset()
    """The fields of `body` that are taken, where that is not all of them."""

    @property
    def places(self) -> Sequence[str]:
        """The names in the path."""
        return re.findall(r"{(\w+)}", self.path)


_ASKS = (404, 409, 422, 429, 502, 504)
"""What a provider's refusal may become (`server/envelope.py`)."""

_PAGED = ("after", "limit", "order", "include")

OPERATIONS: Sequence[Operation] = (
    Operation("post", "/v1/responses", "createResponse", "Create a response", Response, CreateFields,
              ("idempotency_key",), _ASKS, tells=(NAME, LOSSES, "idempotent-replay"), streams=True),
    Operation("get", "/v1/responses/{response_id}", "getResponse", "Retrieve a response, or its stream", Response,
              parameters=("include", "stream", "starting_after", "include_obfuscation"), fails=(404,),
              tells=(NAME, LOSSES), streams=True),
    Operation("delete", "/v1/responses/{response_id}", "deleteResponse", "Delete a response", Deleted, fails=(404,)),
    Operation("post", "/v1/responses/{response_id}/cancel", "cancelResponse", "Cancel a response in the background",
              Response, fails=(404,)),
    Operation("get", "/v1/responses/{response_id}/input_items", "listInputItems", "List what a response was made from",
              ItemList, parameters=_PAGED, fails=(404,)),
    Operation("post", "/v1/responses/input_tokens", "countInputTokens", "Count the input tokens of a response",
              InputTokens, CreateFields, fails=_ASKS, tells=(COUNTED_BY,)),
    Operation("post", "/v1/responses/compact", "compactConversation", "Compact a conversation", CompactedResponse,
              CreateFields, fails=_ASKS, tells=(NAME, LOSSES), takes=TAKEN),
    Operation("post", "/v1/conversations", "createConversation", "Create a conversation", Conversation,
              ConversationBody),
    Operation("get", "/v1/conversations/{conversation_id}", "getConversation", "Retrieve a conversation", Conversation,
              fails=(404,)),
    Operation("post", "/v1/conversations/{conversation_id}", "updateConversation", "Replace a conversation's metadata",
              Conversation, ConversationUpdate, fails=(404,)),
    Operation("delete", "/v1/conversations/{conversation_id}", "deleteConversation", "Delete a conversation",
              ConversationDeleted, fails=(404,)),
    Operation("post", "/v1/conversations/{conversation_id}/items", "createItems", "Add items to a conversation",
              ItemList, ItemsBody, ("include",), (404,)),
    Operation("get", "/v1/conversations/{conversation_id}/items", "listItems", "List the items of a conversation",
              ItemList, parameters=_PAGED, fails=(404,)),
    Operation("get", "/v1/conversations/{conversation_id}/items/{item_id}", "getItem", "Retrieve an item", Item,
              parameters=("include",), fails=(404,)),
    Operation("delete", "/v1/conversations/{conversation_id}/items/{item_id}", "deleteItem",
              "Remove an item from a conversation", Conversation, fails=(404,)),
    Operation("get", "/v1/models", "listModels", "List the models", ModelList),
    Operation("get", "/v1/models/{model}", "getModel", "Retrieve a model", Model, fails=(404,)),
    Operation("get", "/health", "getHealth", "Whether the server can do its work", Report, keyed=False),
    Operation("get", "/openapi.json", "getDescription", "This description", "application/json", keyed=False),
    Operation("get", "/docs", "getDocs", "This description as a page", "text/html", keyed=False),
)  # fmt: skip


@cache
def document() -> bytes:
    """The description as JSON, made when it is first asked for."""
    schemas = Schemas()
    paths: dict[str, dict[str, Schema]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, schemas)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "rejoinder",
                "version": version("rejoinder"),
                "summary": "OpenAI's Responses API in front of any model.",
                "description": _ABOUT,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            # Without keys a server is open to programs on its own machine, and no header is looked at.
            "security": [{"bearer": []}, {}],
            "tags": [{"name": tag} for tag in dict.fromkeys(_tag(operation) for operation in OPERATIONS)],
            "paths": paths,
            "components": {
                "parameters": _parameters(schemas),
                "headers": _HEADERS,
                "responses": {_name(status): _failure(status, schemas) for status in _FAILURES},
                "schemas": schemas.named,
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


_ABOUT = """\
Wherever a value may be null, null means left out. Objects are open: what this server does not know of an item, a tool \
or a part is kept and sent on as it came. An unknown parameter of a request is noted in `x-rejoinder-notes` when it is \
a plain value, and refused when it is an object or an array, unless the provider speaks this API itself.

Bodies are JSON in UTF-8; `content-encoding` may be `zstd`, `gzip` or `deflate`.

`GET /v1/responses`, upgraded to a WebSocket, takes the same create calls as text messages \
(`{"type": "response.create", …}`, the fields beside it) and answers each with the events of a stream, one message \
each; `stream_id` in a call, and then in every event of it, names one of several lanes."""


def _tag(operation: Operation) -> str:
    place = re.match(r"/v1/([a-z]+)", operation.path)
    return place[1].capitalize() if place else "Server"


def _operation(operation: Operation, schemas: Schemas) -> Schema:
    named = [*operation.places, *operation.parameters]
    body: Schema = {}
    if operation.body is not None:
        body = {"requestBody": {"required": True, "content": _sent(operation, operation.body, schemas)}}
    return {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [_tag(operation)],
        **({} if operation.keyed else {"security": []}),
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in named],
        **body,
        "responses": _responses(operation, schemas),
    }


def _sent(operation: Operation, body: type[Struct], schemas: Schemas) -> Schema:
    if operation.takes:
        name = f"{operation.name[0].upper()}{operation.name[1:]}Body"
        schema = schemas.narrowed(body, operation.takes, name=name)
    else:
        schema = schemas.decoded(body)
    return {"application/json": {"schema": schema, "example": _EXAMPLES[body]}}


_MESSAGE = {"type": "message", "role": "user", "content": "My name is Ada."}

_EXAMPLES: Mapping[type[Struct], Schema] = {
    CreateFields: {"model": "demo", "input": "Say hello."},
    ConversationBody: {"items": [_MESSAGE], "metadata": {"topic": "names"}},
    ConversationUpdate: {"metadata": {"topic": "names"}},
    ItemsBody: {"items": [_MESSAGE]},
}


def _responses(operation: Operation, schemas: Schemas) -> Schema:
    answer = operation.answer
    content: Schema
    if answer is Item:
        content = _json(ref("Item"))
    elif isinstance(answer, str):
        content = {answer: {}}
    else:
        assert issubclass(answer, Struct)
        content = _json(schemas.encoded(answer))
    if operation.streams:
        content = {**content, "text/event-stream": {"schema": ref("ServerSentEvent")}}
    headers = _headers("x-request-id", *operation.tells)
    done: Schema = {"description": "Done.", "headers": headers, "content": content}
    fails = {*_ALWAYS, *operation.fails}
    if operation.keyed:
        fails |= {401, 403}
    if operation.body is not None:
        fails |= {413, 415}
    failed: dict[str, Schema] = {
        str(status): {"$ref": f"#/components/responses/{_name(status)}"} for status in sorted(fails)
    }
    if answer is Report:
        failed["503"] = _sick(schemas)
    return {"200": done, **failed}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


# What goes wrong

_ALWAYS = (400, 408, 431, 500, 503)
"""Reading a request can end in each of these, whatever it asks for."""

_FAILURES: Mapping[int, str] = {
    400: "The request says something that is not allowed, or `param` is not served here.",
    401: "There is no key, or it is not one of this server's.",
    403: "A server without keys was reached by a name, or from a page, of another machine.",
    404: "Nothing of that name exists for the owner of this key.",
    408: "The request did not arrive in time.",
    409: "The provider says that the request conflicts with another one.",
    413: "The body is larger than the limit, on the wire or inflated.",
    415: "The `content-encoding` is none that is read here.",
    422: "The provider understands the request and cannot do it.",
    429: "The provider's limit is reached, or its account is empty.",
    431: "The request line and the headers are too many or too long.",
    500: "The server failed; `x-should-retry` is false where the answer was already paid for.",
    502: "The provider's answer makes no sense, stops short, or says that the provider failed.",
    503: "The server or the provider takes no work at the moment.",
    504: "The provider did not answer in time.",
}

_ADDED: Mapping[int, Sequence[str]] = {
    401: ("www-authenticate",),
    415: ("accept-encoding",),
    429: ("retry-after", "x-should-retry"),
    500: ("x-should-retry",),
    502: ("x-should-retry",),
    503: ("retry-after",),
}
"""Headers that may come with a failure."""


def _name(status: int) -> str:
    return "".join(word.capitalize() for word in re.findall("[a-z]+", HTTPStatus(status).phrase.lower()))


def _failure(status: int, schemas: Schemas) -> Schema:
    return {
        "description": _FAILURES[status],
        "headers": _headers("x-request-id", *_ADDED.get(status, ())),
        "content": _json(schemas.encoded(ErrorEnvelope)),
    }


def _sick(schemas: Schemas) -> Schema:
    """A server that is not well still reports; one that has no connection left answers as everywhere."""
    either: Schema = {"anyOf": [schemas.encoded(Report), schemas.encoded(ErrorEnvelope)]}
    return {**_failure(503, schemas), "content": _json(either)}


_TEXT: Schema = {"type": "string"}

_HEADERS: Mapping[str, Schema] = {
    "x-request-id": {"description": "Names the request in the server's log.", "required": True, "schema": _TEXT},
    NAME: {"description": "What of the request had no effect: a JSON list of strings.", "schema": _TEXT},
    LOSSES: {"description": "What of the conversation the provider did not get: a JSON list.", "schema": _TEXT},
    "idempotent-replay": {"description": "The key was known, and this is its answer.", "schema": {"const": "true"}},
    COUNTED_BY: {
        "description": "`provider`, or the vocabulary of an estimate.",
        "schema": _TEXT,
    },
    "retry-after": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
    "x-should-retry": {"description": "Asking again cannot help.", "schema": {"const": "false"}},
    "www-authenticate": {"schema": {"const": "Bearer"}},
    "accept-encoding": {"schema": _TEXT},
}


def _headers(*names: str) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


# What stands in the address


def _parameters(schemas: Schemas) -> Schema:
    query: Mapping[str, Schema] = {
        "after": {
            "description": "The id of the item before the first one wanted.",
            "schema": schemas.field(Page, "after"),
        },
        "limit": {"description": "How many items.", "schema": schemas.field(Page, "limit")},
        "order": {"description": "`desc`: the newest item first.", "schema": schemas.field(Page, "order")},
        "stream": {"description": "Tell it as events.", "schema": {"type": "boolean", "default": False}},
        "starting_after": {
            "description": "The `sequence_number` of the last event that is known already.",
            "schema": {"type": "integer", "minimum": 0, "maximum": 10**MOST_DIGITS - 1},
        },
        "include_obfuscation": {"description": "Without effect: nothing is added.", "schema": {"type": "boolean"}},
    }
    return {
        **{name: {"name": name, "in": "query", **said} for name, said in query.items()},
        "include": {
            "name": "include[]",
            "in": "query",
            "description": "Further fields of the items.",
            "schema": {"type": "array", "items": {"type": "string", "enum": get_args(Include)}},
        },
        "idempotency_key": {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same key again gives the same answer, without asking the model again.",
            "schema": {"type": "string", "pattern": "^[!-~]+$", "maxLength": LONGEST_KEY},
        },
        **{
            name: {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in dict.fromkeys(name for row in OPERATIONS for name in row.places)
        },
    }
