from pathlib import Path

import msgspec
import pytest

from rejoinder.bridge import anthropic_profile
from rejoinder.bridge.anthropic_models import Traits
from rejoinder.bridge.anthropic_profile import AnthropicProfile


def test_the_defaults_suit_the_vendor_itself() -> None:
    read = msgspec.convert({}, AnthropicProfile)

    assert read == AnthropicProfile()
    assert (read.path, read.version, read.version_in, read.betas) == ("/v1/messages", "2023-06-01", "header", ())
    assert (read.caching, read.web_search, read.documents, read.file_ids) == (
        "automatic",
        "web_search_20250305",
        True,
        False,
    )


def test_a_settings_table_says_what_another_host_and_its_models_are_like() -> None:
    table = {
        "path": "/publishers/anthropic/models/{model}:streamRawPredict",
        "count_path": "",
        "version": "vertex-2023-10-16",
        "version_in": "body",
        "betas": ["context-1m-2025-08-07"],
        "models": {"claude-*": {"max_tokens": 9, "thinking": ["adaptive"], "efforts": ["low", "max"], "bound": True}},
    }

    read = msgspec.convert(table, AnthropicProfile)

    assert read.models == {"claude-*": Traits(max_tokens=9, thinking=("adaptive",), efforts=("low", "max"), bound=True)}
    assert (read.version_in, read.betas, read.count_path) == ("body", ("context-1m-2025-08-07",), "")


@pytest.mark.parametrize(
    "table",
    [
        {"pth": "/"},
        {"version_in": "cookie"},
        {"caching": "always"},
        {"models": {"a": {"thinking": ["hard"]}}},
        {"models": {"a": {"max_token": 1}}},
    ],
)
def test_a_setting_nobody_reads_is_an_error(table: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(table, AnthropicProfile)


def test_every_setting_is_read_somewhere() -> None:
    folder = Path(anthropic_profile.__file__).parent
    code = "".join(path.read_text() for path in folder.glob("anthropic*.py") if path.name != "anthropic_profile.py")

    for name in AnthropicProfile.__struct_fields__:
        assert f"profile.{name}" in code, name
    for name in Traits.__struct_fields__:
        assert f".{name}" in code, name
