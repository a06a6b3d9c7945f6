import msgspec
import pytest

from rejoinder.wire.formats import TextFormat


@pytest.mark.parametrize(
    ("raw", "missing"),
    [
        (b'{"type":"json_schema","schema":{}}', "name"),
        (b'{"type":"json_schema","name":"n"}', "schema"),
        (b'{"type":"json_schema","name":"n","schema":null}', "schema"),
    ],
)
def test_a_schema_has_a_name_and_is_there(raw: bytes, missing: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=f"Object missing required field `{missing}`"):
        msgspec.json.decode(raw, type=TextFormat)


def test_the_other_forms_need_neither() -> None:
    assert msgspec.json.decode(b'{"type":"json_object"}', type=TextFormat).type == "json_object"
    schema = msgspec.json.decode(b'{"type":"json_schema","name":"n","schema":{ }}', type=TextFormat).schema
    assert bytes(schema) == b"{ }"
