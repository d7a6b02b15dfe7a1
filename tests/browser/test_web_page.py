"""The server's page in a real browser, with models that were trained in the test."""

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from scratchlm.generation.engine import Engine
from scratchlm.serving.models import ModelSource
from tests.browser.web_server import Visit, web_models, web_server
from tests.browser.window import DESKTOP, PHONE
from tests.serving.conftest import running

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.browser

VIEWS = ("write", "microscope", "inside", "tokens", "classify", "train", "judge", "model")
DONE = {"state": "detached"}


@pytest.fixture(scope="module")
def server(tmp_path_factory, browser) -> Iterator[Any]:
    with web_server(tmp_path_factory.mktemp("models")) as one:
        yield one


@pytest.fixture
def visit(browser, server) -> Iterator[Visit]:
    with Visit(browser, server) as one:
        yield one


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_view_opens_at_its_own_address_and_from_the_navigation(browser, server, size):
    with Visit(browser, server, size=size) as visit:
        for view in VIEWS:
            page = visit.open(view)
            assert page.locator("nav [aria-current=page]").get_attribute("href") == f"#/{view}"
            assert page.locator("main h1").inner_text().lower() == view
            assert page.locator("main .problem").count() == 0
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        page.click("nav >> text=Tokens")
        page.wait_for_selector(".view-tokens .chip")


def test_an_answer_streams_and_can_be_stopped(visit, server, monkeypatch):
    step = Engine.step

    def slow_step(engine):
        time.sleep(0.01)  # as a larger model
        return step(engine)

    monkeypatch.setattr(Engine, "step", slow_step)
    page = visit.open("write?model=tiny/base&max_tokens=1024&temperature=0")
    page.fill(".composer textarea", "Once upon")
    page.keyboard.press("Enter")
    page.wait_for_selector("answer-card.running .answer-text:not(:empty)")
    lengths = {len(page.inner_text(".answer-text")) for _ in range(100)}
    assert len(lengths) > 1, "it grows"
    page.click("button.stop")
    page.wait_for_selector("text=stopped")
    assert server.wait_until_idle()
    assert len(page.inner_text(".answer-text")) > 0
    page.click("text=Add to the text")
    assert page.input_value(".composer textarea").startswith("Once upon")


def test_several_answers_of_two_models_stand_side_by_side_and_one_seed_gives_one_text(visit):
    page = visit.open("write?model=tiny/base&other=tiny/assistant&mode=text&n=2&max_tokens=12&seed=7")
    texts = []
    for _ in range(2):
        page.fill(".composer textarea", "The dog")
        page.keyboard.press("Enter")
        page.wait_for_selector("answer-card.running", **DONE)
        page.wait_for_selector(".stop", **DONE)
        texts.append(page.locator(".answer-text").all_inner_texts())
    assert page.locator("answer-card .head").all_inner_texts() == ["tiny/base"] * 2 + ["tiny/assistant"] * 2
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1], "copies of one seed differ"
    page.click("text=Regenerate")
    page.wait_for_selector(".stop", **DONE)
    assert page.locator(".answer-text").all_inner_texts() != texts[0], "another seed"


