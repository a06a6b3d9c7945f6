from rejoinder.conformance.about_images import chapter
from tests.conformance.judging import Mutants, broken, every, ids, refusing, verdicts
from tests.conformance.little_server import Exchange, Fault, LittleServer, Refused


def has_image(it: Exchange) -> bool:
    return "input_image" in str(it.body.get("input"))


def is_asked(it: Exchange) -> bool:
    """Whether a picture is asked about and nothing is said of its detail."""
    return "What is in this picture?" in str(it.body.get("input")) and "detail" not in str(it.body.get("input"))


def no_images(it: Exchange) -> None:
    if has_image(it) or "input_file" in str(it.body.get("input")):
        raise Refused("no images", "input[0].content[1]", "unsupported_value")


def silent_about_images(it: Exchange) -> None:
    if is_asked(it):
        raise Refused("something is wrong")


def blank(it: Exchange) -> None:
    if is_asked(it):
        for response in it.plain:
            response["output"] = []


def parts(it: Exchange) -> list[str]:
    """The types of the parts of the first message."""
    given = it.body.get("input")
    content = given[0].get("content") if isinstance(given, list) and given and isinstance(given[0], dict) else None
    return [part["type"] for part in content if "type" in part] if isinstance(content, list) else []


MUTANTS: Mutants = {
    "a detail is refused without a name": (
        refusing(lambda it: "'detail': 'low'" in str(it.body.get("input"))),
        {"images.an-image-may-have-a-detail"},
    ),
    "an image alone is refused without a name": (
        refusing(lambda it: parts(it) == ["input_image"] and "7" not in str(it.body["input"])[:99]),
        {"images.an-image-may-come-alone"},
    ),
    "a file is refused without a name": (
        refusing(lambda it: "input_file" in parts(it)),
        {"images.a-file-is-accepted-or-refused-by-name"},
    ),
    "an image of a tool is refused without a name": (
        refusing(lambda it: "function_call_output" in str(it.body.get("input")) and has_image(it)),
        {"images.an-image-may-be-the-output-of-a-tool"},
    ),
    "an image is answered with nothing": (Fault(told=blank), {"images.an-image-is-accepted-or-refused-by-name"}),
    "an image is refused without a name": (
        Fault(asked=silent_about_images),
        {"images.an-image-is-accepted-or-refused-by-name"},
    ),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_a_model_that_cannot_see_is_not_asked_to() -> None:
    found = await verdicts(LittleServer(Fault(asked=no_images)), rules=list(chapter))
    assert ids("broken", found) == set()
    assert ids("not_applicable", found) == {rule.id for rule in chapter}
