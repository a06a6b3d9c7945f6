from rejoinder.conformance.errors import Broken, NotApplicable
from rejoinder.conformance.need import KEY
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.server import Server
from rejoinder.conformance.transcript import Passage
from rejoinder.conformance.verdict import Verdict, chapters, judge, tally
from tests.conformance.little_server import MODEL, LittleServer, serving

chapter = Chapter("manners", "Good manners")


@chapter.rule
async def polite(server: Server) -> None:
    """One says hello.

    Source: grandmother.
    """
    assert server.model == MODEL


@chapter.rule
async def rude(server: Server) -> None:
    """One says goodbye.

    Source: grandmother.
    """
    await server.get("/models")
    reply = await server.get("/nothing")
    raise Broken("a greeting", "nothing\nat all", at=reply.body)


@chapter.rule
async def absent(server: Server) -> None:
    """One comes.

    Source: grandmother.
    """
    raise NotApplicable("nobody came in")


@chapter.needing(KEY)
async def locked(server: Server) -> None:
    """One has a key.

    Source: grandmother.
    """
    raise Broken("nobody", "to come here")


@chapter.rule
async def clumsy(server: Server) -> None:
    """One does not stumble.

    Source: grandmother.
    """
    await server.get("/models")
    raise LookupError("oh\ndear")


async def judged() -> list[Verdict]:
    async with serving(LittleServer()) as url, Server.at(url, MODEL, key=None, timeout=5) as server:
        return [await judge(rule, server) for rule in chapter]


async def test_a_rule_is_kept_or_broken_or_does_not_apply_or_is_not_judged() -> None:
    found = await judged()
    assert [verdict.outcome for verdict in found] == [
        "kept",
        "broken",
        "not_applicable",
        "not_applicable",
        "not_judged",
    ]
    assert tally(found) == {"kept": 1, "broken": 1, "not_applicable": 2, "not_judged": 1}
    assert all(0 <= verdict.seconds < 1 for verdict in found)


async def test_a_verdict_tells_the_rule() -> None:
    found = await judged()
    told = found[3]
    assert (told.id, told.chapter, told.title) == ("manners.locked", "manners", "Good manners")
    assert (told.sentence, told.source, told.needs) == ("One has a key.", "grandmother", ["key"])
    assert told.reason == "no key was given, so none is known to be asked for"


async def test_a_broken_rule_has_a_transcript_and_a_kept_one_has_none() -> None:
    found = await judged()
    assert found[1].reason == "expected a greeting, got nothing at all"
    assert [passage.sent for passage in found[1].transcript] == ["GET /models", "GET /nothing"]
    assert '"nothing there"' in found[1].transcript[-1].received
    assert [verdict.transcript for verdict in (found[0], found[2], found[3])] == [[], [], []]


async def test_a_fault_of_the_suite_is_said_to_be_one() -> None:
    found = await judged()
    assert found[4].reason.startswith("the suite stumbled over LookupError (oh dear) at ")
    assert "test_verdict.py:" in found[4].reason
    assert [type(passage) for passage in found[4].transcript] == [Passage]


def test_verdicts_come_by_chapter() -> None:
    others = [Verdict(f"{one}.a", one, one.upper(), "", "", [], "kept") for one in ("b", "a", "b")]
    assert chapters(others) == {"B": [others[0], others[2]], "A": [others[1]]}
