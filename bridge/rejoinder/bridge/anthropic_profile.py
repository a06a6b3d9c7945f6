"""What differs between servers that all say they speak Anthropic's protocol: settings, never code."""

from typing import Literal

import msgspec

from rejoinder.bridge.anthropic_models import Traits


class AnthropicProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one server that speaks Anthropic's Messages wants to be spoken to. The defaults suit Anthropic itself. The
    sections are those of provider-anthropic.md."""

    path: str = "/v1/messages"
    """Where a message is asked for. With `{model}` in it (Vertex) the model is left out of the body (§1)."""

    count_path: str = "/v1/messages/count_tokens"
    """Where tokens are counted; empty where they are not (§1)."""

    models_path: str = "/v1/models?limit=1000"
    """Where the models are listed (§1)."""

    version: str = "2023-06-01"
    """`anthropic-version`. With `2026-10-21` no sampling is sent, which it refuses (§1)."""

    version_in: Literal["header", "body"] = "header"
    """`body`: as the field `anthropic_version` (Vertex, where it is `vertex-2023-10-16`)."""

    betas: tuple[str, ...] = ()
    """Names for `anthropic-beta`; an unknown one is a 400 (§1, §12)."""

    caching: Literal["automatic", "explicit", "none"] = "automatic"
    """`automatic`: the whole prompt is worth keeping, unless the client says otherwise. `explicit`: up to the client's
    own breakpoints. `none`: the server knows no `cache_control` (§9)."""

    web_search: str = "web_search_20250305"
    """The type of the search tool; empty where there is none (§4)."""

    server_tools: tuple[msgspec.Raw, ...] = ()
    """Further tools that run at the provider, offered in every request as they are (§4)."""

    documents: bool = True
    """It takes `document` blocks (§3)."""

    file_ids: bool = False
    """A `file_id` is one of this upstream's own Files API, which wants the beta `files-api-2025-04-14` (§3)."""

    user_id: bool = True
    """`safety_identifier` or `user` is passed on as `metadata.user_id` (§2)."""

    service_tier: bool = True
    """It knows `service_tier` (§2)."""

    fast: bool = False
    """The tiers `priority` and `fast` ask for `speed: "fast"`, which costs more and may want a beta (§2)."""

    models: dict[str, Traits] = {}
    """What models take whose names match a glob, asked before the families that are known here."""

    extra: dict[str, msgspec.Raw] = {}
    """Further fields of every request body, as they are (mapping.md §1, last row)."""
