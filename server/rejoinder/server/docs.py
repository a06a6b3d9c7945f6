"""The description of this server, for programs at `/openapi.json` and for people at `/docs`.

The page is Stoplight Elements, whose files the package `stopments` carries; nothing is fetched from elsewhere, and the
policy of the page forbids it. Both addresses are free: a browser cannot send a key when it opens a page, and what is
described is the same for everybody.
"""

from functools import cache

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Elements sets styles of single elements as it draws them
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_GUARDS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}

# Trying calls from the page is off: Elements would keep a key that was typed in, readable, in the browser's storage.
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>rejoinder</title>
<link rel="icon" href="docs/favicon.ico">
<link rel="stylesheet" href="docs/styles.min.css">
<script src="docs/web-components.min.js" defer></script>
</head>
<body>
<noscript>This page draws <a href="openapi.json">openapi.json</a>, which needs JavaScript.</noscript>
<elements-api apiDescriptionUrl="openapi.json" router="hash" layout="responsive" hideTryIt="true"></elements-api>
</body>
</html>
"""

_ASSETS = ("favicon.ico", "styles.min.css", "web-components.min.js")
"""What the page asks for; nothing else of the package is served."""


def routes() -> list[BaseRoute]:
    return [
        Route("/openapi.json", _description, methods=["GET"]),
        Route("/docs", _page, methods=["GET"]),
        Route("/docs/{asset}", _asset, methods=["GET"]),
    ]


async def _description(request: Request) -> Response:
    body = await anyio.to_thread.run_sync(_described)
    return Response(body, headers=_GUARDS, media_type="application/json")


def _described() -> bytes:
    # Reading all the types takes a moment, which a server that nobody asks for it need not spend.
    from rejoinder.server.openapi import document

    return document()


async def _page(request: Request) -> Response:
    return Response(_PAGE, headers={"content-security-policy": _POLICY, **_GUARDS}, media_type="text/html")


async def _asset(request: Request) -> Response:
    name = request.path_params["asset"]
    if name not in _ASSETS:
        raise HTTPException(404)
    answer = await _files().get_response(name, request.scope)
    # A browser asks each time whether its copy is still good: an update of the package keeps the names.
    answer.headers.update({"cache-control": "no-cache", **_GUARDS})
    return answer


@cache
def _files() -> StaticFiles:
    # The package is found, not imported: there is nothing in it to run.
    return StaticFiles(packages=[("stopments", "static")])
