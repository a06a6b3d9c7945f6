import json
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from rejoinder.bridge.compaction import (
    DEFAULT_THRESHOLD,
    IMAGE_TOKENS,
    INSTRUCTION,
    KEPT_BYTES,
    PREAMBLE,
    estimate,
    expanded,
    retained,
    sealed_summary,
    summary_items,
    summary_of,
    summary_request,
    triggered,
    wanted,
)
from rejoinder.bridge.envelope import Envelope, Issuer, Seal
from rejoinder.bridge.errors import UpstreamError
from rejoinder.bridge.toolbox import Toolbox
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.items import Item, Message
from rejoinder.wire.request import CreateRequest
from rejoinder.wire.responses import OutputItem, OutputMessage, OutputRefusal, OutputText, ReasoningItem, Response
from tests.bridge.prompts import Fields, assistant, call, function, item, output, user

SEAL = Seal([b"k" * 32], random=bytes)
OWNER = "ann"
TRIGGER: Fields = {"type": "compaction_trigger"}
TOOLS: Fields = {"type": "additional_tools", "role": "developer", "tools": []}
SETTINGS: Fields = {"type": "configuration_update", "reasoning": {"effort": "low"}}
SYSTEM: Fields = {"type": "message", "role": "system", "content": "be brief"}
DEVELOPER: Fields = {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "no jokes"}]}


def compaction(text: str = "what was said", *, owner: str = OWNER) -> Fields:
    return {"type": "compaction", "encrypted_content": SEAL.close(sealed_summary(text), owner=owner)}


def summary(text: str = "what was said") -> Fields:
    content = [{"type": "input_text", "text": PREAMBLE + text}]
    return {"type": "message", "role": "developer", "content": content}


def unsealed(text: str) -> Envelope | None:
    return SEAL.open(text, owner=OWNER)


def items(*said: Fields) -> list[Item]:
    return [item(**fields) for fields in said]


def after(*said: Fields, native: bool = False) -> list[Fields]:
    return [json.loads(one.raw) for one in expanded(items(*said), unsealed, native=native)]


def test_a_summary_is_read_in_the_place_of_what_it_stands_for() -> None:
    before = [SYSTEM, TOOLS, user("one"), call("a"), output("a"), assistant("yes"), SETTINGS, DEVELOPER, user("two")]
    since = [user("three"), assistant("fine"), user("four")]
    for kind in ("compaction", "compaction_summary"):
        assert after(*before, {**compaction(), "type": kind}, *since) == [
            *[SYSTEM, TOOLS, user("one"), SETTINGS, DEVELOPER, user("two")],
            summary(),
            *since,
        ]


def test_only_the_newest_summary_counts() -> None:
    said = [user("one"), compaction("old"), assistant("a"), user("two"), compaction("new"), user("three")]
    assert after(*said) == [user("one"), user("two"), summary("new"), user("three")]


def test_a_summary_that_was_opened_before_gives_way_to_the_next() -> None:
    assert after(user("one"), summary("old"), assistant("a"), compaction("new")) == [user("one"), summary("new")]


def test_a_conversation_without_a_summary_stays_what_it_is() -> None:
    said = [SYSTEM, user("one"), call("a"), output("a"), assistant("yes")]
    assert after(*said) == said
    assert expanded([], unsealed, native=False) == []


@pytest.mark.parametrize("native", [False, True])
def test_an_order_to_compact_holds_at_the_end_and_nowhere_else(native: bool) -> None:
    said = [user("one"), TRIGGER, user("two"), compaction(), TRIGGER, user("three"), TRIGGER]
    assert after(*said, native=native) == [user("one"), user("two"), summary(), user("three"), TRIGGER]
    assert after(TRIGGER, user("two"), native=native) == [user("two")]


def test_a_provider_that_speaks_this_api_keeps_its_own() -> None:
    own: Fields = {"type": "compaction", "encrypted_content": "gAAAA"}
    said = [user("one"), own, user("two")]
    assert after(*said, native=True) == said
    # Ours opens in front of it as in front of any other.
    assert after(assistant("x"), compaction(), own, user("two"), native=True) == [summary(), own, user("two")]
    assert after(user("one"), own, compaction(), user("two"), native=True) == [user("one"), summary(), user("two")]


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    "foreign",
    [
        compaction(owner="bob")["encrypted_content"],
        "brg1.junk",
        SEAL.close(Envelope(Issuer("chat", "e", "m"), [Raw(b"1")]), owner=OWNER),
    ],
)
def test_a_summary_nobody_here_can_open_is_refused(foreign: str, native: bool) -> None:
    said = [user("one"), {"type": "compaction", "encrypted_content": foreign}, user("two")]
    with pytest.raises(BadRequest) as caught:
        after(*said, native=native)
    assert (caught.value.param, caught.value.code) == ("input", "invalid_encrypted_content")
    # What a newer one stands for need not be opened.
    assert after(*said, compaction(), native=native)[-1] == summary()


