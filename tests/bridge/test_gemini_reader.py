import json
from collections.abc import Iterable, Sequence

import pytest

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.errors import BrokenStream, UpstreamError
from rejoinder.bridge.gemini_names import Names
from rejoinder.bridge.gemini_reader import GeminiReader
from rejoinder.wire.responses import InputDetails, OutputDetails, Usage
from tests.bridge.composing import END, composer, encoded
from tests.bridge.grammar import judged
from tests.bridge.prompts import Fields, toolbox


def part(text: str, signature: str | None = None, *, thought: bool = False) -> Fields:
    given: dict[str, object] = {"text": text}
    if thought:
        given["thought"] = True
    return given if signature is None else {**given, "thoughtSignature": signature}


def calling(name: str = "f", signature: str | None = None, **fields: object) -> Fields:
    given: dict[str, object] = {"functionCall": {"name": name, **fields}}
    return given if signature is None else {**given, "thoughtSignature": signature}


def candidate(*parts: Fields, finish: str | None = None, **fields: object) -> Fields:
    said: dict[str, object] = {"content": {"role": "model", "parts": parts}, **fields}
    return said if finish is None else {**said, "finishReason": finish}


def chunk(*parts: Fields, finish: str | None = None, **fields: object) -> bytes:
    return sent({"candidates": [candidate(*parts, finish=finish, **fields)]})


def sent(value: object) -> bytes:
    return b"data: %b\r\n\r\n" % json.dumps(value).encode()


def read(out: Composer, pieces: Iterable[bytes], *, final: str | None = None, sources: bool = False) -> list[bytes]:
    reader = GeminiReader(out, names=Names(("f", "1st")), final=final, sources=sources, since=7)
    out.start()
    for piece in pieces:
        reader.feed(piece)
    reader.close(END)
    return encoded(out)


def heard(*pieces: bytes, final: str | None = None, sources: bool = False, parallel: bool = True) -> Fields:
    """The response an answer comes to, after the judge has heard all its events."""
    events = read(composer(parallel=parallel), pieces, final=final, sources=sources)
    judged(events)
    response: Fields = json.loads(events[-1])["response"]
    return response


def output(*pieces: bytes, final: str | None = None, sources: bool = False, parallel: bool = True) -> list[Fields]:
    found = heard(*pieces, final=final, sources=sources, parallel=parallel)["output"]
    assert isinstance(found, list)
    return found


def kinds(items: Sequence[Fields]) -> list[object]:
    return [item["type"] for item in items]


def state(item: Fields) -> tuple[list[Fields], dict[str, Fields]]:
    """The parts and the calls that were sealed into a reasoning item."""
    parts, calls = json.loads(str(item["encrypted_content"]))
    return parts, calls


def text_of(item: Fields) -> object:
    [only] = parts_of(item)
    return only["text"]


def parts_of(item: Fields) -> list[Fields]:
    content = item["content"]
    assert isinstance(content, list)
    return content


def broken(*pieces: bytes) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        read(composer(), pieces)
    return raised.value


# What an answer comes in.


def test_pieces_of_text_are_one_message() -> None:
    [message] = output(chunk(part("Hel")), chunk(part("lo")), chunk(part(""), finish="STOP"))

    assert text_of(message) == "Hello"


def test_one_body_is_read_as_one_chunk() -> None:
    body = json.dumps({"candidates": [candidate(part("Hello"), finish="STOP")]}, indent=2).encode()

    [message] = output(b"  \r\n", body[:1], body[1:30], body[30:])

    assert text_of(message) == "Hello"


def test_an_array_of_chunks_is_a_stream() -> None:
    chunks = [{"candidates": [candidate(part("Hel"))]}, {"candidates": [candidate(part("lo"), finish="STOP")]}]
    out = composer()
    reader = GeminiReader(out, names=Names(()), final=None, sources=False, since=0)
    out.start()
    body = json.dumps(chunks).encode()

    reader.feed(body[: body.index(b"lo")])
    early = encoded(out)
    reader.feed(body[body.index(b"lo") :])
    reader.close(END)

    assert b"Hel" in early[-1]
    assert b'"text":"Hello"' in encoded(out)[-1]


def test_a_page_is_no_answer() -> None:
    assert "page" in str(broken(b"<html>"))


