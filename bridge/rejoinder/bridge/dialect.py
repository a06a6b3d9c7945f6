"""The seam between the turn and a provider's protocol."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, get_args

import msgspec

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.envelope import Envelope
from rejoinder.bridge.errors import Unsupported, UpstreamError
from rejoinder.bridge.losses import Loss
from rejoinder.bridge.toolbox import Toolbox
from rejoinder.wire.formats import TextFormat
from rejoinder.wire.items import ConfigurationUpdate, Item
from rejoinder.wire.request import CreateRequest, Effort


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a provider, without its address or credentials.

    `path` is joined to the upstream's base URL. `stream` says that the answer was asked for as server-sent events;
    what really comes back is for the reader to find out.
    """

    path: str
    body: bytes
    stream: bool
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


class Identity(msgspec.Struct, frozen=True, omit_defaults=True):
    """The same in every request of a conversation: a provider finds its cache by it. Nothing in it is secret, and an
    empty name is one nobody gave."""

    session: str = ""
    thread: str = ""
    cache_key: str = ""


NOBODY = Identity()
"""Of whom nothing is known."""


@dataclass(frozen=True, slots=True)
class Count:
    """A request that counts tokens, and how its answer is read: `read` raises msgspec.MsgspecError for one without a
    number."""

    call: Call
    read: Callable[[bytes], int]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Everything one upstream request is made of.

    `items` is the whole conversation, oldest first, every reference resolved and every call paired. `opened` maps the
    `encrypted_content` values this upstream may read to what they hold. `notes` collects the parameters that have no
    effect, `losses` what of the conversation had to be left out or changed. `parent` is the upstream's own id of the
    response this one continues, where it gave that one, and `coming` the number of items at the end that it has not
    seen. `identity` says which session of its client, and which cache of prompts, a request belongs to.
    """

    model: str
    request: CreateRequest
    items: Sequence[Item]
    toolbox: Toolbox
    opened: dict[str, Envelope]
    notes: list[str]
    losses: list[Loss] = field(default_factory=list)
    parent: str | None = None
    coming: int = 0
    identity: Identity = field(default_factory=Identity)

    def note(self, said: str) -> None:
        """Once: a prompt may be written several times."""
        if said not in self.notes:
            self.notes.append(said)

    def ignore(self, parameters: Mapping[str, object]) -> None:
        """Note which of these parameters were given, since the upstream has no word for them."""
        for name, value in parameters.items():
            if value is not None:
                self.note(f"{name}: not understood by this upstream")

    def lose(self, loss: Loss) -> None:
        """Once, too."""
        if loss not in self.losses:
            self.losses.append(loss)

    @property
    def effort(self) -> Effort | None:
        """What holds at the end of the conversation: the request's, or the last one its history set (mapping.md §2). An
        effort nobody knows sets none."""
        asked = self.request.fields.reasoning
        effort = asked.effort if asked is not None else None
        for item in self.items:
            if item.view.__class__ is ConfigurationUpdate and item.view.reasoning is not None:
                effort = _EFFORTS.get(item.view.reasoning.effort, effort)
        return effort

    def without_effort(self) -> "Prompt":
        """The same without a word about it, in the request or in its history."""
        request = copy.copy(self.request)
        if request.fields.reasoning is not None:
            reasoning = msgspec.structs.replace(request.fields.reasoning, effort=None)
            request.fields = msgspec.structs.replace(request.fields, reasoning=reasoning)
        return replace(self, request=request, items=[_without_effort(item) for item in self.items])

    @property
    def ways_of_thinking(self) -> Mapping[str, str | None]:
        """What else is said of how to think, where it is not the usual way. No protocol but this one has words for it
        (mapping.md §1)."""
        asked = self.request.fields.reasoning
        if asked is None:
            return {}
        ways = {"reasoning.context": asked.context, "reasoning.mode": asked.mode}
        return {name: way if way not in ("auto", "standard") else None for name, way in ways.items()}

    @property
    def format(self) -> TextFormat | None:
        """The form of the answer that holds at the end of the conversation, as with the effort."""
        text = self.request.fields.text
        wanted = text.format if text is not None else None
        for item in self.items:
            if item.view.__class__ is ConfigurationUpdate and item.view.text is not None:
                wanted = item.view.text.format or wanted
        return wanted

    @property
    def wants_logprobs(self) -> bool:
        return "message.output_text.logprobs" in self.request.include or bool(self.request.fields.top_logprobs)

    def without_logprobs(self) -> Unsupported:
        """The error of an upstream that gives none: an answer without them is not what was asked for."""
        return Unsupported(
            "this upstream does not return log probabilities",
            param="top_logprobs" if self.request.fields.top_logprobs else "include",
            code="unsupported_parameter",
        )


_EFFORTS: Mapping[str | None, Effort] = {effort: effort for effort in get_args(Effort)}


def _without_effort(item: Item) -> Item:
    if isinstance(item.view, ConfigurationUpdate):
        return replace(item, view=ConfigurationUpdate(None, item.view.text))
    return item


class Reader(Protocol):
    """Reads one answer, cut anywhere, and reports it to its composer."""

    @property
    def is_over(self) -> bool:
        """Whether the answer is whole, so that nothing that may still follow matters: then it can be closed while the
        provider keeps the connection open. It is still to be closed; where no mark ends an answer, only the end of the
        bytes does, and this stays False."""

    def feed(self, data: bytes) -> None:
        """More bytes of the answer. Raises UpstreamError when they say that it failed."""

    def close(self, at: int) -> None:
        """The bytes are over; `at` is the time in unix seconds.

        Raises BrokenStream when the answer was not: the end of bytes is not the end of an answer.
        """


class Dialect(Protocol):
    """One upstream protocol."""

    native: bool
    """Whether it is this very API: then unknown parameters, tools, items and events pass as they are."""

    compacts: bool
    """Whether the upstream compacts itself, and `compaction_trigger` and `context_management` are for it to read."""

    hosted: frozenset[str]
    """The hosted tools (`web_search`) that this upstream runs on its own side."""

    def call(self, prompt: Prompt) -> Call:
        """The request to send. Raises Unsupported, naming the parameter, for what it cannot say."""

    def reader(self, prompt: Prompt, out: Composer) -> Reader: ...

    def rejection(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """What an answer other than 2xx means; header names are in lower case."""

    def relent(self, prompt: Prompt, error: UpstreamError) -> Prompt | None:
        """The prompt without what this refusal is about, where the turn can do without it; else None."""

    def models(self) -> Call:
        """The request that lists the models this upstream has."""

    def offered(self, body: bytes) -> list[str]:
        """The names in the answer to it. Raises msgspec.MsgspecError for an answer that is no list."""

    def count(self, prompt: Prompt) -> Count | None:
        """The request that counts the tokens of a prompt; None where the protocol has none."""
