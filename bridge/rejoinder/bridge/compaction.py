"""Compaction: a summary that stands for a conversation (semantics.md §8, mapping.md §2).

The model that would have answered writes the summary; sealed, it travels as a `compaction` item, opens again in front
of any upstream, and is read there as a message. What it stands for stays in the store.

Whether items before a compaction item still count is not established: OpenAI says that clients may drop them, and its
own compacted lists have user messages there. Here what was said by people stays (the newest of it, up to a limit), and
so do instructions, tools and settings; calls, outputs, reasoning and answers are what the summary is for.
"""

import re
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Raw, Struct

from rejoinder.bridge.envelope import PREFIX, Envelope, Issuer
from rejoinder.bridge.errors import UpstreamError
from rejoinder.bridge.readback import unverifiable
from rejoinder.wire.items import (
    AdditionalTools,
    Compaction,
    CompactionTrigger,
    ConfigurationUpdate,
    ImageCall,
    Item,
    Message,
    Part,
)
from rejoinder.wire.request import CreateRequest
from rejoinder.wire.responses import Response

KEPT_BYTES = 80_000
"""Bytes of what users said that stay beside a summary: some 20,000 tokens, and never less than the newest message."""

BYTES_PER_TOKEN = 4
"""A rough measure, good enough to decide when a conversation has become long."""

IMAGE_TOKENS = 1_500
"""Tokens of a picture or a file, whatever its size."""

_ISSUER = Issuer("rejoinder", "", "")

INSTRUCTION = """\
Stop working on the task now and write a summary of this conversation. It will replace everything said so far, so \
whoever continues from it, you or another model, knows nothing but what you write here.

Write down, in this order and as far as they exist:
1. What the user wants, in their own terms, with every constraint and preference they stated.
2. What has been done: decisions and their reasons, files and places with their exact names, commands and their \
results, values that will be needed again.
3. What is going on right now, what was tried without success, and which errors came.
4. What is left to do, as concrete next steps.

Quote identifiers, paths, numbers and error texts exactly. Do not call tools. Do not address the user. Write the \
summary and nothing else."""

PREAMBLE = "The conversation before this point was summarised, to save space. The summary:\n\n"


class _Summary(Struct):
    summary: str


_SUMMARY = msgspec.json.Decoder(_Summary)
_ENCODER = msgspec.json.Encoder()


def sealed_summary(text: str) -> Envelope:
    """A summary as it is sealed."""
    return Envelope(_ISSUER, [Raw(_ENCODER.encode(_Summary(text)))])


def expanded(items: Sequence[Item], unseal: Callable[[str], Envelope | None], *, native: bool) -> list[Item]:
    """The conversation with summaries in the place of what they stand for, and without orders to write one, but for
    the last item.

    `native`: the upstream speaks this API itself, so a compaction item that is not ours is its own. Raises BadRequest
    for one that nobody here can open (`invalid_encrypted_content`).
    """
    if _ABOUT_SUMMARIES.isdisjoint([item.type for item in items]):
        return [*items]
    said = [item for item in items[:-1] if not isinstance(item.view, CompactionTrigger)] + [*items[-1:]]
    for place in reversed(range(len(said))):
        view = said[place].view
        if isinstance(view, Compaction) and not (native and not view.encrypted_content.startswith(PREFIX)):
            return [*_staying(said[:place]), _opened(view, unseal), *said[place + 1 :]]
    return said


_ABOUT_SUMMARIES = frozenset(("compaction", "compaction_summary", "compaction_trigger"))


def _opened(view: Compaction, unseal: Callable[[str], Envelope | None]) -> Item:
    envelope = unseal(view.encrypted_content)
    if envelope is None or envelope.issuer != _ISSUER:
        raise unverifiable()
    text = PREAMBLE + _SUMMARY.decode(envelope.parts[0]).summary
    return Item.parse(
        b'{"type":"message","role":"developer","content":[{"type":"input_text","text":%b}]}' % _ENCODER.encode(text)
    )


