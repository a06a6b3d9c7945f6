"""Codex CLI as a client: one home folder, one model, short non-interactive runs (codex.md).

Codex makes one of three shapes of request, and decides by the metadata it has for the model's name (codex.md, table at
the top). The plain shape is what any unknown name gets; the other two come from a catalog written into the home folder.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Literal

import msgspec
import tomlkit

Shape = Literal["plain", "classic", "lite"]

KEY_VARIABLE = "REJOINDER_CODEX_KEY"
"""The variable in which Codex finds its key; unset would be a fatal error (codex.md §1)."""

_DEAD_PROXY = "http://127.0.0.1:9"


class CodexItem(msgspec.Struct, frozen=True):
    """The part of a `--json` item the tests read. `aggregated_output` and `exit_code` belong to commands, `result`
    to MCP calls, `query` to web searches, `text` to messages and reasoning, `message` to errors."""

    id: str = ""
    type: str = ""
    text: str = ""
    message: str = ""
    status: str = ""
    command: str = ""
    aggregated_output: str = ""
    exit_code: int | None = None
    server: str = ""
    tool: str = ""
    query: str = ""
    result: msgspec.Raw = msgspec.Raw(b"null")
    changes: msgspec.Raw = msgspec.Raw(b"null")


class CodexUsage(msgspec.Struct, frozen=True):
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0


class CodexFailure(msgspec.Struct, frozen=True):
    message: str = ""


class CodexEvent(msgspec.Struct, frozen=True):
    """One line of `codex exec --json`: thread.started, turn.*, item.* or error."""

    type: str
    thread_id: str = ""
    item: CodexItem = CodexItem()
    usage: CodexUsage = CodexUsage()
    error: CodexFailure = CodexFailure()
    message: str = ""


@dataclass(frozen=True, slots=True)
class CodexRun:
    """How one `codex exec` ended. `last_message` is the text of its final answer, "" when there was none."""

    exit_code: int
    events: tuple[CodexEvent, ...]
    stdout: str
    stderr: str
    last_message: str
    seconds: float

    @property
    def thread_id(self) -> str:
        """What `exec(resume=…)` takes to go on with this conversation."""
        return next((event.thread_id for event in self.events if event.thread_id), "")

    def finished(self, item_type: str) -> list[CodexItem]:
        """The completed items of one type: agent_message, reasoning, command_execution, file_change, mcp_tool_call…"""
        return [event.item for event in self.events if event.type == "item.completed" and event.item.type == item_type]

    @property
    def failure(self) -> str:
        """What was printed as the reason why the turn failed, "" when it did not."""
        return next((event.error.message for event in self.events if event.type == "turn.failed"), "")

    @property
    def retries(self) -> list[str]:
        """What was printed each time Codex asked again: "Reconnecting... 1/5 (…)"."""
        return [event.message for event in self.events if event.type == "error" and "Reconnecting" in event.message]


@dataclass(frozen=True, slots=True)
class McpServer:
    """A stdio MCP server that Codex starts; its tools come back as the namespace `mcp__<name>` (codex.md §4)."""

    name: str
    command: Sequence[str]


@dataclass(frozen=True, slots=True)
class Codex:
    """A Codex installation of its own under `home`, pointed at `base_url` (which ends in `/v1`).

    `settings` are further top-level keys of config.toml, for example `model_auto_compact_token_limit`; `provider` are
    further keys of the provider, for example `stream_idle_timeout_ms`.
    """

    home: Path
    base_url: str
    shape: Shape = "plain"
    model: str = "my-model"
    key: str = "codex-key"
    provider_name: str = "Local"
    websocket: bool = False
    mcp: Sequence[McpServer] = ()
    settings: Mapping[str, str | int | bool] = field(default_factory=dict)
    provider: Mapping[str, str | int | bool] = field(default_factory=dict)

    def exec(
        self,
        prompt: str,
        *,
        workdir: Path,
        images: Sequence[Path] = (),
        resume: str | None = None,
        arguments: Sequence[str] = (),
        timeout: float = 30,
    ) -> CodexRun:
        """Run one turn in `workdir` and wait for it; `resume` is the thread id of an earlier run.

        Raises TimeoutError, with what was printed so far, when the run takes longer than `timeout` seconds.
        """
        last_message = self.home / "last-message.txt"
        last_message.unlink(missing_ok=True)
        self.configure()
        command = [binary(), "exec", *(["resume"] if resume else [])]
        # There is no sandbox inside a container, and asking outside hosts for plugins only costs time.
        command += ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--disable", "plugins"]
        command += ["--json", "--output-last-message", str(last_message), *arguments]
        for image in images:
            command += ["--image", str(image)]
        # `--image` takes every word after it, up to `--`.
        command += ["--", *([resume] if resume else []), prompt]
        started = monotonic()
        exit_code, stdout, stderr = _run(command, workdir, self.environment(), timeout)
        return CodexRun(
            exit_code=exit_code,
            events=tuple(msgspec.json.decode(line, type=CodexEvent) for line in stdout.splitlines() if line),
            stdout=stdout,
            stderr=stderr,
            last_message=last_message.read_text() if last_message.exists() else "",
            seconds=monotonic() - started,
        )

    def rollout(self, thread_id: str) -> Path:
        """The file with the history of one conversation, a JSON object a line: what `exec(resume=…)` sends again."""
        [file] = (self.home / "sessions").rglob(f"rollout-*-{thread_id}.jsonl")
        return file

    def environment(self) -> dict[str, str]:
        """Nothing of the caller's environment but the way to programs: no keys, no home, no way out of loopback."""
        dead = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _DEAD_PROXY)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "CODEX_HOME": str(self.home),
            "NO_PROXY": "127.0.0.1,localhost",
            KEY_VARIABLE: self.key,
            **dead,
        }

    def configure(self) -> None:
        """Write what was set into the home folder."""
        self.home.mkdir(parents=True, exist_ok=True)
        config = tomlkit.document()
        config.update({"model": self.model, "model_provider": "rejoinder", **self.settings})
        if self.shape != "plain":
            catalog = self.home / "catalog.json"
            catalog.write_bytes(msgspec.json.encode({"models": [_metadata(self.model, self.shape)]}))
            config["model_catalog_json"] = str(catalog)
        provider = {
            "name": self.provider_name,
            "base_url": self.base_url,
            "env_key": KEY_VARIABLE,
            "wire_api": "responses",
            "supports_websockets": self.websocket,
            **self.provider,
        }
        config["model_providers"] = {"rejoinder": provider}
        servers = {one.name: {"command": one.command[0], "args": list(one.command[1:])} for one in self.mcp}
        if servers:
            config["mcp_servers"] = servers
        (self.home / "config.toml").write_text(tomlkit.dumps(config))


