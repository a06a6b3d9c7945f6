"""A scripted Chat Completions provider on a real socket, as strict as the strictest (provider-chat.md).

A test says what the provider answers, one step per request, and then looks at what it was sent:

    with ChatUpstream([answer(calls(call("look"))), answer(text("Hel", "lo"))]) as upstream:
        ...
        assert upstream.requests[1].chat.messages[-1].role == "tool"
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.provider import Reply, ScriptedUpstream
from rejoinder.conformance.upstreams.script import Step
from rejoinder.conformance.upstreams.sent import SentChat, SentRequest
from rejoinder.conformance.upstreams.strictness import COMPATIBLE, Strictness, check

Script = Iterable[Step] | Callable[[SentChat], Step]


class ChatUpstream(ScriptedUpstream[SentChat]):
    root = "/v1"
    told = ("tools", "messages")

    def __init__(
        self,
        script: Script = (),
        *,
        strictness: Strictness = COMPATIBLE,
        models: Sequence[str] = ("test-model",),
        key: str | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(script, models=models, key=key, port=port)
        self._strictness = strictness

    def _is_turn(self, method: str, path: str) -> bool:
        return (method, path) == ("POST", "/v1/chat/completions")

    def _read(self, sent: SentRequest) -> SentChat:
        return sent.chat

    def _check(self, sent: SentRequest) -> None:
        check(sent.body, self._strictness)

    def _key_refused(self, headers: Mapping[str, str], key: str) -> Reply | None:
        if headers.get("authorization") == f"Bearer {key}":
            return None
        error: Json = {"message": "Incorrect API key provided.", "type": "invalid_request_error", "param": None}
        return Reply(401, {"error": error})

    def _list_models(self, path: str, models: Sequence[str]) -> Reply | None:
        if path != "/v1/models":
            return None
        data: list[Json] = [{"id": model, "object": "model", "owned_by": "test"} for model in models]
        return Reply(200, {"object": "list", "data": data})

    def _unknown(self, path: str) -> Reply:
        return Reply(404, {"error": {"message": f"Unknown request URL: {path}"}})
