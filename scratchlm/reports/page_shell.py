"""Render a template as a self-contained HTML page, with style, script and security policy.

A page sends no network requests, and text of a model or file never becomes markup: Jinja2 escapes every
value, and the Content-Security-Policy allows only one style and one script, identified by their sha256.
"""

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from scratchlm.reports.formats import FILTERS, for_page

TEMPLATES = Path(__file__).with_name("templates")


def render_page(
    template: str,
    *,
    page_data: Mapping[str, Any],
    scripts: Sequence[str] = (),
    styles: Sequence[str] = ("page.css",),
    **values: Any,
) -> str:
    """Render a template that extends `shell.html.jinja`.

    `page_data` is the data of the scripts: `page.js` and those named. They are joined into one, and so are styles; all
    other values are for the template.
    """
    scripts = ("shared.js", "page.js", *scripts)
    css, script = (Markup("\n").join(_asset(name) for name in names) for names in (styles, scripts))
    hashes = {"style_hash": _csp_hash(css), "script_hash": _csp_hash(script)}
    page = _environment().get_template(template)
    return page.render(page_data=page_data, css=css, script=script, **hashes, **values)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=for_page,
    )
    environment.filters.update(FILTERS)
    return environment


def _asset(name: str) -> Markup:
    """The page's own style or script, inserted without escaping."""
    text = (TEMPLATES / name).read_text(encoding="utf-8").strip()
    assert "</" not in text, "an inline block ends at the first closing tag"
    return Markup(text)  # noqa: S704


def _csp_hash(text: str) -> Markup:
    """The hash by which a Content-Security-Policy allows an inline block."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return Markup(f"sha256-{base64.b64encode(digest).decode('ascii')}")  # noqa: S704
