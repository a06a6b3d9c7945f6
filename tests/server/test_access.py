"""reliability.md S1, S2, S4."""

import hashlib
import json

import pytest
from starlette.types import Message, Receive, Scope, Send

from rejoinder.server.access import OPEN, Access, Keys, admit, owner_of
from rejoinder.server.errors import ApiError, Forbidden, InvalidRequest, Unauthorized

NO_KEYS = Keys([])
Headers = list[tuple[bytes, bytes]]


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


KEYS = Keys([("alice", digest("sk-alice")), ("bob", digest("sk-bob")), ("alice", digest("sk-alice-2"))])
HOST = (b"host", b"gateway.example:8080")


def bearer(key: bytes) -> Headers:
    return [HOST, (b"authorization", b"Bearer " + key)]


# Keys


def test_every_key_leads_to_its_owner_and_no_other_to_anybody() -> None:
    assert [KEYS.owner(key) for key in (b"sk-alice", b"sk-bob", b"sk-alice-2")] == ["alice", "bob", "alice"]
    assert [KEYS.owner(key) for key in (b"", b"sk-alice-", b"sk-alic", digest("sk-bob").encode(), b"\xff")] == [
        None
    ] * 5
    assert KEYS
    assert not NO_KEYS


def test_keys_are_kept_as_digests_only() -> None:
    assert b"sk-alice" not in repr([getattr(KEYS, name) for name in KEYS.__slots__]).encode()


# With keys


def test_a_key_opens() -> None:
    assert admit(bearer(b"sk-bob"), KEYS) == "bob"
    assert admit([HOST, (b"authorization", b"bearer  sk-bob "), (b"origin", b"https://evil.example")], KEYS) == "bob"


@pytest.mark.parametrize(
    "headers",
    [
        [HOST],
        [HOST, (b"authorization", b"")],
        [HOST, (b"authorization", b"sk-bob")],
        [HOST, (b"authorization", b"Basic sk-bob")],
        [HOST, (b"authorization", b"Bearer ")],
        [HOST, (b"authorization", b"Bearer sk-bob, Bearer sk-bob")],
        [*bearer(b"sk-bob"), (b"authorization", b"Bearer sk-bob")],
        [HOST, (b"x-api-key", b"sk-bob")],
    ],
)
def test_anything_but_one_bearer_key_is_401(headers: Headers) -> None:
    with pytest.raises(Unauthorized) as raised:
        admit(headers, KEYS)
    assert "Bearer" in str(raised.value) or raised.value.code == "invalid_api_key"
    assert raised.value.headers == {"www-authenticate": "Bearer"}


def test_a_foreign_key_is_401_and_not_repeated() -> None:
    with pytest.raises(Unauthorized) as raised:
        admit(bearer(b"sk-mallory"), KEYS)
    assert raised.value.code == "invalid_api_key"
    assert "mallory" not in str(raised.value)


@pytest.mark.parametrize("keys", [KEYS, NO_KEYS], ids=["keys", "open"])
@pytest.mark.parametrize(
    "hosts", [[], [b"localhost", b"localhost"], [b""], [b"local host"], [b"localhost/"], [b"user@localhost"], [b"a_b"]]
)
def test_a_host_that_is_not_one_host_is_400(keys: Keys, hosts: list[bytes]) -> None:
    with pytest.raises(InvalidRequest):
        admit([*((b"host", host) for host in hosts), (b"authorization", b"Bearer sk-bob")], keys)


# Without keys


