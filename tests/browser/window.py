"""A window of the browser that notes what its page reports and asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
OF_A_FILE = ("file:", "data:")  # what a page without a server may ask for


class Window:
    """A page that must report nothing, ask for nothing that does not begin with `own`, and not scroll sideways."""

    def __init__(
        self,
        browser: Any,
        *,
        size: dict[str, int] = DESKTOP,
        scheme: str = "light",
        own: tuple[str, ...] = OF_A_FILE,
        **options: Any,
    ) -> None:
        self.own = own
        self.context = browser.new_context(
            viewport=size, color_scheme=scheme, reduced_motion="reduce", **options
        )
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append("dialog"), dialog.dismiss()))
        self.context.on("request", lambda request: self.asked.append(request.url))

    def __enter__(self) -> Window:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        width = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        self.context.close()
        if kind is None:
            assert self.said == []
            assert [one for one in self.asked if not one.startswith(self.own)] == []
            assert width <= 0, "the page scrolls sideways"

    def ground(self) -> str:
        return self.page.evaluate("getComputedStyle(document.body).backgroundColor")

    def open_details(self) -> None:
        for details in self.page.query_selector_all("details"):
            details.evaluate("element => { element.open = true; }")


def opened(browser: Any, file: Path, *, size: dict[str, int] = DESKTOP, scheme: str = "light") -> Window:
    """A window on the page in a file."""
    window = Window(browser, size=size, scheme=scheme)
    window.page.goto(file.as_uri())
    return window
