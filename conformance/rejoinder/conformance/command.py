"""The command: `python -m rejoinder.conformance BASE_URL --model NAME`."""

import argparse
import asyncio
import os
from collections.abc import Iterable, Sequence

from rejoinder.conformance.case import Case
from rejoinder.conformance.server import Server
from rejoinder.conformance.suite import CASES, NoSuchCase, chosen
from rejoinder.conformance.verdict import Verdict, document, judge, summary

_KEY_VARIABLE = "CONFORMANCE_API_KEY"


def main(arguments: Sequence[str]) -> int:
    """Judge a server. The exit status is 0 when no case failed and 1 otherwise; wrong arguments end with 2."""
    parser = _parser()
    wanted = parser.parse_args(arguments, _Arguments())
    if wanted.listing:
        for case in CASES:
            print(f"{case.theme:<13} {case.name}: {case.rule}")
        return 0
    if not wanted.base_url or not wanted.model:
        parser.error("expected a base URL and --model")
    try:
        cases = chosen(wanted.only)
    except NoSuchCase as error:
        parser.error(f"--only: {error}; --list shows them")
    key = wanted.key or os.environ.get(_KEY_VARIABLE)
    verdicts = asyncio.run(_judged(cases, wanted, key))
    if wanted.json:
        print(document(verdicts).decode())
    else:
        print(summary(verdicts))
    return int(any(verdict.outcome == "fail" for verdict in verdicts))


class _Arguments(argparse.Namespace):
    base_url: str | None
    model: str | None
    key: str | None
    only: list[str]
    json: bool
    listing: bool
    timeout: float


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rejoinder.conformance",
        description="Judge a server that speaks the Responses API. Exits with 1 when it breaks a rule.",
    )
    parser.add_argument("base_url", nargs="?", help="ends in the version, for example http://127.0.0.1:8080/v1")
    parser.add_argument("--model", help="a model that answers there")
    parser.add_argument("--key", help=f"the API key; by default ${_KEY_VARIABLE}")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a case or theme; may be repeated")
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of lines")
    parser.add_argument(
        "--list", dest="listing", action="store_true", help="print the cases and their rules, and judge nobody"
    )
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="for one answer (%(default)s)")
    return parser


async def _judged(cases: Iterable[Case], wanted: _Arguments, key: str | None) -> list[Verdict]:
    assert wanted.base_url is not None, "checked before"
    assert wanted.model is not None, "checked before"
    verdicts: list[Verdict] = []
    async with Server.at(wanted.base_url, wanted.model, key=key, timeout=wanted.timeout) as server:
        # One after the other: a small model on a small machine is not to be hurried.
        for case in cases:
            verdicts.append(await judge(case, server))
            if not wanted.json:
                print(verdicts[-1].line, flush=True)
    return verdicts
