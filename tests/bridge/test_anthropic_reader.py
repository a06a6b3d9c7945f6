import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from rejoinder.bridge.anthropic_reader import AnthropicReader, Hearing, refusal
from rejoinder.bridge.composer import Composer
from rejoinder.bridge.errors import BrokenStream, UpstreamError
from rejoinder.wire import sse
from tests.bridge.composing import END, composer, encoded
from tests.bridge.grammar import judged
from tests.bridge.prompts import Fields

# Answers in short.


def event(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}   \n\n".encode()


def start(index: int, kind: str, **fields: object) -> bytes:
    return event("content_block_start", index=index, content_block={"type": kind, **fields})


def add(index: int, kind: str, **fields: object) -> bytes:
    return event("content_block_delta", index=index, delta={"type": f"{kind}_delta", **fields})


def stop(index: int) -> bytes:
    return event("content_block_stop", index=index)


def text(index: int, *pieces: str, citations: Iterable[Fields] = ()) -> bytes:
    deltas = b"".join(add(index, "text", text=piece) for piece in pieces)
    cited = b"".join(add(index, "citations", citation=citation) for citation in citations)
    return start(index, "text", text="") + deltas + cited + stop(index)


def thinking(index: int, thought: str, signature: str = "") -> bytes:
    signed = add(index, "signature", signature=signature) if signature else b""
    return (
        start(index, "thinking", thinking="", signature="")
        + add(index, "thinking", thinking=thought)
        + signed
        + stop(index)
    )


def tool(index: int, call_id: str, *pieces: str, name: str = "f", **others: object) -> bytes:
    arguments = b"".join(add(index, "input_json", partial_json=piece) for piece in pieces)
    return start(index, "tool_use", id=call_id, name=name, input={}, **others) + arguments + stop(index)


def search(index: int, key: str, query: str) -> bytes:
    asked = add(index, "input_json", partial_json=json.dumps({"query": query}))
    return start(index, "server_tool_use", id=key, name="web_search", input={}) + asked + stop(index)


def found(index: int, key: str, content: object) -> bytes:
    return start(index, "web_search_tool_result", tool_use_id=key, content=content) + stop(index)


def end(reason: str | None = "end_turn", usage: Fields | None = None, **fields: object) -> bytes:
    delta = {"stop_reason": reason, "stop_sequence": None, **fields}
    return event("message_delta", delta=delta, usage=usage or {}) + event("message_stop")


