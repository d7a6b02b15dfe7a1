"""The report in a real browser: quiet, without network, without sideways scrolling, in light and in dark."""

import json
from pathlib import Path
from typing import Any

import pytest

from scratchlm.data.audit import inspect_data
from scratchlm.reports.data_report_page import render_data_report
from scratchlm.reports.run_page import render_report
from tests.browser.window import DESKTOP, PHONE, opened
from tests.reports.pages import poison

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.browser

HOSTILE = "<script>alert(1)</script>\u202e<img src=https://example.org/x onerror=alert(2)> 👩‍👧 " + "W" * 200


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    path = Path(__file__).parent.parent / "reports" / "run_page_data.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def report(data, tmp_path) -> Path:
    file = tmp_path / "report.html"
    file.write_text(render_report(data), encoding="utf-8")
    return file


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("hostile", [False, True], ids=["plain", "hostile"])
def test_the_page_is_quiet_asks_for_nothing_and_fits_its_window(browser, data, tmp_path, size, hostile):
    file = tmp_path / "report.html"
    file.write_text(render_report(poison(data, hostile=HOSTILE) if hostile else data), encoding="utf-8")
    with opened(browser, file, size=size) as visit:
        visit.open_details()
        visit.page.wait_for_timeout(100)


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_page_of_a_data_set_is_as_quiet_and_fits_as_well(browser, tmp_path, size, tiny_tokenizer):
    rows = [{"instruction": f"{HOSTILE} {i}", "input": "cat", "output": "the cat sat"} for i in range(9)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    figures = inspect_data([tmp_path / "a.json"], tokenizer=tiny_tokenizer, context_length=2000)
    file = tmp_path / "data-report.html"
    file.write_text(render_data_report(figures), encoding="utf-8")
    with opened(browser, file, size=size) as visit:
        visit.open_details()
        visit.page.wait_for_timeout(100)
        assert visit.page.locator("img").count() == 0


def test_hostile_text_is_shown_as_text(browser, data, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(render_report(poison(data, hostile=HOSTILE)), encoding="utf-8")
    with opened(browser, file) as visit:
        visit.page.hover("#passage .tok >> nth=1")
        assert "<script>alert(1)</script>" in visit.page.inner_text("h1")
        assert "<script>" in visit.page.inner_text("#alternatives")
        assert visit.page.locator("img").count() == 0


def test_dark_mode_follows_the_system_and_the_button_overrides_it(browser, report):
    with (
        opened(browser, report) as light,
        opened(browser, report, scheme="dark") as dark,
    ):
        assert light.ground() != dark.ground()
        night = dark.ground()
        light.page.click("#theme")
        assert light.ground() == night
        light.page.reload()
        assert light.ground() == night, "the choice is kept"


def test_curves_follow_the_dark_page(browser, report):
    colour = "getComputedStyle(document.querySelector('.plot .s-val')).stroke"
    with (
        opened(browser, report) as light,
        opened(browser, report, scheme="dark") as dark,
    ):
        assert light.page.evaluate(colour) != dark.page.evaluate(colour)


def test_pointing_at_a_curve_tells_what_was_measured_there(browser, report):
    with opened(browser, report) as visit:
        plot = visit.page.locator("[data-plot=pretrain] svg:visible")
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        readout = visit.page.locator("[data-readout=pretrain]")
        assert readout.inner_text().startswith("step 600")
        visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        step = int(readout.inner_text().split()[1])
        assert 250 <= step <= 350


def test_the_slider_shows_one_moment_and_all_shows_them_all(browser, report, data):
    with opened(browser, report, size=PHONE) as visit:
        moments = visit.page.locator("#samples > li:visible")
        assert moments.count() == 1
        visit.page.locator("#moment").focus()
        visit.page.keyboard.press("Home")
        assert visit.page.locator("#samples > li:visible h4").inner_text() == "Step 1"
        visit.page.click("#all")
        assert moments.count() == len({sample["step"] for sample in data["pretrain"]["samples"]})


def test_arrow_keys_walk_through_the_tokens(browser, report, data):
    with opened(browser, report) as visit:
        chosen = visit.page.locator("#passage .chosen")
        chosen.focus()
        visit.page.keyboard.press("Home")
        visit.page.keyboard.press("ArrowRight")
        assert visit.page.locator("#passage .tok").nth(1).get_attribute("aria-selected") == "true"
        assert "·was" in visit.page.inner_text("#alternatives")


def test_choosing_a_token_shows_what_it_looks_at(browser, report, data):
    with opened(browser, report, size=PHONE) as visit:
        visit.page.locator("#strip .tok").first.click()
        assert "100%" in visit.page.inner_text("#attention-readout"), (
            "the first token can only look at itself"
        )


def test_answers_can_be_filtered(browser, report, data):
    with opened(browser, report) as visit:
        visit.page.click("#filter [data-show=wrong]")
        n_wrong = sum(not answer["correct"] for answer in data["instruct"]["answers"])
        assert visit.page.locator("#answers > li:visible").count() == n_wrong


def test_everything_can_be_read_without_the_script(browser, report, data):
    context = browser.new_context(java_script_enabled=False, viewport=PHONE)
    page = context.new_page()
    page.goto(report.as_uri())
    n_moments = len({sample["step"] for sample in data["pretrain"]["samples"]})
    assert page.locator("#samples > li:visible").count() == n_moments
    assert page.locator("button:visible").count() == 0, "no button that would do nothing"
    context.close()


def test_text_in_curves_never_overlaps(browser, report):
    overlaps = """() => {
      const hits = [];
      for (const svg of document.querySelectorAll('.plot svg')) {
        const texts = [...svg.querySelectorAll('text')]
          .map((text) => [text.textContent, text.getBoundingClientRect()]);
        const boxes = texts.filter(([, box]) => box.width);
        boxes.forEach(([a, r], i) => boxes.slice(i + 1).forEach(([b, s]) => {
          const isBeside = r.left >= s.right - 1 || s.left >= r.right - 1;
          const isAbove = r.top >= s.bottom - 2 || s.top >= r.bottom - 2;
          if (!isBeside && !isAbove) hits.push([a, b]);
        }));
      }
      return hits;
    }"""
    for size in (PHONE, DESKTOP):
        with opened(browser, report, size=size) as visit:
            assert visit.page.evaluate(overlaps) == []


def test_no_table_of_a_plain_run_is_cut_on_a_desktop(browser, report):
    cut = """() => [...document.querySelectorAll('.scroll')]
      .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.getAttribute('aria-label'))"""
    with opened(browser, report) as visit:
        assert visit.page.evaluate(cut) == []
