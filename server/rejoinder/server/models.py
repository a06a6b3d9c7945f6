"""The models this server serves, as OpenAI lists them and as Codex reads them (http.md §1, codex.md §6)."""

import asyncio
import time
from collections.abc import Callable, Iterable

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from rejoinder.bridge.errors import UpstreamError
from rejoinder.server.codex import CatalogueEntry, catalogue
from rejoinder.server.errors import NotFound
from rejoinder.server.routing import is_glob
from rejoinder.server.services import Provider, Services

ASK_TIMEOUT = 3.0
"""Seconds an upstream has to say which models it has."""

ASK_EVERY = 60.0
"""Seconds its answer is good for."""

MAX_LIST = 2**22
"""Bytes of such an answer."""

_logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)
_ENCODER = msgspec.json.Encoder()


class Model(msgspec.Struct, kw_only=True):
    id: str
    object: str = "model"
    created: int = 0
    owned_by: str


class ModelList(msgspec.Struct, kw_only=True):
    """One list for both: SDKs read `data`, Codex reads `models`."""

    object: str = "list"
    data: list[Model]
    models: list[CatalogueEntry]


class Models:
    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._clock = clock
        self._offers: dict[str, tuple[float, list[str]]] = {}

    async def listed(self, request: Request) -> Response:
        """Every name in the settings, and what patterns like `qwen*` mean today: that only the upstream knows."""
        named = dict(self._services.routes.listing())
        for upstream, names in await self._offered():
            for name in names:
                if self._services.routes.serves(name) and self._serving(name) == upstream:
                    named.setdefault(name, upstream)
        body = ModelList(
            data=[Model(id=name, owned_by=upstream) for name, upstream in named.items()],
            models=[*catalogue(named)],
        )
        return Response(_ENCODER.encode(body), media_type="application/json")

    async def retrieve(self, request: Request) -> Response:
        name = request.path_params["model"]
        if not self._services.routes.serves(name):
            raise NotFound(f"The model '{name[:100]}' does not exist.", param="model", code="model_not_found")
        return Response(_ENCODER.encode(Model(id=name, owned_by=self._serving(name))), media_type="application/json")

    def _serving(self, name: str) -> str:
        return self._services.routes.find(name).upstream.name

    async def _offered(self) -> Iterable[tuple[str, Iterable[str]]]:
        open_ended = [
            self._services.providers[upstream.name]
            for upstream in self._services.settings.upstreams
            if any(is_glob(model) for model in upstream.models)
        ]
        offers = await asyncio.gather(*(self._offer(provider) for provider in open_ended))
        return zip((provider.name for provider in open_ended), offers, strict=True)

    async def _offer(self, provider: Provider) -> Iterable[str]:
        """What one upstream has. An upstream that does not answer offers nothing: the list is no health check."""
        known = self._offers.get(provider.name)
        if known is not None and self._clock() - known[0] < ASK_EVERY:
            return known[1]
        names: list[str] = []
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                names = await _asked(provider)
        except (TimeoutError, UpstreamError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            _logger.info("upstream does not list its models", upstream=provider.name, why=str(error))
        self._offers[provider.name] = (self._clock(), names)
        return names


async def _asked(provider: Provider) -> list[str]:
    body = bytearray()
    async with provider.upstream.open(provider.dialect.models()) as answer:
        if not 200 <= answer.status < 300:
            raise UpstreamError(f"the provider answered with status {answer.status}", status=answer.status)
        async for chunk in answer.chunks:
            body += chunk
            if len(body) > MAX_LIST:
                raise UpstreamError(f"the list of models is larger than {MAX_LIST} bytes")
    return provider.dialect.offered(bytes(body))