@pytest.mark.parametrize(
    "wrong",
    [b"data: {\r\n\r\n", b'data: {"candidates":7}\r\n\r\n', b'data: {"a":"\xff"}\r\n\r\n', b'[{"candidates":[}'],
)
def test_what_is_no_chunk_breaks_the_answer(wrong: bytes) -> None:
    error = broken(wrong)

    assert isinstance(error, BrokenStream)


def test_a_proxys_done_is_no_chunk_and_no_end() -> None:
    [message] = output(chunk(part("Hello"), finish="STOP"), b"data: [DONE]\n\n")
    assert text_of(message) == "Hello"

    assert "before the answer did" in str(broken(chunk(part("Hello")), b"data: [DONE]\n\n"))


def test_the_end_of_the_bytes_is_not_the_end_of_the_answer() -> None:
    assert "before the answer did" in str(broken())
    assert "before the answer did" in str(broken(chunk(part("Hello"))))


def test_no_chunk_says_that_nothing_follows() -> None:
    reader = GeminiReader(out := composer(), names=Names(()), final=None, sources=False, since=0)
    out.start()

    reader.feed(chunk(part("Hello"), finish="STOP"))
    assert not reader.is_over
    reader.feed(sent({"usageMetadata": {"promptTokenCount": 5}}))
    reader.close(END)

    assert json.loads(encoded(out)[-1])["response"]["usage"]["input_tokens"] == 5


def test_a_last_chunk_needs_no_blank_line() -> None:
    [message] = output(chunk(part("Hello"), finish="STOP").rstrip())

    assert text_of(message) == "Hello"


def test_an_error_may_come_instead_of_a_chunk() -> None:
    error = broken(chunk(part("Hel")), sent({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}))

    assert (error.status, str(error), error.transient) == (503, "overloaded", True)


def test_an_error_may_come_in_an_array() -> None:
    error = broken(b'[{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}]')

    assert (error.status, error.code, str(error)) == (400, "invalid_request_error", "no")


def test_other_candidates_and_unknown_fields_say_nothing() -> None:
    other = candidate(part("B"), {"hologram": 2}, finish="STOP", index=1)
    first = candidate(part("A"), {"hologram": 1}, finish="STOP", safetyRatings=[])

    message, reasoning = output(
        sent({"candidates": [other], "modelStatus": {}}), sent({"candidates": [other, first, first]}),
        sent({"candidates": None}),
    )  # fmt: skip

    assert text_of(message) == "A"
    assert state(reasoning)[0] == [{"hologram": 1}]


# How an answer ends.


@pytest.mark.parametrize("content", [{"content": {}}, {"content": {"role": "model"}}, {"content": None}, {}])
def test_a_limit_reached_by_thoughts_alone_is_an_incomplete_answer_without_items(content: Fields) -> None:
    response = heard(sent({"candidates": [{**content, "finishReason": "MAX_TOKENS"}]}))

    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"] == []


@pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "SPII", "MODEL_ARMOR", "LANGUAGE", "IMAGE_SAFETY"])
def test_a_filter_ends_an_answer_and_keeps_what_was_said(reason: str) -> None:
    response = heard(chunk(part("Well"), finish=reason))

    assert response["incomplete_details"] == {"reason": "content_filter"}
    assert "Well" in json.dumps(response["output"])


def test_a_blocked_prompt_says_which_reason() -> None:
    out = composer()

    events = read(out, [sent({"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": "No."}})])

    judged(events)
    assert b'"reason":"content_filter"' in events[-1]
    assert out.notes == ["the prompt was blocked: OTHER No."]


def test_feedback_without_a_reason_blocks_nothing() -> None:
    assert heard(sent({"promptFeedback": {}}), chunk(part("A"), finish="STOP"))["status"] == "completed"


@pytest.mark.parametrize("reason", ["STOP", "FINISH_REASON_UNSPECIFIED", "SOMETHING_ELSE"])
def test_every_other_reason_is_an_ordinary_end(reason: str) -> None:
    assert heard(chunk(part("A"), finish=reason))["status"] == "completed"