BEGIN = event(
    "message_start", message={"type": "message", "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}}
)


def heard(*pieces: bytes, hearing: Hearing | None = None, parallel: bool = True) -> Fields:
    """The response an answer comes to, after the judge has heard all its events."""
    return read(composer(parallel=parallel), pieces, hearing)


def read(out: Composer, pieces: Iterable[bytes], hearing: Hearing | None = None) -> Fields:
    reader = AnthropicReader(out, hearing or Hearing())
    out.start()
    for piece in pieces:
        reader.feed(piece)
    reader.close(END)
    events = encoded(out)
    judged(events)
    response: Fields = json.loads(events[-1])["response"]
    return response


@dataclass(frozen=True, slots=True)
class Item:
    """An output item: `text` is what it shows, `parts` and `calls` what of a reasoning item goes back."""

    id: str
    text: str = ""
    parts: list[dict[str, object]] = field(default_factory=list)
    calls: Fields = field(default_factory=dict)
    call: tuple[str, str, str] | None = None
    action: Fields = field(default_factory=dict)
    status: str = ""
    cited: list[dict[str, object]] = field(default_factory=list)

    @property
    def short(self) -> object:
        return self.call or ((self.text, self.parts, self.calls) if self.id.startswith("rs_") else self.text)


def items(response: Fields) -> list[Item]:
    output = response["output"]
    assert isinstance(output, list)
    return [_item(item) for item in output]


def _item(item: dict[str, Any]) -> Item:
    match item["type"]:
        case "message":
            said = "".join(part.get("text", part.get("refusal")) for part in item["content"])
            return Item(
                item["id"], said, cited=[one for part in item["content"] for one in part.get("annotations", ())]
            )
        case "reasoning":
            parts, calls = json.loads(item["encrypted_content"])
            return Item(item["id"], "".join(part["text"] for part in item["summary"]), parts, calls)
        case "web_search_call":
            return Item(item["id"], action=item["action"], status=item["status"])
        case _:
            call = item["call_id"], item["name"], item["arguments"]
            return Item(item["id"], call=call, status=item["status"])


def short(response: Fields) -> list[object]:
    """The output in short: what each item says, and what of a reasoning item goes back."""
    return [item.short for item in items(response)]


def failure(*pieces: bytes) -> UpstreamError:
    with pytest.raises(UpstreamError) as failed:
        heard(*pieces)
    return failed.value


# Streams and bodies.


def test_a_stream_and_a_body_say_the_same() -> None:
    stream = BEGIN + thinking(0, "hm", "sig") + text(1, "a", "b") + tool(2, "t1", '{"x":', "1}") + end("tool_use")
    body = {
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "text", "text": "ab"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }

    expected: list[object] = [
        ("hm", [{"type": "thinking", "thinking": "hm", "signature": "sig"}], {}),
        "ab",
        ("t1", "f", '{"x":1}'),
    ]
    assert short(heard(stream)) == expected
    whole = json.dumps(body, separators=(",", ":")).encode()
    assert short(heard(whole)) == short(heard(whole[:9], whole[9:])) == expected


def test_spaces_before_an_answer_are_none() -> None:
    assert short(heard(b"\n ", b"\n" + text(0, "a") + end())) == ["a"]


def test_pings_and_what_nobody_knows_change_nothing() -> None:
    out = composer()
    ping = event("ping")

    response = read(
        out,
        [
            ping + BEGIN + ping + start(0, "text", text=""),
            add(0, "sparkle", glitter=1) * 2 + add(0, "text", text="a") + ping + event("weather") + stop(0) + end(),
            event("content_block_delta", index=0) + b"data: nonsense\n\n",
        ],
    )

    assert short(response) == ["a"]
    assert out.notes == [
        "a delta of the unknown type 'sparkle_delta' was left out",
        "an event of the unknown type 'weather' was left out",
    ]


def test_an_event_without_what_it_is_about_changes_nothing() -> None:
    lost = event("content_block_delta", index=0) + event("message_delta") + event("content_block_stop", index=9)

    assert short(heard(event("message_start") + text(0, "a") + lost + end())) == ["a"]


def test_a_stream_needs_no_blank_line_at_its_end() -> None:
    assert short(heard((text(0, "a") + end()).rstrip())) == ["a"]


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b""],
        [b"  "],
        [BEGIN],
        [BEGIN + text(0, "a")],
        [(BEGIN + text(0, "a") + end()).replace(event("message_stop"), b"")],
    ],
    ids=["nothing", "no bytes", "spaces", "a beginning", "a text", "no stop"],
)
def test_bytes_that_end_before_the_answer_does_are_a_broken_stream(pieces: list[bytes]) -> None:
    assert isinstance(failure(*pieces), BrokenStream)


@pytest.mark.parametrize(
    "answer",
    [
        b"data: {\n\n",
        b'data: {"type":"content_block_delta","index":"x"}\n\n',
        b'data: {"type":"ping","x":"\xff"}\n\n',
        b"data: " + b"[" * 5000 + b"\n\n",
        b'{"type":"message"}',
        b"<html>",
        start(0, "text", text="") + add(1, "text", text="a"),
        start(0, "thinking", thinking="") + add(0, "text", text="a"),
        start(0, "text", text="") + add(0, "thinking", thinking="a"),
        start(0, "text", text="") + add(0, "input_json", partial_json="{}"),
        event("content_block_start", index=0),
        event("message_start", message=[]),
    ],
)
def test_bytes_that_make_no_sense_are_a_broken_stream(answer: bytes) -> None:
    assert isinstance(failure(answer), BrokenStream)


def test_an_answer_is_over_with_the_stop_of_its_message() -> None:
    reader = AnthropicReader(out := composer(), Hearing())
    out.start()

    reader.feed(BEGIN + text(0, "a") + end().replace(event("message_stop"), b""))
    assert not reader.is_over
    reader.feed(event("message_stop"))
    assert reader.is_over
    reader.feed(b"data: nonsense\n\n")
    reader.close(END)

    response: Fields = json.loads(encoded(out)[-1])["response"]
    assert short(response) == ["a"]


