import msgspec
import pytest

from rejoinder.bridge.responses_profile import ResponsesProfile


def test_the_defaults_suit_openai() -> None:
    profile = ResponsesProfile()

    assert (profile.lineage, profile.stores, profile.reasoning_state) == ("replay", True, "sealed")
    assert not profile.functions_only


def test_every_field_can_be_set_in_a_file_of_settings() -> None:
    settings = b'{"lineage":"reference","item_ids":"none","omits":["user"],"forwards":["metadata"],"extra":{"seed":1}}'

    profile = msgspec.json.decode(settings, type=ResponsesProfile)

    assert (profile.lineage, profile.item_ids, profile.omits) == ("reference", "none", ("user",))
    assert bytes(profile.extra["seed"]) == b"1"


def test_a_field_nobody_reads_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `linage`"):
        msgspec.convert({"linage": "replay"}, ResponsesProfile)