@pytest.mark.parametrize(
    "reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MISSING_THOUGHT_SIGNATURE", "OTHER", "NO_IMAGE"]
)
def test_a_mistake_fails_the_answer_and_its_call_is_not_passed_on(reason: str) -> None:
    out = composer()

    with pytest.raises(UpstreamError, match=f"'{reason}': Oops") as raised:
        read(out, [chunk(calling(), finish=reason, finishMessage="Oops")])

    assert raised.value.code == "server_error"
    assert raised.value.transient is (reason == "MALFORMED_FUNCTION_CALL")
    assert out.is_empty


def test_the_tokens_of_a_failed_answer_are_counted() -> None:
    out = composer()
    whole = {"candidates": [{"finishReason": "OTHER"}], "usageMetadata": {"promptTokenCount": 5}}

    with pytest.raises(UpstreamError, match=r"'OTHER'$") as raised:
        read(out, [sent(whole)])
    out.fail(raised.value.code, str(raised.value))

    assert out.response.usage == Usage(5, total_tokens=5)


def test_an_empty_answer_is_no_success() -> None:
    assert "empty" in str(broken(chunk(finish="STOP")))


def test_an_answer_that_goes_on_elsewhere_seals_how() -> None:
    out = composer()

    read(out, [chunk(part("A")), chunk(finish="CONTINUATION", continuationToken="dG9r")])

    assert out.paused
    message, reasoning = [item.raw for item in out.resume()]
    assert json.loads(message)["status"] == "completed"
    assert state(json.loads(reasoning)) == ([{"continuation": {"token": "dG9r", "since": 7}}], {})


def test_an_answer_cannot_go_on_without_saying_how() -> None:
    assert "go on" in str(broken(chunk(part("A"), finish="CONTINUATION")))


# Usage.


def test_thoughts_are_part_of_the_output_and_results_of_tools_part_of_the_input() -> None:
    counts = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 64,
        "candidatesTokenCount": 10,
        "thoughtsTokenCount": 30,
        "toolUsePromptTokenCount": 7,
        "totalTokenCount": 147,
    }
    out = composer()

    read(out, [sent({"candidates": [candidate(part("A"), finish="STOP")], "usageMetadata": counts})])

    assert out.response.usage == Usage(107, InputDetails(64), 40, OutputDetails(30), 147)


def test_a_later_chunk_that_says_less_takes_nothing_back() -> None:
    early = {"promptTokenCount": 9, "thoughtsTokenCount": 5, "cachedContentTokenCount": 3, "toolUsePromptTokenCount": 1}
    out = composer()

    read(
        out,
        [
            sent({"candidates": [candidate(part("A"))], "usageMetadata": early}),
            sent({"usageMetadata": {"promptTokenCount": 8, "candidatesTokenCount": 2}}),
            sent({"usageMetadata": {"trafficType": "ON_DEMAND"}}),
            chunk(finish="STOP"),
        ],
    )

    assert out.response.usage == Usage(9, InputDetails(3), 7, OutputDetails(5), 16)


def test_counts_without_sense_do_no_harm() -> None:
    out = composer()
    counts = {"promptTokenCount": -4, "cachedContentTokenCount": 9}

    read(out, [sent({"candidates": [candidate(part("A"), finish="STOP")], "usageMetadata": counts})])

    assert out.response.usage == Usage()


# Thoughts and signatures.


def test_thoughts_are_reasoning_and_go_back_as_they_came() -> None:
    reasoning, message = output(
        chunk(part("Let me ", thought=True)), chunk(part("see.", thought=True)), chunk(part("Yes."), finish="STOP")
    )

    assert reasoning["summary"] == [{"type": "summary_text", "text": "Let me see."}]
    assert state(reasoning) == ([{"text": "Let me see.", "thought": True}], {})
    assert text_of(message) == "Yes."


def test_a_signed_thought_is_a_part_of_its_own() -> None:
    [reasoning, _] = output(
        chunk(part("a", thought=True), part("b", "s1", thought=True), part("", "s2", thought=True)),
        chunk(part("c", thought=True), part("", thought=True)),
        chunk(part("Yes."), finish="STOP"),
    )

    assert state(reasoning)[0] == [
        {"text": "a", "thought": True},
        {"text": "b", "thought": True, "thoughtSignature": "s1"},
        {"text": "", "thought": True, "thoughtSignature": "s2"},
        {"text": "c", "thought": True},
    ]


