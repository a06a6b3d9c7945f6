import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.routing import Router
from starlette.types import Message

from rejoinder.server.docs import routes
from rejoinder.server.openapi import document
from tests.server.site import NOWHERE, services_in, site

ROUTER = Router(routes=routes(), redirect_slashes=False)


async def asked(path: str, headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    sent: list[Message] = []

    async def receive() -> Message:
        await anyio.sleep_forever()  # the client says nothing, and stays
        raise AssertionError("unreachable")

    async def send(message: Message) -> None:
        sent.append(message)

    given = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    await ROUTER({"type": "http", "method": "GET", "path": path, "headers": given, "app": None}, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}, body


async def test_the_description_is_served_as_json() -> None:
    status, headers, body = await asked("/openapi.json")
    assert (status, headers["content-type"], body) == (200, "application/json", document())


async def test_all_the_page_asks_for_is_served_from_here() -> None:
    status, headers, body = await asked("/docs")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = body.decode()
    links = re.findall(r'(?:src|href|apiDescriptionUrl)="([^"]*)"', page)
    assert len(links) == 5
    for link in links:
        assert (await asked(f"/{link}"))[0] == 200
    assert "//" not in page.removeprefix("<!doctype html>")


async def test_the_page_may_not_reach_out() -> None:
    _, headers, _ = await asked("/docs")
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert {source for sources in policy.values() for source in sources.split()} == {
        "'none'",
        "'self'",
        "'unsafe-inline'",
        "data:",
    }
    assert policy["script-src"] == "'self'"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("web-components.min.js", "text/javascript; charset=utf-8"),
        ("styles.min.css", "text/css; charset=utf-8"),
        ("favicon.ico", "image/vnd.microsoft.icon"),
    ],
)
async def test_a_file_of_the_page_is_asked_for_once(name: str, kind: str) -> None:
    status, headers, body = await asked(f"/docs/{name}")
    assert (status, headers["content-type"], headers["content-length"]) == (200, kind, str(len(body)))
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-cache", "nosniff")
    status, _, body = await asked(f"/docs/{name}", {"if-none-match": headers["etag"]})
    assert (status, body) == (304, b"")


@pytest.mark.parametrize("name", ["scalar-api-reference.js", "__init__.py", "..", "nothing"])
async def test_nothing_else_is_served(name: str) -> None:
    with pytest.raises(HTTPException) as caught:
        await asked(f"/docs/{name}")
    assert caught.value.status_code == 404


def test_a_server_that_nobody_asks_reads_nothing_of_it() -> None:
    code = """\
import sys
import rejoinder.server.docs
rejoinder.server.docs.routes()
print({"rejoinder.server.openapi", "rejoinder.server.schemas", "stopments"} & sys.modules.keys())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


async def test_a_browser_needs_no_key_for_it(tmp_path: Path) -> None:
    async with site(services_in(tmp_path, NOWHERE, keys={"ada": "secret"})) as here:
        for path in ("/docs", "/docs/styles.min.css", "/openapi.json"):
            assert (await here.ask("GET", path)).status == 200
        assert (await here.ask("GET", "/docs/nothing")).status == 404
        for path in ("/docsx", "/docs.json", "/openapi.jsonx", "/v1/models"):
            assert (await here.ask("GET", path)).status == 401
