import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from rejoinder.server.cli import cli, main
from rejoinder.server.settings import Settings, SettingsError, digest
from rejoinder.store import Record, open_store
from rejoinder.store.errors import StoreError

CANARY = "sk-canary-7f3a"
LOCAL = '[[upstream]]\nname = "local"\nbase_url = "http://127.0.0.1:9/v1"\n'


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.endswith("_API_KEY") or name.startswith(("REJOINDER_", "OLLAMA_", "CODEX_")):
            monkeypatch.delenv(name)


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environ, catch_exceptions=False)


def configure(text: str) -> None:
    Path("rejoinder.toml").write_text(text, encoding="utf-8")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What reached the server: the module is replaced, since the real one serves until it is interrupted."""
    seen: list[Settings] = []
    module = ModuleType("rejoinder.server.serving")
    vars(module)["serve"] = seen.append
    monkeypatch.setitem(sys.modules, "rejoinder.server.serving", module)
    monkeypatch.setattr("rejoinder.server.serving", module, raising=False)
    return seen


def test_help_alone_says_how_to_start() -> None:
    told = run("--help")
    assert told.exit_code == 0
    for part in (
        "ANTHROPIC_API_KEY=… rejoinder serve",
        "[[upstream]]",
        "dialect",
        "rejoinder check",
        "codex",
        "key",
        "--version",
    ):
        assert part in told.output
    for command in ("serve", "check", "codex", "key", "store"):
        assert run(command, "--help").exit_code == 0


def test_the_version_is_the_packages() -> None:
    assert run("--version").output == f"rejoinder, version {version('rejoinder')}\n"


def test_serve_says_what_it_serves_and_serves_it(served: list[Settings]) -> None:
    told = run("serve", "--host", "127.0.0.2", "--port", "99", "--store", "disk:./elsewhere")
    assert told.exit_code == 0
    assert "at http://127.0.0.2:99/v1" in told.output
    [settings] = served
    assert (settings.server.host, settings.server.port, settings.server.store) == ("127.0.0.2", 99, "disk:./elsewhere")


def test_settings_that_cannot_be_used_end_with_status_2_and_one_message(served: list[Settings]) -> None:
    configure("[server]\nprot = 1")
    told = run("serve")
    assert told.exit_code == 2
    assert told.stdout == ""
    assert told.stderr == (
        "Error: rejoinder.toml: server.prot: there is no setting of this name; did you mean 'port'?\n"
    )
    assert served == []


@pytest.mark.parametrize("error", [SettingsError("the seal is not 32 bytes"), StoreError("the disk is full")])
def test_what_fails_before_the_first_request_ends_the_same_way(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(settings: Settings) -> None:
        raise error

    monkeypatch.setattr("rejoinder.server.serving.serve", refuse)
    told = run("serve")
    assert (told.exit_code, told.stderr) == (2, f"Error: {error}\n")


def test_check_says_what_the_settings_mean_and_contacts_nobody() -> None:
    configure(LOCAL + 'models = ["m"]\naliases = { fast = "m" }\n')
    told = run("check", "fast", GROQ_API_KEY=CANARY)
    assert told.exit_code == 0
    assert "local  http://127.0.0.1:9/v1  chat  (rejoinder.toml)" in told.output
    assert "found GROQ_API_KEY" in told.output
    assert "'fast' is served by 'local', which is asked for 'm'" in told.output
    assert CANARY not in told.output


def test_check_reads_the_file_it_is_given() -> None:
    Path("other.toml").write_text(LOCAL + 'models = ["m"]', encoding="utf-8")
    assert "(other.toml)" in run("check", "--config", "other.toml").output


def test_check_of_a_model_nobody_serves_ends_with_status_1() -> None:
    told = run("check", "nothing")
    assert told.exit_code == 1
    assert "'nothing': the requested model 'nothing' does not exist" in told.output


@pytest.fixture
def provider() -> Iterator[str]:
    """A provider with one model, on a thread of its own since the command runs its own loop."""
    body = b'{"data":[{"id":"m"}]}'
    loop = asyncio.new_event_loop()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = loop.run_until_complete(asyncio.start_server(talk, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_live_asks_every_upstream_and_fails_when_one_does(provider: str) -> None:
    configure(f'[[upstream]]\nname = "good"\nbase_url = "{provider}"\nmodels = ["m"]\n')
    told = run("check", "--live")
    assert (told.exit_code, told.output.splitlines()[-1]) == (0, "good: ok, 1 models")
    configure(Path("rejoinder.toml").read_text(encoding="utf-8") + LOCAL + 'models = ["*"]\n')
    told = run("check", "m", "--live")
    assert told.exit_code == 1
    assert "good: ok, 1 models" in told.output
    assert "local: nothing answers there" in told.output
    assert run("check", "--live", "good/x").exit_code == 1


def test_codex_prints_what_belongs_where() -> None:
    told = run("codex", CODEX_HOME="/somewhere")
    assert told.exit_code == 0
    assert told.stdout.startswith("# /somewhere/config.toml\n[model_providers.rejoinder]\n")
    assert "# /somewhere/rejoinder.config.toml\n" in told.stdout
    parsed = tomllib.loads(told.stdout.split("# /somewhere/rejoinder.config.toml")[1])
    assert parsed == {"model_provider": "rejoinder", "model": "demo"}
    assert told.stderr == "use it with: codex -p rejoinder\n"


def test_codex_writes_into_the_home_of_codex_once() -> None:
    told = run("codex", "--write", HOME=str(Path.cwd()))
    assert told.stdout == (
        f"wrote {Path.cwd()}/.codex/config.toml and {Path.cwd()}/.codex/rejoinder.config.toml\n"
        "use it with: codex -p rejoinder\n"
    )
    assert "nothing to change in" in run("codex", "--write", HOME=str(Path.cwd())).stdout
    written = tomllib.loads(Path(".codex/config.toml").read_text(encoding="utf-8"))
    assert written["model_providers"]["rejoinder"]["base_url"] == "http://127.0.0.1:8080/v1"


def test_codex_writes_where_and_what_it_is_told() -> None:
    configure(LOCAL + 'models = ["q*"]')
    told = run(
        *("codex", "--write", "--codex-config", "here.toml", "--base-url", "https://box/v1/", "--model", "q1"),
        REJOINDER_API_KEY=CANARY,
    )
    assert told.exit_code == 0
    assert "REJOINDER_API_KEY; export it" in told.stdout
    text = Path("here.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["model_providers"]["rejoinder"]["base_url"] == "https://box/v1"
    assert CANARY not in text + told.output
    assert tomllib.loads(Path("rejoinder.config.toml").read_text(encoding="utf-8"))["model"] == "q1"


def test_codex_needs_a_model_that_is_served() -> None:
    configure(LOCAL + 'models = ["q*"]')
    told = run("codex")
    assert (told.exit_code, told.stderr) == (
        2,
        "Error: no model can be listed, so name one: rejoinder codex --model local/MODEL\n",
    )
    told = run("codex", "--model", "x")
    assert (told.exit_code, told.stderr) == (
        2,
        "Error: no upstream serves 'x'; `rejoinder check` lists what is there\n",
    )


def test_codex_that_cannot_be_edited_is_told() -> None:
    Path("here.toml").write_text("a = ", encoding="utf-8")
    told = run("codex", "--write", "--codex-config", "here.toml")
    assert told.exit_code == 2
    assert told.stderr.startswith("Error: here.toml: expected TOML, so nothing was changed")


def test_a_key_is_printed_once_with_the_block_that_lets_it_in(served: list[Settings]) -> None:
    told = run("key", "new", "alice").output
    key = told.splitlines()[0].removeprefix("key (not shown again): ")
    assert len(key) > 40
    assert told.count(key) == 1
    configure(told[told.index("[[key]]") :])
    assert run("serve", "--host", "0.0.0.0").exit_code == 0
    assert [(known.owner, known.sha256) for known in served[0].keys] == [("alice", digest(key))]
    assert run("key", "new", "alice").output != told


def test_an_owner_that_would_break_the_block_is_refused() -> None:
    told = run("key", "new", 'a"b')
    assert told.exit_code == 2
    assert "expected a name of letters, digits" in told.stderr


def kept(store: str) -> None:
    """A store with one response in it."""

    async def save() -> None:
        opened = open_store(store)
        await opened.save(Record("resp_1", None, 7, "completed", b"{}", [], []), owner="local")
        await opened.close()

    asyncio.run(save())


def test_store_looks_into_the_place_of_the_settings() -> None:
    assert run("store", "stats").exit_code == 2
    kept("disk:./elsewhere")
    configure('[server]\nstore = "disk:./elsewhere"')
    for command in (("stats",), ("stats", "--json"), ("verify",), ("prune", "--dry-run"), ("export", "resp_1")):
        told = run("store", *command)
        assert told.exit_code == 0
        assert told.stdout


def test_store_tells_damage_by_its_exit_status() -> None:
    kept("disk:./rejoinder-data")
    with closing(sqlite3.connect("rejoinder-data/cache.db", isolation_level=None)) as connection:
        connection.execute("UPDATE Cache SET value = x'00'")
    for command in ("verify", "export"):
        told = run("store", command)
        assert told.exit_code == 1
        assert "'response/resp_1' cannot be read" in told.output
    both = run("store", "export", "resp_1", "--conversation", "conv_1")
    assert (both.exit_code, both.stderr) == (2, "Error: name a response or a conversation, not both\n")


def test_the_command_is_installed_and_quick_to_help() -> None:
    assert callable(main)
    program = Path(sys.executable).with_name("rejoinder")
    environ = {"PATH": os.environ["PATH"]}
    done = subprocess.run([program, "check"], capture_output=True, text=True, env=environ, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "demo  answers by itself" in done.stdout
    script = (
        "import sys, rejoinder.server.cli; print([m for m in ('uvicorn', 'aiohttp', 'tomlkit') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_main_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["rejoinder", "--version"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert version("rejoinder") in capsys.readouterr().out
