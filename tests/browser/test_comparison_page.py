"""A comparison in a real browser: three runs and a thousand items, without network, on a desktop and on a phone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scratchlm.reports.comparison_page import render_comparison
from scratchlm.reports.paired_items import PER_PAGE, Column, ModelAnswer, pair_items
from tests.browser.window import DESKTOP, PHONE, Window

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.browser

N_ITEMS = 1000
MAX_NODES = 2500  # elements in the whole page, however many items there are
# "earlier" cannot be pressed on the first page
CONTROLS = ("find", "which", "skill", "order", "page", "later")
HOSTILE = "<script>alert(1)</script><img src=https://example.org/x onerror=alert(2)>"


def runs() -> list[dict[str, Any]]:
    path = Path(__file__).parent.parent / "reports" / "run_page_data.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    del data["instruct"]["by_skill"]
    judged = {"judge": "ollama:llama3", "max": 100, "mean": 50, "low": 48, "high": 52, "scored": N_ITEMS}
    return [
        {
            **data,
            "label": label,
            "state": "complete",
            "stages_planned": ["pretrain", "classify", "instruct"],
            "settings": {"model": {"n_layers": i, "emb_dim": 64}, "pretrain": {"seed": 0}},
            "judged": {**judged, "scores": list(range(0, 100, 7))},
        }
        for i, label in enumerate(("small", "wide", "deep"))
    ]


def paired() -> Any:
    columns = []
    for k, label in enumerate(("small", "wide", "deep")):
        asked, given = [], []
        for i in range(N_ITEMS):
            asked.append(
                {
                    "instruction": f"Question number {i}",
                    "input": HOSTILE if i == 7 else "",
                    "reference": f"reference {i}",
                    "skill": ("adding", "naming")[i % 2],
                }
            )
            score = None if i % 100 == 99 and k == 2 else float((i * (7 + 4 * k)) % 101)
            given.append(
                ModelAnswer(
                    text="" if i % 250 == 0 else f"{label} answers {i}",
                    score=score,
                    right=i % 3 == k,
                    words=f"I give this {score}." if i % 2 else "",
                    status="scored" if score is not None else "unparsed",
                )
            )
        columns.append(
            Column(label=label, score_name="score by x", score_max=100, asked=asked, given=given, run=k)
        )
    return pair_items(columns)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(render_comparison({"title": "Three runs", "runs": runs()}, paired()), encoding="utf-8")
    return file


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(request, browser, page_file) -> Iterator[Any]:
    """The page with the network switched off; it must say nothing and ask for nothing, whatever a test does to it."""
    with Window(browser, size=request.param, offline=True) as window:
        window.page.goto(page_file.as_uri())
        yield window.page


def numbers(page) -> list[int]:
    """Which items stand in the page, in order."""
    words = page.locator("#item-list .number").all_inner_texts()
    return [int(text.split()[1].replace(",", "")) for text in words]


def n_nodes(page) -> int:
    return page.evaluate("document.querySelectorAll('*').length")


def test_a_thousand_items_never_stand_in_the_page_at_once(page):
    assert numbers(page) == list(range(1, PER_PAGE + 1))
    assert page.inner_text("#found") == f"Items 1 to {PER_PAGE} of 1,000"
    assert n_nodes(page) < MAX_NODES
    most = n_nodes(page)
    for order in page.locator("#order option").evaluate_all("all => all.map((one) => one.value)"):
        page.select_option("#order", order)
        page.fill("#find", "answers")
        page.fill("#find", "")
        assert len(numbers(page)) == PER_PAGE
        assert n_nodes(page) < most + 200, "what was shown before is gone"


def test_searching_finds_what_is_anywhere_and_marks_it(page):
    page.fill("#find", "WIDE answers 77")
    assert numbers(page) == [78, *range(771, 780)]
    assert page.locator("#item-list mark").first.inner_text() == "wide answers 77"
    page.fill("#find", "reference 512")
    assert numbers(page) == [513]
    page.fill("#find", "no such words")
    assert page.inner_text("#found") == "No item matches."
    assert numbers(page) == []


def test_sorting_by_difference_puts_the_widest_gap_first(page):
    page.select_option("#order", "spread")
    items = paired().items
    widest = sorted(range(N_ITEMS), key=lambda i: (-items[i].spread, i))[:PER_PAGE]
    assert [n - 1 for n in numbers(page)] == widest


def test_filters_keep_what_they_say(page):
    items = paired().items
    kept = {
        "best-1": lambda scores: None not in scores and scores[1] > max(scores[0], scores[2]),
        "unscored": lambda scores: None in scores,
    }
    for which, keeps in kept.items():
        page.select_option("#which", which)
        expected = [i for i in range(N_ITEMS) if keeps([a.score for a in items[i].answers])]
        assert [n - 1 for n in numbers(page)] == expected[:PER_PAGE]
        assert f"of {len(expected)}" in page.inner_text("#found")
    page.select_option("#which", "empty")
    page.select_option("#skill", "naming")
    assert numbers(page) == []
    page.select_option("#skill", "adding")
    assert numbers(page) == [1, 251, 501, 751]


def test_pages_are_turned_by_keyboard_and_by_number(page):
    page.focus("#later")
    page.keyboard.press("Enter")
    assert numbers(page)[0] == PER_PAGE + 1
    page.fill("#page", "100")
    page.keyboard.press("Enter")
    assert numbers(page)[-1] == N_ITEMS
    assert page.is_disabled("#later")
    page.fill("#page", "999")
    page.keyboard.press("Tab")
    assert page.input_value("#page") == "100"
    page.fill("#find", "reference 51")
    assert page.input_value("#page") == "1", "a new search begins at its first page"


def test_every_control_can_be_reached_by_tab(page):
    page.focus("#find")
    reached = []
    for _ in range(60):
        reached.append(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    controls = [one for one in dict.fromkeys(reached) if one in CONTROLS]
    assert tuple(controls) == CONTROLS


def test_hostile_answers_are_text(page):
    page.fill("#find", "onerror")
    assert numbers(page) == [8]
    assert HOSTILE in page.inner_text("#item-list")
    assert page.locator("#item-list img").count() == 0


def test_the_judges_words_open_and_are_opened_by_a_search_for_them(page):
    page.fill("#find", "question number 501")
    assert not page.locator(".words:visible").count()
    page.locator("#item-list summary").first.click()
    assert "I give this" in page.locator(".words:visible").first.inner_text()
    page.fill("#find", "i give this 97")
    assert "I give this 97" in page.locator(".words:visible").first.inner_text()


def test_only_settings_that_differ_are_shown_until_all_are_asked_for(page):
    shown = page.locator(".settings tbody tr:visible")
    assert shown.count() == 1
    page.locator("#all-settings").focus()
    page.keyboard.press("Space")
    assert shown.count() == 3


def test_pointing_at_a_curve_tells_of_every_run(page):
    readout = page.locator("[data-readout=pretrain]").inner_text()
    assert all(label in readout for label in ("small", "wide", "deep"))


def test_without_the_script_the_first_items_and_all_figures_are_there(browser, page_file):
    context = browser.new_context(java_script_enabled=False, viewport=PHONE, offline=True)
    opened = context.new_page()
    opened.goto(page_file.as_uri())
    assert opened.locator("#item-list > li:visible").count() == PER_PAGE
    assert opened.locator("button:visible, form:visible").count() == 0, "nothing that would do nothing"
    assert "items.csv" in opened.inner_text("#items")
    assert opened.locator(".settings tbody tr:visible").count() == 1
    opened.check("#all-settings")
    assert opened.locator(".settings tbody tr:visible").count() == 3
    context.close()


def test_runs_look_different_in_the_dark_too(browser, page_file):
    colours = []
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport=DESKTOP, color_scheme=scheme)
        opened = context.new_page()
        opened.goto(page_file.as_uri())
        colours.append(
            opened.evaluate(
                "['run1', 'run2', 'run3'].map((r) => getComputedStyle(document.querySelector(`.runs .s-${r}`)).stroke)"
            )
        )
        context.close()
    assert len({*colours[0], *colours[1]}) == 6
