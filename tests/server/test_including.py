import json
from typing import get_args

import pytest

from rejoinder.server.including import shown
from rejoinder.wire.request import Include
from tests.server.site import Json

NOTHING: frozenset[str] = frozenset()
EVERYTHING = frozenset(get_args(Include))
PICTURE = "data:image/png;base64,iVBO"


def message(*parts: Json) -> Json:
    return {"id": "msg_1", "type": "message", "role": "user", "status": "completed", "content": list(parts)}


HIDDEN: dict[str, tuple[Json, Json]] = {
    "message.input_image.image_url": (
        message(
            {"type": "input_text", "text": "see"},
            {"type": "input_image", "image_url": PICTURE, "detail": "low"},
            {"type": "input_image", "image_url": None, "file_id": "file_1", "detail": "high"},
        ),
        message(
            {"type": "input_text", "text": "see"},
            {"type": "input_image", "image_url": None, "detail": "low"},
            {"type": "input_image", "image_url": None, "file_id": "file_1", "detail": "high"},
        ),
    ),
    "message.output_text.logprobs": (
        message(
            {"type": "output_text", "text": "a", "annotations": [], "logprobs": [{"token": "a", "logprob": -1.50}]}
        ),
        message({"type": "output_text", "text": "a", "annotations": [], "logprobs": []}),
    ),
    "code_interpreter_call.outputs": (
        {"id": "ci_1", "type": "code_interpreter_call", "code": "1", "outputs": [{"type": "logs", "logs": "1"}]},
        {"id": "ci_1", "type": "code_interpreter_call", "code": "1", "outputs": None},
    ),
    "computer_call_output.output.image_url": (
        {
            "id": "cco_1",
            "type": "computer_call_output",
            "call_id": "c1",
            "output": {"type": "computer_screenshot", "image_url": PICTURE},
        },
        {
            "id": "cco_1",
            "type": "computer_call_output",
            "call_id": "c1",
            "output": {"type": "computer_screenshot", "image_url": None},
        },
    ),
    "file_search_call.results": (
        {"id": "fs_1", "type": "file_search_call", "queries": ["a"], "results": [{"file_id": "file_1"}]},
        {"id": "fs_1", "type": "file_search_call", "queries": ["a"], "results": None},
    ),
    "web_search_call.action.sources": (
        {"id": "ws_1", "type": "web_search_call", "action": {"type": "search", "sources": [{"type": "url"}], "x": 1}},
        {"id": "ws_1", "type": "web_search_call", "action": {"type": "search", "sources": None, "x": 1}},
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_nobody_asked_for_is_left_out_and_everything_else_is_not(name: str) -> None:
    item, without = HIDDEN[name]
    raw = json.dumps(item).encode()
    for include in (NOTHING, EVERYTHING - {name}):
        assert json.loads(shown(raw, include)) == without
        assert list(json.loads(shown(raw, include))) == list(item), "the fields keep their order"


@pytest.mark.parametrize("name", HIDDEN)
def test_what_was_asked_for_is_shown_as_the_bytes_it_is(name: str) -> None:
    raw = json.dumps(HIDDEN[name][0]).encode()
    assert shown(raw, frozenset({name})) == raw
    assert shown(raw, EVERYTHING) == raw


@pytest.mark.parametrize("name", HIDDEN)
def test_what_was_left_out_once_is_left_out_of_nothing_again(name: str) -> None:
    raw = json.dumps(HIDDEN[name][1]).encode()
    assert shown(raw, NOTHING) == raw


@pytest.mark.parametrize(
    "raw",
    [
        b'{"id": "x", "type":"acme:thing",  "outputs": [1.50], "image_url": "\\u00e9"}',
        b'{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"brg1.x"}',
        b'{"id":"m", "type":"message", "role":"user", "content":[{"type":"input_text", "text":"\\u00e9", "x":1.50}]}',
        b'{"id":"c", "type":"computer_call_output", "output":"a screenshot"}',
        b'{"id":"w", "type":"web_search_call", "status":"completed"}',
        b'{"id":"w", "type":"web_search_call", "action":{"type":"search","sources":null}}',
        b'{"id":"w", "type":"web_search_call", "action":{"type":"open_page","url":"https://a.test"}}',
        b'{"id":"f", "type":"file_search_call", "queries":[]}',
    ],
)
def test_an_item_with_nothing_to_hide_is_shown_as_the_bytes_it_is(raw: bytes) -> None:
    assert shown(raw, NOTHING) == raw


def test_reasoning_is_whole_also_for_who_did_not_ask_for_it() -> None:
    """objects.md §1.1: newer guides return it by default."""
    raw = b'{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"brg1.x"}'
    assert shown(raw, frozenset({"reasoning.encrypted_content"})) == shown(raw, NOTHING) == raw


def test_what_is_beside_something_hidden_keeps_its_bytes() -> None:
    raw = (
        b'{"id":"msg_1","type":"message","x_extra":{"n": 1.50, "t":"\\u00e9"},"content":'
        b'[{"type":"input_image","x":1e3,"detail":"auto","image_url":"https://a.test"}]}'
    )
    assert shown(raw, NOTHING) == (
        b'{"id":"msg_1","type":"message","x_extra":{"n": 1.50, "t":"\\u00e9"},"content":'
        b'[{"type":"input_image","x":1e3,"detail":"auto","image_url":null}]}'
    )


@pytest.mark.parametrize("detail", [{}, {"detail": None}])
@pytest.mark.parametrize("kind", ["message", "function_call_output", "custom_tool_call_output"])
def test_an_image_has_a_detail_also_where_its_client_named_none(kind: str, detail: Json) -> None:
    field = "content" if kind == "message" else "output"
    parts = [{"type": "input_text", "text": "see"}, {"type": "input_image", "file_id": "f", **detail}]
    item = json.loads(shown(json.dumps({"type": kind, "id": "x", field: parts}).encode(), NOTHING))
    assert item[field] == [parts[0], {"type": "input_image", "file_id": "f", "detail": "auto"}]


@pytest.mark.parametrize(
    "output", ['"text"', '[{"type":"input_text","text":"a"}]', '[{"type":"input_image","detail":"low"}]']
)
def test_an_output_that_says_all_it_has_to_keeps_its_bytes(output: str) -> None:
    raw = b'{"type":"function_call_output",  "id":"x","output":%b}' % output.encode()
    assert shown(raw, NOTHING) == raw
