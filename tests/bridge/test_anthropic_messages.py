import base64
import itertools
import json
import re
from collections.abc import Sequence

import pytest

from rejoinder.bridge.anthropic import AnthropicDialect
from rejoinder.bridge.anthropic_profile import AnthropicProfile
from rejoinder.bridge.errors import Unsupported, UpstreamError
from rejoinder.bridge.losses import Loss
from tests.bridge.anthropic_prompts import (
    BOUND,
    NEW,
    OLD,
    PLAIN,
    body,
    body_of,
    envelope,
    messages,
    prompt_for,
    thought,
)
from tests.bridge.prompts import Fields, assistant, call, function, output, user
from tests.bridge.recordings import Json, Object, objects

TOOLS = [function("f")]
PNG = b"\x89PNG\r\n\x1a\n...."
THINKING = {"type": "thinking", "thinking": "so", "signature": "s"}


def developer(text: object) -> Fields:
    return {"type": "message", "role": "developer", "content": text}


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def blocks(said: Sequence[Fields], at: int = 0, profile: AnthropicProfile = PLAIN, **fields: object) -> list[Object]:
    made = prompt_for(said, profile=profile, **fields)  # type: ignore[arg-type]  # settings of the prompt
    return objects(objects(body_of(made, profile)["messages"])[at]["content"])


def text(said: str) -> Object:
    return {"type": "text", "text": said}


# Roles.


def test_a_conversation_alternates_and_says_nothing_empty() -> None:
    said = [
        user("a"),
        user(" \n"),
        user([{"type": "input_text", "text": "b"}, {"type": "input_text", "text": ""}]),
        assistant("c"),
        assistant(" "),
        assistant([{"type": "refusal", "refusal": "d"}, {"type": "refusal", "refusal": " "}]),
        user("e"),
    ]

    assert messages(said) == [
        {"role": "user", "content": [text("a"), text("b")]},
        {"role": "assistant", "content": [text("c"), text("d")]},
        {"user": "e"},
    ]


def test_leading_instructions_are_blocks_of_the_system() -> None:
    said = [
        developer("one"),
        developer([{"type": "input_text", "text": "two"}, {"type": "input_text", "text": ""}]),
        user("a"),
    ]

    found = body(said, instructions="zero")

    assert found["system"] == [text("zero"), text("one"), text("two")]
    assert found["messages"] == [{"role": "user", "content": [text("a")]}]


def test_instructions_alone_are_what_the_user_says() -> None:
    assert body([developer("one"), developer("two")])["system"] == [text("one")]
    assert messages([developer("one"), developer("two")]) == [{"user": "<system>\ntwo\n</system>"}]


def test_a_later_system_message_stays_in_its_place() -> None:
    said = [user("a"), developer("now"), assistant("b"), user("c")]

    assert messages(said, model=NEW) == [{"user": "a"}, {"system": "now"}, {"assistant": "b"}, {"user": "c"}]
    assert messages(said, model=OLD) == [
        {"role": "user", "content": [text("a"), text("<system>\nnow\n</system>")]},
        {"assistant": "b"},
        {"user": "c"},
    ]


def test_a_system_message_before_the_users_stands_behind_it() -> None:
    said = [user("a"), assistant("b"), developer("now"), developer("then"), user("c"), user("d")]

    assert messages(said, model=NEW) == [
        {"user": "a"},
        {"assistant": "b"},
        {"user": "c"},
        {"role": "system", "content": [text("now"), text("then")]},
        {"user": "d"},
    ]


def test_a_system_message_the_user_says_nothing_to_is_the_users_own() -> None:
    said = [user("a"), assistant("b"), developer("now")]

    expected = [{"user": "a"}, {"assistant": "b"}, {"user": "<system>\nnow\n</system>"}]
    assert messages(said, model=NEW) == expected
    # And so it stays when the assistant answers to it.
    assert messages([*said, assistant("c"), user("d")], model=NEW)[:3] == expected


