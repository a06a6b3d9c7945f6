import dataclasses
import json
import re
from collections.abc import Mapping, Sequence

import msgspec
import pytest
from msgspec import Raw

from rejoinder.bridge.anthropic import AnthropicDialect
from rejoinder.bridge.anthropic_models import Traits
from rejoinder.bridge.anthropic_profile import AnthropicProfile
from rejoinder.bridge.dialect import Dialect
from rejoinder.bridge.errors import Unsupported, UpstreamError
from tests.bridge.anthropic_prompts import BOUND, NEW, OLD, PLAIN, body, body_of, envelope, prompt_for, thought
from tests.bridge.composing import END, composer, encoded
from tests.bridge.grammar import judged
from tests.bridge.prompts import Fields, assistant, call, function, output, user
from tests.bridge.recordings import Json, Object, objects

TOOLS = [function("f"), function("g")]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
FORMAT = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}
MAP = {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}}}}
FREE = {"format": {"type": "json_schema", "name": "n", "schema": MAP, "description": "Names."}}
ANCIENT = "claude-3-5-haiku-20241022"
MIDDLE = "claude-opus-4-6"
FABLE = "claude-fable-5"


def noted(model: str = OLD, profile: AnthropicProfile = PLAIN, **fields: object) -> tuple[Object, list[str]]:
    """The body of a request, and what it could not say, which stays the same however often it is written."""
    made = prompt_for("hi", None, model=model, profile=profile, **fields)
    found = body_of(made, profile)
    assert body_of(made, profile) == found
    assert len(set(made.notes)) == len(made.notes)
    return found, made.notes


# Where and how.


def test_it_is_a_dialect() -> None:
    dialect: Dialect = AnthropicDialect(AnthropicProfile())

    assert not dialect.native
    assert dialect.hosted == {"web_search"}
    assert AnthropicDialect(AnthropicProfile(web_search="")).hosted == frozenset()


def test_a_request_always_asks_for_a_stream() -> None:
    call_ = AnthropicDialect(PLAIN).call(prompt_for("hi", max_output_tokens=100))

    assert (call_.path, call_.method, call_.stream) == ("/v1/messages", "POST", True)
    assert call_.headers == {"anthropic-version": "2023-06-01"}
    assert call_.body == (
        b'{"model":"claude-sonnet-4-5","max_tokens":100,"stream":true,'
        b'"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}'
    )


def test_another_host_wants_it_in_other_places() -> None:
    profile = AnthropicProfile(
        path="/models/{model}:streamRawPredict",
        count_path="/models/count-tokens:rawPredict",
        models_path="/models",
        version="vertex-2023-10-16",
        version_in="body",
        betas=("one", "two"),
        caching="none",
        extra={"container": Raw(b'"c1"')},
    )
    dialect, made = AnthropicDialect(profile), prompt_for("hi", temperature=0.5)

    call_ = dialect.call(made)

    assert call_.path == "/models/claude-sonnet-4-5:streamRawPredict"
    assert call_.headers == {"anthropic-beta": "one,two"}
    said = json.loads(call_.body)
    assert list(said) == ["anthropic_version", "container", "temperature", "max_tokens", "stream", "messages"]
    assert said["anthropic_version"] == "vertex-2023-10-16"
    count = dialect.count(made)
    assert count is not None
    assert count.call.path == "/models/count-tokens:rawPredict"
    assert dialect.models().path == "/models"


def test_tokens_are_counted_for_what_is_asked_and_not_for_what_is_answered() -> None:
    made = prompt_for("hi", tools=TOOLS, instructions="i", temperature=0.5, user="u", reasoning={"effort": "low"})

    count = AnthropicDialect(AnthropicProfile()).count(made)

    assert count is not None
    assert (count.call.path, count.call.stream) == ("/v1/messages/count_tokens", False)
    assert list(json.loads(count.call.body)) == ["model", "thinking", "tools", "system", "messages"]
    assert count.read(b'{"input_tokens":7}') == 7
    with pytest.raises(msgspec.MsgspecError):
        count.read(b"{}")
    assert AnthropicDialect(AnthropicProfile(count_path="")).count(made) is None


