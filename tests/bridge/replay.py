"""Recorded answers fed to the bridge, and recorded conversations led through it, as a turn of the server would.

Nothing here knows a provider: a `Listener` hears an answer to a prompt of any dialect, a `Conversation` asks, hears and
asks again. What differs (how a recorded request becomes a create call) is beside this file, one for each dialect.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from msgspec import Raw

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.dialect import Call, Dialect, Prompt
from rejoinder.bridge.echo import echo
from rejoinder.bridge.envelope import Envelope, Issuer, Seal
from rejoinder.bridge.errors import BrokenStream, UpstreamError
from rejoinder.bridge.pairing import paired
from rejoinder.bridge.toolbox import Toolbox
from rejoinder.wire.events import Event, encode
from rejoinder.wire.items import Item, Reasoning
from rejoinder.wire.request import CreateRequest
from tests.bridge.grammar import Response
from tests.bridge.prompts import Counter
from tests.bridge.recordings import Asked, Object, Recording, loaded, objects

CREATED_AT = 1_795_000_000
"""Unix seconds at which every response is created; they end one second later."""

NOBODY: Object = {"role": "user", "content": "…"}
"""An item for requests whose conversation does not matter."""

_ISSUER = Issuer("recorded", "recorded", "model")
_OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of an answer: all its events, the last one included, and the error that broke it off, if one did.

    `paused`: the provider wants to be asked to go on, and `resumed` are the items to go on from.
    """

    events: list[Event]
    error: UpstreamError | None
    notes: list[str]
    paused: bool = False
    resumed: Sequence[Item] = ()

    @property
    def encoded(self) -> list[bytes]:
        return [encode(event) for event in self.events]

    @property
    def items(self) -> list[Object]:
        """The output, as a client has it and sends it back."""
        [response] = objects([loaded(self.encoded[-1])["response"]])
        return objects(response["output"])


class Listener:
    """One response in the making. `hear` is called again for the next answer when one is paused."""

    def __init__(
        self,
        dialect: Dialect,
        prompt: Prompt,
        *,
        seal: Seal | None = None,
        ids: Counter | None = None,
    ) -> None:
        self._dialect = dialect
        self._seal = seal or Seal([bytes(32)], random=bytes)
        self.prompt = prompt
        self.out = Composer(
            echo(prompt.request, response_id="resp_1", created_at=CREATED_AT),
            prompt.toolbox,
            mint=ids or Counter(),
            seal=self._sealed,
            taken=frozenset(paired((), prompt.items).call_ids),
        )

    def hear(self, pieces: Iterable[bytes]) -> Answered:
        """Everything these pieces of an answer come to."""
        out, error = self.out, None
        if not out.has_started:
            out.start()
        reader = self._dialect.reader(self.prompt, out)
        try:
            for piece in pieces:
                reader.feed(piece)
            reader.close(CREATED_AT + 1)
        except UpstreamError as broken:
            error = broken
            out.fail(broken.code, str(broken))
        paused = out.paused
        return Answered(out.drain(), error, out.notes, paused, out.resume() if paused else ())

    def _sealed(self, parts: list[Raw], calls: dict[str, Raw]) -> str:
        return self._seal.close(Envelope(_ISSUER, parts, calls), owner=_OWNER)


def prompt_of(
    dialect: Dialect, asked: Asked, items: Sequence[Object] | None = None, seal: Seal | None = None
) -> Prompt:
    """The prompt of a create call, with other items if there are some; what `seal` closed is open in it."""
    request = CreateRequest.parse(asked.body(items))
    said = paired((), request.input).items
    toolbox = Toolbox.of(request.tools, said, request.tool_choice, dialect.hosted)
    return Prompt(request.model, request, said, toolbox, dict(_opened(said, seal)), [])


def _opened(items: Sequence[Item], seal: Seal | None) -> Iterator[tuple[str, Envelope]]:
    for item in items:
        if seal is not None and isinstance(item.view, Reasoning) and item.view.encrypted_content is not None:
            envelope = seal.open(item.view.encrypted_content, owner=_OWNER)
            assert envelope is not None
            yield item.view.encrypted_content, envelope


@dataclass(slots=True)
class Conversation:
    """A conversation with one upstream: what is asked, what it answers, what is asked then.

    `speak` makes the dialect for the parameters of a request that the API has no word for (`Asked.extra`).
    """

    speak: Callable[[Object], Dialect]
    seal: Seal = field(default_factory=lambda: Seal([bytes(32)], random=bytes))
    ids: Counter = field(default_factory=Counter)

    def prompt(self, request: Asked, items: Sequence[Object] | None = None) -> Prompt:
        return prompt_of(self.speak(request.extra), request, items, self.seal)

    def call(self, request: Asked, items: Sequence[Object] | None = None) -> Call:
        """What is sent upstream for these items, or those of the request."""
        return self.speak(request.extra).call(self.prompt(request, items))

    def listener(self, request: Asked, items: Sequence[Object] | None = None) -> Listener:
        prompt = self.prompt(request, items)
        return Listener(self.speak(request.extra), prompt, seal=self.seal, ids=self.ids)

    def answer(self, request: Asked, items: Sequence[Object] | None, body: bytes) -> list[Object]:
        """The items of an answer, as a client has them and sends them back."""
        heard = self.listener(request, items).hear([body])
        assert heard.error is None, heard.error
        return heard.items


def outputs_for(answer: Sequence[Object]) -> list[Object]:
    """What a client says to the calls of an answer."""
    called = [item["call_id"] for item in answer if item["type"] == "function_call"]
    return [{"type": "function_call_output", "call_id": call_id, "output": "!"} for call_id in called]


def same_however_cut(listener: Callable[[], Listener], exchange: Recording, places: Iterable[int]) -> Answered:
    """What the answer comes to; in two pieces, cut at any of these places, and byte by byte it must be the same."""
    body = exchange.body
    whole = listener().hear([body])
    _assert_same(whole, listener().hear(body[at : at + 1] for at in range(len(body))), "byte by byte")
    for at in places:
        _assert_same(whole, listener().hear((body[:at], body[at:])), f"cut at {at}")
    return whole


def _assert_same(whole: Answered, cut: Answered, how: str) -> None:
    # Comparing the events alone keeps pytest from explaining the difference of two long lists.
    same = whole.events == cut.events and str(whole.error) == str(cut.error) and whole.paused == cut.paused
    assert same, how


def broken_off(listener: Callable[[], Listener], exchange: Recording, places: Iterable[int]) -> Iterator[Answered]:
    """What the answer comes to that ends at each of these places, which must be a broken stream."""
    for at in places:
        answered = listener().hear([exchange.body[:at]])
        assert isinstance(answered.error, BrokenStream), f"cut at {at}"
        yield answered


def assert_failed(response: Response) -> None:
    assert response.status == "failed"
    assert response.error is not None
    assert response.error.code == "server_error"
