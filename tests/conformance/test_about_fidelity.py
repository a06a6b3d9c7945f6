from collections.abc import Callable

import msgspec

from tests.conformance.bridged import Mutants, broken, every, having, in_output
from tests.conformance.little_bridge import Fault, Json


def stripped(item: Json) -> None:
    if item["type"] == "message":
        item["content"][0]["text"] = item["content"][0].get("text", "").strip()


def as_refusals_are_not(item: Json) -> None:
    for part in item.get("content", []):
        if part["type"] == "refusal":
            part |= {"type": "output_text", "text": part.pop("refusal")}


def for_the_reason(reason: str) -> Callable[[Json], None]:
    """Tells of an answer that is incomplete for this reason as if it were complete."""

    def plain(response: Json) -> None:
        if response["incomplete_details"] == {"reason": reason}:
            response |= {"status": "completed", "incomplete_details": None}

    return plain


def without_reasoning(response: Json) -> None:
    response["usage"]["output_tokens_details"]["reasoning_tokens"] = 0


def without_what_is_written(response: Json) -> None:
    usage = response["usage"]
    if usage["input_tokens_details"]["cached_tokens"] == 200:
        usage |= {"input_tokens": 300, "total_tokens": 340}


def only_behind_the_end(chunk: Json) -> None:
    if chunk["choices"]:
        chunk.pop("usage", None)


def written_anew(item: Json) -> None:
    if "arguments" in item:
        item["arguments"] = msgspec.json.encode(msgspec.json.decode(item["arguments"])).decode()


def arguments_at_the_end(event: Json) -> None:
    if event["type"] == "response.function_call_arguments.delta":
        event["delta"] = ""


def the_last_first(response: Json) -> None:
    if len(response["output"]) == 3 and all(item["type"] == "function_call" for item in response["output"]):
        response["output"].reverse()


def one_of_a_chunk(chunk: Json) -> None:
    for choice in chunk["choices"]:
        if "tool_calls" in choice["delta"]:
            choice["delta"]["tool_calls"] = choice["delta"]["tool_calls"][:1]


def some_arguments(chunk: Json) -> None:
    for choice in chunk["choices"]:
        for call in choice["delta"].get("tool_calls", []):
            call["function"].setdefault("arguments", "[]")


def with_a_message(response: Json) -> None:
    if [item.get("name") for item in response["output"]] == ["clock"]:
        empty = {"type": "output_text", "text": "", "annotations": []}
        response["output"].insert(0, {"type": "message", "id": "msg_0", "role": "assistant", "content": [empty]})


def calls_first(response: Json) -> None:
    if response["output"][0]["type"] == "message":
        response["output"].reverse()


def reasoning_last(response: Json) -> None:
    response["output"].sort(key=lambda item: item["type"] == "reasoning")


def shortened(item: Json) -> None:
    for part in item.get("summary", []):
        part["text"] = part["text"][:10]


def trimmed(item: Json) -> None:
    if "input" in item:
        item["input"] = item["input"].strip()


MUTANTS: Mutants = {
    "a text is stripped": (in_output(stripped), {"fidelity.a-text-is-exact"}),
    "bytes are read alone": (having("reads bytes alone"), {"fidelity.a-text-survives-every-cut"}),
    "nothing is told before the end": (
        having("buffers", when=lambda asked: asked["input"] == "Say two words."),
        {"fidelity.deltas-come-while-the-provider-writes"},
    ),
    "what is cut off is complete": (
        Fault(plain=for_the_reason("max_output_tokens")),
        {"fidelity.what-is-cut-off-is-incomplete"},
    ),
    "what was filtered is complete": (
        Fault(plain=for_the_reason("content_filter")),
        {"fidelity.what-was-filtered-is-incomplete"},
    ),
    "a refusal is a text": (in_output(as_refusals_are_not), {"fidelity.a-refusal-is-no-text"}),
    "reasoning is not counted": (Fault(plain=without_reasoning), {"fidelity.usage-is-exact"}),
    "what is written is not counted": (
        Fault(plain=without_what_is_written),
        {"fidelity.what-is-written-to-a-cache-is-input"},
    ),
    "tokens are looked for behind the end only": (
        Fault(heard=only_behind_the_end),
        {"fidelity.usage-is-found-where-it-stands"},
    ),
    "arguments are written anew": (in_output(written_anew), {"fidelity.arguments-are-exact"}),
    "arguments come at the end": (Fault(told=arguments_at_the_end), {"fidelity.deltas-of-arguments-add-up"}),
    "the last call comes first": (Fault(plain=the_last_first), {"fidelity.calls-keep-their-order"}),
    "a chunk has one call": (Fault(heard=one_of_a_chunk), {"fidelity.calls-may-be-written-in-every-way"}),
    "arguments are made up": (Fault(heard=some_arguments), {"fidelity.a-call-without-arguments-has-an-empty-object"}),
    "call ids are the provider's": (having("keeps ids"), {"fidelity.a-repeated-call-id-is-made-unique"}),
    "the finish is believed": (having("believes the finish"), {"fidelity.a-call-counts-whatever-the-end-says"}),
    "a call has an empty message": (Fault(plain=with_a_message), {"fidelity.calls-come-without-a-message"}),
    "calls come first": (Fault(plain=calls_first), {"fidelity.what-is-said-stands-before-what-is-called"}),
    "reasoning comes last": (Fault(plain=reasoning_last), {"fidelity.reasoning-is-an-item-before-the-answer"}),
    "reasoning is shortened": (in_output(shortened), {"fidelity.reasoning-is-told-as-it-is"}),
    "custom input is stripped": (in_output(trimmed), {"fidelity.a-custom-tool-is-told-its-text"}),
    "parallel calls are not forbidden": (
        Fault(prompted=lambda body: body.pop("parallel_tool_calls", None)),
        {"fidelity.one-call-at-a-time-is-kept-to"},
    ),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault, breaks) == breaks