def test_models_are_listed_all_at_once() -> None:
    dialect = AnthropicDialect(AnthropicProfile())

    asked = dialect.models()

    assert (asked.path, asked.method, asked.stream) == ("/v1/models?limit=1000", "GET", False)
    assert asked.headers == {"anthropic-version": "2023-06-01"}
    assert dialect.offered(b'{"data":[{"id":"a","max_tokens":1},{"id":"b"}],"has_more":false}') == ["a", "b"]


def test_a_refusal_is_read() -> None:
    error = AnthropicDialect(PLAIN).rejection(529, {}, b'{"error":{"type":"overloaded_error","message":"Overloaded"}}')

    assert (error.status, error.transient) == (529, True)


# Thinking, and how much may be written.


@pytest.mark.parametrize(
    ("model", "reasoning", "expected"),
    [
        (ANCIENT, {"effort": "high"}, (None, None, 8192)),
        (ANCIENT, {"effort": "none"}, (None, None, 8192)),
        (OLD, None, (None, None, 64_000)),
        (OLD, {"summary": "auto"}, (None, None, 64_000)),
        (OLD, {"effort": "none"}, ({"type": "disabled"}, None, 64_000)),
        (OLD, {"effort": "medium"}, ({"type": "enabled", "budget_tokens": 8192}, None, 64_000)),
        (
            OLD,
            {"effort": "low", "summary": "auto"},
            ({"type": "enabled", "display": "summarized", "budget_tokens": 2048}, None, 64_000),
        ),
        ("claude-opus-4-5", {"effort": "max"}, ({"type": "enabled", "budget_tokens": 62_976}, "high", 64_000)),
        (MIDDLE, {"effort": "xhigh"}, ({"type": "adaptive"}, "max", 64_000)),
        (MIDDLE, {"summary": "detailed"}, ({"type": "adaptive", "display": "summarized"}, None, 64_000)),
        (MIDDLE, {"summary": "none"}, (None, None, 64_000)),
        (NEW, {"effort": "none"}, ({"type": "disabled"}, None, 128_000)),
        (NEW, {"effort": "minimal", "generate_summary": "auto"},
         ({"type": "adaptive", "display": "summarized"}, "low", 128_000)),
        (FABLE, {"effort": "none"}, ({"type": "adaptive"}, "low", 128_000)),
        ("gpt-oss:20b", {"effort": "none"}, (None, None, 8192)),
        ("gpt-oss:20b", {"effort": "high"}, ({"type": "enabled", "budget_tokens": 7168}, None, 8192)),
    ],
)  # fmt: skip
def test_effort_is_said_in_the_words_of_the_model(
    model: str, reasoning: Fields | None, expected: tuple[object, ...]
) -> None:
    found, _ = noted(model, reasoning=reasoning)

    effort = objects([found.get("output_config", {})])[0].get("effort")
    assert (found.get("thinking"), effort, found["max_tokens"]) == expected


def test_what_a_model_cannot_do_about_thinking_is_noted() -> None:
    assert noted(ANCIENT, reasoning={"effort": "high"})[1] == ["reasoning.effort: this model does not think"]
    assert noted(FABLE, reasoning={"effort": "none"})[1] == [
        "reasoning.effort: this model always thinks, as little as it can"
    ]


def test_the_last_effort_that_was_set_counts() -> None:
    said = [
        user("a"),
        {"type": "configuration_update", "reasoning": {"effort": "low"}},
        {"type": "configuration_update", "reasoning": {}},
        {"type": "configuration_update", "text": {}},
    ]

    assert body(said, model=NEW, reasoning={"effort": "high"})["output_config"] == {"effort": "low"}
    assert body(said, model=NEW)["output_config"] == {"effort": "low"}


def test_a_budget_is_room_beside_what_the_client_allows() -> None:
    found, notes = noted(reasoning={"effort": "medium"}, max_output_tokens=1000)

    assert (found["max_tokens"], objects([found["thinking"]])[0]["budget_tokens"]) == (9192, 8192)
    assert notes == ["max_output_tokens: up to 8192 tokens of thinking come on top"]


def test_without_room_to_think_there_is_no_thinking() -> None:
    profile = AnthropicProfile(caching="none", models={"*": Traits(max_tokens=1500)})

    found, notes = noted("local", profile, reasoning={"effort": "medium"}, max_output_tokens=800)

    assert "thinking" not in found
    assert found["max_tokens"] == 800
    assert notes == ["reasoning.effort: fewer than 1024 tokens are left to think with"]