# Text.


def test_blocks_of_text_are_one_message_until_something_else_comes() -> None:
    answer = text(0, "a") + text(1, "") + text(2, "b") + tool(3, "t1") + text(4, "c")

    raw = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert short(heard(answer + end())) == ["ab", ("", raw, {}), ("t1", "f", "{}"), "c"]


def test_a_lone_text_goes_back_as_the_message_it_is() -> None:
    assert short(heard(text(0, "a") + end())) == ["a"]


WEB = {"type": "web_search_result_location", "url": "https://a.example", "title": "A", "encrypted_index": "e=="}
DOCUMENT = {"type": "page_location", "document_index": 1, "document_title": None, "start_page_number": 1}


def test_citations_have_their_place_in_the_whole_message() -> None:
    response = heard(text(0, "né ") + text(1, "c", "ited", citations=[WEB, DOCUMENT]) + text(2, ".") + end())

    [message, carried] = items(response)
    assert message.text == "né cited."
    assert message.cited == [
        {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 3, "end_index": 8},
        {"type": "file_citation", "file_id": "document_1", "filename": "document_1", "index": 8},
    ]
    assert carried.parts == [
        {"type": "text", "text": "né "},
        {"type": "text", "text": "cited", "citations": [WEB, DOCUMENT]},
        {"type": "text", "text": "."},
    ]


@pytest.mark.parametrize(
    ("citation", "expected"),
    [
        (
            {"type": "web_search_result_location", "url": "https://a.example"},
            ("https://a.example", "https://a.example"),
        ),
        ({"type": "search_result_location", "source": "http://b.example", "title": "B"}, ("http://b.example", "B")),
        ({"type": "search_result_location", "source": "kb/7", "title": "B"}, ("kb/7", "B")),
        ({"type": "search_result_location", "source": "kb/7"}, ("kb/7", "kb/7")),
        ({"type": "char_location", "document_title": "D", "file_id": "file_1"}, ("file_1", "D")),
        ({"type": "content_block_location", "document_index": 2, "document_title": "D"}, ("document_2", "D")),
    ],
)
def test_every_kind_of_citation_names_what_it_cites(citation: Fields, expected: tuple[str, str]) -> None:
    response = heard(text(0, "a", citations=[citation]) + end())

    [told] = items(response)[0].cited
    assert (told.get("url", told.get("file_id")), told.get("title", told.get("filename"))) == expected


def test_a_citation_nobody_knows_is_kept_for_the_provider() -> None:
    out = composer()
    odd = {"type": "hologram_location"}

    response = read(out, [text(0, "a", citations=[odd, {}]) + text(1, citations=[odd]) + end()])

    assert short(response) == ["a", ("", [{"type": "text", "text": "a", "citations": [odd, {}]}], {})]
    assert out.notes == [
        "annotations: a citation of an unknown kind is kept for the provider alone",
        "annotations: a citation of no text was left out",
    ]


def test_a_message_that_was_cut_is_the_last_item_and_goes_back_as_its_text() -> None:
    response = heard(text(0, "a", citations=[WEB]) + start(1, "text", text="b") + end("max_tokens"))

    assert short(response) == ["ab"]
    assert response["status"] == "incomplete"


# Thinking.


def test_each_block_of_thinking_is_an_item_and_goes_back_as_it_came() -> None:
    answer = (
        thinking(0, "one", "s1")
        + start(1, "redacted_thinking", data="==")
        + stop(1)
        + start(2, "thinking", thinking="", signature="")
        + add(2, "thinking", thinking="", estimated_tokens=5)
        + add(2, "signature", signature="s")
        + add(2, "signature", signature="2")
        + stop(2)
        + text(3, "a")
    )

    assert short(heard(answer + end())) == [
        ("one", [{"type": "thinking", "thinking": "one", "signature": "s1"}], {}),
        ("", [{"type": "redacted_thinking", "data": "=="}], {}),
        ("", [{"type": "thinking", "thinking": "", "signature": "s2"}], {}),
        "a",
    ]


