import json

import pytest

from rejoinder.bridge.arguments import as_object, free_text


@pytest.mark.parametrize("arguments", ["{}", '{"a": [1]}', ' {"a":1}\n'])
def test_an_object_stays_the_text_it_is(arguments: str) -> None:
    assert as_object(arguments) == (arguments, False)


@pytest.mark.parametrize("arguments", ["", " \n"])
def test_no_arguments_are_an_empty_object(arguments: str) -> None:
    assert as_object(arguments) == ("{}", False)


@pytest.mark.parametrize("arguments", ["[1]", "null", '{"a":', "ls -l", '"é"'])
def test_what_is_no_object_goes_inside_one(arguments: str) -> None:
    said, is_wrapped = as_object(arguments)

    assert json.loads(said) == {"_raw": arguments}
    assert is_wrapped


@pytest.mark.parametrize(
    ("arguments", "text"),
    [('{"input":"a\\nb"}', "a\nb"), ('{"x":1,"input":""}', ""), ('{"x":1}', '{"x":1}'), ("a", "a"), ("", "")],
)
def test_free_text_is_the_input_or_all_there_is(arguments: str, text: str) -> None:
    assert free_text(arguments) == text
