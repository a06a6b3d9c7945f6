"""What a server refuses, and how it says so."""

from collections.abc import Mapping

import msgspec

from rejoinder.conformance.answer import read, refusal_in, skip_if_refused
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.need import KEY
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, GREETING, UNKNOWN
from rejoinder.conformance.server import Json, Server
from rejoinder.conformance.shape import EnvelopeShape

chapter = Chapter("errors", "Errors")


@chapter.rule
async def an_error_has_one_envelope(server: Server) -> None:
    """Every error is JSON with one object `error` that has message, type, param and code; the last two may be null,
    and a code is a string.

    Source: Guide, Error codes; the SDKs read exactly this (http.md §6.1).
    """
    for reply in (
        await server.post(input=7),
        await server.post(input=GREETING, previous_response_id=UNKNOWN),
        await server.post(input=GREETING, model="no-such-model-here"),
        await server.send("POST", "/responses", b"{"),
        await server.get(f"/responses/{UNKNOWN}"),
        await server.get("/no-such-path"),
    ):
        # Whether it had to be refused at all is for the other rules to say.
        if reply.status >= 400:
            read(EnvelopeShape, reply.body, f"an error (status {reply.status})")
            expect_equal("the content type of an error", "application/json", reply.media_type)


@chapter.rule
async def a_body_that_is_no_object_is_refused(server: Server) -> None:
    """A body that is null, a list, a number, a text, broken or not there at all is status 400.

    Source: API reference, Create a response; status 400 of the guide's error codes (http.md §6).
    """
    for body in (b"null", b"[]", b"[{}]", b"7", b'"hello"', b"true", b"{", b'{"model": "\xff"}', b""):
        refusal_in(await server.send("POST", "/responses", body))


@chapter.rule
async def a_missing_model_is_named(server: Server) -> None:
    """A request without a model is status 400 and names it.

    Source: API reference, Create a response (http.md §6.2).
    """
    refusal_in(await server.send("POST", "/responses", b'{"input": "Say hello."}'), param="model")


@chapter.rule
async def a_missing_input_is_named(server: Server) -> None:
    """A request with nothing to answer is status 400 and names the input.

    Source: API reference, Create a response (http.md §6.2).
    """
    refusal_in(await server.post(), param="input")


@chapter.rule
async def an_unknown_model_is_refused(server: Server) -> None:
    """A model that is not there is status 400 or 404, and the code is model_not_found.

    Source: Guide, Error codes (http.md §6.2).
    """
    reply = await server.post(input=GREETING, model="no-such-model-here")
    refusal_in(reply, 400, 404, param="model", code="model_not_found")


def _message(part: Json) -> Json:
    return [{"role": "user", "content": [part]}]


@chapter.rule
async def a_wrong_type_is_named(server: Server) -> None:
    """A parameter of the wrong type is status 400, and param is the place of it, also deep inside.

    Source: Guide, Error codes (http.md §6.2).
    """
    wrong: dict[str, dict[str, Json]] = {
        "model": {"model": 7},
        "input": {"input": 7},
        "input[0]": {"input": [7]},
        "input[0].content[0]": {"input": _message({"type": "input_text", "text": 7})},
        "instructions": {"instructions": ["Be brief."]},
        "previous_response_id": {"previous_response_id": 7},
        "stream": {"stream": "yes"},
        "store": {"store": "yes"},
        "temperature": {"temperature": "warm"},
        "max_output_tokens": {"max_output_tokens": "many"},
        "metadata": {"metadata": ["a"]},
        "text": {"text": "json"},
        "reasoning": {"reasoning": "hard"},
        "tools": {"tools": {"type": "function"}},
        "tools[0].name": {"tools": [{"type": "function", "name": 7}]},
        "tool_choice": {"tool_choice": 7},
    }
    for param, fields in wrong.items():
        refusal_in(await server.post(**{"input": GREETING, **fields}), param=param)


