"""Nothing is asked twice, and nothing is lost."""

import threading
import time

import pytest

from scratchlm.core.errors import ServiceError
from scratchlm.evaluation.judge.reply_store import ReplyCache, ReplyStore

QUESTION = [{"role": "user", "content": "How good?"}]


class Lines:
    def __init__(self):
        self.kept = []

    def add(self, key, reply):
        self.kept.append((key, reply))


def test_a_reply_is_asked_once_and_written_down_once(scripted_judge):
    judge, journal = scripted_judge(lambda messages: "85"), Lines()
    store = ReplyStore(judge, journal=journal)
    assert store.ask(QUESTION) == store.ask(QUESTION) == (store.key(QUESTION), "85")
    assert journal.kept == [(store.key(QUESTION), "85")]
    assert len(judge.asked) == store.n_asked == 1


def test_threads_that_ask_the_same_at_once_share_one_call(scripted_judge):
    judge = scripted_judge(lambda messages: time.sleep(0.05) or "85")
    store, said = ReplyStore(judge), []
    threads = [threading.Thread(target=lambda: said.append(store.ask(QUESTION)[1])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (said, len(judge.asked)) == (["85"] * 4, 1)


def test_what_an_earlier_run_was_told_is_not_asked(scripted_judge):
    judge = scripted_judge(lambda messages: "85")
    key = ReplyStore(judge).key(QUESTION)
    assert ReplyStore(judge, known={key: "70"}).ask(QUESTION) == (key, "70")
    assert judge.asked == []


def test_a_cache_serves_other_runs_of_the_same_judge_only(tmp_path, scripted_judge):
    cache = ReplyCache(tmp_path)
    judge, journal = scripted_judge(lambda messages: "85"), Lines()
    ReplyStore(judge, cache=cache).ask(QUESTION)
    again = ReplyStore(judge, cache=cache, journal=journal)
    assert again.ask(QUESTION)[1] == "85"
    assert (again.n_asked, len(journal.kept)) == (0, 1)
    other = scripted_judge(lambda messages: "10", identity="fake:judge with another seed")
    assert ReplyStore(other, cache=cache).ask(QUESTION)[1] == "10"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": "another", "reply": "0"}', '{"reply": "0"}'])
def test_a_damaged_cache_is_asked_again_and_mended(tmp_path, scripted_judge, damage):
    judge = scripted_judge(lambda messages: "85")
    ReplyStore(judge, cache=ReplyCache(tmp_path)).ask(QUESTION)
    (file,) = tmp_path.rglob("*.json")
    file.write_text(damage)
    assert ReplyStore(judge, cache=ReplyCache(tmp_path)).ask(QUESTION)[1] == "85"
    assert ReplyCache(tmp_path).get(ReplyStore(judge).key(QUESTION)) == "85"


def test_a_call_that_failed_is_kept_nowhere_and_may_be_tried_again(tmp_path, scripted_judge):
    replies = iter([None, "85"])
    store = ReplyStore(
        scripted_judge(lambda messages: next(replies)), journal=Lines(), cache=ReplyCache(tmp_path)
    )
    with pytest.raises(ServiceError):
        store.ask(QUESTION)
    assert list(tmp_path.rglob("*.json")) == []
    assert store.ask(QUESTION)[1] == "85"


def test_role_judge_and_words_all_decide_the_key(scripted_judge):
    store = ReplyStore(scripted_judge(str))
    keys = {
        store.key(QUESTION),
        store.key([{"role": "system", "content": "How good?"}]),
        store.key([*QUESTION, *QUESTION]),
        ReplyStore(scripted_judge(str, identity="b")).key(QUESTION),
    }
    assert len(keys) == 4


def test_odd_characters_survive_the_cache(tmp_path):
    text = "ä\u2028\ud800 \x00 \U0001f600"
    ReplyCache(tmp_path).add("ab", text)
    assert ReplyCache(tmp_path).get("ab") == text
