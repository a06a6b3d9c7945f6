import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.bridge.freetext import FreeText


def told(pieces: Iterable[str]) -> str:
    """The text, which is the same whether it is put together from what was told or asked for at the end."""
    text = FreeText()
    parts = [text.feed(piece) for piece in pieces]
    parts.append(text.close())
    assert "".join(parts) == text.value
    return text.value


CASES = [
    ('{"input":"*** Begin Patch\\n+a\\t\\"b\\" \\\\ \\/ \\b\\f\\r"}', '*** Begin Patch\n+a\t"b" \\ / \b\f\r'),
    ('{"input":""}', ""),
    (' {\n  "input" :\t"x" }\n', "x"),
    ('{"input":"\\u00e9\\u2028é\\ud83d\\ude00😀"}', "é\u2028é😀😀"),
    ('{"input":"a","other":1}', "a"),
    ('{"other":[1,{"input":"no"}],"input":"a\\nb"}', "a\nb"),
    ('{"\\u0069nput":"a"}', "a"),
    ('{"input":"{\\"input\\":\\"twice\\"}"}', '{"input":"twice"}'),
    ('{"input":5}', '{"input":5}'),
    ('{"input":null}', '{"input":null}'),
    ('{"patch":"x"}', '{"patch":"x"}'),
    ('{"in put":"x"}', '{"in put":"x"}'),
    ("{}", "{}"),
    ('["input"]', '["input"]'),
    ('"input"', '"input"'),
    ("*** Begin Patch\n{", "*** Begin Patch\n{"),
    ("", ""),
    (" ", " "),
    ('{"inp', '{"inp'),
    ('{"input":', '{"input":'),
    ('{"input"' + " " * 300 + ':"x"}', "x"),
    ('{"input"' + " " * 300 + ":5}", '{"input"' + " " * 300 + ":5}"),
]


@pytest.mark.parametrize(("arguments", "text"), CASES)
def test_the_text_is_the_same_wherever_the_arguments_are_cut(arguments: str, text: str) -> None:
    assert told([arguments]) == text
    assert told(arguments) == text
    for cut in range(len(arguments) + 1):
        assert told([arguments[:cut], arguments[cut:]]) == text


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        ("\\ud83d", "\ufffd"),
        ("\\ude00", "\ufffd"),
        ("\\ud83d\\ud83d\\ude00", "\ufffd😀"),
        ("\\ud83dx", "\ufffdx"),
        ("\\ud83d\\n", "\ufffd\n"),
        ("\\ud83d\\u0041", "\ufffdA"),
        ("\\uZZZZ", "\ufffd"),
        ("\\u00 9", "\ufffd"),
        ("\\ud83d\\uZZZZ", "\ufffd\ufffd"),
        ("\\x\\'", "x'"),
        ("two\nlines\x00", "two\nlines\x00"),
    ],
)
def test_what_no_json_writer_would_write_still_says_something(inside: str, text: str) -> None:
    arguments = f'{{"input":"{inside}"}}'
    for cut in range(len(arguments) + 1):
        assert told([arguments[:cut], arguments[cut:]]) == text
    assert text.encode().decode() == text


def test_text_is_told_as_soon_as_it_is_certain() -> None:
    text = FreeText()
    pieces = ['{"in', 'put":', '"a', "b\\", "n\\u00", "e9\\ud83d", "\\ude", '00c"', ',"x":1}', "}"]
    assert [text.feed(piece) for piece in pieces] == ["", "", "a", "b", "\n", "é", "", "😀c", "", ""]
    assert text.close() == ""


def test_arguments_cut_off_in_the_middle_tell_what_came() -> None:
    assert told(['{"input":"abc\\']) == "abc"
    assert told(['{"input":"abc\\ud83d']) == "abc"
    assert told(['{"other":1,"input":"abc']) == '{"other":1,"input":"abc'


@given(
    st.dictionaries(st.sampled_from(["input", "other"]), st.text(), min_size=1)
    | st.dictionaries(st.text(), st.integers()),
    st.booleans(),
    st.sampled_from([None, 2]),
    st.data(),
)
def test_any_object_cut_anyhow_says_what_a_json_parser_says(
    arguments: dict[str, object], ascii_only: bool, indent: int | None, data: st.DataObject
) -> None:
    written = json.dumps(arguments, ensure_ascii=ascii_only, indent=indent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=6)))
    pieces = [written[start:end] for start, end in zip([0, *cuts], [*cuts, len(written)], strict=True)]
    value = json.loads(written).get("input")
    assert told(pieces) == (value if isinstance(value, str) else written)


@given(st.text().filter(lambda text: not text.lstrip().startswith("{")), st.integers(0, 9))
def test_any_text_that_is_no_object_is_the_text(text: str, cut: int) -> None:
    assert told([text[:cut], text[cut:]]) == text
