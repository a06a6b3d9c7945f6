"""Anthropic Messages: how a conversation is asked (provider-anthropic.md §1 to §6, §9; mapping.md columns A).

The body is written in an order that keeps it byte-stable: everything that stays the same from turn to turn first, the
messages last. For an unchanged history the next request begins with the bytes of this one, up to the end of the last
message (mapping.md §0.2).

Always a stream is asked for, so that no answer is too long to wait for. Parameters this protocol has no word for are
left out and noted: `text.verbosity`, `prompt_cache_key`, `reasoning.context`, `reasoning.mode`, the penalties. The
`detail` of an image is no more than a hint, and has no word either.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from rejoinder.bridge.anthropic_messages import (
    Block,
    Message,
    Prefix,
    Writing,
    begins_without_thinking,
    cache_control,
    lose,
    mark,
    text_block,
    text_blocks,
    time_to_live,
    unbind,
    without_thinking,
    written,
)
from rejoinder.bridge.anthropic_models import BUDGETS, MIN_BUDGET, Traits, budget, level, traits_of
from rejoinder.bridge.anthropic_profile import AnthropicProfile
from rejoinder.bridge.anthropic_reader import AnthropicReader, Hearing, refusal
from rejoinder.bridge.composer import Composer
from rejoinder.bridge.dialect import Call, Count, Prompt
from rejoinder.bridge.envelope import Envelope
from rejoinder.bridge.errors import Unsupported, UpstreamError
from rejoinder.bridge.offer import listed
from rejoinder.bridge.phrases import JSON_ONLY
from rejoinder.bridge.schema import Subset, as_object, cleaned
from rejoinder.bridge.toolbox import Function, hosted_kind
from rejoinder.bridge.turns import CallPart, Turn, leading, turns
from rejoinder.wire.items import Reasoning
from rejoinder.wire.request import Effort
from rejoinder.wire.tools import NamedTool


class AnthropicDialect:
    """Anthropic Messages as one server speaks it."""

    native = False
    compacts = False

    def __init__(self, profile: AnthropicProfile) -> None:
        self._profile = profile
        self.hosted: frozenset[str] = frozenset(("web_search",)) if profile.web_search else frozenset()

    def call(self, prompt: Prompt) -> Call:
        body = self._body(prompt)
        head = {**body.head, **body.limits, "stream": True}
        return Call(self._path(self._profile.path, prompt), body.encoded(head), stream=True, headers=self._headers())

    def reader(self, prompt: Prompt, out: Composer) -> AnthropicReader:
        is_bound = self._traits(prompt).bound
        return AnthropicReader(
            out,
            Hearing(
                prompt.toolbox.free_name("json") if self._answers_by_tool(prompt) else None,
                "web_search_call.action.sources" in prompt.request.include,
                (lambda: self._body(prompt).prefix()) if is_bound else None,
            ),
        )

    def rejection(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return refusal(status, headers, body)

    def relent(self, prompt: Prompt, error: UpstreamError) -> Prompt | None:
        """Once without the thinking, where the provider says that it is bound to another conversation or was changed;
        once without the effort, where the model does not have it (§5)."""
        if error.status != 400:
            return None
        if _THINKING_REFUSED.search(str(error)):
            return _unthought(prompt)
        if _EFFORT_REFUSED.search(str(error)) and prompt.effort is not None:
            prompt.note("reasoning.effort: this model does not have it")
            return prompt.without_effort()
        return None

    def models(self) -> Call:
        return Call(self._profile.models_path, b"", stream=False, headers=self._headers(), method="GET")

    def offered(self, body: bytes) -> list[str]:
        return listed(body)

    def count(self, prompt: Prompt) -> Count | None:
        if not self._profile.count_path:
            return None
        body = self._body(prompt)
        # The same without what is about the answer; `metadata` and tiers are not counted either (§1).
        head = {name: value for name, value in body.head.items() if name in _COUNTED}
        call = Call(
            self._path(self._profile.count_path, prompt), body.encoded(head), stream=False, headers=self._headers()
        )
        return Count(call, lambda answer: _COUNT.decode(answer).input_tokens)

    def _path(self, path: str, prompt: Prompt) -> str:
        return path.replace("{model}", prompt.model)

    def _headers(self) -> dict[str, str]:
        headers = {}
        if self._profile.version_in == "header":
            headers["anthropic-version"] = self._profile.version
        if self._profile.betas:
            headers["anthropic-beta"] = ",".join(self._profile.betas)
        return headers

    def _traits(self, prompt: Prompt) -> Traits:
        return traits_of(prompt.model, self._profile.models)

    def _body(self, prompt: Prompt) -> "_Body":
        profile, traits = self._profile, self._traits(prompt)
        head: dict[str, object] = {}
        if "{model}" not in profile.path:
            head["model"] = prompt.model
        if profile.version_in == "body":
            head["anthropic_version"] = profile.version
        head.update(profile.extra)
        thinking = _thinking(prompt, traits)
        if thinking.effort is not None and self._answers_by_tool(prompt):
            prompt.note("reasoning: thinking is off, because the answer is written as the arguments of a tool")
            thinking = _Thinking({}, thinking.level)
        conversation = turns(prompt.items, prompt.toolbox, prompt.opened)
        called = _called(conversation)
        tools = self._tools(prompt, traits, called)
        writing = Writing(prompt, profile, traits)
        system = _system(prompt, conversation, writing)
        messages = writing.end()
        unbind(prompt, system, tools, messages)
        if not messages:
            raise Unsupported("the conversation is empty", param="input")
        if thinking.effort is not None and begins_without_thinking(messages):
            prompt.note("reasoning: thinking is off, because that of the calls in the input is no longer there")
            thinking = _Thinking({}, thinking.level)
        choice, hint = self._choice(prompt, traits, thinking, has_history=bool(called))
        if hint is not None and messages[-1].role != "assistant":
            writing.ask(hint)
        automatic = self._caching(prompt, head)
        blocks = [*system, *(block for message in messages for block in message.blocks)]
        if profile.caching == "none":
            for block in blocks:
                block.cached = None
        mark(prompt, blocks, automatic=automatic)
        self._identity(prompt, head)
        limits = self._limits(prompt, traits, thinking, head)
        self._format(prompt, traits, thinking, head)
        if choice is not None:
            head["tool_choice"] = choice
        if tools:
            head["tools"] = tools
        if system:
            head["system"] = Raw(written(system))
        self._unspoken(prompt)
        return _Body(head, limits, system, tools, messages)

    # Settings.

    def _caching(self, prompt: Prompt, head: dict[str, object]) -> str | None:
        """How long the provider is to keep the whole prompt; None where it is not asked to."""
        options = prompt.request.fields.prompt_cache_options
        if self._profile.caching != "automatic" or (options is not None and options.mode == "explicit"):
            return None
        asked = options.ttl if options is not None else None
        if asked is None and prompt.request.fields.prompt_cache_retention == "24h":
            asked = "12h"
        ttl = time_to_live(asked)
        head["cache_control"] = cache_control(ttl)
        return ttl

    def _identity(self, prompt: Prompt, head: dict[str, object]) -> None:
        fields, profile = prompt.request.fields, self._profile
        user = fields.safety_identifier or fields.user
        if user and profile.user_id:
            # The provider wants no names and no addresses (mapping.md §1).
            told = hashlib.sha256(user.encode()).hexdigest() if "@" in user or len(user) > MAX_USER_ID else user
            head["metadata"] = {"user_id": told}
        elif user:
            prompt.ignore({"safety_identifier": user})
        tier = fields.service_tier
        if tier in ("priority", "fast") and profile.fast:
            head["speed"] = "fast"
        elif tier in ("auto", "default"):
            if profile.service_tier:
                head["service_tier"] = "auto" if tier == "auto" else "standard_only"
        elif tier is not None:
            prompt.note(f"service_tier: '{tier}' is not understood by this upstream")

    def _limits(
        self, prompt: Prompt, traits: Traits, thinking: "_Thinking", head: dict[str, object]
    ) -> dict[str, object]:
        """`max_tokens`, and what depends on it: a budget of thinking counts inside (§5, lessons.md S-043, S-044)."""
        asked = prompt.request.fields.max_output_tokens
        most = traits.max_tokens
        limit = min(asked, most) if asked is not None else most
        if asked is not None and asked > most:
            prompt.note(f"max_output_tokens: this model writes at most {most}")
        if thinking.effort is not None:
            raised = min(limit + BUDGETS[thinking.effort], most)
            tokens = budget(thinking.effort, raised, asked)
            if tokens is None:
                prompt.note(f"reasoning.effort: fewer than {MIN_BUDGET} tokens are left to think with")
                thinking = _Thinking({}, thinking.level)
            else:
                thinking.told["budget_tokens"] = tokens
                if raised > limit:
                    prompt.note(f"max_output_tokens: up to {tokens} tokens of thinking come on top")
                limit = raised
        if thinking.told:
            head["thinking"] = thinking.told
        self._sampling(prompt, traits, thinking, head)
        return {"max_tokens": limit}

    def _sampling(self, prompt: Prompt, traits: Traits, thinking: "_Thinking", head: dict[str, object]) -> None:
        fields = prompt.request.fields
        given = {
            name: value
            for name, value in (("temperature", fields.temperature), ("top_p", fields.top_p))
            if value is not None
        }
        # Vertex has a word in front of the date.
        refused = traits.sampling == "none" or self._profile.version[-10:] >= "2026-10-21"
        for name, value in given.items():
            if refused:
                if value != 1:  # what it does anyway needs no word
                    prompt.note(f"{name}: this model decides itself")
            elif thinking.is_on and (value < 0.95 if name == "top_p" else value != 1):
                prompt.note(f"{name}: not while the model thinks")
            elif name == "top_p" and "temperature" in head and traits.sampling == "one":
                prompt.note("top_p: this model takes it or temperature, not both")
            else:
                if value > 1:
                    prompt.note(f"{name}: {value} is more than this upstream takes, which is 1")
                head[name] = min(value, 1)

    def _format(self, prompt: Prompt, traits: Traits, thinking: "_Thinking", head: dict[str, object]) -> None:
        output: dict[str, object] = {}
        if thinking.level is not None:
            output["effort"] = thinking.level
        if (schema := self._schema(prompt, traits)) is not None:
            output["format"] = {"type": "json_schema", "schema": schema}
        if output:
            head["output_config"] = output

    def _schema(self, prompt: Prompt, traits: Traits) -> Raw | None:
        """The schema of the answer, where the model takes it as it is or cleaned (§6)."""
        wanted = prompt.format
        if wanted is None or wanted.type != "json_schema" or not traits.structured:
            return None
        found = cleaned(bytes(wanted.schema), SUBSET, param="text.format.schema")
        if found is None:
            return None
        if found.moved:
            prompt.note(f"text.format: {', '.join(found.moved)} went into descriptions")
        return found.schema

    def _answers_by_tool(self, prompt: Prompt) -> bool:
        """Whether the answer has to be written as the arguments of a tool: the model, or this schema, knows no other
        way (§6)."""
        wanted = prompt.format
        if wanted is None or wanted.type != "json_schema":
            return False
        return self._schema(prompt, self._traits(prompt)) is None

    def _unspoken(self, prompt: Prompt) -> None:
        """What has no word here (module docstring). Raises Unsupported where leaving it out would not do."""
        fields = prompt.request.fields
        if prompt.wants_logprobs:
            raise prompt.without_logprobs()
        prompt.ignore(
            {
                "presence_penalty": fields.presence_penalty or None,
                "frequency_penalty": fields.frequency_penalty or None,
                "prompt_cache_key": fields.prompt_cache_key,
                "text.verbosity": fields.text.verbosity if fields.text is not None else None,
                **prompt.ways_of_thinking,
            }
        )

    # Tools.

    def _tools(self, prompt: Prompt, traits: Traits, called: Sequence[str]) -> list[Raw]:
        """Functions in their order, then what runs at the provider. A history with calls needs tools to go with it,
        even where none may be called any more (§4)."""
        toolbox = prompt.toolbox
        tools = [self._tool(function, prompt, traits) for function in toolbox.functions]
        if self._answers_by_tool(prompt):
            tools.append(self._answering(prompt))
        if (search := toolbox.hosted.get("web_search")) is not None:
            tools.append(_raw(self._search(prompt, search.raw)))
        tools.extend(self._profile.server_tools)
        return tools or [_raw(_Tool(name, Raw(b'{"type":"object"}'))) for name in called]

    def _tool(self, function: Function, prompt: Prompt, traits: Traits) -> Raw:
        param = f"tools[{function.name!r}].parameters"
        schema = as_object(function.parameters, param=param)
        if schema.moved:
            prompt.note(f"tools.{function.name}: {', '.join(schema.moved)} at the top went into its description")
        strict = False
        if function.strict:
            exact = cleaned(function.parameters, SUBSET, param=param) if traits.structured else None
            # Where cleaning changes it the model would be held to another schema than the client's.
            strict = exact is not None and not exact.moved and _same(exact.schema, function.parameters)
            if not strict:
                prompt.note(f"tools.{function.name}.strict: this upstream cannot hold the model to this schema")
        return _raw(_Tool(function.name, schema.schema, function.description or None, strict or None))

    def _answering(self, prompt: Prompt) -> Raw:
        wanted = prompt.format
        assert wanted is not None
        schema = as_object(bytes(wanted.schema), param="text.format.schema")
        about = "\n".join(filter(None, ("Gives the answer. Call it once, with all of the answer.", wanted.description)))
        return _raw(_Tool(prompt.toolbox.free_name("json"), schema.schema, about))

    def _search(self, prompt: Prompt, declared: bytes) -> "_SearchTool":
        said = _SEARCH.decode(declared)
        if said.search_context_size not in (None, "medium"):
            prompt.ignore({"tools.web_search.search_context_size": said.search_context_size})
        filters, place = said.filters or _Filters(), said.user_location
        return _SearchTool(
            self._profile.web_search,
            "web_search",
            allowed_domains=filters.allowed_domains or None,
            blocked_domains=filters.blocked_domains or None,
            max_uses=prompt.request.fields.max_tool_calls,
            user_location=place,
        )

    def _choice(
        self, prompt: Prompt, traits: Traits, thinking: "_Thinking", *, has_history: bool
    ) -> tuple[dict[str, object] | None, str | None]:
        """The choice of a tool, and what the model is asked instead where it may not be told (§4). `has_history`: tools
        were called, and are there at least to be read about."""
        toolbox = prompt.toolbox
        has_tools = bool(toolbox.functions or toolbox.hosted or self._profile.server_tools)
        forced, hint = self._forced(prompt, has_tools=has_tools)
        if forced is None and (toolbox.choice == "none" or not has_tools):
            return ({"type": "none"} if has_tools or has_history else None), None
        if forced is not None and (thinking.effort is not None or not traits.forced_tools):
            prompt.note("tool_choice: this model may not be made to call a tool, it is asked to")
            forced = None
        else:
            hint = None
        if prompt.request.fields.parallel_tool_calls is False:
            return {**(forced or {"type": "auto"}), "disable_parallel_tool_use": True}, hint
        return forced, hint  # without a word it chooses itself

    def _forced(self, prompt: Prompt, *, has_tools: bool) -> tuple[dict[str, object] | None, str | None]:
        """The choice where it is not free, and the same in words."""
        toolbox, choice = prompt.toolbox, prompt.toolbox.choice
        if isinstance(choice, NamedTool):
            kind = hosted_kind(choice.type)
            name = kind if kind in toolbox.hosted else toolbox.named(choice).name
            return {"type": "tool", "name": name}, f"You must call the tool '{name}' now."
        if choice == "required" and not has_tools:
            raise Unsupported("tool choice 'required' needs at least one tool", param="tool_choice")
        if self._answers_by_tool(prompt) and (choice == "none" or not has_tools):
            name = prompt.toolbox.free_name("json")
            return {"type": "tool", "name": name}, f"You must call the tool '{name}' now."
        if choice == "required" or self._answers_by_tool(prompt):
            return {"type": "any"}, "You must call one of the tools now."
        return None, None


def _called(conversation: Sequence[Turn]) -> list[str]:
    """The names of the tools that were called, each once."""
    calls = (part for turn in conversation for part in turn.parts if isinstance(part, CallPart))
    return list(dict.fromkeys(call.name for call in calls))


def _system(prompt: Prompt, conversation: Sequence[Turn], writing: Writing) -> list[Block]:
    """Leading system messages, as blocks of `system`; everything after them goes into the messages."""
    start = leading(conversation[:-1])  # there must be a message left to answer
    blocks = []
    if instructions := prompt.request.fields.instructions:
        blocks.append(text_block(instructions))
    for turn in conversation[:start]:
        blocks.extend(text_blocks(turn))
    wanted = prompt.format
    if wanted is not None and wanted.type == "json_object":
        blocks.append(text_block(JSON_ONLY))
    for turn in conversation[start:]:
        writing.turn(turn)
    return blocks


MAX_USER_ID = 256
"""Characters of `metadata.user_id`."""

SUBSET = Subset(
    keywords=frozenset(
        (
            "$defs",
            "$ref",
            "additionalProperties",
            "allOf",
            "anyOf",
            "const",
            "default",
            "definitions",
            "description",
            "enum",
            "format",
            "items",
            "minItems",
            "pattern",
            "properties",
            "required",
            "title",
            "type",
        )
    ),
    formats=frozenset(("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")),
)
"""What schemas the model can be held to (§6)."""

_COUNTED = frozenset(("model", "anthropic_version", "system", "tools", "tool_choice", "thinking", "output_config"))


@dataclass(frozen=True, slots=True)
class _Body:
    """A request: `head` says what the prompt is, `limits` what the answer may be; both hold what of `system` and
    `tools` is sent."""

    head: Mapping[str, object]
    limits: Mapping[str, object]
    system: Sequence[Block]
    tools: Sequence[Raw]
    messages: Sequence[Message]

    def encoded(self, head: Mapping[str, object]) -> bytes:
        said = b",".join(
            b'{"role":"%b","content":%b}' % (message.role.encode(), written(message.blocks))
            for message in self.messages
        )
        return b'%b,"messages":[%b]}' % (_ENCODER.encode(head)[:-1], said)

    def prefix(self) -> str:
        """What the thinking of the answer will be bound to."""
        prefix = Prefix(self.system, self.tools)
        for message in self.messages:
            for block in message.blocks:
                prefix.add(message.role, block)
        return prefix.name


@dataclass(frozen=True, slots=True)
class _Thinking:
    """How much the model is to think. `told` is the parameter, `level` the effort it has a word for, and `effort` the
    one that has to become a budget of tokens."""

    told: dict[str, object]
    level: str | None = None
    effort: Effort | None = None

    @property
    def is_on(self) -> bool:
        """Where it is, sampling is bound to its defaults."""
        return self.told.get("type") in ("enabled", "adaptive")


def _thinking(prompt: Prompt, traits: Traits) -> _Thinking:
    """What `reasoning` comes to (§5). Without a word about it the model decides itself."""
    asked = prompt.request.fields.reasoning
    effort = prompt.effort
    summary = (asked.summary or asked.generate_summary) if asked is not None else None
    shown: dict[str, object] = {"display": "summarized"} if summary not in (None, "none") else {}
    can_be_off = "disabled" in traits.thinking
    if effort is None:
        if shown and "adaptive" in traits.thinking:
            return _Thinking({"type": "adaptive", **shown})
        return _Thinking({})
    if effort == "none" and can_be_off:
        return _Thinking({"type": "disabled"})
    if effort == "none" and "adaptive" not in traits.thinking:
        return _Thinking({})
    if not traits.thinking:
        prompt.note("reasoning.effort: this model does not think")
        return _Thinking({})
    if effort == "none":
        prompt.note("reasoning.effort: this model always thinks, as little as it can")
    found = level(effort, traits)
    if "adaptive" in traits.thinking:
        return _Thinking({"type": "adaptive", **shown}, found)
    return _Thinking({"type": "enabled", **shown}, found, effort)


_THINKING_REFUSED = re.compile(r"[Ii]nvalid `?signature`? in `?thinking`?|bound to a different conversation")
_EFFORT_REFUSED = re.compile(r"does not support (the effort parameter|effort level)")


def _unthought(prompt: Prompt) -> Prompt | None:
    """The prompt without any thinking; None where there is none. What is sealed later in this turn is looked for in the
    same mapping, so it is that one that changes."""
    bare: dict[str, Envelope] = {}
    for item in prompt.items:
        sealed = item.view.encrypted_content if isinstance(item.view, Reasoning) else None
        if sealed is not None and sealed in prompt.opened:
            envelope = without_thinking(prompt.opened[sealed])
            if envelope.parts != prompt.opened[sealed].parts:
                bare[sealed] = envelope
                lose(prompt, Block("thinking", b"", item=item.id), "prefix_mismatch")
    prompt.opened.update(bare)
    return prompt if bare else None


class _Tool(Struct, omit_defaults=True):
    name: str
    input_schema: Raw
    description: str | None = None
    strict: bool | None = None


class _Filters(Struct):
    allowed_domains: list[str] | None = None
    blocked_domains: list[str] | None = None


class _Place(Struct):
    """Where the user is. Its only kind is `approximate`, which not every client says."""

    type: str = "approximate"
    city: str | UnsetType | None = UNSET
    country: str | UnsetType | None = UNSET
    region: str | UnsetType | None = UNSET
    timezone: str | UnsetType | None = UNSET


class _Search(Struct):
    filters: _Filters | None = None
    user_location: _Place | None = None
    search_context_size: str | None = None


class _SearchTool(Struct, omit_defaults=True):
    type: str
    name: str
    allowed_domains: list[str] | None = None
    blocked_domains: list[str] | None = None
    max_uses: int | None = None
    user_location: _Place | None = None


class _Counted(Struct):
    input_tokens: int


def _same(one: Raw, other: bytes) -> bool:
    return _ANY.decode(one) == _ANY.decode(other)


def _raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))


_ENCODER = msgspec.json.Encoder()
_SEARCH = msgspec.json.Decoder(_Search)
_COUNT = msgspec.json.Decoder(_Counted)
_ANY: msgspec.json.Decoder[object] = msgspec.json.Decoder(object)
