"""Recorded exchanges with servers that speak the Responses API, led through the bridge as the server would."""

import dataclasses
import json
from collections.abc import Callable, Sequence

from rejoinder.bridge.dialect import Prompt
from rejoinder.bridge.pairing import paired
from rejoinder.bridge.responses import ResponsesDialect
from rejoinder.bridge.responses_profile import ResponsesProfile
from rejoinder.bridge.toolbox import Toolbox
from rejoinder.wire.items import Item, as_sent, kept
from rejoinder.wire.request import CreateRequest
from tests.bridge.prompts import Counter
from tests.bridge.recordings import Object, Recording
from tests.bridge.replay import Listener

PROFILES = {
    "openai": ResponsesProfile(),
    "azure": ResponsesProfile(),
    "xai": ResponsesProfile(item_ids="given", obfuscates=False, compacts=False, counts=False),
    "deepseek": ResponsesProfile(
        stores=False, reasoning_state="text", item_ids="given", prompt_cache_key=False, session_headers=False,
        obfuscates=False, compacts=False, counts=False,
    ),
    "bedrock": ResponsesProfile(
        reasoning_state="any", item_ids="given", call_ids="own", obfuscates=False, compacts=False, counts=False
    ),
    "lmstudio": ResponsesProfile(
        stores=False, reasoning_state="text", item_ids="given", prompt_cache_key=False, session_headers=False,
        functions_only=True, obfuscates=False, compacts=False, counts=False,
    ),
    "copilot": ResponsesProfile(item_ids="none", obfuscates=False, compacts=False, counts=False),
}  # fmt: skip
"""What the servers of the recordings want to be told (provider-responses.md §9)."""

_HOSTS = {"azure.com": "azure", "x.ai": "xai", "deepseek.com": "deepseek", "api.aws": "bedrock"}
_NAMES = {"github-copilot": "copilot", "lmstudio": "lmstudio", "xai": "xai"}


def vendor_of(exchange: Recording) -> str:
    """Which of them the server of a recording is."""
    for end, vendor in _HOSTS.items():
        if exchange.host.endswith(end):
            return vendor
    return next((vendor for name, vendor in _NAMES.items() if exchange.name.startswith(name)), "openai")


def profile_of(exchange: Recording) -> ResponsesProfile:
    return PROFILES[vendor_of(exchange)]


def as_stored(item: Item) -> Item:
    """The item as it comes out of the store for a server that takes items as they are."""
    one = kept(item, "stored")
    return dataclasses.replace(item, raw=as_sent(one.raw, one.added))


def prompt(body: bytes, past: Sequence[Item] = (), *, parent: str | None = None) -> Prompt:
    """The prompt of a create call that continues `past`."""
    request = CreateRequest.parse(body)
    items = paired(past, [as_stored(item) for item in request.input]).items
    return Prompt(
        request.model, request, items, Toolbox((), "auto", ()), {}, [], parent=parent, coming=len(request.input)
    )  # fmt: skip


def body(parameters: Object, items: Sequence[bytes]) -> bytes:
    """The body of a create call, its items byte for byte."""
    head = json.dumps({**parameters, "input": []})
    return head.encode().replace(b'"input": []', b'"input": [%b]' % b",".join(items))


QUESTION = b'{"role":"user","content":"?"}'


def listeners(exchange: Recording) -> Callable[[], Listener]:
    """Makes listeners for the answer of a recording."""
    dialect = ResponsesDialect(profile_of(exchange))
    asked = prompt(body({"model": "model"}, [QUESTION]))
    return lambda: Listener(dialect, asked)


def listener(profile: ResponsesProfile, asked: Prompt, ids: Counter) -> Listener:
    return Listener(ResponsesDialect(profile), asked, ids=ids)
