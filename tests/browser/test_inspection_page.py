"""The page of an inspection in a real browser: quiet, without network, and every part reached by the keyboard."""

from pathlib import Path
from typing import Any

import pytest

from scratchlm.finetuning.heads import replace_head
from scratchlm.inspection.inspect_prompt import inspect_prompt
from scratchlm.reports.inspection_page import render_inspection
from tests.browser.test_report_page import HOSTILE
from tests.browser.window import DESKTOP, PHONE, opened
from tests.inspection.conftest import VARIANTS, varied
from tests.reports.pages import poison

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.browser

TEXT = "The cat sat on the mat and the cat sat on the log and the dog sat"
TASK = {"kind": "classification", "classes": ["ham", "spam"], "max_length": 32}


@pytest.fixture(scope="module")
def tokens(tiny_tokenizer) -> dict[str, Any]:
    return inspect_prompt(varied(VARIANTS["gpt2"]), tiny_tokenizer, TEXT).as_json()


@pytest.fixture(scope="module")
def classes(tiny_tokenizer) -> dict[str, Any]:
    model = varied(VARIANTS["llama"])
    replace_head(model, 2)
    return inspect_prompt(model, tiny_tokenizer, TEXT, task=TASK).as_json()


@pytest.fixture
def page(tokens, tmp_path) -> Path:
    return written(tokens, tmp_path)


def written(data: dict[str, Any], folder: Path, *, is_hostile: bool = False) -> Path:
    data = poison(data, kept=("kind",), hostile=HOSTILE) if is_hostile else data
    text = HOSTILE if is_hostile else TEXT
    file = folder / "inspection.html"
    file.write_text(render_inspection(data, model=text, text=text), encoding="utf-8")
    return file


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("is_hostile", [False, True], ids=["plain", "hostile"])
@pytest.mark.parametrize("kind", ["tokens", "classes"])
def test_the_page_is_quiet_asks_for_nothing_and_fits_its_window(
    browser, request, tmp_path, size, is_hostile, kind
):
    file = written(request.getfixturevalue(kind), tmp_path, is_hostile=is_hostile)
    with opened(browser, file, size=size) as visit:
        visit.open_details()
        visit.page.click("#choices > li >> nth=1")
        visit.page.click("#heads td >> nth=5")
        visit.page.wait_for_timeout(100)
        assert visit.page.locator("img").count() == 0


def test_choosing_another_token_shows_what_speaks_for_it(browser, page, tokens):
    with opened(browser, page) as visit:
        before = visit.page.inner_text("#parts")
        visit.page.locator("#choices > li").first.focus()
        visit.page.keyboard.press("ArrowDown")
        second = tokens["choices"][1]
        assert visit.page.locator("#choices > li").nth(1).get_attribute("aria-selected") == "true"
        assert second["text"].replace(" ", "·") in visit.page.locator(".explained").first.inner_text()
        assert visit.page.inner_text("#above-mean") == f"+{second['logit'] - tokens['mean_logit']:.2f}"
        assert visit.page.inner_text("#parts") != before


def test_arrow_keys_walk_through_the_lens_and_the_heads(browser, page, tokens):
    with opened(browser, page) as visit:
        visit.page.locator("#lens-table .chosen").focus()
        visit.page.keyboard.press("ArrowUp")
        assert "After block 0" in visit.page.inner_text("#lens-readout")
        visit.page.keyboard.press("Home")
        assert "After the embedding" in visit.page.inner_text("#lens-readout")
        visit.page.locator("#heads td").first.click()
        assert visit.page.inner_text("#head-title") == "Block 0, head 0"
        visit.page.keyboard.press("ArrowDown")
        visit.page.keyboard.press("ArrowRight")
        assert visit.page.inner_text("#head-title") == "Block 1, head 1"
        visit.page.click('#measures [data-measure="first"]')
        share = tokens["heads"][1][1]["first"]
        assert visit.page.inner_text("#heads .chosen") == f"{100 * share:.0f}%"


def test_a_token_shows_its_loss_and_what_it_attends_to(browser, page, tokens):
    with opened(browser, page, size=PHONE) as visit:
        visit.page.locator("#token-strip .tok").nth(1).click()
        assert f"loss {tokens['tokens'][1]['loss']:.2f} nats" in visit.page.inner_text("#token-panel")
        visit.page.locator("#attention-strip .tok").first.click()
        assert "100%" in visit.page.inner_text("#head-readout"), "the first token can only attend to itself"


def test_dark_mode_shades_with_other_colours(browser, page):
    colour = "getComputedStyle(document.querySelector('#parts td.a10')).backgroundColor"
    with (
        opened(browser, page) as light,
        opened(browser, page, scheme="dark") as dark,
    ):
        assert light.page.evaluate(colour) != dark.page.evaluate(colour)


def test_everything_can_be_read_without_the_script(browser, page):
    context = browser.new_context(java_script_enabled=False, viewport=PHONE)
    visit = context.new_page()
    visit.goto(page.as_uri())
    assert visit.locator("button:visible").count() == 0, "no button that would do nothing"
    assert visit.locator("#parts td:visible").count() == 2 * 6
    assert visit.locator("#lens-table td:visible").count() > 0
    context.close()
