import dataclasses
import json

import pytest

from rejoinder.bridge.dialect import Call
from rejoinder.bridge.losses import Loss
from tests.bridge.prompts import Fields, prompt, user

JSON: Fields = {"format": {"type": "json_object"}}


def update(**fields: object) -> Fields:
    return {"type": "configuration_update", **fields}


def test_a_call_is_a_post_without_headers_of_its_own() -> None:
    call = Call("/chat/completions", b"{}", True)
    assert (call.method, dict(call.headers)) == ("POST", {})


def test_calls_and_prompts_stay_what_they_are() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Call("/", b"", False).body = b"x"  # type: ignore[misc]  # that it cannot be assigned is the point
    with pytest.raises(dataclasses.FrozenInstanceError):
        prompt("hi").model = "x"  # type: ignore[misc]  # that it cannot be assigned is the point


def test_notes_and_losses_are_said_once() -> None:
    asked = prompt("hi")
    loss = Loss("reasoning", "rs_1", "removed", "no_words")

    for _ in range(2):
        asked.note("a")
        asked.ignore({"user": None, "seed": 0})
        asked.lose(loss)

    assert asked.notes == ["a", "seed: not understood by this upstream"]
    assert asked.losses == [loss]


@pytest.mark.parametrize(
    ("asked", "updates", "effort"),
    [
        ({}, [], None),
        ({"reasoning": {"effort": "low"}}, [], "low"),
        ({"reasoning": {"summary": "auto"}}, [update(reasoning={"effort": "high"})], "high"),
        ({"reasoning": {"effort": "low"}}, [update(reasoning={"effort": "max"}), update(reasoning={})], "max"),
        ({"reasoning": {"effort": "low"}}, [update(text=JSON), update(reasoning={"effort": "enormous"})], "low"),
        ({}, [update(reasoning={"effort": "high"}), update(reasoning={"effort": "none"})], "none"),
    ],
)
def test_the_last_effort_that_is_known_counts(asked: Fields, updates: list[Fields], effort: str | None) -> None:
    assert prompt([user("a"), *updates], None, **asked).effort == effort


def test_the_last_format_counts() -> None:
    text: Fields = {"format": {"type": "text"}}
    for asked, updates, form in (
        ({}, [], None),
        ({"text": {"verbosity": "low"}}, [], None),
        ({"text": JSON}, [update(reasoning={"effort": "low"}), update(text={})], "json_object"),
        ({"text": text}, [update(text=JSON)], "json_object"),
        ({}, [update(text=JSON), update(text=text)], "text"),
    ):
        found = prompt([user("a"), *updates], None, **asked).format
        assert (found.type if found is not None else None) == form


def test_a_prompt_without_effort_is_otherwise_the_same() -> None:
    said = [user("a"), update(reasoning={"effort": "max"}, text=JSON), user("b")]
    asked = prompt(said, None, reasoning={"effort": "low", "summary": "auto"})

    bare = asked.without_effort()

    assert bare.effort is None
    assert bare.format == asked.format
    assert bare.request.fields.reasoning is not None
    assert bare.request.fields.reasoning.summary == "auto"
    assert [json.loads(item.raw) for item in bare.items] == [json.loads(item.raw) for item in asked.items]
    assert asked.effort == "max"
    assert prompt(said).without_effort().effort is None


@pytest.mark.parametrize(
    ("reasoning", "ways"),
    [
        (None, {}),
        ({}, {"reasoning.context": None, "reasoning.mode": None}),
        ({"context": "auto", "mode": "standard"}, {"reasoning.context": None, "reasoning.mode": None}),
        ({"context": "all_turns", "mode": "pro"}, {"reasoning.context": "all_turns", "reasoning.mode": "pro"}),
    ],
)
def test_only_an_unusual_way_of_thinking_is_one(reasoning: Fields | None, ways: Fields) -> None:
    assert prompt("hi", None, reasoning=reasoning).ways_of_thinking == ways


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({}, None),
        ({"top_logprobs": 0}, None),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"include": ["reasoning.encrypted_content"]}, None),
    ],
)
def test_log_probabilities_are_asked_for_in_two_ways(asked: Fields, param: str | None) -> None:
    made = prompt("hi", None, **asked)

    assert made.wants_logprobs is (param is not None)
    if param is not None:
        error = made.without_logprobs()
        assert (error.param, error.code) == (param, "unsupported_parameter")
