import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.bridge import gemini_objects
from rejoinder.bridge.errors import BrokenStream
from rejoinder.bridge.gemini_objects import Objects

_JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='ab"\\{}[],: é', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
_OBJECTS = st.lists(st.dictionaries(st.text(max_size=3), _JSON, max_size=3), max_size=4)


@given(_OBJECTS, st.lists(st.integers(min_value=0), max_size=6), st.sampled_from([None, 2]))
def test_objects_of_an_array_come_out_however_it_is_cut(
    values: list[object], cuts: list[int], indent: int | None
) -> None:
    body = json.dumps(values, indent=indent, ensure_ascii=False).encode()
    places = sorted({0, len(body), *(cut % len(body) for cut in cuts)})
    reader = Objects()

    found = [one for start, end in pairwise(places) for one in reader.feed(body[start:end])]

    assert [json.loads(one) for one in found] == values


def test_an_object_comes_out_as_soon_as_it_is_whole_and_as_it_was_written() -> None:
    reader = Objects()

    assert reader.feed(b'[{"a": "}"') == []
    assert reader.feed(b' },\r\n{"b"') == [b'{"a": "}" }']
    assert reader.feed(b": 1}\n]") == [b'{"b": 1}']


def test_an_object_may_stand_alone() -> None:
    assert Objects().feed(b'  {"a":{}}  ') == [b'{"a":{}}']


@pytest.mark.parametrize("body", [b'["a"]', b"7", b"[{}, x]", b"nothing"])
def test_what_is_no_list_of_objects_breaks_the_answer(body: bytes) -> None:
    with pytest.raises(BrokenStream, match="no list of objects"):
        Objects().feed(body)


def test_an_object_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemini_objects, "MAX_OBJECT", 10)
    reader = Objects()
    reader.feed(b'{"a":1234')

    with pytest.raises(BrokenStream, match="larger than 10 bytes"):
        reader.feed(b"5678")
