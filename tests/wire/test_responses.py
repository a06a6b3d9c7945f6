from typing import get_args

import msgspec
import pytest
from msgspec import Raw

from rejoinder.wire import responses
from rejoinder.wire.responses import OutputItem, Response

ITEMS: list[tuple[OutputItem, bytes]] = [
    (
        responses.OutputMessage(
            "msg_1",
            "completed",
            [
                responses.OutputText(
                    "hi",
                    [responses.UrlCitation("u", "t", 0, 1), responses.FileCitation("file_1", "a.pdf", 2)],
                    [Raw(b'{"token":"hi"}')],
                ),
                responses.OutputRefusal("no"),
            ],
        ),
        b'{"type":"message","id":"msg_1","status":"completed","content":[{"type":"output_text","text":"hi",'
        b'"annotations":[{"type":"url_citation","url":"u","title":"t","start_index":0,"end_index":1},'
        b'{"type":"file_citation","file_id":"file_1","filename":"a.pdf","index":2}],'
        b'"logprobs":[{"token":"hi"}]},{"type":"refusal","refusal":"no"}],"role":"assistant"}',
    ),
    (
        responses.ReasoningItem("rs_1", "in_progress", []),
        b'{"type":"reasoning","id":"rs_1","status":"in_progress","summary":[]}',
    ),
    (
        responses.ReasoningItem(
            "rs_1", "completed", [responses.SummaryText("so")], [responses.ReasoningText("so so")], "brg1.x"
        ),
        b'{"type":"reasoning","id":"rs_1","status":"completed","summary":[{"type":"summary_text","text":"so"}],'
        b'"content":[{"type":"reasoning_text","text":"so so"}],"encrypted_content":"brg1.x"}',
    ),
    (
        responses.FunctionCallItem("fc_1", "completed", "call_1", "f", "{}"),
        b'{"type":"function_call","id":"fc_1","status":"completed","call_id":"call_1","name":"f","arguments":"{}"}',
    ),
    (
        responses.FunctionCallItem("fc_1", "completed", "call_1", "f", "{}", "files"),
        b'{"type":"function_call","id":"fc_1","status":"completed","call_id":"call_1","name":"f","arguments":"{}",'
        b'"namespace":"files"}',
    ),
    (
        responses.CustomCallItem("ctc_1", "completed", "call_1", "f", "text"),
        b'{"type":"custom_tool_call","id":"ctc_1","status":"completed","call_id":"call_1","name":"f","input":"text"}',
    ),
    (
        responses.LocalShellCallItem("lsh_1", "completed", "call_1", Raw(b'{"type":"exec"}')),
        b'{"type":"local_shell_call","id":"lsh_1","status":"completed","call_id":"call_1","action":{"type":"exec"}}',
    ),
    (
        responses.ShellCallItem("sh_1", "completed", "call_1", Raw(b'{"commands":[]}')),
        b'{"type":"shell_call","id":"sh_1","status":"completed","call_id":"call_1","action":{"commands":[]}}',
    ),
    (
        responses.ApplyPatchCallItem("apc_1", "completed", "call_1", Raw(b'{"type":"delete_file"}')),
        b'{"type":"apply_patch_call","id":"apc_1","status":"completed","call_id":"call_1",'
        b'"operation":{"type":"delete_file"}}',
    ),
    (
        responses.ToolSearchCallItem("tsc_1", "completed", "call_1", Raw(b"{}"), "client"),
        b'{"type":"tool_search_call","id":"tsc_1","status":"completed","call_id":"call_1","arguments":{},'
        b'"execution":"client"}',
    ),
    (
        responses.ToolSearchOutputItem("tso_1", "completed", None, [Raw(b'{"type":"function"}')], "server"),
        b'{"type":"tool_search_output","id":"tso_1","status":"completed","call_id":null,'
        b'"tools":[{"type":"function"}],"execution":"server"}',
    ),
    (
        responses.WebSearchCallItem("ws_1", "searching", Raw(b'{"type":"search","query":"x"}')),
        b'{"type":"web_search_call","id":"ws_1","status":"searching","action":{"type":"search","query":"x"}}',
    ),
    (
        responses.ImageCallItem("ig_1", "in_progress", None),
        b'{"type":"image_generation_call","id":"ig_1","status":"in_progress","result":null}',
    ),
    (
        responses.ImageCallItem("ig_1", "completed", "iVBO", "png"),
        b'{"type":"image_generation_call","id":"ig_1","status":"completed","result":"iVBO","output_format":"png"}',
    ),
    (
        responses.CompactionItem("cmp_1", "brg1.x"),
        b'{"type":"compaction","id":"cmp_1","encrypted_content":"brg1.x"}',
    ),
]


