import hashlib
import json
from collections.abc import Mapping, Sequence

import msgspec
import pytest
from msgspec import Raw

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.dialect import Dialect, Prompt
from rejoinder.bridge.envelope import Envelope, Issuer
from rejoinder.bridge.errors import Unsupported, UpstreamError
from rejoinder.bridge.gemini import GeminiDialect
from rejoinder.bridge.gemini_profile import GeminiProfile
from rejoinder.bridge.losses import Loss
from rejoinder.bridge.pairing import paired
from rejoinder.bridge.toolbox import Toolbox
from rejoinder.wire.request import CreateRequest
from tests.bridge.composing import END, composer, encoded
from tests.bridge.prompts import Fields, assistant, call, function, output, user
from tests.bridge.recordings import Asked, Json, Object, objects
from tests.bridge.replay import Conversation

FIRST, SECOND, PRO, THIRD = "gemini-2.0-flash", "gemini-2.5-flash", "gemini-2.5-pro", "gemini-3-flash-preview"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
F = function("f", parameters=SCHEMA)
SEARCH = {"type": "web_search"}


def asked(
    said: Sequence[Fields] | str = "Hi",
    model: str = THIRD,
    opened: Mapping[str, Envelope] | None = None,
    **fields: object,
) -> Prompt:
    request = CreateRequest.parse(json.dumps({"model": "alias", **fields, "input": said}).encode())
    items = paired((), request.input).items
    toolbox = Toolbox.of(request.tools, items, request.tool_choice, GeminiDialect(GeminiProfile()).hosted)
    return Prompt(model, request, items, toolbox, dict(opened or {}), [])


def body(made: Prompt, **profile: object) -> dict[str, object]:
    found: dict[str, object] = json.loads(dialect(**profile).call(made).body)
    return found


def dialect(**profile: object) -> GeminiDialect:
    return GeminiDialect(msgspec.json.decode(json.dumps(profile), type=GeminiProfile))


def settings(model: str = THIRD, **fields: object) -> object:
    return body(asked("Hi", model, None, **fields)).get("generationConfig")


def refusal(made: Prompt, **profile: object) -> Unsupported:
    with pytest.raises(Unsupported) as raised:
        dialect(**profile).call(made)
    return raised.value


def test_it_is_a_dialect() -> None:
    speaking: Dialect = dialect()

    assert not speaking.native
    assert speaking.hosted == {"web_search"}
    assert dialect(web_search=False).hosted == frozenset()


# Addresses.


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-3-pro", "/models/gemini-3-pro"),
        ("models/gemini-3-pro", "/models/gemini-3-pro"),
        ("tunedModels/x", "/tunedModels/x"),
        ("a?b", "/models/a%3Fb"),
    ],
)
def test_the_model_is_in_the_address_and_the_answer_is_always_a_stream(model: str, path: str) -> None:
    sent = dialect().call(asked(model=model))

    assert sent.path == f"{path}:streamGenerateContent?alt=sse"
    assert (sent.method, sent.stream) == ("POST", True)


def test_the_list_of_models_is_one_page_and_holds_those_that_generate() -> None:
    listed = b'{"models":[{"name":"models/a","supportedGenerationMethods":["generateContent"]},{"name":"models/b"}]}'

    assert (dialect().models().method, dialect().models().path) == ("GET", "/models?pageSize=1000")
    assert dialect().offered(listed) == ["a"]
    assert dialect().offered(b"{}") == []
    with pytest.raises(msgspec.MsgspecError):
        dialect().offered(b"[]")


def test_tokens_are_counted_of_the_whole_request() -> None:
    made = asked(instructions="Be brief.")
    sent = json.loads(dialect().call(made).body)

    counted = dialect().count(made)

    assert counted is not None
    assert counted.call.path == f"/models/{THIRD}:countTokens"
    assert json.loads(counted.call.body) == {"generateContentRequest": {"model": f"models/{THIRD}", **sent}}
    assert counted.read(b'{"totalTokens":31}') == 31
    with pytest.raises(msgspec.MsgspecError):
        counted.read(b"{}")


def test_vertex_counts_the_tokens_of_the_fields_as_they_are() -> None:
    made = asked()

    counted = dialect(count="plain").count(made)

    assert counted is not None
    assert counted.call.body == dialect().call(made).body


# The body.


