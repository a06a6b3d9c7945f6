import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rejoinder.conformance import command
from rejoinder.conformance.command import main
from rejoinder.conformance.paired import base_url
from rejoinder.conformance.report import decode
from rejoinder.conformance.suite import RULES
from tests.conformance.judging import KEY, OPEN, OTHER_KEY, in_a_thread, threaded
from tests.conformance.little_bridge import LittleBridge, bridging
from tests.conformance.little_server import MODEL, LittleServer
from tests.conformance.pages import parsed
from tests.conformance.reports import report, verdict
from tests.live import free_port

Captured = pytest.CaptureFixture[str]

VARIABLE = "LITTLE_API_KEY"
OTHER_VARIABLE = "OTHER_API_KEY"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with in_a_thread(LittleServer(key=KEY, other_key=OTHER_KEY)) as address:
        yield address


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setenv(OTHER_VARIABLE, OTHER_KEY)


@pytest.fixture
def codex(tmp_path: Path) -> str:
    """A program that is no Codex, and says that all is well."""
    path = tmp_path / "codex"
    path.write_text("""#!/bin/sh\necho '{"type":"turn.completed"}'\n""")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def given(url: str, codex: str) -> list[str]:
    """The arguments that name the server and all there is to judge it with."""
    keys = ["--api-key-env", VARIABLE, "--other-api-key-env", OTHER_VARIABLE]
    return [url, "--model", MODEL, *keys, "--codex", codex]


@pytest.fixture
def breaking() -> Iterator[str]:
    """The address of a server that breaks a rule about keys: it asks for none."""
    with in_a_thread(LittleServer()) as address:
        yield address


def test_every_rule_has_a_line_and_a_row_and_the_status_is_0(given: list[str], capsys: Captured) -> None:
    assert main(given) == 0
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == [rule.id for rule in RULES]
    kept = [line for line in lines if not line.endswith(": needs --paired")]
    assert kept == [f"kept          {rule.id}" for rule in OPEN]
    rows = told.out.splitlines()
    assert [row.split()[1] for row in rows if row.startswith("  kept")] == [rule.id for rule in OPEN]
    paired = len(RULES) - len(OPEN)
    assert rows[-1].startswith(f"{len(OPEN)} kept, {paired} not applicable, of {len(RULES)} rules in ")