@chapter.rule
async def a_value_out_of_range_is_named(server: Server) -> None:
    """A number beyond its limits, or a word that is not one of the choices, is status 400 and names the parameter.

    Source: API reference, Create a response (objects.md §1).
    """
    wrong: dict[str, Json] = {
        "temperature": 2.5,
        "top_p": 1.5,
        "max_output_tokens": 0,
        "top_logprobs": 21,
        "truncation": "sometimes",
        "tool_choice": "perhaps",
        "text": {"format": {"type": "xml"}},
    }
    for param, value in wrong.items():
        refusal_in(await server.post(**{"input": GREETING, param: value}), param=param)


@chapter.rule
async def an_unknown_role_is_refused(server: Server) -> None:
    """A message is by user, assistant, system or developer; another role is status 400.

    Source: API reference, input messages (objects.md §6.1).
    """
    refusal_in(await server.post(input=[{"role": "nobody", "content": "Say hello."}]), param="input[0]")


@chapter.rule
async def metadata_has_limits(server: Server) -> None:
    """Metadata has at most 16 pairs of texts, keys of at most 64 characters and values of at most 512.

    Source: API reference, metadata (semantics.md §11).
    """
    for metadata in (
        {f"key{number}": "value" for number in range(17)},
        {"k" * 65: "value"},
        {"key": "v" * 513},
        {"key": 7},
    ):
        refusal_in(await server.post(input=GREETING, metadata=metadata), param="metadata")


@chapter.rule
async def an_unknown_path_is_not_found(server: Server) -> None:
    """A path nobody serves is status 404, in the same envelope as every error.

    Source: Guide, Error codes (http.md §6.2).
    """
    refusal_in(await server.get("/no-such-path"), 404)


@chapter.needing(KEY)
async def a_request_without_its_key_is_refused(server: Server) -> None:
    """Where a key is asked for, a request without one is status 401.

    Source: Guide, Error codes (http.md §6.2).
    """
    refusal_in(await server.send("GET", "/models", with_key=False), 401)


@chapter.needing(KEY)
async def a_wrong_key_is_refused(server: Server) -> None:
    """A key that is none is status 401, and the code is invalid_api_key.

    Source: Guide, Error codes (http.md §6.2).
    """
    reply = await server.send("GET", "/models", headers={"authorization": "Bearer sk-no-such-key"})
    refusal_in(reply, 401, code="invalid_api_key")


@chapter.needing(KEY)
async def another_scheme_is_no_key(server: Server) -> None:
    """The key is a bearer token; what comes with another scheme is status 401.

    Source: API overview, authentication (http.md §1, §4).
    """
    refusal_in(await server.send("GET", "/models", headers={"authorization": "Basic c2stbm86a2V5"}), 401)


@chapter.needing(KEY)
async def two_keys_are_none(server: Server) -> None:
    """A request with two Authorization headers, a wrong one before or behind the right one, is not answered.

    Source: RFC 9110 §5.3 allows one of them; who takes either can be led past the other (reliability.md §6).
    """
    wrong, right = "Bearer sk-no-such-key", server.authorization
    for headers in ([wrong, right], [right, wrong]):
        refusal_in(await server.send("GET", "/models", headers={"authorization": headers}), 400, 401, 403)


@chapter.needing(KEY)
async def every_path_asks_for_the_key(server: Server) -> None:
    """Without the key nothing is told of what is there and what is not: whatever is asked is status 401.

    Source: Guide, Error codes; API overview, authentication (http.md §4, §6.2).
    """
    body = msgspec.json.encode({"model": server.model, "input": GREETING})
    for method, path in (
        ("POST", "/responses"),
        ("GET", f"/responses/{UNKNOWN}"),
        ("DELETE", f"/responses/{UNKNOWN}"),
        ("GET", f"/responses/{UNKNOWN}/input_items"),
    ):
        refusal_in(await server.send(method, path, body if method == "POST" else None, with_key=False), 401)


