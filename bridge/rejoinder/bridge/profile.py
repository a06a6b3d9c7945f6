"""What differs between servers that all say they speak Chat Completions.

A vendor is a row of these settings, never code: the rows live in `rejoinder.server.vendors`, and every field can be
set per upstream in the `[upstream.chat]` table of the settings file. Source of each field: provider-chat.md, the
section named beside it.
"""

from typing import Literal

import msgspec

OptionName = Literal[
    "logprobs",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "user",
    "verbosity",
]


class ChatProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one Chat Completions server wants to be spoken to. The defaults suit an unknown compatible server."""

    max_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The name of the output limit (§2: reasoning models of OpenAI refuse `max_tokens`, most others know only it)."""

    instructions_role: Literal["system", "developer"] = "system"
    """The role of the leading instructions (§3)."""

    system_position: Literal["anywhere", "first"] = "anywhere"
    """`first`: a later system message is sent as a user message inside `<system>` tags (§3, mapping.md §2)."""

    merge_turns: bool = False
    """Join neighbouring user messages, for templates that demand alternation (§3)."""

    empty_content: Literal["null", "empty"] = "null"
    """The `content` of an assistant message that only calls tools (§3: llama.cpp templates want an empty string)."""

    stream_usage: bool = True
    """Ask for usage with `stream_options` (§2: Mistral answers 400 to it and sends usage anyway)."""

    options: tuple[OptionName, ...] = ("parallel_tool_calls",)
    """Tuning knobs this server understands. Those not listed are left out and named in the response's notes (§2)."""

    native_custom_tools: bool = False
    """Custom tools travel as they are (§4: OpenAI only); otherwise they are emulated by a function."""

    tool_choice: Literal["full", "any", "auto"] = "full"
    """`any`: "required" is spelled "any" (Mistral). `auto`: only auto and none are understood (§4)."""

    call_ids: Literal["free", "nine"] = "free"
    """`nine`: tool-call ids must be 9 characters of [A-Za-z0-9] (§3: Mistral)."""

    json_schema: Literal["native", "object", "none"] = "native"
    """`object`: only `json_object` is known, the schema goes into the instructions (§9: DeepSeek)."""

    images: bool = True
    """User messages may hold `image_url` parts (§3)."""

    files: bool = False
    """User messages may hold `file` parts (§3: OpenAI, OpenRouter)."""

    audio: bool = False
    """User messages may hold `input_audio` parts (§3)."""

    image_detail_original: bool = False
    """`detail: "original"` is understood; elsewhere it is sent as "high" (mapping.md §7)."""

    effort: Literal["none", "reasoning_effort", "reasoning_object", "thinking", "enable_thinking"] = "reasoning_effort"
    """Where `reasoning.effort` goes (§6). `reasoning_object`: `reasoning: {effort}` (OpenRouter). `thinking`:
    `thinking: {type: enabled | disabled}` (DeepSeek, Moonshot, z.ai). `enable_thinking`: a boolean (Qwen)."""

    effort_values: dict[str, str] = {}
    """Spelling of an effort where the server takes a subset, for example `{minimal = "low", xhigh = "high"}` (§6)."""

    reasoning_replay: Literal["never", "tools", "always"] = "always"
    """When reasoning goes back: `tools` only on assistant messages that call tools and then always, even empty
    (§6: DeepSeek and Moonshot answer 400 without it)."""

    think_tags: bool = True
    """An answer that starts with `<think>` holds reasoning up to `</think>` (§6)."""

    prefilled_think: bool = False
    """The template opens `<think>` itself, so the answer starts inside it (§6: some Qwen and R1 templates)."""

    extra: dict[str, msgspec.Raw] = {}
    """Further fields of every request body, as they are (mapping.md §1, last row)."""
