import json
from typing import Any  # the bodies here are broken in every way, so they have no type

import pytest
from google.genai import Client
from google.genai.types import HttpOptions

from rejoinder.conformance.upstreams.asking import Body, Reply, ask
from rejoinder.conformance.upstreams.gemini import GeminiUpstream
from rejoinder.conformance.upstreams.gemini_script import Support, blocked, grounding, part, signed_text
from rejoinder.conformance.upstreams.gemini_strictness import GEMINI, VERTEX, GeminiStrictness, check
from rejoinder.conformance.upstreams.gemini_values import InvalidArgument
from rejoinder.conformance.upstreams.gemini_wire import answered
from rejoinder.conformance.upstreams.script import (
    HttpError,
    LegacyCall,
    Part,
    Step,
    Trouble,
    Unsayable,
    Usage,
    answer,
    call,
    calls,
    refusal,
    text,
    thought,
)
from tests.bridge.recordings import FOLDER, recordings

NEW = "gemini-3-flash"
OLD = "gemini-2.5-flash"
PRO = "gemini-2.5-pro"


def content(role: str, *parts: Body) -> Body:
    return {"role": role, "parts": list(parts)}


USER = content("user", {"text": "hi"})
CALL: Body = {"functionCall": {"name": "look", "args": {}, "id": "call_look"}, "thoughtSignature": "sig"}
CALLING = content("model", CALL)
RESULT: Body = {"functionResponse": {"name": "look", "response": {"output": "seen"}, "id": "call_look"}}
RESULTS = content("user", RESULT)
LOOK: Body = {"name": "look", "description": None, "parameters": {"type": "object", "properties": {}}}
TOOLS: list[Body] = [{"functionDeclarations": [LOOK]}]
SEARCH: Body = {"googleSearch": {}}


def body(*contents: Body, **fields: object) -> Body:
    return {"contents": list(contents or (USER,)), **fields}


def generation(**config: object) -> Body:
    return body(generationConfig=config)


def thinking(**config: object) -> Body:
    return generation(thinkingConfig=config)


def declared(**fields: object) -> Body:
    return body(tools=[{"functionDeclarations": [{"name": "look", **fields}]}])


def parameters(**schema: object) -> Body:
    return declared(parameters={"type": "OBJECT", "properties": {"a": schema}})


def json_schema(**schema: object) -> Body:
    return declared(parametersJsonSchema={"type": "object", "properties": {"a": schema}})


def objection(
    request: Body | bytes, model: str = NEW, strictness: GeminiStrictness = GEMINI, *, counting: bool = False
) -> InvalidArgument:
    encoded = request if isinstance(request, bytes) else json.dumps(request).encode()
    with pytest.raises(InvalidArgument) as caught:
        check(encoded, model, strictness, counting=counting)
    return caught.value


def post(upstream: GeminiUpstream, request: Body | None = None, *, model: str = NEW, mode: str = "?alt=sse") -> Reply:
    """`mode` is the end of the address: a stream of events, a stream of one array, or one body."""
    method = {"?alt=sse": "streamGenerateContent?alt=sse", "array": "streamGenerateContent"}.get(mode, mode)
    return ask(upstream, f"/v1beta/models/{model}:{method}", request or body())


def whole(step: Step[Any], model: str = NEW) -> Any:
    with GeminiUpstream([step]) as upstream:
        return post(upstream, model=model, mode="generateContent").json


def streamed(step: Step[Any], model: str = NEW) -> list[Any]:
    with GeminiUpstream([step]) as upstream:
        return post(upstream, model=model).data


def parts(chunks: list[Any]) -> list[list[Any]]:
    return [chunk["candidates"][0]["content"]["parts"] for chunk in chunks]


# What is refused.


