"""The part of the composer that speaks for a provider of this very API."""

import json

import msgspec
import pytest
from msgspec import Raw

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.errors import BrokenStream
from rejoinder.bridge.relayed import RelayedItem
from rejoinder.wire.events import Relayed
from rejoinder.wire.responses import InputTransformation, Usage
from tests.bridge.composing import END, composer, encoded, told
from tests.bridge.prompts import Fields
from tests.bridge.recordings import Json, Object, objects


def raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


def fields(**values: object) -> dict[str, Raw]:
    return {name: raw(value) for name, value in values.items()}


def begun(out: Composer, kind: str = "hologram", **values: object) -> RelayedItem:
    item_id = f"x_{out.number()}"
    item = RelayedItem(out, kind, item_id, raw(item_id), None)
    item.begin(fields(type="response.output_item.added"), fields(id=item_id, type=kind, **values))
    return item


def finished(out: Composer, **values: object) -> None:
    item = begun(out, "hologram", **values)
    item.finish(fields(type="response.output_item.done"), fields(id="", type=item.kind, **values))


def last(out: Composer) -> Object:
    [event] = objects([json.loads(encoded(out)[-1])])
    return objects([event["response"]])[0]


def over(out: Composer, **said: object) -> Object:
    out.finish_relayed("completed", fields(**said), at=END)
    return last(out)


def test_an_event_gets_the_next_number_and_keeps_its_order() -> None:
    out = composer()
    out.start()
    out.drain()

    out.relay("response.novelty", fields(b=1, sequence_number=77, a=[2]), raw({"id": "x"}))

    [event] = out.drain()
    assert event == Relayed(2, "response.novelty", b'{"b":1,"sequence_number":2,"a":[2]}', raw({"id": "x"}))
    assert (event.type, event.sequence_number) == ("response.novelty", 2)


def test_items_take_the_places_after_those_that_are_there() -> None:
    out = composer()
    out.compacting()
    out.compacted("sealed")
    assert out.is_empty is False

    finished(out)

    assert [event.get("output_index") for event in told(out)] == [0, 0, 0, 1, 1]
    assert [item["type"] for item in objects(over(out)["output"])] == ["compaction", "hologram"]


def test_an_item_that_is_done_is_the_response_s_as_it_came() -> None:
    out = composer()

    finished(out, light={"lumen": 1})

    over(out)
    assert [bytes(item) for item in out.response.output if isinstance(item, Raw)] == [
        b'{"id":"x_0","type":"hologram","light":{"lumen":1}}'
    ]


def test_a_response_says_what_its_provider_says_of_itself() -> None:
    out = composer()
    finished(out)

    response = over(out, tier_used="gold", temperature=0.25, service_tier=None, tools=[{"type": "hologram"}])

    assert response["tier_used"] == "gold"
    assert response["temperature"] == 0.25
    assert response["service_tier"] == "default"
    assert response["tools"] == [{"type": "hologram"}]


def test_what_is_ours_to_say_stays_ours() -> None:
    out = composer()
    finished(out)
    theirs: Fields = {
        "id": "resp_up", "model": "wire", "created_at": 1.5, "completed_at": 2, "store": False, "status": "queued",
        "metadata": {"a": "b"}, "previous_response_id": "resp_before", "output": [], "background": True,
        "prompt_cache_key": "k", "instructions": "i", "conversation": {"id": "c"}, "object": "thing",
    }  # fmt: skip

    response = over(out, **theirs)

    assert {name: response[name] for name in theirs if name != "output"} == {
        "id": "resp_1", "model": "m", "created_at": END - 1, "completed_at": END, "store": True, "status": "completed",
        "metadata": {}, "previous_response_id": None, "background": False, "prompt_cache_key": None,
        "instructions": None, "conversation": None, "object": "response",
    }  # fmt: skip
    assert len(objects(response["output"])) == 1


