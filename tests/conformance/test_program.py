import os
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from rejoinder.conformance.errors import NoAnswer
from rejoinder.conformance.program import Codex, Ran

URL = 'http://127.0.0.1:1/v1?"quoted"'

Program = Callable[[str], Codex]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A program that is this script of the shell."""

    def made(script: str) -> Codex:
        path = tmp_path / "codex"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return Codex(path)

    return made


async def ran(codex: Codex, *, key: str | None = None, timeout: float = 10) -> Ran:
    return await codex("Say hello.", url=URL, model="my-model", key=key, timeout=timeout)


async def test_it_is_asked_once_in_a_folder_of_its_own(program: Program) -> None:
    found = await ran(program('echo "$@"; pwd; ls; echo "$HOME"; exit 3'))
    asked, folder, home = found.printed.decode().splitlines()
    assert asked == "exec --skip-git-repo-check --sandbox read-only --disable plugins --json -- Say hello."
    assert (Path(folder).name, Path(home).name, found.status) == ("work", "home", 3)
    assert not is_there(folder)


def is_there(folder: str) -> bool:
    return Path(folder).exists()


async def test_it_is_pointed_at_the_server(program: Program) -> None:
    config = tomllib.loads((await ran(program("cat $CODEX_HOME/config.toml"), key="sk-1")).printed.decode())
    assert config == {
        "model": "my-model",
        "model_provider": "judged",
        "approval_policy": "never",
        "model_providers": {
            "judged": {
                "name": "judged",
                "base_url": URL,
                "wire_api": "responses",
                "request_max_retries": 0,
                "stream_max_retries": 0,
                "env_key": "REJOINDER_JUDGED_KEY",
            }
        },
    }


async def test_without_a_key_it_looks_for_none(program: Program) -> None:
    printed = (await ran(program("cat $CODEX_HOME/config.toml; env"))).printed
    assert b"env_key" not in printed
    assert b"REJOINDER_JUDGED_KEY" not in printed


async def test_it_gets_nothing_of_our_environment_but_the_path(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    lines = (await ran(program("env"), key="sk-1")).printed.decode().splitlines()
    environment = dict(line.split("=", 1) for line in lines)
    assert environment["REJOINDER_JUDGED_KEY"] == "sk-1"
    assert environment["PATH"] == os.environ["PATH"]
    assert (environment["HTTPS_PROXY"], environment["NO_PROXY"]) == ("http://127.0.0.1:9", "127.0.0.1")
    assert "OPENAI_API_KEY" not in environment


async def test_what_does_not_end_in_time_is_ended_with_all_it_started(program: Program, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(NoAnswer, match="expected an end of Codex in time, got none"):
        await ran(program(f"sleep 60 & echo $! > {pid}; wait"), timeout=0.5)
    assert has_ended(int(pid.read_text()))


def has_ended(pid: int) -> bool:
    """Whether the process is no more, or is dead and nobody has asked for its end."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
        if state.startswith("Z"):
            return True
    return False
