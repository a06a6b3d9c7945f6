import unicodedata

from rejoinder.conformance.about_create import chapter
from rejoinder.conformance.samples import GREETING
from tests.conformance.judging import Mutants, bending, broken, every, ids, in_responses, refusing, telling, verdicts
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer, Refused


def messages(it: Exchange) -> list[Json]:
    given = it.body.get("input")
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def no_parts(it: Exchange) -> None:
    if (
        it.path == "/responses"
        and it.body.get("store", True)
        and any(isinstance(item.get("content"), list) for item in messages(it))
    ):
        raise Refused("no parts", "input[0].content[0]")


def no_developer(it: Exchange) -> None:
    if [item.get("content") for item in messages(it)] == ["You answer briefly.", GREETING]:
        raise Refused("no developer", "input[0].role")


def no_phase(it: Exchange) -> None:
    if [(item.get("content"), item.get("phase")) for item in messages(it)][1:2] == [("Let me think.", "commentary")]:
        raise Refused("no phase", "input[1].phase")


def no_reasoning(it: Exchange) -> None:
    kinds = [(item.get("type"), "id" in item) for item in messages(it)]
    if kinds[1:2] == [("reasoning", True)] and "include" not in it.body:
        raise Refused("no reasoning", "input[1]")


def no_nulls(it: Exchange) -> None:
    if it.body.get("store", True) is None:
        raise Refused("no null", "store")


def too_long(response: Json) -> None:
    if response["max_output_tokens"] == 16 and response["usage"]:
        response["status"] = "completed"
        response["usage"].update(output_tokens=90, total_tokens=90 + response["usage"]["input_tokens"])


def short(it: Exchange) -> None:
    if it.body.get("max_output_tokens") == 16:
        it.body["input"] = "Say hello."


def empty_success(it: Exchange) -> None:
    if is_first(it):
        for response in it.plain:
            response["output"] = []


def lost(response: Json) -> None:
    response["metadata"] = {}


def mixed_up(response: Json) -> None:
    if response["instructions"] == "request 3":
        response["instructions"] = "request 4"


def one_request_id(it: Exchange) -> None:
    it.headers["x-request-id"] = "req_1"


def is_first(it: Exchange) -> bool:
    """Whether it is a greeting and nothing else."""
    return it.body == {"model": "little", "input": GREETING} and not it.came_with.get("x-stainless-lang")


def plain_text(it: Exchange) -> None:
    if it.plain and is_first(it):
        it.headers["content-type"] = "text/plain"


def bare_tools(response: Json) -> None:
    for tool in response["tools"][1:]:
        tool.pop("strict", None)


def untyped(it: Exchange) -> None:
    if it.body.get("input") == [{"role": "user", "content": [{"type": "input_text", "text": GREETING}]}]:
        raise Refused("no type", "input[0].type")


def unfinished() -> Fault:
    ids: set[str] = set()

    def told(it: Exchange) -> None:
        if is_first(it):
            ids.update(response["id"] for response in it.plain)
        for response in it.responses:
            if response["id"] in ids:
                response["status"] = "in_progress"

    return Fault(told=told)


def streaming_anyway(body: Json) -> None:
    if body.get("stream") is False:
        body["stream"] = True


def composed(response: Json) -> None:
    """Its instructions, with every letter and its accents made one."""
    if response["instructions"]:
        response["instructions"] = unicodedata.normalize("NFC", response["instructions"])


