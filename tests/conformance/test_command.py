import asyncio
import json
import runpy
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rejoinder.conformance.command import main
from rejoinder.conformance.suite import CASES
from tests.conformance.little_server import MODEL, LittleServer, serving

KEY = "sk-little"


@contextmanager
def in_a_thread(little: LittleServer) -> Iterator[str]:
    """The command has a loop of its own, so the server needs another one."""
    url: list[str] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    enough = asyncio.Event()

    async def serve() -> None:
        async with serving(little) as address:
            url.append(address)
            ready.set()
            await enough.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(5)
    try:
        yield url[0]
    finally:
        loop.call_soon_threadsafe(enough.set)
        thread.join(5)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with in_a_thread(LittleServer(key=KEY)) as address:
        yield address


def test_every_case_has_its_line_and_the_status_is_0(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([url, "--model", MODEL, "--key", KEY]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [*(f"pass  {case.name}" for case in CASES), f"{len(CASES)} passed, 0 failed, 0 skipped"]


def test_the_key_may_be_in_the_environment(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFORMANCE_API_KEY", KEY)
    assert main([url, "--model", MODEL, "--only", "models-are-a-list", "--only", "refusals"]) == 0
    assert "pass  a-request-without-its-key-is-refused" in capsys.readouterr().out


def test_a_broken_rule_is_told_and_the_status_is_1(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([url, "--model", "another", "--key", KEY, "--only", "usage-adds-up"]) == 1
    failed, total = capsys.readouterr().out.splitlines()
    assert failed.startswith("FAIL  usage-adds-up: expected status 200, got status 400: ")
    assert failed.endswith("[API reference, usage (objects.md §4)]")
    assert total == "0 passed, 1 failed, 0 skipped"
    assert KEY not in failed


def test_json_is_one_list(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([url, "--model", MODEL, "--key", KEY, "--only", "models-are-a-list", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["case"], row["outcome"]) == ("models-are-a-list", "pass")


def test_the_cases_can_be_listed_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CASES)
    assert lines[0].startswith("answers       a-response-has-every-key: A response carries all of its keys")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "expected a base URL and --model"),
        (["http://127.0.0.1:1/v1"], "expected a base URL and --model"),
        (["http://127.0.0.1:1/v1", "--model", "a", "--only", "b"], "got 'b'; --list shows them"),
    ],
)
def test_wrong_arguments_end_with_2(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_it_is_run_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["conformance", "--list"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("rejoinder.conformance", run_name="__main__")
    assert caught.value.code == 0
    assert "usage-adds-up" in capsys.readouterr().out