def test_a_plain_question_is_nothing_but_contents() -> None:
    assert body(asked("Hi")) == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def test_instructions_and_leading_system_messages_are_the_system_instruction() -> None:
    said = [{"type": "message", "role": "developer", "content": "two"}, user("Hi")]

    assert body(asked(said, instructions="one"))["systemInstruction"] == {"parts": [{"text": "one"}, {"text": "two"}]}


def test_what_stays_the_same_comes_first() -> None:
    made = asked(instructions="i", tools=[F], tool_choice="required", temperature=0.5, service_tier="flex", user="u")

    found = [*body(made, labels=True, extra={"safetySettings": []})]

    assert found == ["safetySettings", "systemInstruction", "tools", "toolConfig", "generationConfig", "labels",
                     "serviceTier", "contents"]  # fmt: skip


def test_instructions_alone_are_a_conversation_and_nothing_is_none() -> None:
    filler = [{"role": "user", "parts": [{"text": " "}]}]

    assert body(asked([], instructions="Begin."))["contents"] == filler
    assert body(asked([{"type": "message", "role": "system", "content": "Begin."}]))["contents"] == filler
    assert refusal(asked([])).param == "input"


def test_settings_of_the_upstream_are_in_every_request() -> None:
    found = body(
        asked(temperature=0.5), extra={"cachedContent": "c"}, generation={"seed": 7}, tools=[{"urlContext": {}}]
    )

    assert found["cachedContent"] == "c"
    assert found["generationConfig"] == {"seed": 7, "temperature": 0.5}
    assert found["tools"] == [{"urlContext": {}}]


# generationConfig.


def test_sampling_is_passed_on() -> None:
    assert settings(temperature=1.5, top_p=0.9, max_output_tokens=2000, presence_penalty=1, frequency_penalty=-1) == {
        "temperature": 1.5,
        "topP": 0.9,
        "maxOutputTokens": 2000,
        "presencePenalty": 1,
        "frequencyPenalty": -1,
    }


def test_penalties_are_said_only_where_they_are_known_and_not_nothing() -> None:
    made = asked(presence_penalty=0, frequency_penalty=1)

    assert "generationConfig" not in body(made, penalties=False)
    assert made.notes == ["frequency_penalty: not understood by this upstream"]


@pytest.mark.parametrize(("model", "noted"), [(THIRD, True), (FIRST, False)])
def test_little_room_is_noted_where_thoughts_take_some(model: str, noted: bool) -> None:
    made = asked(model=model, max_output_tokens=100)

    body(made)

    assert any("max_output_tokens" in note for note in made.notes) is noted


def test_log_probabilities_are_for_those_that_have_them() -> None:
    made = asked(top_logprobs=3)
    included = asked(include=["message.output_text.logprobs"])

    assert body(made, logprobs=True)["generationConfig"] == {"responseLogprobs": True, "logprobs": 3}
    assert body(included, logprobs=True)["generationConfig"] == {"responseLogprobs": True}
    assert refusal(made).param == "top_logprobs"
    assert refusal(included).param == "include"


def test_what_it_has_no_word_for_is_noted_once() -> None:
    made = asked(
        text={"verbosity": "low"},
        prompt_cache_key="k",
        prompt_cache_options={"mode": "implicit"},
        prompt_cache_retention="24h",
        reasoning={"context": "all", "mode": "x"},
        service_tier="scale",
        user="u",
        safety_identifier="s",
    )

    body(made)
    assert body(made) == body(asked())

    assert [note.partition(":")[0] for note in made.notes] == [
        "reasoning.context",
        "reasoning.mode",
        "text.verbosity",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "user",
        "service_tier",
    ]


def test_defaults_go_without_saying() -> None:
    made = asked(reasoning={"context": "auto", "mode": "standard", "summary": "none"}, service_tier="auto",
                 text={"format": {"type": "text"}}, tool_choice="none")  # fmt: skip

    assert body(made) == body(asked())
    assert made.notes == []


@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_tiers_go_by_their_names_where_there_are_some(tier: str) -> None:
    made = asked(service_tier=tier)

    assert body(made)["serviceTier"] == tier
    assert "serviceTier" not in body(made, service_tier=False)
    assert made.notes == [f"service_tier: '{tier}' is not known to this upstream"]


def test_users_are_labels_where_there_are_labels() -> None:
    made = asked(safety_identifier="a" * 80, user="u_1")

    assert body(made, labels=True)["labels"] == {
        "safety_identifier": hashlib.sha256(b"a" * 80).hexdigest()[:32],
        "user": "u_1",
    }


