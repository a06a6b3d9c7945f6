"""generateContent: how a conversation is asked (provider-gemini.md; mapping.md columns G).

The body is written in an order that keeps it byte-stable: everything that stays the same from turn to turn first, the
contents last. For an unchanged history the next request begins with the bytes of this one, up to the end of the last
content (mapping.md §0.2). The answer is always asked for as a stream: it is the same answer, and a long one does not
run into a timeout.

Parameters this dialect has no word for are left out and noted: `parallel_tool_calls` (which is kept to here, by leaving
out what comes after the first call), `reasoning.context`, `reasoning.mode`, `text.verbosity`, everything about prompt
caches (Gemini's is implicit), and what the profile says its server does not know.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

import msgspec
from msgspec import Raw, Struct

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.dialect import Call, Count, Prompt
from rejoinder.bridge.errors import Unsupported, UpstreamError
from rejoinder.bridge.gemini_contents import Conversation, continuation, conversation
from rejoinder.bridge.gemini_models import Generation, generation
from rejoinder.bridge.gemini_names import Names
from rejoinder.bridge.gemini_profile import GeminiProfile
from rejoinder.bridge.gemini_reader import GeminiReader
from rejoinder.bridge.gemini_rejection import rejection
from rejoinder.bridge.gemini_schema import Cleaned, json_schema, subset
from rejoinder.bridge.losses import Loss
from rejoinder.bridge.phrases import JSON_ONLY
from rejoinder.bridge.toolbox import Function, hosted_kind
from rejoinder.wire.formats import TextFormat
from rejoinder.wire.items import Reasoning
from rejoinder.wire.tools import NamedTool


class GeminiDialect:
    """generateContent as one server speaks it."""

    native = False
    compacts = False

    def __init__(self, profile: GeminiProfile) -> None:
        self._profile = profile
        self.hosted: frozenset[str] = frozenset(("web_search",)) if profile.web_search else frozenset()

    def call(self, prompt: Prompt) -> Call:
        path = f"/{_model_path(prompt.model)}:streamGenerateContent?alt=sse"
        return Call(path, _Request(prompt, self._profile).body(), stream=True)

    def reader(self, prompt: Prompt, out: Composer) -> GeminiReader:
        goes_on = continuation(prompt)
        return GeminiReader(
            out,
            names=_names(prompt),
            final=_Answer.of(prompt, generation(prompt.model, self._profile)).by_call,
            sources="web_search_call.action.sources" in prompt.request.include,
            since=goes_on.since if goes_on is not None else len(prompt.items),
        )

    def rejection(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return rejection(status, headers, body)

    def relent(self, prompt: Prompt, error: UpstreamError) -> Prompt | None:
        """Signatures that are refused, or levels a model does not know, are no reason to end a conversation (§5)."""
        if error.status != 400:
            return None
        if _ABOUT_SIGNATURES.search(str(error)):
            return _without_state(prompt) if prompt.opened else None
        # An effort may be refused in words that say nothing at all [R thinking-budget-zero].
        if (_ABOUT_THINKING.search(str(error)) or str(error) == _INVALID) and prompt.effort is not None:
            prompt.note("reasoning.effort: refused by this model")
            return prompt.without_effort()
        return None

    def models(self) -> Call:
        return Call("/models?pageSize=1000", b"", stream=False, method="GET")

    def offered(self, body: bytes) -> list[str]:
        return [
            model.name.removeprefix("models/")
            for model in _MODELS.decode(body).models
            if "generateContent" in model.supported_generation_methods
        ]

    def count(self, prompt: Prompt) -> Count | None:
        path = _model_path(prompt.model)
        body = _Request(prompt, self._profile).body()
        if self._profile.count == "wrapped":
            head = _ENCODER.encode({"model": unquote(path)})
            body = b'{"generateContentRequest":%b,%b}' % (head[:-1], body[1:])
        return Count(
            Call(f"/{path}:countTokens", body, stream=False), lambda answer: _COUNTED.decode(answer).total_tokens
        )


_ABOUT_SIGNATURES = re.compile(r"thought[ _]?signature", re.IGNORECASE)
_ABOUT_THINKING = re.compile(r"thinking[ _]?(level|budget)", re.IGNORECASE)
_INVALID = "Request contains an invalid argument."


class _Listed(Struct, rename="camel"):
    name: str
    supported_generation_methods: list[str] = []


class _Models(Struct):
    models: list[_Listed] = []


class _Counted(Struct, rename="camel"):
    total_tokens: int


def _model_path(model: str) -> str:
    """`models/M`; a name with a slash says itself what it is (`tunedModels/…`)."""
    return quote(model if "/" in model else f"models/{model}")


def _names(prompt: Prompt) -> Names:
    return Names(function.name for function in prompt.toolbox.functions)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What form the answer is to have, and how that is brought about.

    Models before generation 3 know no output schema beside functions (§6). There the answer is the call of one more
    function, by the name `by_call`; `in_words` says that JSON is asked for in the instructions, `is_left_out` that
    there will be no answer but a call.
    """

    format: TextFormat | None
    by_call: str | None = None
    in_words: bool = False
    is_left_out: bool = False

    @classmethod
    def of(cls, prompt: Prompt, generation: Generation) -> "_Answer":
        wanted = prompt.format
        if wanted is None or wanted.type == "text":
            return cls(None)
        functions, choice = prompt.toolbox.functions, prompt.toolbox.choice
        if generation.mixed_tools or not functions or choice == "none":
            return cls(wanted)
        if wanted.type == "json_object":
            return cls(wanted, in_words=True)
        if choice != "auto":
            return cls(None, is_left_out=True)
        return cls(wanted, by_call=prompt.toolbox.free_name("final_answer"))


