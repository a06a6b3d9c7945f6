import re
from pathlib import Path

import pytest
from aiohttp import web

from rejoinder.conformance import suite
from rejoinder.conformance.errors import UnknownRule
from rejoinder.conformance.server import Server
from rejoinder.conformance.suite import CHAPTERS, RULES, chosen
from rejoinder.conformance.verdict import Verdict, judge
from tests.conformance.judging import ids
from tests.live import LiveUpstream, running

DEMO = LiveUpstream(name="demo", dialect="demo", models=["demo"])
KEY = "rj-conformance"
CONTRACT = Path(__file__).resolve().parents[3] / "shared" / "contract"


async def judged(base_url: str, model: str, key: str | None) -> list[Verdict]:
    async with Server.at(base_url, model, key=key, timeout=10) as server:
        return [await judge(rule, server) for rule in RULES]


async def test_our_own_server_keeps_every_rule(tmp_path: Path) -> None:
    with running(tmp_path, upstreams=[DEMO], keys={"judge": KEY}) as server:
        found = await judged(server.base_url, "demo", KEY)
    assert {verdict.id: verdict.reason for verdict in found if verdict.outcome != "kept"} == {}


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
    assert {verdict.id: verdict.reason for verdict in found if verdict.outcome == "not_judged"} == {}
    assert len(ids("broken", found)) > len(RULES) / 2


def test_ids_are_unique_and_keep_to_one_alphabet() -> None:
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids)
    assert [id for id in ids if not re.fullmatch(r"[a-z]+\.[a-z0-9]+(-[a-z0-9]+)*", id)] == []
    assert len({chapter.name for chapter in CHAPTERS} | {chapter.title for chapter in CHAPTERS}) == 2 * len(CHAPTERS)


def test_every_chapter_has_a_file_of_its_name_and_every_file_is_a_chapter() -> None:
    files = {path.stem for path in Path(suite.__file__).parent.glob("about_*.py")}
    assert {f"about_{chapter.name}" for chapter in CHAPTERS} == files


def test_a_rule_is_a_sentence_and_names_a_section_of_the_contract() -> None:
    assert [rule.id for rule in RULES if not re.fullmatch(r"[A-Z].*\.", rule.sentence)] == []
    assert [rule.id for rule in RULES if not re.search(r"\([a-z-]+\.md[, ].+\)", rule.source)] == []


@pytest.mark.skipif(not CONTRACT.is_dir(), reason="the contract is not beside the project")
def test_the_sections_that_rules_name_are_there() -> None:
    missing = [
        (rule.id, file, section)
        for rule in RULES
        for file, sections in re.findall(r"([a-z-]+\.md)((?: §[0-9.]+,?)+)", rule.source)
        for section in re.findall(r"§([0-9.]*[0-9])", sections)
        if not re.search(rf"^##+ {re.escape(section)}[. ]", (CONTRACT / file).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_ids_chapters_and_globs_choose_rules() -> None:
    def names(*patterns: str) -> list[str]:
        return [rule.id for rule in chosen(patterns)]

    assert chosen([]) == RULES
    assert names("objects.usage-adds-up") == ["objects.usage-adds-up"]
    assert {rule.chapter.name for rule in chosen(["tools, lists"])} == {"tools", "lists"}
    assert names("*-model-*") == [rule.id for rule in RULES if "-model-" in rule.id]
    assert names("formats", "objects.usage*,") == ["objects.usage-adds-up", *names("formats")]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("nothing-of-this-kind", "got 'nothing-of-this-kind'$"),
        ("stream", "got 'stream'; did you mean 'streams'\\?$"),
        ("usage-adds", "got 'usage-adds'; did you mean 'objects.usage-adds-up'\\?$"),
        ("object.usage-adds-up", "got 'object.usage-adds-up'; did you mean 'objects.usage-adds-up'\\?$"),
    ],
)
def test_a_name_that_is_none_is_told(pattern: str, told: str) -> None:
    with pytest.raises(UnknownRule, match=f"^expected the id of a rule, a chapter or a glob like .*, {told}"):
        chosen(["tools", pattern])
