import msgspec
import pytest
from msgspec import Struct

from rejoinder.wire.errors import BadFrame, BadRequest, WireError, bad_request


class Inner(Struct):
    size: int
    name: str = ""


class Outer(Struct):
    inner: list[Inner]


def refused(body: bytes, *, at: str = "") -> BadRequest:
    with pytest.raises(msgspec.MsgspecError) as caught:
        msgspec.json.decode(body, type=Outer)
    return bad_request(caught.value, at=at)


def test_the_tree_has_one_root() -> None:
    assert issubclass(BadRequest, WireError)
    assert issubclass(BadFrame, WireError)
    error = BadRequest("no", param="input", code="invalid_value")
    assert (str(error), error.param, error.code) == ("no", "input", "invalid_value")


def test_a_wrong_type_is_named_with_its_path() -> None:
    error = refused(b'{"inner":[{"size":1},{"size":0.5}]}')
    assert str(error) == "Invalid value for 'inner[1].size': Expected `int`, got `float`."
    assert (error.param, error.code) == ("inner[1].size", "invalid_type")


def test_the_path_hangs_under_the_place_of_what_was_read() -> None:
    assert refused(b'{"inner":[{"size":"x"}]}', at="input[3]").param == "input[3].inner[0].size"
    assert refused(b"[]", at="input[3]").param == "input[3]"


def test_a_body_that_is_wrong_itself_has_no_parameter() -> None:
    error = refused(b"[]")
    assert str(error) == "Invalid value: Expected `object`, got `array`."
    assert (error.param, error.code) == (None, "invalid_type")


@pytest.mark.parametrize(
    ("body", "at", "param"),
    [(b'{"inner":[{}]}', "", "inner[0].size"), (b"{}", "", "inner"), (b"{}", "tools[2]", "tools[2].inner")],
)
def test_a_missing_field_is_said_in_the_words_of_the_contract(body: bytes, at: str, param: str) -> None:
    error = refused(body, at=at)
    assert str(error) == f"Missing required parameter: '{param}'."
    assert (error.param, error.code) == (param, "missing_required_parameter")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("Expected `int`, got `str`", "invalid_type"),
        ("Expected `int | null`, got `float`", "invalid_type"),
        ("Expected `int` >= 1", "invalid_value"),
        ("Expected `float` <= 2.0", "invalid_value"),
        ("Invalid enum value 'x'", "invalid_value"),
        ("Number out of range", "invalid_value"),
        ("Expected `str` matching regex '^a$'", "invalid_value"),
        ("Expected `object` of length <= 16", "invalid_value"),
        ("Expected `str` of length <= 64", "string_above_max_length"),
    ],
)
def test_the_code_says_what_kind_of_wrong_it_is(message: str, code: str) -> None:
    error = bad_request(msgspec.ValidationError(f"{message} - at `$.a[0].b`"))
    assert str(error) == f"Invalid value for 'a[0].b': {message}."
    assert (error.param, error.code) == ("a[0].b", code)


def test_a_key_is_wrong_in_the_place_of_its_object() -> None:
    error = bad_request(msgspec.ValidationError("Expected `str` of length <= 64 - at `key` in `$.metadata`"))
    assert str(error) == "Invalid value for 'metadata': Expected `str` of length <= 64."
    assert (error.param, error.code) == ("metadata", "string_above_max_length")


def test_what_is_no_json_is_said_to_be_none() -> None:
    error = refused(b'{"inner":')
    assert str(error) == "The request is not valid JSON: Input data was truncated."
    assert (error.param, error.code) == (None, None)
    assert refused(b"{]", at="input[1]").param == "input[1]"


def test_a_message_of_several_lines_stays_whole() -> None:
    error = bad_request(msgspec.ValidationError("first\nsecond - at `$.a`"))
    assert (str(error), error.param) == ("Invalid value for 'a': first\nsecond.", "a")


@pytest.mark.parametrize(("path", "name"), [("", "odd"), (" - at `$.a[0]`", "a[0].odd")])
def test_a_field_nobody_knows_is_named(path: str, name: str) -> None:
    error = bad_request(msgspec.ValidationError(f"Object contains unknown field `odd`{path}"))
    assert (str(error), error.param, error.code) == (f"Unknown parameter: '{name}'.", name, "unknown_parameter")
