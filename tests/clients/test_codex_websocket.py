"""The real Codex over WebSockets, as far as that differs from HTTP: what it sends, and what holds the socket together.

`test_codex.py` runs every one of its cases over both transports and looks at the two ends. Here a relay stands between
Codex and the server, so these tests also look at the messages themselves (codex.md §7).

Needs the program: set REJOINDER_CODEX to the path of a `codex` executable.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import pytest

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.held import Held
from rejoinder.conformance.upstreams.script import HttpError, Step, Trouble, Usage, answer, call, calls, text, thought
from rejoinder.conformance.upstreams.sent import SentChat
from tests.clients.codex import Shape
from tests.clients.codex_app import conversation
from tests.clients.desk import KEY, OPENING, UPSTREAM_KEY, Desk, answered, called, goes_on, reason, roles, shell
from tests.clients.relay import Line, Relay
from tests.live import LiveServer, LiveUpstream, running

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(not os.environ.get("REJOINDER_CODEX"), reason="REJOINDER_CODEX does not name a codex program"),
]

every_shape = pytest.mark.parametrize("shape", ["plain", "classic", "lite"])


@pytest.fixture(scope="module")
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream(key=UPSTREAM_KEY) as provider:
        yield provider


@pytest.fixture(scope="module")
def server(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    upstreams = [LiveUpstream(provider.base_url, key=UPSTREAM_KEY)]
    with running(tmp_path_factory.mktemp("codex"), upstreams=upstreams, keys={"alice": KEY}) as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: Codex fills a new one with databases, and writes what a test sets anew for every run."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def relay(server: LiveServer) -> Iterator[Relay]:
    with Relay(server.port) as relay:
        yield relay
    assert [line.binary for line in relay.sockets] == [0] * len(relay.sockets)


@pytest.fixture
def desk(server: LiveServer, relay: Relay, provider: ChatUpstream, home: Path, tmp_path: Path) -> Desk:
    provider.requests.clear()
    return Desk(tmp_path, home, server, relay, provider, server.log.stat().st_size)


def is_chain(socket: Line) -> bool:
    """Whether every request but the first continues the response before it."""
    ids = [made.id for made in socket.ended]
    return [said.previous_response_id for said in socket.creates[1:]] == ids[: len(socket.creates) - 1]


def grows(desk: Desk) -> bool:
    """Whether every request of the provider begins with the bytes of the one before."""
    return all(goes_on(*two) for two in pairwise(desk.sent()))


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = monotonic() + 10
    while not claim():
        assert monotonic() < deadline, "waited in vain"
        sleep(0.01)


def wait_for(file: Path) -> None:
    """Wait until it exists."""
    wait_until(file.exists)


def accepts(server: LiveServer) -> bool:
    """Whether somebody listens at its port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) == 0


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """Do this at the same time. What it raises is raised at the end of the block."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
        done.result()


# What Codex sends.


WARM_UP: Mapping[Shape, Sequence[str]] = {"plain": ["developer"], "classic": ["developer"], "lite": []}
"""What is registered before there is a prompt: the instructions, or nothing."""


@every_shape
def test_a_turn_continues_its_warm_up_and_then_says_only_what_is_new(desk: Desk, shape: Shape) -> None:
    steps = [
        answer(thought("one?"), calls(shell(shape, "echo one", id="call_1"))),
        answer(text("One. "), calls(shell(shape, "echo two", id="call_2"))),
        answer(thought("three?"), calls(shell(shape, "echo three", id="call_3"))),
        answer(text("done")),
    ]
    assert answered(desk.run(desk.codex(shape), steps)) == "done"

    [socket] = desk.sockets
    warm_up, first, *others = socket.creates
    assert (warm_up.generate, warm_up.previous_response_id, warm_up.kinds) == (False, None, WARM_UP[shape])
    assert (first.generate, first.kinds[-2:]) == (True, ["user", "user"])
    assert {bytes(item.content) for item in warm_up.input}.isdisjoint(bytes(item.content) for item in first.input)
    output = "custom_tool_call_output" if shape == "lite" else "function_call_output"
    assert [said.kinds for said in others] == [[output]] * 3
    assert {said.store for said in socket.creates} == {False}
    assert is_chain(socket)

    registered, *made = socket.ended
    assert (registered.status, registered.output, registered.previous_response_id) == ("completed", [], None)
    assert [one.status for one in made] == ["completed"] * 4
    # The provider hears of the warm-up with the first question, and of the whole conversation every time.
    assert [len(chat.messages) for chat in desk.chats()] == [3, 5, 7, 9]
    assert roles(desk.chats()[0]) == OPENING
    assert grows(desk)


def test_the_results_of_parallel_calls_travel_together_and_alone(desk: Desk) -> None:
    both = calls(shell("plain", "echo one", id="call_1"), shell("plain", "echo two", id="call_2"), style="interleaved")
    assert answered(desk.run(desk.codex(), [answer(thought("hm"), both), answer(text("both"))])) == "both"
    [socket] = desk.sockets
    assert [item.call_id for item in socket.creates[-1].input] == ["call_1", "call_2"]
    assert socket.creates[-1].kinds == ["function_call_output"] * 2
    assert is_chain(socket)
    assert roles(desk.chats()[1]) == [*OPENING, "assistant", "tool", "tool"]
    assert grows(desk)


def test_a_resumed_conversation_is_told_after_a_warm_up_of_its_own(desk: Desk) -> None:
    codex = desk.codex()
    run = desk.run(codex, [answer(thought("hm"), calls(shell("plain", "echo hi"))), answer(text("Said hi."))])
    assert answered(desk.run(codex, [answer(text("Again."))], resume=run.thread_id)) == "Again."
    _, again = desk.sockets
    warm_up, told = again.creates
    assert (warm_up.generate, warm_up.kinds) == (False, ["developer"])
    kept = ["reasoning", "function_call", "function_call_output", "assistant"]
    assert told.kinds == ["developer", "user", "user", *kept, "user"]
    assert is_chain(again)
    assert grows(desk)


def test_a_second_turn_says_only_its_prompt(desk: Desk) -> None:
    desk.upstream.follow([answer(thought("hm"), text("One.")), answer(text("Two.")), answer(text("Three."))])
    with conversation(desk.codex("classic"), desk.workdir) as talk:
        for words in ("first", "second", "third"):
            talk.start(words)
            assert talk.finish() == "completed"
    assert (talk.messages, talk.errors) == (["One.", "Two.", "Three."], [])
    [socket] = desk.sockets
    assert [said.kinds for said in socket.creates[2:]] == [["user"], ["user"]]
    assert is_chain(socket)
    assert grows(desk)


def test_a_turn_with_other_settings_is_told_in_full_on_the_same_socket(desk: Desk) -> None:
    desk.upstream.follow([answer(thought("hm"), text("One.")), answer(text("Two.")), answer(text("Three."))])
    with conversation(desk.codex("classic"), desk.workdir) as talk:
        talk.start("first")
        talk.finish()
        talk.start("second", effort="high")
        talk.finish()
        talk.start("third")
        talk.finish()
    assert (talk.messages, talk.errors) == (["One.", "Two.", "Three."], [])
    [socket] = desk.sockets
    *_, second, third = socket.creates
    assert (second.previous_response_id, second.kinds[-3:]) == (None, ["reasoning", "assistant", "user"])
    assert (third.previous_response_id, third.kinds) == (socket.ended[-2].id, ["user"])
    assert [chat.reasoning_effort for chat in desk.chats()] == ["low", "high", "high"]
    assert [chat.messages[-1].text for chat in desk.chats()] == ["first", "second", "third"]
    messages = [bytes(request.fields["messages"]).removesuffix(b"]") for request in desk.sent()]
    assert [later.startswith(earlier) for earlier, later in pairwise(messages)] == [True, True]


def test_a_server_that_compresses_is_understood(
    desk: Desk, provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Codex offers it with every handshake (codex.md §7)."""
    with (
        running(
            tmp_path_factory.mktemp("compressing"),
            upstreams=[LiveUpstream(provider.base_url, key=UPSTREAM_KEY)],
            settings={"websocket_compression": True},
        ) as compressing,
        Relay(compressing.port) as relay,
    ):
        codex = replace(desk.codex(), base_url=relay.base_url)
        run = desk.run(codex, [answer(calls(shell("plain", "echo hi"))), answer(text("done"))])
    assert answered(run) == "done"
    assert [line.is_compressed for line in relay.lines] == [True]
    assert [line.is_compressed for line in desk.sockets] == []
    assert grows(desk)