@pytest.mark.parametrize(
    ("request_body", "model"),
    [
        (body(), NEW),
        (body({"parts": [{"text": ""}]}), OLD),
        (body(USER, CALLING, RESULTS, USER, tools=TOOLS), NEW),
        (body(USER, CALLING, RESULTS, CALLING, RESULTS, tools=TOOLS), NEW),
        (
            body(
                USER,
                content("model", {"function_call": {"name": "look"}}),
                content("user", {"function_response": {"name": "look", "response": {}}}),
            ),
            OLD,
        ),
        (
            body(
                USER,
                content("model", {"functionCall": {"name": "look"}}),
                content("user", {"functionResponse": {"name": "look", "response": {}}}, {"text": "so?"}),
            ),
            OLD,
        ),
        (body(system_instruction={"parts": [{"text": "be kind"}]}), NEW),
        (thinking(thinkingLevel="low", includeThoughts=True), NEW),
        (thinking(thinking_budget=0), OLD),
        (thinking(thinkingBudget=-1), PRO),
        (thinking(thinkingLevel="XHIGH"), "gemini-3.5-pro"),
        (thinking(thinkingLevel="MINIMAL"), "gemini-flash-latest"),
        (parameters(type="string", format="date-time", enum=["a"], nullable=True), OLD),
        (parameters(anyOf=[{"type": "integer", "minimum": 1}]), OLD),
        (json_schema(type=["string", "null"], additionalProperties=False, format="date"), OLD),
        (declared(parametersJsonSchema=True), OLD),
        (body(tools=[*TOOLS, SEARCH], toolConfig={"includeServerSideToolInvocations": True}), NEW),
        (
            body(tools=TOOLS, toolConfig={"functionCallingConfig": {"mode": "any", "allowedFunctionNames": ["look"]}}),
            OLD,
        ),
        (body(tools=TOOLS, generationConfig={"responseMimeType": "application/json", "responseJsonSchema": {}}), NEW),
        (generation(responseMimeType="text/x.enum", responseSchema={"type": "STRING", "enum": ["a"]}), OLD),
        (generation(temperature=2, maxOutputTokens=1, stopSequences=["a"] * 5), OLD),
        (body(cachedContent="cachedContents/a", tools=[]), OLD),
        (
            body(
                content(
                    "user",
                    {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
                    {"fileData": {"fileUri": "https://a"}},
                )
            ),
            NEW,
        ),
    ],
)
def test_a_well_formed_request_passes(request_body: Body, model: str) -> None:
    check(json.dumps(request_body).encode(), model)


@pytest.mark.parametrize(
    ("request_body", "message"),
    [
        (b"{", "Invalid JSON payload received."),
        (b"[]", "Invalid value at '' (an object), []"),
        (body(stream=True), 'Invalid JSON payload received. Unknown name "stream": Cannot find field.'),
        (
            body(content("user", {"text": "x", "signature": "a"})),
            "Unknown name \"signature\" at 'contents[0].parts[0]'",
        ),
        (generation(maxTokens=5), "Unknown name \"maxTokens\" at 'generation_config'"),
        (declared(input_schema={}), "Unknown name \"input_schema\" at 'tools[0].function_declarations[0]'"),
        (body(tools=[{"web_search": {}}]), "Unknown name \"web_search\" at 'tools[0]'"),
        (body(toolConfig={"mode": "ANY"}), "Unknown name \"mode\" at 'tool_config'"),
        (thinking(effort="low"), "Unknown name \"effort\" at 'generation_config.thinking_config'"),
        (body(tools={}), "Invalid value at 'tools' (a list), {}"),
        # Contents (§3).
        ({}, "contents is not specified"),
        (body(content("assistant", {"text": "x"})), "Please use a valid role: user, model."),
        (body(content("user")), "it must include at least one parts field"),
        (body(content("user", {"text": 3})), "Invalid value at 'contents[0].parts[0].text' (TYPE_STRING), 3"),
        (body(content("user", {"text": "x", "inlineData": {}})), "oneof field 'data' is already set"),
        (body(content("user", {"thought": True})), "required oneof field 'data' must have one initialized field"),
        (
            body(content("user", {"inlineData": {"mimeType": "image/gif", "data": "AA=="}})),
            "Unsupported MIME type: image/gif",
        ),
        (body(content("user", {"inlineData": {"mimeType": "image/png"}})), "inline_data.data' (TYPE_STRING), null"),
        (body(content("user", {"fileData": {"mimeType": "image/png"}})), "file_data.file_uri' (TYPE_STRING), null"),
        (body(content("model", {"functionCall": {"args": {}}})), "function_call.name' (TYPE_STRING), null"),
        (body(content("model", {"functionCall": {"name": "a", "args": "{}"}})), "function_call.args' (an object)"),
        (body(content("user", {"functionResponse": {"name": "a", "response": "x"}})), 'response\' (an object), "x"'),
        (body(systemInstruction={"parts": [{"inlineData": {}}]}), "system_instruction must be text only"),
        # Calls and results (§3, §4).
        (body(CALLING, RESULTS), "function call turn comes immediately after a user turn or after a function response"),
        (body(USER, content("model", {"text": "a"}), CALLING, RESULTS), "function call turn comes immediately after"),
        (body(USER, CALLING), "number of function response parts is equal to the number of function call parts"),
        (body(USER, CALLING, USER), "number of function response parts is equal"),
        (body(USER, RESULTS), "number of function response parts is equal"),
        (body(USER, content("model", CALL, {"functionCall": {"name": "see"}}), RESULTS), "number of function response"),
        (body(USER, CALLING, content("user", RESULT, {"text": "so?"})), "Request contains an invalid argument."),
        (
            body(USER, CALLING, content("user", {"functionResponse": {"name": "look", "response": {}}})),
            "The function response of `look` must have the id of its function call.",
        ),
        (
            body(USER, CALLING, content("user", {"functionResponse": {"name": "look", "response": {}, "id": "x"}})),
            "must have the id of its function call",
        ),
        # Signatures (§5).
        (
            body(
                USER,
                content("model", {"functionCall": {"name": "look"}}),
                content("user", {"functionResponse": {"name": "look", "response": {}}}),
            ),
            "Function call `look` in the 2. content block is missing a `thought_signature`.",
        ),
        (
            body(USER, CALLING, RESULTS, content("model", {"functionCall": CALL["functionCall"]}), RESULTS),
            "Function call `look` in the 4. content block is missing a `thought_signature`.",
        ),
        (
            body(USER, content("model", {"functionCall": CALL["functionCall"]}, CALL), content("user", RESULT, RESULT)),
            "in the 2. content block is missing a `thought_signature`",
        ),
        # Thinking (§5).
        (
            thinking(thinkingLevel="LOW", thinkingBudget=5),
            "You can only set only one of thinking budget and thinking level",
        ),
        (thinking(thinkingBudget=0), "Request contains an invalid argument."),
        (thinking(thinkingLevel="HUGE"), 'thinking_level\' (TYPE_ENUM), "HUGE"'),
        (thinking(thinkingBudget="1k"), 'thinking_budget\' (TYPE_FLOAT), "1k"'),
        # Tools (§4).
        (declared(name="9lives"), "Invalid function name. Must start with a letter or an underscore."),
        (declared(name="a" * 129), "with a maximum length of 128"),
        (declared(description=3), "description' (TYPE_STRING), 3"),
        (declared(parameters={"type": "OBJECT"}, parametersJsonSchema={}), "parameters_json_schema cannot both be set"),
        (declared(parameters=[]), "function_declarations[0].parameters' (an object), []"),
        (parameters(type="string", const="a"), 'Unknown name "const"'),
        (declared(parameters={"type": "object", "additionalProperties": False}), 'Unknown name "additionalProperties"'),
        (parameters(**{"$ref": "#/a"}), 'Unknown name "$ref"'),
        (parameters(type=["string", "null"]), 'Unknown name "type"'),
        (parameters(type=3), "type' (TYPE_ENUM), 3"),
        (parameters(type="string", format="uri"), "only 'enum' and 'date-time' are supported for STRING type"),
        (parameters(type="integer", enum=[1]), "enum[0]' (TYPE_STRING), 1"),
        (
            parameters(type="array", items={"oneOf": []}),
            "Unknown name \"oneOf\" at 'tools[0].function_declarations[0].parameters.properties.a.items'",
        ),
        (json_schema(exclusiveMinimum=1), "Request contains an invalid argument."),
        (json_schema(anyOf=[{"examples": []}]), "Request contains an invalid argument."),
        (declared(parametersJsonSchema={"$schema": "x"}), "Request contains an invalid argument."),
        (
            declared(parametersJsonSchema={"$defs": {"a": {"type": "string", "format": "uri"}}}),
            "supported for STRING type",
        ),
        (body(tools=[*TOOLS, SEARCH]), "Please enable tool_config.include_server_side_tool_invocations"),
        (
            body(tools=TOOLS, toolConfig={"functionCallingConfig": {"mode": "REQUIRED"}}),
            'mode\' (TYPE_ENUM), "REQUIRED"',
        ),
        # Generation (§2, §6).
        (generation(temperature=2.5), "temperature must be in the range [0.0, 2.0], but is 2.5."),
        (generation(temperature="hot"), 'temperature\' (TYPE_FLOAT), "hot"'),
        (generation(maxOutputTokens=0), "max_output_tokens must be positive"),
        (generation(stopSequences=["a"] * 6), "at most 5 stop sequences are supported"),
        (generation(responseSchema={}, responseJsonSchema={}), "response_json_schema cannot both be set"),
        (generation(responseJsonSchema={}), "response_schema needs a response_mime_type of application/json"),
        (generation(responseMimeType="application/json", responseSchema={"not": {}}), 'Unknown name "not"'),
        (generation(responseMimeType="application/json", responseJsonSchema={"discriminator": 1}), "invalid argument"),
        (body(cachedContent="cachedContents/a", tools=TOOLS), "CachedContent can not be used with GenerateContent"),
    ],
)
def test_a_malformed_request_is_refused_in_the_words_of_the_provider(request_body: Body | bytes, message: str) -> None:
    assert message in objection(request_body).message


@pytest.mark.parametrize(
    ("request_body", "model", "message"),
    [
        (thinking(thinkingLevel="LOW"), OLD, "Thinking level is not supported for this model."),
        (thinking(thinkingLevel="MEDIUM"), "gemini-3-pro-preview", "Thinking level MEDIUM is not supported"),
        (thinking(thinkingLevel="MINIMAL"), "gemini-3.1-pro", "Thinking level MINIMAL is not supported"),
        (thinking(thinkingLevel="minimal"), "gemini-3.7-flash", "Thinking level MINIMAL is not supported"),
        (
            thinking(thinkingBudget=0),
            PRO,
            "The thinking budget 0 is invalid. Please choose a value between 128 and 32768.",
        ),
        (thinking(thinkingBudget=30000), OLD, "Please choose a value between 0 and 24576."),
        (body(tools=[*TOOLS, SEARCH]), OLD, "Tool use with function calling is unsupported"),
        (
            body(tools=TOOLS, generationConfig={"responseMimeType": "application/json"}),
            OLD,
            "Function calling with a response mime type: 'application/json' is unsupported",
        ),
        (
            body(tools=[SEARCH], generationConfig={"responseMimeType": "application/json"}),
            OLD,
            "Tool use with a response mime type: 'application/json' is unsupported",
        ),
    ],
)
def test_what_a_model_does_not_have_is_refused(request_body: Body, model: str, message: str) -> None:
    assert message in objection(request_body, model).message


def test_vertex_knows_ids_on_gemini_3_only() -> None:
    request = body(USER, CALLING, RESULTS)
    assert 'Unknown name "id"' in objection(request, OLD, VERTEX).message
    check(json.dumps(request).encode(), OLD)
    check(json.dumps(request).encode(), NEW, VERTEX)


def test_only_the_current_turn_needs_its_signatures_and_a_stand_in_will_do() -> None:
    bare = content("model", {"functionCall": CALL["functionCall"]})
    check(json.dumps(body(USER, bare, RESULTS, content("model", {"text": "a"}), USER)).encode(), NEW)
    check(json.dumps(body(USER, bare, RESULTS)).encode(), OLD)
    for word in ("skip_thought_signature_validator", "context_engineering_is_the_way_to_go"):
        with GeminiUpstream([answer(text("ok"))]) as upstream:
            stand_in = content("model", {**CALL, "thoughtSignature": word})
            assert post(upstream, body(USER, stand_in, RESULTS)).status == 200


def test_tokens_are_counted_for_contents_or_for_a_whole_request() -> None:
    request = {"generateContentRequest": {"model": f"models/{NEW}", **body(tools=TOOLS)}}
    with GeminiUpstream() as upstream:
        assert post(upstream, request, mode="countTokens").json["totalTokens"] > 0
        assert post(upstream, body(), mode="countTokens").json["totalTokens"] > 0
    assert [len(upstream.requests), len(upstream.asides)] == [0, 2]
    assert 'Unknown name "tools"' in objection(body(tools=TOOLS), counting=True).message
    other = {"generateContentRequest": {"model": "models/other", **body()}}
    assert "model must be models/gemini-3-flash" in objection(other, counting=True).message


def test_the_envelope_is_that_of_the_provider() -> None:
    assert json.loads(objection(body(content("tool", {"text": "x"}))).body()) == {
        "error": {"code": 400, "message": "Please use a valid role: user, model.", "status": "INVALID_ARGUMENT"}
    }


# What the provider knows again.


def refusal_of(upstream: GeminiUpstream, *contents: Body) -> str:
    reply = post(upstream, body(*contents), mode="generateContent")
    assert reply.status == 400
    return str(reply.json["error"]["message"])


@pytest.mark.parametrize("mode", ["?alt=sse", "array", "generateContent"])
def test_a_signature_comes_back_in_the_part_it_came_with(mode: str) -> None:
    step = answer(thought("hm", signature="c2ln"), calls(call("look", '{"a":1}'), call("look", "{}", id="call_2")))
    first: Body = {"functionCall": {"name": "look", "args": {"a": 1}, "id": "call_look"}}
    second: Body = {"functionCall": {"name": "look", "args": {}, "id": "call_2"}}
    seen = content("user", RESULT, {"functionResponse": {"name": "look", "response": {}, "id": "call_2"}})
    signature = {"thoughtSignature": "c2ln"}
    with GeminiUpstream([step, answer(text("ok"))]) as upstream:
        post(upstream, mode=mode)
        for model_turn, message in (
            ((first, second | signature), "is missing a `thought_signature`"),
            ((first | signature, second | signature), "Thought signature does not belong to this part."),
            ((first | {"thoughtSignature": "c2lm"}, second), "Corrupted thought signature."),
            (({"functionCall": {"name": "look", "id": "call_look"}} | signature, second), "does not belong"),
        ):
            assert message in refusal_of(upstream, USER, content("model", *model_turn), seen)
        assert post(upstream, body(USER, content("model", first | signature, second), seen)).status == 200


def test_a_signature_of_the_text_comes_back_on_that_piece_of_it() -> None:
    with GeminiUpstream([answer(text("a"), signed_text("b", "c", signature="c2ln")), answer(text("ok"))]) as upstream:
        post(upstream)
        merged = content("model", {"text": "abc", "thoughtSignature": "c2ln"})
        assert "does not belong" in refusal_of(upstream, USER, merged, USER)
        apart = content("model", {"text": "ab"}, {"text": "c", "thoughtSignature": "c2ln"})
        assert post(upstream, body(USER, apart, USER)).status == 200


def test_a_signature_of_another_provider_is_refused_unless_nothing_is_asked() -> None:
    stranger = body(USER, content("model", {"text": "a", "thought_signature": "x"}), USER)
    with GeminiUpstream() as upstream:
        assert refusal_of(upstream, *stranger["contents"]) == "Corrupted thought signature."
    with GeminiUpstream([answer(text("ok"))], strictness=GeminiStrictness(own_signatures=False)) as upstream:
        assert post(upstream, stranger).status == 200


# What is recorded.


def test_a_request_can_be_read() -> None:
    request = body(
        content("user", {"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": "AA=="}}, {"text": "b"}),
        content(
            "model",
            {"text": "hm", "thought": True},
            {"text": "c"},
            {**CALL, "thoughtSignature": "skip_thought_signature_validator"},
        ),
        RESULTS,
        systemInstruction=content("user", {"text": "be kind"}),
        tools=TOOLS,
        toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["look"]}},
        generationConfig={"thinkingConfig": {"thinkingLevel": "LOW"}, "maxOutputTokens": 5},
    )
    with GeminiUpstream([answer(text("ok"))]) as upstream:
        assert post(upstream, request).status == 200
    sent = upstream.requests[0].gemini
    assert (sent.model, sent.stream, sent.sse) == (NEW, True, True)
    assert [one.text for one in sent.contents] == ["ab", "c", ""]
    assert [one.name for one in sent.contents[1].calls] == ["look"]
    assert bytes(sent.contents[2].results[0].response) == b'{"output": "seen"}'
    assert sent.instructions == "be kind"
    assert [one.name for one in sent.functions] == ["look"]
    assert sent.tool_config.function_calling_config.allowed_function_names == ["look"]
    assert sent.generation_config.thinking_config.thinking_level == "LOW"
    assert upstream.requests[0].query == {"alt": "sse"}