# Thinking.


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        (SECOND, "none", {"thinkingBudget": 0}),
        (SECOND, "low", {"thinkingBudget": 2048}),
        (PRO, "none", {"thinkingBudget": 128}),
        (PRO, "max", {"thinkingBudget": 24576}),
        (THIRD, "none", {"thinkingLevel": "MINIMAL"}),
        (THIRD, "medium", {"thinkingLevel": "MEDIUM"}),
        (THIRD, "xhigh", {"thinkingLevel": "HIGH"}),
    ],
)
def test_an_effort_is_a_budget_or_a_level(model: str, effort: str, config: Fields) -> None:
    assert settings(model, reasoning={"effort": effort}) == {"thinkingConfig": config}


@pytest.mark.parametrize(("model", "noted"), [(SECOND, False), (PRO, True), (THIRD, True), (FIRST, False)])
def test_a_model_that_cannot_rest_says_so(model: str, noted: bool) -> None:
    made = asked(model=model, reasoning={"effort": "none"})

    body(made)

    assert bool(made.notes) is noted


def test_a_model_that_never_thinks_takes_no_effort_and_shows_no_thoughts() -> None:
    made = asked(model=FIRST, reasoning={"effort": "high", "summary": "auto"})

    assert "generationConfig" not in body(made)
    assert made.notes == ["reasoning.summary: this model does not think", "reasoning.effort: this model does not think"]


@pytest.mark.parametrize("reasoning", [{"summary": "auto"}, {"generate_summary": "detailed"}])
def test_thoughts_are_shown_when_a_summary_is_wanted(reasoning: Fields) -> None:
    assert settings(reasoning=reasoning) == {"thinkingConfig": {"includeThoughts": True}}


def test_the_last_effort_of_the_history_counts() -> None:
    update = {"type": "configuration_update"}
    said = [user("a"), {**update, "reasoning": {"effort": "high"}}, {**update, "reasoning": {}}, {**update, "text": {}}]

    found = body(asked(said, reasoning={"effort": "low"}))

    assert found["generationConfig"] == {"thinkingConfig": {"thinkingLevel": "HIGH"}}


# Tools.


def test_functions_are_declared_with_json_schemas_or_in_the_subset() -> None:
    strange = {**SCHEMA, "additionalProperties": False, "$schema": "x"}
    tools = [
        function("f", description="Does f.", parameters=strange),
        function("g"),
        function("1st", parameters=SCHEMA),
    ]

    assert body(asked(tools=tools))["tools"] == [
        {
            "functionDeclarations": [
                {
                    "name": "f",
                    "description": "Does f.",
                    "parametersJsonSchema": {**SCHEMA, "additionalProperties": False},
                },
                {"name": "g"},
                {"name": "_1st", "parametersJsonSchema": SCHEMA},
            ]
        }
    ]
    assert body(asked(model=FIRST, tools=tools))["tools"] == [
        {
            "functionDeclarations": [
                {"name": "f", "description": "Does f.", "parameters": SCHEMA},
                {"name": "g"},
                {"name": "_1st", "parameters": SCHEMA},
            ]
        }
    ]


def test_what_a_schema_says_in_words_is_noted() -> None:
    made = asked(tools=[function("f", parameters={"type": "object", "properties": {"a": {"exclusiveMinimum": 1}}})])

    body(made)

    assert made.notes == [
        "tools: 'exclusiveMinimum' is no word of this upstream's schemas and is said in a description"
    ]


def test_every_kind_of_tool_is_a_function() -> None:
    tools = [
        {"type": "custom", "name": "free", "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}},
        {"type": "namespace", "name": "files", "tools": [function("read")]},
        {"type": "local_shell"},
        {"type": "shell"},
        {"type": "apply_patch"},
        {"type": "tool_search", "execution": "client"},
    ]

    [declared] = objects_in(body(asked(tools=tools))["tools"])

    functions = objects_in(declared["functionDeclarations"])
    names = [one["name"] for one in functions]
    assert names == ["free", "files__read", "local_shell", "shell", "apply_patch", "tool_search"]
    assert 'start: "x"' in str(functions[0]["description"])


def objects_in(value: object) -> list[Fields]:
    assert isinstance(value, list)
    return value


@pytest.mark.parametrize(
    ("choice", "model", "config"),
    [
        ("auto", THIRD, None),
        ("required", THIRD, {"mode": "ANY"}),
        ("none", THIRD, {"mode": "NONE"}),
        ({"type": "function", "name": "f"}, THIRD, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        ({"type": "function", "name": "1st"}, THIRD, {"mode": "ANY", "allowedFunctionNames": ["_1st"]}),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
            THIRD,
            {"mode": "ANY"},
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}, THIRD, None),
    ],
)
def test_a_choice_is_a_mode(choice: object, model: str, config: object) -> None:
    found = body(asked(model=model, tools=[F, function("1st")], tool_choice=choice)).get("toolConfig")

    assert found == ({"functionCallingConfig": config} if config is not None else None)


