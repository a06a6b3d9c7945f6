"""Background responses through kills: each one that was accepted ends, and who followed it goes on without a gap
(reliability.md F22, P10).

`REJOINDER_KILLS` says how many times the server is killed, `REJOINDER_SEED` replays a run.
"""

import http.client
import json
import os
import random
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import pytest

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import Step, answer, call, calls, text
from rejoinder.conformance.upstreams.sent import SentChat
from tests.live import LiveServer, LiveUpstream, running
from tests.server.client import TERMINAL, Answer, ask, body_of, get

KILLS = int(os.environ.get("REJOINDER_KILLS", "4"))
SEED = int(os.environ.get("REJOINDER_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)

CLIENTS = 6
OVER = ("completed", "incomplete", "failed", "cancelled")


@dataclass(slots=True)
class Accepted:
    """A response whose id was told, and the bytes of its stream that arrived, whole frames only."""

    id: str
    streamed: bool
    told: bytes = b""

    @property
    def frames(self) -> list[bytes]:
        return self.told.split(b"\n\n")[:-1]

    @property
    def is_over(self) -> bool:
        return self.told.endswith(b"data: [DONE]\n\n")


@dataclass(slots=True)
class Tally:
    """What became of them. The last two must stay empty."""

    statuses: Counter[str] = field(default_factory=Counter)
    followed: int = 0
    stuck: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"seed {SEED}, {KILLS} kills: {self.statuses.total()} accepted {dict(self.statuses)}, {self.followed} "
            f"streams followed over a kill, {len(self.stuck)} stuck, {len(self.torn)} torn"
        )


class Model:
    """Takes its time, more or less."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def __call__(self, request: SentChat) -> Step:
        pause = self._chance.choice((0, 0.005, 0.02, 0.05))
        words = text(*(f"{n} " for n in range(self._chance.randrange(1, 30))))
        if self._chance.random() < 0.3:
            return answer(words, calls(call("look", '{"at":', '"x"}', id="call_1")), gap=pause)
        return answer(words, gap=pause)


class Client:
    """Starts background responses, one after the other, and follows those that are streamed."""

    def __init__(self, chance: random.Random) -> None:
        self.accepted: list[Accepted] = []
        self.failure: Exception | None = None
        self._chance = chance

    def run(self, server: LiveServer) -> None:
        try:
            while True:
                self._begin(server)
        except (OSError, http.client.HTTPException):
            pass  # the kill
        except Exception as error:  # the last frame of a thread; the test raises it
            self.failure = error

    def _begin(self, server: LiveServer) -> None:
        streamed = self._chance.random() < 0.7
        tools = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]
        body = body_of({"background": True, "stream": streamed, "tools": tools})
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
            connection.request("POST", "/v1/responses", body, {"content-type": "application/json"})
            response = connection.getresponse()
            assert response.status == 200, response.read()
            if streamed:
                self._follow(response)
            else:
                self.accepted.append(Accepted(json.loads(response.read())["id"], streamed=False))
        sleep(self._chance.uniform(0, 0.05))

    def _follow(self, response: http.client.HTTPResponse) -> None:
        unread = b""
        accepted: Accepted | None = None
        while data := response.read1(65536):
            unread += data
            whole, end, rest = unread.rpartition(b"\n\n")
            if end:
                if accepted is None:
                    accepted = Accepted(_event(whole.split(b"\n\n")[0])["response"]["id"], streamed=True)
                    self.accepted.append(accepted)
                accepted.told += whole + end
                unread = rest


def _event(frame: bytes) -> dict[str, dict[str, str]]:
    event = json.loads(frame.partition(b"\ndata: ")[2])
    assert isinstance(event, dict)
    return event


@pytest.mark.slow
@pytest.mark.parametrize("recovery", ["fail", "continue"])
def test_every_accepted_response_ends_and_every_follower_goes_on_without_a_gap(tmp_path: Path, recovery: str) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    tally = Tally()
    with (
        ChatUpstream(Model(random.Random(SEED))) as upstream,
        running(
            tmp_path, upstreams=[LiveUpstream(upstream.base_url)], settings={"background_recovery": recovery}
        ) as server,
    ):
        for _ in range(KILLS):
            clients = [Client(random.Random(chance.random())) for _ in range(CLIENTS)]
            run_until_killed(server, clients, after=chance.uniform(0.1, 0.8))
            server.start()
            for client in clients:
                for accepted in client.accepted:
                    check(server, accepted, tally)
    print(f"{recovery}: {tally}")
    assert tally.statuses.total() > KILLS, "hardly anything was accepted between the kills"
    assert tally.statuses["completed"] > 0
    assert tally.followed > 0, "no kill met a stream"
    assert (tally.stuck, tally.torn) == ([], []), str(tally)


def run_until_killed(server: LiveServer, clients: Sequence[Client], *, after: float) -> None:
    threads = [threading.Thread(target=client.run, args=(server,)) for client in clients]
    for thread in threads:
        thread.start()
    sleep(after)
    server.kill9()
    for thread in threads:
        thread.join()
    for client in clients:
        if client.failure is not None:
            raise client.failure


def check(server: LiveServer, accepted: Accepted, tally: Tally) -> None:
    """It is there, it ends, and its stream is one, from the first frame before the kill to the last one after it."""
    status = status_at_the_end(server, accepted.id)
    tally.statuses[status] += 1
    if status not in OVER:
        tally.stuck.append(f"{accepted.id} {status}")
        return
    if not accepted.streamed:
        return
    whole = ask(server, "GET", f"/v1/responses/{accepted.id}?stream=true")
    if not is_one_stream(whole, accepted, status):
        tally.torn.append(accepted.id)
    if not accepted.is_over:
        tally.followed += 1
        last = len(accepted.frames) - 1
        rest = ask(server, "GET", f"/v1/responses/{accepted.id}?stream=true&starting_after={last}")
        if accepted.told + rest.body != whole.body:
            tally.torn.append(f"{accepted.id} after {last}")


def status_at_the_end(server: LiveServer, response_id: str) -> str:
    deadline = monotonic() + 10
    while True:
        told = get(server, response_id)
        status = told.response.status if told.status == 200 else f"HTTP {told.status}"
        if status not in ("queued", "in_progress") or monotonic() > deadline:
            return status
        sleep(0.02)


def is_one_stream(whole: Answer, accepted: Accepted, status: str) -> bool:
    *frames, done, rest = whole.body.split(b"\n\n")
    events = [json.loads(frame.partition(b"\ndata: ")[2]) for frame in frames]
    kinds = [event["type"] for event in events]
    return (
        whole.body.startswith(accepted.told)
        and (done, rest) == (b"data: [DONE]", b"")
        and [event["sequence_number"] for event in events] == list(range(len(events)))
        and kinds[:2] == ["response.created", "response.queued"]
        and [kind for kind in kinds if kind in TERMINAL] == [kinds[-1]]
        and events[-1]["response"]["status"] == status
    )
