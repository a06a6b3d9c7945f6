"""The Responses API itself: how a conversation is passed on (provider-responses.md §2 to §4, §6; mapping.md column R).

What the client said goes on as it said it: every field of the request, known or not, and every item, as the bytes they
came in. What is changed is what is ours (the model's name, what is stored and referred to, that the answer is streamed)
and what the server would refuse. The items come last: for an unchanged history the next request begins with the bytes
of this one, up to the end of the last item (mapping.md §0.2).
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec import Raw, Struct

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.dialect import Call, Count, Prompt
from rejoinder.bridge.envelope import PREFIX
from rejoinder.bridge.errors import Unsupported, UpstreamError
from rejoinder.bridge.losses import Loss, Reason
from rejoinder.bridge.offer import LIST_MODELS, listed
from rejoinder.bridge.rejection import rejection
from rejoinder.bridge.responses_profile import ResponsesProfile
from rejoinder.bridge.responses_reader import OWN_CALL_ID, ResponsesReader
from rejoinder.bridge.turns import OUTPUTS, call_id_of
from rejoinder.wire.items import (
    AdditionalTools,
    AgentMessage,
    Compaction,
    CompactionTrigger,
    ConfigurationUpdate,
    HostedCall,
    Item,
    ItemReference,
    Message,
    Reasoning,
)
from rejoinder.wire.request import given
from rejoinder.wire.tools import FunctionTool


class ResponsesDialect:
    """The Responses API as one server speaks it."""

    native = True
    hosted: frozenset[str] = frozenset()

    def __init__(self, profile: ResponsesProfile) -> None:
        self._profile = profile
        self.compacts = profile.compacts

    def call(self, prompt: Prompt) -> Call:
        profile = self._profile
        fields = self._fields(prompt)
        referred = prompt.parent is not None and profile.lineage == "reference"
        items = prompt.items[len(prompt.items) - prompt.coming :] if referred else prompt.items
        if profile.stores:
            fields["store"] = _raw(profile.lineage == "reference" and prompt.request.store)
        if referred:
            fields["previous_response_id"] = _raw(prompt.parent)
        body = self._body(fields, items, prompt)
        return Call("/responses", body, profile.streams, self._headers(prompt))

    def reader(self, prompt: Prompt, out: Composer) -> ResponsesReader:
        return ResponsesReader(prompt, out, self._profile)

    def rejection(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        error = rejection(status, headers, body)
        if error.code == "invalid_request_error" and (code := _code(body)):
            error.code = code  # this very API's own, so clients know it
        if headers.get("x-should-retry") == "true":
            error.transient = True
        return error

    def relent(self, prompt: Prompt, error: UpstreamError) -> Prompt | None:
        if error.code == "previous_response_not_found" and prompt.parent is not None:
            # It is not there any more; here everything still is.
            return dataclasses.replace(prompt, parent=None)
        if error.code != "invalid_encrypted_content":
            return None
        # The refusal does not say reliably which item it is about, so all that is sealed goes: there is one more try.
        items = [item for item in prompt.items if not _is_sealed(item)]
        if len(items) == len(prompt.items):
            return None
        for item in prompt.items:
            if _is_sealed(item):
                _lose(prompt, item, "end_user_mismatch")
        coming = sum(not _is_sealed(item) for item in prompt.items[len(prompt.items) - prompt.coming :])
        return dataclasses.replace(prompt, items=items, coming=coming)

    def models(self) -> Call:
        return LIST_MODELS

    def offered(self, body: bytes) -> list[str]:
        return listed(body)

    def count(self, prompt: Prompt) -> Count | None:
        if not self._profile.counts:
            return None
        fields = {name: value for name, value in self._fields(prompt).items() if name in _COUNTED}
        return Count(
            Call(
                "/responses/input_tokens", self._body(fields, prompt.items, prompt), stream=False,
                headers=self._headers(prompt),
            ),
            lambda body: _COUNT.decode(body).input_tokens,
        )  # fmt: skip

    def _headers(self, prompt: Prompt) -> dict[str, str]:
        """Names that stay the same through a conversation. What a client says of its program is not passed off."""
        who = prompt.identity
        named = {"session-id": who.session, "thread-id": who.thread, "x-client-request-id": who.thread}
        return {name: value for name, value in named.items() if value} if self._profile.session_headers else {}

    def _body(self, fields: Mapping[str, Raw], items: Sequence[Item], prompt: Prompt) -> bytes:
        said = b",".join(self._items(items, prompt))
        if not said and "previous_response_id" not in fields:
            raise Unsupported("the conversation is empty", param="input")
        return b'%b,"input":[%b]}' % (_ENCODER.encode(fields)[:-1], said)

    def _fields(self, prompt: Prompt) -> dict[str, Raw]:
        """Everything but the conversation and what refers to it, in the order the client gave it."""
        profile, request = self._profile, prompt.request
        fields: dict[str, Raw] = {"model": _raw(prompt.model), **profile.extra}
        for name, value in request.raw.items():
            if name in _OURS and name not in profile.forwards:
                continue
            if name in profile.omits and given(value):
                prompt.ignore({name: value})
            elif name != "context_management" or profile.compacts:
                fields[name] = value
        if profile.streams:
            fields["stream"] = _raw(True)
            if options := self._stream_options(prompt):
                fields["stream_options"] = _raw(options)
        if profile.reasoning_state != "text" and _SEALED not in request.include:
            fields["include"] = _raw([*(request.fields.include or ()), _SEALED])
        if not profile.prompt_cache_key:
            fields.pop("prompt_cache_key", None)
        elif prompt.identity.cache_key and not given(fields.get("prompt_cache_key")):
            fields["prompt_cache_key"] = _raw(prompt.identity.cache_key)
        if profile.functions_only:
            self._functions(fields, prompt)
        for name in profile.omits:
            fields.pop(name, None)
        return fields

    def _stream_options(self, prompt: Prompt) -> dict[str, Raw]:
        asked = prompt.request.raw.get("stream_options")
        options = _KEYS.decode(asked) if given(asked) and asked is not None else {}
        options.pop("include_obfuscation", None)
        if self._profile.obfuscates:
            options["include_obfuscation"] = _raw(False)
        return options

    def _functions(self, fields: dict[str, Raw], prompt: Prompt) -> None:
        functions: list[Raw] = []
        for tool in prompt.request.tools:
            if isinstance(tool.view, FunctionTool):
                functions.append(Raw(tool.raw))
            elif tool.type.startswith("web_search"):
                # Codex declares it in every request (codex.md §4); refusing it would refuse Codex.
                prompt.note(f"tools.{tool.type}: this upstream has no web search, the tool is not offered")
            else:
                raise Unsupported(
                    f"tool type '{tool.type}' is not known to this upstream, which takes functions only; the same "
                    "server asked in the dialect 'chat' would be given it as one",
                    param="tools",
                    code="unsupported_value",
                )
        if len(functions) < len(prompt.request.tools):
            fields["tools"] = _raw(functions)
        if not functions:
            fields.pop("tools", None)
            fields.pop("tool_choice", None)

    def _items(self, items: Sequence[Item], prompt: Prompt) -> Iterator[bytes]:
        own = _OwnCallIds() if self._profile.call_ids == "own" else None
        for place, (item, following) in enumerate(_with_following(self._chosen(items, prompt))):
            if isinstance(item.view, Reasoning) and not _leads_to(following):
                # "… was provided without its required following item" (§3)
                _lose(prompt, item, "no_words")
                continue
            raw = self._named(item, place)
            yield own.restored(item, raw) if own is not None else raw

    def _chosen(self, items: Sequence[Item], prompt: Prompt) -> Iterator[Item]:
        """The items this server can take. Raises Unsupported for one that means something and that it does not know."""
        for item in items:
            view = item.view
            assert not isinstance(view, ItemReference), "lineage resolves every reference"
            if isinstance(view, Reasoning | Compaction):
                sealed = view.encrypted_content
                assert not (sealed or "").startswith(PREFIX), "what is sealed here is opened or taken out before"
            if isinstance(view, Reasoning) and (reason := self._unsayable(view)) is not None:
                _lose(prompt, item, reason)
            elif self._profile.functions_only and item.type not in _PLAIN:
                if not isinstance(view, HostedCall):
                    raise Unsupported(
                        f"item type '{item.type}' is not known to this upstream", param="input", code="invalid_value"
                    )
                _lose(prompt, item, "no_words")
            else:
                yield item

    def _unsayable(self, view: Reasoning) -> Reason | None:
        match self._profile.reasoning_state:
            case "sealed" if not view.encrypted_content:
                return "not_sealed"
            case "text" if view.encrypted_content:
                return "model_mismatch"
            case _:
                return None

    def _named(self, item: Item, place: int) -> bytes:
        """The item with the id this server wants. `place` counts the items of the conversation."""
        match self._profile.item_ids:
            case "prefixed" if item.id is not None and not item.id.startswith(_ID_PREFIXES.get(item.type, "")):
                return _without_id(item)
            case "none" if item.id is not None:
                return _without_id(item)
            case "required" if item.id is None and _is_said_by_assistant(item):
                # The same id every time, so that the prefix stays what it was.
                digest = hashlib.sha256(b"%d\x1f%b" % (place, item.raw)).hexdigest()
                made = f"{_ID_PREFIXES.get(item.type, 'item')}_{digest[:32]}"
                fields = {"id": _raw(made), **_KEYS.decode(item.raw)}
                fields.setdefault("status", _raw("completed"))
                return _ENCODER.encode(fields)
            case _:
                return item.raw


_OURS = frozenset(
    (
        "background",
        "client_metadata",
        "conversation",
        "generate",
        "input",
        "metadata",
        "model",
        "previous_response_id",
        "store",
        "stream",
        "stream_options",
    )
)
"""Fields that are followed here: the server gets its own word on them, or none (mapping.md §1)."""

_COUNTED = frozenset(
    ("model", "instructions", "parallel_tool_calls", "reasoning", "text", "tool_choice", "tools", "truncation")
)
"""The fields the token counter knows, beside `input`."""

_SEALED = "reasoning.encrypted_content"

_PLAIN = frozenset(("message", "reasoning", "function_call", "function_call_output"))
"""The items every such server knows."""

_ID_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}
"""How ids begin, as far as OpenAI insists (objects.md §10)."""


class _OwnCallIds:
    """The ids a server gave its calls, in the place of those the client has.

    Two calls of one id that wait for their outputs at the same time could not be told apart: then the client's stays.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, str] = {}

    def restored(self, item: Item, raw: bytes) -> bytes:
        call_id = call_id_of(item)
        if call_id is None:
            return raw
        marked = OWN_CALL_ID.fullmatch(call_id)
        own = marked["own"] if marked is not None else call_id
        if item.type in OUTPUTS:
            own = self._waiting.pop(call_id, own)
        else:
            if own in self._waiting.values():
                own = call_id
            self._waiting[call_id] = own
        if own == call_id:
            return raw
        fields = _KEYS.decode(raw)
        fields["call_id"] = _raw(own)
        return _ENCODER.encode(fields)


