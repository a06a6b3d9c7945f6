from collections.abc import Iterator
from pathlib import Path

import pytest

from rejoinder.conformance.paired import base_url
from rejoinder.conformance.suite import RULES
from tests.conformance.judging import KEY, OPEN, OTHER_KEY, in_a_thread, threaded
from tests.conformance.little_bridge import LittleBridge, bridging
from tests.conformance.little_server import MODEL, LittleServer
from tests.live import free_port

pytest_plugins = "pytester"

VARIABLE = "LITTLE_API_KEY"
OTHER_VARIABLE = "OTHER_API_KEY"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with in_a_thread(LittleServer(key=KEY, other_key=OTHER_KEY)) as address:
        yield address


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> "Run":
    # Whatever else is installed here, the plugin is on trial alone.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setenv(OTHER_VARIABLE, OTHER_KEY)
    return Run(pytester)


class Run:
    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester

    def __call__(self, *arguments: str) -> pytest.RunResult:
        return self._pytester.runpytest_inprocess("-p", "rejoinder.conformance.plugin", "-rs", *arguments)


def named(url: str) -> list[str]:
    return [
        f"--rejoinder-url={url}",
        f"--rejoinder-model={MODEL}",
        f"--rejoinder-api-key-env={VARIABLE}",
        f"--rejoinder-other-api-key-env={OTHER_VARIABLE}",
    ]


def test_every_rule_is_a_test(run: Run, url: str, tmp_path: Path) -> None:
    codex = tmp_path / "codex"
    codex.write_text("""#!/bin/sh\necho '{"type":"turn.completed"}'\n""")
    codex.chmod(0o755)
    result = run(*named(url), f"--rejoinder-codex={codex}", "-v")
    result.assert_outcomes(passed=len(OPEN), skipped=len(RULES) - len(OPEN))
    result.stdout.fnmatch_lines(["conformance::create::a-plain-answer-is-json PASSED*"])


def test_a_broken_rule_fails_with_its_transcript_and_one_that_does_not_apply_is_skipped(run: Run) -> None:
    little = LittleServer(refuses="text")
    with in_a_thread(little) as address:
        result = run(*named(address), "--rejoinder-only=errors,formats", "-k", "its-key or json or unknown-path")
    result.assert_outcomes(failed=1, skipped=1, passed=1, deselected=36)
    result.stdout.fnmatch_lines(
        [
            "*errors.a-request-without-its-key-is-refused*",
            "expected status 401, got status 200:*",
            "Where a key is asked for, a request without one is status 401.",
            "Source: Guide, Error codes (http.md §6.2)",
            "> GET /models",
            "SKIPPED*the server refuses 'text': not served here",
        ]
    )


def test_rules_are_chosen_as_tests_are(run: Run, url: str) -> None:
    result = run(*named(url), "--rejoinder-only=lists.*,images", "-k", "model")
    result.assert_outcomes(passed=2, deselected=24)


def test_files_that_are_named_are_collected_too_and_others_are_not(
    run: Run, url: str, pytester: pytest.Pytester
) -> None:
    file = pytester.makepyfile("def test_something(): pass")
    run(*named(url), "--rejoinder-only=*json*").assert_outcomes(passed=3)
    run(*named(url), "--rejoinder-only=*json*", str(file)).assert_outcomes(passed=4)


def test_without_a_server_nothing_is_added(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_something(): pass")
    run().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rejoinder-url=http://127.0.0.1:1/v1"], "ERROR: --rejoinder-url: expected --rejoinder-model, too"),
        (
            ["--rejoinder-url=http://127.0.0.1:1/v1", "--rejoinder-model=a", "--rejoinder-only=stream"],
            "ERROR: --rejoinder-only: *did you mean 'streams'[?]",
        ),
        (
            ["--rejoinder-url=http://127.0.0.1:1/v1", "--rejoinder-model=a", "--rejoinder-api-key-env=NO_KEY"],
            "ERROR: --rejoinder-api-key-env: the variable NO_KEY is not set*",
        ),
    ],
)
def test_wrong_options_say_what_to_do(arguments: list[str], told: str, run: Run) -> None:
    result = run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([told])


def test_nobody_to_judge_ends_the_session(run: Run) -> None:
    result = run("--rejoinder-url=http://127.0.0.1:1/v1", "--rejoinder-model=a")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["*Is the server running*"])


def test_the_suite_can_be_the_provider_behind_the_server(run: Run) -> None:
    port = free_port()
    with threaded(bridging(LittleBridge(base_url("chat", port)))) as address:
        paired = ["--rejoinder-paired=chat", f"--rejoinder-provider-port={port}"]
        result = run(
            f"--rejoinder-url={address}",
            f"--rejoinder-model={MODEL}",
            "--rejoinder-only=fidelity.a-text-is-exact",
            *paired,
        )
    result.assert_outcomes(passed=1)
