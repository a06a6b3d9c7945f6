"""What a provider can do to a turn, and a client to a provider, and how it ends (reliability.md §5; codex.md §9).

One table holds for every dialect. Where one of them differs on purpose, it has a row of its own, with the reason.
"""

import contextlib
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import TypeVar

import pytest

from rejoinder.conformance.upstreams.gemini_script import blocked
from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.script import (
    Action,
    Asked,
    Cut,
    Head,
    HttpError,
    Step,
    Trouble,
    Wire,
    answer,
    call,
    calls,
    death,
    raw,
    silence,
    text,
)
from rejoinder.conformance.upstreams.sent import SentRequest
from tests.live import LiveServer, LiveUpstream, running
from tests.server import client
from tests.server.client import CODEX, NOTHING, Answer, Failure, Stream, get, hang_up, idle, received, resident
from tests.server.impatient import IMPATIENT
from tests.server.speakers import SPEAKERS, Speaker, Upstream

UPSTREAM_SECRET = "sk-UPSTREAM-SECRET-5f2e7c90b1"
PLAIN_SECRET = "moonlit-harbour-77"
"""A key that looks like none: what local servers are given."""

SERVER = "server_error"
INVALID = "invalid_request_error"
OVERLOADED = "server_is_overloaded"
"""A word of http.md §6.2. Told in a stream it would make Codex give up at once (codex.md §9)."""

WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}

MiB = 2**20

AnyStep = Step[Asked]


@dataclass(frozen=True, slots=True)
class Link:
    """A server, and the one of its providers that a test is about: a call names its model when it names none."""

    server: LiveServer
    speaker: Speaker
    provider: Upstream

    def follow(self, steps: Iterable[AnyStep]) -> None:
        self.provider.follow(steps)

    def always(self, step: AnyStep) -> None:
        self.provider.follow(lambda request: step)

    @property
    def requests(self) -> list[SentRequest]:
        return self.provider.requests

    def create(self, headers: Mapping[str, str] = NOTHING, **fields: object) -> Answer:
        return client.create(self.server, headers, **{"model": self.speaker.model, **fields})

    def streaming(
        self, headers: Mapping[str, str] = NOTHING, **fields: object
    ) -> contextlib.AbstractContextManager[Stream]:
        return client.streaming(self.server, headers, **{"model": self.speaker.model, **fields})

    def streamed(self, headers: Mapping[str, str] = NOTHING, **fields: object) -> Stream:
        return client.streamed(self.server, headers, **{"model": self.speaker.model, **fields})

    def posted(self, **fields: object) -> socket.socket:
        return client.posted(self.server, **{"model": self.speaker.model, **fields})


@pytest.fixture(scope="module")
def providers() -> Iterator[Mapping[str, Upstream]]:
    with contextlib.ExitStack() as stack:
        made: dict[str, Upstream] = {}
        for name, speaker in SPEAKERS.items():
            made[name] = speaker.provider(models=[speaker.model], key=UPSTREAM_SECRET)
            stack.enter_context(made[name])
        yield made


def upstreams(providers: Mapping[str, Upstream]) -> Iterator[LiveUpstream]:
    for name, speaker in SPEAKERS.items():
        url = providers[name].base_url
        yield LiveUpstream(url, name, speaker.dialect, models=[speaker.model], key=UPSTREAM_SECRET)
        # The same with a key that the provider does not know.
        yield LiveUpstream(url, f"{name}-wrong", speaker.dialect, models=[f"{name}-wrong"], key=PLAIN_SECRET)


