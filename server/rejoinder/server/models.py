"""The models this server serves, as OpenAI lists them and as Codex reads them (http.md §1, codex.md §6)."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rejoinder.server.codex import CatalogueEntry, catalogue
from rejoinder.server.errors import NotFound
from rejoinder.server.services import Services

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
    def __init__(self, services: Services) -> None:
        self._routes = services.routes

    async def list(self, request: Request) -> Response:
        """Every name that can be listed: a pattern like `qwen*` has no end, so it is served but not listed."""
        names = self._routes.listing()
        body = ModelList(
            data=[Model(id=name, owned_by=upstream) for name, upstream in names],
            models=list(catalogue(name for name, _ in names)),
        )
        return Response(_ENCODER.encode(body), media_type="application/json")

    async def retrieve(self, request: Request) -> Response:
        name = request.path_params["model"]
        if not self._routes.serves(name):
            raise NotFound(f"The model '{name[:100]}' does not exist.", param="model", code="model_not_found")
        upstream = self._routes.find(name).upstream.name
        return Response(_ENCODER.encode(Model(id=name, owned_by=upstream)), media_type="application/json")
