"""Answers of a server that speaks the Responses API, made by hand, and what they become."""

import json
from collections.abc import Sequence

from rejoinder.bridge.responses import ResponsesDialect
from rejoinder.bridge.responses_profile import ResponsesProfile
from tests.bridge.prompts import Fields, user
from tests.bridge.recordings import Object, objects
from tests.bridge.replay import Answered, Listener
from tests.bridge.responses_grammar import judged
from tests.bridge.responses_replay import prompt

OPENAI = ResponsesProfile()
USAGE: Object = {
    "input_tokens": 3,
    "input_tokens_details": {"cached_tokens": 1},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 7,
}


def event(kind: str, **fields: object) -> Fields:
    return {"type": f"response.{kind}", "sequence_number": 0, **fields}


def added(index: int, item: Fields) -> Fields:
    return event("output_item.added", output_index=index, item=item)


def done(index: int, item: Fields) -> Fields:
    return event("output_item.done", output_index=index, item=item)


def message(text: str = "", **fields: object) -> Fields:
    content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
    status = "completed" if text else "in_progress"
    return {"id": "msg_up", "type": "message", "status": status, "role": "assistant", "content": content, **fields}


def delta(text: str, **fields: object) -> Fields:
    place = {"item_id": "msg_up", "output_index": 0, "content_index": 0}
    return event("output_text.delta", **{**place, "delta": text, "logprobs": [], **fields})


def ended(*output: Fields, kind: str = "completed", **fields: object) -> Fields:
    return event(kind, response={"id": "resp_up", "status": kind, "output": output, "usage": USAGE, **fields})


def stream(*events: Fields) -> bytes:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()


def heard(answer: bytes, profile: ResponsesProfile = OPENAI, said: Sequence[Fields] = (user("?"),)) -> Answered:
    """What an answer comes to; it is judged whatever it is."""
    asked = prompt(json.dumps({"model": "model", "input": said}).encode())
    answered = Listener(ResponsesDialect(profile), asked).hear([answer])
    judged(answered.encoded)
    return answered


def told(answered: Answered) -> list[Object]:
    """The events between the beginning and the end, without their numbers."""
    found = objects([json.loads(data) for data in answered.encoded])[2:-1]
    for one in found:
        del one["sequence_number"]
    return found


def kinds(answered: Answered) -> list[str]:
    return [str(one["type"]).removeprefix("response.") for one in told(answered)]


def response(answered: Answered) -> Object:
    """The response of the last event."""
    return objects([objects([json.loads(answered.encoded[-1])])[0]["response"]])[0]
