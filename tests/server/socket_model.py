"""What has to come over a WebSocket, as plainly as it can be said (websocket.md §4 to §7; events.md §4).

The model is told what the client says and what the provider lets come, and then hears what the server tells. It knows
every message the server owes. Where two things happen at once, or the client does not read, the server may see them in
another order: then the model takes each order there can be, and goes on from the one it finds.
"""

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rejoinder.conformance.upstreams.strictness import COMPATIBLE, check
from rejoinder.server.steering import MOST
from tests.bridge.grammar import judged
from tests.server.site import TERMINAL, Json
from tests.server.socket_stage import Exchange

AT_ONCE = 16
"""Responses that are made at the same time for one connection."""

MOST_LANES = 32

Name = str | None
"""A lane."""

Entry = tuple[str, str]
"""A piece of a conversation: who says it (`user`, `assistant`, `call`, `tool`), and what."""

End = tuple[str, str | None]
"""How a response ends: its status, and why it is incomplete."""

Refusal = tuple[int, str, str | None]
"""An error: its status, code and parameter."""

BEGINS: Refusal = (200, "", None)
NOT_FOUND: Refusal = (400, "previous_response_not_found", "previous_response_id")
UNPAIRED: Refusal = (400, "invalid_request_error", "input")
LIMIT: Refusal = (400, "websocket_connection_limit_reached", None)
DEAD: Refusal = (502, "server_error", None)
REFUSED: dict[int, Refusal] = {
    422: (422, "invalid_request_error", None),
    429: (429, "rate_limit_exceeded", None),
    500: (502, "server_error", None),
}
"""What a client hears of a provider that refuses."""

COMPLETED: End = ("completed", None)
CUT: End = ("incomplete", "max_output_tokens")
STEERED: End = ("incomplete", "steered")
INTERRUPTED: End = ("incomplete", "interrupted")
FAILED: End = ("failed", None)

_TOKEN = re.compile(r"\[\w+\]")
"""What is said in these tests is such words and nothing else."""


@dataclass(eq=False, slots=True)
class Words:
    """Something said to a response under way. `allowed` are the first answers it can get."""

    text: str
    given: Json
    to: str
    allowed: frozenset[str]
    id: str = ""
    came_to: str = ""
    """`said` or `failed`, once it is one of them."""


@dataclass(eq=False, slots=True)
class Turn:
    """A create call, and the response it becomes."""

    lane: Name
    said: list[Entry]
    previous: str | None
    store: bool
    warm_up: bool = False
    flaw: Refusal | None = None
    """What the client hears of it where nobody has to look anything up for that."""

    words: list[Words] = field(default_factory=list)
    """What was said to the response before, and begins this one."""

    succeeds: bool = False
    """Whether the server made it by itself."""

    since: int = 0
    """The moment from which on it is the first of its lane."""

    exact: bool = True
    """Whether everything that became of it was waited for before the next thing happened."""

    late: bool = False
    """Whether it may have been heard when the time of the connection was over."""

    exchange: Exchange | None = None
    refused: set[Refusal] = field(default_factory=set)
    """What its provider answered instead of an answer."""

    pieces: list[tuple[str, str]] = field(default_factory=list)
    causes: list[End] = field(default_factory=list)
    """What may have ended it, in the order in which it happened."""

    id: str = ""
    number: int = 0
    """Of the next event."""

    events: list[Json] = field(default_factory=list)
    heard: list[Words] = field(default_factory=list)
    """What was said to it while it was made."""


@dataclass(slots=True)
class Kept:
    """A response that is over, and can be continued as long as somebody has it."""

    lane: Name
    previous: str | None
    own: list[Entry]
    """What was said in it, by both."""

    open_calls: list[str]
    store: bool


@dataclass(slots=True)
class Owed:
    """A message about words that has to come before anything else in its lane."""

    words: Words
    pending: bool = False
    required: list[str] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class LaneModel:
    name: Name
    queue: deque[Turn] = field(default_factory=deque)
    turn: Turn | None = None
    over: Turn | None = None
    """The last response that ended."""

    latest: str | None = None
    """What is continued from here though it is in no store."""

    waiting: tuple[str, list[Words]] | None = None
    """A response that waits for results of tools, and what is said after them."""

    owed: deque[Owed] = field(default_factory=deque)

    @property
    def is_busy(self) -> bool:
        return self.turn is not None or bool(self.queue)

    @property
    def last(self) -> Turn | None:
        return self.turn or self.over


