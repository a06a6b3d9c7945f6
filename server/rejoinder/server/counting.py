"""`POST /v1/responses/input_tokens`: what a create call would consume (http.md §2.1).

The provider's own count where it has a request for that, and else a tokenizer's of what it would be sent. The header
`x-rejoinder-counted-by` says which: `provider`, or the name of the vocabulary (`o200k_base`), and then the number is an
estimate.
"""

import asyncio
from dataclasses import dataclass, replace

import anyio.to_thread
import msgspec

from rejoinder.bridge.dialect import NOBODY, Count, Prompt
from rejoinder.bridge.errors import BrokenStream
from rejoinder.bridge.words import words
from rejoinder.server.ids import Ids
from rejoinder.server.lineage import lineage
from rejoinder.server.prompting import Place, kept_by, prompt_of
from rejoinder.server.services import Provider, Services
from rejoinder.server.tokenizer import Encoding, encoding_of, tokens
from rejoinder.server.upstream import whole
from rejoinder.wire.request import CreateRequest

COUNTED_BY = "x-rejoinder-counted-by"
"""The header that says who counted."""

COUNT_TIMEOUT = 30.0
"""Seconds a provider has for it."""


class InputTokens(msgspec.Struct):
    input_tokens: int
    object: str = "response.input_tokens"


@dataclass(frozen=True, slots=True)
class Counted:
    """The answer to the client, and the value of its header."""

    answer: InputTokens
    by: str


async def count(request: CreateRequest, services: Services, *, owner: str) -> Counted:
    """Raises Unsupported for what the upstream could not be asked, UpstreamError where it was to count and did not."""
    services.running.admit()
    route = services.routes.find(request.model)
    provider = services.providers[route.upstream.name]
    said = await lineage(request, services.store, owner=owner)
    place = Place(services, provider, provider.issuer(route.model), owner, Ids(services.random))
    prompt = prompt_of(request, said, kept_by(place.ids, said.conversation.coming), place, NOBODY)
    counting = provider.dialect.count(prompt)
    return await _asked(counting, provider) if counting is not None else await _estimated(prompt, provider)


async def _asked(counting: Count, provider: Provider) -> Counted:
    try:
        async with asyncio.timeout(COUNT_TIMEOUT), provider.upstream.open(counting.call) as answer:
            body = await whole(answer)
    except TimeoutError as error:
        raise BrokenStream("the provider did not count the tokens in time") from error
    if not 200 <= answer.status < 300:
        raise provider.dialect.rejection(answer.status, answer.headers, body)
    try:
        return Counted(InputTokens(counting.read(body)), "provider")
    except msgspec.MsgspecError as error:
        raise BrokenStream(f"the provider's count makes no sense: {error}") from error


async def _estimated(prompt: Prompt, provider: Provider) -> Counted:
    # A call that refers to what the upstream keeps consumes that too, so it is counted as if it said it all.
    call = provider.dialect.call(replace(prompt, parent=None))
    encoding = encoding_of(prompt.model)
    # In a thread however short it is: the first one waits for the vocabulary.
    number = await anyio.to_thread.run_sync(_tokens_of, call.body, encoding)
    return Counted(InputTokens(number), encoding)


def _tokens_of(body: bytes, encoding: Encoding) -> int:
    read = words(body)
    return tokens(read.texts, encoding) + read.beside