def test_models_are_listed() -> None:
    with GeminiUpstream(models=["gemini-3-flash", "gemini-3-pro"]) as upstream:
        listed = ask(upstream, "/v1beta/models").json["models"]
        assert ask(upstream, "/v1beta/files").status == 404
    assert [one["name"] for one in listed] == ["models/gemini-3-flash", "models/gemini-3-pro"]
    assert listed[0]["outputTokenLimit"] == 65_536


def test_a_wrong_key_is_a_wrong_argument() -> None:
    with GeminiUpstream([answer(text("ok"))], key="k") as upstream:
        path = f"/v1beta/models/{NEW}:generateContent"
        assert ask(upstream, path, body(), {"x-goog-api-key": "k"}).status == 200
        wrong = ask(upstream, path, body(), {"x-goog-api-key": "no"})
        missing = ask(upstream, path, body())
    assert (wrong.status, wrong.json["error"]["details"][0]["reason"]) == (400, "API_KEY_INVALID")
    assert (missing.status, missing.json["error"]["status"]) == (403, "PERMISSION_DENIED")


# What is answered.


def test_a_stream_is_frames_of_data_with_carriage_returns() -> None:
    with GeminiUpstream([answer(text("Hel", "lo"))]) as upstream:
        reply = post(upstream)
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.body.startswith(b'data: {"candidates"')
    assert reply.body.endswith(b"}\r\n\r\n")
    assert reply.body.count(b"\r\n\r\n") == 3
    assert b"event:" not in reply.body
    assert b"[DONE]" not in reply.body


