"""What Anthropic refuses about a single block of a message (provider-anthropic.md §3, §4)."""

import re
from base64 import b64decode

from rejoinder.conformance.upstreams.anthropic_values import (
    InvalidRequest,
    Object,
    a_list,
    a_text,
    an_object,
    extra,
    one_of,
    only,
    wrong,
)
from rejoinder.conformance.upstreams.objection import Json

_BLOCKS = {
    "user": frozenset(
        {"text", "image", "document", "search_result", "tool_result", "container_upload", "compaction", "fallback"}
    ),
    "assistant": frozenset(
        {
            "text",
            "thinking",
            "redacted_thinking",
            "tool_use",
            "server_tool_use",
            "mcp_tool_use",
            "mcp_tool_result",
            "document",
            "search_result",
            "compaction",
            "fallback",
        }
    ),
    "system": frozenset({"text", "tool_addition", "tool_removal"}),
}
"""What may stand in a message of each role (§3). Results of server tools are known by their ending."""

_CALL_ID = re.compile(r"[a-zA-Z0-9_-]+")

_PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp"}


def check_block(block: Object, role: str, path: str, *, new: bool) -> None:
    kind = a_text(block.get("type"), f"{path}.type")
    server_result = role == "assistant" and kind.endswith("_tool_result")
    if kind not in _BLOCKS[role] and not server_result:
        tags = ", ".join(f"'{known}'" for known in sorted(_BLOCKS[role]))
        raise wrong(path, f"Input tag '{kind}' found using 'type' does not match any of the expected tags: {tags}")
    match kind:
        case "text":
            check_text(block, f"{path}.text")
            if new and role == "user" and block.get("citations"):
                raise extra(f"{path}.text.citations")
        case "thinking":
            a_text(block.get("thinking"), f"{path}.thinking.thinking")
        case "redacted_thinking":
            a_text(block.get("data"), f"{path}.redacted_thinking.data")
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            _check_id(block.get("id"), f"{path}.{kind}.id")
            a_text(block.get("name"), f"{path}.{kind}.name")
            an_object(block.get("input"), f"{path}.{kind}.input")
        case "tool_result":
            _check_id(block.get("tool_use_id"), f"{path}.tool_result.tool_use_id")
            _check_result(block, f"{path}.tool_result")
        case "image":
            _check_image(an_object(block.get("source"), f"{path}.image.source"), f"{path}.image.source")
        case "document":
            if new and role == "assistant":
                raise wrong(path, "`document` blocks can only be in `user` messages")
            _check_document(an_object(block.get("source"), f"{path}.document.source"), f"{path}.document.source")


def check_text(block: Object, path: str) -> None:
    text = a_text(block.get("text"), f"{path}.text")
    if not text:
        raise InvalidRequest("messages: text content blocks must be non-empty", path)
    if not text.strip():
        raise InvalidRequest("messages: text content blocks must contain non-whitespace text", path)


def _check_id(value: Json, path: str) -> None:
    if not _CALL_ID.fullmatch(a_text(value, path)):
        raise wrong(path, "String should match pattern '^[a-zA-Z0-9_-]+$'")


def _check_result(block: Object, path: str) -> None:
    only(block, ("type", "tool_use_id", "content", "is_error", "cache_control"), path)
    content = block.get("content")
    if content is None or isinstance(content, str):
        return
    for index, one in enumerate(a_list(content, f"{path}.content")):
        where = f"{path}.content.{index}"
        inner = an_object(one, where)
        kind = one_of(inner.get("type"), ("text", "image", "document", "search_result", "tool_reference"), where)
        if kind == "text":
            check_text(inner, where)
        if kind == "image":
            _check_image(an_object(inner.get("source"), f"{where}.image.source"), f"{where}.image.source")
        if kind == "document":
            _check_document(an_object(inner.get("source"), f"{where}.document.source"), f"{where}.document.source")


def _check_image(source: Object, path: str) -> None:
    kind = one_of(source.get("type"), ("base64", "url", "file"), f"{path}.type")
    if kind != "base64":
        return
    told = one_of(source.get("media_type"), sorted(_PICTURES.values()), f"{path}.base64.media_type")
    data = _bytes(source.get("data"), f"{path}.base64.data")
    found = next((name for start, name in _PICTURES.items() if data.startswith(start)), None)
    if found is None:
        raise wrong(f"{path}.base64.data", "Could not process image")
    if found != told:
        raise wrong(
            f"{path}.base64.media_type",
            f"The image was specified using the {told} media type, but the image appears to be a {found} image",
        )


def _check_document(source: Object, path: str) -> None:
    kind = one_of(source.get("type"), ("base64", "text", "url", "content", "file"), f"{path}.type")
    if kind == "text":
        one_of(source.get("media_type"), ("text/plain",), f"{path}.text.media_type")
        a_text(source.get("data"), f"{path}.text.data")
    if kind == "base64":
        one_of(source.get("media_type"), ("application/pdf",), f"{path}.base64.media_type")
        if not _bytes(source.get("data"), f"{path}.base64.data").startswith(b"%PDF"):
            raise wrong(f"{path}.base64.data", "The PDF specified was not valid.")


def _bytes(value: Json, path: str) -> bytes:
    try:
        return b64decode(a_text(value, path), validate=True)
    except ValueError:
        raise wrong(path, "invalid base64 data") from None
