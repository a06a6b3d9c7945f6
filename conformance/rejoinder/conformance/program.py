"""The Codex program itself, run once against a server (codex.md §1)."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from rejoinder.conformance.errors import NoAnswer

_KEY = "REJOINDER_JUDGED_KEY"
_DEAD_PROXY = "http://127.0.0.1:9"


@dataclass(frozen=True, slots=True)
class Ran:
    """`printed` is a line of JSON for each event, and warnings between them."""

    status: int
    printed: bytes


class Program(Protocol):
    async def __call__(self, prompt: str, *, url: str, model: str, key: str | None, timeout: float) -> Ran:
        """Raises NoAnswer when it does not end in time."""


@dataclass(frozen=True, slots=True)
class Codex:
    """One turn each, with a home and a folder of its own. The model may run commands, which can change nothing."""

    path: Path

    async def __call__(self, prompt: str, *, url: str, model: str, key: str | None, timeout: float) -> Ran:
        with TemporaryDirectory(prefix="rejoinder-codex-") as folder:
            home, work = _furnished(Path(folder), _config(url, model, with_key=key is not None))
            options = ["--skip-git-repo-check", "--sandbox", "read-only", "--disable", "plugins", "--json"]
            command = [str(self.path), "exec", *options, "--", prompt]
            async with _started(command, work, _environment(home, url, key)) as process:
                try:
                    printed, _ = await asyncio.wait_for(process.communicate(), timeout)
                except TimeoutError:
                    raise NoAnswer("an end of Codex in time", "none") from None
            assert process.returncode is not None
            return Ran(process.returncode, printed)


def _furnished(folder: Path, config: str) -> tuple[Path, Path]:
    """A home with this configuration, and a folder to work in."""
    home, work = folder / "home", folder / "work"
    home.mkdir()
    work.mkdir()
    (home / "config.toml").write_text(config)
    return home, work


def _config(url: str, model: str, *, with_key: bool) -> str:
    # A text of JSON is one of TOML.
    lines = [
        f"model = {_quoted(model)}",
        'model_provider = "judged"',
        'approval_policy = "never"',
        "[model_providers.judged]",
        'name = "judged"',
        f"base_url = {_quoted(url)}",
        'wire_api = "responses"',
        "request_max_retries = 0",
        "stream_max_retries = 0",
        f'env_key = "{_KEY}"' if with_key else "",
    ]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _environment(home: Path, url: str, key: str | None) -> dict[str, str]:
    """Nothing of the caller's but the way to programs, and no way to anybody but the server."""
    dead = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _DEAD_PROXY)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "CODEX_HOME": str(home),
        "NO_PROXY": urlsplit(url).hostname or "",
        **dead,
        **({_KEY: key} if key is not None else {}),
    }


@asynccontextmanager
async def _started(
    command: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process in a session of its own: what it started goes with it."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