async def _all_named(server: Server, wrong: Mapping[str, Mapping[str, Json]]) -> None:
    """Every one of these is refused, and the error names the place that is its key."""
    for param, fields in wrong.items():
        refusal_in(await server.post(**{"input": GREETING, **fields}), param=param)


@chapter.rule
async def a_switch_is_true_or_false(server: Server) -> None:
    """A switch that is neither true nor false is status 400 and is named.

    Source: API reference, Create a response; guide, Error codes (objects.md §1, http.md §6.2).
    """
    await _all_named(server, {name: {name: "yes"} for name in ("background", "parallel_tool_calls")})


@chapter.rule
async def a_number_is_no_text(server: Server) -> None:
    """A number that is given as a text is status 400 and is named.

    Source: API reference, Create a response; guide, Error codes (objects.md §1, http.md §6.2).
    """
    await _all_named(server, {name: {name: "many"} for name in ("top_p", "top_logprobs", "max_tool_calls")})


@chapter.rule
async def an_answer_may_be_limited_to_sixteen_tokens(server: Server) -> None:
    """A max_output_tokens of 16, the lowest of the reference, is accepted.

    Source: API reference, max_output_tokens; Open Responses, schema of the request (objects.md §1, semantics.md §11).
    """
    # What is lower is refused by OpenAI, and answered by others whose models can be that brief.
    reply = await server.post(input=GREETING, max_output_tokens=16)
    skip_if_refused(reply, ("reasoning",))
    reply.expect(200)


@chapter.rule
async def the_ends_of_a_range_are_in_it(server: Server) -> None:
    """A temperature of 0 and of 2 is accepted, as is a top_p of 1.

    Source: API reference, temperature, top_p (objects.md §1). Models that take neither say so.
    """
    for fields in ({"temperature": 0}, {"temperature": 2}, {"top_p": 1}):
        reply = await server.post(input=GREETING, **fields)
        skip_if_refused(reply, tuple(fields))
        reply.expect(200)


@chapter.rule
async def an_unknown_word_is_named(server: Server) -> None:
    """A word that is none of the choices is status 400 and is named, also within an object.

    Source: API reference, Create a response (objects.md §1, §1.3).
    """
    await _all_named(
        server,
        {
            "service_tier": {"service_tier": "no-such-tier"},
            "reasoning": {"reasoning": {"effort": "no-such-effort"}},
            "text": {"text": {"verbosity": "no-such-verbosity"}},
        },
    )


@chapter.rule
async def an_unknown_include_is_named(server: Server) -> None:
    """What is included is one of a list of names; another one is status 400 and is named.

    Source: API reference, include (objects.md §1.1).
    """
    await _all_named(server, {"include": {"include": ["no.such.thing"]}})


@chapter.rule
async def a_list_is_no_text(server: Server) -> None:
    """A parameter that is a list and is given as a text is status 400 and is named.

    Source: API reference, Create a response; guide, Error codes (objects.md §1, http.md §6.2).
    """
    await _all_named(server, {name: {name: "a text"} for name in ("include", "tools")})


@chapter.rule
async def a_long_identifier_is_refused(server: Server) -> None:
    """A safety_identifier has at most 128 characters; a longer one is status 400 and is named.

    Source: API reference, safety_identifier (objects.md §1).
    """
    await _all_named(server, {"safety_identifier": {"safety_identifier": "s" * 129}})


_QUESTION: Json = {"role": "user", "content": GREETING}


@chapter.rule
async def an_unknown_item_is_refused(server: Server) -> None:
    """An item of a type that is none is status 400 and names the input.

    Source: API reference, input; guide, Error codes (objects.md §6.4, http.md §6.2).
    """
    await _all_named(server, {"input": {"input": [{"type": "no_such_item"}, _QUESTION]}})


@chapter.rule
async def an_unknown_part_is_refused(server: Server) -> None:
    """A part of a message whose type is none is status 400 and names the input.

    Source: API reference, input content (objects.md §5).
    """
    await _all_named(server, {"input": {"input": _message({"type": "no_such_part", "text": "Hello."})}})