def test_every_piece_is_a_chunk_and_the_last_one_ends_it() -> None:
    chunks = streamed(answer(thought("h", "m", signature="c2ln"), text("a", "b"), calls(call("look"), call("see"))))
    assert parts(chunks) == [
        [{"text": "h", "thought": True}],
        [{"text": "m", "thought": True}],
        [{"text": "a"}],
        [{"text": "b"}],
        [{"functionCall": {"name": "look", "args": {}, "id": "call_look"}, "thoughtSignature": "c2ln"}],
        [{"functionCall": {"name": "see", "args": {}, "id": "call_see"}}],
        [{"text": ""}],
    ]
    assert ["finishReason" in chunk["candidates"][0] for chunk in chunks] == [False] * 6 + [True]
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    assert {chunk["responseId"] for chunk in chunks} == {"response-1"}
    assert chunks[0]["modelVersion"] == NEW


def test_a_signature_with_no_call_after_it_ends_the_stream_or_sits_on_the_text() -> None:
    step = answer(thought(signature="c2ln"), text("a", "b"))
    assert parts(streamed(step))[-1] == [{"text": "", "thoughtSignature": "c2ln"}]
    assert parts([whole(step)]) == [[{"text": "ab", "thoughtSignature": "c2ln"}]]
    after_a_call = answer(calls(call("look")), thought(signature="c2ln"))
    assert parts([whole(after_a_call)])[0][-1] == {"text": "", "thoughtSignature": "c2ln"}