@pytest.mark.parametrize(("model", "mode"), [(FIRST, None), (SECOND, "VALIDATED"), (THIRD, "VALIDATED")])
def test_a_strict_tool_is_validated_where_that_is_known(model: str, mode: str | None) -> None:
    found = body(asked(model=model, tools=[function("f", strict=True, parameters=SCHEMA), function("g")]))

    assert found.get("toolConfig") == ({"functionCallingConfig": {"mode": mode}} if mode is not None else None)


def test_only_what_is_there_can_be_chosen() -> None:
    assert refusal(asked(tool_choice="required")).param == "tool_choice"
    assert refusal(asked(tools=[F], tool_choice={"type": "function", "name": "g"})).param == "tool_choice"


def test_one_call_at_a_time_is_kept_to_here() -> None:
    made = asked(tools=[F], parallel_tool_calls=False)

    assert body(made) == body(asked(tools=[F]))
    assert made.notes == ["parallel_tool_calls: this upstream has no such switch, calls after the first are left out"]
    alone = asked(parallel_tool_calls=False)
    body(alone)
    assert alone.notes == []


# Google's search.


def test_a_search_is_googles() -> None:
    found = body(asked(tools=[SEARCH]))

    assert found["tools"] == [{"googleSearch": {}}]
    assert "toolConfig" not in found


def test_a_search_beside_functions_shows_its_calls() -> None:
    found = body(asked(tools=[SEARCH, F], tool_choice="required"))

    assert found["tools"] == [
        {"googleSearch": {}},
        {"functionDeclarations": [{"name": "f", "parametersJsonSchema": SCHEMA}]},
    ]
    assert found["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}, "includeServerSideToolInvocations": True}


@pytest.mark.parametrize(("model", "profile"), [(SECOND, {}), (THIRD, {"server_side_tools": False})])
def test_where_a_search_does_not_go_with_functions_the_functions_stay(model: str, profile: dict[str, object]) -> None:
    made = asked(model=model, tools=[SEARCH, F])

    found = body(made, **profile)

    assert [[*tool] for tool in objects_in(found["tools"])] == [["functionDeclarations"]]
    assert "toolConfig" not in found
    assert made.notes == ["tools.web_search: Google's tools do not go with functions here and are not offered"]


def test_a_search_that_may_not_be_used_is_not_offered_and_none_can_be_forced() -> None:
    assert "tools" not in body(asked(tools=[SEARCH], tool_choice="none"))
    forced = refusal(asked(tools=[{"type": "web_search_preview"}], tool_choice={"type": "web_search_preview"}))
    assert (forced.param, forced.code) == ("tool_choice", "unsupported_value")


def test_what_a_search_cannot_be_told_is_noted_or_refused() -> None:
    told = {**SEARCH, "external_web_access": False, "search_context_size": "high", "user_location": None}
    made = asked(tools=[told])

    assert body(made)["tools"] == [{"googleSearch": {}}]
    assert [note.partition(":")[0] for note in made.notes] == [
        "tools.web_search.search_context_size",
        "tools.web_search.external_web_access",
    ]
    assert body(asked(tools=[{**SEARCH, "filters": {}, "external_web_access": True}]))["tools"] == [
        {"googleSearch": {}}
    ]
    for name in ("allowed_domains", "blocked_domains"):
        assert refusal(asked(tools=[{**SEARCH, "filters": {name: ["a.example"]}}])).param == "tools"


# Output formats.

JSON = {"format": {"type": "json_schema", "name": "result", "schema": SCHEMA, "description": "The result."}}
ANY_JSON = {"format": {"type": "json_object"}}


def test_an_output_schema_goes_by_two_names() -> None:
    assert settings(text=JSON) == {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}
    assert settings(FIRST, text=JSON) == {
        "responseMimeType": "application/json",
        "responseSchema": {**SCHEMA, "propertyOrdering": ["a"]},
    }


def test_any_json_is_a_type() -> None:
    assert settings(text=ANY_JSON) == {"responseMimeType": "application/json"}


def test_a_schema_of_anything_is_any_json() -> None:
    anything = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}

    assert settings(text=anything) == {"responseMimeType": "application/json"}


