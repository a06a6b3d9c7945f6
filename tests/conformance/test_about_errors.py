from collections.abc import Callable

from tests.conformance.judging import KEY, Mutants, broken, every, ids, verdicts
from tests.conformance.little_server import MODEL, Exchange, Fault, Json, LittleServer


def in_errors(change: Callable[[Json], object]) -> Fault:
    def told(it: Exchange) -> None:
        for error in it.error:
            change(error)

    return Fault(told=told)


def html(it: Exchange) -> None:
    if it.path == "/no-such-path":
        it.headers["content-type"] = "text/html"


def failing_on_null(it: Exchange) -> None:
    if it.asked == b"null":
        it.status = 500


def unnamed_model(it: Exchange) -> None:
    for error in it.error:
        if it.body and "model" not in it.body:
            error["param"] = None


def default_input(it: Exchange) -> None:
    if "model" in it.body:
        it.body.setdefault("input", "Say hello.")


def any_model(it: Exchange) -> None:
    if isinstance(it.body.get("model"), str):
        it.body["model"] = MODEL


def warm(it: Exchange) -> None:
    if it.body.get("temperature") == "warm":
        it.body["temperature"] = 1


def bounded(it: Exchange) -> None:
    if it.body.get("temperature") == 2.5:
        it.body["temperature"] = 2


def anybody(it: Exchange) -> None:
    given = it.body.get("input")
    for item in given if isinstance(given, list) else ():
        if isinstance(item, dict) and item.get("role") == "nobody":
            item["role"] = "user"


def cut_metadata(it: Exchange) -> None:
    if isinstance(it.body.get("metadata"), dict):
        it.body["metadata"] = dict(list(it.body["metadata"].items())[:16])


def trusting(it: Exchange) -> None:
    it.key = f"Bearer {KEY}"


def everything_is_there(it: Exchange) -> None:
    if it.path == "/no-such-path":
        it.status, it.told = 200, {}


MUTANTS: Mutants = {
    "an error has no type": (in_errors(lambda error: error.pop("type")), {"errors.an-error-has-one-envelope"}),
    "an error is called HTML": (Fault(told=html), {"errors.an-error-has-one-envelope"}),
    "null is too much": (Fault(told=failing_on_null), {"errors.a-body-that-is-no-object-is-refused"}),
    "a missing model is not named": (Fault(told=unnamed_model), {"errors.a-missing-model-is-named"}),
    "a missing input is made up": (Fault(asked=default_input), {"errors.a-missing-input-is-named"}),
    "another model answers": (Fault(asked=any_model), {"errors.an-unknown-model-is-refused"}),
    "a wrong type is bent": (Fault(asked=warm), {"errors.a-wrong-type-is-named"}),
    "a value out of range is bent": (Fault(asked=bounded), {"errors.a-value-out-of-range-is-named"}),
    "anybody may speak": (Fault(asked=anybody), {"errors.an-unknown-role-is-refused"}),
    "metadata is cut": (Fault(asked=cut_metadata), {"errors.metadata-has-limits"}),
    "every path is there": (Fault(told=everything_is_there), {"errors.an-unknown-path-is-not-found"}),
    "nobody asks for a key": (Fault(asked=trusting), {"errors.a-request-without-its-key-is-refused"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_without_a_key_nothing_is_said_of_keys() -> None:
    assert ids("not_applicable", await verdicts(LittleServer())) == {"errors.a-request-without-its-key-is-refused"}