def test_state_of_another_provider_is_refused_where_it_is_not_its_own() -> None:
    with pytest.raises(BadRequest, match="could not be verified"):
        after({"type": "compaction", "encrypted_content": "gAAAA"}, user("hi"))


def test_the_newest_words_of_the_user_stay_up_to_a_limit() -> None:
    third = user("x" * (KEPT_BYTES // 3))
    assert after(*[third] * 4, compaction()) == [*[third] * 2, summary()]
    assert after(third, SYSTEM, third, user("y" * KEPT_BYTES), compaction()) == [
        SYSTEM,
        user("y" * KEPT_BYTES),
        summary(),
    ]
    assert after(user("small"), user("y" * KEPT_BYTES), assistant("x"), user("newest"), compaction()) == [
        user("newest"),
        summary(),
    ]


def kept_of(*said: Fields) -> list[Fields]:
    return [json.loads(one.raw) for one in retained(items(*said))]


def test_of_what_stays_beside_a_summary_the_words_of_users_are_what_is_shown() -> None:
    """http.md §2.2: the retained user messages come before the compaction item."""
    said = [SYSTEM, TOOLS, user("one"), call("a"), output("a"), assistant("yes"), SETTINGS, DEVELOPER, user("two")]
    assert kept_of(*said, TRIGGER) == [user("one"), user("two")]
    assert kept_of(summary("old"), user("three"), assistant("x"), TRIGGER) == [user("three")]
    assert kept_of(SYSTEM, assistant("yes"), TRIGGER) == []
    assert kept_of() == []


def test_of_the_words_of_users_the_newest_are_kept_up_to_a_limit() -> None:
    third = user("x" * (KEPT_BYTES // 3))
    assert kept_of(*[third] * 4, TRIGGER) == [third] * 2
    assert kept_of(user("y" * KEPT_BYTES), assistant("x"), user("newest"), TRIGGER) == [user("newest")]
    assert kept_of(third, user("y" * KEPT_BYTES), TRIGGER) == [user("y" * KEPT_BYTES)]


@pytest.mark.parametrize("said", [[user("one"), SYSTEM, user("x" * KEPT_BYTES), user("two")], [assistant("a")]])
def test_a_compacted_list_is_read_as_what_it_stands_for(said: Sequence[Fields]) -> None:
    """Nothing more stays of the list that a client gets than of the conversation that is compacted on the way."""
    instructions = {"system", "developer"}
    compacted = [*kept_of(*said), compaction()]
    whole = [fields for fields in after(*said, compaction()) if fields.get("role") not in instructions]
    assert [fields for fields in after(*compacted) if fields.get("role") not in instructions] == whole


SOMETHING = st.sampled_from(
    [
        user("hi"),
        user("x" * (KEPT_BYTES // 2)),
        user("y" * KEPT_BYTES),
        assistant("so"),
        call("a"),
        SYSTEM,
        DEVELOPER,
        TOOLS,
        TRIGGER,
        compaction("one"),
        compaction("two"),
    ]
)


@given(st.lists(SOMETHING, max_size=8), st.lists(SOMETHING, max_size=5), st.booleans())
def test_what_was_expanded_once_is_expanded_to_the_same(
    said: Sequence[Fields], since: Sequence[Fields], native: bool
) -> None:
    once = after(*said, native=native)
    assert after(*once, native=native) == once
    # In the turn that compacts and in those that find the summary in the store the model reads the same.
    assert after(*once, compaction("new"), *since, native=native) == after(
        *said, compaction("new"), *since, native=native
    )


@given(st.lists(SOMETHING, max_size=8))
def test_the_newest_words_of_the_user_are_never_lost(said: Sequence[Fields]) -> None:
    newest = [fields for fields in said if fields.get("role") == "user"][-1:]
    assert [fields for fields in after(*said, compaction()) if fields.get("role") == "user"][-1:] == newest
    assert [fields for fields in after(*said) if fields.get("role") == "user"][-1:] == newest


def test_a_summary_is_sealed_with_nobodys_name_on_it() -> None:
    envelope = unsealed(SEAL.close(sealed_summary('say "é\n"'), owner=OWNER))
    assert envelope is not None
    assert envelope.issuer == Issuer("rejoinder", "", "")
    assert [json.loads(bytes(part)) for part in envelope.parts] == [{"summary": 'say "é\n"'}]
    assert after(compaction('say "é\n"')) == [summary('say "é\n"')]


def request(**fields: object) -> CreateRequest:
    return CreateRequest.parse(json.dumps({"model": "m", "input": "hi", **fields}).encode())


def rules(*thresholds: int | None) -> Sequence[Mapping[str, object]]:
    return [{"type": "compaction", "compact_threshold": threshold} for threshold in thresholds]


@pytest.mark.parametrize(
    ("thresholds", "length", "wants"),
    [
        ([1000], 900, False),
        ([1000], 1100, True),
        ([5000, 1000], 1100, True),
        ([1000, None], 1100, True),
        ([None], DEFAULT_THRESHOLD - 100, False),
        ([None], DEFAULT_THRESHOLD + 100, True),
    ],
)
def test_a_conversation_is_compacted_when_it_is_longer_than_the_client_wants(
    thresholds: list[int | None], length: int, wants: bool
) -> None:
    said = items(assistant("x" * (4 * length)))
    assert wanted(request(context_management=rules(*thresholds)), said) is wants
    assert not wanted(request(), said)


PICTURE = "data:image/png;base64," + "A" * 100_000


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        (user("x" * 4000), 1000),
        ({"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]}, IMAGE_TOKENS),
        ({"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}] * 3}, 3 * IMAGE_TOKENS),
        (
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "x" * 4000},
                    {"type": "input_file", "file_data": PICTURE.replace("image/png", "application/pdf")},
                ],
            },
            IMAGE_TOKENS + 1000,
        ),
        (output("a", [{"type": "input_image", "image_url": PICTURE}]), IMAGE_TOKENS),
        ({"type": "image_generation_call", "id": "ig_1", "result": "A" * 100_000}, IMAGE_TOKENS),
        (user(f"what is {PICTURE}?"), 25_000),
        (user("data: " + "x" * 4000), 1000),
    ],
)
def test_the_length_of_an_item_is_that_of_its_text_and_a_picture_is_one(said: Fields, tokens: int) -> None:
    assert tokens <= estimate(items(said)) <= tokens + 100
    assert estimate(items(said, said)) == 2 * estimate(items(said))
    assert estimate([]) == 0


def test_a_trigger_is_one_at_the_end() -> None:
    assert triggered(items(user("hi"), TRIGGER))
    assert not triggered(items(TRIGGER, user("hi")))
    assert not triggered([])


def test_the_summary_is_asked_for_with_what_the_conversation_is_made_of_and_nothing_else() -> None:
    tools = [function("f")]
    original = request(
        instructions="be brief",
        tools=tools,
        tool_choice="required",
        reasoning={"effort": "low"},
        prompt_cache_key="key",
        previous_response_id="resp_1",
        max_output_tokens=5,
        max_tool_calls=1,
        metadata={"a": "b"},
        text={"format": {"type": "json_object"}},
        truncation="disabled",
        context_management=rules(1000),
        background=False,
        stream=False,
        seed=7,
    )
    asking = summary_request(original)
    assert {name: json.loads(bytes(value)) for name, value in asking.raw.items()} == {
        "model": "m",
        "instructions": "be brief",
        "tools": tools,
        "reasoning": {"effort": "low"},
        "prompt_cache_key": "key",
        "stream": True,
        "seed": 7,
        "input": [],
        "tool_choice": "none",
        "truncation": "auto",
    }
    assert asking.input == []
    # All that is cached of the conversation is cached of this request too.
    assert Toolbox.of(asking.tools, [], "auto").functions == Toolbox.of(original.tools, [], "auto").functions


def test_the_order_to_summarise_comes_after_all_that_was_said() -> None:
    said = items(SYSTEM, user("one"), assistant("yes"), TRIGGER)
    *before, order = summary_items(said)
    assert before == said[:-1]
    assert isinstance(order.view, Message)
    assert order.view.role == "user"
    assert json.loads(order.raw)["content"] == [{"type": "input_text", "text": INSTRUCTION}]


def test_the_order_says_nothing_twice_and_breaks_no_line_in_a_sentence() -> None:
    assert "  " not in INSTRUCTION
    assert all(line[:1].isupper() or line[:1].isdigit() or not line for line in INSTRUCTION.splitlines())


def response(*output: OutputItem) -> Response:
    return Response(id="", created_at=0, model="m", output=[*output])


def test_the_summary_is_what_the_model_wrote_and_not_what_it_thought() -> None:
    thought = ReasoningItem("rs_1", "completed", [])
    first = OutputMessage("msg_1", "completed", [OutputText("\nOne "), OutputRefusal("no")])
    second = OutputMessage("msg_2", "completed", [OutputText("two.\n")])
    assert summary_of(response(thought, first, second)) == "One two."


@pytest.mark.parametrize(
    "output",
    [
        [],
        [ReasoningItem("rs_1", "completed", [])],
        [OutputMessage("msg_1", "completed", [OutputText(" \n")])],
        [OutputMessage("msg_1", "completed", [OutputRefusal("no")])],
    ],
)
def test_a_model_that_writes_nothing_wrote_no_summary(output: Sequence[OutputItem]) -> None:
    with pytest.raises(UpstreamError, match="the model wrote no summary of the conversation"):
        summary_of(response(*output))
