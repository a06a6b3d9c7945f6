"""What differs between servers that all say they speak Gemini's protocol: settings, never code.

Every field can be set per upstream in the `[upstream.gemini]` table of the settings file. Vertex AI is nothing but
settings: a `base_url` that ends in `/publishers/google`, a Bearer token, and

    labels = true
    count = "plain"
    service_tier = false
    server_side_tools = false
    logprobs = true

Source of each field: provider-gemini.md, the section named beside it.
"""

from typing import Literal

import msgspec

Level = Literal["MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"]


class GeminiProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one server that speaks generateContent wants to be spoken to. The defaults suit the Gemini API."""

    count: Literal["wrapped", "plain"] = "wrapped"
    """How countTokens is asked (§1): inside `generateContentRequest`, or the fields as they are (Vertex)."""

    labels: bool = False
    """`safety_identifier` and `user` travel as labels (§2: Vertex alone has them); otherwise they are noted."""

    service_tier: bool = True
    """`serviceTier` is a field of the body (§2); otherwise a wish for one is noted."""

    penalties: bool = True
    """`presencePenalty` and `frequencyPenalty` are understood; many models answer 400 to them (§2)."""

    logprobs: bool = False
    """Log probabilities can be had (mapping.md §1: Vertex, for some models)."""

    urls: Literal["pass", "refuse"] = "pass"
    """What becomes of an http(s) URL of an image or file: it is handed on as `fileData`, for the provider to fetch, or
    refused. It is never fetched here. Other schemes (`gs:`) are always handed on (§3)."""

    web_search: bool = True
    """`web_search` is Google's own search (§4)."""

    server_side_tools: bool = True
    """`includeServerSideToolInvocations` is understood (§2: the Gemini API from generation 3 on, not Vertex). Without
    it Google's tools are not offered beside functions."""

    tools: tuple[msgspec.Raw, ...] = ()
    """Further tools that Google runs, offered in every request, as they are: `{codeExecution = {}}` (§2)."""

    thinking: Literal["budget", "level", "never"] | None = None
    """How much the model thinks is said by a number of tokens, by a level, or not at all (§5). Where left out, this and
    the following fields come from the table of models."""

    levels: tuple[Level, ...] | None = None
    """The levels there are, least first (§5)."""

    json_schema: bool | None = None
    """Schemas travel in `parametersJsonSchema` and `responseJsonSchema`; otherwise in OpenAPI's subset (§4)."""

    mixed_tools: bool | None = None
    """Functions go together with Google's tools, with an output schema, and with pictures in their responses (§3, §4,
    §6: generation 3)."""

    validated: bool | None = None
    """The mode VALIDATED is known: calls that keep to the schema without being forced (§4)."""

    signatures: bool | None = None
    """A call without its thought signature is refused (§5: generation 3)."""

    generation: dict[str, msgspec.Raw] = {}
    """Further fields of `generationConfig`, as they are: `topK`, `seed`, `stopSequences`, `mediaResolution` (§2)."""

    extra: dict[str, msgspec.Raw] = {}
    """Further fields of every request body, as they are: `safetySettings` (mapping.md §1, last row)."""
