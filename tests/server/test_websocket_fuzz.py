"""Whatever a client sends, it is told what is wrong with it, and nobody else notices (reliability.md S7 to S10;
websocket.md §4 and §6).

`REJOINDER_CASES` says how many generated messages are tried.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.held import Held
from rejoinder.conformance.upstreams.script import answer, text
from rejoinder.server.websocket import MOST_LANES, MOST_WAITING
from rejoinder.wire.request import CreateFields
from tests.server.site import MODEL, TERMINAL, Json, Site, folded, services_in, site
from tests.server.socket_flood import CLOSE, CONTINUED, PING, TEXT, Wild, echo, frame, unharmed
from tests.server.socket_stage import Stage, last, more
from tests.server.sockets import Talk, talking

CASES = int(os.environ.get("REJOINDER_CASES", "100"))

CREATE: Json = {"type": "response.create", "model": MODEL, "input": "hi", "store": False, "generate": False}
"""A call that needs no provider."""


@pytest.fixture(scope="module")
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream() as upstream:
        yield upstream


@pytest.fixture(autouse=True)
def _no_faults(provider: ChatUpstream) -> Iterator[None]:
    """Nothing a client says is a fault of the server's, and its provider is asked nothing that it minds."""
    echo(provider)
    with capture_logs() as logs:
        yield
    assert [entry for entry in logs if entry["log_level"] == "error"] == []
    assert provider.objections == []