def test_no_model_writes_more_than_it_can() -> None:
    found, notes = noted(max_output_tokens=100_000)

    assert found["max_tokens"] == 64_000
    assert notes == ["max_output_tokens: this model writes at most 64000"]


# Sampling.


@pytest.mark.parametrize(
    ("model", "fields", "expected", "notes"),
    [
        (OLD, {"temperature": 0.5}, {"temperature": 0.5}, []),
        (OLD, {"top_p": 0.5}, {"top_p": 0.5}, []),
        (OLD, {"temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5},
         ["top_p: this model takes it or temperature, not both"]),
        (ANCIENT, {"temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5, "top_p": 0.5}, []),
        (OLD, {"temperature": 1.5}, {"temperature": 1},
         ["temperature: 1.5 is more than this upstream takes, which is 1"]),
        (NEW, {"temperature": 0.5, "top_p": 1}, {}, ["temperature: this model decides itself"]),
        (OLD, {"temperature": 0.5, "top_p": 0.95, "reasoning": {"effort": "low"}}, {"top_p": 0.95},
         ["temperature: not while the model thinks"]),
        (OLD, {"temperature": 1, "reasoning": {"effort": "low"}}, {"temperature": 1}, []),
        (OLD, {"top_p": 0.9, "reasoning": {"effort": "low"}}, {}, ["top_p: not while the model thinks"]),
        (OLD, {"temperature": 0.5, "reasoning": {"effort": "none"}}, {"temperature": 0.5}, []),
    ],
)  # fmt: skip
def test_sampling_is_passed_on_as_far_as_the_model_takes_it(
    model: str, fields: Fields, expected: Fields, notes: Sequence[str]
) -> None:
    found, said = noted(model, **fields)  # type: ignore[arg-type]  # they are fields of the request

    assert {name: found[name] for name in ("temperature", "top_p") if name in found} == expected
    assert said == notes


@pytest.mark.parametrize("version", ["2026-10-21", "vertex-2026-10-21"])
def test_the_newest_version_takes_no_sampling_at_all(version: str) -> None:
    found, notes = noted(OLD, AnthropicProfile(version=version), temperature=0.5)

    assert "temperature" not in found
    assert len(notes) == 1


# Other settings.


def test_what_has_no_word_is_noted() -> None:
    _, notes = noted(
        presence_penalty=1, frequency_penalty=0, prompt_cache_key="k", text={"verbosity": "low"},
        reasoning={"context": "all_turns", "mode": "standard"},
    )  # fmt: skip

    assert notes == [
        f"{name}: not understood by this upstream"
        for name in ("presence_penalty", "prompt_cache_key", "text.verbosity", "reasoning.context")
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"top_logprobs": 2}, "top_logprobs"), ({"include": ["message.output_text.logprobs"]}, "include")],
)
def test_probabilities_are_refused(fields: Fields, param: str) -> None:
    with pytest.raises(Unsupported) as refused:
        noted(**fields)  # type: ignore[arg-type]  # they are fields of the request

    assert refused.value.param == param


def test_the_provider_learns_no_names() -> None:
    def told(**fields: object) -> Json:
        return objects([noted(**fields)[0].get("metadata", {})])[0].get("user_id")  # type: ignore[arg-type]  # fields of the request

    assert told(user="u1") == "u1"
    assert told(user="u1", safety_identifier="s1") == "s1"
    assert told() is None
    mail, long = str(told(user="a@b.example")), str(told(user="u" * 257))
    assert re.fullmatch("[0-9a-f]{64}", mail)
    assert re.fullmatch("[0-9a-f]{64}", long)
    assert mail == told(safety_identifier="a@b.example") != long


def test_a_server_that_knows_no_users_is_told_none() -> None:
    found, notes = noted(profile=AnthropicProfile(user_id=False, caching="none"), user="u")

    assert "metadata" not in found
    assert notes == ["safety_identifier: not understood by this upstream"]


