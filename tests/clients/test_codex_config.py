"""What the real Codex makes of our entries and our catalogue (codex.md §1, §6).

Needs the program: set REJOINDER_CODEX to the path of a `codex` executable. Everything runs in a CODEX_HOME of its own,
against a server on loopback that stands for ours and writes down what it was asked.
"""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from rejoinder.server.codex import catalogue, write

CODEX = os.environ.get("REJOINDER_CODEX", "")

pytestmark = [
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.skipif(not CODEX, reason="REJOINDER_CODEX does not name a codex program"),
]


class Asked(msgspec.Struct):
    """One request as it arrived."""

    method: str
    path: str
    authorization: str | None
    body: bytes


class Stage(ThreadingHTTPServer):
    """Answers `GET /v1/models` with our catalogue and every turn with the same words."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Asked] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def paths(self, method: str) -> list[str]:
        return [asked.path.partition("?")[0] for asked in self.asked if asked.method == method]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Stage

    def do_GET(self) -> None:
        self._note(b"")
        listed = {"object": "list", "data": [], "models": catalogue(["first-model", "second-model"])}
        self._answer(msgspec.json.encode(listed), "application/json")

    def do_HEAD(self) -> None:
        self._note(b"")
        self.send_error(405)

    def do_POST(self) -> None:
        self._note(self.rfile.read(int(self.headers["content-length"])))
        message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "well heard"}]}
        events = (
            {"type": "response.output_item.done", "output_index": 0, "item": {"id": "msg_1", **message}},
            {"type": "response.completed", "response": {"id": "resp_1"}},
        )
        self._answer("".join(f"data: {json.dumps(event)}\n\n" for event in events).encode(), "text/event-stream")

    def _note(self, body: bytes) -> None:
        self.server.asked.append(Asked(self.command, self.path, self.headers["authorization"], body))

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The standard one writes to stderr."""


@pytest.fixture
def stage() -> Iterator[Stage]:
    server = Stage()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A CODEX_HOME with settings of its own, which are not to be touched."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "config.toml").write_text('model = "gpt-5.5"\n\n[tui]\nnotifications = false\n', encoding="utf-8")
    return folder


def codex(home: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Codex run from an empty folder, with every outside host behind a proxy that is not there."""
    work = home.parent / "work"
    work.mkdir(exist_ok=True)
    return subprocess.run(
        [CODEX, *arguments],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home.parent),
            "CODEX_HOME": str(home),
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1",
            **environ,
        },
        cwd=work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


EXEC = ("exec", "--strict-config", "--skip-git-repo-check", "--disable", "plugins")


@pytest.mark.parametrize("keyed", [False, True])
def test_the_profile_is_accepted_and_the_models_are_known_from_our_catalogue(
    stage: Stage, home: Path, keyed: bool
) -> None:
    write(home / "config.toml", stage.url, model="second-model", keyed=keyed, websocket=False, serves=lambda _: True)
    done = codex(home, *EXEC, "-p", "rejoinder", "hello", **({"REJOINDER_API_KEY": "made-up"} if keyed else {}))
    assert done.returncode == 0, done.stderr
    assert "well heard" in done.stdout
    assert "Model metadata" not in done.stdout + done.stderr
    assert stage.paths("GET") == ["/v1/models"]
    assert {asked.authorization for asked in stage.asked} == {"Bearer made-up" if keyed else "Bearer none"}
    [turn] = [json.loads(asked.body) for asked in stage.asked if asked.method == "POST"]
    assert turn["model"] == "second-model"
    assert turn["input"][0]["content"][0]["text"] == catalogue(["m"])[0].base_instructions
    assert ("custom", "apply_patch") in [(tool["type"], tool.get("name")) for tool in turn["tools"]]
    assert ("function", "exec_command") in [(tool["type"], tool.get("name")) for tool in turn["tools"]]
    assert "effort" not in turn["reasoning"]


def test_the_catalogue_is_read_as_it_was_meant(stage: Stage, home: Path) -> None:
    write(home / "config.toml", stage.url, model="first-model", keyed=False, websocket=False, serves=lambda _: True)
    done = codex(home, "debug", "models", "-c", 'model_provider="rejoinder"')
    models = json.loads(done.stdout)["models"]
    assert [model["slug"] for model in models] == ["first-model", "second-model"]
    for model, ours in zip(models, catalogue(["first-model", "second-model"]), strict=True):
        assert model["context_window"] == ours.context_window
        assert model["apply_patch_tool_type"] == "freeform"
        assert [level["effort"] for level in model["supported_reasoning_levels"]] == ["low", "medium", "high"]
        assert model["model_messages"]["instructions_template"] == ours.base_instructions


def test_without_the_profile_nothing_of_ours_is_selected_or_asked(stage: Stage, home: Path) -> None:
    def bundled() -> str:
        return codex(home, "debug", "models", "--bundled").stdout

    before = bundled()
    write(home / "config.toml", stage.url, model="first-model", keyed=True, websocket=False, serves=lambda _: True)
    done = codex(home, "doctor", "--json")
    assert bundled() == before
    assert json.loads(done.stdout)["checks"]["config.load"]["details"]["model provider"] == "openai"
    assert stage.asked == []


def test_the_doctor_finds_the_server_reachable(stage: Stage, home: Path) -> None:
    write(home / "config.toml", stage.url, model="first-model", keyed=False, websocket=False, serves=lambda _: True)
    done = codex(home, "doctor", "--network-only", "--ascii", "-c", 'model_provider="rejoinder"')
    assert "0 fail" in done.stdout
    assert "active provider endpoints are reachable over HTTP" in done.stdout


def test_an_entry_beside_other_providers_is_accepted_wherever_they_are_written(stage: Stage, home: Path) -> None:
    dotted = 'model_providers.a.name = "A"\nmodel_providers.a.base_url = "http://127.0.0.1:9/v1"\n[tui]\n'
    (home / "config.toml").write_text(dotted, encoding="utf-8")
    write(home / "config.toml", stage.url, model="first-model", keyed=False, websocket=False, serves=lambda _: True)
    done = codex(home, *EXEC, "-p", "rejoinder", "hello")
    assert done.returncode == 0, done.stderr
    assert "well heard" in done.stdout


def test_the_older_form_of_the_profile_is_what_codex_refuses(stage: Stage, home: Path) -> None:
    write(home / "config.toml", stage.url, model="first-model", keyed=False, websocket=False, serves=lambda _: True)
    with (home / "config.toml").open("a", encoding="utf-8") as file:
        file.write('[profiles.rejoinder]\nmodel = "x"\n')
    done = codex(home, *EXEC, "-p", "rejoinder", "hello")
    assert done.returncode != 0
    assert "contains legacy" in done.stderr