def test_gemini_3_signs_the_first_call_unasked_and_gives_ids_and_older_models_do_neither() -> None:
    step = answer(calls(call("look"), call("see")))
    first, second = parts([whole(step)])[0]
    assert first["thoughtSignature"]
    assert (first["functionCall"]["id"], second["functionCall"]["id"]) == ("call_look", "call_see")
    assert "thoughtSignature" not in second
    assert parts([whole(step, OLD)])[0] == [
        {"functionCall": {"name": "look", "args": {}}},
        {"functionCall": {"name": "see", "args": {}}},
    ]
    assert "thoughtSignature" not in parts([whole(answer(thought(signature=""), calls(call("look"))))])[0][0]


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("fragments", [[("look", True, True)], [("see", True, True)]]),
        ("whole", [[("look", True, True)], [("see", True, True)]]),
        ("together", [[("look", True, True), ("see", True, True)]]),
        ("no_id", [[("look", True, False)], [("see", True, False)]]),
        ("no_arguments", [[("look", False, True)], [("see", False, True)]]),
    ],
)
def test_calls_come_in_the_styles_seen_in_the_field(style: Any, expected: list[Any]) -> None:
    chunks = parts(streamed(answer(calls(call("look"), call("see"), style=style))))[:-1]
    found = [[one["functionCall"] for one in chunk] for chunk in chunks]
    assert [[(one["name"], "args" in one, "id" in one) for one in chunk] for chunk in found] == expected


