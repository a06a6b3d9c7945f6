import json

import pytest
from msgspec import Raw

from rejoinder.bridge.fragments import joined_chunks, joined_details, shown


def raws(*values: object) -> list[Raw]:
    return [Raw(json.dumps(value).encode()) for value in values]


def read(values: list[Raw]) -> list[object]:
    return [json.loads(bytes(value)) for value in values]


def test_text_of_one_entry_grows_and_its_signature_may_come_alone() -> None:
    fragments = raws(
        {"type": "reasoning.text", "text": "Be", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.text", "text": "fore", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.text", "signature": "sig", "format": "anthropic-claude-v1", "index": 0},
    )

    assert read(joined_details(fragments)) == [
        {"type": "reasoning.text", "text": "Before", "format": "anthropic-claude-v1", "index": 0, "signature": "sig"}
    ]


def test_a_summary_grows_and_a_later_null_takes_nothing_away() -> None:
    fragments = raws(
        {"type": "reasoning.summary", "summary": "a", "id": "rs_1", "index": 0},
        {"type": "reasoning.summary", "summary": "b", "id": None, "index": 0},
    )

    assert read(joined_details(fragments)) == [{"type": "reasoning.summary", "summary": "ab", "id": "rs_1", "index": 0}]


def test_encrypted_data_is_what_came_last() -> None:
    fragments = raws(
        {"type": "reasoning.encrypted", "data": "half", "index": 0},
        {"type": "reasoning.encrypted", "data": "whole", "index": 0},
    )

    assert read(joined_details(fragments)) == [{"type": "reasoning.encrypted", "data": "whole", "index": 0}]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"type": "reasoning.encrypted", "data": "x", "index": 0, "id": "a"}, id="another type"),
        pytest.param({"type": "reasoning.text", "text": "x", "index": 1, "id": "a"}, id="another index"),
        pytest.param({"type": "reasoning.text", "text": "x", "index": 0, "id": "b"}, id="another id"),
        pytest.param({"type": "reasoning.text", "text": "x"}, id="no index"),
        pytest.param("not even an object", id="no object"),
    ],
)
def test_entries_that_differ_stay_apart_and_as_they_came(other: object) -> None:
    first = {"type": "reasoning.text", "text": "a", "index": 0, "id": "a"}

    assert joined_details(raws(first, other)) == raws(first, other)


def test_fragments_find_their_entry_across_another_one() -> None:
    fragments = raws(
        {"type": "reasoning.text", "text": "a", "index": 0},
        {"type": "reasoning.text", "text": "b", "index": 1},
        {"type": "reasoning.text", "text": "c", "index": 0},
    )

    assert read(joined_details(fragments)) == [
        {"type": "reasoning.text", "text": "ac", "index": 0},
        {"type": "reasoning.text", "text": "b", "index": 1},
    ]


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        ({"type": "reasoning.text", "text": "said"}, "said"),
        ({"type": "reasoning.summary", "summary": "in short"}, "in short"),
        ({"type": "reasoning.encrypted", "data": "gAAA"}, ""),
        ({"type": "reasoning.text", "text": 7}, ""),
    ],
)
def test_a_detail_shows_its_text_or_its_summary(detail: object, text: str) -> None:
    [raw] = raws(detail)

    assert shown(raw) == text


def test_thinking_chunks_of_a_stream_become_the_one_chunk_of_a_whole_answer() -> None:
    fragments = raws(
        {"type": "thinking", "thinking": [{"type": "text", "text": "12 * "}]},
        {"type": "thinking", "thinking": [{"type": "text", "text": "12"}], "closed": True},
        {"type": "thinking", "thinking": []},
    )

    assert read(joined_chunks(fragments)) == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "12 * 12"}], "closed": True}
    ]


def test_what_is_no_plain_text_inside_a_chunk_keeps_its_place() -> None:
    reference = {"type": "reference", "reference_ids": [1]}
    fragments = raws(
        {"type": "thinking", "thinking": "a"},
        {"type": "thinking", "thinking": [{"type": "text", "text": "b"}, reference, {"type": "text", "text": "c"}]},
    )

    assert read(joined_chunks(fragments)) == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "ab"}, reference, {"type": "text", "text": "c"}]}
    ]


def test_no_chunks_are_no_chunk() -> None:
    assert joined_chunks([]) == []