@pytest.fixture(scope="module")
async def here(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site(services_in(tmp_path_factory.mktemp("fuzz"), provider.base_url)) as running:
        yield running


@pytest.fixture
async def talk(here: Site) -> AsyncIterator[Talk]:
    async with talking(here) as connected:
        yield connected


@asynccontextmanager
async def apart(tmp_path: Path, provider: ChatUpstream, **server: object) -> AsyncIterator[Site]:
    async with site(services_in(tmp_path, provider.base_url, server=server)) as running:
        yield running


def typed(message: Json) -> tuple[int, str]:
    """The status and the code of an error, which says all a client reads of it (websocket.md §6)."""
    assert message["type"] == "error", message
    error = message["error"]
    assert set(error) - {"headers"} == {"type", "code", "message", "param"}
    assert all(isinstance(error[name], str) and error[name] for name in ("type", "code", "message"))
    assert error["param"] is None or isinstance(error["param"], str)
    assert 400 <= message["status"] < 500, message
    return message["status"], error["code"]


async def outcome(talk: Talk, lane: str | None = None) -> str:
    """What becomes of a create call."""
    message = await talk.next(lane)
    if message["type"] == "error":
        return typed(message)[1]
    events = [message, *await talk.answer(lane)]
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    return str(events[-1]["type"])


# Messages that are no JSON, or not the JSON that is wanted

NONSENSE = [
    "",
    " \n\t",
    "{",
    "}",
    "{]",
    '{"type"}',
    '{"type":}',
    '{"type":"response.create",}',
    '{"type":"response.create"',
    '{"type":"response.create"}}',
    '{"type":"response.create"}{"type":"response.create"}',
    '{"type":"response.create"} x',
    "{'type':'response.create'}",
    '{type:"response.create"}',
    '{"type":"response.create" /* a comment */}',
    '{"type":"response.create","a":NaN}',
    '{"type":"response.create","a":Infinity}',
    '{"type":"response.create","a":-Infinity}',
    '{"type":"response.create","a":01}',
    '{"type":"response.create","a":+1}',
    '{"type":"response.create","a":1.}',
    '{"type":"response.create","a":.5}',
    '{"type":"response.create","a":0x10}',
    '{"type":"response.create","a":1e}',
    '{"type":"response.create","a":tru}',
    '{"type":"response.create","a":"\\x41"}',
    '{"type":"response.create","a":"\\u12"}',
    '{"type":"response.create","a":"\\ud800"}',
    '{"type":"response.create","a":"\\udc00\\ud800"}',
    '{"type":"response.create","a":{"\\udfff":1}}',
    '{"type":"response.create","a":"\n"}',
    '{"type":"response.create","a":"\x00"}',
    '{"type":"response.create","a":"',
    '\ufeff{"type":"response.create"}',
    "\x00",
    "hello",
    "NaN",
    "null",
    "true",
    "7",
    "-0.0",
    '"response.create"',
    "[]",
    '[{"type":"response.create"}]',
    '{"a":' + "[" * 100 + "]" * 100 + "}",
    '{"a":' * 101 + "7" + "}" * 101,
    '{"a":' + "[" * 100_000,
    '{"a":' * 100_000,
    "[" * 100_000 + "]" * 100_000,
    '{"type":"response.create","type":7}',
    '{"type":"response.create","type":"response.burn"}',
    '{"type":["response.create"]}',
    '{"type":{"type":"response.create"}}',
    '{"type":true}',
    '{"type":""}',
    '{"type":"response.create\\u0000"}',
    '{"type":"Response.Create"}',
    '{"type":"' + "x" * 100_000 + '"}',
    '{"TYPE":"response.create"}',
    "{}",
]


async def test_nonsense_is_told_to_be(here: Site, talk: Talk, provider: ChatUpstream) -> None:
    async with unharmed(here, provider, talk):
        for message in NONSENSE:
            await talk.send(message)
            error = await talk.error()
            assert (typed(error)[0], "stream_id" in error) == (400, False), message[:100]
            assert len(error["error"]["message"]) < 500, message[:100]
    assert len(provider.requests) == 3


async def test_a_binary_message_is_none(here: Site, talk: Talk, provider: ChatUpstream) -> None:
    whole = json.dumps(CREATE).encode()
    async with unharmed(here, provider, talk):
        for data in (b"", b"\x00", b"\xff\xfe", whole, bytes(100_000), "ä".encode("latin-1")):
            await talk.send(data)
            assert typed(await talk.error())[0] == 400


async def test_what_is_said_twice_counts_as_it_was_said_last(talk: Talk, provider: ChatUpstream) -> None:
    await talk.send(
        '{"type":"response.burn","stream_id":7,"model":"nobody","input":7,"type":"response.create","stream_id":"a",'
        f'"input":"hi","store":true,"store":false,"model":"{MODEL}"}}'
    )
    response = folded(await talk.answer("a"))
    assert (response["output"][0]["content"][0]["text"], response["store"]) == ("re: hi", False)


# Members of the wrong type

MEMBERS = ("type", "stream_id", "response_id", "generate", *CreateFields.__struct_fields__)
VALUES = (
    "null",
    "7",
    "-1",
    "1.5",
    "1e999",
    "9" * 400,
    "true",
    '""',
    '"x"',
    '"\\u0000\\n\\u202e"',
    '"' + "x" * 3000 + '"',
    "[]",
    "[7]",
    "[[]]",
    "[null]",
    "[{}]",
    '["x"]',
    "{}",
    '{"type":"x"}',
    '{"id":7}',
    '{"a":{"b":[]}}',
)


@pytest.mark.slow
async def test_a_member_of_any_type_gets_its_call_one_answer(here: Site, talk: Talk, provider: ChatUpstream) -> None:
    told: Counter[str] = Counter()
    async with unharmed(here, provider, talk):
        for member in MEMBERS:
            for value in VALUES:
                # Whoever says it last has said it.
                await talk.send(f'{json.dumps(CREATE)[:-1]},"{member}":{value}}}')
                told[await outcome(talk, "x" if (member, value) == ("stream_id", '"x"') else None)] += 1
    assert sum(told.values()) == len(MEMBERS) * len(VALUES)
    assert told["response.completed"] > 100
    assert told["invalid_type"] > 200


NO_IDS: list[Json] = [None, 7, "", [], {}, "\x00\n\u202e", "x" * 100_000]
NO_WORDS: list[Json] = [None, 7, [], {}, [7], [{}], [[]], [None], [{"role": "system", "content": "x"}],
                        [{"role": "user", "content": "x", "type": "reasoning"}],
                        [{"role": "user", "content": "x", "id": "msg_1"}]]  # fmt: skip
NO_CONTENTS: list[Json] = [None, 7, {}, [7], [{}], [{"type": "output_text", "text": "x"}], [{"type": 7}]]

STEERS: list[Json] = [
    {},
    {"input": "x"},
    {"previous_response_id": "resp_1"},
    {"previous_response_id": "resp_1", "input": "x", "stream_id": "a"},
    {"previous_response_id": "resp_1", "input": "x", "model": MODEL},
    *({"previous_response_id": id, "input": "x"} for id in NO_IDS),
    *({"previous_response_id": "resp_1", "input": words} for words in NO_WORDS),
    *({"previous_response_id": "resp_1", "input": [{"role": "user", "content": content}]} for content in NO_CONTENTS),
]


async def test_words_of_any_type_come_back(here: Site, talk: Talk, provider: ChatUpstream) -> None:
    async with unharmed(here, provider, talk):
        for words in STEERS:
            await talk.send({"type": "response.steer", **words})
            failed = await talk.next()
            assert failed["type"] == "response.steer.failed"
            assert failed["error"]["code"] in ("invalid_input", "response_not_found")
            assert failed["error"]["message"]
            assert failed["steer"]["input"] == words.get("input", "")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
messages = st.dictionaries(st.sampled_from(MEMBERS[1:]), values, max_size=3)
kinds = st.sampled_from(["response.create"] * 4 + ["response.steer", "response.interrupt", "response.processed"])


@pytest.mark.slow
@settings(max_examples=CASES)
@given(said=st.lists(st.tuples(kinds, messages), min_size=1, max_size=5))
def test_whatever_is_in_a_message_it_gets_one_answer(said: list[tuple[str, Json]]) -> None:
    """Without a socket, and so as often as is wanted."""
    with Stage() as stage:
        line = stage.connect()
        expected: Counter[str] = Counter()
        for kind, members in said:
            line.say({**CREATE, **members, "type": kind} if kind == "response.create" else {**members, "type": kind})
            expected["ends"] += kind == "response.create"
            expected["steers"] += kind == "response.steer"
            expected["loose"] += kind == "response.interrupt"
        stage.rest()
        while stage.open_calls:
            [call, *_] = stage.open_calls
            call.head()
            call.piece(more("hi") + last())
            call.end()
            stage.rest()
        ends = [message for message in line.heard if message["type"] in (*TERMINAL, "error")]
        for message in ends:
            if message["type"] == "error":
                typed(message)
        steers = [message for message in line.heard if message["type"] == "response.steer.failed"]
        assert len(steers) == expected["steers"]
        # An interruption that names nobody wants no answer, and one that names no name is told so.
        assert expected["ends"] <= len(ends) <= expected["ends"] + expected["loose"]
        line.leave()
        stage.rest()
        assert line.serving.done()


# Frames


async def test_a_message_in_many_fragments_is_one_message(here: Site, talk: Talk, provider: ChatUpstream) -> None:
    async with unharmed(here, provider, talk):
        await talk.connection.send([*json.dumps({**CREATE, "input": "ä" * 1000}, ensure_ascii=False)])
        assert await outcome(talk) == "response.completed"
        await talk.connection.send([*"{ nonsense"])
        assert typed(await talk.error())[0] == 400


@pytest.mark.slow
async def test_fragments_may_be_empty_and_have_pings_between_them(here: Site, provider: ChatUpstream) -> None:
    whole = json.dumps(CREATE).encode()

    def wild() -> None:
        client = Wild(here.port)
        client.socket.sendall(frame(TEXT, b"", final=False))
        for byte in whole:
            client.socket.sendall(frame(PING, b"?") + frame(CONTINUED, bytes((byte,)), final=False))
        client.socket.sendall(frame(CONTINUED, b"", final=False) * 100_000 + frame(CONTINUED, b""))
        types: list[str] = []
        while len(types) < 3:
            opcode, payload = client.read()
            if opcode == TEXT:
                types.append(json.loads(payload)["type"])
        assert types == ["response.created", "response.in_progress", "response.completed"]
        client.close()

    async with unharmed(here, provider):
        await asyncio.to_thread(wild)


async def test_a_message_is_as_large_as_the_settings_say_and_no_larger(tmp_path: Path, provider: ChatUpstream) -> None:
    limit = 10_000

    def sized(size: int) -> str:
        message = json.dumps({**CREATE, "input": ""})
        return message.replace('"input": ""', f'"input": "{"x" * (size - len(message))}"')

    async with apart(tmp_path, provider, max_body_bytes=limit) as here:
        for pieces in (1, 7):
            async with talking(here) as talk, unharmed(here, provider, talk):
                message = sized(limit)
                assert len(message) == limit
                await talk.connection.send(_cut(message, pieces))
                assert await outcome(talk) == "response.completed"
            async with talking(here) as talk, unharmed(here, provider):
                await talk.connection.send(_cut(sized(limit + 1), pieces))
                assert typed(await talk.error()) == (413, "message_too_large")
                await talk.connection.wait_closed()
                assert talk.connection.close_code == 1009


def _cut(message: str, pieces: int) -> list[str]:
    size = len(message) // pieces + 1
    return [message[at : at + size] for at in range(0, len(message), size)]


@pytest.mark.slow
async def test_a_message_of_64_mib_is_read_and_one_byte_more_is_not(here: Site, provider: ChatUpstream) -> None:
    start, end = json.dumps({**CREATE, "input": "|"}).encode().split(b"|")
    whole = start + b"x" * (64 * 2**20 - len(start) - len(end)) + end

    def wild() -> None:
        client = Wild(here.port)
        client.socket.settimeout(60)
        client.socket.sendall(frame(TEXT, whole))
        types = [client.hear()["type"] for _ in range(3)]
        assert types == ["response.created", "response.in_progress", "response.completed"]
        client.socket.sendall(frame(TEXT, whole + b" "))
        assert typed(client.hear()) == (413, "message_too_large")
        opcode, payload = client.read()
        assert (opcode, int.from_bytes(payload[:2])) == (CLOSE, 1009)
        client.close()

    async with unharmed(here, provider):
        await asyncio.to_thread(wild)


# Names

CONTROLS = ["\x00", "\n", "a\rb", "\x1b[31m", "\x7f", "\u2028", "\u202eresp", "resp_\x00", "resp_" + "\t" * 30]


async def test_ids_with_control_characters_are_ids_of_nothing(here: Site, talk: Talk, provider: ChatUpstream) -> None:
    async with unharmed(here, provider, talk):
        for id in (*CONTROLS, "../../etc/passwd", "resp_" + "x" * 100_000, "", "resp_%00", "résp_1"):
            for fields in (
                {"previous_response_id": id},
                {"conversation": id},
                {"conversation": {"id": id}},
                {"input": [{"type": "item_reference", "id": id}]},
                {"input": [{"type": "function_call_output", "call_id": id, "output": "x"}]},
            ):
                await talk.send({**CREATE, **fields})
                error = await talk.error()
                assert typed(error)[0] in (400, 404), fields
                assert len(error["error"]["message"]) < 1000
            await talk.send({"type": "response.interrupt", "response_id": id})
        for name in (*CONTROLS, "x" * 257, "ä", "a b", "a/b", "\ud7ff"):
            await talk.send({**CREATE, "stream_id": name})
            error = await talk.error()
            assert (typed(error), "stream_id" in error) == ((400, "invalid_stream_id"), False)


async def test_names_beyond_the_last_are_refused_by_name(here: Site, talk: Talk, provider: ChatUpstream) -> None:
    async with unharmed(here, provider, talk):
        names = [f"{number:.<256}" for number in range(MOST_LANES + 20)]
        for name in names:
            await talk.create(lane=name, **{**CREATE, "type": "response.create"})
        told = [await outcome(talk, name) for name in names]
        # The lane of the trickle is one of them.
        assert told[: MOST_LANES - 1] == ["response.completed"] * (MOST_LANES - 1)
        assert told[MOST_LANES - 1 :] == ["websocket_stream_limit_reached"] * 21


# Floods


@pytest.mark.slow
async def test_calls_beyond_those_that_may_wait_are_refused_and_the_others_answered(
    here: Site, talk: Talk, provider: ChatUpstream
) -> None:
    held = Held(answer(text("at last")))
    lanes = [f"lane-{number}" for number in range(20)]
    async with unharmed(here, provider, talk, held=held):
        for number in range(600):
            await talk.create(lane=lanes[number % 20], input="held" if number < 20 else f"{number}", store=False)
        await talk.send(b"")
        await talk.error()
        held.release()
        told: Counter[str] = Counter()
        for lane in lanes:
            for _ in range(600 // 20):
                told[await _ended(talk, lane)] += 1
    # Fifteen of them ran beside the trickle, and the others had to wait.
    assert told["response.completed"] == MOST_WAITING + 15
    assert told == {"response.completed": MOST_WAITING + 15, "rate_limit_exceeded": 600 - MOST_WAITING - 15}


async def _ended(talk: Talk, lane: str) -> str:
    """The next thing that ends in a lane: refusals do not wait for what runs there."""
    while (message := await talk.next(lane))["type"] not in (*TERMINAL, "error"):
        pass
    return typed(message)[1] if message["type"] == "error" else str(message["type"])


def resident() -> int:
    """Bytes of memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


TINY = ["{}", "{", "[]", '{"type":"response.create","stream_id":""}', '{"type":"response.steer"}']


@pytest.mark.parametrize("message", TINY)
async def test_a_client_that_sends_nonsense_and_does_not_read_is_not_read_either(
    here: Site, provider: ChatUpstream, message: str
) -> None:
    client = await asyncio.to_thread(Wild, here.port, receive_buffer=4096)
    async with unharmed(here, provider):
        before = resident()
        sent = await asyncio.to_thread(client.push, frame(TEXT, message.encode()), patience=0.5)
        # What the sockets in between hold, and a piece or two.
        assert sent < 16 * 2**20
        assert resident() - before < 64 * 2**20
        client.close()


def test_a_client_that_says_much_at_once_leaves_others_their_turn() -> None:
    with Stage() as stage:
        loud, quiet = stage.connect(), stage.connect()
        for _ in range(1000):
            loud.say({})
        quiet.say({**CREATE, "generate": True})
        stage.rest(20)
        assert stage.open_calls
        assert len(loud.heard) < 800
        for line in (loud, quiet):
            line.leave()
        stage.rest()
        assert not stage.tasks()