def test_a_system_message_holds_nothing_but_text() -> None:
    with pytest.raises(Unsupported, match="text only"):
        body([user("a"), developer([{"type": "input_image", "image_url": "https://a.example/b.png"}])])


def test_a_conversation_that_begins_with_the_assistant_gets_a_beginning() -> None:
    made = prompt_for([assistant("hello"), user("a")])

    [first, *_] = objects(body_of(made)["messages"])

    assert first == {"role": "user", "content": [text("(The conversation begins with the assistant.)")]}
    body_of(made)
    assert len(made.notes) == 1


def test_an_assistant_that_is_to_go_on_ends_without_spaces() -> None:
    said = [user("a"), assistant("Well, \n")]

    assert messages(said) == [{"user": "a"}, {"assistant": "Well,"}]
    assert messages([*said, user("b")])[1] == {"assistant": "Well, \n"}


@pytest.mark.parametrize("said", [[], [user(" ")], [assistant("")]])
def test_a_conversation_of_nothing_is_refused(said: list[Fields]) -> None:
    with pytest.raises(Unsupported, match="empty"):
        body(said)


# Calls.


def test_results_come_together_and_before_what_the_user_says() -> None:
    said = [
        *(user("a"), call("c1", "f", '{"x": 1}'), developer("now"), output("c1", "one"), user("b")),
        *(call("c2", "f", ""), user("c"), output("c2", "two")),
    ]

    assert messages(said, tools=TOOLS) == [
        {"user": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
                text("<system>\nnow\n</system>"),
                text("b"),
            ],
        },
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c2", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c2", "content": "two"}, text("c")]},
    ]


def test_parallel_calls_and_their_results_are_one_message_each() -> None:
    said = [user("a"), assistant("b"), call("c1"), call("c2"), output("c1"), output("c2")]

    [_, asked, answered] = objects(body(said, tools=TOOLS)["messages"])

    assert [block["type"] for block in objects(asked["content"])] == ["text", "tool_use", "tool_use"]
    assert [block["tool_use_id"] for block in objects(answered["content"])] == ["c1", "c2"]


@pytest.mark.parametrize("arguments", ["[1]", "{broken", "7"])
def test_arguments_that_are_no_object_go_as_text(arguments: str) -> None:
    made = prompt_for([user("a"), call("c1", "f", arguments), output("c1")], tools=TOOLS)

    [asked] = objects(objects(body_of(made)["messages"])[1]["content"])

    assert asked["input"] == {"_raw": arguments}
    assert made.notes == ["input: arguments of a call that are no JSON object went as text"]


def test_what_a_result_holds() -> None:
    image = {"type": "input_image", "image_url": data_url("image/png", PNG)}
    outputs: list[object] = [
        "",
        [{"type": "input_text", "text": " "}],
        [{"type": "input_text", "text": "a"}],
        [{"type": "input_text", "text": "a"}, image],
        [{"type": "refusal", "refusal": "no"}],
    ]
    said = [user("a"), *itertools.chain(*([call(f"c{at}"), output(f"c{at}", one)] for at, one in enumerate(outputs)))]

    found = objects(body(said, tools=TOOLS)["messages"])[2::2]

    results = [objects(message["content"])[0] for message in found]
    assert "content" not in results[0]
    assert "content" not in results[1]
    assert results[2]["content"] == "a"
    assert [part["type"] for part in objects(results[3]["content"])] == ["text", "image"]
    assert results[4]["content"] == [text("no")]
    assert not any("is_error" in result for result in results)


def test_a_result_that_failed_says_so() -> None:
    said = [user("a"), call("c1"), {**output("c1"), "status": "incomplete"}]

    [result] = objects(objects(body(said, tools=TOOLS)["messages"])[2]["content"])

    assert result["is_error"] is True