class _Request:
    """One request in the making."""

    def __init__(self, prompt: Prompt, profile: GeminiProfile) -> None:
        self._prompt = prompt
        self._profile = profile
        self._generation = generation(prompt.model, profile)
        self._names = _names(prompt)
        self._answer = _Answer.of(prompt, self._generation)

    def body(self) -> bytes:
        said = conversation(self._prompt, self._generation, self._profile, self._names)
        fields: dict[str, object] = {**self._profile.extra}
        if system := self._system(said):
            fields["systemInstruction"] = {"parts": [{"text": text} for text in system]}
        fields.update(self._tools())
        if settings := self._settings():
            fields["generationConfig"] = settings
        fields.update(self._labels())
        fields.update(self._tier())
        if (goes_on := continuation(self._prompt)) is not None:
            fields["continuationToken"] = goes_on.token
        contents = said.contents
        if not contents:
            if not said.system and not self._prompt.request.fields.instructions:
                raise Unsupported("the conversation is empty", param="input")
            contents = [b'{"role":"user","parts":[{"text":" "}]}']  # there is no request without any (§3)
        head = _ENCODER.encode(fields)
        return b'%b%b"contents":[%b]}' % (head[:-1], b"," if fields else b"", b",".join(contents))

    def _system(self, said: Conversation) -> list[str]:
        texts = [self._prompt.request.fields.instructions or "", *said.system]
        if self._answer.in_words:
            texts.append(JSON_ONLY)
        return [text for text in texts if text]

    # generationConfig.

    def _settings(self) -> dict[str, object]:
        """In a fixed order."""
        fields, profile = self._prompt.request.fields, self._profile
        settings: dict[str, object] = {**profile.generation}
        if fields.temperature is not None:
            settings["temperature"] = fields.temperature
        if fields.top_p is not None:
            settings["topP"] = fields.top_p
        if fields.max_output_tokens is not None:
            settings["maxOutputTokens"] = fields.max_output_tokens
            if fields.max_output_tokens < _ROOM_TO_THINK and self._generation.thinking != "never":
                self._prompt.note(
                    "max_output_tokens: what the model thinks is counted too, so little may be left for the answer"
                )
        self._penalties(settings)
        self._logprobs(settings)
        if (thinking := self._thinking()) is not None:
            settings["thinkingConfig"] = thinking
        self._format(settings)
        self._prompt.ignore(
            {
                "text.verbosity": fields.text.verbosity if fields.text is not None else None,
                "prompt_cache_key": fields.prompt_cache_key,
                "prompt_cache_options": fields.prompt_cache_options,
                "prompt_cache_retention": fields.prompt_cache_retention,
            }
        )
        return settings

    def _penalties(self, settings: dict[str, object]) -> None:
        fields = self._prompt.request.fields
        for name, wire, value in (
            ("presence_penalty", "presencePenalty", fields.presence_penalty),
            ("frequency_penalty", "frequencyPenalty", fields.frequency_penalty),
        ):
            if not value:
                continue  # none is what there is anyway, and many models refuse the very word (§2)
            if self._profile.penalties:
                settings[wire] = value
            else:
                self._prompt.ignore({name: value})

    def _logprobs(self, settings: dict[str, object]) -> None:
        fields = self._prompt.request.fields
        if not self._prompt.wants_logprobs:
            return
        if not self._profile.logprobs:
            raise self._prompt.without_logprobs()
        settings["responseLogprobs"] = True
        if fields.top_logprobs:
            settings["logprobs"] = fields.top_logprobs

    def _thinking(self) -> dict[str, object] | None:
        asked = self._prompt.request.fields.reasoning
        config: dict[str, object] = {}
        self._prompt.ignore(self._prompt.ways_of_thinking)
        if asked is not None and (asked.summary or asked.generate_summary) not in (None, "none"):
            if self._generation.thinking == "never":
                self._prompt.note("reasoning.summary: this model does not think")
            else:
                config["includeThoughts"] = True
        effort = self._prompt.effort
        if effort is not None:
            config.update(self._effort(effort))
        return config or None

    def _effort(self, effort: str) -> dict[str, object]:
        known = self._generation
        if effort == "none" and not (known.rests or known.thinking == "never"):
            self._prompt.note(
                "reasoning.effort: this model cannot do without thinking, so it thinks as little as it can"
            )
        match known.thinking:
            case "budget":
                return {"thinkingBudget": known.budget(effort)}
            case "level":
                return {"thinkingLevel": known.level(effort)}
            case "never":  # pragma: no branch  # nothing else is left
                if effort != "none":
                    self._prompt.note("reasoning.effort: this model does not think")
                return {}

    def _format(self, settings: dict[str, object]) -> None:
        answer = self._answer
        wanted = answer.format
        if answer.is_left_out:
            self._prompt.note("text.format: this model must call a tool and has no output format beside it")
        if wanted is None or answer.by_call is not None or answer.in_words:
            return
        settings["responseMimeType"] = "application/json"
        if wanted.type == "json_schema":
            schema = self._cleaned(bytes(wanted.schema), "text.format", ordered=True)
            if schema is not None:
                settings["responseJsonSchema" if self._generation.json_schema else "responseSchema"] = Raw(schema)

    def _cleaned(self, schema: bytes, param: str, *, ordered: bool = False) -> bytes | None:
        cleaned: Cleaned
        if self._generation.json_schema:
            cleaned = json_schema(schema, param=param)
        else:
            cleaned = subset(schema, param=param, ordered=ordered)
        for name in sorted(cleaned.lost):
            self._prompt.note(f"{param}: '{name}' is no word of this upstream's schemas and is said in a description")
        return cleaned.schema

    # Tools.

    def _tools(self) -> dict[str, object]:
        """Without tools there is no key at all: an empty list is a 400."""
        toolbox = self._prompt.toolbox
        functions = [self._declared(function) for function in toolbox.functions]
        config = self._choice()
        if (
            functions
            and toolbox.choice == "none"
            and self._answer.format is not None
            and not self._generation.mixed_tools
        ):
            functions, config = [], {}  # none of them may be called, and beside them there is no schema
        if self._answer.by_call is not None:
            functions.append(self._final(self._answer.by_call))
            config = {"mode": "ANY"}
        googles = self._googles(beside=bool(functions))
        fields: dict[str, object] = {}
        tools: list[object] = [*googles, *([{"functionDeclarations": functions}] if functions else ())]
        if tools:
            fields["tools"] = tools
        tool_config: dict[str, object] = {"functionCallingConfig": config} if config else {}
        if googles and functions:
            tool_config["includeServerSideToolInvocations"] = True
        if tool_config:
            fields["toolConfig"] = tool_config
        if functions and self._prompt.request.fields.parallel_tool_calls is False:
            self._prompt.note(
                "parallel_tool_calls: this upstream has no such switch, calls after the first are left out"
            )
        return fields

    def _choice(self) -> dict[str, object]:
        """functionCallingConfig; empty where nothing needs to be said (§4)."""
        toolbox = self._prompt.toolbox
        match toolbox.choice:
            case NamedTool(type=kind) if hosted_kind(kind) in toolbox.hosted:
                raise Unsupported(
                    f"this upstream cannot be made to use '{kind}'; leave the choice to it with 'auto'",
                    param="tool_choice",
                    code="unsupported_value",
                )
            case NamedTool() as named:
                return {"mode": "ANY", "allowedFunctionNames": [self._names.on_wire(toolbox.named(named).name)]}
            case "required" if not toolbox.functions:
                raise Unsupported("tool choice 'required' needs at least one function", param="tool_choice")
            case "required":
                return {"mode": "ANY"}
            case "none":
                return {"mode": "NONE"} if toolbox.functions else {}
            case _:
                strict = any(function.strict for function in toolbox.functions)
                return {"mode": "VALIDATED"} if strict and self._generation.validated else {}

    def _declared(self, function: Function) -> dict[str, object]:
        declared: dict[str, object] = {"name": self._names.on_wire(function.name)}
        if function.description:
            declared["description"] = function.description
        return {**declared, **self._parameters(function.parameters, "tools")}

    def _parameters(self, schema: bytes, param: str) -> dict[str, object]:
        cleaned = self._cleaned(schema, param)
        if cleaned is None:
            return {}  # an object without properties is refused by older models (§4)
        return {"parametersJsonSchema" if self._generation.json_schema else "parameters": Raw(cleaned)}

    def _final(self, name: str) -> dict[str, object]:
        wanted = self._answer.format
        assert wanted is not None
        about = "Gives the final answer to the user. Call it, alone, once nothing else is left to be done."
        described = f"{about}\n\n{wanted.description}" if wanted.description else about
        return {"name": name, "description": described, **self._parameters(bytes(wanted.schema), "text.format")}

    def _googles(self, *, beside: bool) -> list[object]:
        """Tools that Google runs. `beside`: there are functions too, which only some models take together (§4)."""
        toolbox, together = self._prompt.toolbox, self._generation.mixed_tools and self._profile.server_side_tools
        googles: list[object] = [*self._profile.tools]
        if "web_search" in toolbox.hosted and toolbox.choice != "none":
            googles.insert(0, self._search())
        if googles and beside and not together:
            self._prompt.note("tools.web_search: Google's tools do not go with functions here and are not offered")
            return []
        if googles and self._answer.format is not None and not self._generation.mixed_tools:
            self._prompt.note(
                "tools.web_search: Google's tools do not go with an output format here and are not offered"
            )
            return []
        return googles

    def _search(self) -> dict[str, object]:
        declared = _SEARCH.decode(self._prompt.toolbox.hosted["web_search"].raw)
        if declared.filters is not None and (declared.filters.allowed_domains or declared.filters.blocked_domains):
            raise Unsupported(
                "this upstream cannot search some domains only; leave out 'filters'",
                param="tools",
                code="unsupported_value",
            )
        for name in ("user_location", "search_context_size", "external_web_access", "search_content_types"):
            if bytes(getattr(declared, name)) not in (b"", b"null", b"true"):
                self._prompt.ignore({f"tools.web_search.{name}": True})
        return {"googleSearch": {}}

    # The rest.

    def _labels(self) -> dict[str, object]:
        fields = self._prompt.request.fields
        named = {"safety_identifier": fields.safety_identifier, "user": fields.user}
        given = {name: value for name, value in named.items() if value}
        if self._profile.labels and given:
            return {"labels": {name: _label(value) for name, value in given.items()}}
        self._prompt.ignore(given)
        return {}

    def _tier(self) -> dict[str, object]:
        tier = self._prompt.request.fields.service_tier
        if tier in (None, "auto", "default"):
            return {}
        if self._profile.service_tier and tier in ("flex", "priority"):
            return {"serviceTier": tier}
        self._prompt.note(f"service_tier: '{tier}' is not known to this upstream")
        return {}