@pytest.mark.parametrize(
    "host",
    [b"localhost", b"LocalHost:8080", b"127.0.0.1", b"127.0.0.1:65535", b"127.8.9.10:1", b"[::1]", b"[::1]:8080"],
)
def test_an_open_server_answers_loopback_names(host: bytes) -> None:
    assert admit([(b"host", host)], NO_KEYS) == OPEN
    assert admit([(b"host", host), (b"origin", b"http://" + host), (b"authorization", b"x")], NO_KEYS) == OPEN
    assert admit([(b"host", host), (b"origin", b"https://localhost:5173")], NO_KEYS) == OPEN


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"evil.example:8080",
        b"localhost.evil.example",
        b"127.0.0.1.evil.example",
        b"128.0.0.1",
        b"0.0.0.0",
        b"127.0.0.1:8080:8080",
        b"localhost:",
        b"::1",
        b"[::2]",
        b"[::1]evil",
        b"[::1",
        b"2130706433",
        b"0177.0.0.1",
        b":8080",
    ],
)
def test_an_open_server_answers_no_other_names(host: bytes) -> None:
    with pytest.raises(Forbidden, match="loopback names only"):
        admit([(b"host", host)], NO_KEYS)
    assert admit([(b"host", host)], NO_KEYS, open_host_check=False) == OPEN


@pytest.mark.parametrize(
    "origin",
    [
        b"null",
        b"",
        b"https://evil.example",
        b"http://localhost.evil.example",
        b"file://",
        b"http://localhost/",
        b"\xff",
    ],
)
def test_an_open_server_answers_no_pages_of_others(origin: bytes) -> None:
    with pytest.raises(Forbidden, match="pages of other origins"):
        admit([(b"host", b"localhost"), (b"origin", origin)], NO_KEYS)
    with pytest.raises(ApiError):
        admit([(b"host", b"localhost"), (b"origin", b"http://localhost"), (b"origin", origin)], NO_KEYS)


# The middleware


class App:
    def __init__(self) -> None:
        self.owners: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.owners.append(owner_of(scope) if "state" in scope else "")


async def ask(scope: Scope, app: App | None = None, keys: Keys = KEYS) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("refused before anything is read")

    async def send(message: Message) -> None:
        sent.append(message)

    await Access(app or App(), keys=keys)(scope, receive, send)
    return sent


def http(path: str, headers: Headers) -> Scope:
    return {"type": "http", "path": path, "headers": headers}


async def test_what_passes_has_its_owner() -> None:
    app = App()
    assert await ask(http("/v1/responses", bearer(b"sk-bob")), app) == []
    assert await ask({"type": "websocket", "path": "/v1/responses", "headers": bearer(b"sk-alice")}, app) == []
    assert await ask(http("/v1/responses", [(b"host", b"localhost")]), app, NO_KEYS) == []
    assert app.owners == ["bob", "alice", OPEN]


async def test_health_and_the_lifespan_are_free_and_nothing_that_looks_like_them() -> None:
    app = App()
    assert await ask(http("/health", []), app) == []
    assert await ask({"type": "lifespan"}, app) == []
    assert app.owners == ["", ""]
    for path in ("/health/", "//health", "/Health", "/v1/../health", "/v1/health", "", "/unknown"):
        start, _ = await ask(http(path, [HOST]), app)
        assert start["status"] == 401
    assert app.owners == ["", ""]


async def test_a_refusal_is_an_openai_error_without_cors() -> None:
    start, body = await ask(http("/v1/responses", [HOST, (b"origin", b"https://evil.example")]))
    assert start == {
        "type": "http.response.start",
        "status": 401,
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body["body"])).encode()),
            (b"www-authenticate", b"Bearer"),
        ],
    }
    told = json.loads(body["body"])["error"]
    assert told.pop("message").startswith("You didn't provide an API key.")
    assert told == {"type": "invalid_request_error", "param": None, "code": None}


async def test_codex_is_refused_with_a_status_it_does_not_repeat() -> None:
    start, _ = await ask(http("/v1/responses", [HOST, (b"originator", b"codex_exec")]))
    assert start["status"] == 400


async def test_a_handshake_is_refused_like_a_request_where_the_server_can_say_it() -> None:
    scope: Scope = {"type": "websocket", "path": "/v1/responses", "headers": [HOST]}
    start, body = await ask({**scope, "extensions": {"websocket.http.response": {}}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert (body["type"], json.loads(body["body"])["error"]["code"]) == ("websocket.http.response.body", None)
    assert await ask(scope) == [{"type": "websocket.close", "code": 1008}]
