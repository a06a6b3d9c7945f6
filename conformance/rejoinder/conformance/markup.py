"""HTML from values. What is not markup already is escaped, so nothing a server said becomes a part of a page."""

from collections.abc import Iterable
from html import escape
from importlib.resources import files
from typing import TypeAlias

Content: TypeAlias = "str | Iterable[Content]"

_EMPTY = ("meta", "input")


class Markup(str):
    """A text that is HTML."""

    __slots__ = ()


def tag(name: str, /, *content: Content, **attributes: str | bool) -> Markup:
    """An element. `class_` and `aria_label` are spelled as Python has to; True is an attribute without a value."""
    parts = [name]
    for key, value in attributes.items():
        if value is not False:
            attribute = key.rstrip("_").replace("_", "-")
            parts.append(attribute if value is True else f'{attribute}="{escape(str(value))}"')
    start = f"<{' '.join(parts)}>"
    return Markup(start if name in _EMPTY else f"{start}{_inner(content)}</{name}>")


def _inner(content: Content) -> str:
    if isinstance(content, Markup):
        return content
    if isinstance(content, str):
        return escape(content)
    return "".join(map(_inner, content))


def document(title: str, *body: Content) -> bytes:
    """A page that needs nothing but itself, and may load nothing."""
    style = files("rejoinder.conformance").joinpath("report.css").read_text("utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
        ),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    skip = tag("a", "Skip to the rules", href="#rules", class_="skip")
    return f"<!doctype html>\n{tag('html', head, tag('body', skip, body), lang='en')}\n".encode()


def choice(legend: str, name: str, options: Iterable[tuple[str, str]]) -> Markup:
    """Radio buttons, the first one chosen. The style sheet hides what the chosen one does not speak of."""
    return tag(
        "fieldset",
        tag("legend", legend),
        [
            tag("label", tag("input", type="radio", name=name, id=f"{name}-{key}", checked=place == 0), label)
            for place, (key, label) in enumerate(options)
        ],
        class_="filter",
    )
