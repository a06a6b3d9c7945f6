"""The WebSocket against a plain model: lanes, forks, errors, steers, interrupts and clients that do not read, in any
order (websocket.md §4 to §7).

`REJOINDER_CASES` says how many cases are played.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from structlog.testing import capture_logs

from tests.server.site import MODEL, Json
from tests.server.socket_model import (
    AT_ONCE,
    COMPLETED,
    CUT,
    DEAD,
    FAILED,
    MOST_LANES,
    REFUSED,
    UNPAIRED,
    Entry,
    Name,
    Refusal,
    SocketModel,
    Turn,
)
from tests.server.socket_stage import Exchange, Line, Stage, called, last, more, thought

CASES = int(os.environ.get("REJOINDER_CASES", "100"))

LIFETIME = 600.0
"""Seconds a connection takes new calls: less than a turn may take."""

LOOK: Json = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
LANES: list[Name] = [None, "a", "b", "c"]
NOBODY = "resp_00000000000000000000000000000000"

FLAWS: list[tuple[Json, Refusal]] = [
    ({"temperature": 9}, (400, "invalid_value", "temperature")),
    ({"model": None}, (400, "missing_required_parameter", "model")),
    ({"model": "another-model"}, (400, "model_not_found", "model")),
    ({"background": True}, (400, "unsupported_parameter", "background")),
    ({"input": 7}, (400, "invalid_type", "input")),
    ({"tools": [{"type": "function"}]}, (400, "missing_required_parameter", "tools[0].name")),
    ({"conversation": "conv_1", "previous_response_id": None}, (404, "invalid_request_error", None)),
    ({"previous_response_id": "a b"}, (400, "invalid_request_error", "previous_response_id")),
    ({"previous_response_id": None, "input": [
        {"type": "function_call_output", "call_id": "call_of_nobody", "output": "x"}
    ]}, UNPAIRED),
]  # fmt: skip

FRAMES: list[tuple[Json, Refusal | None]] = [
    ("{", (400, "invalid_request_error", None)),
    ("[]", (400, "invalid_type", "body")),
    (b"\x00", (400, "invalid_request_error", None)),
    ({}, (400, "missing_required_parameter", "type")),
    ({"type": 7}, (400, "invalid_type", "type")),
    ({"type": "response.cancel"}, (400, "invalid_value", "type")),
    ({"type": "response.create", "stream_id": ""}, (400, "invalid_stream_id", "stream_id")),
    ({"type": "response.create", "stream_id": "a b"}, (400, "invalid_stream_id", "stream_id")),
    ({"type": "response.processed", "response_id": NOBODY}, None),
    ({"type": "response.interrupt", "response_id": NOBODY}, None),
]

WRONG_WORDS: list[Json] = [[], 7, [{"type": "function_call_output", "call_id": "c", "output": "x"}],
                           [{"role": "assistant", "content": "x"}], [{"role": "user", "content": 7}]]  # fmt: skip

ENDS = [*["stop"] * 6, "length", "error", "nonsense", "eof", "death"]
PIECES = ["head", *["text"] * 5, *["thought"] * 3, *["call"] * 3, "refusal", *ENDS]

rarely = st.sampled_from([False, False, False, True])
mostly = st.sampled_from([True, True, True, False])
seldom = st.sampled_from([*[False] * 12, True])
lanes = st.sampled_from(LANES)
picks = st.integers(0, 5)
paces = st.sampled_from([*[None] * 4, 0, 1, 2, 3, 5])
"""Rounds of the loop until the next thing happens; None for as many as there is something to do."""

parents = st.sampled_from(["nothing", "latest", *["own"] * 4, *["foreign"] * 2, "older", "running", "nobody"])
targets = st.sampled_from([*["running"] * 6, "over", "nobody"])


class Conversations(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(websocket_lifetime=LIFETIME)
        self.model = SocketModel()
        self.line: Line
        self.heard = self.asked = self.words = 0
        self.taken: dict[Exchange, int] = {}
        """What had been read of each answer when the client stopped reading."""

        self.patience = 3
        """How often the client still says something that is wrong in itself."""

        self.is_broken = True
        self.is_hasty = self.is_deaf = self.is_crowded = False
        self._logs = capture_logs()
        self.logs = self._logs.__enter__()

    @initialize(bundles=st.booleans(), hasty=rarely, deaf=rarely, crowded=rarely)
    def begin(self, bundles: bool, hasty: bool, deaf: bool, crowded: bool) -> None:
        """Cases differ in what happens in them, so that in many of them the model knows exactly what has to follow."""
        self.is_hasty, self.is_deaf, self.is_crowded = hasty, deaf, crowded
        self.connect(bundles)

    def connect(self, bundles: bool) -> None:
        self.heard = 0
        self.line = self.stage.connect(bundles=bundles)
        self.is_broken = False

    @contextmanager
    def step(self, pace: int | None) -> Iterator[None]:
        """Something happens, and then as much as follows from it in that time."""
        is_broken, self.is_broken = self.is_broken, True
        if not self.is_hasty:
            pace = None
        self.model.act()
        yield
        self.stage.rest(pace)
        self.look(rested=pace is None)
        self.is_broken = is_broken
        if self.line.closed is not None:
            assert self.line.closed == 1000
            self.model.closed()
            self.leave()
            self.connect(self.line.bundles)

    def look(self, *, rested: bool) -> None:
        model = self.model
        model.rested, model.reading = rested, self.line.room is None
        heard, self.heard = self.line.heard[self.heard :], len(self.line.heard)
        asked, self.asked = self.stage.calls[self.asked :], len(self.stage.calls)
        model.hear(heard)
        model.ask(asked)
        assert len(self.stage.open_calls) <= AT_ONCE
        if model.rested and model.reading and self.line.closed is None:
            model.settled(self.stage.open_calls)
        for exchange in self.stage.open_calls if rested and self.line.room == 0 else ():
            already = self.taken.setdefault(exchange, exchange.taken)
            assert exchange.taken <= already + 1, "who cannot write does not read on"

    def word(self) -> str:
        """One that nobody has said before."""
        self.words += 1
        return f"[{self.words}]"

    # The client.

    @rule(lane=lanes, store=st.booleans(), parent=parents, pick=picks, answers=mostly,
          flaw=st.sampled_from([*[None] * 20, *FLAWS]), warm_up=st.sampled_from([*[False] * 7, True]),
          begins=st.sampled_from([None, None, "head", "call", "text"]), pace=paces)  # fmt: skip
    def create(
        self,
        lane: Name,
        store: bool,
        parent: str,
        pick: int,
        answers: bool,
        flaw: tuple[Json, Refusal] | None,
        warm_up: bool,
        begins: str | None,
        pace: int | None,
    ) -> None:
        with self.step(pace):
            self.ask(lane, self.parent(lane, parent, pick), store=store, answers=answers, flaw=flaw, warm_up=warm_up)
        if begins is not None and (at_work := self.at_work()):
            with self.step(pace):
                self.come(at_work[-1], begins)

    @precondition(lambda self: any(lane.waiting for lane in self.model.lanes.values()))
    @rule(pick=picks, answers=mostly, pace=paces)
    def bring_results(self, pick: int, answers: bool, pace: int | None) -> None:
        """What was asked for, or not, by the response that something was said to."""
        waiting = [lane for lane in self.model.lanes.values() if lane.waiting is not None]
        lane = waiting[pick % len(waiting)]
        assert lane.waiting is not None
        with self.step(pace):
            self.ask(lane.name, lane.waiting[0], answers=answers)

    def parent(self, lane: Name, kind: str, pick: int) -> str | None:
        known = self.model.known
        own = self.model.lane(lane)
        match kind:
            case "latest" if own.last is not None:
                return own.last.id
            case "own" | "foreign":
                there = [
                    id for id in known if self.model.has(id) and (self.model.kept[id].lane == lane) == (kind == "own")
                ]
                return there[-1 - pick % min(len(there), 2)] if there else None
            case "older" if known:
                return known[-1 - pick % len(known)]
            case "running" if running := self.running():
                return running[pick % len(running)].id
            case "nobody":
                return NOBODY
            case _:
                return None

    def ask(
        self,
        lane: Name,
        previous: str | None,
        *,
        store: bool = False,
        answers: bool = True,
        flaw: tuple[Json, Refusal] | None = None,
        warm_up: bool = False,
    ) -> None:
        kept = self.model.kept.get(previous or "")
        said: list[Entry] = [("tool", call) for call in kept.open_calls if answers] if kept is not None else []
        said.append(("user", self.word()))
        message: Json = {"type": "response.create", "model": MODEL, "store": store, "tools": [LOOK],
                         "input": [_item(*one) for one in said]}  # fmt: skip
        if lane is not None:
            message["stream_id"] = lane
        if previous is not None:
            message["previous_response_id"] = previous
        if warm_up:
            message["generate"] = False
        refusal = None
        if flaw is not None:
            fields, refusal = flaw
            message |= fields
        if len(self.model.lanes) > MOST_LANES and lane not in self.model.lanes:
            raise AssertionError("the names are too many for one connection")
        self.model.create(Turn(lane, said, message.get("previous_response_id"), store, warm_up, refusal))
        self.line.say(message)

    @precondition(lambda self: self.running())
    @rule(at=targets, pick=picks, wrong=st.sampled_from([*[None] * 25, *WRONG_WORDS]), whole=st.booleans(),
          times=st.sampled_from([*[1] * 9, 2, 18]), pace=paces)  # fmt: skip
    def steer(self, at: str, pick: int, wrong: Json, whole: bool, times: int, pace: int | None) -> None:
        with self.step(pace):
            to = self.target(at, pick)
            for number in range(times):
                word = self.word()
                given: Json = word if whole else [{"type": "message", "role": "user", "content": word}]
                given = given if wrong is None else wrong
                self.model.steer(word, given, to, valid=wrong is None, alone=number == 0)
                self.line.say({"type": "response.steer", "previous_response_id": to, "input": given})

    @precondition(lambda self: self.running())
    @rule(at=targets, pick=picks, pace=paces)
    def interrupt(self, at: str, pick: int, pace: int | None) -> None:
        with self.step(pace):
            to = self.target(at, pick)
            self.model.interrupt(to)
            self.line.say({"type": "response.interrupt", "response_id": to})

    def running(self) -> list[Turn]:
        return [lane.turn for lane in self.model.lanes.values() if lane.turn is not None]

    def target(self, kind: str, pick: int) -> str:
        if kind == "running" and (running := self.running()):
            return running[pick % len(running)].id
        if kind != "nobody":
            return self.model.known[-1 - pick % len(self.model.known)]
        return NOBODY

    @precondition(lambda self: self.patience > 0)
    @rule(frame=st.sampled_from(FRAMES), pace=paces)
    def say_something_wrong(self, frame: tuple[Json, Refusal | None], pace: int | None) -> None:
        self.patience -= 1
        message, refusal = frame
        with self.step(pace):
            if refusal is not None:
                self.model.refusals.append((refusal, None))
            self.line.say(message)

    @precondition(lambda self: self.is_crowded)
    @rule(count=st.integers(1, 20), pace=paces)
    def crowd(self, count: int, pace: int | None) -> None:
        self.is_crowded = False
        with self.step(pace):
            for number in range(count):
                self.ask(f"crowd-{number}", None)

    @precondition(lambda self: self.is_deaf)
    @rule(room=st.sampled_from([0, 0, 0, 1, 2, 4]), pace=paces)
    def read_no_more_than(self, room: int, pace: int | None) -> None:
        self.taken.clear()
        with self.step(pace):
            self.line.read(room)

    @precondition(lambda self: self.line.room is not None)
    @rule(pace=paces)
    def read_on(self, pace: int | None) -> None:
        self.taken.clear()
        with self.step(pace):
            self.line.read()

    @precondition(lambda self: len(self.model.known) > 2)
    @rule(bundles=st.booleans(), sure=rarely)
    def leave_and_come_back(self, bundles: bool, sure: bool) -> None:
        if sure:
            self.leave()
            self.connect(bundles)

    @precondition(lambda self: len(self.model.known) > 1 and not self.model.is_expired)
    @rule(sure=seldom, pace=paces)
    def expire(self, sure: bool, pace: int | None) -> None:
        """The time of the connection is over."""
        if sure:
            with self.step(pace):
                self.stage.wait(LIFETIME)
                self.model.expire()

    def leave(self) -> None:
        self.is_broken = True
        self.model.act()
        self.line.leave()
        self.stage.rest()
        assert self.line.serving.done()
        self.line.serving.result()
        assert self.stage.open_calls == []
        assert self.stage.tasks() == set()
        assert len(self.stage.services.running) == 0
        self.asked = len(self.stage.calls)
        self.model.forget()
        self.model.rested = self.model.reading = True
        assert not [entry for entry in self.logs if entry["log_level"] == "error"]

    # The provider.

    @precondition(lambda self: self.at_work())
    @rule(pieces=st.lists(st.tuples(picks, st.sampled_from(PIECES), paces), min_size=1, max_size=5))
    def answer(self, pieces: list[tuple[int, str, int | None]]) -> None:
        for pick, kind, pace in pieces:
            if at_work := self.at_work():
                with self.step(pace):
                    self.come(at_work[pick % len(at_work)], kind)

    @precondition(lambda self: self.at_work())
    @rule(pick=picks, kinds=st.lists(st.sampled_from(["text", "thought", "call"]), min_size=1, max_size=9),
          end=st.sampled_from(ENDS), pace=paces)  # fmt: skip
    def answer_at_once(self, pick: int, kinds: list[str], end: str, pace: int | None) -> None:
        at_work = self.at_work()
        with self.step(pace):
            for kind in (*kinds, end):
                self.come(at_work[pick % len(at_work)], kind)

    def at_work(self) -> list[tuple[Turn, Exchange]]:
        """The turns whose provider is asked, and has not said all yet."""
        found = []
        for lane in self.model.lanes.values():
            turn = lane.turn or next(iter(lane.queue), None)
            if turn is not None and (exchange := turn.exchange) is not None and not exchange.is_answered:
                found.append((turn, exchange))
        return found

    def come(self, at_work: tuple[Turn, Exchange], kind: str) -> None:
        turn, exchange = at_work
        model = self.model
        if kind == "refusal" and not exchange.has_head:
            status = [*REFUSED][self.words % len(REFUSED)]
            model.refuses(turn, REFUSED[status])
            exchange.head(status)
            return
        if kind == "death" and not exchange.has_head:
            model.refuses(turn, DEAD)
            exchange.die()
            return
        if not exchange.has_head:
            exchange.head()
        match kind:
            case "head" | "refusal":
                pass
            case "text":
                word = self.word()
                model.comes(turn, kind, word)
                exchange.piece(more(word))
            case "thought":
                word = self.word()
                model.comes(turn, kind, word)
                exchange.piece(thought(word))
            case "call":
                word = f"call_{self.word()[1:-1]}"
                model.comes(turn, kind, word)
                exchange.piece(called(len(turn.pieces), word))
            case "stop" | "length":
                model.ends(turn, COMPLETED if kind == "stop" else CUT)
                exchange.piece(last(kind))
                exchange.end()
            case "error":
                model.ends(turn, FAILED)
                exchange.piece(b'data: {"error":{"message":"The server had an error","type":"server_error"}}\n\n')
                exchange.end()
            case "nonsense":
                model.ends(turn, FAILED)
                exchange.piece(b'data: {"choices": [{"delta": \n\n')
                exchange.end()
            case "eof":
                model.ends(turn, FAILED)
                exchange.end()
            case "death":
                model.ends(turn, FAILED)
                exchange.die()

    @precondition(lambda self: any(not exchange.has_head for _, exchange in self.at_work()))
    @rule(pace=paces)
    def wait(self, pace: int | None) -> None:
        """The provider takes so long for its head that the response begins without it."""
        with self.step(pace):
            self.stage.wait(11.0)

    # The end.

    def teardown(self) -> None:
        try:
            if not self.is_broken:
                self.finish()
        finally:
            self._logs.__exit__(None, None, None)
            self.stage.close_all(quietly=self.is_broken)

    def finish(self) -> None:
        """Everybody who asked gets an answer, and then all is quiet."""
        with self.step(None):
            self.line.read()
        while at_work := self.at_work():
            with self.step(None):
                if not at_work[0][0].pieces:
                    self.come(at_work[0], "text")
                self.come(at_work[0], "stop")
        self.model.finished()
        self.leave()


def _item(who: str, text: str) -> Json:
    if who == "tool":
        return {"type": "function_call_output", "call_id": text, "output": "found"}
    return {"type": "message", "role": "user", "content": text}


TestConversations: Any = pytest.mark.slow(Conversations.TestCase)
TestConversations.settings = settings(max_examples=CASES, stateful_step_count=40)


def test_an_answer_that_is_broken_off_while_its_client_does_not_read_is_told_whole() -> None:
    with Stage() as stage:
        line = stage.connect()
        line.say({"type": "response.create", "model": MODEL, "input": "hi", "store": False})
        stage.rest()
        [call] = stage.calls
        call.head()
        stage.rest()
        line.stop_reading()
        call.piece(more("so"))
        stage.rest()
        line.say({"type": "response.interrupt", "response_id": line.heard[0]["response"]["id"]})
        stage.rest()
        line.read()
        stage.rest()
        assert [message["sequence_number"] for message in line.heard] == [0, 1, 2, 3, 4, 5]
        assert line.heard[-1]["response"]["incomplete_details"] == {"reason": "interrupted"}
        line.leave()
        stage.rest()
