"""Whoever was told that a response is there finds it after a kill, whole, and can go on from it (reliability.md F11).

`REJOINDER_KILLS` says how many times the server is killed, `REJOINDER_SEED` replays a run.
"""

import http.client
import itertools
import json
import os
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import NamedTuple

import pytest

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import Part, Step, ToolCall, answer, call, calls, text
from rejoinder.conformance.upstreams.sent import SentChat, SentMessage
from tests.live import LiveServer, LiveUpstream, running
from tests.server.client import Response, create, get, streaming

KILLS = int(os.environ.get("REJOINDER_KILLS", "5"))
SEED = int(os.environ.get("REJOINDER_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)

CLIENTS = 6
LONGEST = 12
"""Turns of one conversation."""

TOOLS = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]


class Said(NamedTuple):
    """A message as the provider must see it, whatever else it carries."""

    role: str
    text: str
    calls: tuple[tuple[str, str], ...] = ()
    call_id: str | None = None

    @classmethod
    def of(cls, message: SentMessage) -> "Said":
        called = tuple((one.id, one.function.arguments) for one in message.tool_calls)
        return cls(message.role, message.text, called, message.tool_call_id)


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """An acknowledged response, all that was said up to its end, and how long the conversation is."""

    response: Response
    said: tuple[Said, ...]
    length: int


@dataclass(slots=True)
class Tally:
    """What became of the responses. The last three must stay empty."""

    acknowledged: int = 0
    unacknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"seed {SEED}, {KILLS} kills: {self.acknowledged} acknowledged, {len(self.lost)} lost, {len(self.torn)} "
            f"torn, {len(self.forgotten)} forgotten; {self.unacknowledged} begun and not acknowledged"
        )