def test_the_parts_that_only_this_protocol_has_are_streamed() -> None:
    code: Body = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "c2ln"}
    early = grounding("q", early=True)
    chunks = streamed(answer(part(code), early, text("a"), signed_text(signature="c2lm")))
    assert parts(chunks)[0] == [code]
    assert chunks[1]["candidates"][0]["groundingMetadata"]["webSearchQueries"] == ["q"]
    assert parts(chunks)[3] == [{"text": "", "thoughtSignature": "c2lm"}]


def test_grounding_comes_with_the_end_in_bytes_of_utf_8() -> None:
    step = answer(text("Ünd so."), grounding("q", supports=[Support(0, 4, "Ünd"), Support(5, 8, "so.", pages=(0, 1))]))
    last = streamed(step)[-1]["candidates"][0]
    assert last["finishReason"] == "STOP"
    segments = [one["segment"] for one in last["groundingMetadata"]["groundingSupports"]]
    assert segments == [{"endIndex": 4, "text": "Ünd"}, {"startIndex": 5, "endIndex": 8, "text": "so."}]
    assert whole(step)["candidates"][0]["groundingMetadata"] == last["groundingMetadata"]


@pytest.mark.parametrize("message", [None, "The prompt violated filters."])
def test_a_blocked_prompt_has_no_candidates(message: str | None) -> None:
    step = answer(blocked("MODEL_ARMOR", message))
    expected = {"blockReason": "MODEL_ARMOR"} | ({"blockReasonMessage": message} if message else {})
    [chunk] = streamed(step)
    for found in (chunk, whole(step)):
        assert found["promptFeedback"] == expected
        assert "candidates" not in found