def test_ids_are_made_legal_and_stay_apart() -> None:
    said = [user("a")]
    for call_id in ("call.1", "call|1", "c1", "c1", "c1"):
        said.extend([call(call_id), output(call_id)])

    found = objects(body(said, tools=TOOLS)["messages"])[1:]

    used = [str(objects(message["content"])[0]["id"]) for message in found[::2]]
    assert [objects(message["content"])[0]["tool_use_id"] for message in found[1::2]] == used
    assert len(set(used)) == 5
    assert used[2] == "c1"
    assert all(re.fullmatch("[a-zA-Z0-9_-]+", one) for one in used)
    assert [str(objects(one["content"])[0]["id"]) for one in objects(body(said, tools=TOOLS)["messages"])[1::2]] == used


# Pictures, documents, files.


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
    ],
)
def test_a_picture_is_called_what_it_is(data: bytes, kind: str) -> None:
    sources = [
        objects([block["source"]])[0]
        for block in blocks(
            [
                user(
                    [
                        {"type": "input_image", "image_url": data_url("image/wrong", data), "detail": "high"},
                        {"type": "input_file", "file_data": data_url("", data)},
                    ]
                )
            ]
        )
    ]

    expected: Object = {"type": "base64", "media_type": kind, "data": base64.b64encode(data).decode()}
    assert sources == [expected, expected]


def test_what_is_elsewhere_goes_by_its_address() -> None:
    said = [
        user(
            [
                {"type": "input_image", "image_url": "https://a.example/b.png"},
                {"type": "input_file", "file_url": "https://a.example/b.pdf", "filename": "b.pdf"},
            ]
        )
    ]

    assert blocks(said) == [
        {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
        {"type": "document", "source": {"type": "url", "url": "https://a.example/b.pdf"}, "title": "b.pdf"},
    ]


def test_a_file_id_means_something_where_the_upstream_gave_it() -> None:
    said = [user([{"type": "input_file", "file_id": "f1"}, {"type": "input_image", "file_id": "f2"}])]

    found = blocks(said, profile=AnthropicProfile(caching="none", file_ids=True))

    assert [block["source"] for block in found] == [
        {"type": "file", "file_id": "f1"},
        {"type": "file", "file_id": "f2"},
    ]
    with pytest.raises(Unsupported, match="file_id"):
        blocks(said)


def test_files_go_as_documents() -> None:
    pdf = b"%PDF-1.7 ..."
    said = [
        user(
            [
                {"type": "input_file", "file_data": data_url("application/octet-stream", pdf), "filename": "a.pdf"},
                {"type": "input_file", "file_data": base64.b64encode(pdf).decode()},
                {"type": "input_file", "file_data": "data:text/plain,a%20b%0A", "filename": "b.txt"},
                {"type": "input_file", "file_data": data_url("application/json", b"{}")},
            ]
        )
    ]

    source: Object = {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(pdf).decode()}
    assert blocks(said) == [
        {"type": "document", "source": source, "title": "a.pdf"},
        {"type": "document", "source": source},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a b\n"}, "title": "b.txt"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "{}"}},
    ]


def test_where_there_are_no_documents_files_go_as_text() -> None:
    profile = AnthropicProfile(documents=False, caching="none")
    said = [
        user(
            [
                {"type": "input_file", "file_data": "data:text/plain,a", "filename": "a.txt"},
                {"type": "input_file", "file_data": "data:text/plain,b"},
                {"type": "input_file", "file_data": "data:text/plain,%20"},
                {"type": "input_file", "file_data": "data:text/plain,"},
            ]
        )
    ]

    assert blocks(said, profile=profile) == [text("a.txt:\na"), text("b"), text(" "), text("(an empty file)")]
    for part in ({"file_url": "https://a.example/b.pdf"}, {"file_data": data_url("application/pdf", b"%PDF-")}):
        with pytest.raises(Unsupported, match="documents"):
            blocks([user([{"type": "input_file", **part}])], profile=profile)


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"type": "input_audio", "input_audio": {"data": "", "format": "mp3"}}, "audio"),
        ({"type": "input_image", "image_url": data_url("image/svg+xml", b"<svg/>")}, "image/svg"),
        ({"type": "input_image", "image_url": "data:;base64,AAAA"}, "'unknown'"),
        ({"type": "input_image"}, "file_id"),
        ({"type": "input_file", "file_data": data_url("application/zip", b"PK\xff\xfe")}, "application/zip"),
        ({"type": "input_file", "file_data": data_url("", b"\xff\xfe")}, "'unknown'"),
        ({"type": "input_file", "file_data": "no base64!"}, "no base64"),
        ({"type": "input_image", "image_url": "data:image/png"}, "without data"),
    ],
)
def test_what_it_cannot_take_is_refused_by_kind(part: Fields, why: str) -> None:
    with pytest.raises(Unsupported, match=re.escape(why)) as refused:
        body([user([part])])

    assert refused.value.param == "input"


