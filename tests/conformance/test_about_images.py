from rejoinder.conformance.about_images import chapter
from tests.conformance.judging import Mutants, broken, every, ids, verdicts
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer, Refused


def messages(it: Exchange) -> list[Json]:
    given = it.body.get("input")
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def has_image(it: Exchange) -> bool:
    parts = [part for item in messages(it) for part in item.get("content", ())]
    return any(isinstance(part, dict) and part.get("type") == "input_image" for part in parts)


def no_images(it: Exchange) -> None:
    if has_image(it):
        raise Refused("no images", "input[0].content[1]", "unsupported_value")


def silent_about_images(it: Exchange) -> None:
    if has_image(it):
        raise Refused("something is wrong")


def blank(it: Exchange) -> None:
    if has_image(it):
        for response in it.plain:
            response["output"] = []


MUTANTS: Mutants = {
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
    assert ids("not_applicable", found) == {"images.an-image-is-accepted-or-refused-by-name"}