def binary() -> str:
    """The Codex program to drive, named by REJOINDER_CODEX. Raises LookupError when the variable is not set."""
    found = shutil.which(os.environ.get("REJOINDER_CODEX", ""))
    if found is None:
        raise LookupError("expected REJOINDER_CODEX to name the codex program")
    # A package from npm starts the program by way of node, which adds a good half to a short run.
    script = Path(found).resolve()
    native = next(script.parent.parent.parent.glob("codex-*/vendor/*/bin/codex"), script)
    return str(native)


def _metadata(model: str, shape: Shape) -> Mapping[str, object]:
    """A catalog entry that makes Codex speak `shape`: the smallest it accepts (codex.md §6) and what makes the shape
    ("classic / lite" in the table at the top of codex.md)."""
    entry: dict[str, object] = {
        "slug": model,
        "display_name": model,
        "supported_reasoning_levels": [{"effort": "low", "description": "low"}],
        "default_reasoning_level": "low",
        "shell_type": "unified_exec",
        "visibility": "list",
        "supported_in_api": True,
        "priority": 1,
        "support_verbosity": True,
        "default_verbosity": "low",
        "truncation_policy": {"mode": "tokens", "limit": 10000},
        "experimental_supported_tools": [],
        "base_instructions": "You are a coding assistant.",
        "input_modalities": ["text", "image"],
        "apply_patch_tool_type": "freeform",
        "supports_search_tool": True,
        "context_window": 272_000,
    }
    if shape == "lite":
        entry |= {"use_responses_lite": True, "tool_mode": "code_mode_only", "multi_agent_version": "v2"}
    return entry


def _run(command: Sequence[str], workdir: Path, environment: Mapping[str, str], timeout: float) -> tuple[int, str, str]:
    # A session of its own: Codex starts the commands of the model, and they have to go with it.
    process = subprocess.Popen(
        command,
        cwd=workdir,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        raise TimeoutError(f"codex did not end within {timeout} seconds: {stdout}\n{stderr}") from None
    return process.returncode, stdout, stderr
