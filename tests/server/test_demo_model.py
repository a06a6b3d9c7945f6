import json
import time

import msgspec
import pytest

from rejoinder.server.demo_model import Reply, Request, Wanted, reply_to

Json = dict[str, object]

CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}


def tool(name: str, schema: Json | None = None) -> Json:
    return {"type": "function", "function": {"name": name, "parameters": CITY if schema is None else schema}}


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def calling(*names: str) -> Json:
    calls = [{"id": f"call_{n}", "type": "function", "function": {"name": n, "arguments": "{}"}} for n in names]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(name: str, text: str) -> Json:
    return {"role": "tool", "tool_call_id": f"call_{name}", "content": text}


def asked(text: str, *names: str, **fields: object) -> list[tuple[str, object]]:
    """The calls a text leads to, their arguments parsed."""
    calls = decoded(user(text), tools=[tool(name) for name in names], **fields).calls
    return [(call.name, json.loads(call.arguments)) for call in calls]


def decoded(*messages: Json, **fields: object) -> Reply:
    body = json.dumps({"model": "demo", "messages": messages, **fields})
    return reply_to(msgspec.json.decode(body, type=Request))


# What it remembers.


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What did I say first?", 'The first thing you said was: "My name is Ada Lovelace, hello"'),
        ("what did I say last?", 'Before that you said: "I like tea"'),
        ("What did I just say?", 'Before that you said: "I like tea"'),
        ("What did you say?", 'I said: "Noted."'),
        ("How many messages did I send?", "Counting this one, you have sent me 3."),
        ("What's my name?", "Your name is Ada Lovelace."),
    ],
)
def test_questions_about_the_conversation_are_answered_from_it(question: str, answer: str) -> None:
    told: Json = {"role": "assistant", "content": "Noted."}
    said = decoded(user("My name is Ada Lovelace, hello"), told, user("I like tea"), told, user(question))
    assert said.text == answer


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("what did i say before?", "This is the first thing you say to me."),
        ("what did you say?", "I have not said anything yet."),
        ("who am I?", "You have not told me your name."),
    ],
)
def test_what_was_never_said_is_not_made_up(question: str, answer: str) -> None:
    assert decoded(user(question)).text == answer


def test_anything_else_is_echoed_with_what_the_model_can_do() -> None:
    said = decoded(user("good morning"))
    assert said.text.startswith('You said: "good morning" I am the demo model')
    assert (said.thought, said.calls, said.finish) == ("", (), "stop")


def test_attachments_are_counted_and_not_pretended_to_be_seen() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:,"}}, {"type": "text", "text": "look"}]
    assert "You attached 1 more that I cannot see." in decoded({"role": "user", "content": parts}).text


def test_thinking_comes_first_when_it_is_asked_for() -> None:
    assert decoded(user("think about tea")).thought.startswith("The user said: think about tea")


def test_long_texts_are_quoted_in_part() -> None:
    assert len(decoded(user("think " + "tea " * 1000)).thought) < 400


# What is not the user's.


def test_blocks_of_tags_are_not_the_users_words() -> None:
    context = user("<environment_context>\n  <cwd>/x</cwd>\n</environment_context>")
    assert decoded(context, user("what did I say first?")).text.startswith('The first thing you said was: "what did')
    picture: Json = {
        "role": "user",
        "content": [{"type": "text", "text": t} for t in ('<image name=[Image #1] path="/a">', "</image>", "describe")],
    }
    assert decoded(context, picture).text.startswith('You said: "describe"')


def test_the_instructions_of_a_project_are_not_the_users_words() -> None:
    rules = "# AGENTS.md instructions for /x\n\n<INSTRUCTIONS>\nBe nice.\n</INSTRUCTIONS><cwd>/x</cwd>"
    assert decoded(user(rules), user("how many messages?")).text == "Counting this one, you have sent me 1."


def test_a_note_after_the_question_does_not_hide_it() -> None:
    later: Json = {"role": "developer", "content": "be brief"}
    said = decoded(user("call look"), later, user("<note>x</note>"), tools=[tool("look", {})])
    assert [call.name for call in said.calls] == ["look"]


@pytest.mark.parametrize("only", [{"role": "system", "content": "be kind"}, user("<note>x</note>")])
def test_a_conversation_without_a_word_of_the_user_is_greeted(only: Json) -> None:
    assert decoded(only).text.startswith("Hello!")


def test_a_compaction_prompt_gets_a_summary_and_calls_nothing() -> None:
    prompt = user("You are performing a CONTEXT CHECKPOINT COMPACTION. Create a summary; call look for more.")
    said = decoded(user("call look"), calling("look"), result("look", "seen"), user("thanks"), prompt)
    assert said.text == "The user said, in this order: call look; thanks"


def test_a_summary_is_gone_on_from_without_repeating_the_call() -> None:
    summary = user("Another language model started to solve this problem and made a summary.\nTea is ready.")
    said = decoded(user("call look"), summary, tools=[tool("look")])
    assert said.calls == ()
    assert said.text.endswith("Tea is ready.")


