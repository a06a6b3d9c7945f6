import json
from collections.abc import Iterable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from rejoinder.bridge.chat_reader import ChatReader, ReasoningState, usage_of
from rejoinder.bridge.composer import Composer
from rejoinder.bridge.envelope import Envelope, Issuer
from rejoinder.bridge.errors import BrokenStream, UpstreamError
from rejoinder.bridge.profile import ChatProfile
from rejoinder.wire import sse
from rejoinder.wire.errors import BadFrame
from rejoinder.wire.responses import InputDetails, OutputDetails, Usage
from tests.bridge.composing import END, composer, encoded
from tests.bridge.grammar import Item, judged
from tests.bridge.prompts import Fields

DONE = b"data: [DONE]\n\n"


def chunk(**fields: object) -> bytes:
    return b"data: %b\n\n" % json.dumps({"id": "c", "object": "chat.completion.chunk", **fields}).encode()


def delta(finish: str | None = None, **fields: object) -> bytes:
    return chunk(choices=[{"index": 0, "delta": fields, "finish_reason": finish}])


def calls(*fragments: Fields, finish: str | None = None) -> bytes:
    return delta(finish, tool_calls=fragments)


def fragment(index: int | None, call_id: str | None, name: str | None, arguments: object = None) -> Fields:
    """What a fragment leaves out is not in it, not even as null."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    given = (("index", index), ("id", call_id), ("function", function))
    return {key: value for key, value in given if value is not None}


END_OF_ANSWER = delta("stop") + DONE


def heard(pieces: Iterable[bytes], profile: ChatProfile | None = None, *, parallel: bool = True) -> Fields:
    """The response an answer comes to, after the judge has heard all its events."""
    out = composer(parallel=parallel)
    _, response = read(out, pieces, profile)
    return response


def read(out: Composer, pieces: Iterable[bytes], profile: ChatProfile | None = None) -> tuple[list[bytes], Fields]:
    reader = ChatReader(out, profile or ChatProfile())
    out.start()
    for piece in pieces:
        reader.feed(piece)
    reader.close(END)
    events = encoded(out)
    judged(events)
    response: Fields = json.loads(events[-1])["response"]
    return events, response


def items(response: Fields) -> list[Fields]:
    output = response["output"]
    assert isinstance(output, list)
    return output


def short(response: Fields) -> list[object]:
    """The output in short: what each item says, and what of a reasoning item goes back."""
    found: list[object] = []
    for item in msgspec.json.decode(json.dumps(response["output"]), type=list[Item]):
        match item.type:
            case "message":
                found.append("".join(part.text or f"({part.refusal})" for part in item.content or ()))
            case "reasoning":
                shown = "".join(part.text or "" for part in item.summary or ())
                found.append((shown, json.loads(item.encrypted_content) if item.encrypted_content else None))
            case _:
                found.append([item.call_id, item.name, item.input or item.arguments])
    return found


def said(*pieces: bytes, profile: ChatProfile | None = None) -> list[object]:
    return short(heard([*pieces, END_OF_ANSWER], profile))


def broken(*pieces: bytes) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        heard(pieces)
    return caught.value


FULL = b"".join(
    (
        b": PROCESSING\n\n",
        chunk(choices=[], prompt_filter_results=[]),
        delta(role="assistant", content=""),
        delta(reasoning_content="Why "),
        delta(reasoning_content="é?", content=None),
        chunk(choices=[{"index": 1, "delta": {"content": "another answer"}}]),
        chunk(
            choices=[
                {"index": 0, "delta": {"content": "Be"}, "logprobs": {"content": [{"token": "Be", "logprob": -1}]}}
            ]
        ),
        delta(content="cause\U0001f600.", obfuscation="xx"),
        calls(fragment(0, "call_a", "f", "")),
        calls(fragment(0, None, None, '{"x"'), fragment(1, "call_b", "free", '{"input":"a')),
        calls(fragment(1, None, None, 'b"}'), fragment(0, None, None, ":1}")),
        chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]),
        chunk(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17}),
        DONE,
        b"data: nothing after the end is read\n\n",
    )
)


def test_a_full_stream_becomes_items_in_order() -> None:
    response = heard([FULL])
    assert short(response) == [
        ("Why é?", [[{"field": "reasoning_content", "text": "Why é?"}], {}]),
        "Because\U0001f600.",
        ["call_a", "f", '{"x":1}'],
        ["call_b", "free", "ab"],
    ]
    [message] = [item for item in items(response) if item["type"] == "message"]
    assert message["content"] == [
        {
            "type": "output_text",
            "text": "Because\U0001f600.",
            "annotations": [],
            "logprobs": [{"token": "Be", "logprob": -1.0, "bytes": [66, 101], "top_logprobs": []}],
        }
    ]
    assert (response["status"], response["completed_at"]) == ("completed", END)
    usage = response["usage"]
    assert isinstance(usage, dict)
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (9, 8, 17)


def test_a_stream_cut_anywhere_says_the_same() -> None:
    whole, _ = read(composer(), [FULL])
    for cut in range(1, len(FULL), 3):
        events, _ = read(composer(), [FULL[:cut], FULL[cut:]])
        assert events == whole


def test_a_stream_in_single_bytes_says_the_same() -> None:
    assert heard(FULL[at : at + 1] for at in range(len(FULL))) == heard([FULL])


def test_a_stream_without_its_end_is_broken_wherever_it_ends() -> None:
    end = FULL.index(b'"finish_reason": "tool_calls"')
    for cut in range(0, end, 7):
        with pytest.raises(BrokenStream):
            heard([FULL[:cut]])
    assert str(broken(FULL[: FULL.rindex(b"data: ", 0, end)])) == "the stream ended before the answer did"


@pytest.mark.parametrize(
    "pieces",
    [
        [delta("stop", content="x")],
        [delta("stop", content="x").rstrip(b"\n")],
        [delta(content="x"), DONE],
        [delta(content="x"), b"data: [DONE] \n\n"],
        [delta("", content="x"), DONE],
        [delta("eos", content="x"), DONE],
        [delta("tool_calls", content="x", tool_calls=[]), DONE],
        [b"\xef\xbb\xbf" + delta("stop", content="x")],
        [b"\r\n \n", delta("stop", content="x").replace(b"\n", b"\r\n")],
        [b"", b" ", delta("stop", content="x")],
        [b"event: x\n" + delta("stop", content="x")],
    ],
)
def test_an_answer_ends_with_a_reason_or_with_the_end_mark(pieces: list[bytes]) -> None:
    response = heard(pieces)
    assert (short(response), response["status"]) == (["x"], "completed")
    usage = response["usage"]
    assert isinstance(usage, dict)
    assert usage["total_tokens"] == 0


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("length", "max_output_tokens"),
        ("model_length", "max_output_tokens"),
        ("content_filter", "content_filter"),
        ("sensitive", "content_filter"),
    ],
)
def test_an_answer_that_was_cut_says_why(finish: str, reason: str) -> None:
    for stream in (
        delta(content="x"),
        delta(reasoning="so"),
        calls(fragment(0, "a", "f", '{"x')),
        delta(content="<think>so"),
    ):
        response = heard([stream, delta(finish), DONE])
        assert response["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": reason}
        assert [item["status"] for item in items(response)] == ["incomplete"]


def test_a_filter_may_leave_nothing_at_all() -> None:
    response = heard([chunk(choices=[{"index": 0, "finish_reason": "content_filter"}]), DONE])
    assert (response["status"], response["output"]) == ("incomplete", [])


@pytest.mark.parametrize("finish", ["error", "insufficient_system_resource"])
def test_an_answer_may_end_in_failure(finish: str) -> None:
    error = broken(delta(finish, content="x"), DONE)
    assert (str(error), error.status) == (f"the provider ended the answer with '{finish}'", 502)


@pytest.mark.parametrize("pieces", [[b""], [b" \n"], [DONE], [b"data: {}\n\n", DONE], [b"{}"], [b'{"choices":null}']])
def test_an_answer_of_nothing_is_broken(pieces: list[bytes]) -> None:
    assert isinstance(broken(*pieces), BrokenStream)


@pytest.mark.parametrize(
    "data",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        b"data: \n\n",
        b'data: {"choices":[{"delta":{"content":5}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
        b'data: {"choices":[{"delta":{"reasoning_details":[{"x":"\xff"}]}}]}\n\n',
        b'data: {"choices":[{"delta":{"x":%b}}]}\n\n' % (b"[" * 100_000),
        b"<html>Bad gateway</html>",
        b"[1]",
        b'{"choices":',
    ],
)
def test_bytes_that_make_no_sense_are_broken(data: bytes) -> None:
    error = broken(data)
    assert isinstance(error, BrokenStream)
    assert str(error).startswith("the provider sent something that is no chunk of an answer: ")


def test_plain_text_is_no_answer() -> None:
    assert str(broken(b"Bad gateway")) == "the stream ended before the answer did"


def test_lines_without_end_are_refused() -> None:
    with pytest.raises(BadFrame):
        heard([b"data: " + b"x" * sse.MAX_LINE])


def test_an_answer_is_over_with_its_done_and_not_with_its_finish_reason() -> None:
    reader = ChatReader(out := composer(), ChatProfile())
    out.start()

    reader.feed(delta("stop", content="a"))
    assert not reader.is_over
    reader.feed(DONE)
    assert reader.is_over
    reader.feed(b"data: nonsense\n\n")
    reader.close(END)

    response = json.loads(encoded(out)[-1])["response"]
    assert short(response) == ["a"]


def test_a_body_is_over_when_its_bytes_are() -> None:
    reader = ChatReader(out := composer(), ChatProfile())
    out.start()

    reader.feed(b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}')
    assert not reader.is_over
    reader.close(END)
    assert reader.is_over


@pytest.mark.parametrize(
    ("data", "message", "code"),
    [
        (chunk(error={"message": "busy", "code": 429}), "busy", "rate_limit_exceeded"),
        (chunk(error="busy", choices=[]), "busy", "server_error"),
        (b"event: error\n" + chunk(error={"message": "busy"}), "busy", "server_error"),
        (
            chunk(error={"message": "maximum context length"}, choices=[{"delta": {}, "finish_reason": "length"}]),
            "maximum context length",
            "context_length_exceeded",
        ),
        (b'{"error":{"message":"busy","type":"insufficient_quota"}}', "busy", "insufficient_quota"),
    ],
)
def test_an_error_in_the_middle_is_what_it_says(data: bytes, message: str, code: str) -> None:
    stream = [data] if data.startswith(b"{") else [delta(content="x"), data, END_OF_ANSWER]
    error = broken(*stream)
    assert (str(error), error.code) == (message, code)


@pytest.mark.parametrize("nothing", [None, {}, ""])
def test_an_empty_error_is_none(nothing: object) -> None:
    assert said(chunk(error=nothing, choices=[{"delta": {"content": "x"}}])) == ["x"]


# One body


def body(message: Fields, finish: str = "stop", **fields: object) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}], **fields}).encode()


WHOLE = body(
    {
        "role": "assistant",
        "content": "Because.",
        "refusal": None,
        "reasoning_content": "Why?",
        "annotations": [
            {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 3}}
        ],
        "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        ],
    },
    usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
)


def test_a_whole_body_is_read_where_a_stream_was_asked_for() -> None:
    response = heard([b" \n" + WHOLE])
    assert short(response) == [
        ("Why?", [[{"field": "reasoning_content", "text": "Why?"}], {}]),
        "Because.",
        ["call_a", "f", "{}"],
        ["call_4", "f", '{"x":1}'],
    ]
    assert heard(WHOLE[at : at + 1] for at in range(len(WHOLE))) == heard([WHOLE])


def test_a_whole_body_without_an_end_is_broken() -> None:
    for cut in range(1, len(WHOLE), 9):
        assert isinstance(broken(WHOLE[:cut]), BrokenStream)


def test_details_and_lists_of_a_body_go_back_as_they_came() -> None:
    details = [{"type": "reasoning.text", "text": "a", "index": 0}, {"type": "reasoning.text", "text": "b", "index": 0}]
    assert short(heard([body({"content": "x", "reasoning_details": details})])) == [
        ("ab", [[{"details": details}], {}]),
        "x",
    ]
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "a"}], "closed": True}
    content = [thinking, thinking, {"type": "text", "text": "x"}, {"type": "reference", "ids": [1]}]
    assert short(heard([body({"content": content})])) == [("aa", [[{"content": [thinking, thinking]}], {}]), "x"]


@pytest.mark.parametrize(
    "pieces",
    [
        [chunk(choices=[{"delta": {"content": "x"}, "message": {"content": "x so far"}}])],
        [chunk(choices=[{"message": {"content": "x"}}])],
    ],
)
def test_a_chunk_may_hold_a_message_too(pieces: list[bytes]) -> None:
    assert said(*pieces) == ["x"]
    both = json.dumps({"choices": [{"delta": {"content": ""}, "message": {"content": "x"}, "finish_reason": "stop"}]})
    assert short(heard([both.encode()])) == ["x"]
    only = json.dumps({"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]})
    assert short(heard([only.encode()])) == ["x"]


# Reasoning


@pytest.mark.parametrize(
    ("stream", "output"),
    [
        (
            [delta(reasoning="a"), delta(reasoning="b"), delta(content="x")],
            [("ab", [[{"field": "reasoning", "text": "ab"}], {}]), "x"],
        ),
        (
            [delta(reasoning_content="a", reasoning="a"), delta(content="x")],
            [("a", [[{"field": "reasoning_content", "text": "a"}], {}]), "x"],
        ),
        # The same delta may end the reasoning.
        ([delta(reasoning="a", content="x")], [("a", [[{"field": "reasoning", "text": "a"}], {}]), "x"]),
        (
            [delta(content="x"), delta(reasoning="a"), delta(content="y")],
            ["x", ("a", [[{"field": "reasoning", "text": "a"}], {}]), "y"],
        ),
        ([delta(reasoning="a"), delta(refusal="no")], [("a", [[{"field": "reasoning", "text": "a"}], {}]), "(no)"]),
        (
            [delta(reasoning="a"), calls(fragment(0, "c", "f", "{}"))],
            [("a", [[{"field": "reasoning", "text": "a"}], {}]), ["c", "f", "{}"]],
        ),
        # OpenRouter says it twice; the details go back.
        (
            [
                delta(reasoning="a", reasoning_details=[{"type": "reasoning.text", "text": "a", "index": 0}]),
                delta(reasoning_details=[{"type": "reasoning.text", "signature": "s", "index": 0}]),
                delta(content="x"),
            ],
            [("a", [[{"details": [{"type": "reasoning.text", "text": "a", "index": 0, "signature": "s"}]}], {}]), "x"],
        ),
        (
            [delta(reasoning_details=[{"type": "reasoning.summary", "summary": "a", "index": 0}]), delta(content="x")],
            [("a", [[{"details": [{"type": "reasoning.summary", "summary": "a", "index": 0}]}], {}]), "x"],
        ),
        # Details that come with the text do not cut it in two.
        (
            [
                delta(content="x"),
                delta(reasoning_details=[{"type": "reasoning.encrypted", "data": "d"}]),
                delta(content="y"),
            ],
            ["xy", ("", [[{"details": [{"type": "reasoning.encrypted", "data": "d"}]}], {}])],
        ),
        # A signature of the message itself.
        (
            [delta(content="x", extra_content={"google": {"thought_signature": "s"}})],
            [("", [[{"extra_content": {"google": {"thought_signature": "s"}}}], {}]), "x"],
        ),
        # Mistral's lists change to strings and back.
        (
            [
                delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}]),
                delta(
                    content=[
                        {"type": "thinking", "thinking": "b"},
                        {"type": "text", "text": "x"},
                        {"type": "text", "text": ""},
                    ]
                ),
                delta(content="y"),
            ],
            [("ab", [[{"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "ab"}]}]}], {}]), "xy"],
        ),
    ],
)
def test_reasoning_is_shown_and_kept_in_the_form_it_came_in(stream: list[bytes], output: list[object]) -> None:
    assert said(*stream) == output


def test_a_part_that_makes_no_sense_is_broken() -> None:
    error = broken(delta(content=[{"type": "thinking", "thinking": 5}]))
    assert str(error).startswith("the provider sent a content part that makes no sense: ")


@pytest.mark.parametrize(
    ("profile", "stream", "output"),
    [
        (
            ChatProfile(),
            [delta(content="<thi"), delta(content="nk>a</think>"), delta(content="\n\nx")],
            [("a", [[{"field": "think", "text": "a"}], {}]), "x"],
        ),
        (ChatProfile(), [delta(content="<think>a")], [("a", [[{"field": "think", "text": "a"}], {}])]),
        (ChatProfile(), [delta(content="<think>a</thi")], [("a</thi", [[{"field": "think", "text": "a</thi"}], {}])]),
        (ChatProfile(), [delta(content="<th")], ["<th"]),
        (
            ChatProfile(),
            [delta(content="<think>a</th"), calls(fragment(0, "c", "f", "{}"))],
            [("a</th", [[{"field": "think", "text": "a</th"}], {}]), ["c", "f", "{}"]],
        ),
        (ChatProfile(), [delta(content="<"), calls(fragment(0, "c", "f", "{}"))], ["<", ["c", "f", "{}"]]),
        (ChatProfile(think_tags=False), [delta(content="<think>a</think>x")], ["<think>a</think>x"]),
        (
            ChatProfile(prefilled_think=True),
            [delta(content="a</think>x")],
            [("a", [[{"field": "think", "text": "a"}], {}]), "x"],
        ),
    ],
)
def test_reasoning_inside_the_answer_is_taken_out(
    profile: ChatProfile, stream: list[bytes], output: list[object]
) -> None:
    assert said(*stream, profile=profile) == output


# Calls

WRITTEN: list[tuple[list[bytes], list[list[str]]]] = [
    # A whole call in one delta; several in one chunk; arguments as an object, empty or missing.
    ([calls(fragment(0, "a", "f", '{"x":1}'))], [["a", "f", '{"x":1}']]),
    ([calls(fragment(0, "a", "f", "{}"), fragment(1, "b", "f", "{}"))], [["a", "f", "{}"], ["b", "f", "{}"]]),
    ([calls(fragment(0, "a", "f", {"x": [1]}))], [["a", "f", '{"x":[1]}']]),
    ([calls(fragment(0, "a", "f", ""))], [["a", "f", "{}"]]),
    ([calls(fragment(0, "a", "f"))], [["a", "f", "{}"]]),
    # Indexes that start late, have gaps, or are the same for every call with a new id.
    ([calls(fragment(1, "a", "f", "{}")), calls(fragment(7, "b", "f", "{}"))], [["a", "f", "{}"], ["b", "f", "{}"]]),
    (
        [
            calls(fragment(0, "a", "f", "{}")),
            calls(fragment(0, "b", "f", '{"x"')),
            calls(fragment(0, None, None, ":1}")),
        ],
        [["a", "f", "{}"], ["b", "f", '{"x":1}']],
    ),
    # The id and the name with every fragment.
    ([calls(fragment(0, "a", "f", '{"x"')), calls(fragment(0, "a", "f", ":1}"))], [["a", "f", '{"x":1}']]),
    # No index: a name begins a call, unless the id says that it is the same one.
    ([calls(fragment(None, "a", "f", '{"x"')), calls(fragment(None, None, None, ":1}"))], [["a", "f", '{"x":1}']]),
    ([calls(fragment(None, "a", "f", '{"x"')), calls(fragment(None, "a", "f", ":1}"))], [["a", "f", '{"x":1}']]),
    ([calls(fragment(None, "a", "f", "{}"), fragment(None, "b", "f", "{}"))], [["a", "f", "{}"], ["b", "f", "{}"]]),
    # Interleaved.
    (
        [
            calls(fragment(0, "a", "f", '{"x"')),
            calls(fragment(1, "b", "f", '{"y"')),
            calls(fragment(0, None, None, ":1}")),
            calls(fragment(1, None, None, ":2}")),
        ],
        [["a", "f", '{"x":1}'], ["b", "f", '{"y":2}']],
    ),
    # The name after the arguments.
    (
        [calls(fragment(0, "a", None, '{"x"')), calls(fragment(0, None, "", ":1")), calls(fragment(0, None, "f", "}"))],
        [["a", "f", '{"x":1}']],
    ),
    # The id after the name.
    ([calls(fragment(0, "", "f", "{")), calls(fragment(0, "a", None, "}"))], [["call_1", "f", "{}"]]),
    # Text that parses is not text that is finished.
    ([calls(fragment(0, "a", "f", "1")), calls(fragment(0, None, None, "2"))], [["a", "f", "12"]]),
    # The form before tools.
    (
        [delta(function_call={"name": "f", "arguments": '{"x"'}), delta(function_call={"arguments": ":1}"})],
        [["call_1", "f", '{"x":1}']],
    ),
]


@pytest.mark.parametrize(("stream", "output"), WRITTEN)
def test_fragments_find_the_call_they_belong_to(stream: list[bytes], output: list[list[str]]) -> None:
    assert said(*stream) == output


def test_an_empty_call_of_the_old_form_is_none() -> None:
    assert said(delta(content="x", function_call={"name": "", "arguments": ""})) == ["x"]


@pytest.mark.parametrize("call_id", [None, "", "x" * 65, "a"])
def test_an_id_that_cannot_serve_is_replaced(call_id: str | None) -> None:
    first, second = said(calls(fragment(0, "a", "f", "{}")), calls(fragment(1, call_id, "f", "{}")))
    assert (first, second) == (["a", "f", "{}"], ["call_2", "f", "{}"])


def test_a_native_free_form_call_is_the_same_as_an_emulated_one() -> None:
    pieces = ['a "b', '"\n', ""]
    stream = [calls({"index": 0, "id": "a", "type": "custom", "custom": {"name": "free", "input": None}})]
    stream += [calls({"index": 0, "custom": {"input": piece}}) for piece in pieces]
    assert said(*stream) == [["a", "free", 'a "b"\n']]


def test_a_call_without_a_name_is_broken() -> None:
    assert str(broken(calls(fragment(0, "a", None, "{}")), END_OF_ANSWER)) == (
        "the provider sent a tool call without a name"
    )
    assert isinstance(broken(calls({"index": 0, "id": "a"}), END_OF_ANSWER), BrokenStream)


def test_a_signature_of_a_call_travels_before_it() -> None:
    signed = {**fragment(0, "a", "f", "{}"), "extra_content": {"google": {"thought_signature": "s"}}}
    signature = {"google": {"thought_signature": "s"}}
    assert said(calls(signed)) == [("", [[], {"a": signature}]), ["a", "f", "{}"]]
    assert said(delta(reasoning="so"), calls(signed, fragment(1, "b", "f", "{}"))) == [
        ("so", [[{"field": "reasoning", "text": "so"}], {}]),
        ("", [[], {"a": signature}]),
        ["a", "f", "{}"],
        ["b", "f", "{}"],
    ]


def test_a_second_call_is_left_out_where_the_client_allows_one() -> None:
    stream = [calls(fragment(0, "a", "f", "{}")), calls(fragment(1, "b", "f", '{"x"')), END_OF_ANSWER]
    assert short(heard(stream, parallel=False)) == [["a", "f", "{}"]]


def test_arguments_that_do_not_fit_are_the_models_error() -> None:
    assert str(broken(calls(fragment(0, "a", "shell", '{"commands":5}')), END_OF_ANSWER)).startswith(
        "the model called 'shell' with arguments that do not fit the tool: "
    )


# Citations


def test_citations_with_a_place_are_annotations_and_the_others_are_noted() -> None:
    cited: list[Fields] = [
        {"type": "url_citation", "url_citation": {"url": "u", "start_index": 0, "end_index": 1}},
        {"type": "url_citation", "url_citation": {"url": "u", "start_index": 0}},
        {"type": "url_citation", "url_citation": {"url": "u", "end_index": 1}},
        {"type": "file_citation", "file_id": "x"},
        {"type": "url_citation", "url_citation": {"url": 5}},
    ]
    out = composer()
    _, response = read(out, [delta(content="x"), delta(annotations=cited), END_OF_ANSWER])
    [message] = items(response)
    assert isinstance(message["content"], list)
    assert message["content"][0]["annotations"] == [
        {"type": "url_citation", "url": "u", "title": "u", "start_index": 0, "end_index": 1}
    ]
    assert out.notes == ["annotations: a source without a position was left out"]


# Log probabilities


def test_log_probabilities_have_all_their_keys() -> None:
    tokens = [
        {"token": "é", "logprob": -0.5, "bytes": None, "top_logprobs": None, "new": 1},
        {"token": "x", "logprob": -1, "bytes": [120], "top_logprobs": [{"token": "é", "logprob": -2}]},
        {"token": "y"},
    ]
    out = composer()
    choice = {"index": 0, "delta": {"content": "éx"}, "logprobs": {"content": tokens}}
    _, response = read(
        out, [chunk(choices=[choice]), chunk(choices=[{**choice, "logprobs": {"content": []}}]), END_OF_ANSWER]
    )
    [message] = items(response)
    assert isinstance(message["content"], list)
    assert message["content"][0]["logprobs"] == [
        {"token": "é", "logprob": -0.5, "bytes": [], "top_logprobs": []},
        {
            "token": "x",
            "logprob": -1.0,
            "bytes": [120],
            "top_logprobs": [{"token": "é", "logprob": -2.0, "bytes": [195, 169]}],
        },
    ]
    assert out.notes == ["logprobs: a token without a probability was left out"]


# Usage

PLAIN = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def usage(read: int, written: int, cached: int = 0, cache_written: int = 0, reasoning: int = 0) -> Usage:
    return Usage(read, InputDetails(cached, cache_written), written, OutputDetails(reasoning), read + written)


@pytest.mark.parametrize(
    ("said_by_the_provider", "understood"),
    [
        (PLAIN, usage(10, 5)),
        ({}, Usage()),
        ({"prompt_tokens": None, "completion_tokens": 5}, usage(0, 5)),
        (
            {
                **PLAIN,
                "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2, "audio_tokens": 1},
                "completion_tokens_details": {"reasoning_tokens": 3, "accepted_prediction_tokens": 0},
            },
            usage(10, 5, 4, 2, 3),
        ),
        ({**PLAIN, "prompt_tokens_details": None, "completion_tokens_details": None}, usage(10, 5)),
        ({**PLAIN, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 6}, usage(10, 5, 4)),  # DeepSeek
        ({**PLAIN, "cached_tokens": 4}, usage(10, 5, 4)),  # Moonshot
        ({**PLAIN, "cached_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}, usage(10, 5, 3)),
        # Outside the completion (xAI), where the total shows it.
        (
            {**PLAIN, "total_tokens": 22, "completion_tokens_details": {"reasoning_tokens": 7}},
            usage(10, 12, reasoning=7),
        ),
        # More of a part than of the whole (Baseten).
        ({**PLAIN, "completion_tokens_details": {"reasoning_tokens": 7}}, usage(10, 5, reasoning=5)),
        ({**PLAIN, "prompt_tokens_details": {"cached_tokens": 12, "cache_write_tokens": 3}}, usage(10, 5, 10)),
        ({**PLAIN, "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 3}}, usage(10, 5, 8, 2)),
        # Less than nothing.
        ({"prompt_tokens": -1, "completion_tokens": -1, "total_tokens": -2}, Usage()),
        (
            {
                **PLAIN,
                "prompt_tokens_details": {"cached_tokens": -1, "cache_write_tokens": -1},
                "completion_tokens_details": {"reasoning_tokens": -1},
            },
            usage(10, 5),
        ),
        ({"cost": 0.1, "prompt_tokens": "many"}, Usage()),
    ],
)
def test_usage_is_understood_and_its_parts_fit_their_whole(said_by_the_provider: Fields, understood: Usage) -> None:
    assert usage_of(Raw(json.dumps(said_by_the_provider).encode())) == understood


def test_no_usage_is_zeros() -> None:
    assert usage_of(None) == usage_of(Raw(b"[]")) == Usage()


NUMBERS = st.none() | st.integers(-9, 99)


@given(
    st.fixed_dictionaries(
        {
            "prompt_tokens": NUMBERS,
            "completion_tokens": NUMBERS,
            "total_tokens": NUMBERS,
            "cached_tokens": NUMBERS,
            "prompt_tokens_details": st.none()
            | st.fixed_dictionaries({"cached_tokens": NUMBERS, "cache_write_tokens": NUMBERS}),
            "completion_tokens_details": st.none() | st.fixed_dictionaries({"reasoning_tokens": NUMBERS}),
        }
    )
)
def test_any_usage_adds_up(said_by_the_provider: Fields) -> None:
    found = usage_of(Raw(msgspec.json.encode(said_by_the_provider)))
    parts = found.input_tokens_details
    assert found.total_tokens == found.input_tokens + found.output_tokens
    assert 0 <= parts.cached_tokens + parts.cache_write_tokens <= found.input_tokens
    assert min(parts.cached_tokens, parts.cache_write_tokens) >= 0
    assert 0 <= found.output_tokens_details.reasoning_tokens <= found.output_tokens


@pytest.mark.parametrize(
    "stream",
    [
        [delta(content="x"), chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=PLAIN), DONE],
        [delta("stop", content="x"), chunk(choices=[], usage=PLAIN), DONE],
        [chunk(usage={"prompt_tokens": 1}, choices=[]), delta("stop", content="x"), chunk(usage=PLAIN), DONE],
        [delta(content="x"), chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop", "usage": PLAIN}]), DONE],
        [chunk(usage=PLAIN, choices=[]), delta("stop", content="x"), chunk(usage=None, choices=[]), DONE],
    ],
)
def test_the_last_usage_counts_wherever_it_comes(stream: list[bytes]) -> None:
    found = heard(stream)["usage"]
    assert isinstance(found, dict)
    assert found["total_tokens"] == 15


# What goes back


def test_what_an_envelope_keeps_says_how_the_reasoning_goes_back() -> None:
    state = ReasoningState()
    issuer = Issuer("chat", "e", "m")
    state.add(Envelope(issuer, [Raw(b'{"field":"reasoning","text":"a"}'), Raw(b'{"details":[{"x":1}]}')]))
    state.add(Envelope(issuer, [Raw(b'{"field":"reasoning","text":"b"}')], {"c": Raw(b'{"s":1}')}))
    state.add(Envelope(issuer, [Raw(b'{"content":[{"y":1}]}'), Raw(b'{"extra_content":{"z":1}}')]))
    assert (state.field, state.text) == ("reasoning", "ab")
    assert [bytes(raw) for raw in (*state.details, *state.content)] == [b'{"x":1}', b'{"y":1}']
    assert isinstance(state.extra_content, Raw)
    assert bytes(state.extra_content) == b'{"z":1}'
    signature = state.of_call("c")
    assert isinstance(signature, Raw)
    assert bytes(signature) == b'{"s":1}'
    assert state.of_call("d") is msgspec.UNSET


# Any bytes at all


@given(
    st.lists(
        st.binary() | st.sampled_from([FULL, delta(content="x"), DONE, b"data: ", b"\n\n", b"{", b'"choices"']),
        max_size=6,
    )
)
def test_any_bytes_are_an_answer_or_an_error(pieces: Sequence[bytes]) -> None:
    out = composer()
    reader = ChatReader(out, ChatProfile())
    out.start()
    try:
        for piece in pieces:
            reader.feed(piece)
        reader.close(END)
    except UpstreamError as error:
        out.fail(error.code, str(error))
    judged(encoded(out))