_ROOM_TO_THINK = 1024
"""Tokens of a limit below which thoughts alone may reach it (mapping.md §1)."""


def _label(value: str) -> str:
    """Labels are short and of few characters; anything else is known by its hash."""
    return value if _LABEL.fullmatch(value) else hashlib.sha256(value.encode()).hexdigest()[:32]


_LABEL = re.compile(r"[a-z0-9_-]{1,63}")


class _Filters(Struct):
    allowed_domains: list[str] | None = None
    blocked_domains: list[str] | None = None


class _WebSearch(Struct):
    filters: _Filters | None = None
    user_location: Raw = Raw()
    search_context_size: Raw = Raw()
    external_web_access: Raw = Raw()
    search_content_types: Raw = Raw()


def _without_state(prompt: Prompt) -> Prompt:
    """The conversation as one that was held with somebody else."""
    for item in prompt.items:
        if isinstance(item.view, Reasoning) and item.view.encrypted_content in prompt.opened:
            prompt.lose(Loss(item.type, item.id, "removed", "model_mismatch", "gemini"))
    prompt.opened.clear()  # in place: what is sealed from now on is open to the requests that follow
    return prompt


_ENCODER = msgspec.json.Encoder()
_SEARCH = msgspec.json.Decoder(_WebSearch)
_MODELS = msgspec.json.Decoder(_Models)
_COUNTED = msgspec.json.Decoder(_Counted)
