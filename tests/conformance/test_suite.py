import re
from pathlib import Path

import pytest

from rejoinder.conformance import suite
from rejoinder.conformance.errors import UnknownRule
from rejoinder.conformance.server import Server
from rejoinder.conformance.suite import CHAPTERS, RULES, chosen
from rejoinder.conformance.verdict import judge
from tests.conformance.judging import OPEN, ids, verdicts
from tests.conformance.little_server import Exchange, Fault, LittleServer
from tests.conformance.rejoined import SOMETIMES
from tests.live import LiveUpstream, running

DEMO = LiveUpstream(name="demo", dialect="demo", models=["demo"])
KEY, OTHER_KEY = "rj-conformance", "rj-stranger"
CONTRACT = Path(__file__).resolve().parents[3] / "shared" / "contract"


UNSEEN = SOMETIMES | {
    "objects.log-probabilities-are-told",
    "images.a-file-is-accepted-or-refused-by-name",
    "steering.an-accepted-steer-has-an-id",
    "steering.a-steered-response-ends-as-steered-or-as-ever",
    "steering.words-begin-the-next-response",
    "steering.the-next-response-has-the-same-settings",
    "steering.words-are-the-input-of-the-next-response",
    "steering.a-steer-stays-in-its-lane",
    "codex.codex-comes-to-an-end",
}
"""What the demo model gives nothing to look at for: it has no log probabilities, reads no files, and is done at once.
The last one is tests/clients': it needs the program."""


async def test_our_own_server_keeps_every_rule(tmp_path: Path) -> None:
    with running(tmp_path, upstreams=[DEMO], keys={"judge": KEY, "stranger": OTHER_KEY}) as server:
        async with Server.at(server.base_url, "demo", key=KEY, other_key=OTHER_KEY, timeout=10) as judged:
            found = [await judge(rule, judged) for rule in OPEN]
    lacking = {one.id: one.reason for one in found if one.outcome == "not_applicable"}
    assert {one.id: one.reason for one in found if one.outcome != "kept" and one.id not in lacking} == {}
    assert {id: reason for id, reason in lacking.items() if id not in UNSEEN} == {}


class Nonsense(LittleServer):
    """Whatever is asked, the answer is the same."""

    def __init__(self, status: int, kind: str, body: bytes) -> None:
        super().__init__(Fault(said=self._refuse))
        self._status, self._kind, self._body = status, kind, body

    def _refuse(self, it: Exchange) -> None:
        it.status, it.told = self._status, "nonsense"

    def answer(self, it: Exchange) -> list[bytes]:
        it.status, it.headers["content-type"] = self._status, self._kind
        return [self._body]


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
    found = await verdicts(Nonsense(status, kind, body))
    assert len(ids("broken", found)) > len(ids("kept", found))


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


def test_the_checks_of_open_responses_are_covered_by_rules_that_there_are() -> None:
    page = (Path(__file__).resolve().parents[2] / "conformance" / "README.md").read_text()
    page = page.partition("## The checks of Open Responses")[2].partition("\n## ")[0]
    checks = re.findall(r"^\| `([a-z-]+)` \| (`[a-z]+\..*) \|$", page, re.MULTILINE)
    assert len(checks) == 17
    named = {rule for _, rules in checks for rule in re.findall(r"`([a-z]+\.[a-z0-9-]+)`", rules)}
    assert named - {rule.id for rule in RULES} == set()