class SocketModel:
    """One client of one server. `rested` says whether everything had time to happen, `reading` whether the client
    reads."""

    def __init__(self) -> None:
        self.lanes: dict[Name, LaneModel] = {}
        self.kept: dict[str, Kept] = {}
        self.known: list[str] = []
        """The ids the client has seen, in order."""

        self.moment = 0
        self.rested = self.reading = True
        self.refusals: deque[tuple[Refusal, Name]] = deque()
        self.unanswered: deque[Words] = deque()
        self.accepted: list[Words] = []
        self.unmatched: list[Exchange] = []
        self.is_expired = False
        """Whether the connection takes nothing new."""

        self.ends_with = ""
        """What the client was told before the server closed the connection."""

        self.unsure: set[str] = set()
        """Responses that may be stored: their connection ended as they did."""

        self._changes: dict[str, list[tuple[int, Name]]] = {}
        self._blurred = -1

    # What the client does, and the provider.

    def act(self) -> None:
        """Something happens."""
        self.moment += 1
        if not (self.rested and self.reading):
            self._blurred = self.moment
            for lane in self.lanes.values():
                for turn in (*lane.queue, *filter(None, (lane.turn,))):
                    turn.exact = False

    def lane(self, name: Name) -> LaneModel:
        return self.lanes.setdefault(name, LaneModel(name))

    def create(self, turn: Turn) -> None:
        lane = self.lane(turn.lane)
        if self.is_expired:
            turn.flaw = LIMIT
        turn.exact = self.rested and self.reading
        lane.queue.append(turn)
        if lane.turn is None and lane.queue[0] is turn:
            turn.since = self.moment

    def steer(self, text: str, given: Json, to: str, *, valid: bool, alone: bool = True) -> None:
        """Words of the client; `alone` says that nothing else is said at the same time."""
        running = next(
            (lane.turn for lane in self.lanes.values() if lane.turn is not None and lane.turn.id == to), None
        )
        many = sum(words.to == to for words in self.unanswered) + (len(running.heard) if running is not None else 0)
        if not valid:
            allowed = ["invalid_input"]
        elif running is not None:
            allowed = ["too_many_pending_steers" if many >= MOST else "accepted"]
        elif any(lane.over is not None and lane.over.id == to and lane.turn is None for lane in self.lanes.values()):
            allowed = ["response_already_completed"]
        elif to in self.known:
            allowed = ["response_already_completed", "response_not_found"]
        else:
            allowed = ["response_not_found"]
        if valid and to in self.known and not (alone and self.rested and self.reading):
            allowed = ["accepted", "response_already_completed", "response_not_found"]
            allowed += ["too_many_pending_steers"] if many >= MOST else []
        self.unanswered.append(Words(text, given, to, frozenset(allowed)))
        if running is not None and valid and not (running.pieces and running.exact):
            running.causes.append(STEERED)

    def interrupt(self, response_id: str) -> None:
        for lane in self.lanes.values():
            if lane.turn is not None and lane.turn.id == response_id:
                lane.turn.causes.append(INTERRUPTED)

    def comes(self, turn: Turn, kind: str, text: str) -> None:
        """A piece of an answer."""
        if turn.exact and turn.causes:
            return  # it is over
        begins = kind == "call" or not turn.pieces or turn.pieces[-1][0] != kind
        turn.pieces.append((kind, text))
        steered = turn.heard or any(words.to == turn.id for words in self.unanswered)
        if begins and steered and not any(of == "call" for of, _ in turn.pieces[:-1]):
            turn.causes.append(STEERED)

    def ends(self, turn: Turn, end: End) -> None:
        turn.causes.append(FAILED if end == COMPLETED and not turn.pieces else end)

    def refuses(self, turn: Turn, refusal: Refusal) -> None:
        """The provider does not answer."""
        turn.refused.add(refusal)
        turn.causes.append(FAILED)

    def forget(self) -> None:
        """The connection is gone, and with it what was kept there alone."""
        for lane in self.lanes.values():
            if lane.turn is not None and lane.turn.store and not lane.turn.exact:
                self.unsure.add(lane.turn.id)
        self.lanes.clear()
        self.refusals.clear()
        self.unanswered.clear()
        self.accepted.clear()
        self.unmatched.clear()
        self.is_expired = False
        self.ends_with = ""

    def expire(self) -> None:
        """The time of the connection is over."""
        self.is_expired = True
        for lane in self.lanes.values():
            for turn in lane.queue:
                turn.late = not turn.exact

    # What the server tells.

    def hear(self, messages: Sequence[Json]) -> None:
        for message in messages:
            lane = self.lane(message.get("stream_id"))
            if "sequence_number" in message:
                self._count(lane, message)
            match message["type"]:
                case "error":
                    self._error(lane, message)
                case "response.steer.accepted":
                    self._accepted(lane, message["steer"])
                case "response.steer.pending":
                    self._pending(lane, message)
                case "response.steer.failed":
                    self._failed(lane, message)
                case "response.created":
                    self._created(lane, message)
                case kind:
                    assert lane.turn is not None, f"{kind} of no response"
                    lane.turn.events.append(message)
                    if kind in TERMINAL:
                        self._ended(lane, lane.turn, message["response"])

    def ask(self, exchanges: Iterable[Exchange]) -> None:
        """The provider is asked."""
        self.unmatched.extend(exchanges)
        self.unmatched = [exchange for exchange in self.unmatched if not self._matches(exchange)]
        in_progress = [turn for lane in self.lanes.values() if (turn := lane.turn) is not None]
        assert len(in_progress) <= AT_ONCE

    def _matches(self, exchange: Exchange) -> bool:
        """Whether it is known who asks. What is asked is all of one conversation, and nothing else."""
        asked = _asked(exchange.asked)
        last = asked[-1][1]
        turn = next((turn for turn in self._at_work() if turn.said[-1][1] == last), None)
        if turn is None:
            return False
        assert turn.exchange is None, "nobody is asked twice"
        assert turn.flaw is None
        before = self._before(turn.previous)
        if before is None:
            return False
        check(exchange.body, COMPATIBLE)
        expected = _sorted([*before, *self._own(turn)])
        assert asked == expected, f"{asked} and not {expected}"
        turn.exchange = exchange
        return True

    def _at_work(self) -> Iterator[Turn]:
        for lane in self.lanes.values():
            if lane.turn is not None:
                yield lane.turn
            else:
                yield from [*lane.queue][:1]

    def _before(self, response_id: str | None) -> list[Entry] | None:
        """All that was said up to the end of this response; None where the client has not heard that end yet."""
        if response_id is None:
            return []
        kept = self.kept.get(response_id)
        before = self._before(kept.previous) if kept is not None else None
        return [*before, *kept.own] if kept is not None and before is not None else None

    def _own(self, turn: Turn) -> list[Entry]:
        waiting = self.lanes[turn.lane].waiting
        words = waiting[1] if waiting is not None and waiting[0] == turn.previous else turn.words
        return [*(("user", one.text) for one in words if not turn.succeeds), *turn.said]

    def settled(self, open_calls: Sequence[Exchange]) -> None:
        """Everything had time to happen, and the client has read all of it."""
        assert not self.refusals, "every message that is wrong is told so"
        assert not self.unanswered, "every steer has an answer"
        assert not self.unmatched, "nobody is asked for what no client wants"
        busy = [lane for lane in self.lanes.values() if lane.is_busy]
        assert not any(lane.owed for lane in self.lanes.values()), "words that come to nothing are given back"
        at_work = [turn for turn in self._at_work() if turn.exchange is not None]
        assert [id(turn.exchange) for turn in at_work if turn.exchange not in open_calls] == []
        assert len(open_calls) == len(at_work) == min(AT_ONCE, len(busy))
        assert not self.is_expired or busy, "the connection ends as soon as nobody needs it"
        for turn in at_work:
            # Whether words come before the item that they end an answer at depends on who was first.
            sure = [cause for cause in turn.causes if turn.exact or cause != STEERED]
            assert sure == [], "it ends as soon as there is a reason to"

    def closed(self) -> None:
        """The server has closed the connection: everything is answered that could be, and the client knows why."""
        assert self.is_expired
        assert self.ends_with
        assert all(lane.turn is None for lane in self.lanes.values())
        assert all(turn.flaw == LIMIT or turn.late for lane in self.lanes.values() for turn in lane.queue)

    def finished(self) -> None:
        """Nothing more will come."""
        waiting = [words for lane in self.lanes.values() if lane.waiting is not None for words in lane.waiting[1]]
        assert not any(lane.is_busy for lane in self.lanes.values())
        assert [words for words in self.accepted if not words.came_to and words not in waiting] == []

    # Messages, one by one.

    def _count(self, lane: LaneModel, message: Json) -> None:
        kind, number = message["type"], message["sequence_number"]
        if kind == "response.created":
            assert number == 0
            return
        if kind == "response.steer.failed" and number == 0:
            return  # it is no response's
        assert lane.last is not None
        assert number == lane.last.number, f"{kind} has number {number} and not {lane.last.number}"
        lane.last.number += 1

    def _error(self, lane: LaneModel, message: Json) -> None:
        error = message["error"]
        assert isinstance(message["status"], int)
        assert isinstance(error["code"], str)
        assert isinstance(error["type"], str)
        assert error["message"]
        found = (message["status"], error["code"], error["param"])
        if self.refusals and self.refusals[0] == (found, lane.name):
            self.refusals.popleft()
            return
        if found == LIMIT and lane.name is None:
            # With calls waiting in the lane without a name, nobody can tell which of the two it means.
            self.ends_with = "a reason"
            if not lane.queue:
                return
        assert lane.turn is None, "a response that has begun ends with an event"
        assert not lane.owed
        assert lane.queue, f"an error nobody asked for: {message}"
        turn = lane.queue.popleft()
        assert not turn.succeeds, "what nobody asked for is not refused"
        assert found in self._outcomes(turn), f"{found} and not {self._outcomes(turn)}"
        self._take_words(lane, turn)
        self._refused(lane, turn)

    def _refused(self, lane: LaneModel, turn: Turn) -> None:
        """The turn never began."""
        self._evict(lane, turn.previous)
        lane.owed.extend(Owed(words) for words in turn.words)
        self._next(lane)

    def _outcomes(self, turn: Turn) -> set[Refusal]:
        """What can become of a create call: an error, or a beginning."""
        late = {LIMIT} if turn.late else set()
        if turn.flaw is not None:
            return {turn.flaw, *late}
        there = self._is_there(turn)
        found = late if there is True else {NOT_FOUND, *late}
        if there is not False:
            kept = self.kept.get(turn.previous or "")
            wanted = kept.open_calls if kept is not None else []
            if kept is None and turn.previous is not None:
                found |= {UNPAIRED, BEGINS}
            elif sorted(wanted) != sorted(text for who, text in turn.said if who == "tool"):
                found.add(UNPAIRED)
            elif turn.refused and turn.exact:
                found |= turn.refused
            else:
                found |= {BEGINS, *turn.refused}
        return found

    def _is_there(self, turn: Turn) -> bool | None:
        """Whether what it continues is there; None where that depends on who came first."""
        if turn.previous is None:
            return True
        if turn.previous in self.unsure:
            return None
        owner = next((lane for lane in self.lanes.values() if self._is_about(lane, turn.previous)), None)
        if owner is not None and owner.name != turn.lane:
            blurred = self._blurred >= turn.since and owner.is_busy
            changed = any(at >= turn.since for at, name in self._changes.get(turn.previous, ()) if name != turn.lane)
            if blurred or changed:
                return None
        return self.has(turn.previous)

    def has(self, response_id: str) -> bool:
        """Whether somebody has this response, for whoever goes on from it."""
        kept = self.kept.get(response_id)
        return kept is not None and (kept.store or any(lane.latest == response_id for lane in self.lanes.values()))

    def _is_about(self, lane: LaneModel, response_id: str) -> bool:
        """Whether the response is one of the lane."""
        running = lane.turn is not None and lane.turn.id == response_id
        return running or (response_id in self.kept and self.kept[response_id].lane == lane.name)

    def _created(self, lane: LaneModel, message: Json) -> None:
        assert lane.turn is None, "one follows the other"
        assert not lane.owed
        turn = lane.queue.popleft()
        assert BEGINS in self._outcomes(turn), f"it began, and not {self._outcomes(turn)}"
        self._take_words(lane, turn)
        response = message["response"]
        assert response["previous_response_id"] == turn.previous
        assert response["store"] == turn.store
        turn.id, turn.number = response["id"], 1
        turn.events.append(message)
        for words in turn.words:
            assert not words.came_to
            words.came_to = "said"
        lane.turn = turn
        assert turn.id not in self.known
        self.known.append(turn.id)

    def _take_words(self, lane: LaneModel, turn: Turn) -> None:
        """What waits for this turn goes in front of it."""
        if lane.waiting is not None:
            response_id, words = lane.waiting
            lane.waiting = None
            if response_id == turn.previous:
                turn.words = words
            else:
                assert all(one.came_to == "failed" for one in words), "the conversation went on without them"

    def _ended(self, lane: LaneModel, turn: Turn, response: Json) -> None:
        lane.turn, lane.over = None, turn
        details = response["incomplete_details"]
        end: End = (response["status"], details["reason"] if details is not None else None)
        output = _output(response)
        if turn.warm_up:
            assert (end, output) == (COMPLETED, [])
            assert [event["type"] for event in turn.events[1:]] == ["response.in_progress", "response.completed"]
        else:
            expected = turn.causes[:1] if turn.exact else turn.causes
            assert end in expected, f"{end} and not {expected}"
            _judge(turn.events, end)
            tries = range(len(turn.pieces) + 1) if not turn.exact else (len(turn.pieces),)
            assert any(output == _folded(turn.pieces[:count], end) for count in tries), f"{output}, {turn.pieces}"
        if end == FAILED:
            self._evict(lane, turn.previous)
            lane.owed.extend(Owed(words) for words in turn.heard)
        else:
            self._keep(lane, turn, output, end)
            self._go_on(lane, turn)
        self._next(lane)

    def _keep(self, lane: LaneModel, turn: Turn, output: list[Entry], end: End) -> None:
        calls = [text for who, text in output if who == "call"]
        if end == CUT and output[-1:] and output[-1][0] == "call":
            # Half a call cannot be carried out: nobody is asked for its result, and it is not said again.
            calls.pop()
            output = output[:-1]
        own = [*self._own(turn), *(("assistant" if who == "text" else who, text) for who, text in output)]
        own = [one for one in own if one[0] != "thought"]
        self.kept[turn.id] = Kept(lane.name, turn.previous, own, calls, turn.store)
        self._changed(lane, turn.id)
        if lane.latest is not None:
            self._changed(lane, lane.latest)
        lane.latest = None if turn.store else turn.id

    def _go_on(self, lane: LaneModel, turn: Turn) -> None:
        """What was said meanwhile is said next."""
        if not turn.heard:
            return
        if calls := self.kept[turn.id].open_calls:
            lane.waiting = (turn.id, turn.heard)
            lane.owed.extend(Owed(words, pending=True, required=calls) for words in turn.heard)
        else:
            said = [("user", words.text) for words in turn.heard]
            made = Turn(lane.name, said, turn.id, turn.store, words=turn.heard, succeeds=True, exact=turn.exact)
            lane.queue.appendleft(made)

    def _next(self, lane: LaneModel) -> None:
        if lane.queue:
            lane.queue[0].since = self.moment

    def _evict(self, lane: LaneModel, previous: str | None) -> None:
        if previous is not None and lane.latest == previous:
            self._changed(lane, previous)
            lane.latest = None

    def _changed(self, lane: LaneModel, response_id: str) -> None:
        self._changes.setdefault(response_id, []).append((self.moment, lane.name))

    def _accepted(self, lane: LaneModel, steer: Json) -> None:
        words = self.unanswered.popleft()
        assert "accepted" in words.allowed
        assert lane.turn is not None
        assert lane.turn.id == words.to == steer["previous_response_id"]
        words.id = steer["id"]
        lane.turn.heard.append(words)
        self.accepted.append(words)
        assert len(lane.turn.heard) <= MOST

    def _pending(self, lane: LaneModel, message: Json) -> None:
        owed = lane.owed.popleft()
        assert owed.pending
        assert message["reason"] == "waiting_for_required_input"
        assert message["steer"] == {"id": owed.words.id, "previous_response_id": owed.words.to}
        stubs = [(stub["type"], stub["call_id"]) for stub in message["required_input"]]
        assert stubs == [("function_call_output", call) for call in owed.required]

    def _failed(self, lane: LaneModel, message: Json) -> None:
        steer, code = message["steer"], message["error"]["code"]
        if all(words.id != steer.get("id") for words in self.accepted):
            words = self.unanswered.popleft()
            words.id = steer.get("id", "")
            assert code in words.allowed, f"{code} and not {[*words.allowed]}"
        elif lane.owed:
            owed = lane.owed.popleft()
            words = owed.words
            assert not owed.pending
            assert code == "successor_creation_failed"
        elif lane.waiting is not None:
            response_id, all_words = lane.waiting
            words = next(one for one in all_words if one.id == steer["id"])
            assert lane.queue[0].previous != response_id
            assert code == "response_not_active"
        else:
            turn = lane.queue.popleft()
            assert turn.succeeds
            assert self._outcomes(turn) - {BEGINS}, "it could have begun"
            words = turn.words[0]
            assert code == "successor_creation_failed"
            self._refused(lane, turn)
            lane.owed.popleft()
        assert not words.came_to
        words.came_to = "failed"
        expected = {"input": words.given, "previous_response_id": words.to, **({"id": words.id} if words.id else {})}
        assert steer == expected


