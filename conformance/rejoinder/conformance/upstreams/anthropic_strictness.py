"""What Anthropic refuses, and in which words (provider-anthropic.md, mapping.md §8).

A refusal is here when the contract says that the provider answers 400. Rules that hang on the model look at its name;
those that hang on earlier answers look into the provider's `Memory` of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rejoinder.conformance.upstreams.anthropic_blocks import check_block, check_text
from rejoinder.conformance.upstreams.anthropic_memory import Memory, Thinking, Told, blocks_of, context, counted
from rejoinder.conformance.upstreams.anthropic_model import AnthropicModel
from rejoinder.conformance.upstreams.anthropic_settings import (
    check_cache,
    check_fields,
    check_max_tokens,
    check_output,
    check_sampling,
    check_thinking,
    cites,
    thinking_of,
    thinks_by_budget,
)
from rejoinder.conformance.upstreams.anthropic_tools import check_tools
from rejoinder.conformance.upstreams.anthropic_values import (
    InvalidRequest,
    Object,
    a_list,
    an_object,
    kind_of,
    messages_of,
    one_of,
    only,
    wrong,
)
from rejoinder.conformance.upstreams.objection import Json, parsed


@dataclass(frozen=True, slots=True)
class AnthropicStrictness:
    """The default is Anthropic's own server, and an account that allows a changed history."""

    own_blocks: bool = True
    """Thinking, redacted thinking and search results must be those that this provider gave, unchanged (§5.1, §7)."""

    bound: bool = False
    """Preserved thinking: what stood before a thinking block must be what stood there when it came (§5.5)."""

    headers: bool = True
    """`anthropic-version` must be there, and every beta known (§1)."""


ANTHROPIC = AnthropicStrictness()

BOUND = AnthropicStrictness(bound=True)

COMPATIBLE = AnthropicStrictness(headers=False)
"""A compatible server: it asks for no version."""

VERSIONS = ("2023-06-01", "2026-10-21")

BETAS = frozenset(
    {
        "interleaved-thinking-2025-05-14",
        "context-1m-2025-08-07",
        "context-management-2025-06-27",
        "structured-outputs-2025-11-13",
        "mcp-client-2025-11-20",
        "mcp-client-2026-09-15",
        "files-api-2025-04-14",
        "skills-2025-10-02",
        "fast-mode-2026-02-01",
        "compact-2026-01-12",
        "compact-2026-09-04",
        "thinking-binding-controls-2026-08-01",
        "mid-conversation-tool-changes-2026-07-01",
        "mid-conversation-output-config-2026-07-01",
        "server-side-fallback-2026-07-01",
        "task-budgets-2026-03-13",
        "thinking-token-count-2026-05-13",
        "message-threads-2026-08-12",
    }
)
"""Every beta there is (§12)."""


def check(
    body: bytes,
    headers: Mapping[str, str],
    strictness: AnthropicStrictness = ANTHROPIC,
    memory: Memory | None = None,
    *,
    counting: bool = False,
) -> None:
    """Raise InvalidRequest when Anthropic would answer 400. `counting` is for a request that counts tokens."""
    betas = _betas(headers, strictness)
    try:
        request = parsed(body)
    except ValueError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}", None) from None
    if not isinstance(request, dict):
        raise InvalidRequest("Input should be a valid dictionary", None)
    check_fields(request, betas, counting=counting)
    model = AnthropicModel.of(str(request["model"]))
    new = headers.get("anthropic-version") == VERSIONS[1]
    check_max_tokens(request, model, counting=counting)
    check_sampling(request, model, new=new)
    check_thinking(request, model)
    check_output(request, model, betas)
    check_tools(request, model)
    check_cache(request)
    _check_system(request.get("system"))
    _check_messages(request, model, new=new)
    if strictness.own_blocks and memory is not None:
        _check_own(request, strictness, memory)


def _betas(headers: Mapping[str, str], strictness: AnthropicStrictness) -> list[str]:
    named = [name.strip() for name in headers.get("anthropic-beta", "").split(",") if name.strip()]
    if strictness.headers:
        version = headers.get("anthropic-version")
        if version is None:
            raise wrong("anthropic-version", "header is required")
        if version not in VERSIONS:
            raise wrong("anthropic-version", f'"{version}" is not a valid version')
        if unknown := [name for name in named if name not in BETAS]:
            raise InvalidRequest(
                f"Unexpected value(s) `{'`, `'.join(unknown)}` for the `anthropic-beta` header. Please consult our "
                "documentation at docs.claude.com or try again without the header.",
                "anthropic-beta",
            )
    return named