def test_the_last_format_of_the_history_counts() -> None:
    said = [user("a"), {"type": "configuration_update", "text": JSON}, {"type": "configuration_update", "text": {}}]

    assert body(asked(said))["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
    }


def test_the_third_generation_has_formats_beside_functions() -> None:
    found = body(asked(tools=[F], text=JSON))

    assert "toolConfig" not in found
    assert found["generationConfig"] == {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}


def test_before_it_the_answer_is_a_call_of_one_more_function() -> None:
    made = asked(model=SECOND, tools=[F, function("final_answer", strict=True)], text=JSON)

    found = body(made)

    [tool] = objects_in(found["tools"])
    functions = objects_in(tool["functionDeclarations"])
    assert [one["name"] for one in functions] == ["f", "final_answer", "final_answer_"]
    assert functions[2]["parametersJsonSchema"] == SCHEMA
    assert str(functions[2]["description"]).endswith("\n\nThe result.")
    assert found["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    assert "generationConfig" not in found


def test_that_call_is_read_as_the_answer() -> None:
    plain = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}
    made = asked(model=SECOND, tools=[F], text=plain)
    out: Composer = composer()
    reader = dialect().reader(made, out)
    answer = {
        "content": {"parts": [{"functionCall": {"name": "final_answer", "args": {"a": "b"}}}]},
        "finishReason": "STOP",
    }

    out.start()
    reader.feed(json.dumps({"candidates": [answer]}).encode())
    reader.close(END)

    assert b'"text":"{\\"a\\":\\"b\\"}"' in encoded(out)[-1]
    assert "Gives the final answer" in dialect().call(made).body.decode()


def test_before_it_any_json_beside_functions_is_asked_for_in_words() -> None:
    found = body(asked(model=SECOND, tools=[F], text=ANY_JSON))

    assert found["systemInstruction"] == {"parts": [{"text": "Answer with one JSON object and nothing else."}]}
    assert "generationConfig" not in found


def test_before_it_functions_that_may_not_be_called_give_way_to_a_format() -> None:
    found = body(asked(model=SECOND, tools=[F], tool_choice="none", text=JSON))

    assert "tools" not in found
    assert "toolConfig" not in found
    assert found["generationConfig"] == {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}


def test_before_it_a_call_that_must_come_has_no_format() -> None:
    made = asked(model=SECOND, tools=[F], tool_choice="required", text=JSON)

    found = body(made)

    assert found["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    assert "generationConfig" not in found
    assert made.notes == ["text.format: this model must call a tool and has no output format beside it"]


def test_before_it_a_search_gives_way_to_a_format() -> None:
    made = asked(model=SECOND, tools=[SEARCH], text=JSON)

    assert "tools" not in body(made)
    assert made.notes == ["tools.web_search: Google's tools do not go with an output format here and are not offered"]


# Going on.


def test_an_answer_that_stopped_to_go_on_is_asked_for_again_with_its_token() -> None:
    sealed = Envelope(Issuer("gemini", "e", "m"), [Raw(b'{"continuation":{"token":"t","since":1}}')])
    state = {"type": "reasoning", "summary": [], "encrypted_content": "s"}
    made = asked([user("Hi"), assistant("Well"), state], opened={"s": sealed})

    found = body(made)

    assert found == {"continuationToken": "t", **body(asked("Hi"))}
    out = composer()
    reader = dialect().reader(made, out)
    out.start()
    reader.feed(b'{"candidates":[{"finishReason":"CONTINUATION","continuationToken":"u"}]}')
    reader.close(END)
    assert b'{\\"token\\":\\"u\\",\\"since\\":1}' in out.resume()[-1].raw


# Refusals.


def error(message: str, status: int = 400) -> UpstreamError:
    return UpstreamError(message, status=status)


MISSING = "Function call `f` in the 2. content block is missing a `thought_signature`"


def test_a_refusal_is_read_with_googles_details() -> None:
    refused = dialect().rejection(400, {}, b'{"error":{"code":400,"details":[{"reason":"API_KEY_INVALID"}]}}')

    assert (refused.status, refused.code) == (401, "invalid_api_key")


def test_signatures_that_are_refused_are_left_out_once_and_reported() -> None:
    sealed = Envelope(Issuer("gemini", "e", "m"), [], {"c1": Raw(b'{"signature":"s","id":"c1"}')})
    state = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "s"}
    foreign = {"type": "reasoning", "id": "rs_2", "summary": []}
    made = asked([user("a"), foreign, state, call("c1"), output("c1")], opened={"s": sealed})

    lighter = dialect().relent(made, error(MISSING))

    assert lighter is not None
    assert made.losses == [Loss("reasoning", "rs_1", "removed", "model_mismatch", "gemini")]
    assert b'"thoughtSignature":"s"' not in dialect().call(lighter).body
    assert b'"skip_thought_signature_validator"' in dialect().call(lighter).body
    assert dialect().relent(lighter, error(MISSING)) is None


