import json

import pytest

from rejoinder.bridge.anthropic import AnthropicDialect
from rejoinder.bridge.anthropic_profile import AnthropicProfile
from rejoinder.bridge.chat import ChatDialect
from rejoinder.bridge.compaction import IMAGE_TOKENS
from rejoinder.bridge.dialect import Dialect
from rejoinder.bridge.errors import Unsupported
from rejoinder.bridge.profile import ChatProfile
from rejoinder.bridge.responses import ResponsesDialect
from rejoinder.bridge.responses_profile import ResponsesProfile
from rejoinder.bridge.words import MESSAGE_TOKENS, REPLY_TOKENS, Words, words
from tests.bridge.prompts import Fields, assistant, call, function, output, prompt, user

PNG = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
CONVERSATION: list[Fields] = [
    user([{"type": "input_text", "text": "Look:"}, {"type": "input_image", "image_url": PNG}]),
    assistant([{"type": "output_text", "text": "Looking.", "annotations": [], "logprobs": []}]),
    call("call_1", "look_up", '{"city": "Oslo"}'),
    output("call_1", "rain"),
    user("And now?"),
]
FIELDS: Fields = {
    "instructions": "Be brief.",
    "max_output_tokens": 1024,
    "metadata": {"about": "nothing"},
    "tools": [function("look_up", parameters=SCHEMA, strict=None)],
    "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}, "verbosity": "low"},
}
SCHEMA_SAID = '{"type": "object", "properties": {}, "required": [], "additionalProperties": false}'


def read(**fields: object) -> Words:
    return words(json.dumps(fields).encode())


def beside(messages: int, pictures: int = 0) -> int:
    return REPLY_TOKENS + messages * MESSAGE_TOKENS + pictures * IMAGE_TOKENS


def asked(dialect: Dialect) -> Words:
    return words(dialect.call(prompt(CONVERSATION, {}, **FIELDS)).body)


def test_a_chat_body_is_its_messages_its_tools_and_the_schema_of_the_answer() -> None:
    read = asked(ChatDialect(ChatProfile()))
    assert read.texts == (
        SCHEMA_SAID,
        f'[{{"type": "function", "function": {{"name": "look_up", "parameters": {SCHEMA_SAID}}}}}]',
        "Be brief.",
        "Look:",
        "Looking.",
        "look_up",
        '{"city": "Oslo"}',
        "rain",
        "And now?",
    )
    # Instructions, question, answer, its call, result, question.
    assert read.beside == beside(6, pictures=1)


def test_a_body_of_this_api_is_its_items() -> None:
    read = asked(ResponsesDialect(ResponsesProfile()))
    assert read.texts == (
        "Be brief.",
        f'[{{"type": "function", "name": "look_up", "parameters": {SCHEMA_SAID}, "strict": null}}]',
        SCHEMA_SAID,
        "Look:",
        "Looking.",
        "look_up",
        '{"city": "Oslo"}',
        "rain",
        "And now?",
    )
    assert read.beside == beside(6, pictures=1)


def test_an_anthropic_body_is_its_system_text_and_its_blocks() -> None:
    read = asked(AnthropicDialect(AnthropicProfile()))
    said = ("Be brief.", "Look:", "Looking.", "look_up", '{"city": "Oslo"}', "rain", "And now?")
    assert tuple(text for text in read.texts if text in said) == said
    # Result and question are one message there, and a call is in the message it belongs to.
    assert read.beside == beside(4, pictures=1)


def test_what_names_marks_or_seals_something_is_not_read() -> None:
    block = {"type": "thinking", "thinking": "so", "signature": "AAAA", "cache_control": {"type": "ephemeral"}}
    sealed = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "why"}]}
    assert read(
        model="m",
        stream=True,
        input=[{"role": "assistant", "content": [block]}, {**sealed, "encrypted_content": "AAAA"}],
    ) == Words(("so", "why"), beside(2))


def test_data_of_an_item_is_read_as_json_on_one_line() -> None:
    body = b'{"input":[{"type":"shell_call","call_id":"c","action":{\n  "commands":["ls"],\n  "timeout_ms":10\n}}]}'
    assert words(body).texts == ('{"commands": ["ls"], "timeout_ms": 10}',)


def test_numbers_and_nulls_of_a_message_say_nothing() -> None:
    assert read(messages=[{"role": "assistant", "content": None, "index": 3}]) == Words((), beside(1))


def test_a_file_counts_as_one_and_one_of_text_by_its_text() -> None:
    plain = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "minutes"}}
    scanned = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "A" * 9999}}
    assert read(messages=[{"role": "user", "content": [plain, scanned]}]) == Words(("minutes",), beside(1, pictures=1))


def test_a_picture_that_a_model_made_counts_as_one() -> None:
    assert read(input=[{"type": "image_generation_call", "result": "A" * 9999}]) == Words((), beside(1, pictures=1))


def test_a_format_without_a_schema_adds_nothing() -> None:
    assert read(input="hi", text={"verbosity": "low"}, response_format={"type": "json_object"}) == read(input="hi")


@pytest.mark.parametrize("number", ["1e999", "1" + "0" * 5000])
def test_a_number_no_computer_holds_is_refused(number: str) -> None:
    with pytest.raises(Unsupported, match=r"the tokens cannot be counted: .*out of range"):
        words(b'{"tools":[{"maximum":%b}]}' % number.encode())
