"""The command: `python -m rejoinder.conformance URL --model NAME`, and `… compare FILE…`."""

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from datetime import UTC, datetime
from pathlib import Path

from rejoinder.conformance.arrival import arrive
from rejoinder.conformance.dialects import DIALECTS, PORT, Dialect
from rejoinder.conformance.errors import ConformanceError, UnknownRule, UnusableReport
from rejoinder.conformance.junit import junit
from rejoinder.conformance.page import page
from rejoinder.conformance.paired import MODELS, Provider, base_url
from rejoinder.conformance.program import Codex
from rejoinder.conformance.progress import Progress
from rejoinder.conformance.report import Report, decode
from rejoinder.conformance.rule import Rule
from rejoinder.conformance.scorecard import scorecard
from rejoinder.conformance.server import Server
from rejoinder.conformance.suite import chosen
from rejoinder.conformance.table import listing, spoken, table
from rejoinder.conformance.verdict import Outcome, Verdict, judge

PROGRAM = "python -m rejoinder.conformance"

_WRITERS: Mapping[str, Callable[[Report], bytes]] = {".html": page, ".json": Report.encode, ".xml": junit}

_FAILING: Mapping[str, Sequence[Outcome]] = {
    "broken": ("broken", "not_judged"),
    "not-applicable": ("broken", "not_judged", "not_applicable"),
    "never": (),
}

_USAGE = """\
%(prog)s URL --model NAME [options]
       %(prog)s --list
       %(prog)s compare FILE.json… --report FILE.html"""

_EXAMPLES = """\
examples:
  %(prog)s http://127.0.0.1:8080/v1 --model demo
  %(prog)s https://api.openai.com/v1 --model gpt-5-mini --api-key-env OPENAI_API_KEY --report report.html
  %(prog)s http://127.0.0.1:8000/v1 --model local --only streams,tools --only 'errors.*missing*'
  %(prog)s compare one.json other.json --report scorecard.html

It sends a few small requests for each rule, one after another, and needs nothing but the server. Nothing depends on
what the model says. A server that lacks something and says so breaks no rule: that rule does not apply to it.

With --paired the suite is the provider behind the server, so what the server asks for is looked at, too. Before that,
give the server a provider with this base URL and any key, which is asked for that model when somebody names --model:
POINTERS


exit status: 0, or 1 if --fail-on says so, or 2 if nothing could be judged
"""


def main(arguments: Sequence[str], program: str = PROGRAM) -> int:
    """Run the command and give its exit status. Wrong arguments raise SystemExit, as argparse does."""
    try:
        if list(arguments[:1]) == ["compare"]:
            return _compare(arguments[1:], program)
        return _judge(arguments, program)
    except ConformanceError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted; no report was written", file=sys.stderr)
        return 130


class _Judging(argparse.Namespace):
    url: str | None
    model: str | None
    api_key_env: str | None
    other_api_key_env: str | None
    codex: Path | None
    paired: Dialect | None
    provider_port: int
    only: list[str]
    report: list[Path]
    name: str | None
    fail_on: str
    timeout: float
    quiet: bool
    listing: bool


def _judge(arguments: Sequence[str], program: str) -> int:
    parser = _parser(program)
    wanted = parser.parse_args(arguments, _Judging())
    try:
        rules = chosen(wanted.only)
    except UnknownRule as error:
        parser.error(f"--only: {error}; --list prints them all")
    if wanted.listing:
        print(listing(rules, _width()))
        return 0
    if wanted.url is None or wanted.model is None:
        parser.error(f"expected the URL of a server and --model; `{program} --help` has examples")
    key = _key(parser, "--api-key-env", wanted.api_key_env)
    other_key = _key(parser, "--other-api-key-env", wanted.other_api_key_env)
    begun, started_at = time.monotonic(), datetime.now(UTC)
    codex = None if wanted.codex is None else Codex(wanted.codex)
    with ExitStack() as stack:
        provider = None
        if wanted.paired is not None:
            provider = stack.enter_context(Provider.listening(wanted.paired, wanted.provider_port))
        at = Server.at(
            wanted.url,
            wanted.model,
            key=key,
            other_key=other_key,
            timeout=wanted.timeout,
            codex=codex,
            provider=provider,
        )
        verdicts = asyncio.run(_verdicts(rules, at, quiet=wanted.quiet))
    report = Report.of(
        verdicts,
        url=wanted.url,
        model=wanted.model,
        name=wanted.name,
        started_at=started_at,
        seconds=time.monotonic() - begun,
    )
    print(table(report, _width()))
    for path in wanted.report:
        _write(path, _WRITERS[path.suffix](report))
    return int(any(report.counts[outcome] for outcome in _FAILING[wanted.fail_on]))


