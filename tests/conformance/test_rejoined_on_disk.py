"""Our own server, judged by all rules there are, in front of our own provider in each of its four dialects, with its
store on disk.

The server runs inside of the test, so its cost is measured with the judge's.
"""

from pathlib import Path

import pytest

from rejoinder.conformance.dialects import DIALECTS, Dialect
from tests.conformance.rejoined import check_every_rule


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_rule_is_kept_or_known_not_to_apply(dialect: Dialect, tmp_path: Path) -> None:
    await check_every_rule(tmp_path, dialect, "disk")
