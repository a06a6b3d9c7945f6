import pytest

from rejoinder.conformance.answer import (
    Answer,
    Item,
    answer_in,
    create,
    read,
    refusal_in,
    skip_if_refused,
    usage_of,
)
from rejoinder.conformance.errors import Broken, NotApplicable
from rejoinder.conformance.server import Reply, Server
from tests.conformance.little_server import MODEL, LittleServer, serving

ANSWER = b"""{
    "id": "resp_1", "status": "completed", "unknown": [null],
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "id": "msg_1", "content": [
            {"type": "output_text", "text": "Hello"}, {"type": "refusal", "refusal": "no"},
            {"type": "output_text", "text": "!"}
        ]},
        {"type": "message", "id": "msg_2", "content": "Bye."},
        {"type": "message", "id": "msg_3"},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "clock", "arguments": "{}"}
    ]
}"""


def refusal(param: str | None, code: str | None = None, status: int = 400) -> Reply:
    def quoted(value: str | None) -> str:
        return "null" if value is None else f'"{value}"'

    return Reply(
        status, {}, [f'{{"error": {{"message": "no", "param": {quoted(param)}, "code": {quoted(code)}}}}}'.encode()]
    )


def test_an_answer_has_calls_and_a_text() -> None:
    answer = read(Answer, ANSWER, "a response")
    assert answer.text == "Hello!Bye."
    assert [call.identity for call in answer.calls] == [("function_call", "fc_1", "call_1")]


def test_a_bare_item_is_read_too() -> None:
    assert read(Item, b"{}", "an item").identity == (None, None, None)


@pytest.mark.parametrize("body", [b"", b"null", b"{", b"\xff", b'{"id": "\xff"}', b"[" * 100_000, b'{"id": 7}'])
def test_what_is_no_answer_breaks_the_rule(body: bytes) -> None:
    with pytest.raises(Broken, match="expected a response of the right shape, got"):
        answer_in(Reply(200, {}, [body]))


def test_an_answer_has_the_status_200() -> None:
    with pytest.raises(Broken, match="expected status 200, got status 201"):
        answer_in(Reply(201, {}, [ANSWER]))


def test_usage_that_is_not_told_breaks_the_rule() -> None:
    with pytest.raises(Broken, match="expected usage"):
        usage_of(read(Answer, ANSWER, "a response"))
    counted = read(Answer, b'{"id": "resp_1", "output": [], "usage": {"input_tokens": 3}}', "a response")
    assert usage_of(counted).input_tokens == 3


@pytest.mark.parametrize("param", ["input", "input[0].content", "input.x"])
def test_a_place_within_a_parameter_names_it(param: str) -> None:
    assert refusal_in(refusal(param), param="input").param == param


@pytest.mark.parametrize("param", [None, "inputs", "model"])
def test_another_parameter_breaks_the_rule(param: str | None) -> None:
    with pytest.raises(Broken, match="whose param is 'input'"):
        refusal_in(refusal(param), param="input")


def test_another_code_breaks_the_rule() -> None:
    assert refusal_in(refusal(None, "model_not_found", 404), 400, 404, code="model_not_found").message == "no"
    with pytest.raises(Broken, match="whose code is 'model_not_found'"):
        refusal_in(refusal(None, "other"), code="model_not_found")


def test_another_status_breaks_the_rule() -> None:
    with pytest.raises(Broken, match="expected status 400, got status 404"):
        refusal_in(refusal(None, status=404))


def test_a_refusal_by_name_skips_the_case() -> None:
    with pytest.raises(NotApplicable, match="the server refuses 'tools\\[0\\]': no"):
        skip_if_refused(refusal("tools[0]"), ("tool_choice", "tools"))


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "no such thing as \'tools\' here"}}',
        b'{"error": {"message": "wrong: tools={}"}}',
        b'{"error": {"message": "1 error\\ntools.2\\n Input tag \'namespace\' is none of \'function\'"}}',
    ],
)
def test_a_name_may_be_in_what_is_said(body: bytes) -> None:
    with pytest.raises(NotApplicable, match="the server refuses 'tools': "):
        skip_if_refused(Reply(422, {}, [body]), ("tools",))


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "your tools are in no good state"}}',
        b"{\"error\": {\"message\": \"wrong at ['body', 'input']: not one of 'message', 'tools'\"}}",
        b'{"error": {"message": "no \'tools\'", "param": "input"}}',
        b"\xff",
    ],
)
def test_a_word_that_is_only_used_names_nothing(body: bytes) -> None:
    skip_if_refused(Reply(400, {}, [body]), ("tools",))


@pytest.mark.parametrize("reply", [refusal("input"), refusal("tools", status=500), Reply(200, {}, [])])
def test_anything_else_skips_nothing(reply: Reply) -> None:
    skip_if_refused(reply, ("tools",))
    skip_if_refused(refusal("tools"), ())


async def test_a_response_is_created() -> None:
    async with (
        serving(LittleServer(refuses="tools")) as url,
        Server.at(url, MODEL, key=None, timeout=5) as server,
    ):
        assert (await create(server, input="hello")).status == "completed"
        with pytest.raises(NotApplicable):
            await create(server, optional=("tools",), input="hello", tools=[])
        with pytest.raises(Broken):
            await create(server, input="hello", tools=[])
