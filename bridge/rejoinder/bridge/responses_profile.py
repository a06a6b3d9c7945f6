"""What differs between servers that all say they speak the Responses API: settings, never code.

Source of each field: provider-responses.md, the section named beside it.
"""

from typing import Literal

import msgspec


class ResponsesProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one server that speaks the Responses API wants to be spoken to. The defaults suit OpenAI itself."""

    lineage: Literal["replay", "reference"] = "replay"
    """`replay`: every request holds the whole conversation, and nothing is stored there. `reference`: a response is
    stored there unless its client forbids it, and the next request names it and holds what is new (§6)."""

    stores: bool = True
    """The server keeps responses, so it is told whether to. Stateless ones (Ollama, vLLM, OpenRouter, DeepSeek) are
    sent neither `store` nor `previous_response_id` (§6, §9)."""

    streams: bool = True
    """Every answer is asked for as a stream, so that a client which wants one can have it at any time. A server without
    streams is asked for whole answers."""

    obfuscates: bool = True
    """Deltas are padded unless `stream_options.include_obfuscation` is false (§6); others may not know the option."""

    reasoning_state: Literal["sealed", "text", "any"] = "sealed"
    """What goes back of reasoning (§4). `sealed`: `encrypted_content`, which is asked for, and nothing without it.
    `text`: items with text; the server refuses sealed ones (DeepSeek, vLLM and other servers of open weights). `any`:
    both, for servers with models of both kinds (Bedrock mantle, OpenRouter)."""

    item_ids: Literal["prefixed", "given", "required", "none"] = "prefixed"
    """The ids of items (§4). `prefixed`: those that do not begin as their type's do are left out (OpenAI refuses them).
    `given`: as they are. `required`: an item of the assistant without one is given one, and a status (older vLLM).
    `none`: left out (proxies whose ids mean nothing the next time)."""

    call_ids: Literal["unique", "own"] = "unique"
    """`own`: the server starts again at `call_0` in every turn, and is told its own ids again, where the client has
    unique ones (§3, §9: Bedrock mantle)."""

    prompt_cache_key: bool = True
    """The server finds its cache by `prompt_cache_key`: the client's, or one that stays for a whole conversation."""

    session_headers: bool = True
    """The server is told session and thread in `session-id`, `thread-id` and `x-client-request-id` (codex.md §2)."""

    compacts: bool = True
    """`context_management` and `compaction_trigger` are the server's to follow (§1), not ours."""

    functions_only: bool = False
    """The server knows no tools but functions, and no items but messages, reasoning and functions (§9: Ollama, LM
    Studio, vLLM, llama.cpp). The rest is refused by name; a web search, which Codex always declares, is left out."""

    counts: bool = True
    """`POST /responses/input_tokens` is there (§1)."""

    forwards: tuple[Literal["metadata", "client_metadata"], ...] = ()
    """What is told this server although it is kept here: the response's metadata, and Codex's own (objects.md §1)."""

    omits: tuple[str, ...] = ()
    """Fields of a request this server answers 400 to: left out, and named in the response's notes (§9)."""

    extra: dict[str, msgspec.Raw] = {}
    """Further fields of every request body, as they are (mapping.md §1, last row)."""