def _with_following(items: Iterator[Item]) -> Iterator[tuple[Item, Item | None]]:
    """Each item with the next one that is no reasoning."""
    thoughts: list[Item] = []
    for item in items:
        if isinstance(item.view, Reasoning):
            thoughts.append(item)
            continue
        for thought in thoughts:
            yield thought, item
        thoughts.clear()
        yield item, None
    for thought in thoughts:
        yield thought, None


def _leads_to(following: Item | None) -> bool:
    """Whether this can be what reasoning led to."""
    return following is not None and (_is_said_by_assistant(following) or isinstance(following.view, Compaction))


def _is_said_by_assistant(item: Item) -> bool:
    match item.view:
        case Message(role=role):
            return role == "assistant"
        case AdditionalTools() | AgentMessage() | Compaction() | CompactionTrigger() | ConfigurationUpdate():
            return False
        case _:
            return item.type not in OUTPUTS or call_id_of(item) is None


def _is_sealed(item: Item) -> bool:
    return isinstance(item.view, Reasoning) and bool(item.view.encrypted_content)


def _lose(prompt: Prompt, item: Item, reason: Reason) -> None:
    prompt.lose(Loss(item.type, item.id, "removed", reason))


def _without_id(item: Item) -> bytes:
    fields = _KEYS.decode(item.raw)
    del fields["id"]
    return _ENCODER.encode(fields)


class _ErrorCode(Struct):
    code: str | None = None


class _Envelope(Struct):
    error: _ErrorCode


class _Counted(Struct):
    input_tokens: int


def _code(body: bytes) -> str | None:
    try:
        return _ENVELOPE.decode(body).error.code
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))


_ENCODER = msgspec.json.Encoder()
_KEYS = msgspec.json.Decoder(dict[str, Raw])
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_COUNT = msgspec.json.Decoder(_Counted)