def test_an_assistant_says_no_pictures() -> None:
    with pytest.raises(Unsupported, match="only users"):
        body([user("a"), assistant([{"type": "input_image", "image_url": "https://a.example/b.png"}]), user("b")])


# What the provider gave.


def test_thinking_goes_back_where_it_was() -> None:
    redacted = {"type": "redacted_thinking", "data": "=="}
    opened = {"e1": envelope(THINKING), "e2": envelope(redacted), "e3": envelope(THINKING)}
    said = [
        user("a"),
        thought("e1", text="so"),
        thought("e2"),
        call("c1"),
        output("c1"),
        thought("e3"),
        assistant("b"),
        user("c"),
    ]

    found = objects(body(said, opened, tools=TOOLS)["messages"])

    assert found[1]["content"] == [THINKING, redacted, {"type": "tool_use", "id": "c1", "name": "f", "input": {}}]
    assert found[3]["content"] == [THINKING, text("b")]


def test_thinking_that_cannot_be_opened_is_not_said() -> None:
    said = [user("a"), thought("foreign", text="so"), assistant("b"), user("c")]

    assert messages(said) == [{"user": "a"}, {"assistant": "b"}, {"user": "c"}]


def test_thinking_that_nothing_follows_is_not_said() -> None:
    opened = {"e1": envelope(THINKING), "e2": envelope(THINKING)}
    made = prompt_for([user("a"), assistant("b"), thought("e1"), user("c"), thought("e2"), user("d")], opened)

    found = objects(body_of(made)["messages"])

    assert [block for message in found for block in objects(message["content"])] == [
        text("a"),
        text("b"),
        text("c"),
        text("d"),
    ]
    body_of(made)
    assert made.losses == [Loss("reasoning", one, "removed", "no_words") for one in ("rs_1", "rs_2")]


CITED = [
    {"type": "text", "text": "né "},
    {"type": "text", "text": "cited", "citations": [{"type": "x"}]},
    {"type": "text", "text": "\n"},
]


def test_cited_text_takes_the_place_of_the_same_text() -> None:
    opened = {"e1": envelope(*CITED)}
    said = [user("a"), assistant("before"), assistant("né cited\n"), thought("e1"), user("b")]

    found = objects(body(said, opened)["messages"])

    assert found[1]["content"] == [text("before"), *CITED[:2]]


def test_cited_text_that_goes_on_keeps_its_citations() -> None:
    opened = {"e1": envelope({"type": "text", "text": "cited ", "citations": [{"type": "x"}]})}

    found = objects(body([user("a"), assistant("cited "), thought("e1")], opened)["messages"])

    assert found[1]["content"] == [{"type": "text", "text": "cited ", "citations": [{"type": "x"}]}]


@pytest.mark.parametrize("changed", ["né cited", "cited\n", "", "né cited\n\n"])
def test_a_changed_message_is_said_as_it_was_changed(changed: str) -> None:
    search = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    made = prompt_for([user("a"), assistant(changed), thought("e1"), user("b")], {"e1": envelope(*CITED, search)})

    found = objects(body_of(made)["messages"])

    assert found[1]["content"] == [*([text(changed)] if changed else []), search]
    assert made.notes == ["input: a message was changed, and what it cites no longer goes with it"]


