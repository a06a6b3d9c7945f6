import re
from pathlib import Path

import msgspec
import pytest

from rejoinder.bridge import gemini_profile
from rejoinder.bridge.gemini_profile import GeminiProfile


def test_the_defaults_suit_the_gemini_api() -> None:
    read = msgspec.convert({}, GeminiProfile)

    assert read == GeminiProfile()
    assert (read.count, read.service_tier, read.labels, read.server_side_tools) == ("wrapped", True, False, True)


def test_every_field_can_be_set_by_name() -> None:
    read = msgspec.json.decode(
        b'{"count":"plain","levels":["LOW","XHIGH"],"tools":[{"codeExecution": {}}],"generation":{"seed": 7}}',
        type=GeminiProfile,
    )

    assert (read.count, read.levels) == ("plain", ("LOW", "XHIGH"))
    assert [bytes(tool) for tool in read.tools] == [b'{"codeExecution": {}}']
    assert {name: bytes(raw) for name, raw in read.generation.items()} == {"seed": b"7"}


def test_a_field_nobody_knows_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError, match="colour"):
        msgspec.convert({"colour": "red"}, GeminiProfile)


def test_every_field_says_what_it_is_for_and_where_that_stands() -> None:
    source = Path(gemini_profile.__file__).read_text()

    for name in GeminiProfile.__struct_fields__:
        found = re.search(rf"^    {name}: .*\n    \"\"\"((?:.|\n)*?)\"\"\"", source, re.MULTILINE)
        assert found is not None, name
        assert "§" in found[1] or name == "thinking", name