@pytest.mark.parametrize(
    ("tier", "profile", "expected"),
    [
        ("auto", PLAIN, {"service_tier": "auto"}),
        ("default", PLAIN, {"service_tier": "standard_only"}),
        ("default", AnthropicProfile(service_tier=False), {}),
        ("priority", AnthropicProfile(fast=True), {"speed": "fast"}),
        ("fast", AnthropicProfile(fast=True), {"speed": "fast"}),
        ("fast", PLAIN, None),
        ("flex", AnthropicProfile(fast=True), None),
    ],
)
def test_tiers_are_those_of_the_provider(tier: str, profile: AnthropicProfile, expected: Fields | None) -> None:
    found, notes = noted(profile=profile, service_tier=tier)

    assert {name: found[name] for name in ("service_tier", "speed") if name in found} == (expected or {})
    assert notes == ([] if expected is not None else [f"service_tier: '{tier}' is not understood by this upstream"])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"type": "ephemeral"}),
        ({"prompt_cache_options": {"mode": "implicit"}}, {"type": "ephemeral"}),
        ({"prompt_cache_options": {"ttl": "12h"}}, {"type": "ephemeral", "ttl": "1h"}),
        ({"prompt_cache_retention": "24h"}, {"type": "ephemeral", "ttl": "1h"}),
        ({"prompt_cache_retention": "in_memory"}, {"type": "ephemeral"}),
        ({"prompt_cache_options": {"mode": "explicit"}}, None),
    ],
)
def test_the_whole_prompt_is_kept_unless_the_client_says_otherwise(fields: Fields, expected: Fields | None) -> None:
    assert noted(profile=AnthropicProfile(), **fields)[0].get("cache_control") == expected  # type: ignore[arg-type]  # fields of the request
    assert "cache_control" not in noted(profile=AnthropicProfile(caching="none"), **fields)[0]  # type: ignore[arg-type]  # the same


# Tools.


def test_functions_are_tools() -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 1}}}

    found = body(tools=[function("f", description="d", parameters=parameters), function("g", description="")])

    assert found["tools"] == [
        {"name": "f", "input_schema": parameters, "description": "d"},
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert "tool_choice" not in found


def test_a_schema_of_alternatives_becomes_one_object() -> None:
    found, notes = noted(tools=[function("f", parameters={"anyOf": [{"properties": {"a": {}}}]})])

    [tool] = objects(found["tools"])
    assert objects([tool["input_schema"]])[0]["type"] == "object"
    assert notes == ["tools.f: anyOf at the top went into its description"]


def test_a_schema_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(Unsupported) as refused:
        body(tools=[function("f", parameters=[1])])

    assert refused.value.param == "tools['f'].parameters"


def test_strict_is_what_a_model_can_be_held_to_exactly() -> None:
    def strict(schema: object, model: str = OLD) -> tuple[Json, int]:
        found, notes = noted(model, tools=[function("f", parameters=schema, strict=True)])
        return objects(found["tools"])[0].get("strict"), len(notes)

    assert strict(SCHEMA) == (True, 0)
    assert strict(SCHEMA, ANCIENT) == (None, 1)
    assert strict({**SCHEMA, "minProperties": 1}) == (None, 1)
    assert strict(MAP) == (None, 1)
    # What closing would change the client did not ask for.
    assert strict({"type": "object", "properties": {"a": {"type": "string"}}}) == (None, 1)


def test_every_kind_of_tool_is_a_function() -> None:
    tools = [
        {"type": "custom", "name": "free"},
        {"type": "namespace", "name": "files", "tools": [function("read")]},
        *({"type": kind} for kind in ("local_shell", "shell", "apply_patch")),
        {"type": "tool_search", "execution": "client"},
    ]

    names = [tool["name"] for tool in objects(body(tools=tools)["tools"])]

    assert names == ["free", "files__read", "local_shell", "shell", "apply_patch", "tool_search"]


def test_a_search_is_the_providers_own() -> None:
    tool = {
        "type": "web_search_preview",
        "search_context_size": "high",
        "filters": {"allowed_domains": ["a.example"]},
        "user_location": {"type": "approximate", "country": "DE", "city": None},
    }

    found, notes = noted(tools=[function("f"), tool], max_tool_calls=3)

    assert objects(found["tools"])[1] == {
        "type": "web_search_20250305",
        "name": "web_search",
        "allowed_domains": ["a.example"],
        "max_uses": 3,
        "user_location": {"type": "approximate", "country": "DE", "city": None},
    }
    assert notes == ["tools.web_search.search_context_size: not understood by this upstream"]
    plain, notes = noted(
        tools=[{"type": "web_search", "search_context_size": "medium", "filters": {"blocked_domains": ["b"]}}]
    )
    assert plain["tools"] == [{"type": "web_search_20250305", "name": "web_search", "blocked_domains": ["b"]}]
    assert notes == []


def test_further_tools_of_the_server_are_always_there() -> None:
    profile = AnthropicProfile(
        server_tools=(Raw(b'{"type":"code_execution_20260120","name":"code_execution"}'),), caching="none"
    )

    assert objects(noted(profile=profile)[0]["tools"])[0]["name"] == "code_execution"
    assert "tool_choice" not in noted(profile=profile)[0]


def test_a_history_of_calls_has_tools_even_where_none_may_be_called() -> None:
    said = [user("a"), call("c1", "f"), call("c2", "g"), call("c3", "f"), output("c1"), output("c2"), output("c3")]

    for fields in ({}, {"tool_choice": "none"}):
        found = body(said, **fields)  # type: ignore[arg-type]  # fields of the request
        assert found["tools"] == [{"name": name, "input_schema": {"type": "object"}} for name in ("f", "g")]
        assert found["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        ("auto", None, None),
        ("auto", True, None),
        ("auto", False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ({"type": "function", "name": "g"}, None, {"type": "tool", "name": "g"}),
        ({"type": "web_search_preview"}, None, {"type": "tool", "name": "web_search"}),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]},
            None,
            {"type": "any"},
        ),
    ],
)
def test_the_choice_of_a_tool(choice: object, parallel: bool | None, expected: Fields | None) -> None:
    tools = [*TOOLS, {"type": "web_search"}]

    assert noted(tools=tools, tool_choice=choice, parallel_tool_calls=parallel)[0].get("tool_choice") == expected


