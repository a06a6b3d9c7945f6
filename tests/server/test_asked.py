from typing import get_args

import pytest
from starlette.datastructures import QueryParams

from rejoinder.server.asked import flag, included, whole_number
from rejoinder.server.errors import InvalidRequest
from rejoinder.wire.request import Include


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("", False),
        ("stream", False),
        ("stream=", False),
        ("stream=true", True),
        ("stream=True", True),
        ("stream=1", True),
        ("stream=false", False),
        ("stream=FALSE", False),
        ("stream=0", False),
        ("other=true", False),
    ],
)
def test_a_flag_is_up_when_it_says_so(query: str, value: bool) -> None:
    assert flag(QueryParams(query), "stream") is value


@pytest.mark.parametrize("text", ["yes", "2", "tru", " true", "null", "\x00", "x" * 5000])
def test_a_flag_that_is_neither_up_nor_down_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        flag({"stream": text}, "stream")
    assert str(caught.value) == f"Invalid 'stream': expected 'true' or 'false', but got '{text[:20]}' instead."
    assert (caught.value.param, caught.value.code) == ("stream", "invalid_value")


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("17", 17), ("007", 7), ("9" * 15, 10**15 - 1)])
def test_a_whole_number_is_read(text: str, number: int) -> None:
    assert whole_number({"starting_after": text}, "starting_after") == number


def test_a_number_that_is_not_there_is_none() -> None:
    assert whole_number({}, "starting_after") is None


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", " 1", "ten", "١", "²", "9" * 16, "9" * 5000])
def test_a_number_that_is_none_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        whole_number({"starting_after": text}, "starting_after")
    assert str(caught.value) == (
        f"Invalid 'starting_after': expected an integer from 0 on, but got '{text[:20]}' instead."
    )
    assert (caught.value.param, caught.value.code) == ("starting_after", "invalid_value")


@pytest.mark.parametrize(
    "query",
    [
        "include[]=message.input_image.image_url&include[]=file_search_call.results",
        "include=message.input_image.image_url&include=file_search_call.results",
        "include%5B%5D=message.input_image.image_url&include=file_search_call.results",
        "include=file_search_call.results&include=file_search_call.results&include[]=message.input_image.image_url",
    ],
)
def test_what_is_included_is_asked_for_with_or_without_brackets(query: str) -> None:
    """http.md §1, Notes."""
    assert included(QueryParams(query)) == {"message.input_image.image_url", "file_search_call.results"}


def test_everything_that_can_be_included_may_be_asked_for_and_nothing_has_to() -> None:
    everything = get_args(Include)
    assert included(QueryParams([("include", name) for name in everything])) == set(everything)
    assert included(QueryParams("")) == frozenset()


@pytest.mark.parametrize("name", ["everything", "", "reasoning", "x" * 5000])
def test_what_nobody_can_include_is_an_error_that_says_what_one_can(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        included(QueryParams([("include[]", "file_search_call.results"), ("include[]", name)]))
    known = ", ".join(f"'{one}'" for one in sorted(get_args(Include)))
    assert str(caught.value) == f"Invalid value: '{name[:50]}'. Supported values are: {known}."
    assert (caught.value.param, caught.value.code) == ("include", "invalid_value")