@pytest.fixture(scope="module")
def server(providers: Mapping[str, Upstream], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose deadlines are too long to matter here."""
    with running(tmp_path_factory.mktemp("faults"), upstreams=[*upstreams(providers)]) as server:
        yield server


@pytest.fixture(scope="module")
def impatient(providers: Mapping[str, Upstream], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that waits for nothing long."""
    with running(
        tmp_path_factory.mktemp("impatient"),
        upstreams=[*upstreams(providers)],
        settings={"first_byte_timeout": 1.5, "stall_timeout": 1.5},
        command=IMPATIENT,
    ) as server:
        yield server


@pytest.fixture(params=[*SPEAKERS.values()], ids=[*SPEAKERS])
def speaker(request: pytest.FixtureRequest) -> Speaker:
    assert isinstance(request.param, Speaker)
    return request.param


@pytest.fixture
def provider(speaker: Speaker, providers: Mapping[str, Upstream]) -> Upstream:
    provider = providers[speaker.dialect]
    provider.requests.clear()
    provider.exchanges.clear()
    provider.follow(())
    return provider


@pytest.fixture
def link(server: LiveServer, speaker: Speaker, provider: Upstream) -> Link:
    return Link(server, speaker, provider)


@pytest.fixture
def hasty(impatient: LiveServer, speaker: Speaker, provider: Upstream) -> Link:
    return Link(impatient, speaker, provider)


Row = TypeVar("Row")


def table(argument: str, rows: Callable[[Speaker], Mapping[str, Row | None]]) -> pytest.MarkDecorator:
    """The rows of every dialect, but for those that are None."""
    params = [
        pytest.param(speaker, row, id=f"{speaker.dialect}-{name}")
        for speaker in SPEAKERS.values()
        for name, row in rows(speaker).items()
        if row is not None
    ]
    return pytest.mark.parametrize(("speaker", argument), params, indirect=["speaker"])


def only(*dialects: str) -> pytest.MarkDecorator:
    """Of these dialects alone."""
    return pytest.mark.parametrize("speaker", [SPEAKERS[one] for one in dialects], ids=dialects, indirect=True)


both_ways = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


# F4: errors before the first byte


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the provider says, and what it becomes: for SDKs, and for Codex as (status, retry-after)."""

    step: AnyStep
    status: int
    code: str | None
    codex: tuple[int, str | None]
    headers: Mapping[str, str] = field(default_factory=dict)
    type: str = INVALID


def refused(error: HttpError, status: int, code: str | None = None, *, codex: int = 400) -> Refusal:
    """It is the request that is wrong: sent again as it is, it will be refused again."""
    return Refusal(error, status, code, (codex, None))


def limited(error: HttpError, seconds: str) -> Refusal:
    """It may be sent again after so many seconds."""
    told = {"retry-after": seconds}
    return Refusal(error, 429, "rate_limit_exceeded", (429, seconds), told, type="requests")


def broke(error: HttpError) -> Refusal:
    """No waiting fills an account."""
    kind = "insufficient_quota"
    return Refusal(error, 429, kind, (429, None), {"x-should-retry": "false"}, type=kind)


def locked(error: HttpError) -> Refusal:
    """It is our own key that is wrong, which is nobody's business but the operator's."""
    return Refusal(error, 502, SERVER, (400, None), {"x-should-retry": "false"}, type=SERVER)


def down(step: AnyStep, status: int, code: str = SERVER, *, hint: str | None = None) -> Refusal:
    """The provider is in trouble."""
    headers = {} if hint is None else {"retry-after": hint}
    return Refusal(step, status, code, (429, hint or "1"), headers, type=SERVER)


REFUSALS = {
    "400": refused(HttpError(400, "no such knob"), 400),
    "overflow": refused(HttpError(400, "The maximum context length is 8192 tokens."), 400, "context_length_exceeded"),
    "too large and an overflow": refused(HttpError(413, "Prompt is too long"), 400, "context_length_exceeded"),
    "401": locked(HttpError(401, "Incorrect API key")),
    "403": locked(HttpError(403, "not allowed")),
    "404": refused(HttpError(404, "The model does not exist"), 400, "model_not_found", codex=404),
    "408": down(HttpError(408), 504),
    "409": Refusal(HttpError(409), 409, None, (429, "1")),
    "413": refused(HttpError(413), 413),
    "422": refused(HttpError(422), 422),
    "429": limited(HttpError(429, "slow down", headers={"retry-after": "7"}), "7"),
    "429 without a hint": limited(HttpError(429, "slow down"), "1"),
    "429 with a fraction": limited(HttpError(429, "slow down", headers={"retry-after": "1.2"}), "2"),
    "429 in milliseconds": limited(HttpError(429, "slow down", headers={"retry-after-ms": "1500"}), "2"),
    "500": down(HttpError(500, "oops"), 502),
    "500 with a hint": down(HttpError(500, "oops", headers={"retry-after": "3"}), 502, hint="3"),
    "502": down(HttpError(502), 502),
    "503": down(HttpError(503), 503),
    "503 with a hint": down(HttpError(503, headers={"retry-after": "20"}), 503, hint="20"),
    "504": down(HttpError(504), 504),
    "529": down(HttpError(529), 503),
    "redirect": down(HttpError(302, headers={"location": "http://127.0.0.1:9/"}), 502),
    "a page": down(HttpError(500, raw=b"<html><h1>Bad gateway</h1></html>"), 502),
    "a page of a proxy": refused(HttpError(413, raw=b"<html><h1>Request Entity Too Large</h1></html>"), 413),
    "nothing": down(HttpError(503, raw=b""), 503),
    "gone before the head": down(death("before_head"), 502),
    "reset before the head": down(death("before_head", reset=True), 502),
    "gone in the head": down(death("in_head"), 502),
}

OPENAI_REFUSALS = {
    "400": refused(HttpError(400, "no such knob", param="temperature"), 400),
    "overflow": refused(
        HttpError(400, "Your input exceeds it.", code="context_length_exceeded", param="input"),
        400,
        "context_length_exceeded",
    ),
    "no money": broke(HttpError(429, "no more", type="insufficient_quota", code="insufficient_quota")),
    "policy": refused(HttpError(400, "not that", code="content_policy_violation"), 400, "invalid_prompt"),
}

OWN_REFUSALS = {
    "chat": OPENAI_REFUSALS,
    "responses": {
        **OPENAI_REFUSALS,
        # This very API's own: clients know them, and act on them.
        "a code of its own": refused(
            HttpError(400, "no such knob", code="unsupported_parameter"), 400, "unsupported_parameter"
        ),
        "a model that is not there": refused(
            HttpError(400, "no such model", code="model_not_found"), 400, "model_not_found", codex=404
        ),
    },
    "anthropic": {
        "overflow": refused(
            HttpError(400, "prompt is too long: 215000 tokens > 200000 maximum"), 400, "context_length_exceeded"
        ),
        "no money": broke(HttpError(402, "no more")),
        # An empty account has no status of its own (provider-anthropic.md §11).
        "no credit": broke(HttpError(400, "Your credit balance is too low to access the API.")),
        "policy": refused(HttpError(400, "Output blocked by content filtering policy"), 400, "invalid_prompt"),
        # It says of itself that it is overloaded, and http.md §6.2 has a word for it.
        "529": down(HttpError(529, "Overloaded"), 503, OVERLOADED),
    },
    "gemini": {
        "overflow": refused(
            HttpError(400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
            400,
            "context_length_exceeded",
        ),
        # A bad key is a bad argument there (provider-gemini.md §9).
        "a bad key": locked(HttpError(400, "API key not valid.", code="API_KEY_INVALID")),
        # The words of an empty account mean the limit of a minute there (provider-gemini.md §9).
        "quota": limited(HttpError(429, "You exceeded your current quota", headers={"retry-after": "48.9"}), "49"),
        "in an array": limited(
            HttpError(429, raw=b'[{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}]'), "1"
        ),
        "a region": refused(HttpError(400, "User location is not supported", type="FAILED_PRECONDITION"), 400),
    },
}  # fmt: skip


@both_ways
@table("refusal", lambda speaker: REFUSALS | OWN_REFUSALS[speaker.dialect])
def test_what_fails_before_the_first_byte_is_an_http_error(link: Link, refusal: Refusal, stream: bool) -> None:
    link.always(refusal.step)
    told = link.create(stream=stream)
    assert (told.status, told.error.code, told.error.type) == (refusal.status, refusal.code, refusal.type)
    for name in ("retry-after", "x-should-retry"):
        assert told.headers.get(name) == refusal.headers.get(name)
    codex = link.create(CODEX, stream=stream)
    assert (codex.status, codex.headers.get("retry-after")) == refusal.codex
    assert codex.error == told.error
    assert len(link.requests) == 2, "nothing is sent twice"


@both_ways
def test_the_providers_words_reach_the_client(link: Link, stream: bool) -> None:
    link.always(HttpError(400, "no such knob"))
    assert link.create(stream=stream).error.message == "no such knob"


@only("chat", "responses")
def test_the_parameter_a_provider_names_reaches_the_client(link: Link) -> None:
    link.always(HttpError(400, "no such knob", param="temperature"))
    assert link.create().error.param == "temperature"


@both_ways
def test_a_key_the_provider_does_not_know_is_the_operators_business(link: Link, stream: bool) -> None:
    for headers, status in ((NOTHING, 502), (CODEX, 400)):
        told = link.create(headers, model=f"{link.speaker.dialect}-wrong", stream=stream)
        assert (told.status, told.error.code, told.headers["x-should-retry"]) == (status, SERVER, "false")
        assert f"'{link.speaker.dialect}-wrong'" in told.error.message
    assert link.requests == []


# F5, F7: answers that break off


@dataclass(frozen=True, slots=True)
class Break:
    """An answer that breaks off behind `Hel`: the code of its error, and the status of an answer in one piece, for SDKs
    and for Codex. `plain` is the code there, where it is another."""

    step: AnyStep
    code: str = SERVER
    status: int = 502
    codex: int = 429
    plain: str | None = None


def broken(kind: str) -> AnyStep:
    return answer(text("Hel", "lo"), trouble=Trouble(kind, 2))  # type: ignore[arg-type]  # one of its kinds


def breaks(speaker: Speaker) -> Mapping[str, Break]:
    hello, open_frame = speaker.hello, speaker.open_frame(b"")
    common = {
        **{kind: Break(broken(kind)) for kind in ("cut", "reset", "end", "bad_json")},
        "error": BUSY.get(speaker.dialect, Break(broken("error"))),
        "end in a frame": Break(raw(hello + open_frame)),
        "cut in a frame": Break(Wire((Head(), hello + open_frame, Cut()))),
        "a line without end": Break(raw(hello + open_frame, *[b"x" * MiB] * 17)),
        "not UTF-8": Break(raw(hello + speaker.open_frame(b"\xff") + b'"')),
        "no event": Break(raw(hello, b'data: ["what?"]\n\n')),
        "deeper than anybody reads": Break(raw(hello, b"data: " + b"[" * 100_000 + b"\n\n")),
        "an error without words": Break(raw(hello, speaker.failing(""))),
    }
    own = {
        name: Break(raw(hello, speaker.frame(told.event)), told.code, told.status, told.codex, told.plain)
        for name, told in TOLD[speaker.dialect].items()
    }
    return common | own


BUSY = {
    # These two say with which status it would have come before the first byte.
    "anthropic": Break(broken("error"), status=503, plain=OVERLOADED),
    "gemini": Break(broken("error"), status=503),
}


@dataclass(frozen=True, slots=True)
class Told:
    """An event that says what is wrong, and the `Break` it makes."""

    event: Json
    code: str = SERVER
    status: int = 502
    codex: int = 429
    plain: str | None = None


def overflow(event: Json) -> Told:
    return Told(event, "context_length_exceeded", 400, 400)


def too_many(event: Json) -> Told:
    return Told(event, "rate_limit_exceeded", 429, 429)


def anthropic_error(kind: str, message: str) -> Json:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


def gemini_error(code: int, status: str, message: str, *details: Json) -> Json:
    return {"error": {"code": code, "status": status, "message": message, "details": details}}


def gemini_end(reason: str) -> Json:
    return {"candidates": [{"content": {}, "finishReason": reason, "finishMessage": "it went wrong", "index": 0}]}


def responses_end(status: str, code: str | None = None, message: str = "it went wrong") -> Json:
    error: Json = {"code": code, "message": message} if code else None
    return {"type": f"response.{status}", "response": {"id": "resp_1", "output": [], "status": status, "error": error}}


TOLD: Mapping[str, Mapping[str, Told]] = {
    "chat": {
        "an error beside choices": Told(
            {"error": {"message": "upstream fell over"}, "choices": [{"delta": {}, "finish_reason": "error"}]}
        ),
        "overflow": overflow({"error": {"message": "maximum context length is 10", "code": 400}}),
        "too many": too_many({"error": {"message": "slow down", "code": 429}}),
        "policy": Told({"error": {"message": "not that", "code": "content_filter"}}, "invalid_prompt", 400, 400),
    },
    "anthropic": {
        "api error": Told(anthropic_error("api_error", "Internal server error")),
        "overloaded": Told(anthropic_error("overloaded_error", "Overloaded"), status=503, plain=OVERLOADED),
        "too late": Told(anthropic_error("timeout_error", "Timed out"), status=504),
        "credential": Told(anthropic_error("authentication_error", "invalid x-api-key"), codex=400),
        "overflow": overflow(anthropic_error("invalid_request_error", "prompt is too long: 3 tokens > 2 maximum")),
        "too many": too_many(anthropic_error("rate_limit_error", "slow down")),
        # A proxy in between asked again (provider-anthropic.md §10).
        "a second start": Told({"type": "message_start", "message": {"id": "msg_2", "content": []}}),
        "a delta of nothing": Told(
            {"type": "content_block_delta", "index": 7, "delta": {"type": "text_delta", "text": "lo"}}
        ),
    },
    "gemini": {
        "unavailable": Told(gemini_error(503, "UNAVAILABLE", "The model is overloaded."), status=503),
        "too late": Told(gemini_error(504, "DEADLINE_EXCEEDED", "Too late."), status=504),
        "overflow": overflow(
            gemini_error(400, "INVALID_ARGUMENT", "The input token count (3) exceeds the maximum number of tokens (2).")
        ),
        "too many": too_many(gemini_error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota")),
        "credential": Told(
            gemini_error(400, "INVALID_ARGUMENT", "API key not valid.", {"reason": "API_KEY_INVALID"}), codex=400
        ),
        # provider-gemini.md §7: some ends are failures.
        **{reason: Told(gemini_end(reason)) for reason in ("MALFORMED_FUNCTION_CALL", "OTHER", "TOO_MANY_TOOL_CALLS")},
    },
    "responses": {
        # The provider speaks this very API: what it says of a failure is what the client hears (objects.md §3).
        "failed": Told(responses_end("failed", "server_error")),
        "failed without a word": Told(responses_end("failed")),
        "overflow": overflow(responses_end("failed", "context_length_exceeded")),
        "too many": too_many(responses_end("failed", "rate_limit_exceeded")),
        "policy": Told(responses_end("failed", "invalid_prompt"), "invalid_prompt", 400, 400),
        "image": Told(responses_end("failed", "image_too_large"), "image_too_large", 400, 400),
        "no money": Told(responses_end("failed", "insufficient_quota"), "insufficient_quota", 429, 429),
        "overloaded": Told(responses_end("failed", OVERLOADED), status=503, plain=OVERLOADED),
        "a flat error": too_many({"type": "error", "code": "rate_limit_exceeded", "message": "slow", "param": None}),
        "cancelled": Told(responses_end("cancelled")),
    },
}


@table("broken", breaks)
def test_a_stream_that_breaks_off_fails_with_what_came_so_far(link: Link, broken: Break) -> None:
    link.always(broken.step)
    for headers in (NOTHING, CODEX):
        stream = link.streamed(headers)
        failed = assert_failed(link, stream, "Hel", broken.code)
        # Codex would act on what is done (codex.md §5).
        done = [event.type for event in stream.events].count("response.output_item.done")
        assert done == (1 if headers is NOTHING else 0)
        if broken.code == "rate_limit_exceeded":
            # Codex waits as long as the message says, and not at all when it says nothing (codex.md §9).
            assert "try again in" in failed.message
    assert idle(link.server)


@table("broken", breaks)
def test_a_plain_answer_that_breaks_off_is_an_error(link: Link, broken: Break) -> None:
    link.always(broken.step)
    told = link.create()
    assert (told.status, told.error.code) == (broken.status, broken.plain or broken.code)
    codex = link.create(CODEX)
    assert (codex.status, codex.error) == (broken.codex, told.error)
    assert ("retry-after" in codex.headers) == (broken.codex == 429 and broken.code != "insufficient_quota")
    assert idle(link.server)


@only("gemini")
def test_a_hint_inside_a_stream_is_told_in_words(link: Link) -> None:
    hint = gemini_error(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted", {"retryDelay": "48.9s"})
    link.always(raw(link.speaker.hello, link.speaker.frame(hint)))
    assert "try again in 49s" in assert_failed(link, link.streamed(CODEX), "Hel", "rate_limit_exceeded").message


def assert_failed(link: Link, stream: Stream, so_far: str, code: str = SERVER) -> Failure:
    """The stream failed with what came so far, and nobody can go on from what is stored of it."""
    last = stream.events[-1]
    assert (last.type, stream.text, last.whole.text) == ("response.failed", so_far, so_far)
    assert [event.type for event in stream.events].count("response.completed") == 0
    assert last.whole.error is not None
    assert (last.whole.status, last.whole.error.code) == ("failed", code)
    assert [item.status for item in last.whole.output] == (["incomplete"] if so_far else [])
    assert get(link.server, stream.id).response == last.whole
    parent = link.create(previous_response_id=stream.id)
    assert (parent.status, parent.error.code) == (400, "previous_response_not_found")
    return last.whole.error


# F9: answers with nothing in them


EMPTIES: Mapping[str, AnyStep] = {
    "no text": answer(),
    "no body": raw(b""),
    "blank lines": raw(b"\n\n\n"),
    "comments": raw(b": a moment\n\n: another\n\n"),
    "gone": death("after_head"),
    "reset": death("after_head", reset=True),
    "a page": raw(b"<html>welcome</html>", content_type="text/html"),
    "an empty object": raw(b"{}", content_type="application/json"),
    "an empty list": raw(b"[]", content_type="application/json"),
}

OWN_EMPTIES: Mapping[str, Mapping[str, AnyStep | None]] = {
    "chat": {"only the end": raw(b"data: [DONE]\n\n")},
    # It ends its turn on purpose with nothing to say (provider-anthropic.md §8).
    "anthropic": {"no text": None, "only the end": raw(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')},
    "gemini": {"no candidate": raw(b'data: {"candidates":[]}\r\n\r\n')},
    "responses": {"only the end": raw(b"data: [DONE]\n\n")},
}


def empties(speaker: Speaker) -> Mapping[str, AnyStep | None]:
    return {**EMPTIES, "nothing said": raw(speaker.silent), **OWN_EMPTIES[speaker.dialect]}


@table("step", empties)
def test_an_empty_answer_is_a_failure(link: Link, step: AnyStep) -> None:
    link.always(step)
    for headers, status in ((NOTHING, 502), (CODEX, 429)):
        assert_failed(link, link.streamed(headers), "")
        told = link.create(headers)
        assert (told.status, told.error.code) == (status, SERVER)


@both_ways
@only("anthropic")
def test_an_answer_that_is_empty_on_purpose_is_complete(link: Link, stream: bool) -> None:
    link.always(answer())
    response = link.streamed().events[-1].whole if stream else link.create().response
    assert (response.status, response.text) == ("completed", "")


@both_ways
@only("gemini")
def test_a_prompt_that_is_blocked_is_an_incomplete_answer(link: Link, stream: bool) -> None:
    # It is no error there: the answer says why there is none (provider-gemini.md §7).
    link.always(answer(blocked("SAFETY")))
    response = link.streamed().events[-1].whole if stream else link.create().response
    assert (response.status, response.output) == ("incomplete", [])


# F6: the end mark


@only("chat", "responses")
def test_an_answer_that_only_lacks_its_end_mark_is_complete(link: Link) -> None:
    link.always(answer(text("all of it"), done=False))
    stream = link.streamed()
    assert (stream.events[-1].type, stream.text) == ("response.completed", "all of it")
    assert link.create().response.text == "all of it"


@only("anthropic")
def test_an_end_mark_that_is_the_end_of_the_answer_is_waited_for(link: Link) -> None:
    # What comes before `message_stop` may come again (provider-anthropic.md §10).
    link.always(answer(text("all of it"), done=False))
    assert_failed(link, link.streamed(), "all of it")


# F8: silence


def test_silence_before_the_first_byte_is_told_at_the_deadline(hasty: Link) -> None:
    hasty.always(silence())
    started = monotonic()
    with hasty.posted() as plain, hasty.streaming() as waiting, hasty.streaming(CODEX) as codex:
        assert monotonic() - started < 1.2, "the status line waits for the upstream's, but not for ever"
        assert waiting.rest().type == codex.rest().type == "response.failed"
        told = received(plain)
    assert (told.status, told.error.code) == (504, SERVER)
    assert 1.2 < monotonic() - started < 4
    assert waiting.comments > 0
    assert [event.type for event in waiting.events] == [
        "response.created",
        "response.in_progress",
        "response.failed",
    ]
    # Comments do not reset Codex's idle timer (codex.md §5).
    assert codex.comments == 0
    assert len(codex.events) > 3
    assert {event.type for event in codex.events[1:-1]} == {"response.in_progress"}
    assert all(request.left.wait(1) for request in hasty.requests)
    assert_failed(hasty, waiting, "")


def test_silence_in_the_middle_is_told_at_the_deadline(hasty: Link) -> None:
    hasty.always(broken("stall"))
    with hasty.posted() as plain, hasty.streaming() as stream, hasty.streaming(CODEX) as codex:
        assert stream.rest().type == codex.rest().type == "response.failed"
        assert received(plain).status == 504
    assert stream.comments > 0
    assert codex.comments == 0
    assert all(request.left.wait(1) for request in hasty.requests)
    assert_failed(hasty, stream, "Hel")


# F1, F2: the client leaves


DRIP = raw(*[b" "] * 200, gap=0.05)

LEAVINGS: Mapping[str, tuple[AnyStep, str | None]] = {
    "before the first byte": (silence(), None),
    "after the head": (silence(after_head=True), "response.in_progress"),
    "while it drips": (DRIP, "response.in_progress"),
    "in the middle": (answer(text(*"abcdefghij" * 30), gap=0.05), "response.output_text.delta"),
    "in a silence": (broken("stall"), "response.output_text.delta"),
}

# A plain answer is asked for whole, so it has no middle that the provider would write slowly.
PLAIN_LEAVINGS = {name: step for name, (step, _) in LEAVINGS.items() if name != "in the middle"}


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize(("step", "seen"), LEAVINGS.values(), ids=LEAVINGS)
def test_the_upstream_is_cancelled_when_the_client_leaves_a_stream(
    link: Link, step: AnyStep, seen: str | None, reset: bool
) -> None:
    link.follow([step])
    if seen is None:
        leave(link, link.posted(stream=True), reset=reset)
    else:
        with link.streaming() as stream:
            stream.until(seen)
            stream.leave(reset=reset)
    assert link.provider.wait(1).left.wait(1)
    assert idle(link.server)
    if seen is not None:
        assert get(link.server, stream.id).status == 404


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize("step", PLAIN_LEAVINGS.values(), ids=PLAIN_LEAVINGS)
def test_the_upstream_is_cancelled_when_the_client_leaves_a_plain_request(
    link: Link, step: AnyStep, reset: bool
) -> None:
    link.follow([step])
    leave(link, link.posted(), reset=reset)
    assert link.provider.wait(1).left.wait(1)
    assert idle(link.server)


def leave(link: Link, connection: socket.socket, *, reset: bool) -> None:
    """Leave as soon as the provider was asked."""
    link.provider.wait(1)
    hang_up(connection, reset=reset)


# F24: the client stays, and does not read


@dataclass(slots=True)
class Flood:
    """An answer without end, and how much of it was taken."""

    speaker: Speaker
    taken: int = 0

    def actions(self, request: Asked) -> Iterator[Action]:
        frame = self.speaker.frame(self.speaker.said("x" * 65536))
        yield Head()
        yield self.speaker.hello
        while True:
            yield frame
            self.taken += len(frame)


def test_a_client_that_does_not_read_holds_the_upstream_back_and_is_cut(hasty: Link) -> None:
    flood = Flood(hasty.speaker)
    hasty.follow([flood])
    before = resident(hasty.server)
    with hasty.posted(stream=True):
        request = hasty.provider.wait(1)
        taken = settled(lambda: flood.taken)
        assert 0 < taken < 32 * MiB
        assert resident(hasty.server) - before < 24 * MiB
        assert request.left.wait(4), "a client that takes nothing is cut"
        assert idle(hasty.server)


def settled(value: Callable[[], int]) -> int:
    """The value once it has stopped growing for a moment."""
    last = -1
    while (current := value()) != last or not current:
        last = current
        sleep(0.2)
    return last


# S18: what a turn leaves behind


@pytest.mark.parametrize(
    "step",
    [HttpError(400, "too long"), death("before_head"), broken("cut"), broken("bad_json"), broken("error"), raw(b"")],
    ids=["refused", "gone", "cut", "bad_json", "error", "empty"],
)
def test_a_turn_that_failed_leaves_nothing_in_memory(link: Link, step: AnyStep) -> None:
    link.always(step)
    words = "x" * 4 * MiB
    before = 0
    for turn in range(10):
        link.create(stream=turn % 2 == 0, store=False, input=words)
        link.provider.exchanges.clear()
        link.requests.clear()
        if turn == 1:
            before = resident(link.server)
    assert resident(link.server) - before < 48 * MiB


def test_a_client_that_left_leaves_nothing_in_memory(link: Link) -> None:
    link.always(silence(after_head=True))
    words = "x" * 4 * MiB
    before = 0
    for turn in range(10):
        leave(link, link.posted(stream=turn % 2 == 0, input=words), reset=turn % 3 == 0)
        assert link.requests.pop().left.wait(1)
        before = before or resident(link.server)
    assert resident(link.server) - before < 48 * MiB


# F28, F29: calls and their outputs


def test_call_ids_a_provider_repeats_are_told_apart(link: Link) -> None:
    again = call("get_weather", '{"city":', '"Ghent"}', id="call_0")
    link.follow([answer(calls(again, again)), answer(calls(again)), answer(text("sunny"))])
    first = link.create(tools=[WEATHER]).response
    ids = [item.call_id for item in first.output if item.call_id]
    second = link.create(tools=[WEATHER], previous_response_id=first.id, input=outputs(ids)).response
    ids += [item.call_id for item in second.output if item.call_id]
    assert len(set(ids)) == len(ids) == 3
    third = link.create(tools=[WEATHER], previous_response_id=second.id, input=outputs(ids[2:])).response
    assert third.text == "sunny"
    assert link.provider.objections == []
    assert all(f"of {one}".encode() in link.requests[-1].body for one in ids)


def outputs(call_ids: Iterable[str]) -> list[dict[str, str]]:
    return [{"type": "function_call_output", "call_id": one, "output": f"of {one}"} for one in call_ids]


@both_ways
def test_calls_and_outputs_that_do_not_pair_are_refused_before_anybody_is_asked(link: Link, stream: bool) -> None:
    link.follow([answer(calls(call("get_weather")))])
    parent = link.create(tools=[WEATHER]).response
    [made] = [item for item in parent.output if item.call_id]
    unpaired: dict[str, object] = {
        f"No tool output found for function call {made.call_id}.": "and now?",
        "No tool call found for function call output with call_id call_x.": outputs([made.call_id, "call_x"]),
        "one output for each call": outputs([made.call_id, made.call_id]),
        f"Duplicate item found with id {made.id}.": [
            {"type": "function_call", "id": made.id, "call_id": "call_y", "name": "get_weather", "arguments": "{}"}
        ],
    }
    for message, coming in unpaired.items():
        told = link.create(tools=[WEATHER], previous_response_id=parent.id, input=coming, stream=stream)
        assert (told.status, told.error.param) == (400, "input")
        assert message in told.error.message
    assert len(link.requests) == 1


# S11: secrets


LEAK = (
    f"Incorrect API key provided: {UPSTREAM_SECRET}. Authorization: Bearer {UPSTREAM_SECRET} and {PLAIN_SECRET} "
    f"for org-UPSTREAMSECRET0123456789 at https://user:{PLAIN_SECRET}@internal.example.com/v1?key={PLAIN_SECRET}"
)


LEAKS: Mapping[str, AnyStep] = {
    **{str(status): HttpError(status, LEAK, param=LEAK) for status in (400, 401, 403, 404, 429, 500, 503, 529)},
    "a page": HttpError(500, raw=LEAK.encode()),
    "code and type": HttpError(400, LEAK, code=LEAK, type=LEAK),
    "in a header": HttpError(
        429, LEAK, headers={"retry-after": UPSTREAM_SECRET, "x-request-id": UPSTREAM_SECRET, "set-cookie": LEAK}
    ),
    "no event": raw(b"data: " + json.dumps(LEAK).encode() + b"\n\n"),
    "a bad call": answer(calls(call(UPSTREAM_SECRET, "{}"))),
    "a redirect": HttpError(302, headers={"location": f"http://127.0.0.1:9/?key={UPSTREAM_SECRET}"}),
}

OWN_LEAKS: Mapping[str, Mapping[str, Json]] = {
    "chat": {"a bad finish": {"choices": [{"delta": {}, "finish_reason": "error"}], "note": LEAK}},
    "anthropic": {
        "an unknown event": {"type": LEAK},
        "an unknown block": {"type": "content_block_start", "index": 0, "content_block": {"type": LEAK}},
        "an unknown stop": {"type": "message_delta", "delta": {"stop_reason": LEAK}},
    },
    "gemini": {
        "a bad finish": {"candidates": [{"finishReason": "OTHER", "finishMessage": LEAK, "content": {}}]},
        "a blocked prompt": {"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": LEAK}},
    },
    "responses": {
        "failed": responses_end("failed", LEAK, LEAK),
        "another end": {"type": "response.completed", "response": {"status": LEAK, "error": {"code": LEAK}}},
        # What the model calls is passed on as it came: it may be a tool the provider knows by itself.
        "a bad call": None,
    },
}


def leaks(speaker: Speaker) -> Mapping[str, AnyStep | None]:
    own = {
        name: raw(speaker.frame(one)) if isinstance(one, dict) else None
        for name, one in OWN_LEAKS[speaker.dialect].items()
    }
    return {
        **LEAKS,
        "in the stream": raw(speaker.hello, speaker.failing(LEAK)),
        "in the stream first": raw(speaker.failing(LEAK)),
        "broken JSON": raw(speaker.open_frame(LEAK.encode()) + b"\n\n"),
        **own,
    }


@pytest.mark.parametrize("headers", [NOTHING, CODEX], ids=["sdk", "codex"])
@table("leak", leaks)
def test_no_secret_of_the_upstream_is_told(link: Link, leak: AnyStep, headers: Mapping[str, str]) -> None:
    link.always(leak)
    so_far = link.server.log.stat().st_size
    for stream in (False, True):
        told = link.create(headers, stream=stream)
        assert_quiet(f"{told.status} {told.headers} {told.body.decode()}")
    assert_quiet(link.server.log.read_bytes()[so_far:].decode())


def test_no_secret_is_written_anywhere(server: LiveServer) -> None:
    for file in server.log.parent.rglob("*"):
        if file.is_file():
            assert_quiet(file.read_bytes().decode("latin-1"))


def assert_quiet(said: str) -> None:
    for secret in (UPSTREAM_SECRET, "UPSTREAM-SECRET", PLAIN_SECRET, "org-UPSTREAMSECRET0123456789"):
        assert secret not in said, said[max(0, said.index(secret) - 200) :][:400]
