"""Our own server, judged as anybody's would be: a process of its own, in front of the suite's provider in each of its
dialects, with what that says side by side.

python -m tests.conformance.ours DIRECTORY [--codex PATH]
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rejoinder.conformance.dialects import DIALECTS, Dialect
from rejoinder.conformance.paired import MODELS, base_url
from tests.conformance.rejoined import KEY, OTHER_KEY, THEIR_KEY, VENDORS
from tests.live import LiveUpstream, free_port, running

_JUDGE = (sys.executable, "-m", "rejoinder.conformance")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a report for each dialect and a scorecard of all; 1 when a rule is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.ours")
    parser.add_argument("directory", type=Path, help="where the reports go")
    parser.add_argument("--codex", metavar="PATH", help="the Codex program, to be run once against each")
    wanted = parser.parse_args(arguments)
    wanted.directory.mkdir(parents=True, exist_ok=True)
    options = ["--codex", wanted.codex] if wanted.codex else []
    statuses = [_judge(dialect, wanted.directory, options) for dialect in DIALECTS]
    reports = [str(wanted.directory / f"{dialect}.json") for dialect in DIALECTS]
    subprocess.run([*_JUDGE, "compare", *reports, "--report", str(wanted.directory / "scorecard.html")], check=True)
    return max(statuses)


def _judge(dialect: Dialect, directory: Path, options: Sequence[str]) -> int:
    port = free_port()
    upstream = LiveUpstream(
        base_url(dialect, port),
        name="provider",
        dialect=dialect,
        models=[MODELS[dialect]],
        key=THEIR_KEY,
        options={"vendor": VENDORS[dialect]} if dialect in VENDORS else {},
    )
    with (
        TemporaryDirectory() as place,
        running(Path(place), upstreams=[upstream], keys={"judge": KEY, "other": OTHER_KEY}) as server,
    ):
        command = [
            *(*_JUDGE, server.base_url, "--model", MODELS[dialect], "--name", f"rejoinder, {dialect}", "--quiet"),
            *("--paired", dialect, "--provider-port", str(port)),
            *("--api-key-env", "JUDGE_KEY", "--other-api-key-env", "OTHER_KEY"),
            *("--report", str(directory / f"{dialect}.json"), "--report", str(directory / f"{dialect}.html")),
        ]
        environment = os.environ | {"JUDGE_KEY": KEY, "OTHER_KEY": OTHER_KEY}
        return subprocess.run([*command, *options], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