def test_only_some_rules_can_be_looked_at_in_silence(given: list[str], capsys: Captured) -> None:
    assert main([*given, "--quiet", "--only", "lists.models-are-a-list", "--only", "formats,*json-of*"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.splitlines()[-1].startswith("8 kept, of 8 rules")


def test_a_broken_rule_is_told_and_the_status_is_1(breaking: str, capsys: Captured) -> None:
    assert main([breaking, "--model", MODEL, "--api-key-env", VARIABLE, "--only", "errors"]) == 1
    told = capsys.readouterr()
    assert "BROKEN        errors.a-request-without-its-key-is-refused: expected status 401, got status 200" in told.err
    assert "  BROKEN      errors.a-request-without-its-key-is-refused\n" in told.out
    assert "              > GET /models\n              < 200 application/json" in told.out
    assert KEY not in told.out + told.err


@pytest.mark.parametrize(
    ("fail_on", "key", "status"),
    [
        ("never", ["--api-key-env", VARIABLE], 0),
        ("broken", [], 0),
        ("not-applicable", [], 1),
    ],
)
def test_the_status_can_be_chosen(fail_on: str, key: list[str], status: int, breaking: str) -> None:
    assert main([breaking, "--model", MODEL, *key, "--only", "errors", "--quiet", "--fail-on", fail_on]) == status


def test_reports_are_written_by_their_endings(given: list[str], tmp_path: Path, capsys: Captured) -> None:
    paths = [tmp_path / name for name in ("a.html", "b.json", "c.xml")]
    reports = [argument for path in paths for argument in ("--report", str(path))]
    assert main([*given, "--quiet", "--name", "Little", "--only", "*json-can-be*", *reports]) == 0
    assert capsys.readouterr().err.splitlines() == [f"written: {path}" for path in paths]
    assert parsed(paths[0].read_bytes()).all("h1")[0].text == "Conformance of Little"
    told = decode(paths[1].read_bytes())
    assert (told.name, told.model, told.url, [rule.outcome for rule in told.rules]) == (
        "Little",
        MODEL,
        given[0],
        ["kept"],
    )
    assert ET.parse(paths[2]).getroot().get("tests") == "1"


def test_a_report_that_cannot_be_written_is_told(given: list[str], tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "a.json").mkdir()
    assert main([*given, "--quiet", "--only", "images", "--report", str(tmp_path / "a.json")]) == 2
    assert "a.json: Is a directory; name another file" in capsys.readouterr().err


def test_rules_can_be_listed_without_a_server(capsys: Captured) -> None:
    assert main(["--list", "--only", "images"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[-1]) == ("Images and files (images)", "5 rules")


def test_nobody_to_judge_ends_with_2(capsys: Captured) -> None:
    assert main([f"http://127.0.0.1:{free_port()}/v1", "--model", MODEL]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("python -m rejoinder.conformance: POST http://127.0.0.1:")
    assert "Is the server running" in told.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "expected the URL of a server and --model; `rejoinder conformance --help` has examples"),
        (["http://127.0.0.1:1/v1"], "expected the URL of a server and --model"),
        (["127.0.0.1:1", "--model", "a"], "expected http://… or https://…, with the version at its end"),
        (["http://127.0.0.1:1/v1", "--model", "a", "--only", "stream"], "did you mean 'streams'?; --list prints them"),
        (["http://127.0.0.1:1/v1", "--model", "a", "--report", "a.txt"], "ends in .html or .json or .xml, got 'a.txt'"),
        (["http://127.0.0.1:1/v1", "--model", "a", "--report", "no/a.xml"], "there is no folder 'no'; make it first"),
        (["http://127.0.0.1:1/v1", "--model", "a", "--api-key-env", "NO_KEY"], "NO_KEY is not set; export it"),
        (
            ["http://127.0.0.1:1/v1", "--model", "a", "--other-api-key-env", "NO_KEY"],
            "--other-api-key-env: the variable NO_KEY is not set",
        ),
        (["http://127.0.0.1:1/v1", "--model", "a", "--codex", "no/codex"], "expected a program, got 'no/codex'"),
        (["compare"], "the following arguments are required: FILE.json"),
    ],
)
def test_wrong_arguments_end_with_2_and_say_what_to_do(arguments: list[str], told: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments, "rejoinder conformance")
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_help_has_examples_and_the_status(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"], "rejoinder conformance")
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert "  rejoinder conformance http://127.0.0.1:8080/v1 --model demo\n" in told
    assert "exit status: 0, or 1 if --fail-on says so, or 2 if nothing could be judged" in told
    assert max(map(len, told.splitlines())) <= 130


def test_reports_are_laid_side_by_side(tmp_path: Path, capsys: Captured) -> None:
    files = [tmp_path / "one.json", tmp_path / "other.json"]
    files[0].write_bytes(report(verdict("kept"), name="one").encode())
    files[1].write_bytes(report(verdict("broken"), name="other").encode())
    page = tmp_path / "card.html"
    assert main(["compare", *map(str, files), "--report", str(page)]) == 0
    assert capsys.readouterr().out.splitlines() == ["one, model demo: 1 kept", "other, model demo: 1 broken"]
    assert [one.text for one in parsed(page.read_bytes()).all("h2")] == ["one", "other"]
    assert main(("compare", str(files[0]))) == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"{}", "a.json: it is not a report of this suite"), (None, "a.json cannot be read: No such file or directory")],
)
def test_what_cannot_be_compared_is_named(content: bytes | None, told: str, tmp_path: Path, capsys: Captured) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    assert main(["compare", str(tmp_path / "a.json")]) == 2
    assert told in capsys.readouterr().err


def test_an_interruption_ends_with_130(given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "arrive", interrupt)
    assert main(given) == 130
    assert capsys.readouterr().err.endswith("interrupted; no report was written\n")


@pytest.mark.parametrize("command", [("rejoinder.conformance",), ("rejoinder.server", "conformance")])
def test_it_is_run_as_a_module_and_as_a_command_of_the_server(command: Sequence[str]) -> None:
    run = subprocess.run([sys.executable, "-m", *command, "--list"], capture_output=True, text=True, check=True)
    assert "objects.usage-adds-up" in run.stdout


def test_the_suite_can_be_the_provider_behind_the_server(capsys: Captured) -> None:
    port = free_port()
    with threaded(bridging(LittleBridge(base_url("chat", port)))) as address:
        paired = ["--paired", "chat", "--provider-port", str(port), "--only", "fidelity.a-text-is-exact"]
        assert main([address, "--model", MODEL, *paired, "--fail-on", "not-applicable"]) == 0
    assert "1 kept" in capsys.readouterr().out
