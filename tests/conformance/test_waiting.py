import pytest

from rejoinder.conformance.answer import answer_in
from rejoinder.conformance.errors import Broken, NoAnswer
from rejoinder.conformance.server import Server
from rejoinder.conformance.waiting import ended
from tests.conformance.little_server import MODEL, Exchange, Fault, LittleServer
from tests.conformance.little_session import URL, reaching


def judged(fault: Fault | None = None, *, timeout: float = 5) -> Server:
    return Server(reaching(LittleServer(fault), timeout=timeout), URL, MODEL, key=None)


async def test_a_response_is_asked_for_until_it_is_over() -> None:
    server = judged()
    begun = answer_in(await server.post(input="Say hello.", background=True))
    assert answer_in(await ended(server, begun.id)).status == "completed"
    assert [exchange.asked for exchange in server.transcript[1:]] == [f"GET /responses/{begun.id}"] * 2


async def test_what_does_not_end_is_not_waited_for_for_ever() -> None:
    def never(it: Exchange) -> None:
        for response in it.kept:
            response["status"] = "in_progress"

    server = judged(Fault(told=never), timeout=0.05)
    begun = answer_in(await server.post(input="Say hello.", background=True))
    with pytest.raises(NoAnswer, match="expected an end of the response in time, got 'in_progress'"):
        await ended(server, begun.id)


async def test_what_is_not_found_is_not_waited_for() -> None:
    with pytest.raises(Broken, match="expected status 200, got status 404"):
        await ended(judged(), "resp_1")