def _check_system(system: Json) -> None:
    if system is None or isinstance(system, str):
        return
    for index, block in enumerate(a_list(system, "system")):
        if kind_of(block) != "text":
            raise wrong(f"system.{index}.type", "Input should be 'text'")
        check_text(an_object(block, f"system.{index}"), "system")


def _check_messages(request: Object, model: AnthropicModel | None, *, new: bool) -> None:
    messages = messages_of(request)
    if not messages:
        raise wrong("messages", "at least one message is required")
    documents: set[bool] = set()
    ids: set[str] = set()
    waiting: list[str] = []
    before = ""
    for index, message in enumerate(messages):
        path = f"messages.{index}"
        only(message, ("role", "content"), path)
        role = one_of(message.get("role"), ("user", "assistant", "system"), f"{path}.role")
        if role == "system":
            _check_place_of_system(model, before, path)
        if not isinstance(message.get("content"), str):
            a_list(message.get("content"), f"{path}.content")
        blocks = [an_object(one, f"{path}.content.{place}") for place, one in enumerate(blocks_of(message))]
        if not blocks and not (role == "assistant" and index == len(messages) - 1):
            raise wrong(
                path, "all messages must have non-empty content except for the optional final assistant message"
            )
        for place, block in enumerate(blocks):
            check_block(block, role, f"{path}.content.{place}", new=new)
            if block["type"] == "document":
                documents.add(cites(block))
        if role != "system":  # it stands between a call and nothing, so it changes nothing
            _check_results(blocks if role == "user" else [], waiting, index)
            waiting = _calls(blocks, ids, path)
        before = role
    if waiting:
        raise _unanswered(waiting, len(messages) - 1)
    if len(documents) > 1:
        raise InvalidRequest("citations: must be enabled for all documents of a request or for none", "messages")
    _check_end(request, messages[-1], model)
    if thinks_by_budget(request):
        _check_start_of_turn(messages)


def _check_place_of_system(model: AnthropicModel | None, before: str, path: str) -> None:
    if model and not model.hears_systems_later:
        raise InvalidRequest(
            'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, '
            'not "system" as an input message role.',
            f"{path}.role",
        )
    if before not in ("user", "system"):
        raise wrong(f"{path}.role", "a 'system' message must come after the 'user' message it belongs to")


def _calls(blocks: list[dict[str, Json]], ids: set[str], path: str) -> list[str]:
    """The ids of the calls of a message, none of them used before."""
    calls = [str(block["id"]) for block in blocks if block["type"] == "tool_use"]
    for id in calls:
        if id in ids:
            raise InvalidRequest("messages: `tool_use` ids must be unique", path)
        ids.add(id)
    return calls


def _check_results(blocks: list[dict[str, Json]], waiting: list[str], index: int) -> None:
    """Every call of the message before has its result here, and the results come first (§4)."""
    open_, results, later = list(waiting), True, False
    for place, block in enumerate(blocks):
        if block["type"] != "tool_result":
            results = False
            continue
        id = str(block["tool_use_id"])
        if id not in waiting:
            raise wrong(
                f"messages.{index}.content.{place}",
                f"unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have "
                "a corresponding `tool_use` block in the previous message.",
            )
        if id not in open_:
            raise wrong(
                f"messages.{index}.content.{place}",
                f"each tool_use must have a single result. Found multiple `tool_result` blocks with id: {id}",
            )
        open_.remove(id)
        later = later or not results
    if open_ or later:
        raise _unanswered(open_ or waiting, index - 1)


def _unanswered(ids: list[str], index: int) -> InvalidRequest:
    return wrong(
        f"messages.{index}",
        f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(ids)}. Each "
        "`tool_use` block must have a corresponding `tool_result` block in the next message.",
    )


def _check_end(request: Object, last: Object, model: AnthropicModel | None) -> None:
    """A last message of the assistant's is to be continued (§3), or goes on after a pause (§4)."""
    blocks = [block for block in blocks_of(last) if isinstance(block, dict)]
    if last["role"] != "assistant" or not blocks:
        return
    if any(kind_of(block) in ("server_tool_use", "mcp_tool_use") for block in blocks):
        return
    if (model and not model.takes_prefill) or thinking_of(request).get("type") in ("enabled", "adaptive"):
        raise InvalidRequest(
            "This model does not support assistant message prefill. The conversation must end with a user message.",
            "messages",
        )
    text = blocks[-1].get("text")
    if isinstance(text, str) and text != text.rstrip():
        raise InvalidRequest("messages: final assistant content cannot end with trailing whitespace", "messages")
    if an_object(request.get("output_config") or {}, "output_config").get("format") is not None:
        raise InvalidRequest("Prefill cannot be used with output_config.format.", "messages")


