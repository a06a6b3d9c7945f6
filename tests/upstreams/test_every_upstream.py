"""What is the same whichever protocol a scripted provider speaks: one script, one server, one way to go wrong."""

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias  # an answer is whatever its protocol has for JSON

import pytest

from rejoinder.conformance.upstreams.anthropic import AnthropicUpstream
from rejoinder.conformance.upstreams.asking import Body, Reply, ask, asking
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.gemini import GeminiUpstream
from rejoinder.conformance.upstreams.responses import ResponsesUpstream
from rejoinder.conformance.upstreams.script import (
    Answer,
    HttpError,
    Trouble,
    answer,
    call,
    calls,
    death,
    raw,
    silence,
    text,
    thought,
)
from tests.live import free_port

Upstream: TypeAlias = ChatUpstream | AnthropicUpstream | GeminiUpstream | ResponsesUpstream

HI: Body = {"role": "user", "content": "hi"}


@dataclass(frozen=True)
class Protocol:
    """How to ask a provider, and where its answer has what the script said."""

    opened: Callable[..., Upstream]
    path: Callable[[bool], str]
    body: Callable[[bool], Body]
    key: Callable[[str], dict[str, str]]
    models: str
    text: Callable[[Any], str]
    """The text in one event of a stream, if there is any."""

    whole: Callable[[Any], tuple[str, str]]
    """The text and the name of the first call in a body."""

    def ask(self, upstream: Upstream, *, stream: bool = True, key: str = "k") -> Reply:
        return ask(upstream, self.path(stream), self.body(stream), self.key(key))


def chat_text(chunk: Any) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in chunk.get("choices", []))


def gemini_text(chunk: Any) -> str:
    parts = [part for one in chunk.get("candidates", []) for part in one["content"]["parts"]]
    return "".join(part.get("text", "") for part in parts if not part.get("thought"))


def chat_whole(body: Any) -> tuple[str, str]:
    said = body["choices"][0]["message"]
    return said["content"], said["tool_calls"][0]["function"]["name"]


def anthropic_whole(body: Any) -> tuple[str, str]:
    blocks = {block["type"]: block for block in body["content"]}
    return blocks["text"]["text"], blocks["tool_use"]["name"]


def gemini_whole(body: Any) -> tuple[str, str]:
    _, said, called = body["candidates"][0]["content"]["parts"]
    return said["text"], called["functionCall"]["name"]


def responses_whole(body: Any) -> tuple[str, str]:
    items = {item["type"]: item for item in body["output"]}
    return items["message"]["content"][0]["text"], items["function_call"]["name"]


PROTOCOLS = {
    "chat": Protocol(
        ChatUpstream,
        lambda stream: "/v1/chat/completions",
        lambda stream: {"model": "m", "messages": [HI], "stream": stream},
        lambda key: {"authorization": f"Bearer {key}"},
        "/v1/models",
        chat_text,
        chat_whole,
    ),
    "anthropic": Protocol(
        AnthropicUpstream,
        lambda stream: "/v1/messages",
        lambda stream: {"model": "claude-sonnet-4-5", "max_tokens": 50, "messages": [HI], "stream": stream},
        lambda key: {"x-api-key": key, "anthropic-version": "2023-06-01"},
        "/v1/models",
        lambda event: str(event.get("delta", {}).get("text", "")),
        anthropic_whole,
    ),
    "gemini": Protocol(
        GeminiUpstream,
        lambda stream: (
            f"/v1beta/models/gemini-3-flash:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}"
        ),
        lambda stream: {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
        lambda key: {"x-goog-api-key": key},
        "/v1beta/models",
        gemini_text,
        gemini_whole,
    ),
    "responses": Protocol(
        ResponsesUpstream,
        lambda stream: "/v1/responses",
        lambda stream: {"model": "m", "input": "hi", "stream": stream},
        lambda key: {"authorization": f"Bearer {key}"},
        "/v1/models",
        lambda event: str(event["delta"]) if event.get("type") == "response.output_text.delta" else "",
        responses_whole,
    ),
}

pytestmark = pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)


def texts(reply: Reply, protocol: Protocol) -> str:
    return "".join(protocol.text(event) for event in reply.data)


def test_one_script_is_said_in_every_protocol(protocol: Protocol) -> None:
    step = answer(thought("hm"), text("Let me ", "look."), calls(call("look", '{"a":', "1}")))
    with protocol.opened([step, step]) as upstream:
        assert texts(protocol.ask(upstream), protocol) == "Let me look."
        assert protocol.whole(protocol.ask(upstream, stream=False).json) == ("Let me look.", "look")
        assert upstream.objections == []
    assert [request.number for request in upstream.requests] == [1, 2]
    assert [bytes(exchange.said)[:1] for exchange in upstream.exchanges][1] == b"{"


def test_a_body_can_answer_a_request_for_a_stream(protocol: Protocol) -> None:
    step = answer(thought("hm"), text("a"), calls(call("look")), always_json=True)
    with protocol.opened([step]) as upstream:
        assert protocol.whole(protocol.ask(upstream).json) == ("a", "look")


def test_a_refused_request_uses_up_no_step_and_a_script_can_end(protocol: Protocol) -> None:
    with protocol.opened([answer(text("a"))]) as upstream:
        refused = ask(upstream, protocol.path(True), {**protocol.body(True), "surprise": 1}, protocol.key("k"))
        assert (refused.status, refused.headers["content-type"]) == (400, "application/json")
        assert protocol.ask(upstream).status == 200
        over = protocol.ask(upstream)
        assert (over.status, over.json["error"]["message"]) == (500, "the script is over")
        upstream.follow([HttpError(503, "busy", headers={"x-should-retry": "true"})])
        busy = protocol.ask(upstream)
        assert (busy.status, busy.json["error"]["message"], busy.headers["x-should-retry"]) == (503, "busy", "true")
    assert len(upstream.objections) == 1
    assert "surprise" in upstream.objections[0].message