def test_thinking_without_a_signature_goes_back_without_one() -> None:
    answer = start(0, "thinking", thinking="so") + add(0, "thinking", thinking=" what") + stop(0) + text(1, "a")

    assert short(heard(answer + end())) == [("so what", [{"type": "thinking", "thinking": "so what"}], {}), "a"]


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded"])
def test_thinking_that_was_cut_is_incomplete(reason: str) -> None:
    whole = heard(thinking(0, "so") + end(reason))
    cut = heard(start(0, "thinking", thinking="so") + end(reason))
    before = heard(start(0, "thinking", thinking="") + end(reason))

    assert short(whole) == [("so", [{"type": "thinking", "thinking": "so", "signature": ""}], {})]
    assert short(cut) == [("so", [], {})]
    assert before["output"] == []
    for response in (whole, cut, before):
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}


def test_bound_thinking_says_which_conversation_it_is_bound_to() -> None:
    response = heard(thinking(0, "so", "s") + text(1, "a") + end(), hearing=Hearing(prefix=lambda: "abc"))

    assert items(response)[0].parts[0] == {"type": "prefix", "sha256": "abc"}


# Calls.


def test_calls_may_come_in_any_manner() -> None:
    answer = (
        tool(0, "t1", "", '{"a"', ":1}")
        + tool(1, "t2", "")
        + start(2, "tool_use", id="t3", name="f", input={"b": 2})
        + stop(2)
        + start(3, "tool_use", id="t1", name="f", input={"b": 2})
        + add(3, "input_json", partial_json="{}")
    )

    [*calls, last] = [item.call for item in items(heard(answer + end("tool_use")))]
    assert calls == [("t1", "f", '{"a":1}'), ("t2", "f", "{}"), ("t3", "f", '{"b": 2}')]
    assert last is not None
    assert last[0].startswith("call_")
    assert last[1:] == ("f", "{}")


def test_who_called_goes_back_where_it_was_not_the_model_itself() -> None:
    caller = {"type": "code_execution_20250825", "tool_id": "srvtoolu_1"}
    answer = (
        tool(0, "t1", caller={"type": "direct"}, toolset_name=None)
        + thinking(1, "so", "s")
        + tool(2, "t2", caller=caller)
        + tool(3, "t3", toolset_name="browser")
    )

    thought = {"type": "thinking", "thinking": "so", "signature": "s"}
    assert short(heard(answer + end("tool_use"))) == [
        ("t1", "f", "{}"),
        ("so", [thought], {"t2": {"caller": caller}}),
        ("t2", "f", "{}"),
        ("", [], {"t3": {"toolset_name": "browser"}}),
        ("t3", "f", "{}"),
    ]


def test_a_call_that_was_cut_is_incomplete() -> None:
    response = heard(
        start(0, "tool_use", id="t1", name="f", input={}) + add(0, "input_json", partial_json='{"a') + end("max_tokens")
    )

    assert short(response) == [("t1", "f", '{"a')]
    assert response["status"] == "incomplete"


def test_only_one_call_reaches_a_client_that_allows_only_one() -> None:
    response = heard(tool(0, "t1") + tool(1, "t2", "{}") + end("tool_use"), parallel=False)

    assert short(response) == [("t1", "f", "{}")]


def test_the_arguments_of_the_answering_tool_are_the_answer() -> None:
    hearing = Hearing(answer_tool="json")
    streamed = heard(thinking(0, "so") + tool(1, "t1", '{"a"', ":1}", name="json") + end("tool_use"), hearing=hearing)
    whole = heard(start(0, "tool_use", id="t", name="json", input={"a": 1}) + stop(0) + end(), hearing=hearing)

    assert short(streamed)[1:] == ['{"a":1}']
    assert short(whole) == ['{"a": 1}']


# What runs at the provider.

RESULTS = [{"type": "web_search_result", "url": "https://a.example", "encrypted_content": "=="}, {"type": "odd"}]


