import json
from collections.abc import Mapping, Sequence

import pytest
from msgspec import Raw

from rejoinder.bridge.dialect import Prompt
from rejoinder.bridge.envelope import Envelope, Issuer
from rejoinder.bridge.errors import Unsupported
from rejoinder.bridge.gemini_contents import SKIP_VALIDATION, Conversation, continuation, conversation
from rejoinder.bridge.gemini_models import generation
from rejoinder.bridge.gemini_names import Names
from rejoinder.bridge.gemini_profile import GeminiProfile
from rejoinder.bridge.losses import Loss
from tests.bridge.prompts import Fields, assistant, call, output, prompt, user

SECOND, THIRD = "gemini-2.5-flash", "gemini-3-flash-preview"
PICTURE = "data:image/png;base64,aGk="
INLINE = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
LOST = Loss("reasoning", None, "removed", "prefix_mismatch")

System = {"type": "message", "role": "system"}


class State:
    """Reasoning items, and what they hold."""

    def __init__(self) -> None:
        self.opened: dict[str, Envelope] = {}

    def item(self, *parts: object, **calls: object) -> Fields:
        sealed = f"sealed-{len(self.opened)}"
        raws = [Raw(json.dumps(part).encode()) for part in parts]
        named = {name: Raw(json.dumps(value).encode()) for name, value in calls.items()}
        self.opened[sealed] = Envelope(Issuer("gemini", "e", "m"), raws, named)
        return {"type": "reasoning", "id": f"rs_{sealed}", "summary": [], "encrypted_content": sealed}


def prompt_for(said: Sequence[Fields], opened: Mapping[str, Envelope] | None, model: str) -> Prompt:
    made = prompt(said, opened)
    return Prompt(model, made.request, made.items, made.toolbox, made.opened, made.notes)


def told(made: Prompt, profile: GeminiProfile | None = None) -> Conversation:
    profile = profile or GeminiProfile()
    return conversation(made, generation(made.model, profile), profile, Names(()))


def contents(
    said: Sequence[Fields],
    opened: Mapping[str, Envelope] | None = None,
    model: str = SECOND,
    profile: GeminiProfile | None = None,
) -> list[tuple[object, object]]:
    """Roles with their parts."""
    found = [json.loads(content) for content in told(prompt_for(said, opened, model), profile).contents]
    return [(content["role"], content["parts"]) for content in found]


def text(said: str, signature: str | None = None) -> Fields:
    return {"text": said} if signature is None else {"text": said, "thoughtSignature": signature}


def called(name: str = "f", args: object = None, id_: str | None = None, signature: str | None = None) -> Fields:
    fields = {"name": name, "args": args or {}}
    part: dict[str, object] = {"functionCall": {"id": id_, **fields} if id_ is not None else fields}
    return part if signature is None else {**part, "thoughtSignature": signature}


def responded(
    said: str = "done", name: str = "f", id_: str | None = None, key: str = "output", **more: object
) -> Fields:
    fields = {"name": name, "response": {key: said}, **more}
    return {"functionResponse": {"id": id_, **fields} if id_ is not None else fields}


# Turns.


def test_users_and_the_model_take_turns() -> None:
    assert contents([user("a"), assistant("b"), user("c")]) == [
        ("user", [text("a")]),
        ("model", [text("b")]),
        ("user", [text("c")]),
    ]


def test_what_users_say_in_a_row_is_one_content() -> None:
    assert contents([user("a"), user([{"type": "input_text", "text": "b"}]), assistant("c")])[0] == (
        "user",
        [text("a"), text("b")],
    )


def test_a_conversation_starts_with_the_user() -> None:
    assert contents([assistant("a"), user("b")]) == [
        ("user", [text(" ")]),
        ("model", [text("a")]),
        ("user", [text("b")]),
    ]


