import dataclasses

import pytest

from rejoinder.bridge.dialect import Call
from tests.bridge.prompts import prompt


def test_a_call_is_a_post_without_headers_of_its_own() -> None:
    call = Call("/chat/completions", b"{}", True)
    assert (call.method, dict(call.headers)) == ("POST", {})


def test_calls_and_prompts_stay_what_they_are() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Call("/", b"", False).body = b"x"  # type: ignore[misc]  # that it cannot be assigned is the point
    with pytest.raises(dataclasses.FrozenInstanceError):
        prompt("hi").model = "x"  # type: ignore[misc]  # that it cannot be assigned is the point
