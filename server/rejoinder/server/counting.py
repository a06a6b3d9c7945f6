"""`POST /v1/responses/input_tokens`: what a create call would consume, by the provider's own count (http.md §2.1)."""

import asyncio

import msgspec

from rejoinder.bridge.dialect import NOBODY
from rejoinder.bridge.errors import BrokenStream, Unsupported
from rejoinder.server.ids import Ids
from rejoinder.server.lineage import lineage
from rejoinder.server.prompting import Place, kept_by, prompt_of
from rejoinder.server.services import Services
from rejoinder.server.upstream import whole
from rejoinder.wire.request import CreateRequest

COUNT_TIMEOUT = 30.0
"""Seconds a provider has for it."""


class InputTokens(msgspec.Struct):
    input_tokens: int
    object: str = "response.input_tokens"


async def count(request: CreateRequest, services: Services, *, owner: str) -> InputTokens:
    """Ask the upstream. Raises Unsupported where its protocol cannot say, UpstreamError where it does not."""
    services.running.admit()
    route = services.routes.find(request.model)
    provider = services.providers[route.upstream.name]
    said = await lineage(request, services.store, owner=owner)
    place = Place(services, provider, provider.issuer(route.model), owner, Ids(services.random))
    prompt = prompt_of(request, said, kept_by(place.ids, said.conversation.coming), place, NOBODY)
    counting = provider.dialect.count(prompt)
    if counting is None:
        raise Unsupported(
            f"the protocol of upstream '{provider.name}' has no request that counts tokens", param="model"
        )
    try:
        async with asyncio.timeout(COUNT_TIMEOUT), provider.upstream.open(counting.call) as answer:
            body = await whole(answer)
    except TimeoutError as error:
        raise BrokenStream("the provider did not count the tokens in time") from error
    if not 200 <= answer.status < 300:
        raise provider.dialect.rejection(answer.status, answer.headers, body)
    try:
        return InputTokens(counting.read(body))
    except msgspec.MsgspecError as error:
        raise BrokenStream(f"the provider's count makes no sense: {error}") from error