class Model:
    """Calls tools after what a user says, mostly, and sums up what they gave. No two of its answers are alike."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._numbers = itertools.count()

    def __call__(self, request: SentChat) -> Step:
        number = next(self._numbers)
        pause = self._chance.choice((0, 0, 0.001, 0.004))
        parts: list[Part] = []
        if request.messages[-1].role != "user" or self._chance.random() < 0.3:
            parts.append(text(*(f"{number}.{n} " for n in range(self._chance.randrange(1, 12)))))
        if not parts or self._chance.random() < 0.2:
            parts.append(calls(*(self._call(number, n) for n in range(self._chance.choice((1, 1, 2, 3))))))
        return answer(*parts, gap=pause)

    def _call(self, number: int, n: int) -> ToolCall:
        return call("look", '{"at":', f'"{number}.{n}"}}', id=f"call_{number}_{n}")


class Talk:
    """One client: it goes on with its conversation, turn after turn, until the server is gone."""

    def __init__(self, name: str, chance: random.Random, last: Turn | None) -> None:
        self.acknowledged: list[Turn] = []
        self.begun: list[str] = []
        """The ids of streams that began, acknowledged or not."""

        self.failure: Exception | None = None
        self._name = name
        self._chance = chance
        self._last = last
        self._numbers = itertools.count()

    def run(self, server: LiveServer) -> None:
        try:
            while True:
                self._go_on(server)
        except (OSError, http.client.HTTPException):
            pass  # the kill
        except Exception as error:  # the last frame of a thread; the test raises it
            self.failure = error

    def _go_on(self, server: LiveServer) -> None:
        last = self._last if self._last is not None and self._last.length < LONGEST else None
        coming, said = reply(last, f"{self._name} {next(self._numbers)}")
        parent = last and last.response.id
        if self._chance.random() < 0.5:
            response = create(server, tools=TOOLS, input=coming, previous_response_id=parent).response
        else:
            with streaming(server, tools=TOOLS, input=coming, previous_response_id=parent) as stream:
                self.begun.append(stream.until("response.created").whole.id)
                response = stream.until("response.completed").whole
        assert response.status == "completed"
        self._last = Turn(response, (*said, answered(response)), last.length + 1 if last else 1)
        self.acknowledged.append(self._last)


def reply(last: Turn | None, words: str) -> tuple[list[dict[str, str]], tuple[Said, ...]]:
    """What a client sends next, and the whole conversation with it."""
    said = last.said if last else ()
    open_calls = said[-1].calls if said else ()
    if not open_calls:
        return [{"role": "user", "content": words}], (*said, Said("user", words))
    outputs = [{"type": "function_call_output", "call_id": id, "output": f"{words} {id}"} for id, _ in open_calls]
    return outputs, (*said, *(Said("tool", one["output"], call_id=one["call_id"]) for one in outputs))


def answered(response: Response) -> Said:
    """What a response says, as its provider will see it again."""
    called = tuple((item.call_id, item.arguments) for item in response.output if item.type == "function_call")
    return Said("assistant", response.text, called)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_torn_or_forgotten_by_kills(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    tally = Tally()
    turns: list[Turn] = []
    with (
        ChatUpstream(Model(random.Random(SEED))) as upstream,
        running(tmp_path, upstreams=[LiveUpstream(upstream.base_url)]) as server,
    ):
        last: Sequence[Turn | None] = [None] * CLIENTS
        for cycle in range(KILLS):
            talks = [Talk(f"{cycle}.{n}", random.Random(chance.random()), one) for n, one in enumerate(last)]
            talk_until_killed(server, talks, after=chance.uniform(0.05, 0.6))
            server.start()
            new = [turn for talk in talks for turn in talk.acknowledged]
            tally.acknowledged += len(new)
            check_begun(server, talks, tally)
            # Old ones too: a kill must not harm what lay there already.
            for turn in new + chance.sample(turns, min(5, len(turns))):
                check(server, upstream, turn, tally)
            turns += new
            last = [talk.acknowledged[-1] if talk.acknowledged else one for talk, one in zip(talks, last, strict=True)]
        for turn in turns if KILLS > 5 else ():
            check(server, upstream, turn, tally)
    print(tally)
    assert tally.acknowledged > KILLS, "hardly anything was done between the kills"
    assert (tally.lost, tally.torn, tally.forgotten) == ([], [], []), str(tally)


def talk_until_killed(server: LiveServer, talks: Sequence[Talk], *, after: float) -> None:
    threads = [threading.Thread(target=talk.run, args=(server,)) for talk in talks]
    for thread in threads:
        thread.start()
    sleep(after)
    server.kill9()
    for thread in threads:
        thread.join()
    for talk in talks:
        if talk.failure is not None:
            raise talk.failure


def check(server: LiveServer, upstream: ChatUpstream, turn: Turn, tally: Tally) -> None:
    """It is there, it is what was told, and whoever goes on from it is understood with all that was said."""
    told = get(server, turn.response.id)
    if told.status != 200:
        tally.lost.append(turn.response.id)
        return
    if told.response != turn.response:
        tally.torn.append(turn.response.id)
        return
    coming, said = reply(turn, "and then?")
    upstream.requests.clear()
    following = create(server, tools=TOOLS, input=coming, previous_response_id=turn.response.id)
    if following.status != 200 or tuple(heard(upstream)) != said:
        tally.forgotten.append(turn.response.id)


def heard(upstream: ChatUpstream) -> Iterator[Said]:
    [request] = upstream.requests
    assert request.objection is None
    return map(Said.of, request.chat.messages)


def check_begun(server: LiveServer, talks: Sequence[Talk], tally: Tally) -> None:
    """What nobody was told the end of is absent, or whole."""
    known = {turn.response.id for talk in talks for turn in talk.acknowledged}
    for response_id in {one for talk in talks for one in talk.begun} - known:
        tally.unacknowledged += 1
        told = get(server, response_id)
        if told.status == 404:
            continue
        if told.response.status != "completed" or not whole(told.response):
            tally.torn.append(response_id)


def whole(response: Response) -> bool:
    arguments = [item.arguments for item in response.output if item.type == "function_call"]
    return bool(response.output) and all(isinstance(json.loads(one), dict) for one in arguments)