def test_an_array_can_stand_for_a_stream() -> None:
    with GeminiUpstream([answer(text("a", "b"))]) as upstream:
        reply = post(upstream, mode="array")
    assert reply.headers["content-type"].startswith("application/json")
    assert b"\n,\r\n{" in reply.body
    assert parts(reply.json) == [[{"text": "a"}], [{"text": "b"}], [{"text": ""}]]


@pytest.mark.parametrize(("after", "count"), [(1, 0), (2, 1)])
def test_an_error_can_come_in_the_middle(after: int, count: int) -> None:
    step = answer(text("a", "b"), trouble=Trouble("error", after=after))
    with GeminiUpstream([step, step]) as upstream:
        events, array = post(upstream).data, post(upstream, mode="array").json
    for found in (events, array):
        assert found[-1]["error"]["status"] == "UNAVAILABLE"
        assert len(found) == count + 1


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "STOP"), ("length", "MAX_TOKENS"), ("content_filter", "SAFETY"), ("UNEXPECTED_TOOL_CALL",) * 2],
)
def test_every_way_to_end_is_translated(finish: str, reason: str) -> None:
    step = answer(calls(call("look")), finish=finish)
    for candidate in (whole(step)["candidates"][0], streamed(step)[-1]["candidates"][0]):
        assert candidate["finishReason"] == reason
        assert ("finishMessage" in candidate) == (reason == "STOP")


def test_an_answer_of_nothing_has_no_parts() -> None:
    assert whole(answer(finish="length"))["candidates"][0]["content"] == {"role": "model"}