@chapter.rule
async def a_missing_field_of_an_item_is_named(server: Server) -> None:
    """An item that lacks a field of its type is status 400, and param is the place of the item or of the field.

    Source: Guide, Error codes, missing_required_parameter (http.md §6.2, objects.md §6.1).
    """
    call = {"type": "function_call", "call_id": "call_1", "name": "current_time", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "call_1", "output": "12:00"}
    wrong: dict[str, list[Json]] = {
        "input[0]": [{"role": "user"}],
        "input[1]": [_QUESTION, _without(call, "name"), output],
        "input[2]": [_QUESTION, call, _without(output, "output")],
    }
    await _all_named(server, {param: {"input": items} for param, items in wrong.items()})


def _without(item: Mapping[str, str], name: str) -> Json:
    return {key: value for key, value in item.items() if key != name}


@chapter.rule
async def a_call_id_has_limits(server: Server) -> None:
    """A call_id has from 1 to 64 characters; one that has none or more is status 400, and param is its place.

    Source: observed text of the API, string_above_max_length (objects.md §6, http.md §6.2).
    """
    for call_id in ("", "c" * 65):
        items: list[Json] = [
            _QUESTION,
            {"type": "function_call", "call_id": call_id, "name": "current_time", "arguments": "{}"},
            {"type": "function_call_output", "call_id": call_id, "output": "12:00"},
        ]
        await _all_named(server, {"input[1]": {"input": items}})


@chapter.rule
async def an_image_is_named_by_a_text(server: Server) -> None:
    """An image whose URL is no text is status 400, and param is the place of its part.

    Source: API reference, input image; guide, Error codes (objects.md §5, http.md §6.2).
    """
    await _all_named(server, {"input[0].content[0]": {"input": _message({"type": "input_image", "image_url": 7})}})


@chapter.rule
async def a_tool_needs_a_name(server: Server) -> None:
    """A function tool without a name is status 400 and names the tools.

    Source: API reference, tools (objects.md §7, http.md §6.2).
    """
    await _all_named(server, {"tools": {"tools": [{"type": "function", "parameters": {"type": "object"}}]}})


@chapter.rule
async def the_name_of_a_tool_is_not_empty(server: Server) -> None:
    """A function tool whose name is empty is status 400 and names the tools.

    Source: API reference, function tool (objects.md §7).
    """
    # A server may take more letters than the reference, and find names for them that its model accepts.
    await _all_named(server, {"tools": {"tools": [{"type": "function", "name": ""}]}})


@chapter.rule
async def an_unknown_tool_is_refused(server: Server) -> None:
    """A tool of a type that is none is status 400 and names the tools.

    Source: API reference, tools (objects.md §7).
    """
    await _all_named(server, {"tools": {"tools": [{"type": "no_such_tool"}]}})


@chapter.rule
async def allowed_tools_are_among_the_tools(server: Server) -> None:
    """What is allowed by allowed_tools is among the tools; something else is status 400 and names one of the two.

    Source: API reference, tool_choice (objects.md §8).
    """
    choice: Json = {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "no_such_tool"}],
    }
    reply = await server.post(input=GREETING, tools=[CLOCK], tool_choice=choice)
    param = (refusal_in(reply).param or "").partition("[")[0].partition(".")[0]
    expect(param in ("tools", "tool_choice"), "an error that names tools or tool_choice", param, at=reply.body)


@chapter.rule
async def a_format_needs_a_name_and_a_schema(server: Server) -> None:
    """A format json_schema has a name of at most 64 letters, digits, `_` and `-`, and a schema; else it is status 400.

    Source: API reference, text.format (objects.md §1.2).
    """
    schema: Json = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    wrong: list[dict[str, Json]] = [
        {"schema": schema},
        {"name": "a name", "schema": schema},
        {"name": "n" * 65, "schema": schema},
        {"name": "person"},
    ]
    for fields in wrong:
        await _all_named(server, {"text": {"text": {"format": {"type": "json_schema", **fields}}}})
