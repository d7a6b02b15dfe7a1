"""Turn the SVG that matplotlib writes into SVG that lives inside a page and follows its colours.

matplotlib writes colours and fonts into `style` attributes, one `<style>` element, and ids that repeat in
every figure. A page with a Content-Security-Policy refuses the first two, and dark mode needs colours that
change. So a plot is drawn in stand-in colours, one per role, and each becomes a class: `f-NAME` fills,
`s-NAME` strokes.
"""

from __future__ import annotations

import re

# Stand-ins, never seen by a reader: the page's CSS gives each role its colour in light and in dark mode.
ROLES = {
    "ink": "#000001", "muted": "#000002", "grid": "#000003", "train": "#000004", "val": "#000005",
    "run1": "#000006", "run2": "#000007", "run3": "#000008", "run4": "#000009", "run5": "#00000a", "run6": "#00000b",
}  # fmt: skip

_NAME_OF = {colour: name for name, colour in ROLES.items()}
_UNSEEN = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", re.DOTALL
)
_STYLE = re.compile(r' style="([^"]*)"')
_FONT_SIZE = re.compile(r"([\d.]+)px")
_ID = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r"(url\(#|href=\"#)([\w.-]+)")
_NUMBER = re.compile(r"-?\d+\.\d{3,}")


def page_svg(drawn: str, *, name: str, css_class: str, attributes: str = "") -> str:
    """One `<svg>` element for the page out of a whole file as matplotlib wrote it.

    `name` keeps this figure's ids apart from those of other figures; `attributes` go into the opening tag.
    """
    body = _UNSEEN.sub("", drawn)
    view_box = re.search(r'viewBox="([^"]+)"', body)
    assert view_box is not None, "matplotlib writes a viewBox"
    body = body[body.index(">", body.index("<svg")) + 1 : body.rindex("</svg>")]
    body = _STYLE.sub(_as_attributes, body).replace("xlink:href", "href")
    body = _own_ids(body, name)
    body = _NUMBER.sub(lambda match: f"{float(match[0]):.2f}", body)  # a hundredth of a pixel is enough
    body = re.sub(r"\s*\n\s*", " ", body).strip()
    return (
        f'<svg class="{css_class}" viewBox="{view_box[1]}" aria-hidden="true" focusable="false"'
        f"{attributes}>{body}</svg>"
    )


def _as_attributes(match: re.Match[str]) -> str:
    """`style="fill: #000004; stroke-width: 2"` -> `class="f-train" stroke-width="2"`."""
    classes: list[str] = []
    attributes: list[str] = []
    for declaration in match[1].split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key in ("fill", "stroke") and value in _NAME_OF:
            classes.append(f"{key[0]}-{_NAME_OF[value]}")
        elif key in ("font", "font-size"):
            size = _FONT_SIZE.search(value)
            attributes.append(f'font-size="{size[1]}"' if size else "")
        elif key and not key.startswith("font"):  # the page chooses the family
            attributes.append(f'{key}="{value}"')
    if classes:
        attributes.insert(0, f'class="{" ".join(classes)}"')
    return "".join(f" {attribute}" for attribute in attributes if attribute)


def _own_ids(body: str, name: str) -> str:
    """Drop the ids that nothing points to, and put the figure's name before the others."""
    used = {reference[1] for reference in _REFERENCE.findall(body)}
    body = _ID.sub(lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", body)
    return _REFERENCE.sub(lambda match: f"{match[1]}{name}-{match[2]}", body)
