"""Paired mode: the server that is judged stands in front of our own provider, so what it asks for can be looked at.

The provider answers what a rule wants it to, and between the rules what a model would that does as it is told:

    async with playing(server, answer(calls(call("look"))), answer(text("ok"))) as scene:
        ...
        expect_equal("the prompt", ["user Look.", "call look {}", "result seen"], scene.prompt(2).outline)

It is strict: a history that the real provider would refuse is refused, and that is what a rule then says.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from rejoinder.conformance.dialects import PORT, Dialect
from rejoinder.conformance.errors import Broken, NoAnswer, NotApplicable, Unreachable
from rejoinder.conformance.server import Server
from rejoinder.conformance.transcript import Exchange
from rejoinder.conformance.upstreams import exchange
from rejoinder.conformance.upstreams.anthropic import AnthropicUpstream
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.gemini import GeminiUpstream
from rejoinder.conformance.upstreams.obliging import obliging
from rejoinder.conformance.upstreams.responses import ResponsesUpstream
from rejoinder.conformance.upstreams.responses_strictness import OPENAI_TODAY
from rejoinder.conformance.upstreams.script import Asked, Step
from rejoinder.conformance.upstreams.seen import Seen
from rejoinder.conformance.upstreams.sent import SentRequest
from rejoinder.conformance.upstreams.strictness import OPENAI_FIELDS, REASONING_FIELDS, Strictness

Upstream: TypeAlias = ChatUpstream | AnthropicUpstream | GeminiUpstream | ResponsesUpstream

_CLASSES: Mapping[Dialect, type[Upstream]] = {
    "chat": ChatUpstream,
    "anthropic": AnthropicUpstream,
    "gemini": GeminiUpstream,
    "responses": ResponsesUpstream,
}

Cue: TypeAlias = Step[Asked] | Callable[[Seen], Step[Asked]]
"""What the provider answers, or how that depends on what it is asked."""

MODELS: Mapping[Dialect, str] = {
    "chat": "test-model",
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-3-flash",
    "responses": "test-model",
}
"""What the provider knows its model as. Other names will do; of these it is known what the real ones would refuse."""

PROTOCOLS: Mapping[Dialect, str] = {
    "chat": "Chat Completions",
    "anthropic": "Anthropic Messages",
    "gemini": "Gemini generateContent",
    "responses": "OpenAI Responses",
}

_CHAT = Strictness(
    fields=OPENAI_FIELDS,
    assistant_fields=REASONING_FIELDS,
    roles=frozenset({"system", "developer", "user", "assistant", "tool"}),
    call_content="either",
    forgiving=True,
)
"""Of the ways in which compatible servers differ it takes them all, so that nobody is blamed for the one it chose."""

_PATIENCE = 5.0
_LEFT_OVER = 2.0
_SHORTEST = 8
_KEYS = ("x-api-key", "x-goog-api-key", "api-key")


class Provider:
    """Our provider behind the server that is judged."""

    def __init__(self, dialect: Dialect, upstream: Upstream) -> None:
        self.dialect = dialect
        self.upstream = upstream
        self.rest()

    @classmethod
    @contextmanager
    def listening(cls, dialect: Dialect, port: int = PORT) -> Iterator["Provider"]:
        """A provider on that port of loopback. Raises Unreachable when the port is taken."""
        upstream = _upstream(dialect, port)
        try:
            upstream.__enter__()
        except OSError as error:
            raise Unreachable(
                f"the provider cannot listen on port {port} ({error.strerror}); name another one with --provider-port"
            ) from None
        try:
            yield cls(dialect, upstream)
        finally:
            upstream.__exit__(None, None, None)

    def rest(self) -> None:
        """Do as a model would that does as it is told."""
        self.upstream.follow(lambda request: obliging(request.seen))

    @property
    def key(self) -> str | None:
        """The key that the server has for its provider, as it was last seen, if it is long enough to be one."""
        for sent in reversed(self.upstream.requests):
            named = [sent.headers[name] for name in _KEYS if name in sent.headers]
            bearer = sent.headers.get("authorization", "").partition(" ")[2]
            if found := next((key for key in (*named, bearer) if len(key) >= _SHORTEST), None):
                return found
        return None

    def check_asked(self) -> None:
        """Raises Unreachable when the server has not asked for anything yet."""
        if self.upstream.requests:
            return
        strays = sorted(set(self.upstream.strays))
        heard = (
            f"it was asked for {', '.join(strays)}, which it does not have" if strays else "it was asked for nothing"
        )
        raise Unreachable(
            f"the server does not ask the provider at {self.upstream.base_url}: {heard}. "
            f"{guide(self.dialect, self.upstream.port)}"
        )


def _upstream(dialect: Dialect, port: int) -> Upstream:
    models = [MODELS[dialect]]
    if dialect == "chat":
        return ChatUpstream(strictness=_CHAT, models=models, port=port)
    if dialect == "responses":
        return ResponsesUpstream(strictness=OPENAI_TODAY, models=models, port=port)
    return _CLASSES[dialect](models=models, port=port)


def base_url(dialect: Dialect, port: int = PORT) -> str:
    """What a server is to have for the base URL of its provider."""
    return f"http://127.0.0.1:{port}{_CLASSES[dialect].root}"


def guide(dialect: Dialect, port: int = PORT) -> str:
    """How a server is pointed at the provider."""
    return (
        f"Give it a provider that speaks {PROTOCOLS[dialect]}, with the base URL {base_url(dialect, port)}, any key of "
        f"{_SHORTEST} characters or more, and the model {MODELS[dialect]!r} behind the one that --model names"
    )


@dataclass(frozen=True, slots=True)
class Scene:
    """What the provider is asked while a rule is looked at; `start` is how much it was asked before."""

    provider: Provider
    start: int

    @property
    def requests(self) -> list[SentRequest]:
        """Those that the provider took."""
        return [sent for sent in self.provider.upstream.requests[self.start :] if sent.objection is None]

    @property
    def asked(self) -> int:
        """How often the provider was asked, what it refused included."""
        return len(self.provider.upstream.requests) - self.start

    @property
    def prompts(self) -> list[Seen]:
        return [self.provider.upstream.seen(sent) for sent in self.requests]

    def request(self, number: int) -> SentRequest:
        """The request of that number, from 1. Raises Broken when there are less."""
        requests = self.requests
        if len(requests) < number:
            raise Broken(f"the provider to be asked, {number} times by now", f"{len(requests)} times")
        return requests[number - 1]

    def prompt(self, number: int) -> Seen:
        """What that request says."""
        return self.provider.upstream.seen(self.request(number))

    def prefix(self, number: int) -> list[bytes]:
        """What that request gives the model to read, in the pieces that are to stay the same."""
        return self.provider.upstream.prefix(self.request(number))

    async def wait(self, number: int = 1) -> SentRequest:
        """The request of that number, once it is there. Raises NoAnswer when it does not come."""
        if not await soon(lambda: len(self.requests) >= number, _PATIENCE):
            raise NoAnswer(f"the provider to be asked, {number} times by now", f"{len(self.requests)} times")
        return self.request(number)

    @property
    def said(self) -> int:
        """How many bytes the provider has said since."""
        return sum(len(one.said) for one in self._exchanges)

    def forget(self) -> None:
        """Let the provider not remember what it said: it would look through all of it with every request."""
        for one in self._exchanges:
            self.provider.upstream.exchanges.remove(one)

    @property
    def _exchanges(self) -> list[exchange.Exchange]:
        numbers = {id(sent) for sent in self.requests}
        return [one for one in self.provider.upstream.exchanges if id(one.sent) in numbers]

    @property
    def objection(self) -> str | None:
        """Why the provider refused a request, if it did."""
        found = [sent.objection for sent in self.provider.upstream.requests[self.start :] if sent.objection]
        return found[0].message if found else None


def dialect_of(server: Server) -> Dialect:
    """What is spoken between the server and our provider. Raises NotApplicable when there is none."""
    if server.provider is None:
        raise NotApplicable("needs --paired")
    return server.provider.dialect


def only_in(server: Server, *dialects: Dialect, because: str) -> None:
    """Raises NotApplicable when something else is spoken."""
    if dialect_of(server) not in dialects:
        raise NotApplicable(f"{PROTOCOLS[dialect_of(server)]} {because}")


async def soon(is_so: Callable[[], object], seconds: float) -> bool:
    """Whether something becomes true within that time."""
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.005)
    return True


@asynccontextmanager
async def playing(server: Server, *cues: Cue) -> AsyncIterator[Scene]:
    """A scene in which the provider answers so, request after request; the last answer is given again and again.

    What it was asked is in the transcript. Raises Broken with the provider's reason when it refused a request and the
    rule is broken.
    """
    provider = server.provider
    if provider is None:
        raise NotApplicable("needs --paired")
    # Something that another rule has begun may still ask. What has no end is ended, or each rule would wait for it.
    if not await soon(lambda: provider.upstream.running == 0, _LEFT_OVER):
        provider.upstream.hang_up()
    scene = Scene(provider, len(provider.upstream.requests))
    heard: list[tuple[Exchange, exchange.Exchange]] = []
    waiting = list(cues)

    def answered(request: Asked) -> Step[Asked]:
        asked = provider.upstream.exchanges[-1]
        told = Exchange(f"the server asks the provider: POST {asked.sent.path}", asked.sent.body, "it answers:")
        heard.append((told, asked))
        server.transcript.append(told)
        cue = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return cue(request.seen) if callable(cue) else cue

    provider.upstream.follow(answered)
    try:
        yield scene
    except Broken as broken:
        if scene.objection is None:
            raise
        raise Broken("a request that the provider takes", f"its refusal: {scene.objection}") from broken
    finally:
        provider.rest()
        for told, asked in heard:
            told.pieces.append(bytes(asked.said))
