import json

from rejoinder.conformance.case import Case
from rejoinder.conformance.errors import Broken, Skipped
from rejoinder.conformance.server import Server
from rejoinder.conformance.verdict import document, judge, summary


async def polite(server: Server) -> None:
    assert server.model == "little"


async def rude(server: Server) -> None:
    raise Broken("a greeting", "nothing\nat all")


async def absent(server: Server) -> None:
    raise Skipped("nobody came in")


CASES = [Case(check.__name__, "manners", "One says hello.", "grandmother", check) for check in (polite, rude, absent)]


async def test_a_case_passes_fails_or_is_skipped() -> None:
    async with Server.at("http://127.0.0.1:1/v1", "little", key=None, timeout=5) as server:
        found = [await judge(case, server) for case in CASES]
    assert [verdict.line for verdict in found] == [
        "pass  polite",
        "FAIL  rude: expected a greeting, got nothing at all — One says hello. [grandmother]",
        "skip  absent: nobody came in",
    ]
    assert summary(found) == "1 passed, 1 failed, 1 skipped"
    rows = json.loads(document(found))
    assert [row.pop("seconds") < 1 for row in rows] == [True] * 3
    assert rows[1] == {
        "case": "rude",
        "theme": "manners",
        "outcome": "fail",
        "said": "expected a greeting, got nothing at all",
        "rule": "One says hello.",
        "source": "grandmother",
    }
