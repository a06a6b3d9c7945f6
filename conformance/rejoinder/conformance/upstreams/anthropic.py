"""A scripted Anthropic Messages provider on a real socket, as strict as the real one (provider-anthropic.md).

The words of the script are those of every provider, and a few of its own (`anthropic_script`):

    with AnthropicUpstream([answer(thought("hm"), calls(call("look"))), answer(text("ok"))]) as upstream:
        ...
        assert upstream.requests[1].anthropic.messages[1].types == ["thinking", "tool_use"]
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from rejoinder.conformance.upstreams.anthropic_memory import remembered
from rejoinder.conformance.upstreams.anthropic_model import AnthropicModel
from rejoinder.conformance.upstreams.anthropic_sent import SentAnthropic
from rejoinder.conformance.upstreams.anthropic_strictness import ANTHROPIC, AnthropicStrictness, check
from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.provider import Reply, ScriptedUpstream
from rejoinder.conformance.upstreams.script import Step
from rejoinder.conformance.upstreams.sent import SentRequest

AnthropicScript = Iterable[Step[SentAnthropic]] | Callable[[SentAnthropic], Step[SentAnthropic]]


class AnthropicUpstream(ScriptedUpstream[SentAnthropic]):
    root = ""
    told = ("tools", "system", "messages")

    def __init__(
        self,
        script: AnthropicScript = (),
        *,
        strictness: AnthropicStrictness = ANTHROPIC,
        models: Sequence[str] = ("claude-sonnet-4-5",),
        key: str | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(script, models=models, key=key, port=port)
        self._strictness = strictness

    def _is_turn(self, method: str, path: str) -> bool:
        return (method, path) == ("POST", "/v1/messages")

    def _read(self, sent: SentRequest) -> SentAnthropic:
        return sent.anthropic

    def _check(self, sent: SentRequest) -> None:
        counting = sent.path.endswith("/count_tokens")
        check(sent.body, sent.headers, self._strictness, remembered(self.exchanges), counting=counting)

    def _key_refused(self, headers: Mapping[str, str], key: str) -> Reply | None:
        # Where both are sent, x-api-key wins (§1).
        if headers.get("x-api-key", headers.get("authorization", "").removeprefix("Bearer ")) == key:
            return None
        return _failed(401, "authentication_error", "invalid x-api-key")

    def _list_models(self, path: str, models: Sequence[str]) -> Reply | None:
        if path == "/v1/models":
            data: list[Json] = [_described(model) for model in models]
            return Reply(200, {"data": data, "has_more": False, "first_id": models[0], "last_id": models[-1]})
        name = path.removeprefix("/v1/models/")
        return Reply(200, _described(name)) if name in models else None

    def prefix(self, sent: SentRequest) -> list[bytes]:
        """Without the marks of the cache, which may wander: what is read stays the same (§9)."""
        return [_unmarked(piece) for piece in super().prefix(sent)]

    def _unknown(self, path: str) -> Reply:
        return _failed(404, "not_found_error", "Not found")

    def _is_aside(self, method: str, path: str) -> bool:
        return (method, path) == ("POST", "/v1/messages/count_tokens")

    def _answer_aside(self, sent: SentRequest) -> Reply:
        return Reply(200, {"input_tokens": len(sent.body) // 4})


def _unmarked(piece: bytes) -> bytes:
    if b'"cache_control"' not in piece:
        return piece
    return json.dumps(_without_marks(json.loads(piece))).encode()


def _without_marks(value: Json) -> Json:
    match value:
        case dict():
            return {name: _without_marks(one) for name, one in value.items() if name != "cache_control"}
        case list():
            return [_without_marks(one) for one in value]
        case _:
            return value


def _failed(status: int, kind: str, message: str) -> Reply:
    error = {"type": kind, "message": message}
    return Reply(status, {"type": "error", "error": error, "request_id": "req_1"})


def _described(name: str) -> Json:
    """What the provider tells of a model (§1). It has no capabilities when its name is none of Anthropic's."""
    told = {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
    model = AnthropicModel.of(name)
    if model is None:
        return told
    thinking = {
        "enabled": model.thinks_by_budget,
        "adaptive": model.thinks_adaptively,
        "disabled": model.can_rest,
        "between_tools": model.version >= (5, 5),
    }
    efforts = {effort: effort in model.efforts for effort in ("low", "medium", "high", "xhigh", "max")}
    flat = {"structured_outputs": model.structures, "image_input": True, "pdf_input": True, "citations": True}
    capabilities: Json = {
        **{name: {"supported": supported} for name, supported in flat.items()},
        "effort": {"supported": bool(model.efforts), **_supported(efforts)},
        "thinking": {"supported": True, "types": _supported(thinking)},
    }
    return {
        **told,
        "lifecycle": "active",
        "line": model.line,
        "max_input_tokens": 200_000,
        "max_tokens": model.max_tokens,
        "capabilities": capabilities,
    }


def _supported(named: Mapping[str, bool]) -> dict[str, Json]:
    return {name: {"supported": supported} for name, supported in named.items()}
