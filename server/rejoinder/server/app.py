"""The application: which path leads where, and what surrounds all of them."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import anyio
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rejoinder.server.access import Access, Keys
from rejoinder.server.conversing import ConversationRoutes
from rejoinder.server.docs import routes as docs
from rejoinder.server.envelope import answer, describe, from_codex
from rejoinder.server.errors import NotFound
from rejoinder.server.health import Health
from rejoinder.server.http import CompactConversation, CountTokens, CreateResponse
from rejoinder.server.models import Models
from rejoinder.server.request_id import RequestId
from rejoinder.server.runs import Runs
from rejoinder.server.services import Services
from rejoinder.server.sse import Pulse
from rejoinder.server.stored import StoredResponses
from rejoinder.server.sweeping import Sweeper
from rejoinder.server.websocket import NoSocket, ResponsesSocket


class Rest(Convertor[str]):
    """What is left of a path, whatever it is: `path` of the library stops at a line feed."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("rest", Rest())


def build_app(services: Services, runs: Runs | None = None) -> ASGIApp:
    """The ASGI application over these services; it closes them when it shuts down."""
    runs = runs or Runs(services)
    pulse = Pulse()
    health = Health(services)
    sweeper = Sweeper(services)
    stored = StoredResponses(runs)
    talks = ConversationRoutes(services)
    models = Models(services)

    @asynccontextmanager
    async def lifespan(app: ASGIApp) -> AsyncIterator[None]:
        await runs.recover()
        async with anyio.create_task_group() as group:
            group.start_soon(pulse.run)
            group.start_soon(health.run)
            group.start_soon(sweeper.run)
            group.start_soon(sweeper.run_in_memory)
            yield
            await services.running.close(services.settings.server.drain_timeout)
            group.cancel_scope.cancel()
        await services.close()

    # The router alone: what Starlette's application adds to it is a second and a third place for errors to go.
    router = Router(
        routes=[
            *docs(),
            Route("/v1/responses", CreateResponse(services, pulse, runs), methods=["POST"]),
            WebSocketRoute("/v1/responses", ResponsesSocket(services, pulse)),
            WebSocketRoute("/{path:rest}", NoSocket()),
            Route("/v1/responses/input_tokens", CountTokens(services), methods=["POST"]),
            Route("/v1/responses/compact", CompactConversation(services), methods=["POST"]),
            Route("/v1/responses/{response_id}", stored.retrieve, methods=["GET"]),
            Route("/v1/responses/{response_id}", stored.delete, methods=["DELETE"]),
            Route("/v1/responses/{response_id}/cancel", stored.cancel, methods=["POST"]),
            Route("/v1/responses/{response_id}/input_items", stored.input_items, methods=["GET"]),
            Route("/v1/conversations", talks.create, methods=["POST"]),
            Route("/v1/conversations/{conversation_id}", talks.retrieve, methods=["GET"]),
            Route("/v1/conversations/{conversation_id}", talks.update, methods=["POST"]),
            Route("/v1/conversations/{conversation_id}", talks.delete, methods=["DELETE"]),
            Route("/v1/conversations/{conversation_id}/items", talks.add, methods=["POST"]),
            Route("/v1/conversations/{conversation_id}/items", talks.items, methods=["GET"]),
            Route("/v1/conversations/{conversation_id}/items/{item_id:rest}", talks.item, methods=["GET"]),
            Route("/v1/conversations/{conversation_id}/items/{item_id:rest}", talks.remove, methods=["DELETE"]),
            Route("/v1/models", models.listed, methods=["GET"]),
            Route("/v1/models/{model:rest}", models.retrieve, methods=["GET"]),
            Route("/health", health.report, methods=["GET"]),
        ],
        lifespan=lifespan,
        redirect_slashes=False,
    )
    keys = Keys((key.owner, key.sha256) for key in services.settings.keys)
    return RequestId(Access(Faults(router), keys=keys))


class Faults:
    """Turns what a request raised into its answer; once an answer has begun it can only be logged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        begun = False

        # Not a coroutine: a stream calls this for every chunk, and one more frame to step through would show.
        def noting(message: Message) -> Awaitable[None]:
            nonlocal begun
            begun = True
            return send(message)

        scope["app"] = self  # routes then raise for a path or method nobody serves, instead of answering in plain text
        try:
            await self._app(scope, receive, noting)
        except ClientDisconnect:
            pass  # it left in the middle of its request, and nobody is there to be told
        except Exception as error:
            # The last frame of the request.
            if isinstance(error, HTTPException):
                error = NoRoute(f"Invalid URL ({scope['method']} {scope['path'][:200]})", status=error.status_code)
            body = describe(error, codex=from_codex(scope["headers"]))
            if not begun:
                await answer(scope, send, body)


class NoRoute(NotFound):
    """Raised for a path nobody serves, or a method nobody serves there."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status
