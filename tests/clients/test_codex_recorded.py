"""What Codex was once heard to say over WebSockets, said again to the real server (codex.md §7).

The messages are those of the recordings, but for what another server had made up: ids of responses and sealed contents
are those of ours. The provider answers what the recorded server answered. Codex itself is not needed here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any  # JSON as it was recorded

import pytest

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.held import Held
from rejoinder.conformance.upstreams.responses import ResponsesUpstream
from rejoinder.conformance.upstreams.responses_script import item
from rejoinder.conformance.upstreams.script import Answer, Part, answer, call, calls, text, thought
from tests.bridge.recordings import FOLDER
from tests.clients.talk import Talk, talking
from tests.live import LiveServer, LiveUpstream, running

pytestmark = pytest.mark.clients

KEY = "codex-key"

RECORDED = (
    *(f"{what}_ws_{shape}" for what in ("text", "tools", "compact_local", "compact_remote")
      for shape in ("plain", "classic", "lite")),
    "multi_turn_ws",
    "resume_ws_1_first_run resume_ws_2_resumed",
    "subagent_v1_ws",
    "turn_state_ws",
    "ws_response_interrupt",
    "ws_user_interrupt",
)  # fmt: skip
"""The files, each one run of Codex. A run that was resumed goes on with what is sealed in the one before."""

Upstream = ChatUpstream | ResponsesUpstream


@dataclass(frozen=True, slots=True)
class House:
    """One server with both kinds of providers behind it: one that takes items as they are, and one that does not."""

    server: LiveServer
    providers: Mapping[str, Upstream]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with ChatUpstream() as chat, ResponsesUpstream() as responses:
        upstreams = [
            LiveUpstream(chat.base_url, name="chat"),
            LiveUpstream(responses.base_url, name="responses", dialect="responses", options={"vendor": "openai"}),
        ]
        directory = tmp_path_factory.mktemp("recorded")
        with running(directory, upstreams=upstreams, keys={"alice": KEY}) as server:
            yield House(server, {"chat": chat, "responses": responses})


def exchanges(names: str) -> list[dict[str, Any]]:
    files = [FOLDER / "codex" / f"{name}.json" for name in names.split()]
    if missing := [file.name for file in files if not file.is_file()]:
        pytest.skip(f"not among the recordings: {', '.join(missing)}")
    return [exchange for file in files for exchange in json.loads(file.read_bytes())["exchanges"]]


def events_of(exchange: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the recorded server answered. Numbers among the events are seconds it took."""
    return [event for event in exchange["reply"]["events"] if isinstance(event, dict)]


