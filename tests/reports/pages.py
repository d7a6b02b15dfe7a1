"""Read a page as a browser would, and data in which every text is hostile."""

from html.parser import HTMLParser
from typing import Any

HOSTILE = (
    "<script>alert(1)</script>\"'&amp; <img src=x onerror=alert(2)>\x00\u202e👩‍👧 "
    + "W" * 300
    + "\n\n\tend \ud800"
)
VOID = {"meta", "link", "br", "wbr", "input", "img", "hr"}


class Page(HTMLParser):
    """Tags, ids and readable text; unbalanced tags, images, style attributes and handlers are collected in `wrong`.

    `between` separates the texts of neighbouring tags.
    """

    def __init__(self, page: str, *, between: str = "") -> None:
        super().__init__()
        self._between = between
        self._open: list[str] = []
        self._words: list[str] = []
        self.wrong: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.wrong += self._open

    @property
    def ids(self) -> list[str | None]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]

    @property
    def named(self) -> set[str | None]:
        """The ids that tags refer to as their labels."""
        return {found["aria-labelledby"] for _, found in self.tags if "aria-labelledby" in found}

    @property
    def text(self) -> str:
        return " ".join(self._between.join(self._words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("img", "iframe", "object") or any(n == "style" or n.startswith("on") for n, _ in attrs):
            self.wrong.append(f"<{tag} {attrs}>")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, data):
        if not self._open or self._open[-1] not in ("script", "style"):
            self._words.append(data)


def poison(value: Any, *, kept: tuple[str, ...] = (), hostile: str = HOSTILE) -> Any:
    """The same data with every text replaced by a hostile one, but for those of the keys `kept`."""
    if isinstance(value, dict):
        return {k: v if k in kept else poison(v, kept=kept, hostile=hostile) for k, v in value.items()}
    if isinstance(value, list):
        return [poison(item, kept=kept, hostile=hostile) for item in value]
    return hostile if isinstance(value, str) else value