def _asked(body: Json) -> list[Entry]:
    """The conversation in a request to a provider of Chat Completions."""
    found: list[Entry] = []
    for message in body["messages"]:
        who = message["role"]
        if who == "tool":
            found.append(("tool", message["tool_call_id"]))
            continue
        found += [(who, word) for word in _TOKEN.findall(json.dumps(message.get("content")))]
        found += [("call", call["id"]) for call in message.get("tool_calls", ())]
    return _sorted(found)


def _sorted(entries: Iterable[Entry]) -> list[Entry]:
    """In the order Chat Completions has for it: what a model says in one go with its calls at the end, and what answers
    those before anything else that is said."""
    found: list[Entry] = []
    answer: list[Entry] = []
    rest: list[Entry] = []
    for who, text in (*entries, ("assistant", "")):
        if who in ("tool", "user"):
            rest.append((who, text))
            continue
        if rest:
            found += sorted(answer, key=lambda entry: entry[0] == "call")
            found += sorted(rest, key=lambda entry: entry[0] == "user")
            answer, rest = [], []
        answer += [(who, text)] if who == "call" else [(who, word) for word in _TOKEN.findall(text)]
    return found


def _output(response: Json) -> list[Entry]:
    found: list[Entry] = []
    for item in response["output"]:
        match item["type"]:
            case "message":
                found.append(("text", "".join(part["text"] for part in item["content"])))
            case "reasoning":
                found.append(("thought", "".join(part["text"] for part in item["summary"])))
            case _:
                found.append(("call", item["call_id"]))
    return found


