"""The name of one request: `x-request-id` on every answer, errors included (http.md §5), and on its log lines."""

import secrets
from collections.abc import Awaitable
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

current: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request this task, or a task it started, works for; None outside of any."""

_STARTS = frozenset(("http.response.start", "websocket.http.response.start", "websocket.accept"))


def mint() -> str:
    """`req_` and 128 random bits in hex."""
    return f"req_{secrets.token_hex(16)}"


class RequestId:
    """Pure ASGI. The id is in `scope["state"]["request_id"]`, in `current`, and on the head of whatever is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request_id = mint()
        scope.setdefault("state", {})["request_id"] = request_id
        # Never reset: the server runs every request in a task of its own, and what that task leaves behind keeps it.
        current.set(request_id)
        header = (b"x-request-id", request_id.encode())

        # Not a coroutine: a stream calls this for every chunk, and one more frame to step through would show.
        def named(message: Message) -> Awaitable[None]:
            if message["type"] in _STARTS:
                message = {**message, "headers": [*message.get("headers", ()), header]}
            return send(message)

        await self._app(scope, receive, named)