def test_without_tools_there_is_no_choice() -> None:
    assert "tool_choice" not in body(tool_choice="none", parallel_tool_calls=False)
    assert body(tools=[{"type": "web_search"}], tool_choice="required")["tool_choice"] == {"type": "any"}
    with pytest.raises(Unsupported, match="at least one"):
        body(tool_choice="required")


@pytest.mark.parametrize(
    ("model", "reasoning", "is_forced"),
    [
        (OLD, None, True),
        (OLD, {"effort": "low"}, False),
        (OLD, {"effort": "none"}, True),
        (MIDDLE, {"effort": "low"}, True),
        (NEW, {"effort": "low"}, True),
        (FABLE, None, False),
        (BOUND, None, False),
    ],
)
def test_a_choice_that_would_be_refused_is_a_request(model: str, reasoning: Fields | None, is_forced: bool) -> None:
    named = {"type": "function", "name": "g"}

    found, notes = noted(model, tools=TOOLS, tool_choice=named, reasoning=reasoning, parallel_tool_calls=False)

    kind: Fields = {"type": "tool", "name": "g"} if is_forced else {"type": "auto"}
    assert found["tool_choice"] == {**kind, "disable_parallel_tool_use": True}
    assert ("You must call the tool 'g' now." in json.dumps(found["messages"])) != is_forced
    assert (notes == ["tool_choice: this model may not be made to call a tool, it is asked to"]) != is_forced


# The form of the answer.


