"""What Anthropic refuses beside the messages: unknown fields, sampling, thinking, output, breakpoints of the cache."""

from rejoinder.conformance.upstreams.anthropic_memory import blocks_of
from rejoinder.conformance.upstreams.anthropic_model import AnthropicModel
from rejoinder.conformance.upstreams.anthropic_schema import wrong_in
from rejoinder.conformance.upstreams.anthropic_values import (
    InvalidRequest,
    Object,
    a_list,
    a_number,
    a_text,
    an_object,
    extra,
    messages_of,
    one_of,
    only,
    wrong,
)
from rejoinder.conformance.upstreams.objection import Json

FIELDS = frozenset(
    {
        "model",
        "max_tokens",
        "messages",
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "stop_sequences",
        "stream",
        "metadata",
        "cache_control",
        "service_tier",
        "speed",
        "container",
        "inference_geo",
        "diagnostics",
        "temperature",
        "top_p",
        "top_k",
    }
)

BETA_FIELDS = {
    "mcp_servers": ("mcp-client-",),
    "context_management": ("context-management-", "compact-"),
    "compaction": ("compact-",),
    "fallbacks": ("server-side-fallback-",),
    "fallback_credit_token": ("server-side-fallback-",),
    "thread": ("message-threads-",),
}
"""Fields that are unknown without their beta, and how its name begins."""


def check_fields(request: Object, betas: list[str], *, counting: bool) -> None:
    for name in request:
        known = name in FIELDS
        if name in BETA_FIELDS:
            known = any(beta.startswith(BETA_FIELDS[name]) for beta in betas)
        if not known or (counting and name in ("max_tokens", "stream")):
            raise extra(name)
    for name in ("model", "messages") if counting else ("model", "max_tokens", "messages"):
        if name not in request:
            raise wrong(name, "Field required")
    a_text(request["model"], "model")
    if "stream" in request and not isinstance(request["stream"], bool):
        raise wrong("stream", "Input should be a valid boolean")
    if "metadata" in request:
        only(an_object(request["metadata"], "metadata"), ("user_id",), "metadata")
    if "service_tier" in request:
        one_of(request["service_tier"], ("auto", "standard_only"), "service_tier")
    for index, one in enumerate(a_list(request.get("stop_sequences", []), "stop_sequences")):
        a_text(one, f"stop_sequences.{index}")


def check_max_tokens(request: Object, model: AnthropicModel | None, *, counting: bool) -> None:
    if counting:
        return
    limit = request["max_tokens"]
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise wrong("max_tokens", "Input should be a valid integer")
    if limit < 0:
        raise wrong("max_tokens", "Input should be greater than or equal to 0")
    if model and model.max_tokens and limit > model.max_tokens:
        raise wrong(
            "max_tokens",
            f"{limit} > {model.max_tokens}, which is the maximum allowed number of output tokens for "
            f"{request['model']}",
        )


def check_sampling(request: Object, model: AnthropicModel | None, *, new: bool) -> None:
    given = [name for name in ("temperature", "top_p", "top_k") if name in request]
    for name in given:
        a_number(request[name], name)
        if new or (model and not model.samples):
            raise extra(name)
    temperature = a_number(request.get("temperature", 1), "temperature")
    if temperature < 0 or temperature > 1:
        bound = "greater than or equal to 0" if temperature < 0 else "less than or equal to 1"
        raise wrong("temperature", f"Input should be {bound}")
    if "temperature" in given and "top_p" in given and model and model.samples_in_one_way:
        raise InvalidRequest(
            "`temperature` and `top_p` cannot both be specified for this model. Please use only one.", "top_p"
        )
    if not thinks_by_budget(request):
        return
    if temperature != 1:
        raise InvalidRequest("`temperature` may only be set to 1 when thinking is enabled.", "temperature")
    if "top_k" in given:
        raise InvalidRequest("`top_k` must be unset when thinking is enabled.", "top_k")
    if a_number(request.get("top_p", 1), "top_p") < 0.95:
        raise InvalidRequest(
            "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.", "top_p"
        )


def thinking_of(request: Object) -> Object:
    return an_object(request.get("thinking") or {}, "thinking")


def thinks_by_budget(request: Object) -> bool:
    return thinking_of(request).get("type") == "enabled"


_THINKING_FIELDS = {
    "enabled": ("type", "budget_tokens", "display", "block_binding"),
    "adaptive": ("type", "display", "block_binding"),
    "disabled": ("type", "block_binding"),
    "between_tools": ("type", "block_binding"),
}