def test_system_messages_at_the_start_are_told_apart_and_later_ones_stay_in_their_place() -> None:
    said = [{**System, "content": "one"}, {**System, "role": "developer", "content": "two"}, user("a"),
            {**System, "content": "three"}, assistant("b")]  # fmt: skip

    found = told(prompt_for(said, None, SECOND))

    assert found.system == ["one", "two"]
    assert contents(said) == [("user", [text("a"), text("<system>\nthree\n</system>")]), ("model", [text("b")])]


def test_a_system_message_of_pictures_is_refused() -> None:
    with pytest.raises(Unsupported, match="text only"):
        contents([{**System, "content": [{"type": "input_image", "image_url": PICTURE}]}, user("a")])


def test_without_items_there_are_no_contents() -> None:
    assert contents([]) == []


def test_an_empty_message_of_the_model_is_none() -> None:
    assert contents([user("a"), assistant(""), user("b")]) == [("user", [text("a"), text("b")])]


def test_a_refusal_is_text() -> None:
    said = [
        user("a"),
        assistant([{"type": "refusal", "refusal": "No."}]),
        user([{"type": "refusal", "refusal": "Yes."}]),
    ]

    assert contents(said)[1:] == [("model", [text("No.")]), ("user", [text("Yes.")])]


def test_users_show_pictures_sounds_and_files() -> None:
    shown = [
        {"type": "input_image", "image_url": PICTURE},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "mp3"}},
        {"type": "input_file", "file_data": "data:text/plain;base64,aGk=", "filename": "a.txt"},
    ]

    assert contents([user(shown)]) == [
        ("user", [INLINE, {"inlineData": {"mimeType": "audio/mp3", "data": "aGk="}}, text("a.txt:\nhi")])
    ]


def test_the_profile_says_what_becomes_of_links() -> None:
    linked = [user([{"type": "input_image", "image_url": "https://a.example/b.png"}])]

    assert contents(linked) == [
        ("user", [{"fileData": {"mimeType": "image/png", "fileUri": "https://a.example/b.png"}}])
    ]
    with pytest.raises(Unsupported, match="URL"):
        contents(linked, profile=GeminiProfile(urls="refuse"))


def test_the_model_may_have_shown_pictures_and_files() -> None:
    shown = assistant([{"type": "input_image", "image_url": PICTURE},
                       {"type": "input_file", "file_data": "data:text/plain,hi"}])  # fmt: skip

    assert contents([user("a"), shown])[1] == ("model", [INLINE, text("hi")])


# Calls and their responses.


def test_responses_are_one_content_in_the_order_of_the_calls() -> None:
    said = [
        user("a"),
        call("c1", "f", '{"x":1}'),
        call("c2", "g"),
        output("c2", "two"),
        output("c1", "one"),
        assistant("b"),
    ]

    assert contents(said) == [
        ("user", [text("a")]),
        ("model", [called("f", {"x": 1}), called("g")]),
        ("user", [responded("one"), responded("two", "g")]),
        ("model", [text("b")]),
    ]


def test_one_step_after_the_other_stays_so() -> None:
    said = [user("a"), call("c1"), output("c1"), call("c2"), output("c2")]

    assert [role for role, _ in contents(said)] == ["user", "model", "user", "model", "user"]


def test_what_users_say_after_a_response_is_a_content_of_its_own() -> None:
    assert contents([user("a"), call("c1"), output("c1"), user("b")])[2:] == [
        ("user", [responded()]),
        ("user", [text("b")]),
    ]


def test_a_call_that_failed_responds_with_an_error() -> None:
    failed = {**output("c1", "boom"), "status": "incomplete"}

    assert contents([user("a"), call("c1"), failed])[2] == ("user", [responded("boom", key="error")])


def test_a_name_that_is_illegal_there_is_legal_in_calls_and_responses() -> None:
    assert contents([user("a"), call("c1", "1st"), output("c1")])[1:] == [
        ("model", [called("_1st")]),
        ("user", [responded(name="_1st")]),
    ]