def test_a_search_is_an_item_and_its_blocks_go_back_before_the_text() -> None:
    response = heard(search(0, "s1", "q") + found(1, "s1", RESULTS) + text(2, "a") + end())

    [asked, carried, said] = items(response)
    assert (asked.action, asked.status) == ({"type": "search", "query": "q", "queries": ["q"]}, "completed")
    assert [part["type"] for part in carried.parts] == ["server_tool_use", "web_search_tool_result"]
    assert carried.parts[0]["input"] == {"query": "q"}
    assert carried.parts[1]["content"] == RESULTS
    assert carried.calls == {asked.id: {}}
    assert said.text == "a"


def test_sources_are_told_to_those_who_ask() -> None:
    response = heard(search(0, "s1", "q") + found(1, "s1", RESULTS) + end(), hearing=Hearing(sources=True))

    assert items(response)[0].action["sources"] == [{"type": "url", "url": "https://a.example"}]


def test_a_search_that_failed_says_so() -> None:
    error = {"type": "web_search_tool_result_error", "error_code": "unavailable"}

    response = heard(search(0, "s1", "q") + found(1, "s1", error) + end(), hearing=Hearing(sources=True))

    asked = items(response)[0]
    assert (asked.action["sources"], asked.status) == ([], "failed")


def test_a_result_of_an_earlier_request_is_a_search_without_words() -> None:
    answer = thinking(0, "so") + found(1, "s0", []) + end()

    [thought, asked, _] = items(heard(answer))
    assert (asked.action["queries"], asked.status) == ([], "completed")
    assert thought.text == "so"


@pytest.mark.parametrize("asked", ["{}", '{"query":1}', "no json"])
def test_a_search_for_nothing_is_a_search_all_the_same(asked: str) -> None:
    begun = start(0, "server_tool_use", id="s1", name="web_search", input={})
    answer = begun + add(0, "input_json", partial_json=asked) + stop(0) + found(1, "s1", []) + end()

    [searched, carried] = items(heard(answer))
    assert searched.action["queries"] == []
    assert carried.parts[0]["input"] == ({"_raw": asked} if asked == "no json" else json.loads(asked))


def test_a_whole_search_has_its_words_from_the_beginning() -> None:
    answer = start(0, "server_tool_use", id="s1", name="web_search", input={"query": "q"}) + stop(0)

    assert items(heard(answer + found(1, "s1", []) + end()))[0].action["queries"] == ["q"]


def test_blocks_without_an_item_are_kept_and_noted() -> None:
    out = composer()
    answer = (
        text(0, "a")
        + start(1, "mcp_tool_use", id="m1", name="x", server_name="s", input={})
        + add(1, "input_json", partial_json='{"y":1}')
        + stop(1)
        + start(2, "mcp_tool_result", tool_use_id="m1", content=[])
        + stop(2)
        + start(3, "compaction", content=None)
        + add(3, "compaction", content="so far")
        + stop(3)
        + thinking(4, "so", "s")
        + text(5, "b")
    )

    response = read(out, [answer + end()])

    assert short(response) == [
        "a",
        (
            "so",
            [
                {"type": "mcp_tool_use", "id": "m1", "name": "x", "server_name": "s", "input": {"y": 1}},
                {"type": "mcp_tool_result", "tool_use_id": "m1", "content": []},
                {"type": "compaction", "content": "so far"},
                {"type": "thinking", "thinking": "so", "signature": "s"},
            ],
            {},
        ),
        "b",
    ]
    assert out.notes == [
        f"content: '{kind}' has no item here; it goes back to its provider as it came"
        for kind in ("mcp_tool_use", "mcp_tool_result", "compaction")
    ]


def test_state_that_came_last_is_carried_behind_what_was_said_even_when_that_was_cut() -> None:
    block = start(1, "container_upload", file_id="f1") + stop(1)

    whole, cut = heard(text(0, "a") + block + end()), heard(text(0, "a") + block + end("max_tokens"))

    carried: object = ("", [{"type": "container_upload", "file_id": "f1"}], {})
    assert short(whole) == short(cut) == ["a", carried]
    assert cut["status"] == "incomplete"


def test_half_a_block_that_ran_at_the_provider_is_not_kept() -> None:
    half = start(1, "mcp_tool_use", id="m1", name="x", input={}) + add(1, "input_json", partial_json='{"y')

    assert short(heard(text(0, "a") + half + end("max_tokens"))) == ["a"]


