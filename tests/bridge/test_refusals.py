import json

import msgspec
import pytest
from msgspec import Raw

from rejoinder.bridge.refusals import spelled_out
from tests.bridge.recordings import Json, Object

REFUSAL: Object = {"type": "refusal", "refusal": "I cannot."}
TEXT: Object = {"type": "output_text", "text": "I cannot.", "annotations": [], "logprobs": []}
PLACE: Object = {"item_id": "msg_1", "output_index": 0, "content_index": 0}


def message(*parts: Json) -> Object:
    return {"type": "message", "id": "msg_1", "x": 1.50, "content": list(parts)}


def told(said: Object) -> Json:
    fields = msgspec.json.decode(json.dumps(said).encode(), type=dict[str, Raw])
    found: Json = json.loads(msgspec.json.encode(spelled_out(fields)))
    return found


@pytest.mark.parametrize(
    ("said", "as_text"),
    [
        (
            {"type": "response.refusal.delta", **PLACE, "delta": "I "},
            {"type": "response.output_text.delta", **PLACE, "delta": "I ", "logprobs": []},
        ),
        (
            {"type": "response.refusal.done", **PLACE, "refusal": "I cannot."},
            {"type": "response.output_text.done", **PLACE, "text": "I cannot.", "logprobs": []},
        ),
        (
            {"type": "response.refusal.done", **PLACE},
            {"type": "response.output_text.done", **PLACE, "text": "", "logprobs": []},
        ),
        (
            {"type": "response.content_part.added", **PLACE, "part": {"type": "refusal"}},
            {"type": "response.content_part.added", **PLACE, "part": TEXT | {"text": ""}},
        ),
        (
            {"type": "response.output_item.done", "output_index": 0, "item": message(TEXT, REFUSAL)},
            {"type": "response.output_item.done", "output_index": 0, "item": message(TEXT, TEXT)},
        ),
        (
            {"type": "response.completed", "response": {"id": "resp_1", "output": [message(REFUSAL), {"type": "x"}]}},
            {"type": "response.completed", "response": {"id": "resp_1", "output": [message(TEXT), {"type": "x"}]}},
        ),
        ({"id": "resp_1", "output": [message(REFUSAL)]}, {"id": "resp_1", "output": [message(TEXT)]}),
    ],
)
def test_what_is_refused_is_told_as_text(said: Object, as_text: Object) -> None:
    assert told(said) == as_text


@pytest.mark.parametrize(
    "said",
    [
        {"type": "response.output_text.delta", **PLACE, "delta": "a refusal"},
        {"type": "acme.refusal", "part": {"type": "text", "refusal": "x"}},
        {"type": "response.output_item.added", "item": {"type": "function_call", "name": "refusal"}},
    ],
)
def test_everything_else_stays_as_it_is(said: Object) -> None:
    assert told(said) == said


def test_a_list_that_is_null_is_empty() -> None:
    assert told({"output": None}) == {"output": []}


def test_what_makes_no_sense_is_told() -> None:
    with pytest.raises(msgspec.MsgspecError):
        told({"type": "response.completed", "response": "x"})