def test_a_mark_for_the_cache_stays_with_cited_text() -> None:
    part = {"type": "output_text", "text": "né cited\n", "prompt_cache_breakpoint": {"mode": "explicit"}}
    said = [user("a"), assistant([part]), thought("e1"), user("b")]

    found = objects(body(said, {"e1": envelope(*CITED[:1], {"type": "text", "text": "cited\n"})})["messages"])

    assert objects(found[1]["content"])[-1]["cache_control"] == {"type": "ephemeral"}


def test_a_turn_that_was_refused_is_not_said_again() -> None:
    opened = {"e1": envelope(THINKING), "e2": envelope({"type": "refused"})}
    said = [user("a"), thought("e1"), assistant("part of it"), thought("e2"), user("b")]

    assert messages(said, opened) == [{"role": "user", "content": [text("a"), text("b")]}]


def test_who_called_goes_back_with_the_call() -> None:
    caller = {"type": "code_execution_20250825", "tool_id": "srv"}
    opened = {"e1": envelope(calls={"c1": {"caller": caller}, "c2": {}, "ws_1": {}})}
    said = [user("a"), thought("e1"), call("c1"), call("c2"), output("c1"), output("c2")]

    found = objects(objects(body(said, opened, tools=TOOLS)["messages"])[1]["content"])

    assert found[0] == {"type": "tool_use", "id": "c1", "name": "f", "input": {}, "caller": caller}
    assert found[1] == {"type": "tool_use", "id": "c2", "name": "f", "input": {}}


# Thinking that is bound.


def bound(*, instructions: str = "i", **fields: object) -> str:
    """What names a conversation of one question."""
    made = prompt_for(model=BOUND, instructions=instructions, **fields)  # type: ignore[arg-type]  # settings of the prompt
    prefix = AnthropicDialect(PLAIN).reader(made, None)._hearing.prefix  # type: ignore[arg-type]  # nothing is told to it
    assert prefix is not None
    return prefix()


def bound_to(prefix: str) -> list[object]:
    return [{"type": "prefix", "sha256": prefix}, THINKING]


def thinks(said: Sequence[Fields], prefix: str, **fields: object) -> list[str | None]:
    """The ids of the items whose thinking is left out."""
    opened = {sealed: envelope(*bound_to(prefix)) for sealed in ("e1", "e2", "e3")}
    made = prompt_for(said, opened, model=BOUND, **fields)  # type: ignore[arg-type]  # settings of the prompt
    found = json.dumps(body_of(made)["messages"])
    assert found.count('"signature"') + len(made.losses) == json.dumps(said).count('"reasoning"')
    assert {loss.reason for loss in made.losses} <= {"prefix_mismatch"}
    return [loss.id for loss in made.losses]


ANSWERED = [user("hi"), thought("e1"), assistant("b"), user("c")]


def test_bound_thinking_goes_back_into_the_same_conversation() -> None:
    assert thinks(ANSWERED, bound(), instructions="i") == []
    assert thinks(ANSWERED, bound(tools=TOOLS), instructions="i", tools=TOOLS) == []


def test_a_mark_for_the_cache_does_not_change_a_conversation() -> None:
    marked = user([{"type": "input_text", "text": "hi", "prompt_cache_breakpoint": {"mode": "explicit"}}])

    assert thinks([marked, *ANSWERED[1:]], bound(), instructions="i") == []


@pytest.mark.parametrize(
    ("said", "fields"),
    [
        (ANSWERED, {"instructions": "j"}),
        (ANSWERED, {"instructions": "i", "tools": TOOLS}),
        ([user("ho"), *ANSWERED[1:]], {"instructions": "i"}),
        ([user("hi"), developer("now"), *ANSWERED[1:]], {"instructions": "i"}),
    ],
    ids=["system", "tools", "user", "more"],
)
def test_bound_thinking_stays_out_of_another_conversation(said: list[Fields], fields: Fields) -> None:
    assert thinks(said, bound(), **fields) == ["rs_1"]