def _folded(pieces: Sequence[tuple[str, str]], end: End) -> list[Entry]:
    """The items these pieces make. Where a client ends the answer, what is not whole is no part of it."""
    items: list[Entry] = []
    for kind, text in pieces:
        if kind != "call" and items and items[-1][0] == kind:
            items[-1] = (kind, items[-1][1] + text)
        else:
            items.append((kind, text))
    if end in (STEERED, INTERRUPTED):
        items = [item for item in items[:-1] if item[0] != "call"]
    return items


def _judge(events: Sequence[Json], end: End) -> None:
    """The grammar of events.md; a client that ends an answer never hears the end of what was being written."""
    done = [event["output_index"] for event in events if event["type"] == "response.output_item.done"]
    if end in (STEERED, INTERRUPTED):
        events = [event for event in events if event.get("output_index", -1) in (-1, *done)]
    places = {index: place for place, index in enumerate(sorted(done))}
    plain = []
    for number, event in enumerate(events):
        bare = {name: value for name, value in event.items() if name not in ("stream_id", "headers")}
        bare["sequence_number"] = number
        if end in (STEERED, INTERRUPTED) and number == len(events) - 1:
            # Nobody counts an answer that is not waited for.
            bare["response"] = {**bare["response"], "usage": bare["response"]["usage"] or _NOTHING}
        if "output_index" in bare:
            bare["output_index"] = places[bare["output_index"]]
        plain.append(json.dumps(bare).encode())
    judged(plain)


_NOTHING: Json = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}