def test_thoughts_that_were_cut_off_are_incomplete() -> None:
    [reasoning] = output(chunk(part("Let me", thought=True), finish="MAX_TOKENS"))

    assert reasoning["status"] == "incomplete"


def test_the_signature_of_a_text_comes_after_its_message() -> None:
    message, reasoning = output(chunk(part("Hello", "s"), finish="STOP"))

    assert text_of(message) == "Hello"
    assert reasoning["summary"] == []
    assert state(reasoning) == ([{"said": [[5, "s"]]}], {})


def test_an_empty_signed_part_is_kept() -> None:
    message, reasoning = output(chunk(part("Hel")), chunk(part("lo")), chunk(part("", "s"), finish="STOP"))

    assert text_of(message) == "Hello"
    assert state(reasoning)[0] == [{"said": [[5, None], [0, "s"]]}]


def test_signed_pieces_of_a_text_are_not_joined_with_others() -> None:
    _, reasoning = output(
        chunk(part("ab", "s1")), chunk(part("c")), chunk(part("d")), chunk(part("ef", "s2"), finish="STOP")
    )

    assert state(reasoning)[0] == [{"said": [[2, "s1"], [2, None], [2, "s2"]]}]


def test_an_unsigned_text_needs_no_state() -> None:
    assert kinds(output(chunk(part("Hello"), finish="STOP"))) == ["message"]


def test_lengths_are_counted_in_code_points() -> None:
    _, reasoning = output(chunk(part("ü𝄞", "s"), finish="STOP"))

    assert state(reasoning)[0] == [{"said": [[2, "s"]]}]


def test_after_a_message_that_was_cut_off_nothing_comes() -> None:
    [message] = output(
        chunk(part("Hello", "s")), chunk(finish="MAX_TOKENS", groundingMetadata={"webSearchQueries": ["q"]})
    )

    assert message["status"] == "incomplete"


def test_a_signature_on_nothing_is_kept_where_it_stood() -> None:
    call_state, call, after = output(chunk(calling(signature="s1")), chunk(part("", "s2"), finish="STOP"))

    assert kinds([call_state, call, after]) == ["reasoning", "function_call", "reasoning"]
    assert state(after) == ([{"text": "", "thoughtSignature": "s2"}], {})


def test_thoughts_between_texts_make_two_messages() -> None:
    items = output(chunk(part("A", "s")), chunk(part("hm", thought=True)), chunk(part("B"), finish="STOP"))

    assert kinds(items) == ["message", "reasoning", "message"]
    assert state(items[1])[0] == [{"said": [[1, "s"]]}, {"text": "hm", "thought": True}]


# Calls.


def test_a_call_comes_whole_and_its_signature_before_it() -> None:
    reasoning, call = output(
        chunk(part("hm", thought=True)), chunk(calling(args={"a": [1, 2]}, id="g1", signature="s"), finish="STOP")
    )

    assert state(reasoning) == ([{"text": "hm", "thought": True}], {"g1": {"signature": "s", "id": "g1"}})
    assert (call["call_id"], call["name"], call["arguments"]) == ("g1", "f", '{"a":[1,2]}')


def test_a_call_without_signature_or_id_needs_no_state() -> None:
    [call] = output(chunk(calling(args={}), finish="STOP"))

    assert call["arguments"] == "{}"
    assert str(call["call_id"]).startswith("call_")


def test_calls_without_arguments_or_with_none_have_empty_ones() -> None:
    items = output(chunk(calling(), calling(args=None), finish="STOP"))

    assert [item["arguments"] for item in items] == ["{}", "{}"]


def test_parallel_calls_like_the_first_one_need_no_state_of_their_own() -> None:
    items = output(chunk(calling(id="a", signature="s"), calling(id="b")), chunk(calling(id="c"), finish="STOP"))

    assert kinds(items) == ["reasoning", *["function_call"] * 3]
    assert [item["call_id"] for item in items[1:]] == ["a", "b", "c"]


