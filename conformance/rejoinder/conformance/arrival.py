"""Before the rules: whether there is a server to judge at that address, with that key and that model."""

from collections.abc import Sequence

import msgspec

from rejoinder.conformance.answer import read
from rejoinder.conformance.errors import Broken, NoAnswer, Unreachable
from rejoinder.conformance.samples import greeted
from rejoinder.conformance.server import Reply, Server


async def arrive(server: Server) -> None:
    """Ask for one answer. Raises Unreachable when the fault is not one that rules speak of.

    Anything else that is wrong is for the rules to say.
    """
    try:
        reply = await server.once(greeted)
    except NoAnswer as nobody:
        raise Unreachable(
            f"POST {server.url}/responses: {nobody}. Is the server running, and is this its address? "
            "A slow model may need a longer --timeout."
        ) from None
    match reply.status:
        case 401 | 403 if server.has_key:
            raise Unreachable(f"the server does not accept the key ({_told(server, reply)}); check the variable")
        case 401 | 403:
            raise Unreachable(
                f"the server asks for a key ({_told(server, reply)}); "
                "name the variable that holds one with --api-key-env"
            )
        case 400 | 404 if _names_the_model(server, reply):
            raise Unreachable(
                f"the server does not answer for the model {server.model!r} ({_told(server, reply)})"
                f"{await _models(server)}"
            )
        case 404 | 405:
            raise Unreachable(
                f"there is no {server.url}/responses ({_told(server, reply)}); "
                "the URL ends with the version of the API, as in http://127.0.0.1:8080/v1"
            )
    if server.provider is not None:
        server.provider.check_asked()


def _names_the_model(server: Server, reply: Reply) -> bool:
    """Servers say it in many ways; this only has to tell a wrong name from a wrong address."""
    text = reply.body.decode(errors="replace")
    return "model_not_found" in text or (server.model in text and "model" in text.replace(server.model, ""))


def _told(server: Server, reply: Reply) -> str:
    return server.discreet(reply.excerpt)


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: Sequence[_Model]


async def _models(server: Server) -> str:
    try:
        reply = await server.get("/models")
        names = [model.id for model in read(_Models, reply.body, "models").data]
    except Broken:
        names = []
    return f"; it lists {', '.join(names[:10])}{' and more' if names[10:] else ''}" if names else ""