def test_a_conversation_can_be_edited_and_an_answer_continued(visit, server):
    page = visit.open("write?model=tiny/assistant&max_tokens=8")
    page.fill(".composer textarea", "Who sat?")
    page.click("text=Send")
    page.wait_for_selector(".stop", **DONE)
    page.fill(".composer textarea", "And then?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".stop", **DONE)
    assert page.locator(".turn").count() == 2
    page.locator("answer-card").first.get_by_role("button", name="Edit").click()
    page.fill(".edit textarea", "A cat sat")
    page.click("text=Continue from here")
    page.wait_for_selector(".stop", **DONE)
    assert page.locator(".turn").count() == 1, "what came after is gone"
    assert page.inner_text(".answer-text").startswith("A cat sat")
    page.click("[aria-label='Edit your message']")
    page.fill(".request textarea", "Who ran?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".stop", **DONE)
    assert page.inner_text(".request p") == "Who ran?"


def test_an_assistant_of_single_questions_gets_each_question_alone(visit):
    def single(route):
        found = route.fetch().json()
        for model in found["data"]:
            model["supports_conversations"] = False
        route.fulfill(json=found)

    asked = []
    visit.page.route("**/v1/models", single)
    visit.page.on(
        "request", lambda one: one.url.endswith("/chat/completions") and asked.append(one.post_data_json)
    )
    page = visit.open("write?model=tiny/assistant&max_tokens=4")
    for n, question in enumerate(["Who sat?", "Who ran?"], start=1):
        page.fill(".composer textarea", question)
        page.keyboard.press("Enter")
        page.wait_for_selector(f".turn:nth-child({n}) answer-card:not(.running) .actions")
    assert [[one["content"] for one in body["messages"]] for body in asked] == [["Who sat?"], ["Who ran?"]]
    assert "trained on single questions" in page.inner_text("main")


def test_the_newest_turn_stays_in_sight(visit):
    page = visit.open("write?model=tiny/assistant&max_tokens=4&temperature=0")
    for n in range(1, 8):
        page.fill(".composer textarea", "who?\nwhat?")
        page.keyboard.press("Enter")
        page.wait_for_selector(f".turn:nth-child({n}) answer-card:not(.running) .actions")
    answer = page.locator("answer-card").last.bounding_box()
    assert answer["y"] + answer["height"] <= page.locator(".composer").bounding_box()["y"]
    assert page.evaluate("scrollY") > 0


def test_settings_are_in_the_address_and_come_back_from_it(visit):
    page = visit.open("write?model=tiny/base")
    page.click("text=Greedy")
    page.get_by_label("Length", exact=True).fill("17")
    page.fill(".composer textarea", "Hello & <b>")
    page.wait_for_url("**Hello*")
    address = page.url
    assert "temperature=0" in address
    assert "max_tokens=17" in address
    page = visit.open("model")
    page.goto(address)
    page.wait_for_selector("sampling-controls")
    assert page.get_by_label("Length", exact=True).input_value() == "17"
    assert page.get_by_label("Temperature", exact=True).input_value() == "0"
    assert page.input_value(".composer textarea") == "Hello & <b>"


@pytest.mark.parametrize("address", ["write?model=gone/model", "inside?model=tiny/base&other=gone/model"])
def test_a_link_to_a_model_that_is_not_here_says_so(visit, address):
    page = visit.open(address)
    assert "names gone/model, which this server does not have" in page.inner_text("main > .problem")
    page.click("nav >> text=Tokens")
    page.wait_for_selector(".view-tokens .chip")
    assert page.locator("main .problem").count() == 0


def test_the_microscope_shows_candidates_and_goes_on_from_another(visit):
    page = visit.open(
        "microscope?model=tiny/base&prompt=Once upon&max_tokens=12&top_k=5&temperature=1&top_p=1&token=3"
    )
    page.wait_for_selector("candidate-list h2")
    assert page.locator(".tok.chosen").get_attribute("data-i") == "3", "the selected token is in the address"
    page.focus(".tok.chosen")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.locator(".tok.chosen").get_attribute("data-i") == "1"
    page.wait_for_url("**token=1*")
    assert "top-k removed" in page.inner_text(".steps")
    assert page.locator(".candidates tbody tr.out").count() > 0
    before = page.locator("token-text .tok").all_inner_texts()
    other = page.locator(".candidates tbody tr:not(.taken) button").first
    word = other.inner_text()
    other.click()
    page.wait_for_selector(".branches")
    after = page.locator("token-text .tok").all_inner_texts()
    assert after[0] == before[0]
    assert after[1].replace(" ", "·") == word != before[1].replace(" ", "·")
    page.click("text=first text")
    assert page.locator("token-text .tok").all_inner_texts() == before


def test_norms_are_read_after_the_layer_that_they_belong_to(visit):
    page = visit.open("inside?model=tiny/base&prompt=the cat&tab=norms")
    page.wait_for_selector("line-chart svg")
    assert page.inner_text("line-chart output").startswith("after layer 1: residual stream")
    page.focus("line-chart svg")
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    readout = page.inner_text("line-chart output")
    assert readout.startswith("embedding: residual stream")
    assert "added" not in readout


def test_decoders_and_the_tree_of_a_beam_search(visit):
    page = visit.open("microscope?model=tiny/base&max_tokens=6&tab=decoders")
    page.click("text=Generate")
    page.wait_for_selector(".view-microscope .busy", **DONE)
    assert page.locator(".columns .facts-line").count() == 8
    page.click("role=tab[name='Beam search']")
    page.click("text=Generate")
    page.wait_for_selector("beam-tree svg")
    assert page.locator("table.plain tbody tr").count() == 4
    shown = page.locator("beam-tree .node").count()
    page.check("text=Show dropped candidates")
    assert page.locator("beam-tree .node").count() > shown
    boxes = page.eval_on_selector_all(
        "beam-tree .node rect", "all => all.map((one) => one.getBoundingClientRect().toJSON())"
    )
    rows = sorted({round(one["y"]) for one in boxes})
    assert len({(round(one["x"]), round(one["y"])) for one in boxes}) == len(boxes), "none hides another"
    assert max(b - a for a, b in pairwise(rows)) <= 31, "no row of 30 pixels is empty"
    page.set_viewport_size(PHONE)
    page.uncheck("text=Show dropped candidates")
    assert page.locator("beam-tree .node").count() == shown
    assert page.eval_on_selector("beam-tree .scroll", "one => one.scrollWidth - one.clientWidth") <= 0
    heights = page.eval_on_selector_all(
        "beam-tree .node", "all => all.map((one) => one.getBoundingClientRect().y)"
    )
    assert min(b - a for a, b in pairwise(sorted(heights))) > 10, "each token has a line of its own"


def test_tokens_are_shown_while_typing_with_their_merges(visit):
    page = visit.open("tokens?model=tiny/base")
    page.fill("textarea", "the cat")
    page.wait_for_selector(".chip >> text=·cat")
    assert "the" in page.locator("[aria-label=Words] .chip").first.inner_text()
    page.click("button.chip >> text=·cat")
    merges = page.locator(".merges li").all_inner_texts()
    assert merges[0].split() == ["bytes", "·", "c", "a", "t"]
    assert merges[-1].split()[-1] == "·cat"


def test_messages_are_classified_and_saved(visit, tmp_path):
    page = visit.open("classify")
    page.fill("textarea", "the cat sat\n=1+1\n\n")
    page.get_by_role("button", name="Classify").click()
    page.wait_for_selector(".items")
    assert page.locator(".items li").count() == 2
    with page.expect_download() as download:
        page.click("text=Save as CSV")
    lines = (
        (tmp_path / "labels.csv", download.value.save_as(tmp_path / "labels.csv"))[0].read_text().splitlines()
    )
    assert lines[0] == "text,label,probability,ham,spam"
    assert lines[2].startswith("'=1+1,"), "no spreadsheet takes it for a formula"
    file = {"name": "a.csv", "mimeType": "text/csv", "buffer": b'id,text\n1,"a, ""b"""\n2,the dog\n3,x\n'}
    page.set_input_files("input[type=file]", file)
    page.wait_for_selector("h2 >> text=3 messages")
    assert page.locator(".items .model").first.inner_text() == 'a, "b"'


@pytest.mark.parametrize(
    ("view", "name"), [("microscope", "Generate"), ("inside", "Look inside"), ("classify", "Classify")]
)
def test_without_a_text_the_box_asks_for_one(visit, view, name):
    page = visit.open(view)
    page.fill("textarea", " ")
    page.get_by_role("button", name=name, exact=True).click()
    assert page.eval_on_selector("textarea", "box => box.validationMessage") == "Type a text first."
    assert page.eval_on_selector("textarea", "box => box === document.activeElement")
    page.fill("textarea", "the cat")
    assert page.eval_on_selector("textarea", "box => box.validity.valid")


def test_a_running_training_is_followed(visit):
    page = visit.open("train")
    page.wait_for_selector("line-chart svg")
    first = page.inner_text(".figures")
    page.wait_for_timeout(3500)
    assert page.inner_text(".figures") != first, "the figures of a running run move on"
    assert "of 1,000" in page.inner_text(".figures")
    page.check("[aria-label='Show day']")
    page.wait_for_selector("text=Loss of night and day")
    page.uncheck("[aria-label='Show night']")
    page.click("text=Report of this run")
    report = page.frame_locator("iframe.report")
    assert report.locator("p").inner_text() == "the report and its script"
    assert report.locator("p").evaluate("window.origin") == "null", "it cannot reach the page"


def test_runs_are_started_and_stopped_behind_a_confirmation(browser, tmp_path):
    with web_server(tmp_path) as server, Visit(browser, server, size=PHONE) as visit:
        page = visit.open("train")
        page.click("text=Start a quickstart")
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog", **DONE)
        page.click("text=Start a quickstart")
        page.fill("dialog input", "7")
        page.click("text=Start training")
        page.wait_for_selector("[aria-label='Show seed 7']:checked")
        assert page.locator(".runs input").count() == 3, "the first dialog started none"
        page.click("[aria-label='Stop night']")
        page.click("dialog >> text=Cancel")
        page.click("[aria-label='Stop night']")
        page.click("text=Stop the run")
        page.wait_for_selector("[aria-label='Stop night']", **DONE)


def test_answers_stand_beside_their_references(visit):
    page = visit.open("judge?run=day")
    page.wait_for_selector(".items li")
    assert page.locator(".items li h2").all_inner_texts() == ["a cat", "a dog"], "the lowest score first"
    page.select_option("select >> nth=2", "wrong")
    assert page.locator(".items li h2").all_inner_texts() == ["a dog"]
    page.select_option("select >> nth=2", "all")
    page.fill("input[type=search]", "cat")
    page.wait_for_selector("text=1 item of 2")


def test_the_weights_of_a_part_are_shown(visit):
    page = visit.open("model?model=tiny/base")
    page.click("text=Block 1")
    page.wait_for_selector(".histogram")
    assert page.locator(".histogram code").first.inner_text() == "att.W_query.weight"


def test_dark_follows_the_system_and_the_button(browser, server):
    ground = "getComputedStyle(document.body).backgroundColor"
    with Visit(browser, server) as light, Visit(browser, server, scheme="dark") as dark:
        assert light.open("write").evaluate(ground) != dark.open("write").evaluate(ground)
        light.page.click("#theme")
        assert light.page.evaluate(ground) == dark.page.evaluate(ground)


def test_a_model_that_was_trained_meanwhile_is_offered_in_the_next_view(browser, tmp_path, monkeypatch):
    monkeypatch.setattr("scratchlm.serving.service.LOOK_EVERY_S", 0)
    later = [one for one in web_models(tmp_path) if one.id == "tiny/base"]
    later[0].source = ModelSource("night/new", "runs/night/new")
    found: list[Any] = []
    models = web_models(tmp_path)
    with (
        running(models, new_models=lambda: [found.pop()] if found else []) as server,
        Visit(browser, server) as visit,
    ):
        page = visit.open("write")
        assert "night/new" not in page.inner_text(".choices select >> nth=0")
        found += later
        page.wait_for_timeout(2100)
        page.click("nav >> text=Microscope")
        page.wait_for_selector("option:has-text('night/new')", state="attached")