@pytest.mark.parametrize(
    "message", ["Thinking level is not supported for this model.", "Request contains an invalid argument."]
)
def test_an_effort_that_is_refused_is_left_out_once_and_noted(message: str) -> None:
    said = [user("a"), {"type": "configuration_update", "reasoning": {"effort": "high"}, "text": JSON}, user("b")]
    made = asked(said, reasoning={"effort": "low", "summary": "auto"})

    lighter = dialect().relent(made, error(message))

    assert lighter is not None
    assert body(lighter)["generationConfig"] == {
        "thinkingConfig": {"includeThoughts": True},
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
    }
    assert made.notes == ["reasoning.effort: refused by this model"]
    assert dialect().relent(lighter, error(message)) is None
    assert json.loads(dialect().call(made).body)["generationConfig"]["thinkingConfig"]["thinkingLevel"] == "HIGH"


def test_an_effort_of_the_history_alone_is_left_out_too() -> None:
    made = asked([user("a"), {"type": "configuration_update", "reasoning": {"effort": "high"}}])

    lighter = dialect().relent(made, error("Thinking level is not supported for this model."))

    assert lighter is not None
    assert "generationConfig" not in body(lighter)


@pytest.mark.parametrize(("message", "status"), [("no", 400), (MISSING, 500), ("Thinking level", 403)])
def test_there_is_nothing_to_be_left_out_for_other_refusals(message: str, status: int) -> None:
    sealed = Envelope(Issuer("gemini", "e", "m"))

    assert dialect().relent(asked(opened={"s": sealed}, reasoning={"effort": "low"}), error(message, status)) is None


# Fifty turns.


def test_every_turn_begins_with_the_bytes_of_the_one_before() -> None:
    conversation = Conversation(lambda extra: GeminiDialect(GeminiProfile()))
    tools: Json = [{"type": "function", "name": "f", "parameters": SCHEMA}]  # type: ignore[dict-item]  # it is JSON
    request = Asked(
        {"model": THIRD, "instructions": "Be brief.", "tools": tools, "reasoning": {"summary": "auto"}}, [], {}
    )
    items: list[Object] = []
    was = b""

    for turn in range(50):
        items.append({"type": "message", "role": "user", "content": f"Question {turn}?"})
        was = _grown(conversation, request, items, was)
        answered = conversation.answer(request, items, _step(turn))
        items.extend(answered)
        [called] = [item for item in answered if item["type"] == "function_call"]
        items.append({"type": "function_call_output", "call_id": called["call_id"], "output": f"Result {turn}"})
        was = _grown(conversation, request, items, was)
        items.extend(conversation.answer(request, items, _end(turn)))

    signatures = [part.get("thoughtSignature") for part in _parts(was) if "thoughtSignature" in part]
    assert signatures == [name for turn in range(50) for name in (f"call-{turn}", f"text-{turn}")][:-1]


def _grown(conversation: Conversation, request: Asked, items: Sequence[Object], was: bytes) -> bytes:
    now = conversation.call(request, items).body
    assert now.startswith(was.removesuffix(b"]}"))
    return now


def _parts(sent: bytes) -> list[Object]:
    [request] = objects([json.loads(sent)])
    return [part for content in objects(request["contents"]) for part in objects(content["parts"])]


def _step(turn: int) -> bytes:
    thought = {"text": f"Thinking {turn}.", "thought": True}
    called = {"functionCall": {"id": f"g{turn}", "name": "f", "args": {"a": "é"}}, "thoughtSignature": f"call-{turn}"}
    return _answer(thought, called)


def _end(turn: int) -> bytes:
    return _answer({"text": f"Answer {turn}"}, {"text": ".", "thoughtSignature": f"text-{turn}"})


def _answer(*parts: object) -> bytes:
    return json.dumps({"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}).encode()