def test_a_block_nobody_closed_is_closed_with_the_answer() -> None:
    assert short(heard(start(0, "text", text="a") + end())) == ["a"]


# The end.


@pytest.mark.parametrize("reason", ["end_turn", "stop_sequence", "tool_use", None, "whatever"])
def test_most_reasons_to_stop_are_an_ordinary_end(reason: str | None) -> None:
    assert heard(text(0, "a") + end(reason))["status"] == "completed"


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    assert short(heard(BEGIN + end())) == [""]


def test_an_answer_of_nothing_that_does_not_say_why_is_a_failure() -> None:
    with pytest.raises(BrokenStream, match="empty"):
        heard(BEGIN + end(None))


def test_a_pause_is_no_end() -> None:
    out = composer()
    reader = AnthropicReader(out, Hearing())
    out.start()
    reader.feed(BEGIN + text(0, "a") + search(1, "s1", "q") + end("pause_turn", {"output_tokens": 7}))

    reader.close(END)

    assert out.paused
    assert [item.type for item in out.resume()] == ["message", "web_search_call", "reasoning"]
    response = read_on(out, found(0, "s1", RESULTS) + text(1, "b") + end("end_turn", {"output_tokens": 5}))
    assert usage_of(response)["output"] == 12


def read_on(out: Composer, answer: bytes) -> Fields:
    reader = AnthropicReader(out, Hearing())
    reader.feed(answer)
    reader.close(END)
    events = encoded(out)
    judged(events)
    response: Fields = json.loads(events[-1])["response"]
    return response


DETAILS = {"type": "refusal", "category": "cyber", "explanation": "Not that."}


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (DETAILS, "Not that."),
        ({**DETAILS, "explanation": None}, "The model refused to answer."),
        (None, "The model refused to answer."),
        ([1, 2, 3], "The model refused to answer."),
    ],
)
def test_a_refusal_says_why_and_is_never_said_again(details: object, expected: str) -> None:
    response = heard(BEGIN + end("refusal", stop_details=details))

    assert short(response) == [expected, ("", [{"type": "refused"}], {})]
    assert response["status"] == "completed"


def test_what_was_said_before_a_refusal_stays_shown() -> None:
    response = heard(thinking(0, "so", "s") + text(1, "a") + end("refusal", stop_details=DETAILS))

    [_, said, carried] = items(response)
    assert said.text == "aNot that."
    assert carried.parts == [{"type": "refused"}]


def test_a_refusal_inside_calls_leaves_the_last_one_unfit_to_be_run() -> None:
    response = heard(tool(0, "t1", "{}") + tool(1, "t2", '{"a') + end("refusal", stop_details=DETAILS))

    assert [item.status for item in items(response)] == ["completed", "incomplete"]
    assert response["incomplete_details"] == {"reason": "content_filter"}


def test_an_answer_may_start_over_while_nothing_was_shown() -> None:
    nothing = start(0, "text", text="") + start(1, "thinking", thinking="")

    response = heard(
        BEGIN + nothing + event("message_start", message={"usage": {"input_tokens": 9}}) + text(0, "a") + end()
    )

    assert short(response) == ["a"]
    assert usage_of(response)["input"] == 9


@pytest.mark.parametrize(
    "shown",
    [
        text(0, "a"),
        thinking(0, "so"),
        tool(0, "t1"),
        search(0, "s1", "q"),
        start(0, "redacted_thinking", data="=") + stop(0) + start(1, "text", text=""),
    ],
)
def test_an_answer_may_not_start_over_once_something_was(shown: bytes) -> None:
    assert "started over" in str(failure(BEGIN + shown + BEGIN))


# Errors.


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overloaded_error", (529, "server_is_overloaded", True)),
        ("rate_limit_error", (429, "rate_limit_exceeded", True)),
        ("api_error", (500, "server_error", False)),
        ("authentication_error", (401, "invalid_api_key", False)),
        ("odd_error", (502, "server_error", False)),
    ],
)
def test_an_error_inside_an_answer_says_whether_it_may_be_asked_again(
    kind: str, expected: tuple[int, str, bool]
) -> None:
    envelope = {"error": {"type": kind, "message": "Sorry."}}

    for error in (
        failure(BEGIN + event("error", **envelope)),
        failure(json.dumps({"type": "error", **envelope}).encode()),
    ):
        assert (error.status, error.code, error.transient) == expected
        assert str(error) == "Sorry."


