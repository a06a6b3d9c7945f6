"""The HTTP endpoints (http.md §1): each reads its request, calls what does the work, and encodes."""

from collections.abc import Iterable

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from rejoinder.server.access import owner_of
from rejoinder.server.body import check, read_body, read_request
from rejoinder.server.compacting import compact, compaction_of
from rejoinder.server.counting import COUNTED_BY, count
from rejoinder.server.envelope import from_codex
from rejoinder.server.errors import InvalidRequest
from rejoinder.server.following import Followed
from rejoinder.server.identity import named
from rejoinder.server.notes import headers
from rejoinder.server.replies import json
from rejoinder.server.runs import Runs, Told
from rejoinder.server.services import Services
from rejoinder.server.sse import Pulse, StreamedTurn, present, while_connected
from rejoinder.wire.request import CreateRequest, unsupported

_ENCODER = msgspec.json.Encoder()


async def _body(receive: Receive, scope: Scope, services: Services) -> bytes:
    server = services.settings.server
    return await read_body(receive, scope["headers"], limit=server.max_body_bytes, timeout=server.body_timeout)


async def _request(body: bytes) -> CreateRequest:
    await check(body)
    request = await read_request(body)
    if request.fields.generate is False:
        raise unsupported("generate", "a response without output is served over a WebSocket alone")
    return request


class CreateResponse:
    """`POST /v1/responses`, plain or streamed. Pure ASGI: a plain answer has its client watched while it is made."""

    def __init__(self, services: Services, pulse: Pulse, runs: Runs) -> None:
        self._services = services
        self._pulse = pulse
        self._runs = runs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = idempotency_key(scope["headers"])
        body = await _body(receive, scope, self._services)
        request = await _request(body)
        owner, caller = owner_of(scope), named(scope["headers"])
        answer: ASGIApp
        if request.background or key is not None:
            told = await self._runs.create(request, body, owner=owner, caller=caller, key=key)
            answer = await self._told(told, request, owner, receive)
        elif request.stream:
            codex = from_codex(scope["headers"])
            answer = StreamedTurn(request, self._services, self._pulse, owner=owner, caller=caller, codex=codex)
        else:
            outcome = await while_connected(receive, request, self._services, owner=owner, caller=caller)
            answer = json(bytes(outcome.response), headers=headers(outcome.notes, outcome.losses))
        await answer(scope, receive, send)

    async def _told(self, told: Told, request: CreateRequest, owner: str, receive: Receive) -> ASGIApp:
        extra = {"idempotent-replay": "true"} if told.replayed else {}
        run = told.run
        if run is None:
            assert told.record is not None
            if request.stream:
                store = self._services.shelf(store=request.store)
                return Followed(store, told.record.id, owner=owner, run=None, extra=extra)
            return json(told.record.response, headers=extra)
        if request.stream:
            return Followed(run.store, run.id, owner=owner, run=run, extra=extra)
        if request.background:
            first = (await run.store.get(run.id, owner=owner)).response if told.replayed else run.first
        else:
            with run.attended():
                await present(receive, run.over.wait())
            if run.error is not None:
                raise run.error
            first = bytes(run.outcome.response)
        return json(first, headers={**extra, **headers(run.outcome.notes, run.outcome.losses)})


def idempotency_key(given: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key a client gave its request, so that sending it again does not run it again. Raises InvalidRequest."""
    keys = [value for name, value in given if name == b"idempotency-key"]
    if not keys:
        return None
    if len(keys) > 1 or not 0 < len(keys[0]) <= LONGEST_KEY or not all(33 <= byte <= 126 for byte in keys[0]):
        raise InvalidRequest(
            f"Expected one Idempotency-Key of 1 to {LONGEST_KEY} visible ASCII characters.", param="Idempotency-Key"
        )
    return keys[0].decode()


LONGEST_KEY = 255
"""Characters of an idempotency key."""


class CompactConversation:
    """`POST /v1/responses/compact`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await _request(compaction_of(await _body(receive, scope, self._services)))
        owner, caller = owner_of(scope), named(scope["headers"])
        compacted, outcome = await present(receive, compact(request, self._services, owner=owner, caller=caller))
        answer = json(_ENCODER.encode(compacted), headers=headers(outcome.notes, outcome.losses))
        await answer(scope, receive, send)


class CountTokens:
    """`POST /v1/responses/input_tokens`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await _request(await _body(receive, scope, self._services))
        counted = await count(request, self._services, owner=owner_of(scope))
        answer = json(_ENCODER.encode(counted.answer), headers={COUNTED_BY: counted.by})
        await answer(scope, receive, send)