# Sockets that end, and servers without any.


@pytest.mark.slow
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_server_that_restarts_between_two_calls_is_told_everything_again(desk: Desk, end: str) -> None:
    def restart() -> None:
        wait_for(desk.workdir / "started")
        if end == "stopped":
            desk.server.terminate()
        else:
            desk.server.kill9()
        desk.server.start()
        (desk.workdir / "go").touch()

    waits = shell("plain", "touch started; while [ ! -e go ]; do sleep 0.02; done; echo one", id="call_1")
    steps = [
        answer(thought("hm"), calls(waits)),
        answer(text("So. "), calls(shell("plain", "echo two", id="call_2"))),
        answer(text("done")),
    ]
    with beside(restart):
        run = desk.run(desk.codex(), steps)
    assert answered(run) == "done"

    before, after = desk.sockets
    assert (before.closed, after.closed) == (1001 if end == "stopped" else None, None)
    whole, more = after.creates
    assert (whole.generate, whole.previous_response_id) == (True, None)
    assert whole.kinds[-3:] == ["reasoning", "function_call", "function_call_output"]
    assert more.kinds == ["function_call_output"]
    assert is_chain(after)
    assert len(desk.sent()) == 3
    assert grows(desk)


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_of_an_answer_is_asked_again(desk: Desk) -> None:
    def restart() -> None:
        desk.upstream.wait(1)
        wait_until(lambda: any(b"output_text.delta" in told for told in desk.sockets[0].told))
        desk.server.kill9()
        desk.server.start()

    codex = replace(desk.codex(), provider={"stream_max_retries": 8})
    with beside(restart):
        run = desk.run(codex, [Held(answer(text("ha", "lf")), after=2), answer(text("fine"))])
    # How often it tried while nobody was there is a matter of time.
    assert (run.exit_code, run.failure, run.last_message) == (0, "", "fine")
    assert [item.text for item in run.finished("agent_message")] == ["fine"]
    before, after = desk.sockets
    assert [said.previous_response_id for said in after.creates] == [None]
    assert before.creates[1].kinds == after.creates[0].kinds[len(before.creates[0].kinds) :]
    first, second = desk.sent()
    assert first.body == second.body