def test_after_thinking_that_no_longer_fits_none_does() -> None:
    said = [user("hi"), thought("e1"), assistant("x"), thought("e2"), assistant("y"), user("c"),
            thought("e3"), assistant("z"), user("d")]  # fmt: skip

    # The second one belongs to the same answer; the third one to another question.
    assert thinks(said, bound(), instructions="i") == ["rs_3"]
    assert thinks(said, bound(), instructions="j") == ["rs_1", "rs_2", "rs_3"]


def test_an_answer_of_nothing_but_thinking_that_no_longer_fits_is_nothing() -> None:
    made = prompt_for(
        [user("hi"), thought("e1"), call("c1"), output("c1")],
        {"e1": envelope({"type": "prefix", "sha256": "0"}, {"type": "odd"}, THINKING)},
        model=BOUND,
        tools=TOOLS,
    )
    found = objects(body_of(made)["messages"])
    assert [block["type"] for block in objects(found[1]["content"])] == ["odd", "tool_use"]

    alone = prompt_for(
        [user("hi"), thought("e1"), user("a")], {"e1": envelope(*bound_to("0"), {"type": "odd"})}, model=BOUND
    )
    assert [message["role"] for message in objects(body_of(alone)["messages"])] == ["user", "assistant", "user"]


# Thinking that was lost.


def test_a_turn_that_goes_on_must_still_have_the_thinking_it_began_with() -> None:
    def is_on(said: Sequence[Fields]) -> bool:
        return "thinking" in body(said, {"e1": envelope(THINKING)}, reasoning={"effort": "low"}, tools=TOOLS)

    going_on = [call("c1"), output("c1")]
    assert is_on([user("a"), thought("e1"), *going_on])
    assert is_on([user("a"), thought("e1"), *going_on, call("c2"), output("c2")])
    assert not is_on([user("a"), *going_on])
    assert not is_on([user("a"), *going_on, thought("e1"), call("c2"), output("c2")])
    assert not is_on([user("a"), assistant("b"), *going_on, developer("now")])
    # A turn that is over needs none.
    assert is_on([user("a"), *going_on, assistant("b"), user("c")])
    assert is_on([user("a"), *going_on, assistant("b"), user("c"), thought("e1"), call("c2"), output("c2")])


def test_where_the_conversation_has_no_question_a_turn_begins_at_its_beginning() -> None:
    made = prompt_for([call("c1"), output("c1")], reasoning={"effort": "low"}, tools=TOOLS)

    assert "thinking" not in body_of(made)


def test_thinking_that_was_refused_is_taken_out_and_the_rest_stays() -> None:
    search = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    opened = {"e1": envelope(*bound_to("0"), search, calls={"ws_1": {}}), "e2": envelope(search)}
    made = prompt_for([user("a"), thought("e1"), thought("e2"), thought("e3"), assistant("b"), user("c")], opened)
    error = UpstreamError("messages.1.content.0: Invalid `signature` in `thinking` block.", status=400)

    again = AnthropicDialect(PLAIN).relent(made, error)

    assert again is not None
    assert objects(body_of(again)["messages"])[1]["content"] == [search, search, text("b")]
    assert again.opened["e1"].calls.keys() == {"ws_1"}
    assert again.losses == [Loss("reasoning", "rs_1", "removed", "prefix_mismatch")]


def test_a_model_that_may_not_be_made_to_call_is_asked_to_behind_everything_else() -> None:
    said = [user("a"), call("c1"), output("c1")]

    new = objects(body(said, model=BOUND, tools=TOOLS, tool_choice="required")["messages"])
    old = objects(body("a", reasoning={"effort": "low"}, tools=TOOLS, tool_choice="required")["messages"])

    assert new[-1] == {"role": "system", "content": [text("You must call one of the tools now.")]}
    assert old == [
        {"role": "user", "content": [text("a"), text("<system>\nYou must call one of the tools now.\n</system>")]}
    ]
    # To an answer that is to go on nothing is added.
    assert (
        objects(body([user("a"), assistant("b")], model=BOUND, tools=TOOLS, tool_choice="required")["messages"])[-1][
            "role"
        ]
        == "assistant"
    )