# What it calls.


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('call get_weather with {"city":"Oslo"}', [("get_weather", {"city": "Oslo"})]),
        ('please use get_weather for "Oslo"', [("get_weather", {"city": "Oslo"})]),
        ("use the tool `get_weather` with `Oslo`", [("get_weather", {"city": "Oslo"})]),
        ('try "get_weather" with “Oslo”', [("get_weather", {"city": "Oslo"})]),
        ("run get_weather with ```text\nOslo\n```", [("get_weather", {"city": "Oslo\n"})]),
        ("call get_weather", [("get_weather", {"city": "example"})]),
        ('call get_weather with {city} or {"city":"Rome"}', [("get_weather", {"city": "Rome"})]),
        (
            'call get_weather with {"city":"Oslo"} and get_weather with {"city":"Rome"}',
            [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})],
        ),
        ("call get_weather, I said get_weather", [("get_weather", {"city": "example"})]),
        (
            'call get_weather {"city":"get_time"} and get_time for "noon"',
            [("get_weather", {"city": "get_time"}), ("mcp__clock__get_time", {"city": "noon"})],
        ),
        ("call mcp__clock__get_time", [("mcp__clock__get_time", {"city": "example"})]),
        ("tell me about get_weather", []),
        ("call the police", []),
    ],
)
def test_a_tool_is_called_when_the_user_asks_for_it_by_name(text: str, calls: list[tuple[str, object]]) -> None:
    assert asked(text, "get_weather", "mcp__clock__get_time") == calls


def test_a_tool_with_the_whole_name_wins_over_a_flattened_one() -> None:
    assert [name for name, _ in asked("call look", "look", "mcp__eyes__look")] == ["look"]


def test_one_call_at_a_time_when_parallel_calls_are_off() -> None:
    assert [name for name, _ in asked("call a and b", "a", "b", parallel_tool_calls=False)] == ["a"]


@pytest.mark.parametrize(
    ("name", "properties", "arguments"),
    [
        ("exec_command", {"cmd": {"type": "string"}}, {"cmd": "ls -l"}),
        ("shell", {"commands": {"type": "array"}}, {"commands": ["ls -l"]}),
        ("local_shell", {"command": {"type": "array"}}, {"command": ["sh", "-c", "ls -l"]}),
        ("shell_command", {"command": {"type": "string"}}, {"command": "ls -l"}),
        ("functions__exec_command", {"cmd": {"type": "string"}}, {"cmd": "ls -l"}),
    ],
)
def test_a_command_in_backticks_is_run_by_the_shell_there_is(name: str, properties: Json, arguments: Json) -> None:
    shell = tool(name, {"type": "object", "properties": properties})
    [call] = decoded(user("please run `ls -l`"), tools=[tool("look"), shell]).calls
    assert (call.name, json.loads(call.arguments)) == (name, arguments)


def test_a_command_without_a_shell_is_only_talked_about() -> None:
    assert decoded(user("run `ls`"), tools=[tool("look")]).calls == ()


def test_results_are_told_and_nothing_is_called_again() -> None:
    said = decoded(
        user("call a and b"), calling("a", "b"), result("b", "two"), result("a", "one"), tools=[tool("a"), tool("b")]
    )
    assert said.text == "The tool b answered: two The tool a answered: one"
    assert said.calls == ()


def test_results_are_told_although_an_instruction_follows() -> None:
    later: Json = {"role": "system", "content": "be brief"}
    assert decoded(user("call a"), calling("a"), result("a", "one"), later).text == "The tool a answered: one"


def test_a_tool_choice_is_obeyed() -> None:
    assert asked("call a", "a", "b", tool_choice="none") == []
    assert [name for name, _ in asked("call b", "a", "b", tool_choice="required")] == ["b"]
    assert [name for name, _ in asked("hello", "a", "b", tool_choice="required")] == ["a"]
    assert asked("hello", "a", tool_choice="auto") == []
    named = {"type": "function", "function": {"name": "b"}}
    assert asked('hello "Oslo"', "a", "b", tool_choice=named) == [("b", {"city": "Oslo"})]
    again = decoded(user("x"), calling("a"), result("a", "one"), tools=[tool("a")], tool_choice="required")
    assert again.calls == (Wanted("a", '{"city":"example"}'),)


# What it fills in.


def test_a_schema_is_filled_in() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": CITY}}
    assert decoded(user("hi"), response_format=wanted).text == '{"city":"example"}'


def test_a_json_object_holds_the_answer() -> None:
    said = decoded(user("how many messages?"), response_format={"type": "json_object"})
    assert json.loads(said.text) == {"answer": "Counting this one, you have sent me 1."}


@pytest.mark.parametrize(
    "text", ["x" * 200_000, "call look " + '{"a":' * 20_000, "<a>" * 20_000, "`" * 20_000, "<" + "a" * 50_000]
)
def test_a_text_of_any_shape_is_answered_soon(text: str) -> None:
    started = time.monotonic()
    decoded(user(text), tools=[tool("look")])
    assert time.monotonic() - started < 2
