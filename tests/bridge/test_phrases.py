import pytest

from rejoinder.bridge.phrases import named, of_the_system, output_of, shown_later
from rejoinder.bridge.turns import Audio, File, Image, Piece, Result


def test_what_the_system_says_is_told_from_what_the_user_says() -> None:
    assert of_the_system("Be brief.") == "<system>\nBe brief.\n</system>"


def test_the_text_of_a_file_stands_under_its_name() -> None:
    assert named("a,b", "x.csv") == "x.csv:\na,b"
    assert named("a,b", None) == named("a,b", "") == "a,b"


@pytest.mark.parametrize(
    ("piece", "said"),
    [
        (Image("data:,", None, None), "[image output, shown in the next message]"),
        (File("data:,", None, None, None), "[file output, shown in the next message]"),
        (Audio("", "wav"), "[audio output, shown in the next message]"),
    ],
)
def test_a_result_says_what_is_shown_after_it(piece: Piece, said: str) -> None:
    assert shown_later(piece) == said
    assert output_of(Result("call_1", (piece,))) == "[output of call call_1]"