def test_a_script_can_be_a_function_of_the_request(protocol: Protocol) -> None:
    with protocol.opened(lambda request: answer(text(type(request).__name__))) as upstream:
        assert texts(protocol.ask(upstream), protocol).startswith("Sent")


def test_what_a_script_raises_reaches_the_test(protocol: Protocol) -> None:
    def script(request: object) -> Answer:
        raise LookupError("no answer to that")

    with pytest.raises(LookupError, match="no answer to that"), protocol.opened(script) as upstream:
        assert protocol.ask(upstream).status == 500


def test_a_key_is_asked_for_but_not_for_the_models(protocol: Protocol) -> None:
    with protocol.opened([answer(text("a"))], key="k", models=["one"]) as upstream:
        assert protocol.ask(upstream, key="no").status in (400, 401)
        assert protocol.ask(upstream).status == 200
        assert "one" in ask(upstream, protocol.models).body.decode()
        assert ask(upstream, "/v1/nowhere", {}).status == 404
        assert ask(upstream, "/nowhere").status == 404
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("kind", ["cut", "reset"])
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_can_be_cut_off(protocol: Protocol, kind: Any, stream: bool) -> None:
    with protocol.opened([answer(text("a", "b"), trouble=Trouble(kind, after=2))]) as upstream:
        failures = (http.client.IncompleteRead, ConnectionResetError)
        with pytest.raises(failures):
            protocol.ask(upstream, stream=stream)
    assert not upstream.requests[0].left.is_set()


@pytest.mark.parametrize("kind", ["end", "error", "bad_json"])
def test_trouble_comes_after_the_same_text_in_every_protocol(protocol: Protocol, kind: Any) -> None:
    with protocol.opened([answer(text("a", "b"), trouble=Trouble(kind, after=2))]) as upstream:
        reply = protocol.ask(upstream)
    if kind == "bad_json":
        lines = [line for line in reply.body.splitlines() if line.startswith(b"data: {")]
        with pytest.raises(json.JSONDecodeError):
            json.loads(lines[-1][6:])
        return
    events = [event for event in reply.data if event]
    assert "".join(protocol.text(event) for event in events if "error" not in event) == "a"
    assert any("error" in event for event in events) == (kind == "error")


@pytest.mark.parametrize("kind", ["error", "bad_json"])
def test_a_body_can_be_an_error_or_nonsense(protocol: Protocol, kind: Any) -> None:
    with protocol.opened([answer(text("a"), trouble=Trouble(kind, after=0))]) as upstream:
        reply = protocol.ask(upstream, stream=False)
    assert reply.status == 200
    assert (set(reply.body) == {ord("x")}) if kind == "bad_json" else ("error" in reply.json)


def test_a_stall_lasts_until_the_client_leaves(protocol: Protocol) -> None:
    step = answer(text("a"), trouble=Trouble("stall", after=1))
    with protocol.opened([step]) as upstream:
        with asking(upstream, protocol.path(True), protocol.body(True), protocol.key("k")):
            assert not upstream.requests[0].left.wait(0.05)
        assert upstream.requests[0].left.wait(2)


def test_bytes_silence_and_death_are_the_same_for_all(protocol: Protocol) -> None:
    with protocol.opened([raw(b"data: x\n\n"), death("after_head"), silence()]) as upstream:
        assert protocol.ask(upstream).body == b"data: x\n\n"
        with pytest.raises(http.client.IncompleteRead):
            protocol.ask(upstream)
        with asking(upstream, protocol.path(True), protocol.body(True), protocol.key("k")):
            upstream.wait(3)


def test_pieces_are_paced(protocol: Protocol) -> None:
    started = time.monotonic()
    with protocol.opened([answer(text("a", "b"), delay=0.03, gap=0.03)]) as upstream:
        assert texts(protocol.ask(upstream), protocol) == "ab"
    assert time.monotonic() - started >= 0.12


def test_a_port_can_be_named_and_taken(protocol: Protocol) -> None:
    port = free_port()
    with protocol.opened(port=port), pytest.raises(OSError, match="in use"), protocol.opened(port=port):
        pass
    with protocol.opened([answer(text("a"))], port=port) as second:
        assert second.base_url == f"http://127.0.0.1:{port}{second.root}"
        assert protocol.ask(second).status == 200


def test_what_no_route_fits_and_what_is_on_its_way_is_known(protocol: Protocol) -> None:
    with protocol.opened([answer(text("a"), trouble=Trouble("stall", after=1))]) as upstream:
        assert ask(upstream, "/v1/nowhere", {}).status == 404
        with asking(upstream, protocol.path(True), protocol.body(True), protocol.key("k")):
            assert upstream.running == 1
        assert upstream.requests[0].left.wait(2)
    assert upstream.running == 0
    assert upstream.strays == ["POST /v1/nowhere"]


def test_what_is_on_its_way_can_be_left_as_it_is(protocol: Protocol) -> None:
    with protocol.opened([answer(text("a"), trouble=Trouble("stall", after=1))]) as upstream:
        with asking(upstream, protocol.path(True), protocol.body(True), protocol.key("k")) as client:
            upstream.hang_up()
            while client.recv(65536):
                pass
        assert upstream.running == 0


def test_a_prompt_is_cut_into_what_stays_the_same(protocol: Protocol) -> None:
    with protocol.opened([answer(text("a"))]) as upstream:
        protocol.ask(upstream)
        tools, *others = upstream.prefix(upstream.requests[0])
    assert tools == b""
    assert b'"hi"' in others[-1]