MUTANTS: Mutants = {
    "stream is true when it is there": (bending(streaming_anyway), {"create.stream-false-is-no-stream"}),
    "null is refused inside": (
        refusing(lambda it: it.body.get("reasoning") == {"effort": None, "summary": None}),
        {"create.null-means-left-out-inside"},
    ),
    "a header is too much": (
        refusing(lambda it: "x-stainless-lang" in it.came_with),
        {"create.headers-of-clients-are-accepted"},
    ),
    "top_p is not echoed": (in_responses(lambda response: response.update(top_p=1.0)), {"create.sampling-is-echoed"}),
    "truncation is not echoed": (
        in_responses(lambda response: response.update(truncation="disabled")),
        {"create.truncation-is-echoed"},
    ),
    "max_tool_calls is not echoed": (
        in_responses(lambda response: response.update(max_tool_calls=None)),
        {"create.the-most-calls-are-echoed"},
    ),
    "keys are not echoed": (
        in_responses(lambda response: response.update(prompt_cache_key=None)),
        {"create.keys-are-echoed"},
    ),
    "the choice is not echoed": (
        in_responses(lambda response: response.update(tool_choice="auto")),
        {"create.the-choice-of-tools-is-echoed"},
    ),
    "parallel calls are not echoed": (
        in_responses(lambda response: response.update(parallel_tool_calls=True)),
        {"create.parallel-calls-are-echoed"},
    ),
    "letters are composed": (in_responses(composed), {"create.texts-come-back-letter-by-letter"}),
    "not everything can be included": (
        refusing(lambda it: "web_search_call.results" in str(it.body.get("include"))),
        {"create.all-that-can-be-included-is-accepted"},
    ),
    "an answer is never finished": (unfinished(), {"create.an-answer-is-completed-and-not-empty"}),
    "parts need a typed message": (Fault(asked=untyped), {"create.a-message-needs-no-type"}),
    "the content type is text": (Fault(told=plain_text), {"create.a-plain-answer-is-json"}),
    "a success is empty": (
        Fault(told=empty_success),
        {
            "create.an-answer-is-completed-and-not-empty",
            "storage.a-response-is-kept-as-it-was-answered",
            "compaction.a-stored-response-can-be-compacted",
        },
    ),
    "content has to be a text": (
        Fault(asked=no_parts),
        {"create.a-message-needs-no-type"},
    ),
    "developers are not heard": (Fault(asked=no_developer), {"create.system-and-developer-may-speak"}),
    "phases are refused": (Fault(asked=no_phase), {"create.turns-of-the-assistant-are-accepted"}),
    "its own items are refused": (Fault(asked=no_reasoning), {"create.what-was-answered-can-be-sent-back"}),
    "null is refused": (Fault(asked=no_nulls), {"create.null-means-left-out"}),
    "a setting is not echoed": (
        in_responses(lambda response: response.update(temperature=1.0)),
        {"create.settings-are-echoed"},
    ),
    "metadata is lost": (
        telling(lambda it: "metadata" in it.body and "instructions" not in it.body, lost),
        {"create.metadata-is-echoed"},
    ),
    "metadata is invented": (
        in_responses(lambda response: response["metadata"].update(by="us")),
        {
            "create.metadata-is-echoed",
            "create.texts-come-back-letter-by-letter",
            "lineage.settings-are-not-inherited",
            "background.a-response-under-way-tells-what-was-asked",
        },
    ),
    "tools are echoed as they came": (in_responses(bare_tools), {"create.tools-are-echoed-whole"}),
    "an answer is cut silently": (in_responses(too_long), {"create.a-cut-answer-is-incomplete"}),
    "there is no request id": (
        Fault(told=lambda it: it.headers.pop("x-request-id")),
        {"create.every-answer-has-a-request-id"},
    ),
    "all request ids are the same": (Fault(told=one_request_id), {"create.every-answer-has-a-request-id"}),
    "answers are mixed up": (in_responses(mixed_up), {"create.ten-requests-at-once-are-answered"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_an_answer_that_was_not_cut_says_nothing() -> None:
    found = await verdicts(LittleServer(Fault(asked=short)), rules=list(chapter))
    assert ids("broken", found) == set()
    assert ids("not_applicable", found) == {"create.a-cut-answer-is-incomplete"}


async def test_a_server_without_tools_or_temperature_is_not_asked_about_them() -> None:
    found = await verdicts(LittleServer(refuses="tools"), rules=list(chapter))
    assert ids("broken", found) == set()
    assert ids("not_applicable", found) == {
        "create.tools-are-echoed-whole",
        "create.the-choice-of-tools-is-echoed",
        "create.parallel-calls-are-echoed",
        "create.null-means-left-out-inside",
    }
    found = await verdicts(LittleServer(refuses="temperature"), rules=list(chapter))
    assert ids("not_applicable", found) == {"create.settings-are-echoed"}