def test_arguments_that_are_no_object_go_along_inside_one_and_are_noted() -> None:
    made = prompt_for([user("a"), call("c1", "f", "[1"), call("c2", "f", "{"), call("c3", "f", " "),
                       output("c1"), output("c2"), output("c3")], None, SECOND)  # fmt: skip

    found = json.loads(told(made).contents[1])["parts"]

    assert [part["functionCall"]["args"] for part in found] == [{"_raw": "[1"}, {"_raw": "{"}, {}]
    assert made.notes == ["input: arguments that are no JSON object are sent as '_raw'"]


SHOWN = output("c1", [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": PICTURE}])


def test_pictures_stand_beside_a_response_in_the_third_generation() -> None:
    found = contents([user("a"), call("c1"), SHOWN], model=THIRD)

    assert found[2:] == [("user", [responded("see", parts=[INLINE])])]


def test_pictures_follow_the_responses_before() -> None:
    found = contents([user("a"), call("c1"), call("c2"), SHOWN, output("c2")])

    assert found[2:] == [
        ("user", [responded("see\n[image output, shown in the next message]"), responded()]),
        ("user", [text("[output of call c1]"), INLINE]),
    ]


def test_sounds_follow_the_responses_always() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}

    found = contents([user("a"), call("c1"), output("c1", [sound]), user("b")], model=THIRD)

    assert found[2:] == [
        ("user", [responded("[audio output, shown in the next message]")]),
        ("user", [text("[output of call c1]"), {"inlineData": {"mimeType": "audio/wav", "data": "aGk="}}, text("b")]),
    ]


def test_a_text_file_is_part_of_a_response() -> None:
    file = {"type": "input_file", "file_data": "data:text/plain,hi", "filename": "a"}

    assert contents([user("a"), call("c1"), output("c1", [file])])[2] == ("user", [responded("a:\nhi")])


# Signatures.


def test_a_signature_goes_back_on_the_call_it_came_with_and_the_id_with_the_response() -> None:
    state = State()
    said = [user("a"), state.item(g1={"signature": "s", "id": "g1"}), call("g1"), output("g1")]

    assert contents(said, state.opened)[1:] == [
        ("model", [called(id_="g1", signature="s")]),
        ("user", [responded(id_="g1")]),
    ]


def test_of_parallel_calls_only_the_first_is_signed_and_the_others_are_like_it() -> None:
    state = State()
    said = [
        user("a"),
        state.item(g1={"signature": "s", "id": "g1"}),
        call("g1"),
        call("g2"),
        output("g1"),
        output("g2"),
    ]

    assert contents(said, state.opened)[1:] == [
        ("model", [called(id_="g1", signature="s"), called(id_="g2")]),
        ("user", [responded(id_="g1"), responded(id_="g2")]),
    ]


def test_calls_of_a_model_that_gave_no_ids_have_none() -> None:
    state = State()
    said = [user("a"), state.item(c1={"signature": "s"}), call("c1"), call("c2"), output("c1"), output("c2")]

    assert contents(said, state.opened)[1][1] == [called(signature="s"), called()]


def test_an_id_that_was_taken_here_is_still_the_one_there() -> None:
    state = State()
    said = [
        user("a"),
        state.item(c1={"signature": "s", "id": "g1"}),
        call("c1"),
        call("c2"),
        output("c1"),
        output("c2"),
    ]

    assert contents(said, state.opened)[1:] == [
        ("model", [called(id_="g1", signature="s"), called()]),
        ("user", [responded(id_="g1"), responded()]),
    ]


def test_a_signature_of_the_first_call_is_not_moved_to_another_place() -> None:
    state = State()
    said = [user("a"), call("mine"), state.item(g1={"signature": "s", "id": "g1"}), call("g1"),
            output("mine"), output("g1")]  # fmt: skip

    assert contents(said, state.opened)[1][1] == [called(), called(id_="g1")]


def test_a_later_call_that_was_signed_itself_keeps_its_signature() -> None:
    state = State()
    said = [user("a"), state.item(g1={"signature": "s1"}), call("g1"), state.item(g2={"signature": "s2", "place": 1}),
            call("g2"), output("g1"), output("g2")]  # fmt: skip

    assert contents(said, state.opened)[1][1] == [called(signature="s1"), called(signature="s2")]


def test_steps_have_signatures_of_their_own() -> None:
    state = State()
    said = [user("a"), state.item(g1={"signature": "s1"}), call("g1"), output("g1"),
            state.item(g2={"signature": "s2"}), call("g2"), output("g2")]  # fmt: skip

    found = contents(said, state.opened, THIRD)

    assert (found[1][1], found[3][1]) == ([called(signature="s1")], [called(signature="s2")])


def test_parts_without_an_item_go_back_in_their_place() -> None:
    state = State()
    thought, code = {"text": "hm", "thought": True}, {"executableCode": {"code": "1"}, "thoughtSignature": "s1"}
    said = [user("a"), assistant("one"), state.item(thought, code), assistant("two"), state.item({"said": [[3, "s2"]]})]

    assert contents(said, state.opened)[1] == ("model", [text("one"), thought, code, text("two", "s2")])


def test_a_message_goes_back_in_the_parts_it_came_in() -> None:
    state = State()
    said = [user("a"), assistant("abcdé"), state.item({"said": [[2, "s1"], [3, None], [0, "s2"]]})]

    assert contents(said, state.opened)[1] == ("model", [text("ab", "s1"), text("cdé"), text("", "s2")])


@pytest.mark.parametrize("between", [[], [assistant("edited")], [assistant("ab"), call("c1"), output("c1")]])
def test_signatures_of_other_words_are_left_out_and_reported(between: list[Fields]) -> None:
    state = State()
    made = prompt_for([user("a"), *between, state.item({"said": [[2, "s1"]]}), assistant("c")], state.opened, SECOND)

    found = told(made)

    assert b"s1" not in b"".join(found.contents)
    assert made.losses == [LOST]


def test_thoughts_of_others_are_not_sent() -> None:
    foreign: Fields = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "x",
    }

    assert contents([user("a"), foreign, assistant("b")])[1] == ("model", [text("b")])


