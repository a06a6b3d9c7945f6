from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.bridge.think_tags import ThinkTags


def split(pieces: Iterable[str], *, prefilled: bool = False) -> tuple[str, str]:
    """All the reasoning and all of the answer; the answer never comes before the reasoning is over."""
    tags = ThinkTags(prefilled=prefilled)
    found = [pair for piece in pieces for pair in tags.feed(piece)]
    found.extend(tags.close())
    assert all(text for _, text in found)
    kinds = [is_reasoning for is_reasoning, _ in found]
    assert kinds == sorted(kinds, reverse=True)
    reasoning, answer = (
        "".join(text for is_reasoning, text in found if is_reasoning is wanted) for wanted in (True, False)
    )
    return reasoning, answer


CASES = [
    ("<think>why</think>because", False, ("why", "because")),
    (" \n<think>why</think>\n\nbecause\n", False, ("why", "because\n")),
    ("<thought>why</thought>because", False, ("why", "because")),
    ("<thought>why</think></thought>x", False, ("why</think>", "x")),
    ("<think></think>because", False, ("", "because")),
    ("<think>\nwhy\n</think>\n", False, ("\nwhy\n", "")),
    ("<think>why", False, ("why", "")),
    ("<think>why</thi", False, ("why</thi", "")),
    ("<think>a</b></thi</think>c", False, ("a</b></thi", "c")),
    ("<think>a</think>b<think>c</think>", False, ("a", "b<think>c</think>")),
    ("because", False, ("", "because")),
    ("the tag <think> is a tag</think>", False, ("", "the tag <think> is a tag</think>")),
    ("  <", False, ("", "  <")),
    ("<thin air", False, ("", "<thin air")),
    ("<b>bold</b>", False, ("", "<b>bold</b>")),
    (" \n ", False, ("", " \n ")),
    ("", False, ("", "")),
    ("why</think>\nbecause", True, ("why", "because")),
    ("</think>because", True, ("", "because")),
    ("why", True, ("why", "")),
    ("why</thought></think>x", True, ("why</thought>", "x")),
]


@pytest.mark.parametrize(("text", "prefilled", "said"), CASES)
def test_an_answer_is_split_the_same_however_it_is_cut(text: str, prefilled: bool, said: tuple[str, str]) -> None:
    assert split([text], prefilled=prefilled) == said
    assert split(text, prefilled=prefilled) == said
    for cut in range(len(text) + 1):
        assert split([text[:cut], text[cut:]], prefilled=prefilled) == said


def reference(text: str, prefilled: bool) -> tuple[str, str]:
    if prefilled:
        inside, closing = text, "</think>"
    else:
        start = text.lstrip()
        tag = "<think>" if start.startswith("<think>") else "<thought>"
        if not start.startswith(tag):
            return "", text
        inside, closing = start.removeprefix(tag), tag.replace("<", "</")
    reasoning, _, answer = inside.partition(closing)
    return reasoning, answer.lstrip("\n")


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<thought>", "</thought>", "<", "</", "think", ">", "\n", " ", "a"])
    ),
    st.booleans(),
    st.data(),
)
def test_any_text_cut_anyhow_is_split_as_if_it_were_whole(
    words: list[str], prefilled: bool, data: st.DataObject
) -> None:
    text = "".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(pieces, prefilled=prefilled) == reference(text, prefilled)


def test_what_is_certain_is_told_at_once() -> None:
    tags = ThinkTags()
    assert list(tags.feed(" <thi")) == []
    assert list(tags.feed("nk>because</th")) == [(True, "because")]
    assert list(tags.feed("at")) == [(True, "</that")]
    assert list(tags.feed("</think>\n")) == []
    assert list(tags.feed("\nso")) == [(False, "so")]
    assert list(tags.feed("\n")) == [(False, "\n")]
    assert list(tags.close()) == []


def test_closing_twice_says_nothing_twice() -> None:
    tags = ThinkTags()
    assert list(tags.feed("<th")) == []
    assert list(tags.close()) == [(False, "<th")]
    assert list(tags.close()) == []