@pytest.mark.slow
def test_a_server_that_stops_finishes_the_answer_it_is_in(desk: Desk) -> None:
    def restart() -> None:
        desk.upstream.wait(1)
        stopping = Thread(target=desk.server.terminate)
        stopping.start()
        wait_until(lambda: not accepts(desk.server))
        slow.release()
        stopping.join()
        desk.server.start()
        (desk.workdir / "go").touch()

    waits = shell("plain", "while [ ! -e go ]; do sleep 0.02; done; echo one", id="call_1")
    slow = Held(answer(text("Half ", "an answer."), calls(waits)), after=2)
    with beside(restart):
        run = desk.run(desk.codex(), [slow, answer(text("done"))])
    assert answered(run) == "done"
    assert [item.text for item in run.finished("agent_message")] == ["Half an answer.", "done"]
    before, after = desk.sockets
    assert [made.status for made in before.ended] == ["completed", "completed"]
    assert before.closed == 1001
    assert after.creates[0].kinds[-3:] == ["assistant", "function_call", "function_call_output"]
    assert grows(desk)


@pytest.mark.slow
def test_a_connection_whose_time_is_up_is_replaced_without_a_word(
    desk: Desk, provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It ends in the middle of an answer here, which is finished, and again while a command runs (websocket.md §9)."""
    with (
        running(
            tmp_path_factory.mktemp("hurried"),
            upstreams=[LiveUpstream(provider.base_url, key=UPSTREAM_KEY)],
            settings={"websocket_lifetime": 0.7},
        ) as hurried,
        Relay(hurried.port) as relay,
    ):
        steps = [
            answer(text("Slow", "ly."), calls(shell("plain", "echo one", id="call_1")), gap=0.4),
            answer(calls(shell("plain", "sleep 1; echo two", id="call_2"))),
            answer(text("done")),
        ]
        run = desk.run(replace(desk.codex(), base_url=relay.base_url), steps)
    assert answered(run) == "done"
    assert [item.text for item in run.finished("agent_message")] == ["Slowly.", "done"]
    first, second, third = relay.sockets
    limit = "400 websocket_connection_limit_reached: Responses websocket connection limit reached"
    assert [fault.startswith(limit) for socket in (first, second) for fault in socket.faults] == [True, True]
    assert [socket.closed for socket in (first, second)] == [1000, 1000]
    assert [len(socket.ended) for socket in (first, second, third)] == [2, 1, 1]
    assert grows(desk)


def test_a_server_without_websockets_is_used_over_http_at_once(
    desk: Desk, provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        running(
            tmp_path_factory.mktemp("without"),
            upstreams=[LiveUpstream(provider.base_url, key=UPSTREAM_KEY)],
            settings={"websocket": False},
        ) as without,
        Relay(without.port) as relay,
    ):
        codex = replace(desk.codex("classic"), base_url=relay.base_url)
        run = desk.run(codex, [answer(calls(shell("classic", "echo hi"))), answer(text("done"))])
    # Its user hears nothing of it.
    assert (run.exit_code, run.last_message, run.retries, run.finished("error")) == (0, "done", [], [])
    refused, *others = relay.lines
    assert refused.status == 426
    assert refused.request.startswith("GET /v1/responses ")
    assert json.loads(refused.refusal)["error"].keys() == {"message", "type", "param", "code"}
    assert {line.request.partition(" ")[0] for line in others} == {"POST"}
    assert len(desk.sent()) == 2
    assert run.seconds < 3


def test_a_key_that_is_not_ours_is_told_before_there_is_a_socket(desk: Desk) -> None:
    """With 401 Codex would try for some seconds, and then again over HTTP (codex.md §7)."""
    run = desk.run(replace(desk.codex(), key="somebody-elses"), [])
    assert run.exit_code == 1
    assert reason(run) == "Incorrect API key provided."
    assert (run.retries, desk.sockets, desk.sent()) == ([], [], [])
    assert desk.relay is not None
    assert {line.status for line in desk.relay.lines} == {400}
    assert {json.loads(line.refusal)["error"]["code"] for line in desk.relay.lines} == {"invalid_api_key"}
    assert run.seconds < 3


# Errors.


def test_a_fault_that_lasts_is_an_error_with_its_status(desk: Desk) -> None:
    run = desk.run(desk.codex(), lambda request: HttpError(400, "Invalid value: 'x'.", param="temperature"))
    assert reason(run) == "Invalid value: 'x'."
    [socket] = desk.sockets
    assert [said.generate for said in socket.creates] == [False, True]
    error = json.loads(socket.told[-1])
    assert (error["type"], error["status"]) == ("error", 400)
    assert error["error"] == {
        "type": "invalid_request_error",
        "code": "invalid_request_error",
        "message": "Invalid value: 'x'.",
        "param": "temperature",
    }
    assert len(desk.sent()) == 1


@pytest.mark.slow
def test_a_fault_that_passes_says_how_long_to_wait(desk: Desk) -> None:
    limit = HttpError(429, "Slow down.", code="rate_limit_exceeded", headers={"retry-after": "2"})
    run = desk.run(desk.codex(), [limit, answer(text("fine"))])
    assert answered(run) == "fine"
    [error] = [json.loads(message) for message in desk.sockets[0].told if b'"type":"error"' in message]
    assert (error["status"], error["error"]["code"]) == (429, "rate_limit_exceeded")
    assert error["error"]["headers"]["retry-after"] == "2"
    first, second = desk.sent()
    assert first.body == second.body
    assert 2 <= second.at - first.at < 4


def test_a_response_that_failed_is_not_continued(desk: Desk) -> None:
    """Codex asks in full, on a socket of its own, and from there on goes on as before."""
    steps = [
        answer(thought("hm"), calls(shell("plain", "echo one", id="call_1"))),
        answer(text("ha", "lf"), trouble=Trouble("cut", after=2)),
        answer(calls(shell("plain", "echo two", id="call_2"))),
        answer(text("fine")),
    ]
    assert answered(desk.run(desk.codex(), steps)) == "fine"
    before, after = desk.sockets
    assert [made.status for made in before.ended] == ["completed", "completed", "failed"]
    whole, more = after.creates
    assert whole.previous_response_id is None
    assert whole.kinds[-3:] == ["reasoning", "function_call", "function_call_output"]
    assert more.kinds == ["function_call_output"]
    assert is_chain(after)
    first, failed, again, last = desk.sent()
    assert failed.body == again.body
    assert goes_on(first, again)
    assert goes_on(again, last)


# Steering.


def test_words_in_the_middle_of_an_answer_end_it_and_are_answered(desk: Desk) -> None:
    """`response.interrupt` (codex.md §7): what was said so far is dropped by both sides, what was thought is kept."""
    slow = Held(answer(thought("hm"), text("Hello ", "there ", "you.")), after=3)
    desk.upstream.follow([slow, answer(text("Quickly, then."))])
    with conversation(desk.codex("lite"), desk.workdir) as talk:
        talk.start("do it")
        talk.hear("Hello ")
        talk.steer("but quickly")
        assert talk.finish() == "completed"
        assert desk.sent()[0].left.wait(1)
    assert (talk.messages, talk.errors) == (["Quickly, then."], [])

    [socket] = desk.sockets
    *_, interrupt, on = socket.asked
    *_, ended, _ = socket.ended
    assert (interrupt.type, interrupt.mode) == ("response.interrupt", "discard_partial_items")
    assert interrupt.response_id == ended.id
    assert ended.status == "incomplete"
    assert ended.incomplete_details is not None
    assert ended.incomplete_details.reason == "interrupted"
    assert [item.type for item in ended.output] == ["reasoning"]
    assert (on.previous_response_id, on.kinds) == (ended.id, ["user"])
    assert is_chain(socket)
    _, second = desk.chats()
    assert [message.text for message in second.messages if message.role == "user"][-2:] == ["do it", "but quickly"]
    assert "Hello" not in "".join(message.text for message in second.messages if message.role == "assistant")
    assert grows(desk)


def test_words_before_the_first_of_the_answer_end_it_too(desk: Desk) -> None:
    slow = Held(answer(text("Hello.")), after=1)
    desk.upstream.follow([slow, answer(text("Quickly, then."))])
    with conversation(desk.codex("lite"), desk.workdir) as talk:
        talk.start("do it")
        desk.upstream.wait(1)
        wait_until(lambda: desk.sockets[0].told[-1].startswith(b'{"type":"response.in_progress"'))
        talk.steer("but quickly")
        assert talk.finish() == "completed"
    assert (talk.messages, talk.errors) == (["Quickly, then."], [])
    assert [made.status for made in desk.sockets[0].ended] == ["completed", "incomplete", "completed"]
    assert desk.chats()[1].messages[-1].text == "but quickly"
    assert grows(desk)


def test_a_model_that_does_not_interrupt_hears_them_after_its_answer(desk: Desk) -> None:
    slow = Held(answer(text("Hello ", "there ", "you.")), after=2)
    desk.upstream.follow([slow, answer(text("Quickly, then."))])
    with conversation(desk.codex("classic"), desk.workdir) as talk:
        talk.start("do it")
        talk.hear("Hello ")
        talk.steer("but quickly")
        slow.release()
        assert talk.finish() == "completed"
    assert (talk.messages, talk.errors) == (["Hello there you.", "Quickly, then."], [])
    [socket] = desk.sockets
    assert {said.type for said in socket.asked} == {"response.create"}
    assert socket.creates[-1].kinds == ["user"]
    assert is_chain(socket)
    assert roles(desk.chats()[1]) == [*OPENING, "assistant", "user"]
    assert grows(desk)


def test_words_while_a_command_runs_travel_with_its_result(desk: Desk) -> None:
    waits = shell("lite", "touch started; while [ ! -e go ]; do sleep 0.02; done; echo one", id="call_1")
    desk.upstream.follow([answer(calls(waits)), answer(text("Quickly, then."))])
    with conversation(desk.codex("lite"), desk.workdir) as talk:
        talk.start("do it")
        wait_for(desk.workdir / "started")
        talk.steer("but quickly")
        (desk.workdir / "go").touch()
        assert talk.finish() == "completed"
    assert (talk.messages, talk.errors) == (["Quickly, then."], [])
    [socket] = desk.sockets
    assert socket.creates[-1].kinds == ["custom_tool_call_output", "user"]
    assert is_chain(socket)
    assert roles(desk.chats()[1]) == [*OPENING, "assistant", "tool", "user"]


def test_a_turn_its_user_ends_frees_the_provider_and_the_next_one_is_told_everything(desk: Desk) -> None:
    desk.upstream.follow([Held(answer(text("Hello ", "there.")), after=2), answer(text("Fine."))])
    with conversation(desk.codex("classic"), desk.workdir) as talk:
        talk.start("do it")
        talk.hear("Hello ")
        talk.interrupt()
        assert talk.finish() == "interrupted"
        assert desk.sent()[0].left.wait(1)
        talk.start("something else")
        assert talk.finish() == "completed"
    assert talk.messages[-1] == "Fine."
    _, again = desk.sockets
    assert again.creates[0].previous_response_id is None
    assert again.creates[0].kinds.count("user") >= 3
    assert desk.chats()[1].messages[-1].text == "something else"


# Several sockets at once.


def test_sub_agents_have_sockets_of_their_own(desk: Desk) -> None:
    """Two are asked at the same time, and neither hears anything of the other, or of the one who sent them."""
    tasks = {"hills": "Count the hills.", "lakes": "Count the lakes."}
    counted = {name: Held(answer(text(f"number of {name}"))) for name in tasks}

    def script(request: SentChat) -> Step:
        last = request.messages[-1]
        for name, task in tasks.items():
            if "NEW_TASK" in last.text and task in last.text:
                return counted[name]
        told = "".join(message.text for message in request.messages)
        if all(f"number of {name}" in told for name in tasks):
            return answer(text("All counted."))
        called_so_far = sum(len(message.tool_calls) for message in request.messages)
        if called_so_far < len(tasks):
            name = [*tasks][called_so_far]
            agent = {"task_name": name, "message": tasks[name], "fork_turns": "none"}
            return answer(calls(called("collaboration__spawn_agent", agent, id=f"call_{name}")))
        wait = call("collaboration__wait_agent", '{"timeout_ms":10000}', id=f"call_{called_so_far}")
        return answer(calls(wait))

    def let_both_go() -> None:
        wait_until(lambda: sum("NEW_TASK" in chat.messages[-1].text for chat in desk.chats()) == len(tasks))
        for held in counted.values():
            held.release()

    with beside(let_both_go):
        run = desk.run(desk.codex("lite"), script)
    assert answered(run) == "All counted."

    root, *children = desk.sockets
    assert len(children) == 2
    assert [is_chain(socket) for socket in (root, *children)] == [True] * 3
    assert [socket.creates[0].generate for socket in (root, *children)] == [False] * 3
    ids = [{told.response.id for told in socket.answered if told.response} for socket in (root, *children)]
    assert sum(len(each) for each in ids) == len(set().union(*ids))
    said = [b"".join(socket.told) for socket in children]
    assert sorted(b"number of hills" in one for one in said) == [False, True]
    assert sorted(b"number of lakes" in one for one in said) == [False, True]
    assert sorted(b"number of hills" in one and b"number of lakes" in one for one in said) == [False, False]


# Compaction.

SHORT_OF_ROOM = {"model_auto_compact_token_limit": 10_000}


@every_shape
def test_a_compaction_is_asked_for_as_one_more_item_and_comes_back_as_one(desk: Desk, shape: Shape) -> None:
    """A provider called "OpenAI" (codex.md §8)."""
    codex = replace(desk.codex(shape), provider_name="OpenAI", settings=SHORT_OF_ROOM)
    steps = [
        answer(thought("hm"), calls(shell(shape, "echo one", id="call_1")), usage=Usage(prompt=20_000)),
        answer(text("THE SUMMARY")),
        answer(thought("so"), calls(shell(shape, "echo two", id="call_2"))),
        answer(text("after")),
    ]
    assert answered(desk.run(codex, steps)) == "after"

    [socket] = desk.sockets
    output = "custom_tool_call_output" if shape == "lite" else "function_call_output"
    *_, compacted, whole, last = socket.creates
    assert compacted.kinds == [output, "compaction_trigger"]
    assert compacted.previous_response_id == socket.ended[1].id
    [item] = socket.ended[2].output
    assert item.type == "compaction"
    done = [told.item.type for told in socket.answered if told.type == "response.output_item.done" and told.item]
    assert done.count("compaction") == 1
    # Then Codex begins anew, with what it was given, and goes on from there.
    assert whole.previous_response_id is None
    assert [one.encrypted_content for one in whole.input if one.type == "compaction"] == [item.encrypted_content]
    assert (last.previous_response_id, last.kinds) == (socket.ended[3].id, [output])
    *_, third, fourth = desk.chats()
    assert "THE SUMMARY" in "".join(message.text for message in third.messages)
    assert roles(fourth) == [*roles(third), "assistant", "tool"]
    assert goes_on(*desk.sent()[2:])


def test_a_compaction_by_the_model_has_a_socket_of_its_own(desk: Desk) -> None:
    codex = replace(desk.codex(), settings=SHORT_OF_ROOM)
    steps = [
        answer(calls(shell("plain", "echo one", id="call_1")), usage=Usage(prompt=20_000)),
        answer(text("THE SUMMARY")),
        answer(calls(shell("plain", "echo two", id="call_2"))),
        answer(text("after")),
    ]
    assert answered(desk.run(codex, steps)) == "after"
    main, beside_it = desk.sockets
    [summary] = beside_it.creates
    assert (summary.previous_response_id, summary.kinds[-2:]) == (None, ["function_call_output", "user"])
    *_, whole, last = main.creates
    assert (whole.previous_response_id, whole.kinds[-1]) == (None, "user")
    assert (last.previous_response_id, last.kinds) == (main.ended[-2].id, ["function_call_output"])
