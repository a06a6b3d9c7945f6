import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from rejoinder.bridge.errors import UpstreamError
from rejoinder.server.errors import Unavailable
from rejoinder.server.running import Cancelled, Running, Stop, Waiting

NEVER = 60.0
LATE = "the provider is late"


def nothing() -> None:
    pass


async def ended(
    running: Running, act: Callable[[Waiting], None], *, leaving: Callable[[], None] = nothing
) -> UpstreamError:
    """The error of a turn that acts, waits until its deadline or somebody else ends it, and does the last on its way
    out."""
    try:
        async with asyncio.timeout(None) as timeout:
            with running.turn() as stop, stop.waiting(timeout) as waiting:
                act(waiting)
                try:
                    await asyncio.sleep(NEVER)
                finally:
                    leaving()
    except TimeoutError:
        error = waiting.error()
        assert isinstance(error, UpstreamError)
        return error
    raise AssertionError("nothing ended the turn")


async def outlives(act: Callable[[Waiting], None]) -> bool:
    """Whether a turn that does this is still there a little later."""
    async with asyncio.timeout(None) as timeout:
        with Stop().waiting(timeout) as waiting:
            act(waiting)
            await asyncio.sleep(0.03)
    return not timeout.expired()


async def test_a_deadline_that_passes_says_what_was_waited_for() -> None:
    error = await ended(Running(), lambda waiting: waiting.at_most(0.01, LATE))
    assert (str(error), error.status) == (LATE, 504)


async def test_a_new_wait_replaces_the_deadline_of_the_one_before() -> None:
    def twice(waiting: Waiting) -> None:
        waiting.at_most(0.01, "the first")
        waiting.at_most(NEVER, "the second")

    assert await outlives(twice)


async def test_a_wait_for_the_client_has_no_deadline() -> None:
    def freed(waiting: Waiting) -> None:
        waiting.at_most(0.01, LATE)
        waiting.freely()

    assert await outlives(freed)


@pytest.mark.parametrize("freely", [False, True])
async def test_a_shutdown_ends_turns_whatever_they_wait_for(freely: bool) -> None:
    running = Running()

    def wait(waiting: Waiting) -> None:
        waiting.at_most(NEVER, LATE)
        if freely:
            waiting.freely()
        asyncio.get_running_loop().call_soon(running.stop)

    error = await ended(running, wait)
    assert (str(error), error.status) == ("the server is shutting down", 503)


async def test_after_a_shutdown_no_wait_gets_its_time_back() -> None:
    running = Running()

    def stop_first(waiting: Waiting) -> None:
        running.stop()
        waiting.at_most(NEVER, LATE)
        waiting.freely()

    assert (await ended(running, stop_first)).status == 503


async def test_a_shutdown_that_meets_a_turn_on_its_way_out_is_no_second_end() -> None:
    running = Running()
    error = await ended(running, lambda waiting: waiting.at_most(0.0, LATE), leaving=running.stop)
    assert error.status == 503


async def test_a_turn_counts_as_running_until_it_is_over_however_it_ends() -> None:
    running = Running()
    with running.turn():
        with running.turn():
            assert len(running) == 2
        assert len(running) == 1
    with pytest.raises(ValueError, match="boom"), running.turn():
        raise ValueError("boom")
    assert len(running) == 0


async def test_a_turn_that_is_stopped_ends_what_it_waits_for_and_whatever_it_waits_for_next() -> None:
    stop = Stop()
    stop.now(Cancelled("the first"))
    stop.now(Cancelled("the second"))
    waits: list[Waiting] = []

    async def wait() -> None:
        async with asyncio.timeout(None) as timeout:
            with stop.waiting(timeout) as waiting:
                waits.append(waiting)
                await asyncio.sleep(NEVER)

    for _ in range(2):
        with pytest.raises(TimeoutError):
            await wait()
        assert str(waits[-1].error()) == "the first"


async def test_work_that_nobody_waits_for_is_waited_for_at_the_end() -> None:
    running = Running()
    done: list[str] = []

    async def work(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        done.append(name)

    running.begin(work("begun", 0.02))
    running.let_go(asyncio.create_task(work("let go", 0.01)))
    await running.close(NEVER)
    assert done == ["let go", "begun"]
    with pytest.raises(Unavailable):
        running.admit()


async def test_work_that_takes_too_long_at_the_end_is_stopped() -> None:
    running = Running()
    errors: list[Exception] = []

    async def work() -> None:
        errors.append(await ended(running, nothing_of))

    running.begin(work())
    await asyncio.sleep(0)
    await running.close(0.01)
    assert [str(error) for error in errors] == ["the server is shutting down"]


def nothing_of(waiting: Waiting) -> None:
    pass


async def test_a_turn_that_was_let_go_and_fails_is_logged_and_one_that_is_cancelled_is_not() -> None:
    running = Running()

    async def fails() -> None:
        raise ValueError("boom")

    with capture_logs() as logs:
        running.let_go(asyncio.create_task(fails()))
        cancelled = asyncio.create_task(asyncio.sleep(NEVER))
        running.let_go(cancelled)
        cancelled.cancel()
        await running.close(NEVER)
    assert [entry["event"] for entry in logs] == ["a turn whose client had left failed"]


def test_a_server_that_shuts_down_takes_no_new_work() -> None:
    running = Running()
    running.admit()
    running.draining = True
    with pytest.raises(Unavailable, match="shutting down") as caught:
        running.admit()
    assert (caught.value.status, caught.value.code) == (503, "server_is_overloaded")
    assert caught.value.headers == {"retry-after": "1"}


async def test_a_turn_ends_after_its_whole_time_however_steadily_its_provider_sends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rejoinder.server.running.TURN_TIMEOUT", 0.02)
    error = await ended(Running(), lambda waiting: waiting.at_most(NEVER, LATE))
    assert (str(error), error.status) == ("the turn took longer than 0 s", 504)