def test_a_call_unlike_the_one_before_says_so() -> None:
    items = output(chunk(calling(signature="s"), calling(id="b"), calling(), calling(id="b"), finish="STOP"))

    assert kinds(items) == ["reasoning", "function_call"] * 4
    first, second, third, fourth = (item["call_id"] for item in items if item["type"] == "function_call")
    states = [state(item)[1] for item in items if item["type"] == "reasoning"]
    assert states == [
        {first: {"signature": "s"}},
        {second: {"id": "b", "place": 1}},
        {third: {"place": 2}},
        {fourth: {"id": "b", "place": 3}},
    ]
    assert second == "b"
    assert fourth != "b"


def test_text_before_a_call_is_a_message_of_its_own() -> None:
    items = output(chunk(part("Well", "s0")), chunk(calling(signature="s1"), finish="STOP"))

    assert kinds(items) == ["message", "reasoning", "function_call"]
    parts, calls = state(items[1])
    assert parts == [{"said": [[4, "s0"]]}]
    assert calls == {items[2]["call_id"]: {"signature": "s1"}}


def test_a_call_goes_by_the_name_the_client_gave_it() -> None:
    box = composer()

    events = read(box, [chunk(calling("_1st"), finish="STOP")])

    assert b'"name":"1st"' in events[-1]


def test_calls_after_the_first_are_left_out_where_only_one_is_wanted() -> None:
    items = output(chunk(calling(id="a", signature="s"), calling(id="b"), finish="STOP"), parallel=False)

    assert kinds(items) == ["reasoning", "function_call"]


def test_streamed_arguments_are_put_together() -> None:
    def piece(path: str, **value: object) -> Fields:
        argument = {"jsonPath": path, **value}
        return {"functionCall": {"partialArgs": [argument], "willContinue": True}}

    items = output(
        chunk(calling(willContinue=True, signature="s")),
        chunk(piece("$.a[0].b", stringValue="x", willContinue=True)),
        chunk({"functionCall": {"willContinue": True}}),
        chunk(piece("$.a[0].b", stringValue="y")),
        chunk({"functionCall": {}}),
        chunk({"functionCall": {}}),
        chunk(calling(willContinue=True)),
        chunk(piece("$.n", numberValue=1)),
        chunk(part(""), finish="STOP"),
    )

    calls = [item["arguments"] for item in items if item["type"] == "function_call"]
    assert calls == ['{"a":[{"b":"xy"}]}', '{"n":1}']


def test_a_signature_cannot_join_a_call_that_was_announced() -> None:
    out = composer()

    read(out, [chunk(calling(willContinue=True)), chunk({"functionCall": {}, "thoughtSignature": "s"}, finish="STOP")])

    assert out.notes == ["thoughtSignature: one that came after the beginning of its call was left out"]


def test_a_streamed_call_that_never_closes_is_over_with_the_answer() -> None:
    [call] = output(chunk(calling(willContinue=True)), chunk(finish="STOP"))

    assert call["arguments"] == "{}"


@pytest.mark.parametrize("after", [part("text"), part("hm", thought=True), {"executableCode": {"code": "1"}}])
def test_a_streamed_call_is_over_when_something_else_begins(after: Fields) -> None:
    items = output(chunk(calling(willContinue=True)), chunk(after), chunk(finish="STOP"))

    assert kinds(items)[0] == "function_call"
    assert len(items) == 2


def test_the_call_of_the_final_answer_is_the_answer() -> None:
    items = output(
        chunk(part("hm", thought=True)),
        chunk(calling("final_answer", args={"x": [1]}), finish="STOP"),
        final="final_answer",
    )

    assert kinds(items) == ["reasoning", "message"]
    assert text_of(items[1]) == '{"x":[1]}'


def test_a_call_of_a_tool_nobody_offered_fails_the_answer() -> None:
    out = composer()
    out.offer(toolbox())

    with pytest.raises(UpstreamError, match="no such tool"):
        read(out, [chunk(calling(), finish="STOP")])


# What has no item.


def test_a_picture_is_an_item_and_its_signature_follows() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "aGk="}, "thoughtSignature": "s"}

    items = output(chunk(part("Here:")), chunk(picture), chunk(part("Nice?"), finish="STOP"))

    assert kinds(items) == ["message", "image_generation_call", "reasoning", "message"]
    assert (items[1]["result"], items[1]["output_format"]) == ("aGk=", "png")
    assert state(items[2])[0] == [{"picture": {"signature": "s"}}]


