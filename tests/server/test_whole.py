from collections.abc import Sequence

import pytest
from msgspec import Raw

from rejoinder.server.whole import whole
from rejoinder.wire.events import Completed, Event, Failed, Incomplete, ItemDone, Relayed
from rejoinder.wire.responses import FunctionCallItem, OutputMessage, ReasoningItem

RESPONSE = Raw(b"{}")
MESSAGE = ItemDone(0, 0, OutputMessage("msg_1", "incomplete", []))
REASONING = ItemDone(1, 1, ReasoningItem("rs_1", "incomplete", []))
CALL = ItemDone(2, 2, FunctionCallItem("fc_1", "incomplete", "call_1", "f", "{"))
RELAYED = Relayed(3, "response.output_item.done", b"{}", Raw(b'{"type":"function_call"}'))
OTHER = Relayed(4, "response.new", b"{}")
EVERY: Sequence[Event] = (MESSAGE, REASONING, CALL, RELAYED, OTHER)


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (Completed(9, RESPONSE), EVERY),
        (OTHER, EVERY),
        (Incomplete(9, RESPONSE), (MESSAGE, REASONING, OTHER)),
        (Failed(9, RESPONSE), (OTHER,)),
    ],
)
def test_an_answer_that_broke_off_reports_no_item_as_done_that_is_not(end: Event, told: Sequence[Event]) -> None:
    assert [*whole([*EVERY, end])] == [*told, end]
