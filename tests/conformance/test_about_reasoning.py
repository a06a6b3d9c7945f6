from rejoinder.conformance.about_reasoning import chapter
from tests.conformance.judging import Mutants, bending, broken, every, ids, refusing, telling, verdicts
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer

LOST = "rs_" + "0" * 32


def sent_back(it: Exchange) -> list[Json]:
    """What comes back of a thought about prime numbers, if that is what comes."""
    given = it.body.get("input")
    is_thought = isinstance(given, list) and "prime number" in str(given)
    return [item for item in given if item.get("role") != "user"] if is_thought else []


def without_the_lost(body: Json) -> None:
    if isinstance(body.get("input"), list):
        body["input"] = [item for item in body["input"] if not (isinstance(item, dict) and item.get("id") == LOST)]


def unsealed(response: Json) -> None:
    for item in response["output"]:
        item.pop("encrypted_content", None)


MUTANTS: Mutants = {
    "high effort is refused without a name": (
        refusing(lambda it: it.body.get("reasoning") == {"effort": "high"}),
        {"reasoning.an-effort-is-accepted-or-refused-by-name"},
    ),
    "what was not stored is refused": (
        refusing(lambda it: any("id" in item for item in sent_back(it))),
        {"reasoning.what-was-not-stored-can-be-sent-back"},
    ),
    "what has no id is refused": (
        refusing(lambda it: any("id" not in item for item in sent_back(it))),
        {"reasoning.what-is-sent-back-needs-no-ids"},
    ),
    "a call is refused with its reasoning": (
        refusing(
            lambda it: isinstance(it.body.get("input"), list) and "Think about what time" in str(it.body["input"])
        ),
        {"reasoning.reasoning-before-a-call-goes-back-with-it"},
    ),
    "what is lost is forgotten": (bending(without_the_lost), {"reasoning.an-id-alone-is-not-enough"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_reasoning_that_is_not_sealed_cannot_go_back_without_its_id() -> None:
    found = await verdicts(LittleServer(telling(lambda it: True, unsealed)), rules=list(chapter))
    assert "reasoning.what-is-sent-back-needs-no-ids" in ids("not_applicable", found)


async def test_a_server_without_tools_is_not_asked_for_calls() -> None:
    found = await verdicts(LittleServer(refuses="tools"), rules=list(chapter))
    assert ids("not_applicable", found) == {"reasoning.reasoning-before-a-call-goes-back-with-it"}


def silent(response: Json) -> None:
    response["output"] = []


async def test_without_a_call_there_is_nothing_to_send_back() -> None:
    found = await verdicts(LittleServer(telling(lambda it: "tools" in it.body, silent)), rules=list(chapter))
    assert ids("not_applicable", found) == {"reasoning.reasoning-before-a-call-goes-back-with-it"}
