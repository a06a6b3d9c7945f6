import json

import httpx2
import pytest

from tests.clients.witness import Exchange


def seen(path: str, body: bytes, *, method: str = "GET", status: int = 200, **headers: str) -> Exchange:
    """A whole answer; header names are written with underscores."""
    named = {"x-request-id": "req_1", "content-type": "application/json"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    request = httpx2.Request(method, f"http://server/v1/{path}")
    return Exchange(request, status, httpx2.Headers(named), bytearray(body), ended=True)


def streamed(*events: dict[str, object], end: bytes = b"data: [DONE]\n\n", ended: bool = True) -> Exchange:
    frames = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
    found = seen("responses", b"".join(frames) + end, method="POST", content_type="text/event-stream")
    found.ended = ended
    return found


def resumed(after: int, *events: dict[str, object], end: bytes = b"data: [DONE]\n\n") -> Exchange:
    found = streamed(*events, end=end)
    found.request = httpx2.Request("GET", f"http://server/v1/responses/r?stream=true&starting_after={after}")
    return found


def delta(number: int, **fields: object) -> dict[str, object]:
    common = {"type": "response.refusal.delta", "sequence_number": number, "item_id": "msg_1", "output_index": 0}
    return {**common, "content_index": 0, "delta": "no", **fields}


MODEL = {"id": "m", "object": "model", "created": 0, "owned_by": "test"}
CONVERSATION = {"id": "conv_1", "object": "conversation", "created_at": 0, "metadata": {}}
GONE = {"id": "conv_1", "object": "conversation.deleted", "deleted": True}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "", "status": "completed"}
ITEMS = {"object": "list", "data": [CALL], "first_id": "fc_1", "last_id": "fc_1", "has_more": False}
EMPTY: dict[str, object] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
COUNT = {"object": "response.input_tokens", "input_tokens": 3}
ERROR = {"message": "no", "type": "invalid_request_error", "param": None, "code": None}


@pytest.mark.parametrize(
    "exchange",
    [
        seen("models/m", json.dumps(MODEL).encode()),
        seen("models", json.dumps({"object": "list", "data": [MODEL], "models": []}).encode()),
        seen("nowhere", json.dumps({"error": ERROR}).encode(), status=404),
        streamed(delta(0), delta(1), end=b"", ended=False),
        streamed(delta(0), end=b": ping\n\nevent: resp", ended=False),
        resumed(3),
        seen("conversations", json.dumps(CONVERSATION).encode(), method="POST"),
        seen("conversations/c", json.dumps(CONVERSATION).encode(), method="POST"),
        seen("conversations/c", json.dumps(CONVERSATION).encode()),
        seen("conversations/c", json.dumps(GONE).encode(), method="DELETE"),
        seen("conversations/c/items", json.dumps(ITEMS).encode(), method="POST"),
        seen("conversations/c/items", json.dumps(ITEMS).encode()),
        seen("conversations/c/items", json.dumps(EMPTY).encode()),
        seen("conversations/c/items/i", json.dumps(CALL).encode()),
        seen("conversations/c/items/i", json.dumps(CONVERSATION).encode(), method="DELETE"),
        seen("responses/input_tokens", json.dumps(COUNT).encode(), method="POST"),
    ],
)
def test_what_the_sdk_understands_passes(exchange: Exchange) -> None:
    exchange.check()


@pytest.mark.parametrize(
    "exchange",
    [
        seen("models/m", json.dumps(MODEL).encode(), x_request_id=""),
        seen("models/m", json.dumps(MODEL).encode(), content_type="text/plain"),
        seen("models/m", json.dumps(MODEL | {"created": "0"}).encode()),
        seen("models/m", json.dumps(MODEL | {"hologram": True}).encode()),
        seen("models", json.dumps({"object": "list", "data": [MODEL | {"hologram": True}]}).encode()),
        seen("models/m", b"{}"),
        seen("nowhere", b"{}"),
        seen("responses/resp_1", b'{"id":"resp_1","object":"response"}'),
        seen("nowhere", json.dumps({"error": ERROR | {"code": 404}}).encode(), status=404),
        seen("nowhere", json.dumps({"error": {"message": "no"}}).encode(), status=404),
        streamed(delta(0)),
        streamed(delta(1), end=b"", ended=False),
        streamed(delta(0, output_index="0"), end=b"", ended=False),
        streamed(delta(0, hologram=True), end=b"", ended=False),
        streamed(delta(0, type="response.hologram"), end=b"", ended=False),
        streamed(delta(0), end=b"event: resp"),
        streamed(),
        resumed(3, delta(3)),
        resumed(3, end=b""),
        seen("conversations/c", json.dumps(CONVERSATION | {"hologram": True}).encode()),
        seen("conversations/c/items", json.dumps(ITEMS | {"data": [{"type": "hologram", "id": "h"}]}).encode()),
        seen("conversations/c/items", json.dumps(ITEMS | {"first_id": None}).encode()),
        seen("conversations/c/items/i", json.dumps(CALL | {"hologram": True}).encode()),
        seen("conversations/c/items/i", json.dumps(CALL).encode(), method="DELETE"),
        seen("responses/r/cancel", json.dumps(COUNT).encode(), method="POST"),
        seen("responses/compact", json.dumps(COUNT).encode(), method="POST"),
    ],
)
def test_what_the_sdk_does_not_understand_is_noticed(exchange: Exchange) -> None:
    with pytest.raises((AssertionError, ValueError)):
        exchange.check()