def test_an_error_that_says_nothing_is_one_all_the_same() -> None:
    assert failure(event("error")).status == 502


def refused(status: int, kind: str, message: str, **headers: str) -> UpstreamError:
    return refusal(status, headers, json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode())


def test_a_refusal_says_what_can_be_done_about_it() -> None:
    busy = refused(529, "overloaded_error", "Overloaded", **{"retry-after": "7"})
    stubborn = refused(529, "overloaded_error", "Overloaded", **{"x-should-retry": "false"})
    broke = refused(400, "invalid_request_error", "Your credit balance is too low to access the API.")
    long = refused(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum")
    wrong = refused(400, "invalid_request_error", "max_tokens: Field required")

    assert (busy.code, busy.transient, busy.retry_after) == ("server_is_overloaded", True, 7)
    assert not stubborn.transient
    assert (broke.code, broke.transient) == ("insufficient_quota", False)
    assert long.code == "context_length_exceeded"
    assert wrong.code == "invalid_request_error"


# Usage.


def counted(*events: bytes) -> dict[str, int]:
    return usage_of(heard(*events, text(0, "a"), end()))


def usage_of(response: Fields) -> dict[str, int]:
    usage = response["usage"]
    assert isinstance(usage, dict)
    return {
        "input": usage["input_tokens"],
        "cached": usage["input_tokens_details"]["cached_tokens"],
        "written": usage["input_tokens_details"]["cache_write_tokens"],
        "output": usage["output_tokens"],
        "thought": usage["output_tokens_details"]["reasoning_tokens"],
        "total": usage["total_tokens"],
    }


def begun(**usage: object) -> bytes:
    return event("message_start", message={"usage": usage})


def told(**usage: object) -> bytes:
    return event("message_delta", delta={"stop_reason": None}, usage=usage)


def test_the_cache_is_part_of_the_input_and_thinking_of_the_output() -> None:
    counts = counted(
        begun(input_tokens=3, cache_creation_input_tokens=20, cache_read_input_tokens=100, output_tokens=1),
        told(output_tokens=40, output_tokens_details={"thinking_tokens": 30}),
    )

    assert counts == {"input": 123, "cached": 100, "written": 20, "output": 40, "thought": 30, "total": 163}


def test_counts_are_not_added_up_and_zeros_take_nothing_back() -> None:
    counts = counted(
        begun(input_tokens=3, output_tokens=1), told(output_tokens=9), told(input_tokens=0, output_tokens=12)
    )

    assert (counts["input"], counts["output"]) == (3, 12)


def test_what_was_spent_beside_the_answer_is_counted_once() -> None:
    iterations = [
        {"type": "compaction", "input_tokens": 60, "output_tokens": 5},
        {"type": "message", "input_tokens": 6, "output_tokens": 7},
    ]

    counts = counted(
        begun(input_tokens=60, cache_read_input_tokens=4),
        told(input_tokens=6, cache_read_input_tokens=0, output_tokens=7, iterations=iterations),
    )

    assert (counts["input"], counts["cached"], counts["output"]) == (66, 0, 12)


@pytest.mark.parametrize("usage", [None, [], "much", {"input_tokens": "many"}])
def test_counts_that_make_no_sense_are_none(usage: object) -> None:
    assert counted(event("message_delta", delta={}, usage=usage))["total"] == 0


def test_nothing_is_less_than_nothing() -> None:
    counts = counted(begun(input_tokens=-3, output_tokens=-1, output_tokens_details={"thinking_tokens": None}))

    assert (counts["total"], counts["thought"]) == (0, 0)


def test_a_line_without_end_is_a_broken_frame() -> None:
    reader = AnthropicReader(composer(), Hearing())

    with pytest.raises(Exception, match="longer than"):
        reader.feed(b"data: " + b"x" * sse.MAX_LINE)
