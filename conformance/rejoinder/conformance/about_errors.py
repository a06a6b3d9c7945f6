"""What a server refuses, and how it says so."""

from rejoinder.conformance.answer import read, refusal_in
from rejoinder.conformance.expectation import expect_equal
from rejoinder.conformance.need import KEY
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import GREETING, UNKNOWN
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