# Marks for the cache.


def marks(count: int, profile: AnthropicProfile, ttls: Sequence[str | None] = (), **fields: object) -> list[Json]:
    mark = [{"mode": "explicit", **({"ttl": ttl} if ttl else {})} for ttl in (*ttls, *[None] * (count - len(ttls)))]
    parts = [{"type": "input_text", "text": "x", "prompt_cache_breakpoint": one} for one in mark]
    made = prompt_for([user([one]) for one in parts], profile=profile, **fields)  # type: ignore[arg-type]  # settings of the prompt
    [message] = objects(body_of(made, profile)["messages"])
    assert len(made.notes) <= 1
    return [block.get("cache_control") for block in objects(message["content"])]


def test_marks_are_passed_on_with_the_time_they_hold() -> None:
    short, long = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}

    assert marks(2, PLAIN) == [short, short]
    assert marks(2, PLAIN, ["30m"]) == [long, short]
    # What holds longer has to stand in front.
    assert marks(2, PLAIN, [None, "12h"]) == [long, long]
    assert marks(1, AnthropicProfile(), prompt_cache_options={"ttl": "30m"}) == [long]


def test_only_so_many_marks_are_passed_on_and_the_newest_ones() -> None:
    mark = {"type": "ephemeral"}

    assert marks(6, PLAIN) == [None, None, *[mark] * 4]
    # Keeping the whole takes one of them.
    assert marks(5, AnthropicProfile()) == [None, None, *[mark] * 3]
    assert marks(2, AnthropicProfile(caching="none")) == [None, None]


def test_everything_may_be_marked_but_thinking() -> None:
    mark = {"mode": "explicit"}
    said = [
        developer([{"type": "input_text", "text": "s", "prompt_cache_breakpoint": mark}]),
        user([{"type": "input_image", "image_url": "https://a.example/b.png", "prompt_cache_breakpoint": mark}]),
        call("c1"),
        output(
            "c1",
            [
                {"type": "input_text", "text": "a", "prompt_cache_breakpoint": mark},
                {"type": "input_text", "text": "b"},
            ],
        ),
        user([{"type": "input_file", "file_data": "data:text/plain,a", "prompt_cache_breakpoint": mark}]),
    ]

    found = body(said, tools=TOOLS)

    marked = [
        objects(found["system"])[0],
        *(block for one in objects(found["messages"]) for block in objects(one["content"])),
    ]
    assert [block["type"] for block in marked if "cache_control" in block] == [
        "text",
        "image",
        "tool_result",
        "document",
    ]


# Bytes.


def test_a_conversation_of_fifty_turns_only_ever_grows() -> None:
    tools = [
        function("f", parameters={"type": "object", "properties": {"x": {"type": "integer"}}}),
        {"type": "web_search"},
    ]
    opened = {
        f"e{turn}": envelope({**THINKING, "signature": f"s{turn}"}, calls={f"ws_{turn}": {}}) for turn in range(50)
    }
    opened |= {
        f"r{turn}": envelope({"type": "text", "text": f"a{turn}", "citations": [{"type": "x"}]}) for turn in range(50)
    }
    for model in (OLD, NEW, "claude-opus-4-6"):
        said: list[Fields] = [developer("be brief")]
        before = b""
        for turn in range(50):
            said.append(user(f"question {turn}"))
            said.extend([developer(f"rule {turn}")] if turn % 10 == 0 else [])
            said.extend([thought(f"e{turn}"), call(f"c.{turn}", "f", '{"x":1}'), output(f"c.{turn}", f"result {turn}")])
            made = prompt_for(said, opened, model=model, profile=AnthropicProfile(), instructions="i", tools=tools,
                              reasoning={"effort": "high", "summary": "auto"})  # fmt: skip
            now = AnthropicDialect(AnthropicProfile()).call(made).body
            assert now.startswith(before.removesuffix(b"]}"))
            assert len(now) > len(before)
            before = now
            said.extend([assistant(f"a{turn}"), thought(f"r{turn}")])
