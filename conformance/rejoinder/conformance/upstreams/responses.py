"""A scripted OpenAI Responses provider on a real socket, as strict as the real one (provider-responses.md).

The words of the script are those of every provider, and a few of its own (`responses_script`). How a compatible server
writes its events is its `Manner`:

    with ResponsesUpstream([answer(thought("hm"), text("ok"))], manner=BEDROCK) as upstream:
        ...
        assert upstream.requests[0].responses.types == ["message"]
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256

import msgspec

from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.provider import Reply, ScriptedUpstream
from rejoinder.conformance.upstreams.responses_manner import OPENAI as OPENAI_MANNER
from rejoinder.conformance.upstreams.responses_manner import Manner
from rejoinder.conformance.upstreams.responses_memory import items_of, remembered
from rejoinder.conformance.upstreams.responses_sent import ResponsesItem, SentResponses
from rejoinder.conformance.upstreams.responses_strictness import OPENAI, ResponsesStrictness, Use, check
from rejoinder.conformance.upstreams.script import CREATED, Step
from rejoinder.conformance.upstreams.sent import SentRequest

ResponsesScript = Iterable[Step[SentResponses]] | Callable[[SentResponses], Step[SentResponses]]


class ResponsesUpstream(ScriptedUpstream[SentResponses]):
    root = "/v1"

    def __init__(
        self,
        script: ResponsesScript = (),
        *,
        strictness: ResponsesStrictness = OPENAI,
        manner: Manner = OPENAI_MANNER,
        models: Sequence[str] = ("test-model",),
        key: str | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(script, models=models, key=key, port=port)
        self._strictness = strictness
        self._manner = manner

    def _is_turn(self, method: str, path: str) -> bool:
        return (method, path) == ("POST", "/v1/responses")

    def _read(self, sent: SentRequest) -> SentResponses:
        read = msgspec.structs.replace(sent.responses, manner=self._manner)
        if read.previous_response_id is None:
            return read
        before = msgspec.json.encode(
            remembered(self.exchanges).before({"previous_response_id": read.previous_response_id})
        )
        return msgspec.structs.replace(read, before=msgspec.json.decode(before, type=list[ResponsesItem]))

    def prefix(self, sent: SentRequest) -> list[bytes]:
        """The items that are stored here are read, too. How an item is spaced does not tell it from another."""
        asked: dict[str, Json] = json.loads(sent.body)
        items = [*remembered(self.exchanges).before(asked), *items_of(asked)]
        fixed = [bytes(sent.fields.get(name, b"")) for name in ("tools", "instructions")]
        return [*fixed, *(json.dumps(item).encode() for item in items)]

    def _check(self, sent: SentRequest) -> None:
        uses: Mapping[str, Use] = {"input_tokens": "count", "compact": "compact"}
        use = uses.get(sent.path.rpartition("/")[2], "create")
        check(sent.body, self._strictness, remembered(self.exchanges), use=use)

    def _key_refused(self, headers: Mapping[str, str], key: str) -> Reply | None:
        if headers.get("authorization") == f"Bearer {key}":
            return None
        return _failed(401, "Incorrect API key provided.", "invalid_api_key")

    def _list_models(self, path: str, models: Sequence[str]) -> Reply | None:
        if path != "/v1/models":
            return None
        data: list[Json] = [{"id": model, "object": "model", "owned_by": "test"} for model in models]
        return Reply(200, {"object": "list", "data": data})

    def _unknown(self, path: str) -> Reply:
        return _failed(404, f"Unknown request URL: {path}", "unknown_url")

    def _is_aside(self, method: str, path: str) -> bool:
        return method == "POST" and path in ("/v1/responses/input_tokens", "/v1/responses/compact")

    def _answer_aside(self, sent: SentRequest) -> Reply:
        if sent.path.endswith("input_tokens"):
            return Reply(200, {"object": "response.input_tokens", "input_tokens": self.seen(sent).tokens})
        return Reply(200, _compacted(json.loads(sent.body), sent))


def _compacted(asked: Mapping[str, Json], sent: SentRequest) -> Json:
    """The user's messages, and one item that stands for the rest (§1)."""
    given = asked.get("input")
    items = given if isinstance(given, list) else [{"role": "user", "content": given}]
    output: list[Json] = []
    for place, item in enumerate(items):
        if isinstance(item, Mapping) and item.get("role") == "user":
            content = item.get("content")
            parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
            message: Mapping[str, Json] = {
                "id": f"msg_c{sent.number}_{place}",
                "type": "message",
                "status": "completed",
            }
            output.append({**message, "role": "user", "content": parts})
    sealed = "gAAAA" + sha256(sent.body).hexdigest()
    output.append({"id": f"cmp_c{sent.number}", "type": "compaction", "encrypted_content": sealed})
    usage = {"input_tokens": len(sent.body) // 4, "output_tokens": 5, "total_tokens": len(sent.body) // 4 + 5}
    return {
        "id": f"resp_c{sent.number}",
        "object": "response.compaction",
        "created_at": CREATED,
        "output": output,
        "usage": {
            **usage,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }


def _failed(status: int, message: str, code: str) -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return Reply(status, {"error": error})
