import pytest
from msgspec import Raw

from rejoinder.wire import events, responses
from rejoinder.wire.events import Event, encode

RESPONSE = Raw(b'{"id":"resp_1"}')
CALL = responses.FunctionCallItem("fc_1", "in_progress", "call_1", "f", "")
TEXT = responses.OutputText("hi")
SUMMARY = responses.SummaryText("so")
CITATION = responses.UrlCitation("https://a.test", "A", 0, 2)

EVERY_EVENT: list[tuple[Event, bytes]] = [
    (events.Created(0, RESPONSE), b'{"type":"response.created","sequence_number":0,"response":{"id":"resp_1"}}'),
    (events.InProgress(1, RESPONSE), b'{"type":"response.in_progress","sequence_number":1,"response":{"id":"resp_1"}}'),
    (events.Queued(1, RESPONSE), b'{"type":"response.queued","sequence_number":1,"response":{"id":"resp_1"}}'),
    (events.Completed(2, RESPONSE), b'{"type":"response.completed","sequence_number":2,"response":{"id":"resp_1"}}'),
    (events.Incomplete(3, RESPONSE), b'{"type":"response.incomplete","sequence_number":3,"response":{"id":"resp_1"}}'),
    (events.Failed(4, RESPONSE), b'{"type":"response.failed","sequence_number":4,"response":{"id":"resp_1"}}'),
    (
        events.ItemAdded(5, 0, CALL),
        b'{"type":"response.output_item.added","sequence_number":5,"output_index":0,'
        b'"item":{"type":"function_call","id":"fc_1","status":"in_progress","call_id":"call_1","name":"f",'
        b'"arguments":""}}',
    ),
    (
        events.ItemDone(6, 0, CALL),
        b'{"type":"response.output_item.done","sequence_number":6,"output_index":0,'
        b'"item":{"type":"function_call","id":"fc_1","status":"in_progress","call_id":"call_1","name":"f",'
        b'"arguments":""}}',
    ),
    (
        events.PartAdded(7, "msg_1", 0, 1, TEXT),
        b'{"type":"response.content_part.added","sequence_number":7,"item_id":"msg_1","output_index":0,'
        b'"content_index":1,"part":{"type":"output_text","text":"hi","annotations":[],"logprobs":[]}}',
    ),
    (
        events.PartDone(8, "msg_1", 0, 1, responses.OutputRefusal("no")),
        b'{"type":"response.content_part.done","sequence_number":8,"item_id":"msg_1","output_index":0,'
        b'"content_index":1,"part":{"type":"refusal","refusal":"no"}}',
    ),
    (
        events.TextDelta(9, "msg_1", 0, 1, "h", [Raw(b'{"token":"h"}')]),
        b'{"type":"response.output_text.delta","sequence_number":9,"item_id":"msg_1","output_index":0,'
        b'"content_index":1,"delta":"h","logprobs":[{"token":"h"}]}',
    ),
    (
        events.TextDone(10, "msg_1", 0, 1, "hi", []),
        b'{"type":"response.output_text.done","sequence_number":10,"item_id":"msg_1","output_index":0,'
        b'"content_index":1,"text":"hi","logprobs":[]}',
    ),
    (
        events.AnnotationAdded(11, "msg_1", 0, 1, 2, CITATION),
        b'{"type":"response.output_text.annotation.added","sequence_number":11,"item_id":"msg_1","output_index":0,'
        b'"content_index":1,"annotation_index":2,"annotation":{"type":"url_citation","url":"https://a.test",'
        b'"title":"A","start_index":0,"end_index":2}}',
    ),
    (
        events.RefusalDelta(12, "msg_1", 0, 1, "n"),
        b'{"type":"response.refusal.delta","sequence_number":12,"item_id":"msg_1","output_index":0,'
        b'"content_index":1,"delta":"n"}',
    ),
    (
        events.RefusalDone(13, "msg_1", 0, 1, "no"),
        b'{"type":"response.refusal.done","sequence_number":13,"item_id":"msg_1","output_index":0,'
        b'"content_index":1,"refusal":"no"}',
    ),
    (
        events.ReasoningDelta(14, "rs_1", 0, 0, "s"),
        b'{"type":"response.reasoning_text.delta","sequence_number":14,"item_id":"rs_1","output_index":0,'
        b'"content_index":0,"delta":"s"}',
    ),
    (
        events.ReasoningDone(15, "rs_1", 0, 0, "so"),
        b'{"type":"response.reasoning_text.done","sequence_number":15,"item_id":"rs_1","output_index":0,'
        b'"content_index":0,"text":"so"}',
    ),
    (
        events.SummaryPartAdded(16, "rs_1", 0, 0, SUMMARY),
        b'{"type":"response.reasoning_summary_part.added","sequence_number":16,"item_id":"rs_1","output_index":0,'
        b'"summary_index":0,"part":{"type":"summary_text","text":"so"}}',
    ),
    (
        events.SummaryPartDone(17, "rs_1", 0, 0, SUMMARY),
        b'{"type":"response.reasoning_summary_part.done","sequence_number":17,"item_id":"rs_1","output_index":0,'
        b'"summary_index":0,"part":{"type":"summary_text","text":"so"}}',
    ),
    (
        events.SummaryDelta(18, "rs_1", 0, 0, "s"),
        b'{"type":"response.reasoning_summary_text.delta","sequence_number":18,"item_id":"rs_1","output_index":0,'
        b'"summary_index":0,"delta":"s"}',
    ),
    (
        events.SummaryDone(19, "rs_1", 0, 0, "so"),
        b'{"type":"response.reasoning_summary_text.done","sequence_number":19,"item_id":"rs_1","output_index":0,'
        b'"summary_index":0,"text":"so"}',
    ),
    (
        events.ArgumentsDelta(20, "fc_1", 0, "{"),
        b'{"type":"response.function_call_arguments.delta","sequence_number":20,"item_id":"fc_1","output_index":0,'
        b'"delta":"{"}',
    ),
    (
        events.ArgumentsDone(21, "fc_1", 0, "f", "{}"),
        b'{"type":"response.function_call_arguments.done","sequence_number":21,"item_id":"fc_1","output_index":0,'
        b'"name":"f","arguments":"{}"}',
    ),
    (
        events.InputDelta(22, "ctc_1", 0, "a"),
        b'{"type":"response.custom_tool_call_input.delta","sequence_number":22,"item_id":"ctc_1","output_index":0,'
        b'"delta":"a"}',
    ),
    (
        events.InputDone(23, "ctc_1", 0, "ab"),
        b'{"type":"response.custom_tool_call_input.done","sequence_number":23,"item_id":"ctc_1","output_index":0,'
        b'"input":"ab"}',
    ),
    (
        events.CommandAdded(24, 0, 1, ""),
        b'{"type":"response.shell_call_command.added","sequence_number":24,"output_index":0,"command_index":1,'
        b'"command":""}',
    ),
    (
        events.CommandDelta(25, 0, 1, "ls"),
        b'{"type":"response.shell_call_command.delta","sequence_number":25,"output_index":0,"command_index":1,'
        b'"delta":"ls"}',
    ),
    (
        events.CommandDone(26, 0, 1, "ls"),
        b'{"type":"response.shell_call_command.done","sequence_number":26,"output_index":0,"command_index":1,'
        b'"command":"ls"}',
    ),
    (
        events.SearchInProgress(27, "ws_1", 0),
        b'{"type":"response.web_search_call.in_progress","sequence_number":27,"item_id":"ws_1","output_index":0}',
    ),
    (
        events.SearchSearching(28, "ws_1", 0),
        b'{"type":"response.web_search_call.searching","sequence_number":28,"item_id":"ws_1","output_index":0}',
    ),
    (
        events.SearchCompleted(29, "ws_1", 0),
        b'{"type":"response.web_search_call.completed","sequence_number":29,"item_id":"ws_1","output_index":0}',
    ),
    (
        events.ImageInProgress(30, "ig_1", 0),
        b'{"type":"response.image_generation_call.in_progress","sequence_number":30,"item_id":"ig_1","output_index":0}',
    ),
    (
        events.ImageGenerating(31, "ig_1", 0),
        b'{"type":"response.image_generation_call.generating","sequence_number":31,"item_id":"ig_1","output_index":0}',
    ),
    (
        events.ImageCompleted(32, "ig_1", 0),
        b'{"type":"response.image_generation_call.completed","sequence_number":32,"item_id":"ig_1","output_index":0}',
    ),
    (
        events.Compacting(33, "cmp_1", 0),
        b'{"type":"response.compaction.compacting","sequence_number":33,"item_id":"cmp_1","output_index":0}',
    ),
    (
        events.SteerAccepted(3, events.Steer("steer_1", "resp_1")),
        b'{"type":"response.steer.accepted","sequence_number":3,'
        b'"steer":{"id":"steer_1","previous_response_id":"resp_1"}}',
    ),
    (
        events.SteerPending(
            9,
            "waiting_for_required_input",
            [{"type": "function_call_output", "call_id": "call_1"}],
            events.Steer("steer_1", "resp_1"),
        ),
        b'{"type":"response.steer.pending","sequence_number":9,"reason":"waiting_for_required_input",'
        b'"required_input":[{"type":"function_call_output","call_id":"call_1"}],'
        b'"steer":{"id":"steer_1","previous_response_id":"resp_1"}}',
    ),
    (
        events.SteerFailed(
            0, events.SteerError("response_not_found", "No."), events.Unsteered(Raw(b'"more"'), "resp_1")
        ),
        b'{"type":"response.steer.failed","sequence_number":0,'
        b'"error":{"type":"invalid_request_error","code":"response_not_found","message":"No."},'
        b'"steer":{"input":"more","previous_response_id":"resp_1"}}',
    ),
    (
        events.Relayed(34, "response.new", b'{"type":"response.new", "sequence_number":34,"n":1.50}'),
        b'{"type":"response.new", "sequence_number":34,"n":1.50}',
    ),
]


@pytest.mark.parametrize(("event", "encoded"), EVERY_EVENT, ids=lambda value: type(value).__name__)
def test_an_event_has_the_fields_of_the_contract_and_no_other(event: Event, encoded: bytes) -> None:
    assert encode(event) == encoded


def test_every_event_is_told_by_its_type() -> None:
    assert [event.type for event, _ in EVERY_EVENT[:6]] == [
        "response.created",
        "response.in_progress",
        "response.queued",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    assert EVERY_EVENT[-1][0].type == "response.new"
    kinds = {type(event) for event, _ in EVERY_EVENT}
    assert kinds == {*leaves(Event)}, "an event without a golden"
    assert {type(event) for event, _ in EVERY_EVENT if isinstance(event, events.TERMINAL)} == {*events.TERMINAL}


def leaves(kind: type[Event]) -> list[type[Event]]:
    below = kind.__subclasses__()
    return [leaf for one in below for leaf in leaves(one)] if below else [kind]


def test_an_event_is_one_line_whatever_its_text() -> None:
    encoded = encode(events.SummaryDelta(0, "rs_1", 0, 0, "a\nb\r\u2028"))
    assert b"\n" not in encoded
    assert b"\r" not in encoded