@pytest.mark.parametrize(("item", "encoded"), ITEMS, ids=lambda value: type(value).__name__)
def test_an_item_leaves_out_what_it_does_not_have(item: OutputItem, encoded: bytes) -> None:
    assert msgspec.json.encode(item) == encoded


def test_a_response_has_every_key_from_the_beginning() -> None:
    assert msgspec.json.encode(Response(id="resp_1", created_at=1795000000, model="m")) == (
        b'{"id":"resp_1","object":"response","created_at":1795000000,"completed_at":null,"status":"in_progress",'
        b'"background":false,"error":null,"incomplete_details":null,"instructions":null,"max_output_tokens":null,'
        b'"max_tool_calls":null,"metadata":{},"model":"m","output":[],"parallel_tool_calls":true,'
        b'"previous_response_id":null,"conversation":null,"prompt_cache_key":null,'
        b'"reasoning":{"effort":null,"summary":null},"safety_identifier":null,"service_tier":"default","store":true,'
        b'"temperature":1.0,"top_p":1.0,"presence_penalty":0.0,"frequency_penalty":0.0,'
        b'"text":{"format":{"type":"text"},"verbosity":"medium"},"tool_choice":"auto","tools":[],"top_logprobs":0,'
        b'"truncation":"disabled","usage":null,"user":null}'
    )


def test_every_kind_of_item_has_a_golden() -> None:
    assert {type(item) for item, _ in ITEMS} == {*get_args(OutputItem)}


def test_what_was_taken_from_the_input_is_told_only_where_there_is_something() -> None:
    response = Response(id="resp_1", created_at=1, model="m")
    response.input_transformations = [responses.InputTransformation("rs_1", "reasoning", "removed", "model_mismatch")]
    fields = msgspec.json.decode(msgspec.json.encode(response), type=dict[str, Raw])
    assert bytes(fields["input_transformations"]) == (
        b'[{"id":"rs_1","type":"reasoning","action":"removed","reason":"model_mismatch"}]'
    )


def test_items_that_came_as_they_are_stay_so() -> None:
    response = Response(id="resp_1", created_at=1, model="m", output=[Raw(b'{"type": "program", "new": 1.50}')])
    assert b'"output":[{"type": "program", "new": 1.50}]' in msgspec.json.encode(response)


def test_two_responses_share_nothing_that_grows() -> None:
    first, second = (Response(id=name, created_at=1, model="m") for name in ("resp_1", "resp_2"))
    first.output.append(responses.ReasoningItem("rs_1", "completed", []))
    first.metadata["a"] = "b"
    assert (second.output, second.metadata) == ([], {})


def test_an_ended_response_says_how_it_ended() -> None:
    response = Response(
        id="resp_1",
        created_at=1,
        completed_at=2,
        model="m",
        error=responses.Failure("server_error", "broken"),
        incomplete_details=responses.IncompleteDetails("max_output_tokens"),
        usage=responses.Usage(3, responses.InputDetails(2, 1), 5, responses.OutputDetails(4), 8),
    )
    fields = msgspec.json.decode(msgspec.json.encode(response), type=dict[str, Raw])
    assert bytes(fields["error"]) == b'{"code":"server_error","message":"broken"}'
    assert bytes(fields["incomplete_details"]) == b'{"reason":"max_output_tokens"}'
    assert bytes(fields["usage"]) == (
        b'{"input_tokens":3,"input_tokens_details":{"cached_tokens":2,"cache_write_tokens":1},'
        b'"output_tokens":5,"output_tokens_details":{"reasoning_tokens":4},"total_tokens":8}'
    )