def test_tokens_are_counted_as_the_provider_counts_them() -> None:
    out = composer()
    finished(out)

    response = over(out, usage={"input_tokens": 3, "output_tokens": 4, "cost": 0.10, "output_tokens_details": None,
                                "input_tokens_details": {"cached_tokens": 2, "seen": 1}})  # fmt: skip

    assert response["usage"] == {
        "input_tokens": 3,
        "output_tokens": 4,
        "cost": 0.10,
        "input_tokens_details": {"cached_tokens": 2, "seen": 1, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7,
    }
    assert out.response.usage is not None
    assert out.response.usage.input_tokens_details.cached_tokens == 2


def test_a_total_that_is_given_is_not_counted_again() -> None:
    out = composer()
    finished(out)

    [usage] = objects([over(out, usage={"input_tokens": 3, "output_tokens": 4, "total_tokens": 9})["usage"]])

    assert usage["total_tokens"] == 9


@pytest.mark.parametrize("usage", [None, "many", {"input_tokens": "many"}, {"input_tokens_details": 3}])
def test_tokens_nobody_counted_are_none(usage: Json) -> None:
    out = composer()
    finished(out)

    response = over(out, usage=usage)

    assert response["usage"] == json.loads(msgspec.json.encode(Usage()))


def test_tokens_of_other_requests_are_added() -> None:
    out = composer()
    out.spend(Usage(10, output_tokens=20, total_tokens=30))
    finished(out)

    [usage] = objects([over(out, usage={"input_tokens": 3, "output_tokens": 4, "cost": 1})["usage"]])

    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (13, 24, 37)
    assert "cost" not in usage


def test_what_was_removed_here_and_there_is_listed_together() -> None:
    removed: Object = {"id": "rs_2", "type": "reasoning", "action": "removed", "reason": "model_mismatch"}
    out, other = composer(), composer()
    out.response.input_transformations = [InputTransformation("rs_1", "reasoning", "removed", "end_user_mismatch")]
    finished(out)
    finished(other)

    both = over(out, input_transformations=[removed])["input_transformations"]

    assert [one["id"] for one in objects(both)] == ["rs_1", "rs_2"]
    assert over(other, input_transformations=[removed])["input_transformations"] == [removed]


def test_what_was_removed_here_alone_is_listed_too() -> None:
    out, other = composer(), composer()
    out.response.input_transformations = [InputTransformation("rs_1", "reasoning", "removed", "end_user_mismatch")]
    finished(out)
    finished(other)

    assert len(objects(over(out)["input_transformations"])) == 1
    assert "input_transformations" not in over(other, input_transformations=None)


def test_an_answer_without_an_item_is_a_failure() -> None:
    with pytest.raises(BrokenStream, match="the model's answer is empty"):
        composer().finish_relayed("completed", {}, at=END)


def test_an_incomplete_answer_says_why() -> None:
    out, other = composer(), composer()

    out.finish_relayed("incomplete", fields(incomplete_details={"reason": "content_filter"}), at=END)
    other.finish_relayed("incomplete", {}, at=END)

    response = last(out)
    assert (response["status"], response["completed_at"]) == ("incomplete", None)
    assert response["incomplete_details"] == {"reason": "content_filter"}
    assert last(other)["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize(("open_ones", "expected"), [(1, ["incomplete"]), (2, ["completed", "incomplete"])])
def test_only_the_last_item_of_a_broken_answer_is_incomplete(open_ones: int, expected: list[str]) -> None:
    out = composer()
    for _ in range(open_ones):
        begun(out, status="in_progress")

    out.fail("server_error", "broken")

    assert [item["status"] for item in objects(last(out)["output"])] == expected


def test_an_item_that_stayed_open_beside_one_that_is_done_is_complete() -> None:
    out = composer()
    begun(out, status="in_progress")
    finished(out, status="completed")

    out.fail("server_error", "broken")

    assert [item["status"] for item in objects(last(out)["output"])] == ["completed", "completed"]


def test_what_was_relayed_cannot_be_asked_for_again() -> None:
    out = composer()
    assert out.is_idle

    begun(out)

    assert not out.is_idle


@pytest.mark.parametrize(("open_ones", "expected"), [(1, ["incomplete"]), (2, ["completed", "incomplete"])])
def test_only_the_last_item_of_a_cancelled_answer_is_incomplete(open_ones: int, expected: list[str]) -> None:
    out = composer()
    out.start()
    for _ in range(open_ones):
        begun(out, "message", status="in_progress", role="assistant", content=[])
    out.cancel()
    assert [item["status"] for item in objects(last(out)["output"])] == expected
    assert out.response.status == "cancelled"