@pytest.mark.parametrize(
    "kept",
    [
        {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "s"},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK"}},
        {"toolCall": {"toolType": "FILE_SEARCH", "id": "1"}},
        {"toolResponse": {"toolType": "URL_CONTEXT", "id": "1"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "aGk="}},
        {"inlineData": {"mimeType": "image/png", "data": "aGk="}, "thought": True},
        {"hologram": {"a": [1]}, "partMetadata": {}},
    ],
)
def test_a_part_without_an_item_is_kept_as_it_came_and_noted(kept: Fields) -> None:
    out = composer()

    events = read(out, [chunk(part("A"), kept, kept, part("B"), finish="STOP")])

    items = json.loads(events[-1])["response"]["output"]
    assert kinds(items) == ["message", "reasoning", "message"]
    assert state(items[1]) == ([kept, kept], {})
    [note] = out.notes
    assert note.startswith(f"{next(iter(kept))}: ")


def test_a_part_that_is_nothing_but_a_signature_is_kept() -> None:
    [_, reasoning] = output(chunk(part("A"), {"thoughtSignature": "s"}, finish="STOP"))

    assert state(reasoning)[0] == [{"thoughtSignature": "s"}]


# Searches and citations.

WEB = [{"web": {"uri": "https://a.example", "title": "A"}}, {"web": {"uri": "https://b.example"}}, {"maps": {}}]


def grounding(*segments: tuple[Fields, list[int]], **fields: object) -> Fields:
    supports = [{"segment": segment, "groundingChunkIndices": numbers} for segment, numbers in segments]
    return {"groundingChunks": WEB, "groundingSupports": supports, **fields}


def citations(item: Fields) -> list[tuple[object, object, object, object]]:
    [only] = parts_of(item)
    found = only["annotations"]
    assert isinstance(found, list)
    return [(one["url"], one["title"], one["start_index"], one["end_index"]) for one in found]


def test_citations_are_counted_in_bytes_there_and_in_code_points_here() -> None:
    text = "Größe: 𝄞 ja"
    start = len("Größe: ".encode())
    segment = {"startIndex": start, "endIndex": start + 4, "text": "𝄞"}

    out = composer()

    events = read(out, [chunk(part(text)), chunk(finish="STOP", groundingMetadata=grounding((segment, [0, 1, 2, 9])))])

    [message] = json.loads(events[-1])["response"]["output"]
    assert citations(message) == [("https://a.example", "A", 7, 8), ("https://b.example", "https://b.example", 7, 8)]
    assert out.notes == ["annotations: a source without an address or a place was left out"]


def test_a_segment_begins_at_the_beginning_and_may_leave_out_its_words() -> None:
    [message] = output(chunk(part("abc"), finish="STOP", groundingMetadata=grounding(({"endIndex": 2}, [0]))))

    assert citations(message) == [("https://a.example", "A", 0, 2)]


def test_a_later_empty_object_takes_no_sources_back() -> None:
    [message] = output(
        chunk(part("abc"), groundingMetadata=grounding(({"endIndex": 2}, [0]))),
        chunk(part("d"), finish="STOP", groundingMetadata={}),
    )

    assert citations(message) == [("https://a.example", "A", 0, 2)]


def test_offsets_may_be_those_of_a_part() -> None:
    segment = {"partIndex": 1, "startIndex": 0, "endIndex": 2, "text": "de"}

    [message] = output(chunk(part("äbc"), part("def"), finish="STOP", groundingMetadata=grounding((segment, [0]))))

    assert citations(message) == [("https://a.example", "A", 3, 5)]


def test_offsets_may_be_those_of_the_whole_text() -> None:
    segment = {"startIndex": 3, "endIndex": 5, "text": "de"}
    code = {"executableCode": {"code": "1"}}

    items = output(
        chunk(part("abc")), chunk(code), chunk(part("def"), finish="STOP", groundingMetadata=grounding((segment, [0])))
    )

    assert citations(items[2]) == [("https://a.example", "A", 0, 2)]


