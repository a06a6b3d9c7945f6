import asyncio
import re

from starlette.types import Message, Receive, Scope, Send

from rejoinder.server import request_id
from rejoinder.server.request_id import RequestId, mint


def test_an_id_is_128_random_bits() -> None:
    ids = {mint() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"req_[0-9a-f]{32}", made) for made in ids)


class App:
    """Sends the messages it is given, and remembers under which id."""

    def __init__(self, *messages: Message) -> None:
        self.messages = messages
        self.seen: list[tuple[str, str | None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append((scope["state"]["request_id"] if "state" in scope else "", request_id.current.get()))
        for message in self.messages:
            await send(message)


async def ask(app: App, scope: Scope) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("nothing to receive")

    async def send(message: Message) -> None:
        sent.append(message)

    await asyncio.create_task(RequestId(app)(scope, receive, send))
    return sent


async def test_every_kind_of_answer_carries_the_id_of_its_request() -> None:
    body: Message = {"type": "http.response.body", "body": b""}
    for start in (
        {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]},
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"a", b"b")]},
        {"type": "websocket.accept", "headers": [(b"a", b"b")]},
    ):
        app = App(start, body)
        first, second = await ask(app, {"type": "http"})
        [(known, current)] = app.seen
        assert first == {**start, "headers": [(b"a", b"b"), (b"x-request-id", known.encode())]}
        assert current == known
        assert second is body


async def test_an_answer_without_headers_gets_one() -> None:
    [start] = await ask(App({"type": "websocket.accept"}), {"type": "websocket", "state": {"kept": 1}})
    assert [name for name, _ in start["headers"]] == [b"x-request-id"]


async def test_two_requests_have_two_ids_and_leave_none_behind() -> None:
    app = App()
    await ask(app, {"type": "http"})
    await ask(app, {"type": "http"})
    assert app.seen[0] != app.seen[1]
    assert request_id.current.get() is None


async def test_starting_and_stopping_is_no_request() -> None:
    app = App({"type": "lifespan.startup.complete"})
    assert await ask(app, {"type": "lifespan"}) == [{"type": "lifespan.startup.complete"}]
    assert app.seen == [("", None)]
