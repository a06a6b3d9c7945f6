from pathlib import Path

import pytest
from aiohttp import web

from rejoinder.conformance.server import Server
from rejoinder.conformance.suite import CASES, NoSuchCase, chosen
from rejoinder.conformance.verdict import Verdict, judge
from tests.conformance.judging import named, verdicts
from tests.conformance.little_server import LittleServer
from tests.live import LiveUpstream, running

DEMO = LiveUpstream(name="demo", dialect="demo", models=["demo"])
KEY = "rj-conformance"


async def judged(base_url: str, model: str, key: str | None) -> list[Verdict]:
    async with Server.at(base_url, model, key=key, timeout=10) as server:
        return [await judge(case, server) for case in CASES]


async def test_our_own_server_keeps_every_rule(tmp_path: Path) -> None:
    with running(tmp_path, upstreams=[DEMO], keys={"judge": KEY}) as server:
        found = await judged(server.base_url, "demo", KEY)
    assert [verdict.line for verdict in found if verdict.outcome != "pass"] == []


async def test_a_server_of_another_make_keeps_every_rule() -> None:
    assert named("pass", await verdicts(LittleServer(key=KEY), key=KEY)) == {case.name for case in CASES}


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<html>hello</html>"),
        ("application/json", b""),
        ("application/json", b"null"),
        ("application/json", b"{}"),
        ("application/json", b"\xff"),
        ("application/json", b'{"error": null}'),
        ("application/json", b'{"error": {}}'),
        ("application/json", b'{"id": "resp_1", "output": []}'),
        ("application/json", b'{"id": "resp_1", "output": [{}], "usage": {}}'),
        ("application/json", b'{"object": "list", "data": [], "has_more": true}'),
        ("text/event-stream", b"data: null\n\n"),
        ("text/event-stream", b'data: {"type": "response.completed"}\n\n'),
        ("text/event-stream", b'data: {"type": "response.completed", "response": {"id": "a", "output": [{}]}}\n\n'),
        ("text/event-stream", b'data: {"type": "response.output_item.done", "item": {}}\n\n'),
        ("text/event-stream", b'data: {"type": "response.output_item.done", "output_index": -1, "item": null}\n\n'),
    ],
)
async def test_nonsense_is_judged_to_the_end_and_does_not_pass(status: int, kind: str, body: bytes) -> None:
    async def nonsense(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers={"content-type": kind})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", nonsense)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found = await judged(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", "demo", None)
    finally:
        await runner.cleanup()
    assert len(found) == len(CASES)
    assert len(named("fail", found)) > len(CASES) / 2


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert not {case.name for case in CASES} & {case.theme for case in CASES}


def test_names_choose_cases_and_themes() -> None:
    assert chosen([]) == CASES
    assert [case.name for case in chosen(["usage-adds-up"])] == ["usage-adds-up"]
    assert {case.theme for case in chosen(["tools", "lists"])} == {"tools", "lists"}
    assert chosen(["usage-adds-up", "tools"]) == [
        case for case in CASES if case.theme == "tools" or case.name == "usage-adds-up"
    ]


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(NoSuchCase, match="expected the name of a case or a theme, got 'nothing'"):
        chosen(["tools", "nothing"])
