"""Reading a page as a browser does, as far as the tests look."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

EMPTY = ("meta", "input")


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    inside: "list[Element | str]" = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(one if isinstance(one, str) else one.text for one in self.inside)

    @property
    def classes(self) -> set[str]:
        return set((self.attributes.get("class") or "").split())

    def all(self, tag: str) -> "list[Element]":
        """The elements of that kind inside this one, in their order."""
        found: list[Element] = []
        for one in self.inside:
            if isinstance(one, Element):
                found += [*([one] if one.tag == tag else []), *one.all(tag)]
        return found


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.open[-1].inside.append(element)
        if tag not in EMPTY:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, "elements are closed in the order they were opened"

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def parsed(page: bytes) -> Element:
    """The whole page."""
    parser = _Parser()
    parser.feed(page.decode())
    parser.close()
    [root] = parser.open
    return root


def check_links(root: Element) -> None:
    """Ids are unique, and every link within the page leads to one."""
    ids = [id for tag in ("li", "h2", "main", "input") for one in root.all(tag) if (id := one.attributes.get("id"))]
    assert len(ids) == len(set(ids))
    assert {str(one.attributes["href"]).removeprefix("#") for one in root.all("a")} <= set(ids)