def check_thinking(request: Object, model: AnthropicModel | None) -> None:
    thinking = thinking_of(request)
    if not thinking:
        return
    kind = one_of(thinking.get("type"), _THINKING_FIELDS, "thinking.type")
    only(thinking, _THINKING_FIELDS[kind], f"thinking.{kind}")
    if "display" in thinking:
        one_of(thinking["display"], ("summarized", "omitted", "updates"), f"thinking.{kind}.display")
    if kind == "enabled":
        if model and not model.thinks_by_budget:
            raise InvalidRequest('"thinking.type.enabled" is not supported for this model.', "thinking.type")
        budget = thinking.get("budget_tokens")
        path = "thinking.enabled.budget_tokens"
        if not isinstance(budget, int) or isinstance(budget, bool):
            raise wrong(path, "Input should be a valid integer" if "budget_tokens" in thinking else "Field required")
        if budget < 1024:
            raise wrong(path, "Input should be greater than or equal to 1024")
        limit = request.get("max_tokens")
        if isinstance(limit, int) and budget >= limit:
            raise InvalidRequest("`max_tokens` must be greater than `thinking.budget_tokens`.", "max_tokens")
    if kind == "adaptive" and model and not model.thinks_adaptively:
        raise InvalidRequest("adaptive thinking is not supported on this model", "thinking.type")
    if kind == "disabled" and model and not model.can_rest:
        raise InvalidRequest('"thinking.type.disabled" is not supported for this model.', "thinking.type")
    effort = an_object(request.get("output_config") or {}, "output_config").get("effort")
    if kind == "disabled" and model == AnthropicModel("opus", (5, 0)) and effort in ("xhigh", "max"):
        raise InvalidRequest(f"thinking cannot be disabled with effort level '{effort}'.", "thinking.type")


def check_output(request: Object, model: AnthropicModel | None, betas: list[str]) -> None:
    config = an_object(request.get("output_config") or {}, "output_config")
    only(config, ("effort", "format", "task_budget"), "output_config")
    if "task_budget" in config and not any(beta.startswith("task-budgets-") for beta in betas):
        raise extra("output_config.task_budget")
    if (effort := config.get("effort")) is not None:
        one_of(effort, ("low", "medium", "high", "xhigh", "max"), "output_config.effort")
        if model and not model.efforts:
            raise InvalidRequest("This model does not support the effort parameter.", "output_config.effort")
        if model and effort not in model.efforts:
            raise InvalidRequest(
                f"This model does not support effort level '{effort}'. Supported levels: "
                f"{', '.join(sorted(model.efforts))}.",
                "output_config.effort",
            )
    if (form := config.get("format")) is not None:
        form = an_object(form, "output_config.format")
        one_of(form.get("type"), ("json_schema",), "output_config.format.type")
        only(form, ("type", "schema"), "output_config.format")
        if model and not model.structures:
            raise InvalidRequest("output_config.format is not supported for this model.", "output_config.format")
        if flaw := wrong_in(an_object(form.get("schema"), "output_config.format.schema")):
            raise wrong("output_config.format.schema", flaw)
        if _has_citations(request):
            raise InvalidRequest("Citations cannot be used with output_config.format.", "output_config.format")


def _has_citations(request: Object) -> bool:
    blocks = (block for message in messages_of(request) for block in blocks_of(message))
    return any(isinstance(block, dict) and cites(block) for block in blocks)


def cites(block: Object) -> bool:
    citations = block.get("citations")
    return block.get("type") == "document" and isinstance(citations, dict) and citations.get("enabled") is True


def check_cache(request: Object) -> None:
    """At most four breakpoints, the long ones first, and only where something can be cached (§9)."""
    found: list[tuple[str, Json]] = []
    tools, system = request.get("tools") or [], request.get("system") or []
    for name, several in (("tools", tools), ("system", system)):
        for index, one in enumerate(several if isinstance(several, list) else []):
            found += _marked(one, f"{name}.{index}")
    for index, message in enumerate(messages_of(request)):
        for place, block in enumerate(blocks_of(message)):
            found += _marked(block, f"messages.{index}.content.{place}")
    if len(found) > 4:
        message_ = f"A maximum of 4 blocks with cache_control may be provided. Found {len(found)}."
        raise InvalidRequest(message_, found[4][0])
    short = False
    if request.get("cache_control") is not None:
        found.append(("cache_control", request["cache_control"]))
    for path, one in found:
        control = an_object(one, path)
        one_of(control.get("type"), ("ephemeral",), f"{path}.type")
        only(control, ("type", "ttl"), path)
        ttl = one_of(control.get("ttl", "5m"), ("5m", "1h"), f"{path}.ttl")
        if ttl == "1h" and short and path != "cache_control":
            raise wrong(path, "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block.")
        short = short or ttl == "5m"


def _marked(block: Json, path: str) -> list[tuple[str, Json]]:
    if not isinstance(block, dict) or block.get("cache_control") is None:
        return []
    path = f"{path}.cache_control"
    if block.get("type") in ("thinking", "redacted_thinking"):
        raise extra(path)
    if block.get("type") == "text" and not block.get("text"):
        raise wrong(path, "cache_control cannot be set for empty text blocks")
    return [(path, block["cache_control"])]