def output(exchange: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The items the recorded server answered with."""
    return [event["item"] for event in events_of(exchange) if event["type"] == "response.output_item.done"]


def in_chat(one: Mapping[str, Any]) -> Part:
    """The item in the words of a Chat Completions provider."""
    match one["type"]:
        case "message":
            return text(*(part["text"] for part in one["content"]))
        case "reasoning":
            return thought(*(part["text"] for part in one["summary"]))
        case "function_call":
            place = "" if one.get("namespace") in (None, "functions") else f"{one['namespace']}__"
            return calls(call(place + one["name"], one["arguments"], id=one["call_id"]))
        case "custom_tool_call":
            return calls(call(one["name"], json.dumps({"input": one["input"]}), id=one["call_id"]))
        case "compaction":
            return text("THE SUMMARY")
        case unexpected:
            raise AssertionError(f"nobody said how chat answers with {unexpected!r}")


def as_recorded(exchange: Mapping[str, Any], dialect: str) -> Answer:
    return answer(*(in_chat(one) if dialect == "chat" else item(one) for one in output(exchange)))


HALF = text("Half ", "an answer")


def is_broken_off(exchange: Mapping[str, Any]) -> bool:
    """Whether Codex did not wait for the end of this answer: it was left hanging for that."""
    return any(isinstance(event, int | float) and event > 1 for event in exchange["reply"]["events"])


def script(exchanges_: Sequence[Mapping[str, Any]], dialect: str) -> list[Held | Answer]:
    """What the provider says to each request that gets there: a warm-up does not."""
    steps: list[Held | Answer] = []
    for exchange in exchanges_:
        if exchange["kind"] == "ws_client_message" and exchange["body"]["type"] == "response.create":
            if is_broken_off(exchange):
                steps.append(Held(answer(HALF), after=2))
            elif exchange["body"].get("generate", True):
                steps.append(as_recorded(exchange, dialect))
    return steps


class Replay:
    """The recorded messages, in the words of a client of this server."""

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._ids: dict[str, str] = {}
        self._sealed: dict[str, dict[str, str]] = {}

    def message(self, body: Mapping[str, Any]) -> dict[str, Any]:
        said = dict(body)
        for name in ("previous_response_id", "response_id"):
            if name in said:
                said[name] = self._ids[said[name]]
        if "model" in said:
            said["model"] = f"{self._dialect}/{said['model']}"
        if "input" in said:
            said["input"] = [{**one, **self._sealed.get(one.get("id", ""), {})} for one in said["input"]]
        return said

    def begun(self, exchange: Mapping[str, Any], created: Mapping[str, Any]) -> None:
        """Our name for the response."""
        [theirs] = [event for event in events_of(exchange) if event["type"] == "response.created"]
        self._ids[theirs["response"]["id"]] = created["response"]["id"]

    def made(self, exchange: Mapping[str, Any], response: Mapping[str, Any]) -> None:
        """What is sealed in it is for us alone."""
        for kind in ("reasoning", "compaction"):
            theirs = [one for one in output(exchange) if one["type"] == kind]
            ours = [one for one in response["output"] if one["type"] == kind]
            for one, other in zip(theirs, ours, strict=False):
                self._sealed[one["id"]] = {name: other[name] for name in ("id", "encrypted_content")}


def told(exchange: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a handshake, but for those that a library makes itself."""
    own = ("host", "connection", "upgrade", "authorization", "user-agent")
    headers = {name.lower(): value for name, value in exchange["headers"]}
    return {name: value for name, value in headers.items() if name not in own and not name.startswith("sec-")}


@pytest.mark.parametrize("dialect", ["chat", "responses"])
@pytest.mark.parametrize("names", RECORDED)
def test_everything_codex_was_heard_to_say_is_accepted(house: House, names: str, dialect: str) -> None:
    recorded = exchanges(names)
    provider = house.providers[dialect]
    provider.requests.clear()
    provider.exchanges.clear()
    steps = script(recorded, dialect)
    provider.follow(steps)
    replay = Replay(dialect)
    talks: dict[int, Talk] = {}
    asked = 0
    with ExitStack() as stack:
        ends: dict[int, ExitStack] = {}
        for exchange in recorded:
            number = exchange["conn"]
            match exchange["kind"]:
                case "ws_handshake":
                    ends[number] = stack.enter_context(ExitStack())
                    talks[number] = ends[number].enter_context(talking(house.server.base_url, KEY, told(exchange)))
                case "ws_closed_by_client":
                    ends[number].close()
                case "ws_client_message":
                    asked += exchange["body"].get("generate", exchange["body"]["type"] == "response.create")
                    talk, body = talks[number], exchange["body"]
                    talk.say(replay.message(body))
                    if body["type"] == "response.interrupt":
                        assert talk.answer()[-1]["type"] == "response.incomplete"
                        continue
                    events = talk.until("response.output_text.delta") if is_broken_off(exchange) else talk.answer()
                    assert events[0]["type"] == "response.created", events[0]
                    replay.begun(exchange, events[0])
                    if not is_broken_off(exchange):
                        assert events[-1]["type"] == "response.completed"
                        replay.made(exchange, events[-1]["response"])
                case unexpected:
                    raise AssertionError(f"nobody said what {unexpected!r} is")
    assert provider.objections == []
    assert len(provider.requests) == asked == len(steps)
