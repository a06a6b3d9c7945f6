"""`openai` for node in front of the real server process: one script of `node/` for each area.

A script uses the client as its user would and prints what it was given, as one JSON; what is right is said here.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any  # JSON as a script prints it: tests look at it from every side

import pytest
from openai.types.conversations import Conversation
from openai.types.conversations.conversation_item_list import ConversationItemList
from openai.types.responses import Response

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.held import Held
from rejoinder.conformance.upstreams.script import HttpError, Usage, answer, call, calls, text, thought
from tests.live import LiveServer, LiveUpstream, running

NODE = shutil.which("node")
SCRIPTS = Path(__file__).parent / "node"
KEY = "rj-ada-7f3c19d2"
MODEL = "test-model"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs="

pytestmark = [pytest.mark.clients, pytest.mark.skipif(NODE is None, reason="node is not installed")]

COUNTED = answer(thought("Hm."), text("one ", "two ", "three"), usage=Usage(prompt=9, completion=4))
LOOKED = answer(text("Let ", "me look."), calls(call("get_weather", '{"city":', '"Oslo"}')))


@pytest.fixture(scope="module")
def server(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    upstreams = [LiveUpstream(provider.base_url, models=(MODEL,))]
    with running(tmp_path_factory.mktemp("server"), upstreams=upstreams, keys={"ada": KEY}) as server:
        yield server


def said_by(script: str, server: LiveServer) -> Mapping[str, Any]:
    """What a script printed, at its end."""
    assert NODE is not None
    done = subprocess.run(
        [NODE, str(SCRIPTS / f"{script}.mjs"), server.base_url, KEY],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"]},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    said = json.loads(done.stdout)
    assert isinstance(said, dict)
    return said


_OWN = ("output_text", "output_parsed", "_request_id", "parsed", "parsed_arguments")
"""What the SDK itself adds to what it was given."""


def response(said: Mapping[str, Any]) -> Response:
    """What node was given, as strict as it would be here."""
    given = json.loads(json.dumps(said), object_pairs_hook=lambda pairs: {k: v for k, v in pairs if k not in _OWN})
    found = Response.model_validate_json(json.dumps(given), strict=True)
    assert said.get("output_text", found.output_text) == found.output_text
    return found


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["sequence_number"] for event in events]


def words(upstream: ChatUpstream, number: int) -> list[str]:
    return [message.text for message in upstream.requests[number].chat.messages]


def refusal(name: str, status: int, code: str | None = None, param: str | None = None) -> dict[str, object]:
    return {"name": name, "status": status, "code": code, "param": param, "named": True}


NOT_FOUND = refusal("NotFoundError", 404)
NOT_CONTINUED = refusal("BadRequestError", 400, "previous_response_not_found", "previous_response_id")
LOCKED = refusal("BadRequestError", 400, "conversation_locked", "conversation")


def test_node_creates_streams_and_deletes(server: LiveServer, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Good day.")), COUNTED, LOOKED, answer(text("Sunny."))])
    said = said_by("responses", server)
    made = response(said["made"])
    assert (made.output_text, made.status, made.metadata) == ("Good day.", "completed", {"topic": "greeting"})
    assert response(said["retrieved"]) == made
    events = said["events"]
    assert numbers(events) == [*range(len(events))]
    assert [event["type"].removeprefix("response.") for event in events[:2]] == ["created", "in_progress"]
    assert [event["delta"] for event in events if event["type"] == "response.output_text.delta"] == [
        *("one ", "two ", "three"),
    ]
    assert response(events[-1]["response"]).output_text == "one two three"
    assert said["snapshots"] == ["Let ", "Let me look."]
    asked = response(said["asked"])
    assert [item.type for item in asked.output] == ["message", "function_call"]
    told = response(said["told"])
    assert (told.output_text, told.previous_response_id) == ("Sunny.", asked.id)
    assert [message.role for message in upstream.requests[3].chat.messages] == ["user", "assistant", "tool"]
    assert said["gone"] == [NOT_FOUND] * 3 + [NOT_CONTINUED]
    assert said["unknown"] == refusal("BadRequestError", 400, "model_not_found", "model")
    assert len(upstream.requests) == 4


def test_node_polls_what_is_made_in_the_background(server: LiveServer, upstream: ChatUpstream) -> None:
    upstream.follow([COUNTED, COUNTED, HttpError(500)])
    said = said_by("background", server)
    made, done = response(said["made"]), response(said["done"])
    assert made.status in ("queued", "in_progress")
    assert (made.background, made.output, made.usage) == (True, [], None)
    assert (done.id, done.status, done.output_text) == (made.id, "completed", "one two three")
    assert response(said["unchanged"]) == done
    assert response(said["inMemory"]).output_text == "one two three"
    failed = response(said["failed"])
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "server_error"
    assert said["unstreamed"] == refusal("BadRequestError", 400, param="stream")
    assert [words(upstream, number) for number in range(3)] == [["Count"], ["Count"], ["Fail"]]


def test_node_leaves_a_stream_and_goes_on_where_it_was(server: LiveServer, upstream: ChatUpstream) -> None:
    pieces = [f"{number} " for number in range(20)]
    upstream.follow([answer(text(*pieces), gap=0.03)])
    said = said_by("resumed", server)
    whole = said["whole"]
    assert numbers(whole) == [*range(len(whole))]
    assert [event["type"].removeprefix("response.") for event in whole[:3]] == ["created", "queued", "in_progress"]
    assert said["seen"] + said["rest"] == whole
    assert said["followed"] == [whole[number + 1 :] for number in range(4)]
    assert said["helped"] == numbers(whole)[7:]
    final = response(said["final"])
    assert (final.status, final.output_text) == ("completed", "".join(pieces))
    assert response(said["retrieved"]) == response(whole[-1]["response"]) == final
    assert not upstream.requests[0].left.is_set()
    assert len(upstream.requests) == 1


def test_node_cancels_and_deletes_what_is_running(server: LiveServer, upstream: ChatUpstream) -> None:
    # What is deleted at once may never come to the provider, so its answers depend on what it is asked.
    counting = Held(answer(text("one ", "two")), after=2)
    upstream.follow(lambda request: counting if request.messages[-1].text == "Count" else answer(text("Hi.")))
    said = said_by("cancelled", server)
    cancelled = response(said["cancelled"])
    assert (cancelled.status, cancelled.output_text, cancelled.completed_at) == ("cancelled", "one ", None)
    assert response(said["again"]) == response(said["retrieved"]) == cancelled
    assert numbers(said["rest"]) == [*range(6, 6 + len(said["rest"]))]
    assert response(said["rest"][-1]["response"]) == cancelled
    assert said["gone"] == [NOT_FOUND] * 3
    assert said["foreground"] == refusal("BadRequestError", 400, param="response_id")
    assert upstream.requests[0].left.wait(5)


def test_node_goes_through_all_pages_of_input_items(server: LiveServer, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("A dot."))])
    said = said_by("items", server)
    listed = [f"word {number}" for number in range(7)]
    assert said["asc"] == [*listed, None]
    assert said["desc"] == [None, *listed[::-1]]
    assert said["included"] == [PIXEL, *listed[::-1]]
    assert said["pages"] == [3, 3, 2]


def test_node_has_all_of_conversations(server: LiveServer, upstream: ChatUpstream) -> None:
    said = said_by("conversations", server)
    made, retrieved, updated, left = (
        Conversation.model_validate_json(json.dumps(said[name]), strict=True)
        for name in ("made", "retrieved", "updated", "left")
    )
    assert made == retrieved
    assert (made.object, made.metadata) == ("conversation", {"topic": "greeting"})
    assert (updated.id, updated.created_at, updated.metadata) == (made.id, made.created_at, {"owner": "ada"})
    assert left == updated
    added = ConversationItemList.model_validate_json(json.dumps(said["added"]), strict=True)
    assert (len(added.data), added.has_more) == (6, False)
    everything = ["first", *(f"more {number}" for number in range(6))]
    assert said["asc"] == everything
    assert said["desc"] == everything[::-1]
    assert said["item"] == said["added"]["data"][-1]
    assert said["rest"] == everything[:-1]
    assert said["missing"] == NOT_FOUND
    assert said["deleted"] == {"id": made.id, "object": "conversation.deleted", "deleted": True}
    assert said["empty"] == []
    assert said["gone"] == [NOT_FOUND] * 6
    assert upstream.requests == []


def test_node_talks_in_a_conversation(server: LiveServer, upstream: ChatUpstream) -> None:
    slow = answer(text("You are Ada."), delay=0.3)
    upstream.follow([LOOKED, answer(text("Sunny.")), slow, answer(text("Still Ada."))])
    said = said_by("turns", server)
    turns = [response(said[name]) for name in ("asked", "told", "done")]
    assert [turn.conversation and turn.conversation.id for turn in turns] == [said["conversation"]] * 3
    assert [turn.output_text for turn in turns] == ["Let me look.", "Sunny.", "You are Ada."]
    assert said["unanswered"] == refusal("BadRequestError", 400, param="input")
    assert said["locked"] == said["lockedItems"] == LOCKED
    assert said["types"] == [
        *("message", "message", "message", "function_call"),
        *("function_call_output", "message", "message", "message"),
    ]
    assert words(upstream, 2) == ["I am Ada.", "Weather?", "Let me look.", "sunny", "Sunny.", "Who am I?"]
    assert said["lost"] == NOT_FOUND
    assert response(said["on"]).output_text == "Still Ada."
    assert words(upstream, 3) == [*words(upstream, 2), "You are Ada.", "And now?"]


def test_node_counts_compacts_and_asks_once(server: LiveServer, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("THE SUMMARY")), answer(text("You are Ada.")), answer(text("Hi."))])
    said = said_by("compacted", server)
    assert said["short"]["object"] == "response.input_tokens"
    assert 0 < said["short"]["input_tokens"] < said["long"]["input_tokens"]
    compacted = said["compacted"]
    assert compacted["object"] == "response.compaction"
    assert [item["type"] for item in compacted["output"]] == ["message", "message", "compaction"]
    assert response(said["told"]).output_text == "You are Ada."
    sent = words(upstream, 1)
    assert (sent[:2], sent[-1]) == (["I am Ada.", "Remember me."], "Who am I?")
    assert any("THE SUMMARY" in one for one in sent)
    assert said["continued"] == NOT_CONTINUED
    assert len({*said["ids"]}) == 1
    assert said["replays"] == [None, "true"]
    assert said["reused"] == refusal("UnprocessableEntityError", 422, "idempotency_key_reused", "Idempotency-Key")
    assert len(upstream.requests) == 3


def test_node_talks_over_a_websocket(server: LiveServer, upstream: ChatUpstream) -> None:
    counting = answer(text("one ", "two ", "three"), calls(call("get_weather", '{"city":"Oslo"}')), gap=0.1)
    answers = {
        "Weather?": LOOKED,
        "sunny": answer(text("Sunny.")),
        "Who am I?": answer(text("You are Ada.")),
        "Root": answer(text("Hello.")),
        "left": answer(text("Left."), delay=0.2),
        "right": answer(text("Right.")),
        "Count": counting,
        "In Spanish": answer(text("uno")),
        "Still there?": answer(text("Still here.")),
    }
    upstream.follow(lambda request: answers[request.messages[-1].text])
    said = said_by("socket", server)

    asked, told = said["asked"], said["told"]
    assert numbers(asked) == [*range(len(asked))]
    assert [item.type for item in response(asked[-1]["response"]).output] == ["message", "function_call"]
    assert response(told[-1]["response"]).output_text == "Sunny."
    assert (said["unknown"]["status"], said["unknown"]["error"]["code"]) == (400, "model_not_found")
    assert [event["type"].removeprefix("response.") for event in said["warmUp"]] == [
        *("created", "in_progress", "completed"),
    ]
    assert response(said["warm"][-1]["response"]).output_text == "You are Ada."

    root, left, right = (response(said[name]) for name in ("root", "left", "right"))
    assert (left.output_text, right.output_text) == ("Left.", "Right.")
    assert left.previous_response_id == right.previous_response_id == root.id

    kinds = [event["type"].removeprefix("response.") for event in said["steered"]]
    assert "steer.accepted" in kinds
    assert {event["stream_id"] for event in said["steered"]} == {"source"}
    ended, successor = response(said["steered"][-1]["response"]), response(said["successor"])
    assert (ended.status, ended.output_text) == ("incomplete", "one two three")
    assert ended.incomplete_details is not None
    assert ended.incomplete_details.reason == "steered"
    assert (successor.previous_response_id, successor.output_text) == (ended.id, "uno")
    assert said["phase"] == "terminal"
    assert said["lost"]["code"] == "previous_response_not_found"
    assert response(said["still"]).output_text == "Still here."
    assert "401" in said["refused"]

    sent = {words(upstream, number)[-1]: words(upstream, number) for number in range(len(upstream.requests))}
    assert sent["sunny"] == ["Weather?", "Let me look.", "sunny"]
    assert sent["Who am I?"] == ["I am Ada.", "Who am I?"]
    assert sent["left"] == ["Root", "Hello.", "left"]
    assert sent["right"] == ["Root", "Hello.", "right"]
    assert sent["In Spanish"] == ["Count", "one two three", "In Spanish"]
    assert sent["Still there?"] == [*sent["In Spanish"], "uno", "Still there?"]
    assert len(upstream.requests) == 9
