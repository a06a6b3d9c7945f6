"""The vendor's own types: what is sent is a request they know, what is relayed of their servers are their events."""

import json

import pytest
from openai.types.responses import ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParams
from pydantic import TypeAdapter, ValidationError

from rejoinder.bridge.responses import ResponsesDialect
from tests.bridge.recordings import Recording, recordings
from tests.bridge.responses_reading import events
from tests.bridge.responses_replay import listeners, profile_of, prompt, vendor_of

_EVENT: TypeAdapter[object] = TypeAdapter(ResponseStreamEvent)
_REQUEST: TypeAdapter[object] = TypeAdapter(ResponseCreateParams)

BEYOND_THE_TYPES = {
    "model-web-search-tool-stream-pai1774": "a search without an action, and a source that is no URL",
    "openai-apply-patch-tool-1-stream-ver": "the diff of a patch is streamed (provider-responses.md §6)",
    "openai-error-1-stream-ver": "a code of an error, which clients look for (objects.md §3)",
}
"""Answers of OpenAI that hold what its own client has no types for."""


def _fits(adapter: TypeAdapter[object], data: str | bytes) -> bool:
    try:
        adapter.validate_json(data)
    except ValidationError:
        return False
    return True


def _theirs(*, stream: bool) -> list[Recording]:
    """The answers of OpenAI and of Azure, which runs the same."""
    found = [one for one in recordings("responses") if vendor_of(one) in ("openai", "azure") and one.status == 200]
    return [one for one in found if one.is_stream == stream and b'"object":"response"' in one.body.replace(b" ", b"")]


@pytest.mark.parametrize("exchange", _theirs(stream=True), ids=lambda one: str(one.name))
def test_an_event_of_openai_is_one_for_its_client_after_it_was_relayed(exchange: Recording) -> None:
    misfits = {event["type"] for event in events(exchange) if not _fits(_EVENT, json.dumps(event))}

    heard = listeners(exchange)().hear([exchange.body])

    ours = {str(json.loads(data)["type"]) for data in heard.encoded if not _fits(_EVENT, data)}
    assert ours <= misfits
    assert bool(ours) == (exchange.name in BEYOND_THE_TYPES)


@pytest.mark.parametrize("exchange", _theirs(stream=False), ids=lambda one: str(one.name))
def test_a_whole_answer_of_openai_becomes_events_for_its_client(exchange: Recording) -> None:
    heard = listeners(exchange)().hear([exchange.body])

    assert all(_fits(_EVENT, data) for data in heard.encoded)


def test_a_request_the_client_has_types_for_is_sent_as_one() -> None:
    fitting = 0
    for exchange in recordings("responses"):
        # Some clients send items without the fields the types demand; that is passed on as it is.
        if exchange.request is not None and "conversation" not in exchange.said and _fits(_REQUEST, exchange.request):
            request = {name: value for name, value in exchange.said.items() if name != "background"}
            if request.get("previous_response_id") is None and "tool_search_call" not in json.dumps(request):
                sent = ResponsesDialect(profile_of(exchange)).call(prompt(json.dumps(request).encode())).body
                assert _fits(_REQUEST, sent), exchange.name
                fitting += 1

    assert fitting > 80 or not recordings("responses")
