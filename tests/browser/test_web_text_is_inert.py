"""Hostile text, wherever it comes from, is shown as text in the server's page and never runs."""

from collections.abc import Iterator
from typing import Any

import pytest

from scratchlm.serving.models import ModelSource, served
from scratchlm.tokenizers.bpe_trainer import train_bpe
from tests.browser.web_server import GrowingRuns, Visit, trained, web_models
from tests.serving.conftest import running

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.browser

CODE = "window.ran=(window.ran||0)+1"
TAGS = (
    f"<script>{CODE}</script>",
    f"<img src=x onerror={CODE}>",
    f"<svg onload={CODE}>",
    f"<body onload={CODE}>",
    f"<iframe srcdoc='<script>parent.{CODE}</script>'>",
    f"<a href=javascript:{CODE} autofocus onfocus={CODE}>x</a>",
    f"<details open ontoggle={CODE}>",
    f"<style>*{{background:url(https://example.org/x)}}</style><input autofocus onfocus={CODE}>",
    f"<math><mtext></style><img src=https://example.org/y onerror={CODE}>",
    f"javascript:{CODE}//<template><script>{CODE}</script></template>",
)
WRAPPERS = (
    "{}",
    '">{}',
    "'>{}",
    "</textarea>{}",
    "</title>{}",
    "</script>{}",
    "--><!--{}",
    "]]>{}",
    "${{{}}}",
    "\u202e{}",
)
PAYLOADS = [wrapper.format(tag) for tag in TAGS for wrapper in WRAPPERS]
SPOKEN = TAGS[1]  # what a model was trained to say


@pytest.fixture(scope="module")
def server(tmp_path_factory, browser) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("hostile")
    hostile = trained(SPOKEN, train_bpe([SPOKEN], 270), folder, n_steps=60)
    models = [*web_models(folder), served(ModelSource(PAYLOADS[1], "runs/hostile"), hostile)]
    with running(models, runs=GrowingRuns(PAYLOADS, TAGS[1])) as one:
        yield one


@pytest.fixture
def visit(browser, server) -> Iterator[Visit]:
    with Visit(browser, server) as one:
        yield one
        assert one.page.evaluate("window.ran") is None
        assert (
            one.page.locator(
                "main :is(script, img, style, iframe:not(.report), math, template, body)"
            ).count()
            == 0
        )


def test_there_are_a_hundred_payloads():
    assert len(set(PAYLOADS)) == 100


def test_what_a_user_writes_and_what_is_in_a_link(visit):
    page = visit.open("tokens?model=tiny/base")
    page.fill("textarea", "\n".join(PAYLOADS))
    page.wait_for_selector("[aria-label=Words] .chip:nth-child(500)")
    page = visit.open("write?model=tiny/assistant&max_tokens=2")
    page.fill(".composer textarea", "\n".join(PAYLOADS[:40]))
    page.keyboard.press("Enter")
    page.wait_for_selector(".request")
    page.wait_for_selector(".stop", state="detached")
    assert PAYLOADS[0] in page.inner_text(".request")
    page.goto(page.url.replace("write?", f"{PAYLOADS[0]}?"))
    page.wait_for_selector("main h1")


def test_what_a_model_writes_and_is_called(visit):
    page = visit.open("write?mode=text&colours=1&temperature=0&max_tokens=40")
    page.select_option("select >> nth=0", label=PAYLOADS[1])
    page.fill(".composer textarea", SPOKEN + " ")
    page.keyboard.press("Enter")
    page.locator("answer-card", has_text=SPOKEN[:20]).wait_for()  # the model says what it was trained on
    page.wait_for_selector(".stop", state="detached")
    page = visit.open("microscope?tab=beams")
    page.select_option("select >> nth=0", label=PAYLOADS[1])
    page.fill("textarea", SPOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("beam-tree svg")
    page.click("role=tab[name='Token by token']")
    page.click("text=Generate")
    page.wait_for_selector("candidate-list h2")


def test_messages_and_names_of_files(visit):
    page = visit.open("classify")
    body = "\n".join(PAYLOADS).encode()
    page.set_input_files(
        "input[type=file]", {"name": f"{PAYLOADS[1][:40]}.txt", "mimeType": "text/plain", "buffer": body}
    )
    page.wait_for_selector("h2 >> text=100 messages")
    assert page.locator(".items .model").all_inner_texts()[:2] == PAYLOADS[:2]


def test_names_samples_and_answers_of_runs(visit):
    page = visit.open("train")
    page.wait_for_selector("line-chart svg")
    page.locator("input[type=checkbox]").nth(1).check()
    page.wait_for_selector(".samples .model")
    assert PAYLOADS[0] in page.inner_text("main")
    page = visit.open("judge")
    for _ in range(5):
        page.wait_for_selector(".items li")
        for words in page.locator("details").all():
            words.evaluate("element => { element.open = true; }")
        if page.locator("button:text-is('Next')").is_enabled():
            page.click("button:text-is('Next')")
    assert "page 5 of 5" in page.inner_text("main")