def test_a_turn_of_nothing_but_foreign_thoughts_is_none() -> None:
    foreign: Fields = {"type": "reasoning", "summary": [], "encrypted_content": "x"}

    assert contents([user("a"), foreign, user("b")]) == [("user", [text("a"), text("b")])]


# Lost signatures.


def test_a_call_of_others_skips_the_validation() -> None:
    said = [user("a"), call("c1"), call("c2"), output("c1"), output("c2"), call("c3"), output("c3")]

    found = contents(said, model=THIRD)

    assert found[1][1] == [called(signature=SKIP_VALIDATION), called()]
    assert found[3][1] == [called(signature=SKIP_VALIDATION)]


def test_a_turn_that_is_over_is_said_as_it_was_when_it_was_not() -> None:
    said = [user("a"), call("c1"), output("c1")]

    before = contents(said, model=THIRD)

    assert contents([*said, user("b")], model=THIRD)[: len(before)] == before


def test_models_that_validate_nothing_are_told_nothing() -> None:
    said = [user("a"), call("c1"), output("c1")]

    assert contents(said, model=SECOND)[1][1] == [called()]
    assert contents(said, model=THIRD, profile=GeminiProfile(signatures=False))[1][1] == [called()]


@pytest.mark.parametrize("part", [{"text": "", "thoughtSignature": "s"}, {"said": [[1, "s"]]}])
def test_a_step_whose_signature_came_on_another_part_has_one(part: Fields) -> None:
    state = State()
    said = [user("a"), call("c1"), assistant("x"), state.item(part), output("c1")]

    assert called(signature=SKIP_VALIDATION) not in contents(said, state.opened, THIRD)[1][1]  # type: ignore[operator]