def _key(parser: argparse.ArgumentParser, option: str, variable: str | None) -> str | None:
    key = os.environ.get(variable) if variable else None
    if variable and not key:
        parser.error(f"{option}: the variable {variable} is not set; export it, with the key as its value")
    return key


async def _verdicts(rules: Sequence[Rule], at: AbstractAsyncContextManager[Server], *, quiet: bool) -> list[Verdict]:
    verdicts: list[Verdict] = []
    progress = None if quiet else Progress(sys.stderr, len(rules))
    async with at as server:
        await arrive(server)
        # One after the other: a small model on a small machine is not to be hurried.
        for rule in rules:
            if progress:
                progress.begin(rule)
            verdicts.append(await judge(rule, server))
            if progress:
                progress.end(verdicts[-1])
    return verdicts


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        usage=_USAGE,
        description="Judge a server that speaks OpenAI's Responses API: which rules it keeps, which it breaks and how.",
        epilog=_EXAMPLES.replace("POINTERS", "\n".join(map(_pointer, DIALECTS))),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("url", nargs="?", type=_url, metavar="URL", help="where the API is, with its version: http://127.0.0.1:8080/v1")
    add("--model", metavar="NAME", help="a model that answers there")
    add("--api-key-env", metavar="VAR", help="the environment variable that holds the API key; without it none is sent")
    add(
        "--other-api-key-env",
        metavar="VAR",
        help="the variable that holds the key of somebody else, who is not to see what belongs to the first",
    )
    add(
        "--codex",
        type=_program,
        metavar="PATH",
        help="the Codex program, to be run once against the server; the model may run commands that change nothing",
    )
    add(
        "--paired",
        choices=DIALECTS,
        metavar="DIALECT",
        help=f"be the provider behind the server, and speak one of {', '.join(DIALECTS)} (see below)",
    )
    add("--provider-port", type=int, default=PORT, metavar="PORT", help="where (default: %(default)s)")
    add(
        "--only",
        action="append",
        default=[],
        metavar="RULES",
        help="look at these alone: ids, chapters or globs, with commas between them; may be repeated",
    )
    add(
        "--report",
        action="append",
        default=[],
        type=_file(*_WRITERS),
        metavar="FILE",
        help="also write a report: .html to read, .json to compare, .xml (JUnit) for CI; may be repeated",
    )
    add("--name", metavar="NAME", help="what reports call the server; by default host and port")
    add(
        "--fail-on",
        choices=list(_FAILING),
        default="broken",
        help="the exit status is 1 when a rule is broken (the default), or also when one does not apply, or never",
    )
    add("--timeout", type=float, default=120.0, metavar="SECONDS", help="for one answer (default: %(default)g)")
    add("--quiet", action="store_true", help="only the table at the end")
    add("--list", dest="listing", action="store_true", help="print the rules, or those of --only, and judge nobody")
    return parser


def _pointer(dialect: Dialect) -> str:
    return f"  --paired {dialect:<10} {base_url(dialect):<30} {MODELS[dialect]}"


class _Comparing(argparse.Namespace):
    files: list[Path]
    report: Path | None


def _compare(arguments: Sequence[str], program: str) -> int:
    parser = argparse.ArgumentParser(
        prog=f"{program} compare",
        description="Lay several reports side by side: one table, rules by servers.",
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json", help="what `--report FILE.json` wrote")
    parser.add_argument("--report", type=_file(".html"), metavar="FILE", help="the page to write, ending in .html")
    wanted = parser.parse_args(arguments, _Comparing())
    reports = [_read(path) for path in wanted.files]
    for report in reports:
        print(f"{report.name}, model {report.model}: {spoken(report.counts)}")
    if wanted.report is not None:
        _write(wanted.report, scorecard(reports))
    return 0


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"expected http://… or https://…, with the version at its end, got {text!r}")
    return text


def _program(text: str) -> Path:
    found = shutil.which(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a program, got {text!r}")
    return Path(found).absolute()


def _file(*suffixes: str) -> Callable[[str], Path]:
    """A file to write, with one of these endings. What cannot work is told before anything is judged."""

    def parsed(text: str) -> Path:
        path = Path(text)
        if path.suffix not in suffixes:
            raise argparse.ArgumentTypeError(f"expected a name that ends in {' or '.join(suffixes)}, got {text!r}")
        if not path.parent.is_dir():
            raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}; make it first")
        return path

    return parsed


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UnusableReport(f"the report cannot be written to {path}: {error.strerror}; name another file") from None
    print(f"written: {path}", file=sys.stderr)


def _read(path: Path) -> Report:
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise UnusableReport(f"{path} cannot be read: {error.strerror}") from None
    except UnusableReport as error:
        raise UnusableReport(f"{path}: {error}") from None


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 120)