def test_a_schema_of_the_answer() -> None:
    limited = {**SCHEMA, "properties": {"a": {"type": "string", "maxLength": 3}}}

    exact, notes = noted(text=FORMAT)
    cleaned, said = noted(text={"format": {"type": "json_schema", "name": "n", "schema": limited}}, model=NEW)

    assert exact["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert notes == []
    described = {"type": "string", "description": 'Must also satisfy: {"maxLength":3}'}
    [output_config] = objects([cleaned["output_config"]])
    [format_] = objects([output_config["format"]])
    assert format_["schema"] == {**SCHEMA, "properties": {"a": described}}
    assert said == ["text.format: maxLength went into descriptions"]


def test_any_json_is_asked_for_in_words() -> None:
    found = body(text={"format": {"type": "json_object"}}, instructions="i")

    assert objects(found["system"])[1]["text"] == "Answer with one JSON object and nothing else."
    assert "output_config" not in found


def test_plain_text_is_nothing_to_ask_for() -> None:
    assert not body(text={"format": {"type": "text"}}).keys() & {"output_config", "system", "tools"}


def test_the_last_form_that_was_set_counts() -> None:
    said = [user("a"), {"type": "configuration_update", "text": FORMAT}, {"type": "configuration_update", "text": {}}]

    assert "output_config" in body(said, text={"format": {"type": "text"}})


@pytest.mark.parametrize(
    ("fields", "choice", "names"),
    [
        ({}, {"type": "tool", "name": "json"}, ["json"]),
        ({"tools": TOOLS}, {"type": "any"}, ["f", "g", "json"]),
        ({"tools": TOOLS, "tool_choice": "none"}, {"type": "tool", "name": "json"}, ["f", "g", "json"]),
        ({"tools": TOOLS, "tool_choice": "required"}, {"type": "any"}, ["f", "g", "json"]),
        ({"tools": [function("json")]}, {"type": "any"}, ["json", "json_"]),
    ],
)
def test_where_the_model_has_no_other_way_the_answer_is_the_arguments_of_a_tool(
    fields: Fields, choice: Fields, names: list[str]
) -> None:
    found, _ = noted(ANCIENT, text=FORMAT, **fields)  # type: ignore[arg-type]  # fields of the request

    assert found["tool_choice"] == choice
    assert [tool["name"] for tool in objects(found["tools"])] == names
    assert objects(found["tools"])[-1] == {
        "name": names[-1],
        "input_schema": SCHEMA,
        "description": "Gives the answer. Call it once, with all of the answer.",
    }


def test_a_schema_without_words_goes_that_way_too_and_without_thinking() -> None:
    found, notes = noted(OLD, text=FREE, reasoning={"effort": "low"})

    assert found["tool_choice"] == {"type": "tool", "name": "json"}
    assert objects(found["tools"])[0]["input_schema"] == MAP
    assert str(objects(found["tools"])[0]["description"]).endswith("Names.")
    assert "thinking" not in found
    assert notes == ["reasoning: thinking is off, because the answer is written as the arguments of a tool"]
    # A model that decides itself how much to think may think and be told.
    assert "thinking" in noted(MIDDLE, text=FREE, reasoning={"effort": "low"})[0]
    asked, _ = noted(FABLE, text=FREE)
    assert "tool_choice" not in asked
    assert "You must call the tool 'json' now." in json.dumps(asked["messages"])


def test_the_arguments_of_that_tool_are_heard_as_the_answer() -> None:
    made = prompt_for("hi", None, model=ANCIENT, text=FORMAT)
    answer = {
        "type": "message",
        "content": [{"type": "tool_use", "id": "t1", "name": "json", "input": {"a": "b"}}],
        "stop_reason": "tool_use",
    }

    assert heard(made, answer) == [("message", '{"a": "b"}')]


def heard(made: object, answer: Mapping[str, object], profile: AnthropicProfile = PLAIN) -> list[tuple[str, str]]:
    out = composer()
    reader = AnthropicDialect(profile).reader(made, out)  # type: ignore[arg-type]  # a prompt
    out.start()
    reader.feed(json.dumps(answer).encode())
    reader.close(END)
    response = judged(encoded(out))
    return [(item.type, "".join(part.text or "" for part in item.content or ())) for item in response.output]


def test_a_turn_that_lost_its_thinking_goes_on_without() -> None:
    made = prompt_for(
        [user("a"), call("c1"), output("c1")], reasoning={"effort": "low"}, tools=TOOLS, tool_choice="required"
    )

    found = body_of(made)

    assert "thinking" not in found
    # And may be told to call again.
    assert found["tool_choice"] == {"type": "any"}
    assert made.notes == ["reasoning: thinking is off, because that of the calls in the input is no longer there"]


def test_a_conversation_of_nothing_is_refused() -> None:
    with pytest.raises(Unsupported, match="empty"):
        body(" ")


def test_leading_instructions_and_what_the_server_cannot_keep() -> None:
    marked = {"type": "input_text", "text": "s", "prompt_cache_breakpoint": {"mode": "explicit"}}
    said = [{"type": "message", "role": "developer", "content": [marked]}, user("a")]

    assert body(said)["system"] == [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]
    assert body(said, profile=AnthropicProfile(caching="none"))["system"] == [{"type": "text", "text": "s"}]


# When it is refused.


def refused(message: str, status: int = 400) -> UpstreamError:
    return UpstreamError(message, status=status)


def test_thinking_and_effort_are_given_up_once_each() -> None:
    opened = {"e1": envelope({"type": "thinking", "thinking": "so", "signature": "s"})}
    said = [
        user("a"),
        thought("e1"),
        assistant("b"),
        {"type": "configuration_update", "reasoning": {"effort": "max"}, "text": FORMAT},
    ]
    made = prompt_for(said, opened, model=NEW, reasoning={"effort": "low", "summary": "auto"})
    dialect = AnthropicDialect(PLAIN)
    signature = refused("messages.1.content.0: Invalid `signature` in `thinking` block.")
    level = refused("This model does not support effort level 'max'. Supported levels: high, low.")

    without_thinking = dialect.relent(made, signature)
    assert without_thinking is not None
    without_effort = dialect.relent(without_thinking, level)
    assert without_effort is not None

    found = body_of(without_effort)
    assert '"signature"' not in json.dumps(found)
    assert objects([found["output_config"]])[0].keys() == {"format"}
    assert found["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert dialect.relent(without_effort, signature) is None
    assert dialect.relent(without_effort, level) is None
    assert without_effort.notes == ["reasoning.effort: this model does not have it"]
    # The client's own request stays what it was.
    assert made.request.fields.reasoning is not None
    assert made.request.fields.reasoning.effort == "low"


def test_an_effort_that_only_the_history_set_can_be_given_up_as_well() -> None:
    said = [user("a"), {"type": "configuration_update", "reasoning": {"effort": "max"}}]
    made = prompt_for(said, model=NEW)

    again = AnthropicDialect(PLAIN).relent(made, refused("This model does not support the effort parameter"))

    assert again is not None
    assert "output_config" not in body_of(again)


@pytest.mark.parametrize(
    "error",
    [
        refused("max_tokens: Field required"),
        refused("Invalid `signature` in `thinking` block.", status=500),
        refused("Invalid `signature` in `thinking` block."),
        refused("This model does not support the effort parameter"),
    ],
)
def test_what_cannot_be_given_up_stays_refused(error: UpstreamError) -> None:
    assert AnthropicDialect(PLAIN).relent(prompt_for([user("a"), thought("foreign"), user("b")]), error) is None


def test_what_a_search_found_is_told_to_those_who_ask() -> None:
    made = prompt_for("hi", None, tools=[{"type": "web_search"}], include=["web_search_call.action.sources"])
    out = composer()
    reader = AnthropicDialect(PLAIN).reader(made, out)
    out.start()
    content = [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"url": "https://a.example"}]},
    ]
    reader.feed(json.dumps({"type": "message", "content": content, "stop_reason": "end_turn"}).encode())
    reader.close(END)

    response = json.loads(encoded(out)[-1])["response"]

    assert response["output"][0]["action"]["sources"] == [{"type": "url", "url": "https://a.example"}]


def test_bound_thinking_is_bound_to_what_was_asked() -> None:
    made = prompt_for("hi", None, model=BOUND, tools=TOOLS, instructions="i")
    answer = {
        "type": "message",
        "content": [{"type": "thinking", "thinking": "so", "signature": "s"}, {"type": "text", "text": "a"}],
        "stop_reason": "end_turn",
    }
    out = composer()
    reader = AnthropicDialect(PLAIN).reader(made, out)
    out.start()
    reader.feed(json.dumps(answer).encode())
    reader.close(END)
    sealed = json.loads(encoded(out)[-1])["response"]["output"][0]["encrypted_content"]
    parts, _ = json.loads(sealed)

    said = [user("hi"), thought("e1"), assistant("a"), user("b")]
    same = prompt_for(said, {"e1": envelope(*parts)}, model=BOUND, tools=TOOLS, instructions="i")
    other = dataclasses.replace(same, request=prompt_for("x", None, instructions="j").request, losses=[])

    assert '"signature"' in json.dumps(body_of(same))
    assert '"signature"' not in json.dumps(body_of(other))
