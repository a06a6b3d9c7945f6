import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from msgspec import Raw

from rejoinder.bridge import profile
from rejoinder.bridge.profile import ChatProfile


def test_the_defaults_suit_an_unknown_server() -> None:
    read = msgspec.convert({}, ChatProfile)
    assert read == ChatProfile()
    assert (read.max_tokens, read.instructions_role, read.options) == ("max_tokens", "system", ("parallel_tool_calls",))


def test_every_field_can_be_set_by_name() -> None:
    read = msgspec.json.decode(
        b'{"max_tokens":"max_completion_tokens","options":["user","verbosity"],"effort":"thinking",'
        b'"effort_values":{"xhigh":"high"},"extra":{"seed": 7}}',
        type=ChatProfile,
    )
    assert (read.max_tokens, read.options, read.effort) == ("max_completion_tokens", ("user", "verbosity"), "thinking")
    assert read.effort_values == {"xhigh": "high"}
    assert {name: bytes(raw) for name, raw in read.extra.items()} == {"seed": b"7"}
    assert isinstance(read.extra["seed"], Raw)


@pytest.mark.parametrize(
    "data", [b'{"max_token":"max_tokens"}', b'{"effort":"hard"}', b'{"options":["telepathy"]}', b'{"images":"yes"}']
)
def test_a_setting_nobody_reads_is_an_error(data: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(data, type=ChatProfile)


def test_every_setting_and_every_option_is_read_somewhere() -> None:
    folder = Path(profile.__file__).parent
    readers = "".join((folder / name).read_text() for name in ("chat.py", "chat_reader.py"))
    fields = set(ChatProfile.__struct_fields__) - {"reasoning"}  # read by the turn, for its composer
    assert {name for name in fields if not re.search(rf"profile\.{name}\b", readers)} == set()
    assert {name for name in get_args(profile.OptionName) if f'"{name}"' not in readers} == set()
