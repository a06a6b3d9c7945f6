"""A scripted Gemini provider on a real socket, as strict as the real one (provider-gemini.md).

The words of the script are those of every provider, and a few of its own (`gemini_script`). The model's name decides
what is signed, what has an id, and what is refused:

    with GeminiUpstream([answer(calls(call("look"))), answer(text("ok"))]) as upstream:
        ...
        assert upstream.requests[1].gemini.contents[-1].results[0].name == "look"
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from rejoinder.conformance.upstreams.gemini_memory import remembered
from rejoinder.conformance.upstreams.gemini_sent import SentGemini
from rejoinder.conformance.upstreams.gemini_strictness import GEMINI, GeminiStrictness, check
from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.provider import Reply, ScriptedUpstream
from rejoinder.conformance.upstreams.script import Step
from rejoinder.conformance.upstreams.sent import SentRequest

GeminiScript = Iterable[Step[SentGemini]] | Callable[[SentGemini], Step[SentGemini]]

_METHOD = re.compile(r"/v1beta/models/[^/:]+:(generateContent|streamGenerateContent|countTokens)")


class GeminiUpstream(ScriptedUpstream[SentGemini]):
    root = "/v1beta"
    told = ("tools", "systemInstruction", "contents")

    def __init__(
        self,
        script: GeminiScript = (),
        *,
        strictness: GeminiStrictness = GEMINI,
        models: Sequence[str] = ("gemini-3-flash",),
        key: str | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(script, models=models, key=key, port=port)
        self._strictness = strictness

    def _is_turn(self, method: str, path: str) -> bool:
        return method == "POST" and _called(path) in ("generateContent", "streamGenerateContent")

    def _read(self, sent: SentRequest) -> SentGemini:
        return sent.gemini

    def _check(self, sent: SentRequest) -> None:
        model, _, method = sent.path.rpartition("/")[2].partition(":")
        memory = remembered(self.exchanges)
        check(sent.body, model, self._strictness, memory, counting=method == "countTokens")

    def _key_refused(self, headers: Mapping[str, str], key: str) -> Reply | None:
        found = headers.get("x-goog-api-key")
        if found == key:
            return None
        if found is None:
            message = "Method doesn't allow unregistered callers (callers without established identity)."
            return _failed(403, "PERMISSION_DENIED", message)
        # A wrong key is a wrong argument here (§9).
        info: Json = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
        }
        return _failed(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", details=[info])

    def _list_models(self, path: str, models: Sequence[str]) -> Reply | None:
        if path != "/v1beta/models":
            return None
        listed: list[Json] = [
            {
                "name": f"models/{model}",
                "displayName": model,
                "inputTokenLimit": 1_048_576,
                "outputTokenLimit": 65_536,
                "supportedGenerationMethods": ["generateContent", "countTokens"],
                "thinking": True,
            }
            for model in models
        ]
        return Reply(200, {"models": listed})

    def _unknown(self, path: str) -> Reply:
        return _failed(404, "NOT_FOUND", f"{path} is not found for API version v1beta.")

    def _is_aside(self, method: str, path: str) -> bool:
        return method == "POST" and _called(path) == "countTokens"

    def _answer_aside(self, sent: SentRequest) -> Reply:
        count = len(sent.body) // 4
        return Reply(200, {"totalTokens": count, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": count}]})


def _called(path: str) -> str:
    match = _METHOD.fullmatch(path)
    return match[1] if match else ""


def _failed(status: int, kind: str, message: str, **more: Json) -> Reply:
    return Reply(status, {"error": {"code": status, "message": message, "status": kind, **more}})
