"""The plugin of pytest: every rule is a test.

    pytest --rejoinder-url=http://127.0.0.1:8080/v1 --rejoinder-model=demo

pytest imports this whenever it starts, so the judge itself is imported only once there is somebody to judge.
"""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rejoinder.conformance.dialects import DIALECTS, PORT, Dialect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rejoinder.conformance.paired import Provider
    from rejoinder.conformance.rule import Rule
    from rejoinder.conformance.server import Server
    from rejoinder.conformance.verdict import Verdict


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rejoinder", "rules of the Responses API")
    add = group.addoption
    add("--rejoinder-url", metavar="URL", help="judge the server there; the URL ends with the version of the API")
    add("--rejoinder-model", metavar="NAME", help="a model that answers there")
    add("--rejoinder-api-key-env", metavar="VAR", help="the environment variable that holds the API key")
    add("--rejoinder-other-api-key-env", metavar="VAR", help="the variable that holds the key of somebody else")
    add("--rejoinder-paired", choices=DIALECTS, metavar="DIALECT", help="be the provider behind it, and speak this")
    add("--rejoinder-provider-port", type=int, default=PORT, metavar="PORT", help="where (default: %(default)s)")
    add("--rejoinder-codex", metavar="PATH", help="the Codex program, to be run once against it")
    add(
        "--rejoinder-only",
        action="append",
        default=[],
        metavar="RULES",
        help="look at these alone: ids, chapters or globs, with commas between them",
    )
    add("--rejoinder-timeout", type=float, default=120.0, metavar="SECONDS", help="for one answer (default: 120)")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whoever names a server and no files wants the rules alone."""
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    return True if config.getoption("rejoinder_url") and not named else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the rules, before others choose among the tests."""
    if not config.getoption("rejoinder_url"):
        return
    from rejoinder.conformance.errors import UnknownRule
    from rejoinder.conformance.suite import chosen

    try:
        rules = chosen(config.getoption("rejoinder_only"))
    except UnknownRule as error:
        raise pytest.UsageError(f"--rejoinder-only: {error}") from None
    court = Court(config)
    config.add_cleanup(court.close)
    for name in dict.fromkeys(rule.chapter.name for rule in rules):
        chapter = ChapterNode.from_parent(session, name=name, nodeid=f"conformance::{name}")
        chapter.rules, chapter.court = [rule for rule in rules if rule.chapter.name == name], court
        items.extend(session.genitems(chapter))


class Court:
    """The one server of a session, and the loop it lives in."""

    def __init__(self, config: pytest.Config) -> None:
        self._url = str(config.getoption("rejoinder_url"))
        self._timeout = float(config.getoption("rejoinder_timeout"))
        model = config.getoption("rejoinder_model")
        if not model:
            raise pytest.UsageError("--rejoinder-url: expected --rejoinder-model, too")
        self._model = str(model)
        self._key = _key(config, "--rejoinder-api-key-env")
        self._other_key = _key(config, "--rejoinder-other-api-key-env")
        codex = config.getoption("rejoinder_codex")
        self._codex = None if codex is None else Path(codex).absolute()
        self._paired: Dialect | None = config.getoption("rejoinder_paired")
        self._port = int(config.getoption("rejoinder_provider_port"))
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._server: Server | None = None

    def judge(self, rule: "Rule") -> "Verdict":
        return self._runner.run(self._judged(rule))

    async def _judged(self, rule: "Rule") -> "Verdict":
        from rejoinder.conformance.arrival import arrive
        from rejoinder.conformance.errors import Unreachable
        from rejoinder.conformance.program import Codex
        from rejoinder.conformance.server import Server
        from rejoinder.conformance.verdict import judge

        if self._server is None:
            try:
                provider = self._provider()
                self._server = await self._stack.enter_async_context(
                    Server.at(
                        self._url,
                        self._model,
                        key=self._key,
                        other_key=self._other_key,
                        timeout=self._timeout,
                        provider=provider,
                        codex=None if self._codex is None else Codex(self._codex),
                    )
                )
                await arrive(self._server)
            except Unreachable as error:
                pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
        return await judge(rule, self._server)

    def _provider(self) -> "Provider | None":
        from rejoinder.conformance.paired import Provider

        if self._paired is None:
            return None
        return self._stack.enter_context(Provider.listening(self._paired, self._port))

    def close(self) -> None:
        with self._runner as runner:
            runner.run(self._stack.aclose())


def _key(config: pytest.Config, option: str) -> str | None:
    variable = config.getoption(option)
    key = os.environ.get(variable) if variable else None
    if variable and not key:
        raise pytest.UsageError(f"{option}: the variable {variable} is not set")
    return key


class ChapterNode(pytest.Collector):
    """A chapter: its rules are its tests."""

    rules: "Sequence[Rule]"
    court: Court

    def collect(self) -> "Iterator[pytest.Item]":
        for rule in self.rules:
            item = RuleItem.from_parent(self, name=rule.id.partition(".")[2])
            item.rule, item.court = rule, self.court
            yield item


class RuleItem(pytest.Item):
    """A rule, as a test."""

    rule: "Rule"
    court: Court

    def runtest(self) -> None:
        from rejoinder.conformance.junit import explained

        verdict = self.court.judge(self.rule)
        if verdict.outcome == "not_applicable":
            pytest.skip(verdict.reason)
        if verdict.outcome != "kept":
            pytest.fail(explained(verdict), pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        return Path(__file__), None, self.rule.id