def test_a_source_without_a_place_is_left_out_and_noted() -> None:
    out = composer()
    segments: tuple[tuple[Fields, list[int]], ...] = (
        ({"endIndex": 2, "text": "zz"}, [0]),
        ({"startIndex": 5, "endIndex": 9}, [0]),
        ({}, [0]),
    )

    events = read(out, [chunk(part("abc"), finish="STOP", groundingMetadata=grounding(*segments))])

    assert b'"annotations":[]' in events[-1]
    assert out.notes == ["annotations: a source without an address or a place was left out"]


def test_a_search_that_is_known_before_the_text_comes_before_it() -> None:
    search, message = output(chunk(part("abc"), finish="STOP", groundingMetadata={"webSearchQueries": ["q", "r"]}))

    assert search["action"] == {"type": "search", "query": "q", "queries": ["q", "r"]}
    assert text_of(message) == "abc"


def test_a_search_that_is_known_only_after_the_text_comes_after_it() -> None:
    found = grounding(({"endIndex": 3}, [0]), webSearchQueries=["q"])

    message, search = output(chunk(part("abc")), chunk(finish="STOP", groundingMetadata=found), sources=True)

    assert citations(message) == [("https://a.example", "A", 0, 3)]
    assert search["action"] == {
        "type": "search",
        "query": "q",
        "queries": ["q"],
        "sources": [{"type": "url", "url": "https://a.example"}, {"type": "url", "url": "https://b.example"}],
    }


def tool(kind: str, id_: str, **fields: object) -> Fields:
    return {kind: {"toolType": "GOOGLE_SEARCH_WEB", "id": id_, **fields}, "thoughtSignature": f"{kind}-{id_}"}


def test_a_search_of_the_models_is_announced_and_its_parts_are_kept() -> None:
    asked, answered = tool("toolCall", "1", args={"queries": ["q"]}), tool("toolResponse", "1", response={})

    items = output(
        chunk(asked, part("")), chunk(answered), chunk(part("abc")), chunk(finish="STOP", groundingMetadata=grounding())
    )

    assert kinds(items) == ["web_search_call", "reasoning", "message"]
    assert items[0]["action"] == {"type": "search", "query": "q", "queries": ["q"]}
    assert state(items[1]) == ([asked, answered], {items[0]["id"]: {}})


def test_sources_of_a_search_come_with_the_text() -> None:
    items = output(
        chunk(tool("toolCall", "1", args={"queries": ["q"]}), tool("toolResponse", "1")),
        chunk(tool("toolCall", "2", args={"queries": "?"}), tool("toolResponse", "2")),
        chunk(part("abc")),
        chunk(finish="STOP", groundingMetadata=grounding(webSearchQueries=["q"])),
        sources=True,
    )

    first, second = (item["action"] for item in items if item["type"] == "web_search_call")
    assert first == {"type": "search", "query": "q", "queries": ["q"], "sources": []}
    assert isinstance(second, dict)
    assert [source["url"] for source in second["sources"]] == ["https://a.example", "https://b.example"]
    assert second["queries"] == []


def test_a_search_that_was_never_answered_failed_and_goes_back_all_the_same() -> None:
    asked = tool("toolCall", "1")

    items = output(chunk(asked), chunk(tool("toolResponse", "other")), chunk(calling(), finish="STOP"))

    [search] = [item for item in items if item["type"] == "web_search_call"]
    assert search["status"] == "failed"
    kept = [state(item) for item in items if item["type"] == "reasoning"]
    assert [one for parts, _ in kept for one in parts] == [asked, tool("toolResponse", "other")]
    assert search["id"] in {call for _, calls in kept for call in calls}


# Log probabilities.


def test_log_probabilities_belong_to_the_text_of_their_chunk() -> None:
    chosen = [{"token": "é", "logProbability": -0.5}, {"token": "b"}]
    result = {"chosenCandidates": chosen, "topCandidates": [{"candidates": [{"token": "x", "logProbability": -1}]}]}

    [message] = output(chunk(part("é"), part("b"), finish="STOP", logprobsResult=result))

    [only] = parts_of(message)
    assert only["logprobs"] == [
        {
            "token": "é",
            "logprob": -0.5,
            "bytes": [195, 169],
            "top_logprobs": [{"token": "x", "logprob": -1.0, "bytes": [120]}],
        },
        {"token": "b", "logprob": 0.0, "bytes": [98], "top_logprobs": []},
    ]