def test_usage_is_counted_as_this_provider_counts() -> None:
    usage = Usage(prompt=30, completion=12, cached=8, reasoning=5)
    expected = {
        "promptTokenCount": 30,
        "cachedContentTokenCount": 8,
        "candidatesTokenCount": 7,
        "totalTokenCount": 42,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 30}],
        "thoughtsTokenCount": 5,
    }
    assert whole(answer(text("a"), usage=usage))["usageMetadata"] == expected
    chunks = streamed(answer(text("a"), usage=usage))
    assert chunks[0]["usageMetadata"]["totalTokenCount"] == 30
    assert chunks[-1]["usageMetadata"] == expected
    spent = whole(answer(usage=Usage(prompt=3, completion=5, reasoning=5)))["usageMetadata"]
    assert "candidatesTokenCount" not in spent


def test_usage_can_come_last_only_or_never() -> None:
    late = streamed(answer(text("a"), usage_place="finish"))
    assert ["usageMetadata" in chunk for chunk in late] == [False, True]
    assert not any("usageMetadata" in chunk for chunk in streamed(answer(text("a"), usage_place="never")))
    assert "usageMetadata" not in whole(answer(text("a"), usage_place="never"))


def test_an_http_error_says_in_its_body_when_to_come_again() -> None:
    steps = [HttpError(429, "slow down", headers={"retry-after": "7"}), HttpError(400, "no", code="API_KEY_INVALID")]
    with GeminiUpstream([*steps, HttpError(418), HttpError(500, raw=b"oops")]) as upstream:
        slow, bad, odd, other = (post(upstream) for _ in range(4))
    assert "retry-after" not in slow.headers
    assert slow.json["error"] == {
        "code": 429,
        "message": "slow down",
        "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}],
    }
    assert bad.json["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    assert odd.json["error"]["status"] == "UNKNOWN"
    assert other.body == b"oops"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("word", [calls(call("look"), style="gaps"), LegacyCall("look", ("{}",)), refusal("no")])
def test_a_word_of_another_protocol_is_refused(word: Part, stream: bool) -> None:
    with pytest.raises(Unsayable, match="Gemini has no form for"):
        list(answered(answer(word), model=NEW, stream=stream, sse=True))


def test_the_vendors_client_reads_the_stream() -> None:
    step = answer(thought("hm", signature="c2ln"), text("Let me ", "look."), calls(call("look", '{"a":', "1}")))
    with GeminiUpstream([step, step]) as upstream:
        options = HttpOptions(base_url=f"http://127.0.0.1:{upstream.port}", api_version="v1beta")
        with Client(api_key="k", http_options=options) as client:
            chunks = list(client.models.generate_content_stream(model=NEW, contents="x"))
            answer_ = client.models.generate_content(model=NEW, contents="x")
    assert "".join(chunk.text or "" for chunk in chunks if not chunk.function_calls) == "Let me look."
    assert [one.args for chunk in chunks for one in chunk.function_calls or []] == [{"a": 1}]
    assert answer_.usage_metadata is not None
    assert answer_.usage_metadata.total_token_count == 18


# What the real provider took and refused.

KNOWN_ELSEWHERE = {
    "error-handling-with-gemini-gemini-2-5-flash-raises-appropriate-a-rllm2310": "the key was wrong",
    "model-sees-multiple-images-vertex-pai1006": "nothing is fetched here",
    "real-error-scenarios-gemini-gemini-2-5-flash-handles-context-len-rllm2725": "there is no quota here",
    "testtest-count-tokens-error-pai113": "the model does not exist, and a scripted provider has every model",
}


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the recordings are not beside the project")
def test_every_recorded_request_is_judged_as_the_real_provider_judged_it() -> None:
    otherwise: dict[str, str] = {}
    for one in recordings("gemini"):
        if one.request is not None:
            model, _, method = one.url.partition("?")[0].rpartition("/")[2].partition(":")
            refused = refusal_by(one.request, model, counting=method == "countTokens")
            if (refused is None) != (one.status == 200):
                otherwise[one.name] = refused or "taken"
    assert otherwise == dict.fromkeys(KNOWN_ELSEWHERE, "taken")


def refusal_by(request: bytes, model: str, *, counting: bool) -> str | None:
    try:
        check(request, model, GeminiStrictness(own_signatures=False), counting=counting)
    except InvalidArgument as refusal_:
        return refusal_.message
    return None