def _check_start_of_turn(messages: list[dict[str, Json]]) -> None:
    """With a budget to think, the turn that calls tools starts with its thinking (§5.2)."""
    turn: list[tuple[int, dict[str, Json]]] = []
    for index, message in enumerate(messages):
        blocks = blocks_of(message)
        if message["role"] == "assistant":
            turn.append((index, message))
        elif not any(kind_of(block) == "tool_result" for block in blocks):
            turn = []
    calling = any(kind_of(block) == "tool_use" for _, message in turn for block in blocks_of(message))
    if not calling:
        return
    index, first = turn[0]
    kind = kind_of(blocks_of(first)[0])
    if kind not in ("thinking", "redacted_thinking"):
        raise wrong(
            f"messages.{index}.content.0.type",
            f"Expected `thinking` or `redacted_thinking`, but found `{kind}`. When `thinking` is enabled, a final "
            "`assistant` message must start with a thinking block (preceeding the lastmost set of `tool_use` and "
            "`tool_result` blocks). We recommend you include thinking blocks from previous turns. To avoid this "
            "requirement, disable `thinking`.",
        )


def _check_own(request: Object, strictness: AnthropicStrictness, memory: Memory) -> None:
    """What this provider signed comes back unchanged, and nothing that it did not sign (§5.1, §5.5, §5.6, §7)."""
    before: list[Told] = []
    for index, message in enumerate(messages_of(request)):
        for place, block in enumerate(blocks_of(message)):
            path = f"messages.{index}.content.{place}"
            if isinstance(block, dict):
                if block["type"] == "thinking":
                    _check_thought(block, path, request, tuple(before), strictness, memory)
                _check_sealed(block, path, memory)
            before.append((str(message["role"]), counted(block)))


def _check_thought(
    block: Object, path: str, request: Object, before: tuple[Told, ...], strictness: AnthropicStrictness, memory: Memory
) -> None:
    signature = str(block.get("signature") or "")
    if not signature and "" not in memory.thoughts:
        raise wrong(f"{path}.thinking.signature", "Field required")
    issued = [one for one in memory.thoughts.get(signature, ()) if one.text == block.get("thinking")]
    if not issued:
        raise wrong(path, "Invalid `signature` in `thinking` block")
    binding = thinking_of(request).get("block_binding")
    drops = isinstance(binding, dict) and binding.get("prefix_mismatch_behavior") == "drop_block"
    if not strictness.bound or drops:
        return
    differing = [_difference(one, request, before) for one in issued]
    if all(differing):
        raise wrong(
            path,
            "Invalid `signature` in `thinking` block. The block is bound to a different conversation. Remove the "
            'block, or set `thinking.block_binding.prefix_mismatch_behavior` to "drop_block". '
            f"{differing[-1]} from the one this block was created with.",
        )


def _difference(issued: Thinking, request: Object, before: tuple[Told, ...]) -> str | None:
    """What has changed since a block was issued."""
    system, tools = context(request)
    if system != issued.system:
        return "The `system` prompt differs"
    if tools != issued.tools:
        return "The `tools` list differs"
    return None if before == issued.before else "The earlier `messages` content differs"


def _check_sealed(block: Object, path: str, memory: Memory) -> None:
    if block["type"] == "redacted_thinking" and block.get("data") not in memory.sealed:
        raise wrong(path, "Invalid `data` in `redacted_thinking` block")
    if block["type"] == "web_search_tool_result" and isinstance(found := block.get("content"), list):
        for place, one in enumerate(found):
            if isinstance(one, dict) and one.get("encrypted_content") not in memory.sealed:
                where = f"{path}.web_search_tool_result.content.{place}"
                raise wrong(where, "Invalid `encrypted_content` in `search_result` block")
    citations = block.get("citations") if block["type"] == "text" else None
    for place, one in enumerate(citations if isinstance(citations, list) else []):
        bound = isinstance(one, dict) and one.get("type") == "web_search_result_location"
        if bound and one.get("encrypted_index") not in memory.sealed:
            raise wrong(f"{path}.text.citations.{place}", "Invalid `encrypted_index` in citation")
