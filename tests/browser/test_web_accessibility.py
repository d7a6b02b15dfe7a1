"""The server's page for people who use a keyboard or a screen reader, and on a ground of either colour."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.web_server import Visit, web_server
from tests.browser.window import DESKTOP, PHONE

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.browser

# Each address with what is there once the view is complete.
FILLED = {
    "write": ".composer",
    "microscope?model=tiny/base&prompt=Once upon&max_tokens=5&top_k=5": "candidate-list h2",
    "microscope?model=tiny/base&prompt=Once upon&max_tokens=4&tab=beams": "beam-tree svg",
    "microscope?model=tiny/base&prompt=Once upon&max_tokens=4&tab=decoders": ".columns .facts-line",
    "inside?model=tiny/base&prompt=the cat": ".evidence",
    "inside?model=tiny/base&other=tiny/assistant&prompt=the cat&tab=attention": "arc-diagram svg",
    "inside?model=tiny/base&prompt=the cat&tab=lens": ".lens",
    "inside?model=tiny/base&prompt=the cat&tab=attribution": ".parts",
    "inside?model=tiny/base&prompt=the cat&tab=norms": "line-chart svg",
    "tokens?model=tiny/base&prompt=the cat&token=1": ".merges",
    "classify?prompt=the cat": ".items",
    "train": "line-chart svg",
    "judge": ".items",
    "model?model=tiny/base&part=trf_blocks.0": ".histogram",
}
NAMED = {
    "button",
    "link",
    "textbox",
    "searchbox",
    "spinbutton",
    "slider",
    "checkbox",
    "combobox",
    "tab",
    "option",
    "image",
}
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour, ground) => {
    canvas.fillStyle = ground;
    canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const asText = (c) => `rgb(${c.join(" ")})`;
  const light = (c) => c.map((v) => v / 255).map((v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const groundOf = (element) => {
    const own = element ? getComputedStyle(element).backgroundColor : "white";
    return element ? rgb(own, asText(groundOf(element.parentElement))) : [255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *:not(option):not(svg *)")) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!hasText || !element.checkVisibility({ opacityProperty: true }) || element.disabled) continue;
    const ground = groundOf(element);
    const ink = rgb(getComputedStyle(element).color, asText(ground));
    const [a, b] = [light(ground), light(ink)].sort((x, y) => y - x);
    const contrast = (a + .05) / (b + .05);
    if (contrast < 4.5) bad.push([element.className, element.textContent.slice(0, 20), contrast]);
  }
  return bad;
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory, browser) -> Iterator[Any]:
    with web_server(tmp_path_factory.mktemp("models")) as one:
        yield one


def opened(visit: Visit, address: str) -> Any:
    page = visit.open(address)
    if "decoders" in address:
        page.wait_for_selector(".card .busy", state="detached")
    page.wait_for_selector(FILLED[address])
    return page


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_on_its_ground(browser, server, scheme):
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    with Visit(browser, server, scheme=scheme) as visit:
        for address in FILLED:
            assert opened(visit, address).evaluate(CONTRAST) == [], address


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_control_has_a_name_and_every_view_one_title(browser, server, size):
    with Visit(browser, server, size=size) as visit:
        for address in FILLED:
            page = opened(visit, address)
            session = visit.context.new_cdp_session(page)
            nodes = session.send("Accessibility.getFullAXTree")["nodes"]
            roles = [
                (node["role"]["value"], node.get("name", {}).get("value"))
                for node in nodes
                if not node["ignored"]
            ]
            assert [role for role, name in roles if role in NAMED and not name] == [], address
            assert page.locator("h1").count() == 1
            assert page.locator("main, nav").count() == 2
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, address


def test_everything_can_be_done_without_a_mouse(browser, server):
    with Visit(browser, server) as visit:
        page = opened(visit, "inside?model=tiny/base&other=tiny/assistant&prompt=the cat&tab=attention")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "view"
        page.focus("[role=tab][aria-selected=true]")
        page.keyboard.press("ArrowRight")
        assert page.inner_text("[role=tab][aria-selected=true]") == "Logit lens"
        page.keyboard.press("ArrowLeft")
        page.focus("heat-map canvas")
        page.keyboard.press("ArrowDown")
        page.wait_for_url("**layer=1*")
        page = opened(visit, "train")
        page.focus("line-chart svg")
        before = page.inner_text("line-chart output")
        page.keyboard.press("ArrowLeft")
        assert page.inner_text("line-chart output") != before


@pytest.mark.slow
def test_axe_finds_no_fault(browser, server):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    ).Axe()
    with Visit(browser, server) as visit:
        for address in FILLED:
            found = axe.run(opened(visit, address)).response["violations"]
            assert [(one["id"], one["nodes"][0]["target"]) for one in found] == [], address
        page = opened(visit, "train")
        page.click("text=Start a quickstart")
        assert [one["id"] for one in axe.run(page).response["violations"]] == []