def _staying(items: Sequence[Item]) -> list[Item]:
    """What is not left to the summary: instructions, tools, settings, and the newest words of the user. An older
    summary is: the newer one was made of it."""
    left = KEPT_BYTES
    stays: list[Item] = []
    said = False
    for item in reversed(items):
        match item.view:
            case Message(role="developer", content=(Part(text=str(text)),)) if text.startswith(PREAMBLE):
                pass
            case AdditionalTools() | ConfigurationUpdate() | Message(role="system" | "developer"):
                stays.append(item)
            case Message(role="user"):
                left -= len(item.raw)
                if left >= 0 or not said:
                    stays.append(item)
                said = True
            case _:
                pass
    return stays[::-1]


def retained(items: Sequence[Item]) -> list[Item]:
    """What users said, as far as it stays beside a summary."""
    return [item for item in _staying(items) if isinstance(item.view, Message) and item.view.role == "user"]


def wanted(request: CreateRequest, items: Sequence[Item]) -> bool:
    """Whether the conversation is to be compacted before it is answered (`context_management`): it is too long, and
    what a summary cannot stand for is not."""
    thresholds = [rule.compact_threshold or DEFAULT_THRESHOLD for rule in request.fields.context_management or ()]
    return bool(thresholds) and estimate(items) > min(thresholds) > estimate(_staying(items))


DEFAULT_THRESHOLD = 200_000
"""Tokens, where a client asks for compaction and does not say when; what OpenAI takes is not established."""


def estimate(items: Sequence[Item]) -> int:
    """About how many tokens the items are."""
    return sum(_estimate(item) for item in items)


def _estimate(item: Item) -> int:
    # Base64 is no text: what it holds counts as a picture, and what is beside it by its length.
    if isinstance(item.view, ImageCall):
        return IMAGE_TOKENS
    encoded = [len(data) for data in _ENCODED.findall(item.raw)]
    return (len(item.raw) - sum(encoded)) // BYTES_PER_TOKEN + len(encoded) * IMAGE_TOKENS


_ENCODED = re.compile(rb'"data:[^",]{0,200};base64,[^"]*')
"""The data URL of a picture or a file."""


def triggered(items: Sequence[Item]) -> bool:
    """Whether the last item asks for compaction now."""
    return bool(items) and isinstance(items[-1].view, CompactionTrigger)


_WITHOUT = frozenset(
    (
        "background",
        "context_management",
        "input",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "previous_response_id",
        "text",
        "tool_choice",
        "truncation",
    )
)
"""What a request says of its answer, and not of the conversation."""


def summary_request(request: CreateRequest) -> CreateRequest:
    """The request for a summary: the same model, tools and instructions, so that the provider's cache serves it."""
    fields = {name: value for name, value in request.raw.items() if name not in _WITHOUT}
    # A conversation that no longer fits is summarised from where it does.
    said = {"input": [], "stream": True, "tool_choice": "none", "truncation": "auto"}
    return CreateRequest.parse(_ENCODER.encode({**fields, **said}))


def summary_items(items: Sequence[Item]) -> list[Item]:
    """The conversation, with the order to summarise it at its end."""
    said = [item for item in items if not isinstance(item.view, CompactionTrigger)]
    order = Item.parse(
        b'{"type":"message","role":"user","content":[{"type":"input_text","text":%b}]}' % _ENCODER.encode(INSTRUCTION)
    )
    return [*said, order]


def summary_of(response: Response) -> str:
    """What the model wrote. Raises UpstreamError when that is nothing."""
    views = [Item.parse(_ENCODER.encode(item)).view for item in response.output]
    parts = [part for view in views if isinstance(view, Message) for part in view.content]
    text = "".join(part.text or "" for part in parts if isinstance(part, Part)).strip()
    if not text:
        raise UpstreamError("the model wrote no summary of the conversation")
    return text