@pytest.mark.parametrize("part", [{"text": "hm", "thought": True}, {"said": [[1, None]]}])
def test_state_without_a_signature_is_no_signature(part: Fields) -> None:
    state = State()
    said = [user("a"), assistant("x"), state.item(part, c1={"id": "c1"}), call("c1"), output("c1")]

    found = contents(said, state.opened, THIRD)[1][1]

    assert isinstance(found, list)
    assert found[-1] == called(id_="c1", signature=SKIP_VALIDATION)


def test_in_the_middle_of_a_turn_only_the_steps_of_others_skip_the_validation() -> None:
    state = State()
    said = [user("a"), state.item(g1={"signature": "s1"}), call("g1"), output("g1"), call("c2"), output("c2")]

    found = contents(said, state.opened, THIRD)

    assert (found[1][1], found[3][1]) == ([called(signature="s1")], [called(signature=SKIP_VALIDATION)])


# Pictures.


MADE: Fields = {
    "type": "image_generation_call",
    "id": "ig_1",
    "status": "completed",
    "result": "aGk=",
    "output_format": "png",
}


def test_a_picture_of_the_models_own_goes_back_as_its_own() -> None:
    state = State()
    said = [user("a"), assistant("Here:"), MADE, state.item({"picture": {"signature": "s"}}), assistant("Nice?")]

    assert contents(said, state.opened)[1:] == [
        ("model", [text("Here:"), {**INLINE, "thoughtSignature": "s"}, text("Nice?")]),
    ]


def test_a_picture_without_a_signature_and_without_words_goes_back_too() -> None:
    state = State()
    said = [user("a"), MADE, state.item({"picture": {"signature": None}})]

    assert contents(said, state.opened) == [("user", [text("a")]), ("model", [INLINE])]


def test_a_picture_of_others_is_shown_by_the_user() -> None:
    state = State()
    shown = ("user", [text("a"), text("[the picture the assistant made]"), INLINE])

    assert contents([user("a"), MADE, assistant("b")])[0] == shown
    assert contents([user("a"), MADE, state.item({"text": "hm", "thought": True})], state.opened)[0] == shown
    assert contents([user("a"), MADE, state.item(c1={"signature": "s"})], state.opened)[0] == shown


def test_the_signature_of_a_picture_that_is_gone_is_left_out() -> None:
    state = State()
    said = [user("a"), state.item({"picture": {"signature": "s"}}), assistant("b")]

    assert contents(said, state.opened) == [("user", [text("a")]), ("model", [text("b")])]


# Continuations.


def test_an_answer_goes_on_from_the_request_it_was_an_answer_to() -> None:
    state = State()
    stopped = state.item({"continuation": {"token": "t", "since": 1}})
    made = prompt_for([user("a"), assistant("b"), stopped], state.opened, SECOND)

    found = continuation(made)

    assert found is not None
    assert (found.token, found.since) == ("t", 1)
    assert told(made).contents == [b'{"role":"user","parts":[{"text":"a"}]}']


def test_a_continuation_that_is_over_is_none() -> None:
    state = State()
    stopped = state.item({"continuation": {"token": "t", "since": 1}})
    said = [user("a"), assistant("b"), stopped, assistant("c")]

    assert continuation(prompt_for(said, state.opened, SECOND)) is None
    assert contents(said, state.opened)[1] == ("model", [text("b"), text("c")])


def test_nothing_else_is_a_continuation() -> None:
    state = State()
    sealed, empty = state.item({"text": "hm", "thought": True}), state.item()

    for said in ([], [user("a")], [user("a"), sealed], [user("a"), empty]):
        assert continuation(prompt_for(said, state.opened, SECOND)) is None
    assert continuation(prompt_for([user("a"), sealed], None, SECOND)) is None
    assert continuation(prompt_for([user("a"), {"type": "reasoning", "summary": []}], None, SECOND)) is None
